//! Both ends of the protocol as plain values: no sockets, no clock.

use super::message::{
    BadMessage, Order, RawOrder, read_ack, read_hello, read_request, write_ack, write_hello,
    write_request,
};
use crate::netns::{Netns, NetnsId};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;

/// The proxy's end of one connection.
///
/// ```
/// use meshwright_redirect::zds::{ProxySession, Reaction};
///
/// let mut session = ProxySession::new(Vec::new());
/// // A snapshot of no pods, as Istio's agent sends it.
/// let reaction = session.receive(&[0x1a, 0x00], Vec::new(), false);
/// assert!(matches!(reaction, Reaction::Deliver(_)));
/// // A packet that is no message is refused, and the connection given up.
/// let Reaction::Refuse(bad) = session.receive(&[0xff], Vec::new(), false) else {
///     panic!("garbage is refused");
/// };
/// assert!(bad.ends_connection());
/// ```
#[derive(Debug)]
pub struct ProxySession {
    forbidden: Vec<NetnsId>,
    has_snapshot: bool,
}

/// What the proxy does with a packet.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reaction {
    /// Does what it says, then answers.
    Deliver(Order),
    /// Answers with the error's text; closes if [`BadMessage::ends_connection`].
    Refuse(BadMessage),
}

impl ProxySession {
    /// Begins a connection; namespaces in `forbidden` are refused.
    #[must_use]
    pub const fn new(forbidden: Vec<NetnsId>) -> Self {
        Self {
            forbidden,
            has_snapshot: false,
        }
    }

    /// Gives the first packet to send.
    #[must_use]
    pub fn hello() -> Vec<u8> {
        write_hello()
    }

    /// Gives the packet that acknowledges, or refuses with a text that is not empty.
    #[must_use]
    pub fn answer(outcome: Result<(), &str>) -> Vec<u8> {
        match outcome {
            Ok(()) => write_ack(""),
            Err("") => write_ack("refused"),
            Err(text) => write_ack(text),
        }
    }

    /// Judges one packet. Descriptors that are not delivered are closed.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        descriptors: Vec<OwnedFd>,
        truncated: bool,
    ) -> Reaction {
        if truncated {
            return Reaction::Refuse(BadMessage::Truncated);
        }
        match self.judge(bytes, descriptors) {
            Ok(order) => Reaction::Deliver(order),
            Err(bad) => Reaction::Refuse(bad),
        }
    }

    fn judge(&mut self, bytes: &[u8], mut descriptors: Vec<OwnedFd>) -> Result<Order, BadMessage> {
        let raw = read_request(bytes)?;
        let expected = usize::from(matches!(raw, RawOrder::Add { .. }));
        let got = descriptors.len();
        if got != expected {
            return Err(BadMessage::WrongDescriptors { expected, got });
        }
        Ok(match raw {
            RawOrder::Add { uid, info } => {
                let wrong = BadMessage::WrongDescriptors { expected, got };
                let netns = self.namespace(descriptors.pop().ok_or(wrong)?)?;
                Order::Add { uid, info, netns }
            }
            RawOrder::Del { uid } => Order::Del { uid },
            RawOrder::Keep { .. } if self.has_snapshot => {
                return Err(BadMessage::KeepAfterSnapshot);
            }
            RawOrder::Keep { uid } => Order::Keep { uid },
            RawOrder::SnapshotSent if self.has_snapshot => return Err(BadMessage::SecondSnapshot),
            RawOrder::SnapshotSent => {
                self.has_snapshot = true;
                Order::SnapshotSent
            }
        })
    }

    fn namespace(&self, fd: OwnedFd) -> Result<Netns, BadMessage> {
        let netns = Netns::from_fd(fd).map_err(|source| BadMessage::Namespace { source })?;
        if self.forbidden.contains(&netns.id()) {
            return Err(BadMessage::OwnNamespace);
        }
        Ok(netns)
    }
}

/// A packet that the agent sends now.
#[derive(Debug)]
#[non_exhaustive]
pub struct Outgoing {
    /// The message.
    pub bytes: Vec<u8>,
    /// The namespace that goes with it.
    pub netns: Option<Netns>,
}

/// An acknowledgement and what it is for.
#[derive(Debug)]
#[non_exhaustive]
pub struct Answer<T> {
    /// The value that was [pushed](AgentSession::push) with the message.
    pub ticket: T,
    /// The proxy's text if it refused.
    pub outcome: Result<(), String>,
}

/// The agent's end of one connection: one message outstanding at a time, in order.
///
/// `T` is whatever the caller wants back with the answer.
#[derive(Debug)]
pub struct AgentSession<T> {
    waiting: VecDeque<(Order, T)>,
    outstanding: Option<T>,
}

impl<T> Default for AgentSession<T> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            outstanding: None,
        }
    }
}

impl<T> AgentSession<T> {
    /// Begins the connection of a proxy by its first packet. Any version is served as version 1.
    ///
    /// # Errors
    ///
    /// Returns [`BadMessage`] when the packet is no hello; the connection must be closed.
    pub fn greeted(
        bytes: &[u8],
        descriptors: &[OwnedFd],
        truncated: bool,
    ) -> Result<Self, BadMessage> {
        check_plain(descriptors, truncated)?;
        read_hello(bytes)?;
        Ok(Self::default())
    }

    /// Puts a message in line.
    pub fn push(&mut self, order: Order, ticket: T) {
        self.waiting.push_back((order, ticket));
    }

    /// Gives the next packet, unless one is still unanswered.
    pub fn next_packet(&mut self) -> Option<Outgoing> {
        if self.outstanding.is_some() {
            return None;
        }
        let (order, ticket) = self.waiting.pop_front()?;
        self.outstanding = Some(ticket);
        Some(Outgoing {
            bytes: write_request(&order),
            netns: match order {
                Order::Add { netns, .. } => Some(netns),
                Order::Del { .. } | Order::Keep { .. } | Order::SnapshotSent => None,
            },
        })
    }

    /// Takes a packet of the proxy as the answer to the message that is outstanding.
    ///
    /// # Errors
    ///
    /// Returns [`BadMessage`] when it is no acknowledgement or nothing was asked; the connection
    /// must be closed, because later answers could be taken for the wrong message's.
    pub fn received(
        &mut self,
        bytes: &[u8],
        descriptors: &[OwnedFd],
        truncated: bool,
    ) -> Result<Answer<T>, BadMessage> {
        check_plain(descriptors, truncated)?;
        let outcome = read_ack(bytes)?;
        let ticket = self.outstanding.take().ok_or(BadMessage::UnknownPayload)?;
        Ok(Answer { ticket, outcome })
    }
}

fn check_plain(descriptors: &[OwnedFd], truncated: bool) -> Result<(), BadMessage> {
    if truncated {
        return Err(BadMessage::Truncated);
    }
    if !descriptors.is_empty() {
        return Err(BadMessage::WrongDescriptors {
            expected: 0,
            got: descriptors.len(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
