//! The cables of a world: one switch, and who is plugged into it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{
    Space, WorldError,
    links::{self, Plug, Prefix},
};

const BRIDGE: &str = "br0";

/// The switch that carries every frame between nodes and pods.
#[derive(Debug)]
pub(crate) struct Fabric {
    switch: Space,
    ports: AtomicU32,
}

/// Addresses of one member of the fabric: IPv4 and IPv6.
pub(crate) fn addresses(group: u8, member: u8) -> [IpAddr; 2] {
    [
        Ipv4Addr::new(10, 77, group, member).into(),
        Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, group.into(), member.into()).into(),
    ]
}

fn prefixes(addresses: &[IpAddr]) -> Vec<Prefix> {
    addresses
        .iter()
        .map(|ip| (*ip, if ip.is_ipv4() { 16 } else { 64 }))
        .collect()
}

impl Fabric {
    pub(crate) fn build() -> Result<Self, WorldError> {
        let switch = Space::create("switch")?;
        links::raise_loopback(&switch)?;
        links::make_bridge(&switch, BRIDGE, &prefixes(&Self::gateways()))?;
        Ok(Self {
            switch,
            ports: AtomicU32::new(1),
        })
    }

    pub(crate) const fn switch(&self) -> &Space {
        &self.switch
    }

    /// Addresses of the switch itself, where the control plane listens.
    pub(crate) fn gateways() -> [IpAddr; 2] {
        addresses(0, 1)
    }

    /// Makes a namespace and plugs it in.
    pub(crate) fn plug(&self, name: &str, ips: &[IpAddr]) -> Result<Space, WorldError> {
        let space = Space::create(name)?;
        let port = format!("port{}", self.ports.fetch_add(1, Ordering::Relaxed));
        let plug = Plug {
            port: &port,
            addresses: &prefixes(ips),
            gateways: &Self::gateways(),
        };
        links::plug(&space, &self.switch, BRIDGE, &plug)?;
        Ok(space)
    }

    /// Gives the switch an address of its own, for a stand-in of a service.
    pub(crate) fn own(&self, ip: IpAddr) -> Result<(), WorldError> {
        let length = if ip.is_ipv4() { 32 } else { 128 };
        links::add_addresses(&self.switch, BRIDGE, &[(ip, length)])
    }
}
