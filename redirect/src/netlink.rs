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
        // Whoever has privileges in the namespace may write to sockets there. A connected one takes
        // the kernel's messages only, so nobody can keep us busy with others.
        socket.connect(&SocketAddr::new(0, 0))?;
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
        self.receive(sequence, |_| Ok(()))
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

    /// Collects the bodies of a dump, at most [`MAX_MESSAGES`].
    pub(crate) fn dump(&mut self, message: &Message) -> io::Result<Vec<Vec<u8>>> {
        self.fold(message, |bodies: &mut Vec<_>, body| {
            if bodies.len() == MAX_MESSAGES {
                return Err(io::Error::from_raw_os_error(libc::EOVERFLOW));
            }
            bodies.push(body.to_vec());
            Ok(())
        })
    }

    /// Folds the bodies of a dump into a value; starts over when the state changed meanwhile.
    pub(crate) fn fold<T: Default>(
        &mut self,
        message: &Message,
        mut each: impl FnMut(&mut T, &[u8]) -> io::Result<()>,
    ) -> io::Result<T> {
        let mut message = message.clone();
        message.flags |= DUMP;
        for _attempt in 0..8 {
            let mut value = T::default();
            let sequence = self.send(std::slice::from_ref(&message))?;
            match self.receive(sequence, |body| each(&mut value, body)) {
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => (),
                result => return result.map(|()| value),
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
        loop {
            match self.socket.send(&packet, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                result => return result.map(|_sent| first),
            }
        }
    }

    fn receive(
        &self,
        sequence: u32,
        mut each: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(BUFFER);
        let mut interrupted = false;
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
                    _ => each(received.body)?,
                }
            }
        }
    }

    fn chunk<'a>(&self, buffer: &'a mut Vec<u8>) -> io::Result<Messages<'a>> {
        loop {
            buffer.clear();
            match self.socket.recv_from(buffer, 0) {
                // What came between binding and connecting may be anybody's.
                Ok((_length, from)) if from.port_number() != 0 => (),
                Ok(_from_the_kernel) => return Ok(Messages(buffer)),
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => (),
                    io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
                    _ => return Err(error),
                },
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

#[cfg(test)]
mod tests {
    use super::{BUFFER, Conversation, KIND_ERROR, Messages, error_of};
    use crate::route;
    use netlink_sys::Socket;
    use proptest::prelude::{any, prop, proptest};
    use std::io;

    #[test]
    fn nobody_but_the_kernel_can_write_to_a_conversation() {
        let _trace = meshwright_testkit::trace();
        let mut ours = Conversation::open_here(route::PROTOCOL).unwrap();
        let mut own_address = netlink_sys::SocketAddr::new(0, 0);
        ours.socket.get_address(&mut own_address).unwrap();
        let mut theirs = Socket::new(route::PROTOCOL).unwrap();
        theirs.bind_auto().unwrap();
        let sent = theirs.send_to(&[0; 16], &own_address, 0);
        assert!(sent.is_err(), "a neighbour's message was queued");
        // The kernel is still heard.
        let family = route::Family::V4;
        assert!(!route::has_rule(&mut ours, family).unwrap());
    }

    #[test]
    fn kernel_that_says_nothing_is_a_timeout() {
        let _trace = meshwright_testkit::trace();
        let ours = Conversation::open_here(route::PROTOCOL).unwrap();
        ours.socket.set_non_blocking(true).unwrap();
        let mut buffer = Vec::with_capacity(BUFFER);
        let kind = ours.chunk(&mut buffer).err().map(|error| error.kind());
        assert_eq!(kind, Some(io::ErrorKind::TimedOut));
    }

    #[test]
    fn short_error_message_is_no_acknowledgement() {
        let _trace = meshwright_testkit::trace();
        assert!(error_of(&[0, 0, 0]).is_err());
        assert!(error_of(&[0; 4]).is_ok());
        // Header of an error message that promises more than there is.
        let mut packet = [0_u8; 16];
        packet[..4].copy_from_slice(&20_u32.to_ne_bytes());
        packet[4..6].copy_from_slice(&KIND_ERROR.to_ne_bytes());
        assert_eq!(Messages(&packet).count(), 0);
    }

    proptest! {
        #[test]
        fn no_packet_makes_the_reader_panic_or_run_for_ever(
            packet in prop::collection::vec(any::<u8>(), 0..256),
        ) {
            let count = Messages(&packet).count();
            assert!(count <= packet.len() / 16 + 1);
        }
    }
}
