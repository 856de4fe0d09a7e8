//! The admin server: on loopback, and closed to browsers.
//!
//! There is no authentication, as with Istio's: who reaches loopback of the proxy's own namespace
//! may already do more. A web page could make an operator's browser reach it through a port
//! forward, so a request that names a foreign host or comes from a page is refused, and nothing
//! changes by GET.

use std::fmt;
use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::Arc;

use http::request::Parts;
use http::uri::Authority;
use http::{Method, Response, StatusCode, header};

use super::body::{Body, answer, text, wrong_method};
use super::http::Handler;
use crate::logging::Control;

const INDEX: &str = "<!DOCTYPE html>\n<html lang=\"en\"><head><title>admin</title></head><body><ul>\n\
    <li><a href=\"config_dump\">config_dump</a>: what this proxy knows, as JSON</li>\n\
    <li>logging: POST shows the log level; ?level=debug or ?level=module=debug changes it, \
    &amp;reset goes back first</li>\n\
    <li>quitquitquit: POST shuts the proxy down</li>\n</ul></body></html>\n";

/// Writes everything that a program knows, as JSON.
pub trait ConfigDump: Send + Sync + 'static {
    /// Writes the document; on a thread that may block, never on one that carries traffic.
    ///
    /// # Errors
    ///
    /// Whatever `out` fails with: the client is gone.
    fn write(&self, out: &mut dyn Write) -> io::Result<()>;
}

/// Serves `/`, `/config_dump`, `/logging` and `/quitquitquit`.
pub struct Admin {
    dump: Arc<dyn ConfigDump>,
    logging: Control,
    quit: Box<dyn Fn() + Send + Sync>,
}

impl Admin {
    /// Dumps `dump`, steers `logging`, and calls `quit` when asked to shut down.
    pub fn new(
        dump: Arc<dyn ConfigDump>,
        logging: Control,
        quit: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self {
            dump,
            logging,
            quit: Box::new(quit),
        }
    }

    fn dump(&self) -> Response<Body> {
        let (writer, body) = Body::pieces();
        let dump = Arc::clone(&self.dump);
        // The task ends with its writer: when the client is gone, writing fails.
        drop(tokio::task::spawn_blocking(move || {
            let mut writer = writer;
            let written = dump.write(&mut writer).and_then(|()| writer.flush());
            if let Err(error) = written {
                tracing::debug!(%error, "the dump was not read to its end");
            }
        }));
        answer(StatusCode::OK, "application/json", body)
    }

    fn logging(&self, query: &str) -> Response<Body> {
        let mut level = None;
        let mut reset = false;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match (key, decode(value)) {
                ("level", Some(value)) => level = Some(value),
                ("reset", _) => reset = true,
                _ => return text(StatusCode::BAD_REQUEST, "unknown parameter\n"),
            }
        }
        let filter = if level.is_none() && !reset {
            Ok(self.logging.filter())
        } else {
            self.logging.change(level.as_deref(), reset)
        };
        match filter {
            Ok(filter) => text(StatusCode::OK, format!("current log level is {filter}\n")),
            Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        }
    }
}

impl Handler for Admin {
    async fn handle(&self, request: Parts) -> Response<Body> {
        if !is_from_here(&request) {
            return text(
                StatusCode::FORBIDDEN,
                "only for local clients that are no web page\n",
            );
        }
        let is_post = request.method == Method::POST;
        let is_read = matches!(request.method, Method::GET | Method::HEAD);
        match request.uri.path() {
            "/" if is_read => answer(StatusCode::OK, "text/html; charset=utf-8", INDEX),
            "/config_dump" if is_read => self.dump(),
            "/logging" if is_post => self.logging(request.uri.query().unwrap_or_default()),
            "/quitquitquit" if is_post => {
                tracing::info!("asked to shut down over the admin port");
                (self.quit)();
                text(StatusCode::OK, "shutdown now\n")
            }
            "/" | "/config_dump" => wrong_method("GET, HEAD"),
            "/logging" | "/quitquitquit" => wrong_method("POST"),
            _ => text(StatusCode::NOT_FOUND, "not found\n"),
        }
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

/// A browser sends `Origin` with every request that changes something, and cannot hide the name
/// that it looked up: a page that points its own name at loopback is told apart by `Host`.
fn is_from_here(request: &Parts) -> bool {
    if request.headers.contains_key(header::ORIGIN) {
        return false;
    }
    let mut hosts = request.headers.get_all(header::HOST).iter();
    let host_is_local = |value: &http::HeaderValue| {
        let authority = value.to_str().ok().and_then(|text| text.parse().ok());
        authority.is_some_and(|authority: Authority| is_local(&authority))
    };
    let named_in_uri = request.uri.authority();
    hosts.all(host_is_local) && named_in_uri.is_none_or(is_local)
}

fn is_local(authority: &Authority) -> bool {
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host();
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let ip: Result<IpAddr, _> = bare.unwrap_or(host).parse();
    host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
}

/// Percent-decoding; `None` if it is malformed or not UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let decoded = match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            other => other,
        };
        bytes.push(decoded);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
#[path = "admin/tests.rs"]
mod tests;
