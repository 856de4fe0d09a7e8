//! Whether the peer of a live connection is still to be believed.
//!
//! A handshake judges a peer once. Afterwards its certificate ends, the clock may be moved, and a
//! rotation of our own may take away the root that vouched for it.

use meshwright_identity::{Member, PeerSvid, svid::Purpose};
use rustls::{CommonState, pki_types::UnixTime};
use std::time::{Duration, UNIX_EPOCH};

/// One connection's view of its peer's certificate.
#[derive(Debug)]
pub(crate) struct Trust {
    member: Member,
    /// What the peer proved itself for.
    purpose: Purpose,
    /// When it did; none when there was no time.
    since: Option<UnixTime>,
    /// Rotations of `member` that were looked at.
    rotations: u64,
}

impl Trust {
    /// Begins after a handshake that began when `member` had rotated `rotations` times.
    pub(crate) fn new(member: &Member, purpose: Purpose, rotations: u64) -> Self {
        Self {
            member: member.clone(),
            purpose,
            since: member.now(),
            rotations,
        }
    }

    /// What is left of the peer's certificate; nothing when there is no time.
    pub(crate) fn rest(&self, peer: &PeerSvid) -> Duration {
        let now = self.member.now().map(|now| now.as_secs());
        now.map_or(Duration::ZERO, |now| {
            end(peer).saturating_sub(Duration::from_secs(now))
        })
    }

    /// Whether the peer's certificate has ended by the wall clock.
    pub(crate) fn has_ended(&self, peer: &PeerSvid) -> bool {
        let now = self.member.now().map(|now| now.as_secs());
        now.is_none_or(|now| now > end(peer).as_secs())
    }

    /// Whether there was a rotation since this was last asked.
    pub(crate) fn rotated(&mut self) -> bool {
        let rotations = self.member.rotations();
        std::mem::replace(&mut self.rotations, rotations) != rotations
    }

    /// Whether the roots in force now vouch for the peer.
    pub(crate) fn vouches(&self, tls: &CommonState) -> bool {
        self.since
            .is_some_and(|since| self.member.still_trusts(tls, since, self.purpose))
    }
}

/// The last second of the peer's certificate, since the epoch.
fn end(peer: &PeerSvid) -> Duration {
    peer.not_after
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
