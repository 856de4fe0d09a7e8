//! The smallest HTTP/1.1 client: one request on one connection, from inside a namespace.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    time::Duration,
};

use crate::{Space, Step, WorldError};

/// Longest wait for a connection, and for each read.
const DEADLINE: Duration = Duration::from_secs(5);
/// Largest answer that is read; a `config_dump` of a small mesh is far below.
const LARGEST: u64 = 16 << 20;

/// An answer.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Body, without chunk framing.
    pub body: String,
}

/// Sends a GET request.
///
/// # Errors
///
/// Fails when nobody answers within five seconds or the answer is not HTTP/1.1.
pub fn get(space: &Space, addr: SocketAddr, path: &str) -> Result<Answer, WorldError> {
    request(space, addr, "GET", path)
}

/// Sends a POST request without a body.
///
/// # Errors
///
/// As [`get`].
pub fn post(space: &Space, addr: SocketAddr, path: &str) -> Result<Answer, WorldError> {
    request(space, addr, "POST", path)
}

fn request(
    space: &Space,
    addr: SocketAddr,
    method: &str,
    path: &str,
) -> Result<Answer, WorldError> {
    let mut stream = space.connect(addr, DEADLINE)?;
    let step = || format!("{method} http://{addr}{path}");
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    )
    .step(step())?;
    let mut bytes = Vec::new();
    stream.take(LARGEST).read_to_end(&mut bytes).step(step())?;
    parse(&String::from_utf8_lossy(&bytes)).ok_or_else(|| WorldError::new(step()))
}

/// Reads an answer that ended with its connection.
pub(crate) fn parse(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    let chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    let body = if chunked {
        unchunk(body)?
    } else {
        body.to_owned()
    };
    Some(Answer { status, body })
}

fn unchunk(mut rest: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (length, after) = rest.split_once("\r\n")?;
        let length = usize::from_str_radix(length.trim(), 16).ok()?;
        if length == 0 {
            return Some(body);
        }
        body.push_str(after.get(..length)?);
        rest = after.get(length..)?.strip_prefix("\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunked_answer_is_put_together() {
        let _trace = meshwright_testkit::trace();
        let text =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        let answer = parse(text).unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "abcde"));
    }

    #[test]
    fn cut_answer_is_refused() {
        let _trace = meshwright_testkit::trace();
        assert_eq!(
            parse("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc"),
            None
        );
        assert_eq!(parse("HTTP/1.1 200"), None);
    }
}
