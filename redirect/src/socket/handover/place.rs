//! Finding our place in a group of listeners.

use super::program::{attach, probe_mark, probe_program};
use crate::netns::Netns;
use crate::socket::{DialConfig, dial, set_linger_zero};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Longest search for our place.
const FINDING: Duration = Duration::from_secs(1);

/// What is known before the search.
pub(super) struct Search<'a> {
    pub(super) netns: &'a Netns,
    pub(super) mark: u32,
    pub(super) members: u32,
    /// The index to which all others go during the search.
    pub(super) meanwhile: u32,
}

impl Search<'_> {
    /// Finds our place in the group: sends a connection to each place and sees which arrives.
    pub(super) async fn own_index(
        &self,
        listener: &TcpListener,
        connection: &mut (dyn FnMut(TcpStream, SocketAddr) + Send),
    ) -> io::Result<u32> {
        attach(listener, &probe_program(self.mark, self.meanwhile))?;
        let mut dialing = JoinSet::new();
        for index in 0..self.members {
            let target = listener.local_addr()?;
            dialing.spawn(probe(self.netns.clone(), target, self.mark, index));
        }
        let mut probes: Vec<Probe> = Vec::new();
        // Connections from loopback that may turn out to be probes.
        let mut unsure: Vec<(TcpStream, SocketAddr)> = Vec::new();
        let end = Instant::now() + FINDING;
        let found = loop {
            let is_probe = |probe: &&Probe| unsure.iter().any(|(_, peer)| *peer == probe.from);
            if let Some(probe) = probes.iter().find(is_probe) {
                break Ok(probe.index);
            }
            if dialing.is_empty() && probes.is_empty() {
                break Err(io::Error::other("no listener of the group can be reached"));
            }
            tokio::select! {
                Some(dialed) = dialing.join_next() => probes.extend(dialed.ok().flatten()),
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) if peer.ip().to_canonical().is_loopback() => {
                        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                        unsure.push((stream, peer));
                    }
                    Ok((stream, peer)) => connection(stream, peer),
                    Err(error) => break Err(error),
                },
                () = sleep_until(end) => break Err(io::ErrorKind::TimedOut.into()),
            }
        };
        for (stream, peer) in unsure {
            if !probes.iter().any(|probe| probe.from == peer) {
                connection(stream, peer);
            }
        }
        found
    }
}

/// A connection to one place of the group.
struct Probe {
    index: u32,
    from: SocketAddr,
    /// Reset when dropped.
    _stream: TcpStream,
}

/// Connects to the listener through loopback with the mark that names `index`.
async fn probe(netns: Netns, target: SocketAddr, mark: u32, index: u32) -> Option<Probe> {
    let config = DialConfig::new()
        .mark(probe_mark(mark, index))
        .deadline(FINDING);
    let mut target = target;
    let wildcard = target.ip().is_unspecified();
    if wildcard && target.is_ipv6() {
        target.set_ip(Ipv6Addr::LOCALHOST.into());
    }
    let mut dialed = None;
    if !wildcard || target.is_ipv6() {
        dialed = dial(&netns, &config, target).await.ok();
    }
    // An IPv4 listener, or a dual-stack one where loopback has no IPv6 address.
    if dialed.is_none() && wildcard {
        target.set_ip(Ipv4Addr::LOCALHOST.into());
        dialed = dial(&netns, &config, target).await.ok();
    }
    let stream = dialed?;
    set_linger_zero(&stream).ok()?;
    Some(Probe {
        index,
        from: stream.local_addr().ok()?,
        _stream: stream,
    })
}
