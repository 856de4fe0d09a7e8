//! The values of one condition, arranged for lookup.
//!
//! A list of ten thousand alternatives costs a binary search, not ten thousand comparisons.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Alternatives for a text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Texts {
    exact: Box<[Box<str>]>,
    /// Sorted, and none is the beginning of another.
    prefixes: Box<[Box<str>]>,
    /// Stored backwards; sorted, and none is the beginning of another.
    suffixes: Box<[Box<[u8]>]>,
    presence: bool,
}

/// One way to compare a text, before it is arranged.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Comparison<'a> {
    Exact(&'a str),
    Prefix(&'a str),
    Suffix(&'a str),
    Presence,
}

impl Texts {
    pub(crate) fn new(comparisons: &[Comparison<'_>]) -> Self {
        let mut texts = Self::default();
        let (mut exact, mut prefixes, mut suffixes) = (Vec::new(), Vec::new(), Vec::new());
        for comparison in comparisons {
            match *comparison {
                Comparison::Exact(text) => push_exact(&mut exact, Box::from(text)),
                Comparison::Prefix(text) => push_exact(&mut prefixes, Box::from(text)),
                Comparison::Suffix(text) => {
                    push_exact(&mut suffixes, text.bytes().rev().collect::<Box<[u8]>>());
                }
                Comparison::Presence => texts.presence = true,
            }
        }
        exact.sort_unstable();
        exact.dedup();
        prefixes.sort_unstable();
        prefixes.dedup_by(|next: &mut Box<str>, kept: &mut Box<str>| next.starts_with(&**kept));
        suffixes.sort_unstable();
        suffixes.dedup_by(|next: &mut Box<[u8]>, kept: &mut Box<[u8]>| next.starts_with(kept));
        texts.exact = exact.into();
        texts.prefixes = prefixes.into();
        texts.suffixes = suffixes.into();
        texts
    }

    /// Whether any alternative fits. An empty text fits none.
    pub(crate) fn contains(&self, text: &str) -> bool {
        if text.is_empty() {
            return false;
        }
        self.presence
            || self
                .exact
                .binary_search_by(|exact| (**exact).cmp(text))
                .is_ok()
            || self.has_prefix_of(text)
            || self.has_suffix_of(text)
    }

    fn has_prefix_of(&self, text: &str) -> bool {
        // The beginning of `text`, if it is in the list, is its direct predecessor: whatever
        // stands between a text's beginning and the text starts with that beginning too.
        let after = self.prefixes.partition_point(|prefix| **prefix <= *text);
        after
            .checked_sub(1)
            .and_then(|before| self.prefixes.get(before))
            .is_some_and(|prefix| text.starts_with(&**prefix))
    }

    fn has_suffix_of(&self, text: &str) -> bool {
        let backwards = || text.bytes().rev();
        let after = self
            .suffixes
            .partition_point(|suffix| suffix.iter().copied().cmp(backwards()).is_le());
        after
            .checked_sub(1)
            .and_then(|before| self.suffixes.get(before))
            .is_some_and(|suffix| {
                suffix.len() <= text.len()
                    && suffix.iter().copied().eq(backwards().take(suffix.len()))
            })
    }

    /// Whether the only question is if there is a text at all.
    pub(crate) fn is_presence_only(&self) -> bool {
        self.presence
            && self.exact.is_empty()
            && self.prefixes.is_empty()
            && self.suffixes.is_empty()
    }

    pub(crate) const fn has_presence(&self) -> bool {
        self.presence
    }

    /// All alternatives as people write them.
    pub(crate) fn patterns(&self) -> impl Iterator<Item = String> + '_ {
        let presence = self.presence.then(|| "*".to_owned());
        let exact = self.exact.iter().map(|text| text.to_string());
        let prefixes = self.prefixes.iter().map(|text| format!("{text}*"));
        let suffixes = self.suffixes.iter().map(|text| {
            let forward: Vec<u8> = text.iter().rev().copied().collect();
            format!("*{}", String::from_utf8_lossy(&forward))
        });
        presence
            .into_iter()
            .chain(exact)
            .chain(prefixes)
            .chain(suffixes)
    }

    pub(crate) fn exact(&self) -> &[Box<str>] {
        &self.exact
    }

    pub(crate) fn prefixes(&self) -> &[Box<str>] {
        &self.prefixes
    }

    /// Suffixes with their bytes in reverse order.
    pub(crate) fn suffixes(&self) -> &[Box<[u8]>] {
        &self.suffixes
    }
}

/// Alternatives for an address: disjoint networks, sorted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Networks {
    v4: Box<[Ipv4Net]>,
    v6: Box<[Ipv6Net]>,
}

impl Networks {
    pub(crate) fn new(networks: &[IpNet]) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match network.trunc() {
                IpNet::V4(network) => push_exact(&mut v4, network),
                IpNet::V6(network) => push_exact(&mut v6, network),
            }
        }
        // Two networks are either disjoint or one contains the other; the wider sorts first.
        v4.sort_unstable();
        v4.dedup_by(|next: &mut Ipv4Net, kept| kept.contains(&*next));
        v6.sort_unstable();
        v6.dedup_by(|next: &mut Ipv6Net, kept| kept.contains(&*next));
        Self {
            v4: v4.into(),
            v6: v6.into(),
        }
    }

    /// Whether a network contains `address`, which is canonical (never IPv4-mapped).
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => {
                let after = self
                    .v4
                    .partition_point(|network| network.network() <= address);
                predecessor(&self.v4, after).is_some_and(|network| network.contains(&address))
            }
            IpAddr::V6(address) => {
                let after = self
                    .v6
                    .partition_point(|network| network.network() <= address);
                predecessor(&self.v6, after).is_some_and(|network| network.contains(&address))
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = IpNet> + '_ {
        let v4 = self.v4.iter().copied().map(IpNet::V4);
        v4.chain(self.v6.iter().copied().map(IpNet::V6))
    }
}

