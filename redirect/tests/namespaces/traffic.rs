//! Where connections land, by preset and family.

use crate::Test;
use crate::rig::{World, block_on, run};
use meshwright_redirect::Netns;
use meshwright_redirect::capture::{
    Drift, PROXY_MARK, Spec, apply, begin_removal, captured_connections, finish_removal, remove,
    verify,
};
use meshwright_redirect::socket::{
    DialConfig, DialError, ListenConfig, Listener, OriginalDestination, Transparency, dial, listen,
    original_destination,
};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

pub const TESTS: &[Test] = &[
    (
        "outbound_lands_at_the_proxy_unless_marked",
        &["ip"],
        outbound,
    ),
    (
        "inbound_lands_at_the_proxy_except_tunnels",
        &["ip"],
        inbound,
    ),
    ("pod_talking_to_itself_stays_direct", &["ip"], own_address),
    (
        "app_sees_the_borrowed_source_address",
        &["ip"],
        borrowed_source,
    ),
    ("probes_reach_the_app_uncaptured", &["ip"], probes),
    ("open_connections_survive_enrolment", &["ip"], open_survive),
    (
        "exact_preset_resets_open_connections",
        &["ip"],
        exact_resets,
    ),
    (
        "two_step_eviction_keeps_captured_connections",
        &["ip"],
        two_steps,
    ),
    (
        "repair_names_the_drift_and_keeps_connections",
        &["ip", "nft"],
        repair,
    ),
    ("ingress_bypass_leaves_inbound_alone", &["ip"], ingress),
    ("dns_over_tcp_lands_at_the_dns_port", &["ip"], dns),
    (
        "proxy_that_is_gone_means_refused_never_direct",
        &["ip"],
        fail_closed,
    ),
];

const LIMIT: Duration = Duration::from_secs(5);

/// The pod's and the outside's address of each family.
pub const FAMILIES: [(&str, &str); 2] = [("10.1.0.2", "10.1.0.1"), ("fd00:1::2", "fd00:1::1")];

pub fn presets() -> [Spec; 2] {
    [Spec::ambient(), Spec::ambient_exact()]
}

pub fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

pub fn listener(netns: &Netns, port: u16) -> Listener {
    let config = ListenConfig::wildcard(port)
        .transparency(Transparency::Require)
        .mark(PROXY_MARK);
    listen(netns, &config).unwrap()
}

/// An app's listener: neither marked nor transparent.
pub fn app(netns: &Netns, port: u16) -> TcpListener {
    listen(netns, &ListenConfig::wildcard(port)).unwrap().socket
}

async fn connect(netns: &Netns, to: SocketAddr) -> Result<TcpStream, DialError> {
    let config = DialConfig::new().deadline(Duration::from_secs(2));
    dial(netns, &config, to).await
}

async fn connect_as_proxy(
    netns: &Netns,
    to: SocketAddr,
    source: Option<IpAddr>,
) -> Result<TcpStream, DialError> {
    let mut config = DialConfig::new()
        .deadline(Duration::from_secs(2))
        .mark(PROXY_MARK);
    if let Some(source) = source {
        config = config.source(source);
    }
    dial(netns, &config, to).await
}

async fn accepted(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let (stream, peer) = timeout(LIMIT, listener.accept()).await.unwrap().unwrap();
    (
        stream,
        SocketAddr::new(peer.ip().to_canonical(), peer.port()),
    )
}

/// Both ends see each other's bytes.
async fn talks(one: &mut TcpStream, other: &mut TcpStream) -> io::Result<()> {
    for (from, to) in [(0, 1), (1, 0)] {
        let ends = [&mut *one, &mut *other];
        ends[from].write_all(b"hello").await?;
        let mut bytes = [0; 5];
        timeout(LIMIT, ends[to].read_exact(&mut bytes)).await??;
    }
    Ok(())
}

