//! Clients: what an application in a pod would do, and what it sees.

use std::{
    fmt,
    io::{self, Read, Write},
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{Space, Step, WorldError};

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
    conversation: impl FnOnce(&mut std::net::TcpStream) -> io::Result<String>,
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
pub fn reset(stream: std::net::TcpStream) -> Result<(), WorldError> {
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

/// An open connection to an echo server on which one message at a time goes back and forth.
#[derive(Debug)]
pub struct Conversation {
    stream: std::net::TcpStream,
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
        let begin = Instant::now();
        self.stream
            .set_read_timeout(Some(deadline))
            .step("limit the wait for an end")?;
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(0) => Ok((begin.elapsed(), io::ErrorKind::UnexpectedEof)),
            Ok(_) => Err(WorldError::new("see the end before any byte")),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Err(WorldError::new(
                    format!("see the connection end within {deadline:?}"),
                )),
                kind => Ok((begin.elapsed(), kind)),
            },
        }
    }

    /// Returns the stream.
    pub const fn stream(&self) -> &std::net::TcpStream {
        &self.stream
    }
}

/// How the clients of a [`Load`] behave.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum LoadKind {
    /// One connection for every message.
    Connections,
    /// One connection for all messages.
    Messages,
}

/// What a [`Load`] has done.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct LoadReport {
    /// Messages that came back.
    pub done: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// The first failures, as text.
    pub failures: Vec<String>,
    /// Time of each message in order of completion, at most a million.
    pub times: Vec<Duration>,
}

impl LoadReport {
    /// Returns the given quantile of the times, zero if there are none.
    pub fn quantile(&self, quantile: f64) -> Duration {
        let mut times = self.times.clone();
        times.sort_unstable();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "an index into at most a million"
        )]
        let at = (times.len().saturating_sub(1) as f64 * quantile.clamp(0.0, 1.0)).round() as usize;
        times.get(at).copied().unwrap_or_default()
    }

    fn add(&mut self, outcome: Result<Duration, WorldError>) {
        const TIMES: usize = 1_000_000;
        match outcome {
            Ok(time) => {
                self.done += 1;
                if self.times.len() < TIMES {
                    self.times.push(time);
                }
            }
            Err(error) => {
                self.failed += 1;
                if self.failures.len() < 10 {
                    self.failures.push(error.chain());
                }
            }
        }
    }
}

/// Clients that talk to an echo server until they are told to stop.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    report: Arc<Mutex<LoadReport>>,
    clients: Vec<thread::JoinHandle<()>>,
}

impl Load {
    /// Starts clients in a namespace. Each sends a message of the given length, waits for it and
    /// goes on.
    ///
    /// # Errors
    ///
    /// Fails when no thread can be made.
    pub fn start(
        space: &Space,
        addr: SocketAddr,
        kind: LoadKind,
        clients: usize,
        length: usize,
    ) -> Result<Self, WorldError> {
        let stop = Arc::new(AtomicBool::new(false));
        let report = Arc::new(Mutex::new(LoadReport::default()));
        let clients = (0..clients)
            .map(|_| {
                let (space, stop, report) = (space.clone(), Arc::clone(&stop), Arc::clone(&report));
                thread::Builder::new()
                    .name("load".into())
                    .spawn(move || {
                        // The whole thread lives inside: making a socket costs no extra thread.
                        if let Err(error) = space.join() {
                            record(&report, Err(error));
                            return;
                        }
                        drive(addr, kind, &vec![b'x'; length], &stop, &report);
                    })
                    .step("start a client")
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            stop,
            report,
            clients,
        })
    }

    /// Returns the report so far.
    pub fn so_far(&self) -> LoadReport {
        self.report
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Returns the number of messages done so far.
    pub fn done(&self) -> u64 {
        self.report
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .done
    }

    /// Stops the clients and returns what they did.
    pub fn finish(mut self) -> LoadReport {
        self.halt();
        self.so_far()
    }

    fn halt(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            if client.join().is_err() {
                tracing::warn!("a client panicked");
            }
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.halt();
    }
}

fn record(report: &Mutex<LoadReport>, outcome: Result<Duration, WorldError>) {
    report
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .add(outcome);
}

fn drive(
    addr: SocketAddr,
    kind: LoadKind,
    message: &[u8],
    stop: &AtomicBool,
    report: &Mutex<LoadReport>,
) {
    let mut kept = None;
    while !stop.load(Ordering::Relaxed) {
        let begin = Instant::now();
        let outcome = match kept.take() {
            Some(stream) => Ok(stream),
            None => dial(addr),
        }
        .and_then(|stream| exchange(&stream, message).map(|()| stream))
        .step("exchange a message");
        let outcome = outcome.map(|stream| {
            if kind == LoadKind::Messages {
                kept = Some(stream);
            }
            begin.elapsed()
        });
        record(report, outcome);
    }
}

fn dial(addr: SocketAddr) -> io::Result<std::net::TcpStream> {
    const DEADLINE: Duration = Duration::from_secs(10);
    let stream = std::net::TcpStream::connect_timeout(&addr, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn exchange(mut stream: &std::net::TcpStream, message: &[u8]) -> io::Result<()> {
    stream.write_all(message)?;
    let mut answer = vec![0; message.len()];
    stream.read_exact(&mut answer)
}
