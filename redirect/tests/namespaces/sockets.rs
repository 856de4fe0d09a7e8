//! Threads, sockets and the namespaces they are in.

use crate::Test;
use crate::rig::{World, block_on, namespace};
use meshwright_redirect::Netns;
use meshwright_redirect::socket::{
    DialConfig, DialError, ListenConfig, ListenError, Liveness, PortSharing, Transparency, dial,
    foreign_listeners, listen, listeners, set_linger_zero,
};
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;

pub const TESTS: &[Test] = &[
    (
        "thread_is_home_after_every_way_out_of_a_namespace",
        &["ip"],
        way_home,
    ),
    ("entering_a_namespace_costs_microseconds", &["ip"], cost),
    (
        "wildcard_listener_serves_both_families_or_the_one_there_is",
        &["ip"],
        wildcard,
    ),
    (
        "port_that_is_taken_is_named_and_shows_its_owner",
        &["ip"],
        taken,
    ),
    (
        "shared_port_is_shared_with_proxies_only",
        &["ip"],
        strangers,
    ),
    ("dial_to_nowhere_ends_at_its_deadline", &["ip"], nowhere),
    ("linger_zero_is_seen_as_a_reset", &["ip"], reset),
    (
        "source_of_the_other_family_is_refused_before_dialing",
        &["ip"],
        wrong_source,
    ),
];

fn here() -> Netns {
    Netns::current().unwrap()
}

fn way_home() {
    let (home, first, second) = (here(), namespace(), namespace());
    assert_ne!(first.id(), second.id());
    let inside = first.run(|| {
        (
            here().id(),
            second.run(|| here().id()).unwrap(),
            here().id(),
        )
    });
    assert_eq!(inside.unwrap(), (first.id(), second.id(), first.id()));
    assert_eq!(here(), home);
    let panicked = catch_unwind(AssertUnwindSafe(|| first.run(|| panic!("inside"))));
    assert!(panicked.is_err());
    assert_eq!(here(), home);
    let failed = first.run(|| Err::<(), _>(io::Error::other("inside")));
    assert!(failed.unwrap().is_err());
    assert_eq!(here(), home);
}

fn cost() {
    let netns = namespace();
    netns.run(|| ()).unwrap();
    let rounds = 2000;
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        for _ in 0..rounds {
            netns.run(|| ()).unwrap();
        }
        best = best.min(start.elapsed() / rounds);
    }
    assert!(
        best < Duration::from_micros(50),
        "{best:?} for a way in and out"
    );
}

fn wildcard() {
    let world = World::new();
    block_on(async {
        let listener = listen(&world.pod, &ListenConfig::wildcard(9000)).unwrap();
        for address in ["10.1.0.2:9000", "[fd00:1::2]:9000"] {
            let to: SocketAddr = address.parse().unwrap();
            let _client = dial(&world.outside, &DialConfig::new(), to).await.unwrap();
            listener.socket.accept().await.unwrap();
        }
        assert!(!listener.transparent);

        let disable = || std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
        world.pod.run(disable).unwrap().unwrap();
        let config = ListenConfig::wildcard(9001).transparency(Transparency::BestEffort);
        let listener = listen(&world.pod, &config).unwrap();
        assert!(listener.transparent, "the tests have the privilege");
        let to = "10.1.0.2:9001".parse().unwrap();
        let _client = dial(&world.outside, &DialConfig::new(), to).await.unwrap();
        listener.socket.accept().await.unwrap();
    });
}

fn taken() {
    let netns = namespace();
    block_on(async {
        let first = listen(&netns, &ListenConfig::wildcard(9000)).unwrap();
        let shared = ListenConfig::wildcard(9000).sharing(PortSharing::Shared);
        for config in [ListenConfig::wildcard(9000), shared.clone()] {
            let error = listen(&netns, &config).unwrap_err();
            assert!(error.is_address_in_use(), "{error}");
        }
        let seen = listeners(&netns, 9000).unwrap();
        assert_eq!((seen.len(), seen[0].waiting), (1, 0));
        drop(first);
        let _both = [
            listen(&netns, &shared).unwrap(),
            listen(&netns, &shared).unwrap(),
        ];
        assert_eq!(listeners(&netns, 9000).unwrap().len(), 2);
        assert!(
            listeners(&here(), 9000).unwrap().is_empty(),
            "ports are a namespace's own"
        );
    });
}

/// A process of the pod may run under the proxy's user: then the kernel lets it share our port.
fn strangers() {
    let netns = namespace();
    block_on(async {
        let unmarked = |config: ListenConfig| config.sharing(PortSharing::Shared);
        let proxy = unmarked(ListenConfig::wildcard(9000)).mark(0x539);
        let loopback = ListenConfig::on("127.0.0.1:9000".parse().unwrap());
        for app in [ListenConfig::wildcard(9000), loopback] {
            let _app = listen(&netns, &unmarked(app)).unwrap();
            let error = listen(&netns, &proxy).unwrap_err();
            assert!(matches!(error, ListenError::Foreign { .. }), "{error}");
            assert!(error.is_address_in_use(), "{error}");
            assert_eq!(listeners(&netns, 9000).unwrap().len(), 1, "ours is closed");
        }
        let _predecessor = listen(&netns, &proxy).unwrap();
        let _successor = listen(&netns, &proxy).unwrap();
        assert_eq!(foreign_listeners(&netns, 9000, 0x539).unwrap(), []);
        // Who comes later is seen as well.
        let _app = listen(&netns, &unmarked(ListenConfig::wildcard(9000))).unwrap();
        let seen = foreign_listeners(&netns, 9000, 0x539).unwrap();
        assert_eq!((seen.len(), seen[0].mark), (1, Some(0)));
        assert_eq!(listeners(&netns, 9000).unwrap().len(), 3);
    });
}

fn nowhere() {
    let world = World::new();
    block_on(async {
        // Nobody has this address on the link, and the kernel needs 3 s to find out.
        let to = "10.1.0.77:80".parse().unwrap();
        let deadline = Duration::from_millis(50);
        let config = DialConfig::new().deadline(deadline);
        let error = dial(&world.pod, &config, to).await.unwrap_err();
        assert!(matches!(error, DialError::Timeout { .. }), "{error}");
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::TimedOut);
    });
}

fn reset() {
    let netns = namespace();
    block_on(async {
        let config = ListenConfig::wildcard(9000).liveness(Liveness::default());
        let listener = listen(&netns, &config).unwrap();
        let to = "127.0.0.1:9000".parse().unwrap();
        let mut client = dial(&netns, &DialConfig::new(), to).await.unwrap();
        let (served, _) = listener.socket.accept().await.unwrap();
        assert!(served.nodelay().unwrap(), "inherited from the listener");
        set_linger_zero(&served).unwrap();
        drop(served);
        let error = client.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    });
}

fn wrong_source() {
    let netns = namespace();
    block_on(async {
        let config = DialConfig::new().source("fd00::1".parse().unwrap());
        let to = "127.0.0.1:9000".parse().unwrap();
        let error = dial(&netns, &config, to).await.unwrap_err();
        assert!(matches!(error, DialError::Source { .. }), "{error}");
    });
}
