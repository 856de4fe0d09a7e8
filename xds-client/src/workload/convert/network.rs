//! Addresses, ports and references.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{name_part, text};
use crate::{
    proto::workload as wire,
    workload::{
        gateway::{GatewayAddress, GatewayDestination, NetworkAddress},
        intern::Interner,
        invalid::{InvalidResource, TextFault},
        service::NetworkCidr,
    },
};

/// A version 4 address mapped into version 6 is the version 4 address.
pub(super) fn ip(field: &'static str, bytes: &[u8]) -> Result<IpAddr, InvalidResource> {
    let wrong = InvalidResource::Address {
        field,
        bytes: bytes.len(),
    };
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(v4.into());
    }
    let v6 = <[u8; 16]>::try_from(bytes).or(Err(wrong))?;
    Ok(IpAddr::from(v6).to_canonical())
}

pub(super) fn port(field: &'static str, value: u32) -> Result<u16, InvalidResource> {
    let limit = u32::from(u16::MAX);
    u16::try_from(value).or(Err(InvalidResource::Number {
        field,
        value,
        limit,
    }))
}

pub(super) fn optional_gateway(
    interner: &mut Interner,
    field: &'static str,
    from: Option<&wire::GatewayAddress>,
) -> Result<Option<GatewayAddress>, InvalidResource> {
    from.map(|from| gateway(interner, field, from)).transpose()
}

pub(super) fn gateway(
    interner: &mut Interner,
    field: &'static str,
    from: &wire::GatewayAddress,
) -> Result<GatewayAddress, InvalidResource> {
    use wire::gateway_address::Destination;
    let destination = match &from.destination {
        None => return Err(InvalidResource::Missing { field }),
        Some(Destination::Address(from)) => {
            let (address, length) = address(interner, field, from)?;
            match length {
                Some(_) => return Err(InvalidResource::Range { field }),
                None => GatewayDestination::Address(address),
            }
        }
        Some(Destination::Hostname(name)) if name.hostname.is_empty() => {
            let fault = TextFault::Empty;
            return Err(InvalidResource::Text { field, fault });
        }
        Some(Destination::Hostname(name)) => GatewayDestination::Hostname {
            namespace: name_part(interner, field, &name.namespace)?,
            hostname: name_part(interner, field, &name.hostname)?,
        },
    };
    Ok(GatewayAddress {
        destination,
        hbone_mtls_port: port("hbone_mtls_port", from.hbone_mtls_port)?,
    })
}

/// Single addresses and ranges.
pub(super) fn vips(
    interner: &mut Interner,
    from: &[wire::NetworkAddress],
) -> Result<(Vec<NetworkAddress>, Vec<NetworkCidr>), InvalidResource> {
    let field = "addresses";
    let (mut single, mut ranges) = (Vec::new(), Vec::new());
    for from in from {
        let (address, length) = address(interner, field, from)?;
        match length {
            None => single.push(address),
            Some(length) => {
                let cidr =
                    IpNet::new(address.ip, length).or(Err(InvalidResource::Range { field }))?;
                ranges.push(NetworkCidr {
                    network: address.network,
                    cidr: cidr.trunc(),
                });
            }
        }
    }
    Ok((single, ranges))
}

/// An address, and the length of its prefix if it is a range.
fn address(
    interner: &mut Interner,
    field: &'static str,
    from: &wire::NetworkAddress,
) -> Result<(NetworkAddress, Option<u8>), InvalidResource> {
    let ip = ip(field, &from.address)?;
    // The prefix counts the bits of the address as it was sent, mapped or not.
    let sent = if from.address.len() == 4 { 32 } else { 128 };
    let full = if ip.is_ipv4() { 32 } else { 128 };
    let length = match from.length {
        None => None,
        Some(value) if value > sent || value < sent - full => {
            return Err(InvalidResource::Number {
                field: "length",
                value,
                limit: sent,
            });
        }
        Some(value) => u8::try_from(value - (sent - full)).ok(),
    };
    let network = text(interner, "network", &from.network)?;
    let length = length.filter(|length| u32::from(*length) != full);
    Ok((NetworkAddress { network, ip }, length))
}
