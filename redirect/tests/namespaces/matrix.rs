//! Where every kind of packet lands, with either preset and in both families.
//!
//! | | into the pod | out of the pod | through loopback | to the own address |
//! | --- | --- | --- | --- | --- |
//! | TCP, port 15008 | 15008 | 15001 | as it is | as it is |
//! | TCP, every other port | 15006 | 15001 | as it is | as it is |
//! | UDP | as it is | as it is | as it is | as it is |
//! | ICMP | as it is | as it is | as it is | as it is |

use crate::Test;
use crate::rig::{World, block_on};
use crate::traffic::{FAMILIES, app, at, listener, presets};
use meshwright_redirect::Netns;
use meshwright_redirect::capture::{PROXY_MARK, Spec, apply};
use meshwright_redirect::socket::{DialConfig, dial, original_destination};
use socket2::{Domain, Protocol, Socket, Type};
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::task::Poll;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

pub const TESTS: &[Test] = &[
    ("tcp_lands_as_the_table_says", &["ip"], tcp),
    ("udp_is_left_alone", &["ip"], udp),
    ("icmp_is_left_alone", &["ip"], icmp),
    ("no_other_mark_lets_tcp_out", &["ip"], marks),
    ("dns_capture_takes_queries_and_no_other_udp", &["ip"], dns),
];

const LIMIT: Duration = Duration::from_secs(5);
const PORTS: [u16; 4] = [15001, 15006, 15008, 8080];

/// One way of packets: from where, to which address, and on whose side they arrive uncaptured.
struct Way<'a> {
    name: &'static str,
    from: &'a Netns,
    to: IpAddr,
    side: &'static str,
}

fn ways<'a>(world: &'a World, (pod, outside): (&str, &str)) -> Vec<Way<'a>> {
    let way = |name, from, to: &str, side| Way {
        name,
        from,
        to: to.parse().unwrap(),
        side,
    };
    let mut ways = vec![
        way("in", &world.outside, pod, "pod"),
        way("out", &world.pod, outside, "outside"),
        way("own", &world.pod, pod, "pod"),
    ];
    if outside.contains(':') {
        ways.push(way("lo", &world.pod, "::1", "pod"));
    } else {
        ways.push(way("lo", &world.pod, "127.0.0.1", "pod"));
        ways.push(way("lo", &world.pod, "127.0.0.2", "pod"));
    }
    ways
}

/// A socket and where it is, such as `pod:15001`.
type Named<S> = (String, S);

fn tcp_listeners(world: &World) -> Vec<Named<TcpListener>> {
    let mut all = Vec::new();
    for port in PORTS {
        let ours = match port {
            8080 => app(&world.pod, port),
            proxy => listener(&world.pod, proxy).socket,
        };
        all.push((format!("pod:{port}"), ours));
        all.push((format!("outside:{port}"), app(&world.outside, port)));
    }
    all
}

/// Connects, and says where that arrived and what is known there of its destination.
async fn landed(
    listeners: &[Named<TcpListener>],
    way: &Way<'_>,
    port: u16,
    mark: Option<u32>,
) -> (String, SocketAddr) {
    let mut config = DialConfig::new().deadline(LIMIT);
    if let Some(mark) = mark {
        config = config.mark(mark);
    }
    let to = SocketAddr::new(way.to, port);
    let _client = dial(way.from, &config, to).await.unwrap();
    accepted(listeners).await
}

async fn accepted(listeners: &[Named<TcpListener>]) -> (String, SocketAddr) {
    let accepted = poll_fn(|cx| {
        for (name, listener) in listeners {
            if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                return Poll::Ready((name.clone(), accepted.unwrap().0));
            }
        }
        Poll::Pending
    });
    let (name, stream): (String, TcpStream) = timeout(LIMIT, accepted).await.unwrap();
    (name, original_destination(&stream).unwrap().address())
}

fn tcp() {
    let world = World::new();
    block_on(async {
        let listeners = tcp_listeners(&world);
        for spec in presets() {
            apply(&world.pod, &spec).unwrap();
            for family in FAMILIES {
                for way in ways(&world, family) {
                    for port in PORTS {
                        let wanted = match (way.name, port) {
                            ("in", 15008) => "pod:15008".to_owned(),
                            ("in", _) => "pod:15006".to_owned(),
                            ("out", _) => "pod:15001".to_owned(),
                            _ => format!("{}:{port}", way.side),
                        };
                        let to = SocketAddr::new(way.to, port);
                        let seen = landed(&listeners, &way, port, None).await;
                        assert_eq!(seen, (wanted, to), "{} to {to}", way.name);
                    }
                }
            }
        }
    });
}

