//! Ranges of virtual addresses.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::index::HashIndex;

/// Lengths of prefixes in both families: 0 to 32 and 0 to 128.
const LENGTHS: usize = 33 + 129;

/// An index by (network, prefix), and how often each length of prefix is in use.
///
/// A look-up probes once per length in use, which in practice is a handful.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranges {
    index: HashIndex,
    in_use: Arc<Vec<u32>>,
}

impl Ranges {
    pub(super) const fn index(&self) -> &HashIndex {
        &self.index
    }

    /// The prefixes of `ip` whose lengths are in use.
    pub(super) fn containing(&self, ip: IpAddr) -> impl Iterator<Item = IpNet> {
        let full = if ip.is_ipv4() { 32 } else { 128 };
        (0..=full).filter_map(move |length| {
            let cidr = IpNet::new(ip, length).ok()?.trunc();
            let used = self.in_use.get(place(&cidr)).copied().unwrap_or(0);
            (used > 0).then_some(cidr)
        })
    }

    pub(super) fn insert(&mut self, hash: u64, cidr: &IpNet, id: u32) {
        self.index.insert(hash, id);
        let in_use = Arc::make_mut(&mut self.in_use);
        in_use.resize(LENGTHS, 0);
        if let Some(count) = in_use.get_mut(place(cidr)) {
            *count += 1;
        }
    }

    pub(super) fn remove(&mut self, hash: u64, cidr: &IpNet, id: u32) {
        self.index.remove(hash, id);
        if let Some(count) = Arc::make_mut(&mut self.in_use).get_mut(place(cidr)) {
            *count = count.saturating_sub(1);
        }
    }
}

fn place(cidr: &IpNet) -> usize {
    let offset = if cidr.addr().is_ipv4() { 0 } else { 33 };
    offset + usize::from(cidr.prefix_len())
}
