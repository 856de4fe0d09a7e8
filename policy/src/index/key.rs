//! The keys under which rules are filed, and those that a connection has.

use std::hash::Hasher;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::affix::Affixes;
use crate::{connection::Facts, hash::FastHasher};

/// Something that a connection has, and without which a condition cannot hold.
#[derive(Clone, Copy, Debug)]
pub(super) enum Key<'a> {
    Account(&'a str, &'a str),
    /// Every connection has it.
    Always,
    DestinationIp(IpNet),
    Namespace(&'a str),
    NamespacePrefix(&'a [u8]),
    /// Bytes in reverse order.
    NamespaceSuffix(&'a [u8]),
    /// The identity names no workload, or there is none.
    NoAccount,
    NoIdentity,
    Port(u16),
    Principal(&'a str),
    PrincipalPrefix(&'a [u8]),
    /// Bytes in reverse order.
    PrincipalSuffix(&'a [u8]),
    SomeIdentity,
    SourceIp(IpNet),
}

impl Key<'_> {
    pub(super) fn hash(self) -> u64 {
        let mut hasher = FastHasher::default();
        match self {
            Self::Account(namespace, name) => {
                hasher.write(b"account");
                hasher.write(namespace.as_bytes());
                hasher.write(name.as_bytes());
            }
            Self::Always => hasher.write(b"always"),
            Self::DestinationIp(network) => hash_network(&mut hasher, b"to", network),
            Self::Namespace(text) => hash_text(&mut hasher, b"ns", text.as_bytes()),
            Self::NamespacePrefix(text) => hash_text(&mut hasher, b"ns*", text),
            Self::NamespaceSuffix(text) => hash_text(&mut hasher, b"*ns", text),
            Self::NoAccount => hasher.write(b"no account"),
            Self::NoIdentity => hasher.write(b"no identity"),
            Self::Port(port) => {
                hasher.write(b"port");
                hasher.write_u16(port);
            }
            Self::Principal(text) => hash_text(&mut hasher, b"id", text.as_bytes()),
            Self::PrincipalPrefix(text) => hash_text(&mut hasher, b"id*", text),
            Self::PrincipalSuffix(text) => hash_text(&mut hasher, b"*id", text),
            Self::SomeIdentity => hasher.write(b"identity"),
            Self::SourceIp(network) => hash_network(&mut hasher, b"from", network),
        }
        hasher.finish()
    }

    /// How likely a connection has it, relative to the others.
    pub(super) fn weight(self) -> u64 {
        match self {
            Self::Always => 1000,
            Self::SomeIdentity => 900,
            Self::NoAccount | Self::NoIdentity => 200,
            Self::Port(_) => 50,
            Self::NamespacePrefix(_)
            | Self::NamespaceSuffix(_)
            | Self::PrincipalPrefix(_)
            | Self::PrincipalSuffix(_) => 30,
            Self::Namespace(_) => 20,
            Self::Principal(_) | Self::Account(..) => 5,
            Self::SourceIp(network) | Self::DestinationIp(network) => {
                1 + u64::from(network.max_prefix_len() - network.prefix_len())
            }
        }
    }
}

fn hash_text(hasher: &mut FastHasher, kind: &[u8], text: &[u8]) {
    hasher.write(kind);
    hasher.write(text);
}

fn hash_network(hasher: &mut FastHasher, kind: &[u8], network: IpNet) {
    hasher.write(kind);
    match network.network() {
        IpAddr::V4(address) => hasher.write_u32(u32::from(address)),
        IpAddr::V6(address) => hasher.write(&address.octets()),
    }
    hasher.write_u8(network.prefix_len());
}

/// Which kinds of keys a segment uses: the others are not looked up.
#[derive(Clone, Debug, Default)]
pub(super) struct Probes {
    account: bool,
    always: bool,
    identity: bool,
    namespace: bool,
    port: bool,
    principal: bool,
    source: Lengths,
    destination: Lengths,
    namespace_prefixes: Affixes,
    namespace_suffixes: Affixes,
    principal_prefixes: Affixes,
    principal_suffixes: Affixes,
}

/// Prefix lengths that occur: bit n for length n + 1, and a flag for the whole address space.
#[derive(Clone, Copy, Debug, Default)]
struct Lengths {
    v4: u128,
    v6: u128,
    all: bool,
}

impl Probes {
    pub(super) fn expect(&mut self, key: Key<'_>) {
        match key {
            Key::Account(..) => self.account = true,
            Key::Always => self.always = true,
            Key::NoAccount | Key::NoIdentity | Key::SomeIdentity => self.identity = true,
            Key::Namespace(_) => self.namespace = true,
            Key::Port(_) => self.port = true,
            Key::Principal(_) => self.principal = true,
            Key::SourceIp(network) => self.source.expect(network),
            Key::DestinationIp(network) => self.destination.expect(network),
            Key::NamespacePrefix(text) => self.namespace_prefixes.add(text),
            Key::NamespaceSuffix(text) => self.namespace_suffixes.add(text),
            Key::PrincipalPrefix(text) => self.principal_prefixes.add(text),
            Key::PrincipalSuffix(text) => self.principal_suffixes.add(text),
        }
    }

    /// Arranges what was expected for lookup.
    pub(super) fn finish(&mut self) {
        for affixes in [
            &mut self.namespace_prefixes,
            &mut self.namespace_suffixes,
            &mut self.principal_prefixes,
            &mut self.principal_suffixes,
        ] {
            affixes.arrange();
        }
    }

    /// Calls `visit` with the hash of each key of the connection, until it answers false.
    ///
    /// Rare keys come first.
    pub(super) fn each_hash(&self, facts: &Facts<'_>, visit: &mut impl FnMut(u64) -> bool) {
        // The answer of the chain only ends it early.
        let _ended = self.addresses(facts, visit)
            && self.identities(facts, visit)
            && self.rest(facts, visit);
    }

    fn addresses(&self, facts: &Facts<'_>, visit: &mut impl FnMut(u64) -> bool) -> bool {
        let mut source = |net| visit(Key::SourceIp(net).hash());
        if !self.source.each(facts.source_ip, &mut source) {
            return false;
        }
        let mut destination = |net| visit(Key::DestinationIp(net).hash());
        self.destination
            .each(facts.destination_ip, &mut destination)
    }

    fn identities(&self, facts: &Facts<'_>, visit: &mut impl FnMut(u64) -> bool) -> bool {
        if let Some(principal) = facts.principal {
            if self.principal && !visit(Key::Principal(principal).hash()) {
                return false;
            }
            let mut prefix = |text: &[u8]| visit(Key::PrincipalPrefix(text).hash());
            if !self
                .principal_prefixes
                .each_of(principal.bytes(), &mut prefix)
            {
                return false;
            }
            let mut suffix = |text: &[u8]| visit(Key::PrincipalSuffix(text).hash());
            if !self
                .principal_suffixes
                .each_of(principal.bytes().rev(), &mut suffix)
            {
                return false;
            }
        }
        let Some((namespace, name)) = facts.account else {
            return true;
        };
        if self.account && !visit(Key::Account(namespace, name).hash()) {
            return false;
        }
        if self.namespace && !visit(Key::Namespace(namespace).hash()) {
            return false;
        }
        let mut prefix = |text: &[u8]| visit(Key::NamespacePrefix(text).hash());
        if !self
            .namespace_prefixes
            .each_of(namespace.bytes(), &mut prefix)
        {
            return false;
        }
        let mut suffix = |text: &[u8]| visit(Key::NamespaceSuffix(text).hash());
        self.namespace_suffixes
            .each_of(namespace.bytes().rev(), &mut suffix)
    }

    fn rest(&self, facts: &Facts<'_>, visit: &mut impl FnMut(u64) -> bool) -> bool {
        if self.port && !visit(Key::Port(facts.destination_port).hash()) {
            return false;
        }
        if self.identity {
            let identity = match facts.principal {
                Some(_) => Key::SomeIdentity,
                None => Key::NoIdentity,
            };
            if !visit(identity.hash()) || (facts.account.is_none() && !visit(Key::NoAccount.hash()))
            {
                return false;
            }
        }
        !self.always || visit(Key::Always.hash())
    }
}

impl Lengths {
    fn expect(&mut self, network: IpNet) {
        let bit = match network.prefix_len().checked_sub(1) {
            Some(place) => 1_u128 << place,
            None => {
                self.all = true;
                0
            }
        };
        match network {
            IpNet::V4(_) => self.v4 |= bit,
            IpNet::V6(_) => self.v6 |= bit,
        }
    }

    /// Visits the networks around `address` of each length that occurs, the narrowest first.
    fn each(self, address: IpAddr, visit: &mut impl FnMut(IpNet) -> bool) -> bool {
        let mut lengths = match address {
            IpAddr::V4(_) => self.v4,
            IpAddr::V6(_) => self.v6,
        };
        while lengths != 0 {
            let place = 127 - lengths.leading_zeros();
            lengths ^= 1 << place;
            if let Some(network) = around(address, place as u8 + 1)
                && !visit(network)
            {
                return false;
            }
        }
        match around(address, 0) {
            Some(network) if self.all => visit(network),
            _ => true,
        }
    }
}

fn around(address: IpAddr, length: u8) -> Option<IpNet> {
    match address {
        IpAddr::V4(address) => Ipv4Net::new(address, length)
            .ok()
            .map(|net| IpNet::V4(net.trunc())),
        IpAddr::V6(address) => Ipv6Net::new(address, length)
            .ok()
            .map(|net| IpNet::V6(net.trunc())),
    }
}