/// Pushes; a list of one, by far the most frequent, needs no second allocation to be boxed.
pub(crate) fn push_exact<T>(list: &mut Vec<T>, value: T) {
    if list.is_empty() {
        list.reserve_exact(1);
    }
    list.push(value);
}

fn predecessor<T>(sorted: &[T], after: usize) -> Option<&T> {
    sorted.get(after.checked_sub(1)?)
}

/// Reads an address range of the wire; an IPv4-mapped range becomes the IPv4 range.
///
/// Bits behind the prefix are ignored, as everywhere in Istio. `None` for a length that is no
/// address, a prefix longer than the address, and a prefix that covers more than the mapped
/// addresses while pretending to be one of them.
pub(crate) fn network(address: &[u8], prefix: u64) -> Option<IpNet> {
    let prefix = u8::try_from(prefix).ok()?;
    if let Ok(octets) = <[u8; 4]>::try_from(address) {
        return Ipv4Net::new(Ipv4Addr::from(octets), prefix)
            .ok()
            .map(|net| IpNet::V4(net.trunc()));
    }
    let address = Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?);
    match address.to_ipv4_mapped() {
        Some(v4) => Ipv4Net::new(v4, prefix.checked_sub(96)?)
            .ok()
            .map(|net| IpNet::V4(net.trunc())),
        None => Ipv6Net::new(address, prefix)
            .ok()
            .map(|net| IpNet::V6(net.trunc())),
    }
}

/// Alternatives for a port, sorted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ports(Box<[u16]>);

impl Ports {
    pub(crate) fn new(mut ports: Vec<u16>) -> Self {
        ports.sort_unstable();
        ports.dedup();
        Self(ports.into())
    }

    pub(crate) fn contains(&self, port: u16) -> bool {
        self.0.binary_search(&port).is_ok()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.0.iter().copied()
    }
}

/// Alternatives for a service account, sorted by namespace and name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Accounts(Box<[(Box<str>, Box<str>)]>);

impl Accounts {
    pub(crate) fn new(accounts: &[(&str, &str)]) -> Self {
        let mut accounts: Vec<(Box<str>, Box<str>)> = accounts
            .iter()
            .map(|&(namespace, name)| (namespace.into(), name.into()))
            .collect();
        accounts.sort_unstable();
        accounts.dedup();
        Self(accounts.into())
    }

