//! Links, addresses and routes by rtnetlink, without any program.

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd,
};

use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage},
};
use nix::net::if_::if_nametoindex;
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder};

use crate::{Space, Step, WorldError};

/// An address with the length of its network.
pub(crate) type Prefix = (IpAddr, u8);

/// Brings the loopback link of a namespace up.
pub(crate) fn raise_loopback(space: &Space) -> Result<(), WorldError> {
    netlink(space, |handle| async move { up(&handle, "lo").await })
}

/// Makes a bridge with addresses: the switch that every node and pod is plugged into.
pub(crate) fn make_bridge(
    space: &Space,
    name: &'static str,
    addresses: &[Prefix],
) -> Result<(), WorldError> {
    netlink(space, |handle| async move {
        let bridge = LinkBridge::new(name).forward_delay(0).build();
        handle
            .link()
            .add(bridge)
            .execute()
            .await
            .step(format!("make bridge {name}"))?;
        for address in addresses {
            add_address(&handle, name, *address).await?;
        }
        up(&handle, name).await
    })
}

/// Adds addresses to a link.
pub(crate) fn add_addresses(
    space: &Space,
    link: &'static str,
    addresses: &[Prefix],
) -> Result<(), WorldError> {
    netlink(space, |handle| async move {
        for address in addresses {
            add_address(&handle, link, *address).await?;
        }
        Ok(())
    })
}

/// One end of a cable: what a namespace gets when it is plugged into the switch.
#[derive(Debug)]
pub(crate) struct Plug<'a> {
    /// Name of the link at the switch, at most 15 bytes.
    pub(crate) port: &'a str,
    /// Addresses of `eth0`.
    pub(crate) addresses: &'a [Prefix],
    /// Default routes.
    pub(crate) gateways: &'a [IpAddr],
}

/// Plugs a namespace into the bridge of the switch: `eth0` here, the port there.
pub(crate) fn plug(
    space: &Space,
    switch: &Space,
    bridge: &'static str,
    plug: &Plug<'_>,
) -> Result<(), WorldError> {
    let switch_fd = switch.file().as_raw_fd();
    netlink(space, |handle| async move {
        up(&handle, "lo").await?;
        handle
            .link()
            .add(LinkVeth::new("eth0", plug.port).build())
            .execute()
            .await
            .step(format!("make the cable {}", plug.port))?;
        let peer = index(plug.port)?;
        handle
            .link()
            .set(
                LinkUnspec::new_with_index(peer)
                    .setns_by_fd(switch_fd)
                    .build(),
            )
            .execute()
            .await
            .step(format!("move {} to the switch", plug.port))
    })?;
    netlink(switch, |handle| async move {
        let port = index(plug.port)?;
        let bridge = index(bridge)?;
        handle
            .link()
            .set(
                LinkUnspec::new_with_index(port)
                    .controller(bridge)
                    .up()
                    .build(),
            )
            .execute()
            .await
            .step(format!("plug {} into the switch", plug.port))
    })?;
    netlink(space, |handle| async move {
        for address in plug.addresses {
            add_address(&handle, "eth0", *address).await?;
        }
        up(&handle, "eth0").await?;
        for gateway in plug.gateways {
            add_default_route(&handle, *gateway).await?;
        }
        Ok(())
    })
}

async fn up(handle: &Handle, link: &str) -> Result<(), WorldError> {
    handle
        .link()
        .set(LinkUnspec::new_with_index(index(link)?).up().build())
        .execute()
        .await
        .step(format!("bring {link} up"))
}

async fn add_address(
    handle: &Handle,
    link: &str,
    (address, length): Prefix,
) -> Result<(), WorldError> {
    let mut request = handle.address().add(index(link)?, address, length);
    if address.is_ipv6() {
        without_detection(request.message_mut());
    }
    request
        .execute()
        .await
        .step(format!("add {address}/{length} to {link}"))
}

/// Nobody else has this address: duplicate address detection would only delay the first packet.
fn without_detection(message: &mut AddressMessage) {
    message.header.flags |= AddressHeaderFlags::Nodad;
    message
        .attributes
        .push(AddressAttribute::Flags(AddressFlags::Nodad));
}

async fn add_default_route(handle: &Handle, gateway: IpAddr) -> Result<(), WorldError> {
    let route = match gateway {
        IpAddr::V4(gateway) => RouteMessageBuilder::<Ipv4Addr>::new()
            .gateway(gateway)
            .build(),
        IpAddr::V6(gateway) => RouteMessageBuilder::<Ipv6Addr>::new()
            .gateway(gateway)
            .build(),
    };
    debug_assert!(matches!(
        route.header.address_family,
        AddressFamily::Inet | AddressFamily::Inet6
    ));
    handle
        .route()
        .add(route)
        .execute()
        .await
        .step(format!("add the default route through {gateway}"))
}

fn index(link: &str) -> Result<u32, WorldError> {
    if_nametoindex(link).step(format!("find link {link}"))
}

/// Runs netlink requests inside a namespace.
fn netlink<F>(space: &Space, work: impl FnOnce(Handle) -> F + Send) -> Result<(), WorldError>
where
    F: Future<Output = Result<(), WorldError>>,
{
    space.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .step("start a runtime for netlink")?;
        runtime.block_on(async {
            let (connection, handle, _messages) =
                rtnetlink::new_connection().step("open a netlink socket")?;
            tokio::select! {
                result = work(handle) => result,
                () = connection => Err(WorldError::new("keep the netlink socket open")),
            }
        })
    })
}
