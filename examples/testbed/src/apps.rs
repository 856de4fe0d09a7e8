//! Applications: small servers with a known behaviour, in this process or one of their own.
//!
//! An [`App`] runs on threads of this process while its sockets live in a pod's namespace, so a
//! test sees directly who called and how each connection ended. `main` is the same as a process
//! of its own, for the demo, where pods should be what they claim to be.

use std::{
    ffi::OsString,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::ExitCode,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use socket2::SockRef;

use crate::{Space, Step, WorldError};

mod forward;
pub mod pattern;
mod serve;

/// Connections of one app at a time; more wait in the listen queue.
const CONNECTIONS: u64 = 4096;
/// Ends remembered by one app.
const REMEMBERED: usize = 4096;

/// What an app does with a connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Behaviour {
    /// Sends back what arrives, and finishes when the peer does.
    Echo,
    /// Finishes at once after a greeting, then reads [`pattern`] to the end and records it.
    Early,
    /// Connects to the backends in turn and copies both ways, as kube-proxy's first form did.
    Forward {
        /// Where to connect from.
        space: Space,
        /// Where to.
        backends: Vec<SocketAddr>,
    },
    /// Says `220 ready` before the peer says anything, then behaves as `Echo`.
    Greet,
    /// Answers HTTP requests with `Hello version: .., instance: ..`.
    Hello {
        /// Version to tell.
        version: String,
        /// Instance to tell.
        instance: String,
    },
    /// Writes [`pattern`] for ever.
    Hose,
    /// Reads [`pattern`] until the peer finishes, checks it, and only then sends as much back.
    Late,
    /// Says `r`, then reads and records how the connection ended.
    Record,
    /// Reads one message, answers `partial` and resets the connection.
    Reset,
    /// Reads whatever comes, unchecked, until the peer finishes.
    Sink,
    /// Tells the peer's address and finishes.
    Who,
}

/// How a connection ended, as the app saw it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum End {
    /// The peer finished its direction.
    Fin,
    /// The connection was reset.
    Reset,
    /// Bytes that arrived were not the ones expected at this offset.
    Wrong {
        /// Offset of the first wrong byte.
        offset: u64,
    },
}

/// One connection that ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Ended {
    /// Address of the peer as the app saw it.
    pub peer: IpAddr,
    /// How it ended.
    pub end: End,
    /// Bytes received.
    pub bytes: u64,
    /// When.
    pub at: Instant,
}

/// A running app. It stops when this is dropped.
#[derive(Debug)]
pub struct App {
    addr: SocketAddr,
    listener: TcpListener,
    record: Arc<Record>,
    thread: Option<thread::JoinHandle<()>>,
}

/// What an app has seen.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) accepted: AtomicU64,
    open: AtomicU64,
    ends: Mutex<Vec<Ended>>,
    streams: Mutex<Vec<Weak<TcpStream>>>,
}

impl Record {
    pub(crate) fn ended(&self, ended: Ended) {
        let mut ends = lock(&self.ends);
        if ends.len() < REMEMBERED {
            ends.push(ended);
        }
    }
}

impl App {
    /// Starts an app that listens in a namespace.
    ///
    /// # Errors
    ///
    /// Fails when the address is in use.
    pub fn start(
        space: &Space,
        addr: SocketAddr,
        behaviour: Behaviour,
    ) -> Result<Self, WorldError> {
        let listener = space.listen(addr)?;
        let addr = listener.local_addr().step("read the address of an app")?;
        let record = Arc::new(Record::default());
        let thread = {
            let (listener, record) = (
                listener.try_clone().step("share a listener")?,
                Arc::clone(&record),
            );
            thread::Builder::new()
                .name(format!("app {addr}"))
                .spawn(move || accept(&listener, &record, &behaviour))
                .step("start an app")?
        };
        Ok(Self {
            addr,
            listener,
            record,
            thread: Some(thread),
        })
    }

    /// Returns the address it listens on.
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns how many connections it has accepted.
    pub fn accepted(&self) -> u64 {
        self.record.accepted.load(Ordering::Relaxed)
    }

    /// Returns how many connections are open now.
    pub fn open(&self) -> u64 {
        self.record.open.load(Ordering::Relaxed)
    }

    /// Returns every end of a connection so far, oldest first.
    pub fn ends(&self) -> Vec<Ended> {
        lock(&self.record.ends).clone()
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // Wakes the thread that waits in accept(2).
        if let Err(error) = SockRef::from(&self.listener).shutdown(std::net::Shutdown::Both) {
            tracing::debug!(%error, "an app's listener was closed already");
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!(addr = %self.addr, "an app panicked");
        }
        for stream in lock(&self.record.streams).drain(..) {
            let Some(stream) = stream.upgrade() else {
                continue;
            };
            if let Err(error) = stream.shutdown(std::net::Shutdown::Both) {
                tracing::trace!(%error, "an app's connection was closed already");
            }
        }
    }
}

fn accept(listener: &TcpListener, record: &Arc<Record>, behaviour: &Behaviour) {
    while let Ok((stream, peer)) = listener.accept() {
        record.accepted.fetch_add(1, Ordering::Relaxed);
        if record.open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS {
            record.open.fetch_sub(1, Ordering::Relaxed);
            tracing::warn!(%peer, "an app is full and drops a connection");
            continue;
        }
        let stream = Arc::new(stream);
        remember(record, &stream);
        let (behaviour, shared) = (behaviour.clone(), Arc::clone(record));
        let started = thread::Builder::new().spawn(move || {
            serve::connection(&stream, peer.ip(), &behaviour, &shared);
            drop(stream);
            shared.open.fetch_sub(1, Ordering::Relaxed);
        });
        if let Err(error) = started {
            record.open.fetch_sub(1, Ordering::Relaxed);
            tracing::warn!(%error, "an app cannot start a thread");
        }
    }
}

/// Keeps a handle to hang up with. It is weak: the app alone decides when a connection closes.
fn remember(record: &Record, stream: &Arc<TcpStream>) {
    let mut streams = lock(&record.streams);
    streams.retain(|stream| stream.strong_count() > 0);
    streams.push(Arc::downgrade(stream));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs an app as a process of its own: `hello <listen> <version> <instance>`, `echo <listen>` or
/// `idle`. It ends with the process that started it.
///
/// # Errors
///
/// Fails on unknown arguments and when the address is in use.
pub(crate) fn main(argv: &[OsString]) -> Result<ExitCode, WorldError> {
    let args: Vec<String> = argv
        .iter()
        .skip(1)
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let behaviour = match args.as_slice() {
        ["idle"] => None,
        ["echo", listen] => Some((*listen, Behaviour::Echo)),
        ["hello", listen, version, instance] => Some((
            *listen,
            Behaviour::Hello {
                version: (*version).to_owned(),
                instance: (*instance).to_owned(),
            },
        )),
        _ => return Err(WorldError::new(format!("start the app {args:?}"))),
    };
    let _app = match behaviour {
        Some((listen, behaviour)) => {
            let listen = listen.parse().step(format!("read the address {listen}"))?;
            Some(App::start(&Space::current()?, listen, behaviour)?)
        }
        None => None,
    };
    loop {
        thread::park();
    }
}
