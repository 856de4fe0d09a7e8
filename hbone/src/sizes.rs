//! What a tunnel costs in memory while nothing moves, as numbers that a change must not exceed
//! unseen.

use crate::{Relay, TcpLeg, Tunnel};
use meshwright_testkit::trace;
use std::mem::size_of;

#[test]
fn idle_tunnel_is_small() {
    let _trace = trace();
    let (tunnel, leg) = (size_of::<Tunnel>(), size_of::<TcpLeg>());
    assert!(tunnel <= 160, "a tunnel takes {tunnel} bytes");
    assert!(leg <= 128, "a TCP leg takes {leg} bytes");
    let relay = size_of::<Relay<TcpLeg, Tunnel, ()>>();
    assert!(relay <= 640, "the future of a relay takes {relay} bytes");
}
