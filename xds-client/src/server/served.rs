//! One resource to serve.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use prost::Message;

use crate::proto::workload::{Address, NetworkAddress, address::Type};

/// One resource to serve.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ServedResource {
    /// The primary name.
    pub name: Arc<str>,
    /// Other names by which it can be asked for.
    pub aliases: Vec<Arc<str>>,
    /// The encoded message, without an envelope.
    pub body: Bytes,
}

impl ServedResource {
    /// A resource without aliases.
    pub fn new(name: impl Into<Arc<str>>, body: impl Into<Bytes>) -> Self {
        Self {
            name: name.into(),
            aliases: Vec::new(),
            body: body.into(),
        }
    }

    /// A workload API resource, named as Istio does.
    ///
    /// A workload is named by its UID, a service by `namespace/hostname`; `network/ip` of each
    /// address is an alias, and `network/ip/length` of each range.
    #[must_use]
    pub fn address(address: &Address) -> Self {
        let (name, aliases) = match &address.r#type {
            None => (String::new(), Vec::new()),
            Some(Type::Workload(workload)) => {
                let addresses = workload.addresses.iter();
                let alias = |ip: &Bytes| Some(format!("{}/{}", workload.network, ip_text(ip)?));
                (workload.uid.clone(), addresses.filter_map(alias).collect())
            }
            Some(Type::Service(service)) => {
                let name = format!("{}/{}", service.namespace, service.hostname);
                (
                    name,
                    service.addresses.iter().filter_map(vip_alias).collect(),
                )
            }
        };
        let mut resource = Self::new(name, address.encode_to_vec());
        resource.aliases = aliases.into_iter().map(Arc::from).collect();
        resource
    }

    /// Adds another name.
    #[must_use]
    pub fn alias(mut self, alias: impl Into<Arc<str>>) -> Self {
        self.aliases.push(alias.into());
        self
    }

    /// A version that is equal for equal contents, also in another process of another build.
    pub(super) fn version(&self) -> Arc<str> {
        // FNV-1a with 128 bits; a length before each part keeps parts apart.
        const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
        let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
        let mut add = |bytes: &[u8]| {
            for byte in bytes.len().to_le_bytes().iter().chain(bytes) {
                hash = (hash ^ u128::from(*byte)).wrapping_mul(PRIME);
            }
        };
        add(&self.body);
        self.aliases.iter().for_each(|alias| add(alias.as_bytes()));
        format!("{:016x}", (hash >> 64) as u64 ^ hash as u64).into()
    }
}

fn vip_alias(vip: &NetworkAddress) -> Option<String> {
    let ip = ip_text(&vip.address)?;
    let full = if vip.address.len() == 4 { 32 } else { 128 };
    Some(match vip.length {
        Some(length) if length != full => format!("{}/{ip}/{length}", vip.network),
        _ => format!("{}/{ip}", vip.network),
    })
}

fn ip_text(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    v4.or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}
