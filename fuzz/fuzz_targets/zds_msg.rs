//! Packets of the node agent, with descriptors: each is delivered or refused, and no descriptor is kept
//! that was not delivered.
#![no_main]

use std::fs;
use std::os::fd::OwnedFd;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use meshwright_redirect::zds::{AgentSession, ProxySession, Reaction};

#[derive(Arbitrary, Debug)]
struct Packet {
    bytes: Vec<u8>,
    /// 0 and up: how many descriptors, of which kind.
    descriptors: Vec<Kind>,
    truncated: bool,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Kind {
    Namespace,
    OtherNamespace,
    File,
}

fuzz_target!(|packets: Vec<Packet>| {
    let before = open_descriptors();
    let mut proxy = ProxySession::new(Vec::new());
    for packet in packets.iter().take(16) {
        let descriptors: Vec<OwnedFd> = packet
            .descriptors
            .iter()
            .take(4)
            .map(|kind| open(*kind))
            .collect();
        match proxy.receive(&packet.bytes, descriptors, packet.truncated) {
            Reaction::Deliver(_) => {
                assert!(!packet.truncated, "half a message was delivered");
                assert!(!ProxySession::answer(Ok(())).is_empty());
            }
            Reaction::Refuse(bad) => {
                assert!(!ProxySession::answer(Err(&bad.to_string())).is_empty());
            }
            _ => {}
        }
        if let Ok(mut agent) = AgentSession::<u8>::greeted(&packet.bytes, &[], packet.truncated) {
            // Nothing was asked: nothing can be an answer.
            assert!(
                agent
                    .received(&packet.bytes, &[], packet.truncated)
                    .is_err()
            );
            assert!(agent.next_packet().is_none());
        }
    }
    drop(proxy);
    assert_eq!(open_descriptors(), before, "a descriptor leaked");
});

fn open(kind: Kind) -> OwnedFd {
    let path = match kind {
        Kind::Namespace => "/proc/self/ns/net",
        Kind::OtherNamespace => "/proc/self/ns/mnt",
        Kind::File => "/dev/null",
    };
    fs::File::open(path).expect("the file is there").into()
}

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd")
        .expect("proc is mounted")
        .count()
}