/// Marks that differ from the proxy's in the bits that count are worth nothing, and that of the
/// proxy's connections to the app leads nowhere but into the pod.
fn marks() {
    let world = World::new();
    block_on(async {
        let listeners = tcp_listeners(&world);
        for spec in presets() {
            apply(&world.pod, &spec).unwrap();
            for family in FAMILIES {
                let out = &ways(&world, family)[1];
                for mark in [0x1, 0x538, 0xd39, 0x1000_0539 ^ 0x1, 0xffff_f000] {
                    let (name, _) = landed(&listeners, out, 8080, Some(mark)).await;
                    assert_eq!(name, "pod:15001", "mark {mark:#x}");
                }
                for mark in [0x111, 0x1111] {
                    let config = DialConfig::new().mark(mark);
                    let to = SocketAddr::new(out.to, 8080);
                    let Ok(client) = dial(&world.pod, &config, to).await else {
                        continue;
                    };
                    let (name, _) = accepted(&listeners).await;
                    assert_eq!(name, "pod:8080", "mark {mark:#x}");
                    drop(client);
                }
                let (name, _) = landed(&listeners, out, 8080, Some(PROXY_MARK)).await;
                assert_eq!(name, "outside:8080");
            }
        }
    });
}

fn udp_socket(netns: &Netns, address: SocketAddr) -> UdpSocket {
    let socket = netns.run(|| std::net::UdpSocket::bind(address)).unwrap();
    let socket = socket.unwrap();
    socket.set_nonblocking(true).unwrap();
    UdpSocket::from_std(socket).unwrap()
}

/// Sends a datagram and says where it arrived.
async fn received(sockets: &[Named<UdpSocket>], from: &UdpSocket, to: SocketAddr) -> String {
    from.send_to(b"hello", to).await.unwrap();
    let arrived = poll_fn(|cx| {
        for (name, socket) in sockets {
            let mut bytes = [0; 8];
            let mut buffer = tokio::io::ReadBuf::new(&mut bytes);
            if let Poll::Ready(result) = socket.poll_recv(cx, &mut buffer) {
                result.unwrap();
                return Poll::Ready(name.clone());
            }
        }
        Poll::Pending
    });
    timeout(LIMIT, arrived).await.unwrap()
}

/// The unspecified address of the family of `like`, with a port of the kernel's choice.
fn any_port(like: IpAddr) -> SocketAddr {
    at(if like.is_ipv6() { "::" } else { "0.0.0.0" }, 0)
}

fn udp() {
    let world = World::new();
    block_on(async {
        let mut sockets = Vec::new();
        for port in PORTS.into_iter().chain([53]) {
            for (side, netns) in [("pod", &world.pod), ("outside", &world.outside)] {
                sockets.push((format!("{side}:{port}"), udp_socket(netns, at("::", port))));
            }
        }
        for spec in presets() {
            apply(&world.pod, &spec).unwrap();
            for family in FAMILIES {
                for way in ways(&world, family) {
                    let from = udp_socket(way.from, any_port(way.to));
                    for port in PORTS.into_iter().chain([53]) {
                        let to = SocketAddr::new(way.to, port);
                        let name = received(&sockets, &from, to).await;
                        assert_eq!(name, format!("{}:{port}", way.side), "{} {to}", way.name);
                    }
                }
            }
        }
    });
}

fn dns() {
    let world = World::new();
    block_on(async {
        let mut sockets = Vec::new();
        for loopback in ["127.0.0.1", "::1"] {
            let server = udp_socket(&world.pod, at(loopback, 15053));
            sockets.push(("dns".to_owned(), server));
        }
        for port in [53, 54] {
            let server = udp_socket(&world.outside, at("::", port));
            sockets.push((format!("outside:{port}"), server));
        }
        apply(&world.pod, &Spec::ambient().with_dns()).unwrap();
        for (_, outside) in FAMILIES {
            let query = || udp_socket(&world.pod, any_port(outside.parse().unwrap()));
            let app = query();
            assert_eq!(received(&sockets, &app, at(outside, 53)).await, "dns");
            let name = received(&sockets, &app, at(outside, 54)).await;
            assert_eq!(name, "outside:54");
            // The proxy's own question to a real server.
            let proxy = query();
            let raw = socket2::SockRef::from(&proxy);
            raw.set_mark(PROXY_MARK).unwrap();
            let name = received(&sockets, &proxy, at(outside, 53)).await;
            assert_eq!(name, "outside:53");
        }
    });
}

fn icmp() {
    let world = World::new();
    for netns in [&world.pod, &world.outside] {
        // Lets us send echo requests without a raw socket.
        let path = "/proc/sys/net/ipv4/ping_group_range";
        netns.run(|| std::fs::write(path, "0 0")).unwrap().unwrap();
    }
    for spec in presets() {
        apply(&world.pod, &spec).unwrap();
        for family in FAMILIES {
            for way in ways(&world, family) {
                assert!(answers(&way), "{} to {}", way.name, way.to);
            }
        }
    }
}

/// Whether an echo request comes back.
fn answers(way: &Way<'_>) -> bool {
    // RFC 792, RFC 4443 4.1: echo request and echo reply.
    let (domain, protocol, request, reply) = match way.to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129),
    };
    let made = || Socket::new(domain, Type::DGRAM, Some(protocol));
    let socket = way.from.run(made).unwrap().unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let to = SocketAddr::new(way.to, 0);
    let packet = [request, 0, 0, 0, 0, 0, 0, 1];
    socket.send_to(&packet, &to.into()).unwrap();
    let socket = std::net::UdpSocket::from(socket);
    let mut bytes = [0; 64];
    let (length, from) = socket.recv_from(&mut bytes).unwrap();
    length >= 8 && bytes[0] == reply && from.ip() == way.to
}
