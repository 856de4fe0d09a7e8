//! Blocking netlink conversations over a socket that was made inside a namespace.
//!
//! Netlink answers within the system call that asks, so there is nothing to await: a conversation
//! of a dozen requests takes less time than handing it to another thread. A receive timeout bounds
//! the wait all the same.

mod attribute;

pub(crate) use attribute::{AttributeIter, Attributes};

use crate::netns::{EnterError, Netns};
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use std::io;

/// Longest wait for one answer.
const DEADLINE_SECONDS: i64 = 2;
/// Largest piece of a dump: the kernel fills at most 32 KiB at a time.
const BUFFER: usize = 64 * 1024;
/// Answers of one dump at most, so that no kernel state makes a reader grow without bound.
const MAX_MESSAGES: usize = 16 * 1024;

/// `NLM_F_REQUEST`.
pub(crate) const REQUEST: u16 = 0x1;
/// `NLM_F_ACK`.
pub(crate) const ACK: u16 = 0x4;
/// `NLM_F_DUMP`.
pub(crate) const DUMP: u16 = 0x300;
/// `NLM_F_REPLACE`.
pub(crate) const REPLACE: u16 = 0x100;
/// `NLM_F_EXCL`.
pub(crate) const EXCLUSIVE: u16 = 0x200;
/// `NLM_F_CREATE`.
pub(crate) const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`.
pub(crate) const APPEND: u16 = 0x800;

/// `NLM_F_DUMP_INTR`: the state changed while it was dumped.
const DUMP_INTERRUPTED: u16 = 0x10;
/// `NLMSG_ERROR`.
const KIND_ERROR: u16 = 2;
/// `NLMSG_DONE`.
const KIND_DONE: u16 = 3;
const HEADER: usize = 16;

/// One message, without its header's length and sequence number.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// Type, as the protocol numbers it.
    pub(crate) kind: u16,
    /// `NLM_F_*`.
    pub(crate) flags: u16,
    /// Fixed part and attributes.
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// Makes a message of a fixed part and attributes.
    pub(crate) fn new(kind: u16, flags: u16, fixed: &[u8], attributes: &Attributes) -> Self {
        let mut body = fixed.to_vec();
        body.resize(body.len().next_multiple_of(4), 0);
        body.extend_from_slice(attributes.as_slice());
        Self { kind, flags, body }
    }

    fn encode(&self, sequence: u32, out: &mut Vec<u8>) {
        let length = u32::try_from(HEADER + self.body.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&length.to_ne_bytes());
        out.extend_from_slice(&self.kind.to_ne_bytes());
        out.extend_from_slice(&(self.flags | REQUEST).to_ne_bytes());
        out.extend_from_slice(&sequence.to_ne_bytes());
        out.extend_from_slice(&0_u32.to_ne_bytes());
        out.extend_from_slice(&self.body);
        out.resize(out.len().next_multiple_of(4), 0);
    }
}

/// A received message.
struct Received<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

/// A failed message of a [batch](Conversation::send_all), by its place in the list.
#[derive(Debug)]
pub(crate) struct BatchFault {
    pub(crate) index: usize,
    pub(crate) source: io::Error,
}

/// A netlink socket of one protocol in one namespace.
#[derive(Debug)]
pub(crate) struct Conversation {
    socket: Socket,
    sequence: u32,
}

/// A conversation could not be opened.
#[derive(Debug)]
pub(crate) enum OpenFault {
    Enter(EnterError),
    Socket(io::Error),
}

impl Conversation {
    /// Opens a socket inside `netns`; it stays there for good.
    pub(crate) fn open(netns: &Netns, protocol: isize) -> Result<Self, OpenFault> {
        netns
            .run(|| Self::open_here(protocol))
            .map_err(OpenFault::Enter)?
            .map_err(OpenFault::Socket)
    }

    fn open_here(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.set_cap_ack(true)?;
        let limit = TimeVal::seconds(DEADLINE_SECONDS);
        setsockopt(&socket, sockopt::ReceiveTimeout, &limit)?;
        setsockopt(&socket, sockopt::SendTimeout, &limit)?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Sends one message and waits until the kernel has done it.
    pub(crate) fn request(&mut self, mut message: Message) -> io::Result<()> {
        message.flags |= ACK;
        let sequence = self.send(&[message])?;
        self.receive(sequence, |_| ())
    }

    /// Asks a question that has exactly one answer.
    pub(crate) fn ask(&mut self, message: Message) -> io::Result<Vec<u8>> {
        let sequence = self.send(&[message])?;
        let mut buffer = Vec::with_capacity(BUFFER);
        loop {
            for received in self.chunk(&mut buffer)? {
                if received.sequence != sequence {
                    continue;
                }
                if received.kind == KIND_ERROR {
                    error_of(received.body)?;
                }
                return Ok(received.body.to_vec());
            }
        }
    }

    /// Collects the bodies of a dump; starts over when the state changed meanwhile.
    pub(crate) fn dump(&mut self, message: &Message) -> io::Result<Vec<Vec<u8>>> {
        let mut message = message.clone();
        message.flags |= DUMP;
        for _attempt in 0..8 {
            let mut bodies = Vec::new();
            let sequence = self.send(std::slice::from_ref(&message))?;
            match self.receive(sequence, |body| bodies.push(body.to_vec())) {
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => (),
                Err(error) => return Err(error),
                Ok(()) => return Ok(bodies),
            }
        }
        Err(io::Error::from_raw_os_error(libc::EINTR))
    }

    /// Sends messages in one packet and waits for the answer to the last but `trailing`, which
    /// must ask for it. Reports the first one that failed.
    pub(crate) fn send_all(
        &mut self,
        messages: &[Message],
        trailing: usize,
    ) -> Result<(), BatchFault> {
        let whole = |source| BatchFault { index: 0, source };
        let first = self.send(messages).map_err(whole)?;
        let answered = messages.len().saturating_sub(trailing + 1);
        let last = first.wrapping_add(u32::try_from(answered).unwrap_or(u32::MAX));
        let mut fault: Option<BatchFault> = None;
        let mut buffer = Vec::with_capacity(BUFFER);
        loop {
            for received in self.chunk(&mut buffer).map_err(whole)? {
                let index = received.sequence.wrapping_sub(first) as usize;
                if received.kind != KIND_ERROR || index >= messages.len() {
                    continue;
                }
                let result = error_of(received.body);
                let done = result.is_ok() && received.sequence == last;
                if let Err(source) = result {
                    let earlier = fault.as_ref().is_some_and(|fault| fault.index <= index);
                    if !earlier {
                        fault = Some(BatchFault { index, source });
                    }
                }
                // A batch that cannot even begin is answered once, at its first message.
                if done || received.sequence == last || index == 0 {
                    return fault.map_or(Ok(()), Err);
                }
            }
        }
    }

    fn send(&mut self, messages: &[Message]) -> io::Result<u32> {
        let first = self.sequence.wrapping_add(1);
        let mut packet = Vec::new();
        for message in messages {
            self.sequence = self.sequence.wrapping_add(1);
            message.encode(self.sequence, &mut packet);
        }
        self.socket
            .send_to(&packet, &SocketAddr::new(0, 0), 0)
            .map(|_sent| first)
    }

    fn receive(&self, sequence: u32, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(BUFFER);
        let mut interrupted = false;
        let mut count = 0;
        loop {
            for received in self.chunk(&mut buffer)? {
                if received.sequence != sequence {
                    continue;
                }
                interrupted |= received.flags & DUMP_INTERRUPTED != 0;
                match received.kind {
                    KIND_ERROR => return error_of(received.body),
                    KIND_DONE if interrupted => {
                        return Err(io::Error::from_raw_os_error(libc::EINTR));
                    }
                    KIND_DONE if received.body.is_empty() => return Ok(()),
                    KIND_DONE => return error_of(received.body),
                    _ => each(received.body),
                }
                count += 1;
                if count > MAX_MESSAGES {
                    return Err(io::Error::from_raw_os_error(libc::EOVERFLOW));
                }
            }
        }
    }

    fn chunk<'a>(&self, buffer: &'a mut Vec<u8>) -> io::Result<Messages<'a>> {
        loop {
            buffer.clear();
            match self.socket.recv_from(buffer, 0) {
                // Whoever has privileges in the namespace may write to this socket: only the
                // kernel's answers count.
                Ok((_length, from)) if from.port_number() != 0 => (),
                Ok(_from_the_kernel) => return Ok(Messages(buffer)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Walks over the messages of one packet; stops at the first that does not fit.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Received<'a>;

    fn next(&mut self) -> Option<Received<'a>> {
        let word = |at: usize| {
            let bytes = self.0.get(at..at + 4)?;
            Some(u32::from_ne_bytes(bytes.try_into().ok()?))
        };
        let half = |at: usize| {
            let bytes = self.0.get(at..at + 2)?;
            Some(u16::from_ne_bytes(bytes.try_into().ok()?))
        };
        let length = usize::try_from(word(0)?).ok()?;
        let received = Received {
            kind: half(4)?,
            flags: half(6)?,
            sequence: word(8)?,
            body: self.0.get(HEADER..length)?,
        };
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(received)
    }
}

/// Reads the number of an error message: 0 acknowledges.
fn error_of(body: &[u8]) -> io::Result<()> {
    let number = body.get(..4).and_then(|bytes| bytes.try_into().ok());
    match number.map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(negative) => Err(io::Error::from_raw_os_error(negative.wrapping_neg())),
        None => Err(io::Error::from(io::ErrorKind::InvalidData)),
    }
}