fn outbound() {
    let world = World::new();
    block_on(async {
        let proxy = listener(&world.pod, 15001);
        let server = app(&world.outside, 8080);
        for spec in presets() {
            apply(&world.pod, &spec).unwrap();
            for (pod, outside) in FAMILIES {
                let to = at(outside, 8080);
                let mut client = connect(&world.pod, to).await.unwrap();
                let (mut captured, peer) = accepted(&proxy.socket).await;
                assert_eq!(peer.ip().to_string(), pod);
                let destination = original_destination(&captured).unwrap();
                assert_eq!(destination, OriginalDestination::Redirected(to));
                talks(&mut client, &mut captured).await.unwrap();
                // The tunnel port of others is captured like any other on the way out.
                let tunnel = at(outside, 15008);
                let _client = connect(&world.pod, tunnel).await.unwrap();
                let (captured, _) = accepted(&proxy.socket).await;
                assert_eq!(original_destination(&captured).unwrap().address(), tunnel);

                let mut marked = connect_as_proxy(&world.pod, to, None).await.unwrap();
                let (mut direct, _) = accepted(&server).await;
                talks(&mut marked, &mut direct).await.unwrap();
            }
        }
    });
}

fn inbound() {
    let world = World::new();
    block_on(async {
        let proxy = listener(&world.pod, 15006);
        let tunnels = listener(&world.pod, 15008);
        for spec in presets() {
            apply(&world.pod, &spec).unwrap();
            for (pod, outside) in FAMILIES {
                for port in [8080, 15001, 15053] {
                    let to = at(pod, port);
                    let mut client = connect(&world.outside, to).await.unwrap();
                    let (mut captured, peer) = accepted(&proxy.socket).await;
                    assert_eq!(peer.ip().to_string(), outside);
                    let destination = original_destination(&captured).unwrap();
                    assert_eq!(destination, OriginalDestination::Redirected(to));
                    talks(&mut client, &mut captured).await.unwrap();
                }
                let to = at(pod, 15008);
                let _client = connect(&world.outside, to).await.unwrap();
                let (tunnel, _) = accepted(&tunnels.socket).await;
                let destination = original_destination(&tunnel).unwrap();
                assert_eq!(destination, OriginalDestination::Local(to));
                assert_eq!(destination.beyond(15008), None, "no loop");
                // Nobody outside can make the proxy's own port a destination.
                let to = at(pod, 15006);
                let _client = connect(&world.outside, to).await.unwrap();
                let (own, _) = accepted(&proxy.socket).await;
                assert_eq!(original_destination(&own).unwrap().beyond(15006), None);
            }
        }
    });
}

fn own_address() {
    let world = World::new();
    block_on(async {
        let server = app(&world.pod, 8080);
        for spec in presets() {
            apply(&world.pod, &spec).unwrap();
            for to in ["10.1.0.2", "127.0.0.1", "fd00:1::2", "::1"] {
                let mut client = connect(&world.pod, at(to, 8080)).await.unwrap();
                let (mut direct, _) = accepted(&server).await;
                talks(&mut client, &mut direct).await.unwrap();
            }
        }
    });
}

fn borrowed_source() {
    let world = World::new();
    block_on(async {
        let server = app(&world.pod, 8080);
        for spec in presets() {
            apply(&world.pod, &spec).unwrap();
            for (pod, outside) in FAMILIES {
                let source = outside.parse().unwrap();
                let to = at(pod, 8080);
                let mut leg = connect_as_proxy(&world.pod, to, Some(source))
                    .await
                    .unwrap();
                let (mut served, peer) = accepted(&server).await;
                assert_eq!(peer.ip(), source);
                talks(&mut leg, &mut served).await.unwrap();
            }
        }
        // What the policy rule is for: without it the app's answers leave through the link.
        run(&world.pod, "ip", &["rule", "del", "pref", "32764"]);
        let source = Some("10.1.0.1".parse().unwrap());
        let lost = connect_as_proxy(&world.pod, at("10.1.0.2", 8080), source).await;
        assert!(lost.is_err(), "{lost:?}");
    });
}

