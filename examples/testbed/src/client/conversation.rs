//! Connections that stay open while something else happens.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use crate::{Space, Step, WorldError, http::Answer};

/// An open connection to an echo server on which one message at a time goes back and forth.
#[derive(Debug)]
pub struct Conversation {
    stream: TcpStream,
}

impl Conversation {
    /// Opens the connection and exchanges a first message.
    ///
    /// # Errors
    ///
    /// Fails when the server does not answer within the deadline.
    pub fn open(space: &Space, addr: SocketAddr, deadline: Duration) -> Result<Self, WorldError> {
        let mut conversation = Self {
            stream: space.connect(addr, deadline)?,
        };
        conversation.exchange("open")?;
        Ok(conversation)
    }

    /// Sends a message and expects it back.
    ///
    /// # Errors
    ///
    /// Fails when the connection has ended or another message comes back.
    pub fn exchange(&mut self, message: &str) -> Result<(), WorldError> {
        let step = "exchange a message on an open connection";
        self.stream.write_all(message.as_bytes()).step(step)?;
        let mut answer = vec![0; message.len()];
        self.stream.read_exact(&mut answer).step(step)?;
        if answer == message.as_bytes() {
            Ok(())
        } else {
            Err(WorldError::new("get the same message back"))
        }
    }

    /// Waits until the connection ends, and tells how long that took and how it ended.
    ///
    /// # Errors
    ///
    /// Fails when it is still open after the deadline.
    pub fn ends(&mut self, deadline: Duration) -> Result<(Duration, io::ErrorKind), WorldError> {
        ends(&self.stream, deadline)
    }

    /// Returns the stream.
    pub const fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

/// An open connection to a `Hello` app.
#[derive(Debug)]
pub struct HttpConversation {
    stream: TcpStream,
}

impl HttpConversation {
    /// Opens the connection.
    ///
    /// # Errors
    ///
    /// Fails when the server does not accept within the deadline.
    pub fn open(space: &Space, addr: SocketAddr, deadline: Duration) -> Result<Self, WorldError> {
        Ok(Self {
            stream: space.connect(addr, deadline)?,
        })
    }

    /// Sends a request and returns the body of the answer.
    ///
    /// # Errors
    ///
    /// Fails when the connection has ended or the status is not 200.
    pub fn get(&mut self, path: &str) -> Result<String, WorldError> {
        let step = || format!("get {path} on an open connection");
        write!(
            self.stream,
            "GET {path} HTTP/1.1\r\nHost: helloworld\r\n\r\n"
        )
        .step(step())?;
        http_answer(&self.stream)
            .map(|answer| answer.body)
            .step(step())
    }

    /// Waits until the connection ends, and tells how long that took and how it ended.
    ///
    /// # Errors
    ///
    /// Fails when it is still open after the deadline.
    pub fn ends(&mut self, deadline: Duration) -> Result<(Duration, io::ErrorKind), WorldError> {
        ends(&self.stream, deadline)
    }

    /// Returns the stream.
    pub const fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

fn ends(
    mut stream: &TcpStream,
    deadline: Duration,
) -> Result<(Duration, io::ErrorKind), WorldError> {
    let begin = Instant::now();
    stream
        .set_read_timeout(Some(deadline))
        .step("limit the wait for an end")?;
    match stream.read(&mut [0]) {
        Ok(0) => Ok((begin.elapsed(), io::ErrorKind::UnexpectedEof)),
        Ok(_) => Err(WorldError::new("see the end before any byte")),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Err(WorldError::new(format!(
                "see the connection end within {deadline:?}"
            ))),
            kind => Ok((begin.elapsed(), kind)),
        },
    }
}

/// Reads one answer of the `Hello` app and leaves the connection open.
pub(super) fn http_answer(mut stream: &TcpStream) -> io::Result<Answer> {
    const LONGEST: usize = 16 << 10;
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    while text.len() < LONGEST {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        text.extend_from_slice(buffer.get(..length).unwrap_or_default());
        let seen = String::from_utf8_lossy(&text);
        if let Some(answer) = crate::http::parse(&seen)
            && answer.body.ends_with('\n')
        {
            return match answer.status {
                200 => Ok(answer),
                status => Err(io::Error::other(format!("status {status}"))),
            };
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}
