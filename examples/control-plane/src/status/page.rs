//! The HTTP server of the status page.

use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode, Uri, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time,
};

use super::Status;

const MAX_CONNECTIONS: usize = 64;
const HEADERS: Duration = Duration::from_secs(2);
const REQUEST: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, status: Status) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    // Without a permit the connection is closed by dropping it.
                    if let Ok(permit) = Arc::clone(&permits).try_acquire_owned() {
                        let connection = connection(stream, status.clone());
                        connections.spawn(async move {
                            connection.await;
                            drop(permit);
                        });
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection to the status page");
                    time::sleep(PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, status: Status) {
    let service = service_fn(move |request| {
        let response = answer(&request, &status);
        async move { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if !matches!(time::timeout(REQUEST, served).await, Ok(Ok(()))) {
        tracing::debug!("a connection to the status page ended early");
    }
}

fn answer(request: &Request<Incoming>, status: &Status) -> Response<Full<bytes::Bytes>> {
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let (code, kind, text) = respond(request.method(), request.uri().path(), host, status);
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = code;
    let kind = header::HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

const TEXT: &str = "text/plain; charset=utf-8";

fn respond(
    method: &Method,
    path: &str,
    host: Option<&str>,
    status: &Status,
) -> (StatusCode, &'static str, String) {
    if !host.is_some_and(is_local) {
        return (
            StatusCode::FORBIDDEN,
            TEXT,
            "for this machine only\n".to_owned(),
        );
    }
    if method != Method::GET {
        return (
            StatusCode::METHOD_NOT_ALLOWED,
            TEXT,
            "only GET\n".to_owned(),
        );
    }
    match path {
        "/healthz/ready" => (StatusCode::OK, TEXT, "ready\n".to_owned()),
        "/status" => (StatusCode::OK, "application/json", status.report()),
        _ => (StatusCode::NOT_FOUND, TEXT, "try /status\n".to_owned()),
    }
}

/// A page of another site that resolves its name to this machine has that name as its host.
fn is_local(host: &str) -> bool {
    let Ok(uri) = host.parse::<Uri>() else {
        return false;
    };
    let name = uri.host().unwrap_or_default();
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost"
        || name
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::is_local;

    #[test]
    fn only_names_of_this_machine_are_served() {
        let _trace = meshwright_testkit::trace();
        for good in [
            "localhost",
            "localhost:15014",
            "127.0.0.1:15014",
            "[::1]:15014",
        ] {
            assert!(is_local(good), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "evil.example:15014",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "localhost.evil.example",
        ] {
            assert!(!is_local(bad), "{bad}");
        }
    }
}
