//! What shall be captured.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Mark of every packet that the proxy sends (`SO_MARK`): capture rules let it pass.
pub const PROXY_MARK: u32 = 0x539;
/// Mark of connections that the proxy makes to the pod's app with a borrowed source address.
pub const INBOUND_MARK: u32 = 0x111;
/// The bits of a mark that count.
pub const MARK_MASK: u32 = 0xfff;
/// Routing table that leads answers to borrowed addresses back to the proxy.
pub const ROUTE_TABLE: u32 = 100;
/// Preference of the policy rule that selects [`ROUTE_TABLE`].
pub const RULE_PREFERENCE: u32 = 32764;

/// Where the proxy's listeners wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Ports {
    /// Connections that leave the pod. Default: 15001.
    pub outbound: u16,
    /// Plaintext connections to the pod. Default: 15006.
    pub inbound: u16,
    /// Tunnels to the pod; not captured on the way in. Default: 15008.
    pub tunnel: u16,
    /// DNS queries of the pod. Default: 15053.
    pub dns: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            outbound: 15001,
            inbound: 15006,
            tunnel: 15008,
            dns: 15053,
        }
    }
}

/// The name of a network interface: 1 to 15 bytes without `/`, whitespace, quotes and `:`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfaceName {
    type Err = InvalidInterfaceName;

    fn from_str(name: &str) -> Result<Self, InvalidInterfaceName> {
        let is_plain = |c: char| c.is_ascii_graphic() && !"/:\"'\\*+".contains(c);
        let fits = (1..=15).contains(&name.len());
        if fits && name != "." && name != ".." && name.chars().all(is_plain) {
            return Ok(Self(name.to_owned()));
        }
        Err(InvalidInterfaceName(()))
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text cannot be the name of a network interface.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("an interface name has 1 to 15 plain characters")]
pub struct InvalidInterfaceName(());

/// Interfaces of virtual machines in one pod at most, so that an annotation cannot make rules
/// without bound.
pub const MAX_VIRTUAL_INTERFACES: usize = 64;

/// What shall be captured in a pod; start from a preset.
///
/// ```
/// use meshwright_redirect::capture::{Spec, render_nft};
///
/// let spec = Spec::ambient().with_dns();
/// assert!(render_nft(&spec).contains("redirect to :15053"));
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use = "a specification does nothing until it is applied"]
pub struct Spec {
    pub(crate) ports: Ports,
    pub(crate) probe_v4: Ipv4Addr,
    pub(crate) probe_v6: Ipv6Addr,
    pub(crate) dns: bool,
    pub(crate) ipv6: bool,
    pub(crate) ingress: bool,
    pub(crate) syn_only: bool,
    pub(crate) virtual_interfaces: Vec<InterfaceName>,
}

impl Spec {
    /// The default: Istio's capture, but only the first packet of a connection is redirected.
    ///
    /// Connections that are open when a pod is enrolled continue, uncaptured, until they end; with
    /// Istio's own rules both directions are reset. Everything else is as in
    /// [`ambient_exact`](Self::ambient_exact). No DNS.
    pub const fn ambient() -> Self {
        let mut spec = Self::ambient_exact();
        spec.syn_only = true;
        spec
    }

    /// Istio's rules for ambient pods, rule for rule. No DNS.
    pub const fn ambient_exact() -> Self {
        Self {
            ports: Ports {
                outbound: 15001,
                inbound: 15006,
                tunnel: 15008,
                dns: 15053,
            },
            probe_v4: Ipv4Addr::new(169, 254, 7, 127),
            probe_v6: Ipv6Addr::new(
                0xfd16, 0x9254, 0x7127, 0x1337, 0xffff, 0xffff, 0xffff, 0xffff,
            ),
            dns: false,
            ipv6: true,
            ingress: false,
            syn_only: false,
            virtual_interfaces: Vec::new(),
        }
    }

    /// Captures DNS too. Needs a DNS server on the pod's loopback at [`Ports::dns`].
    pub const fn with_dns(mut self) -> Self {
        self.dns = true;
        self
    }

    /// Leaves IPv6 alone, for clusters that have none. Default: both families.
    pub const fn ipv4_only(mut self) -> Self {
        self.ipv6 = false;
        self
    }

    /// Leaves connections to the pod alone (`ambient.istio.io/bypass-inbound-capture`).
    pub const fn ingress_bypass(mut self) -> Self {
        self.ingress = true;
        self
    }

    /// Uses other ports.
    pub const fn ports(mut self, ports: Ports) -> Self {
        self.ports = ports;
        self
    }

    /// Lets connections from these addresses reach the pod uncaptured: the node's health probes.
    ///
    /// Default: 169.254.7.127 and fd16:9254:7127:1337:ffff:ffff:ffff:ffff.
    pub const fn probe_sources(mut self, v4: Ipv4Addr, v6: Ipv6Addr) -> Self {
        self.probe_v4 = v4;
        self.probe_v6 = v6;
        self
    }

    /// Treats what arrives on these interfaces as leaving the pod: virtual machines in pods
    /// (`istio.io/reroute-virtual-interfaces`).
    ///
    /// # Errors
    ///
    /// Returns [`TooManyInterfaces`] above [`MAX_VIRTUAL_INTERFACES`].
    pub fn virtual_interfaces(
        mut self,
        interfaces: Vec<InterfaceName>,
    ) -> Result<Self, TooManyInterfaces> {
        if interfaces.len() > MAX_VIRTUAL_INTERFACES {
            return Err(TooManyInterfaces(interfaces.len()));
        }
        self.virtual_interfaces = interfaces;
        Ok(self)
    }
}

/// A pod names more virtual interfaces than any has.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0} virtual interfaces are more than {MAX_VIRTUAL_INTERFACES}")]
pub struct TooManyInterfaces(usize);

#[cfg(test)]
mod tests {
    use super::{InterfaceName, MAX_VIRTUAL_INTERFACES, Spec};

    #[test]
    fn interface_names_that_could_break_a_rule_text_are_refused() {
        let _trace = meshwright_testkit::trace();
        for name in ["eth0", "vnet1", "br-0a.1"] {
            assert!(name.parse::<InterfaceName>().is_ok(), "{name}");
        }
        for name in [
            "",
            "a b",
            "a\"",
            "a/b",
            "sixteen-bytes-xx",
            "é",
            "..",
            "a\n",
            "k6t*",
        ] {
            assert!(name.parse::<InterfaceName>().is_err(), "{name:?}");
        }
    }

    #[test]
    fn number_of_virtual_interfaces_is_bounded() {
        let _trace = meshwright_testkit::trace();
        let name: InterfaceName = "vnet0".parse().unwrap();
        let many = vec![name; MAX_VIRTUAL_INTERFACES + 1];
        assert!(Spec::ambient().virtual_interfaces(many).is_err());
    }
}
