//! Sockets of a proxy that serves a pod from outside: made in the pod's namespace, used anywhere.
//!
//! | you want | use |
//! | --- | --- |
//! | a listener in a pod | [`listen`] with a [`ListenConfig`] |
//! | connections from it, whatever `accept` says | [`Acceptor`] |
//! | a connection from a pod, perhaps with another's source address | [`dial`] with a [`DialConfig`] |
//! | where a captured connection wanted to go | [`original_destination`] |
//! | an end that the other side sees as a reset | [`set_linger_zero`] |
//! | to leave a shared port without losing a connection | [`ReusePortHandover`] |
//! | to know who listens | [`listeners`], [`foreign_listeners`] |

mod accept;
mod dial;
mod handover;
mod listen;
mod options;
mod original;

pub use crate::diag::{ListenerInfo, foreign_listeners, listeners};
pub use accept::{Acceptor, RawAccept};
pub use dial::{DialConfig, DialError, dial};
pub use handover::{HandoverConfig, HandoverReport, ReusePortHandover, Steering};
pub use listen::{ListenConfig, ListenError, Listener, PortSharing, Transparency, listen};
pub use options::Liveness;
pub use original::{OriginalDestination, original_destination};

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

/// Makes the next close of `socket` a reset: unsent data is dropped and the peer gets a RST.
///
/// For ends that are not authentic: a stream that broke must not look complete to the other side.
///
/// # Errors
///
/// Returns the kernel's answer; none is known for an open TCP socket.
pub fn set_linger_zero(socket: &impl AsFd) -> io::Result<()> {
    socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO))
}
