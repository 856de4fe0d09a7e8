//! Clients: what an application in a pod would do, and what it sees.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::{Space, Step, WorldError};

mod conversation;
mod load;

pub use conversation::{Conversation, HttpConversation};
pub use load::{Load, LoadKind, LoadReport, LoadSpec, Talk};

/// What became of one attempt to talk.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Reach {
    /// The answer came.
    Answered(String),
    /// The connection was refused, closed or reset before an answer.
    Refused,
    /// Nothing came within the deadline.
    TimedOut,
}

impl Reach {
    /// Returns whether an answer came.
    pub const fn is_answered(&self) -> bool {
        matches!(self, Self::Answered(_))
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(text) => write!(f, "answered `{}`", text.trim_end()),
            Self::Refused => f.write_str("refused"),
            Self::TimedOut => f.write_str("timed out"),
        }
    }
}

/// Connects, sends a message and expects it back.
pub fn echo(space: &Space, addr: SocketAddr, message: &str, deadline: Duration) -> Reach {
    talk(space, addr, deadline, |stream| {
        stream.write_all(message.as_bytes())?;
        let mut answer = vec![0; message.len()];
        stream.read_exact(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    })
}

/// Connects, says nothing and reads to the end.
pub fn listen_to(space: &Space, addr: SocketAddr, deadline: Duration) -> Reach {
    talk(space, addr, deadline, |stream| {
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        if text.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(text)
    })
}

/// Connects and sends one HTTP request on a connection of its own.
pub fn http(space: &Space, addr: SocketAddr, path: &str, deadline: Duration) -> Reach {
    talk(space, addr, deadline, |stream| {
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n"
        )?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        match crate::http::parse(&text) {
            Some(answer) if answer.status == 200 => Ok(answer.body),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    })
}

/// Connects and runs a conversation.
pub fn talk(
    space: &Space,
    addr: SocketAddr,
    deadline: Duration,
    conversation: impl FnOnce(&mut TcpStream) -> io::Result<String>,
) -> Reach {
    let outcome = space
        .connect(addr, deadline)
        .map_err(|error| io_kind(&error))
        .and_then(|mut stream| conversation(&mut stream).map_err(|error| error.kind()));
    match outcome {
        Ok(text) => Reach::Answered(text),
        Err(io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) => Reach::TimedOut,
        Err(kind) => {
            tracing::debug!(?kind, %addr, "not answered");
            Reach::Refused
        }
    }
}

/// Ends a connection with a reset instead of a finish.
///
/// # Errors
///
/// Fails when the socket refuses the option.
pub fn reset(stream: TcpStream) -> Result<(), WorldError> {
    // With zero linger the close sends RST.
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .step("arrange a reset")?;
    drop(stream);
    Ok(())
}

fn io_kind(error: &WorldError) -> io::ErrorKind {
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        if let Some(cause) = cause.downcast_ref::<io::Error>() {
            return cause.kind();
        }
        next = cause.source();
    }
    io::ErrorKind::Other
}