    pub(crate) fn contains(&self, account: (&str, &str)) -> bool {
        self.0
            .binary_search_by(|(namespace, name)| (&**namespace, &**name).cmp(&account))
            .is_ok()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> + '_ {
        self.0
            .iter()
            .map(|(namespace, name)| (&**namespace, &**name))
    }
}

#[cfg(test)]
mod tests {
    use super::{Comparison, Networks, Texts, network};
    use ipnet::IpNet;
    use std::net::IpAddr;

    fn texts(comparisons: &[Comparison<'_>]) -> Texts {
        Texts::new(comparisons)
    }

    #[test]
    fn each_kind_of_comparison_compares_literally() {
        let _trace = meshwright_testkit::trace();
        let exact = texts(&[Comparison::Exact("a[b.c"), Comparison::Exact("x")]);
        assert!(exact.contains("a[b.c") && exact.contains("x"));
        assert!(!exact.contains("a[bxc") && !exact.contains("xx"));
        let prefix = texts(&[
            Comparison::Prefix("td/ns/foo"),
            Comparison::Prefix("td/ns/foobar"),
        ]);
        assert!(
            prefix.contains("td/ns/foobar/sa/x"),
            "a prefix may end inside a segment"
        );
        assert!(!prefix.contains("td/ns/fo"));
        let suffix = texts(&[Comparison::Suffix("/sa/b"), Comparison::Suffix("zz/sa/b")]);
        assert!(suffix.contains("td/ns/n/sa/b") && suffix.contains("/sa/b"));
        assert!(!suffix.contains("sa/b") && !suffix.contains("/sa/bb"));
        assert!(texts(&[Comparison::Presence]).contains("anything"));
    }

    #[test]
    fn empty_text_fits_nothing() {
        let _trace = meshwright_testkit::trace();
        let all = texts(&[
            Comparison::Presence,
            Comparison::Exact("a"),
            Comparison::Suffix("b"),
        ]);
        assert!(!all.contains(""), "an absent identity is no identity");
    }

    #[test]
    fn neighbours_in_a_sorted_list_do_not_hide_a_prefix() {
        let _trace = meshwright_testkit::trace();
        let list = texts(&[
            Comparison::Prefix("a"),
            Comparison::Prefix("ab"),
            Comparison::Prefix("abc"),
            Comparison::Prefix("b"),
        ]);
        for text in ["a", "abb", "abcd", "azzz", "b"] {
            assert!(list.contains(text), "{text} begins with a listed prefix");
        }
        assert!(!list.contains("c"));
    }

    #[test]
    fn mapped_ranges_are_ranges_of_the_mapped_addresses() {
        let _trace = meshwright_testkit::trace();
        let mapped = "::ffff:10.1.0.0"
            .parse::<std::net::Ipv6Addr>()
            .unwrap()
            .octets();
        assert_eq!(
            network(&mapped, 112),
            Some("10.1.0.0/16".parse::<IpNet>().unwrap())
        );
        assert_eq!(
            network(&mapped, 16),
            None,
            "a mapped address with an IPv4 prefix length"
        );
        assert_eq!(network(&[10, 0, 0], 8), None);
        assert_eq!(network(&[10, 0, 0, 0], 33), None);
        assert_eq!(
            network(&[10, 0, 0, 0], 256 + 8),
            None,
            "lengths are not cut to eight bits"
        );
        assert_eq!(network(&[0; 16], 129), None);
        assert_eq!(
            network(&[10, 9, 8, 7], 8),
            Some("10.0.0.0/8".parse::<IpNet>().unwrap())
        );
    }

    #[test]
    fn nested_networks_collapse_without_losing_addresses() {
        let _trace = meshwright_testkit::trace();
        let nets = [
            "10.0.0.0/8",
            "10.1.0.0/16",
            "10.255.255.255/32",
            "11.0.0.0/32",
            "2001:db8::/32",
        ]
        .map(|net| net.parse::<IpNet>().unwrap());
        let networks = Networks::new(&nets);
        assert_eq!(networks.iter().count(), 3);
        for (address, inside) in [
            ("10.200.0.1", true),
            ("10.255.255.255", true),
            ("11.0.0.0", true),
            ("11.0.0.1", false),
            ("9.255.255.255", false),
            ("2001:db8::1", true),
            ("2001:db9::1", false),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(networks.contains(address), inside, "{address}");
        }
    }
}
