//! The application behind a tunnel; the first byte says how it behaves.

use std::{io, net::SocketAddr};

use meshwright_testbed::{Step, WorldError, apps::pattern};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};

/// Sends back what arrives, and finishes when the peer does.
pub(crate) const ECHO: u8 = b'e';
/// Finishes at once after saying [`GREETING`], then reads the pattern to its end.
pub(crate) const EARLY: u8 = b'f';
/// Reads the pattern to its end, and only then sends as much back.
pub(crate) const LATE: u8 = b'l';
/// Begins a request of HTTP/1.1; the answer's body is [`GREETING`].
const GET: u8 = b'G';

pub(crate) const GREETING: &str = "hello from the app";

/// Connections that ended and were not asked for yet.
const REMEMBERED: usize = 64;

/// A running application. It stops when this is dropped.
#[derive(Debug)]
pub(crate) struct App {
    addr: SocketAddr,
    ended: mpsc::Receiver<io::Result<u64>>,
    _tasks: JoinSet<()>,
}

impl App {
    pub(crate) async fn start() -> Result<Self, WorldError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.step("listen")?;
        let addr = listener.local_addr().step("read an address")?;
        let (report, ended) = mpsc::channel(REMEMBERED);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _peer)) = listener.accept().await {
                let report = report.clone();
                connections.spawn(async move {
                    let outcome = converse(stream).await;
                    report.send(outcome).await.unwrap_or_default();
                });
            }
        });
        Ok(Self {
            addr,
            ended,
            _tasks: tasks,
        })
    }

    pub(crate) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits for a connection to end; how many bytes it brought after the first.
    pub(crate) async fn ended(&mut self) -> Result<u64, WorldError> {
        let outcome = self.ended.recv().await;
        let outcome = outcome.ok_or_else(|| WorldError::new("ask the app"))?;
        outcome.step("serve a connection of the app")
    }
}

async fn converse(mut stream: TcpStream) -> io::Result<u64> {
    match stream.read_u8().await? {
        ECHO => {
            let (mut read, mut write) = stream.split();
            let bytes = tokio::io::copy(&mut read, &mut write).await?;
            write.shutdown().await?;
            Ok(bytes)
        }
        EARLY => {
            stream.write_all(GREETING.as_bytes()).await?;
            stream.shutdown().await?;
            checked(&mut stream).await
        }
        LATE => {
            let bytes = checked(&mut stream).await?;
            let mut answer = Vec::new();
            pattern::write(&mut answer, bytes)?;
            stream.write_all(&answer).await?;
            stream.shutdown().await?;
            Ok(bytes)
        }
        GET => respond(stream).await,
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

async fn checked(stream: &mut TcpStream) -> io::Result<u64> {
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await?;
    pattern::read(received.as_slice())
}

async fn respond(mut stream: TcpStream) -> io::Result<u64> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let length = GREETING.len();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{GREETING}");
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    Ok(head.len() as u64)
}
