//! Clients that keep a server busy, and what they saw.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::conversation::http_answer;
use crate::{Space, Step, WorldError};

/// How the clients of a [`Load`] behave.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum LoadKind {
    /// One connection for every message.
    Connections,
    /// One connection for all messages.
    Messages,
}

/// What the clients of a [`Load`] say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Talk {
    /// A message of so many bytes that an echo server sends back.
    Echo(usize),
    /// An HTTP request to `/hello`.
    Http,
}

/// What a [`Load`] is made of.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LoadSpec {
    addr: SocketAddr,
    kind: LoadKind,
    talk: Talk,
    clients: usize,
}

impl LoadSpec {
    /// Describes one client that sends one byte at a time on one connection.
    pub const fn new(addr: SocketAddr) -> Self {
        Self {
            addr,
            kind: LoadKind::Messages,
            talk: Talk::Echo(1),
            clients: 1,
        }
    }

    /// Sets how connections are used.
    #[must_use]
    pub const fn kind(mut self, kind: LoadKind) -> Self {
        self.kind = kind;
        self
    }

    /// Sets what is said.
    #[must_use]
    pub const fn talk(mut self, talk: Talk) -> Self {
        self.talk = talk;
        self
    }

    /// Sets how many clients there are; each is a thread.
    #[must_use]
    pub const fn clients(mut self, clients: usize) -> Self {
        self.clients = clients;
        self
    }
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

/// Clients that talk to a server until they are told to stop.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    report: Arc<Mutex<LoadReport>>,
    clients: Vec<thread::JoinHandle<()>>,
}

impl Load {
    /// Starts clients in a namespace. Each says something, waits for the answer and goes on.
    ///
    /// # Errors
    ///
    /// Fails when no thread can be made.
    pub fn start(space: &Space, spec: LoadSpec) -> Result<Self, WorldError> {
        let stop = Arc::new(AtomicBool::new(false));
        let report = Arc::new(Mutex::new(LoadReport::default()));
        let clients = (0..spec.clients)
            .map(|_| {
                let (space, stop, report) = (space.clone(), Arc::clone(&stop), Arc::clone(&report));
                thread::Builder::new()
                    .name("load".into())
                    .spawn(move || {
                        // The whole thread lives inside: making a socket costs no extra thread.
                        match space.join() {
                            Ok(()) => drive(spec, &stop, &report),
                            Err(error) => lock(&report).add(Err(error)),
                        }
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
        lock(&self.report).clone()
    }

    /// Returns the number of messages done so far.
    pub fn done(&self) -> u64 {
        lock(&self.report).done
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

fn drive(spec: LoadSpec, stop: &AtomicBool, report: &Mutex<LoadReport>) {
    let mut kept = None;
    while !stop.load(Ordering::Relaxed) {
        let begin = Instant::now();
        let stream = match kept.take() {
            Some(stream) => Ok(stream),
            None => dial(spec.addr),
        };
        let outcome = stream
            .and_then(|stream| exchange(&stream, spec.talk).map(|()| stream))
            .map(|stream| {
                if spec.kind == LoadKind::Messages {
                    kept = Some(stream);
                }
                begin.elapsed()
            })
            .step("exchange a message");
        lock(report).add(outcome);
    }
}

fn dial(addr: SocketAddr) -> io::Result<TcpStream> {
    const DEADLINE: Duration = Duration::from_secs(10);
    let stream = TcpStream::connect_timeout(&addr, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn exchange(mut stream: &TcpStream, talk: Talk) -> io::Result<()> {
    match talk {
        Talk::Echo(length) => {
            let message = vec![b'x'; length];
            let mut answer = vec![0; length];
            stream.write_all(&message)?;
            stream.read_exact(&mut answer)?;
            if answer == message {
                Ok(())
            } else {
                Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "another message",
                ))
            }
        }
        Talk::Http => {
            stream.write_all(b"GET /hello HTTP/1.1\r\nHost: helloworld\r\n\r\n")?;
            http_answer(stream).map(drop)
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