fn probes() {
    let world = World::new();
    let sources = ["169.254.7.127", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff"];
    run(
        &world.outside,
        "ip",
        &["addr", "add", "169.254.7.127/32", "dev", "lo"],
    );
    let v6 = format!("{}/128", sources[1]);
    run(
        &world.outside,
        "ip",
        &["addr", "add", &v6, "dev", "lo", "nodad"],
    );
    block_on(async {
        let server = app(&world.pod, 8080);
        for spec in presets() {
            apply(&world.pod, &spec).unwrap();
            for ((pod, _), source) in FAMILIES.into_iter().zip(sources) {
                let source = source.parse().unwrap();
                let config = DialConfig::new().source(source);
                let to = at(pod, 8080);
                let mut probe = dial(&world.outside, &config, to).await.unwrap();
                let (mut served, peer) = accepted(&server).await;
                assert_eq!(peer.ip(), source);
                talks(&mut probe, &mut served).await.unwrap();
            }
        }
    });
}

/// Opens one connection out of the pod and one into it, for each family.
async fn open_connections(world: &World) -> Vec<(TcpStream, TcpStream)> {
    let (remote, local) = (app(&world.outside, 8080), app(&world.pod, 8080));
    let mut open = Vec::new();
    for (pod, outside) in FAMILIES {
        let out = connect(&world.pod, at(outside, 8080)).await.unwrap();
        open.push((out, accepted(&remote).await.0));
        let into = connect(&world.outside, at(pod, 8080)).await.unwrap();
        open.push((into, accepted(&local).await.0));
    }
    for (one, other) in &mut open {
        talks(one, other).await.unwrap();
    }
    open
}

fn open_survive() {
    let world = World::new();
    block_on(async {
        let mut open = open_connections(&world).await;
        let proxy = listener(&world.pod, 15001);
        apply(&world.pod, &Spec::ambient()).unwrap();
        for (one, other) in &mut open {
            talks(one, other).await.unwrap();
        }
        let _client = connect(&world.pod, at("10.1.0.1", 8080)).await.unwrap();
        accepted(&proxy.socket).await;
        // Also while the next one is captured, and after.
        for (one, other) in &mut open {
            talks(one, other).await.unwrap();
        }
    });
}

fn exact_resets() {
    let world = World::new();
    block_on(async {
        let mut open = open_connections(&world).await;
        let _proxy = (listener(&world.pod, 15001), listener(&world.pod, 15006));
        apply(&world.pod, &Spec::ambient_exact()).unwrap();
        for (end, _) in &mut open {
            assert_reset(end, "the reason for the other preset").await;
        }
    });
}

async fn assert_reset(end: &mut TcpStream, rule: &str) {
    end.write_all(b"hello").await.unwrap();
    let answer = timeout(LIMIT, end.read_u8()).await.unwrap();
    let kind = answer.unwrap_err().kind();
    assert_eq!(kind, io::ErrorKind::ConnectionReset, "{rule}");
}

fn two_steps() {
    let world = World::new();
    block_on(async {
        let (out, inn) = (listener(&world.pod, 15001), listener(&world.pod, 15006));
        let server = app(&world.outside, 8080);
        let spec = Spec::ambient();
        apply(&world.pod, &spec).unwrap();
        let mut open = Vec::new();
        for (pod, outside) in FAMILIES {
            let client = connect(&world.pod, at(outside, 8080)).await.unwrap();
            open.push((client, accepted(&out.socket).await.0));
            let client = connect(&world.outside, at(pod, 8080)).await.unwrap();
            open.push((client, accepted(&inn.socket).await.0));
        }
        assert_eq!(captured_connections(&world.pod, &spec).unwrap(), 4);

        assert_eq!(begin_removal(&world.pod).unwrap().steps.len(), 1);
        assert_eq!(begin_removal(&world.pod).unwrap().steps, []);
        for (one, other) in &mut open {
            talks(one, other).await.unwrap();
        }
        let mut client = connect(&world.pod, at("10.1.0.1", 8080)).await.unwrap();
        let (mut direct, _) = accepted(&server).await;
        talks(&mut client, &mut direct).await.unwrap();
        // The first end goes from its side, so that nothing lingers at the proxy's.
        for (client, captured) in open {
            drop(captured);
            drop(client);
        }
        let settled = async {
            while captured_connections(&world.pod, &spec).unwrap() > 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(LIMIT, settled).await.unwrap();
        finish_removal(&world.pod).unwrap();
        talks(&mut client, &mut direct).await.unwrap();
        assert_eq!(
            run(
                &world.pod,
                "ip",
                &["route", "show", "table", "all", "type", "local", "default"]
            ),
            ""
        );

        // In one step, what is captured is cut.
        apply(&world.pod, &spec).unwrap();
        let mut client = connect(&world.pod, at("10.1.0.1", 8080)).await.unwrap();
        let (_captured, _) = accepted(&out.socket).await;
        remove(&world.pod).unwrap();
        assert_reset(&mut client, "the reason for two steps").await;
    });
}

fn repair() {
    let world = World::new();
    block_on(async {
        let proxy = listener(&world.pod, 15001);
        let spec = Spec::ambient();
        apply(&world.pod, &spec).unwrap();
        let mut client = connect(&world.pod, at("10.1.0.1", 8080)).await.unwrap();
        let (mut captured, _) = accepted(&proxy.socket).await;

        let nat = ["inet", "istio-ambient-nat", "istio-output"];
        run(
            &world.pod,
            "nft",
            &[&["insert", "rule"], &nat[..], &["accept"]].concat(),
        );
        run(&world.pod, "ip", &["-6", "rule", "del", "pref", "32764"]);
        run(&world.pod, "ip", &["route", "flush", "table", "100"]);
        let found = verify(&world.pod, &spec).unwrap();
        let names: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(names[0].contains("IPv4 route"), "{names:?}");
        assert!(names[1].contains("IPv6 policy rule"), "{names:?}");
        assert!(
            names[2].contains("istio-ambient-nat istio-output at:"),
            "{names:?}"
        );
        assert_eq!(apply(&world.pod, &spec).unwrap().steps.len(), 3);
        assert_eq!(verify(&world.pod, &spec).unwrap(), []);
        talks(&mut client, &mut captured).await.unwrap();

        run(
            &world.pod,
            "nft",
            &["delete", "table", "inet", "istio-ambient-mangle"],
        );
        let found = verify(&world.pod, &spec).unwrap();
        assert!(matches!(found.as_slice(), [Drift::Table(name)] if name.ends_with("mangle")));
        // A chain of somebody else in our table, held by a map.
        let nat = ["inet", "istio-ambient-nat"];
        let map = "m { type inet_service : verdict; elements = { 80 : jump theirs }; }";
        let add = |what: &str, rest: &[&str]| {
            let words = [&["add", what], &nat[..], rest].concat();
            run(&world.pod, "nft", &words);
        };
        add("chain", &["theirs"]);
        add("map", &[map]);
        assert_eq!(apply(&world.pod, &spec).unwrap().steps.len(), 1);
        talks(&mut client, &mut captured).await.unwrap();
        assert!(!run(&world.pod, "nft", &["list", "maps"]).contains("map m"));
        // A rule before ours that leads marked packets elsewhere.
        run(
            &world.pod,
            "ip",
            &[
                "rule", "add", "fwmark", "0x111", "pref", "100", "lookup", "main",
            ],
        );
        apply(&world.pod, &spec).unwrap();
        let found = verify(&world.pod, &spec).unwrap();
        assert!(
            matches!(found.as_slice(), [Drift::Diverted(_)]),
            "{found:?}"
        );
    });
}

fn ingress() {
    let world = World::new();
    block_on(async {
        let proxy = listener(&world.pod, 15001);
        let server = app(&world.pod, 8080);
        apply(&world.pod, &Spec::ambient().ingress_bypass()).unwrap();
        for (pod, outside) in FAMILIES {
            let mut client = connect(&world.outside, at(pod, 8080)).await.unwrap();
            let (mut direct, _) = accepted(&server).await;
            talks(&mut client, &mut direct).await.unwrap();
            let _client = connect(&world.pod, at(outside, 8080)).await.unwrap();
            accepted(&proxy.socket).await;
        }
    });
}

fn dns() {
    let world = World::new();
    block_on(async {
        let server = app(&world.pod, 15053);
        apply(&world.pod, &Spec::ambient().with_dns()).unwrap();
        for (_, outside) in FAMILIES {
            let to = at(outside, 53);
            let _client = connect(&world.pod, to).await.unwrap();
            let (captured, _) = accepted(&server).await;
            assert_eq!(original_destination(&captured).unwrap().address(), to);
        }
    });
}

fn fail_closed() {
    let world = World::new();
    block_on(async {
        let _server = (app(&world.outside, 8080), app(&world.pod, 8080));
        apply(&world.pod, &Spec::ambient()).unwrap();
        for (pod, outside) in FAMILIES {
            for (from, to) in [(&world.pod, outside), (&world.outside, pod)] {
                match connect(from, at(to, 8080)).await {
                    Err(DialError::Connect { source, .. }) => {
                        assert_eq!(source.kind(), io::ErrorKind::ConnectionRefused);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    });
}
