//! ZDS over real sockets with real namespaces.

use crate::Test;
use crate::rig::{block_on, namespace};
use meshwright_redirect::zds::{
    Client, ClientConfig, ClientEvent, Order, PodInfo, Request, Server, ServerConfig,
};
use meshwright_redirect::{Events, Netns, NetnsId, ZdsDisconnected, ZdsRefused};
use meshwright_testkit::Recorder;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, listen,
    recv, sendmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::fs::{self, File};
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::timeout;

pub const TESTS: &[Test] = &[
    (
        "snapshot_and_changes_reach_the_proxy",
        &["ip"],
        snapshot_and_changes,
    ),
    (
        "late_answer_closes_and_the_next_snapshot_is_whole",
        &["ip"],
        late_answer,
    ),
    (
        "every_proxy_is_told_and_the_older_has_every_pod",
        &["ip"],
        two_proxies,
    ),
    (
        "silent_connection_delays_nobody",
        &["ip"],
        silent_connection,
    ),
    (
        "bad_messages_are_refused_and_leak_no_descriptor",
        &["ip"],
        bad_messages,
    ),
    (
        "agent_that_comes_back_is_found_again",
        &["ip"],
        agent_restarts,
    ),
    (
        "thousand_pods_are_handed_over_in_bounded_time",
        &["ip"],
        many_pods,
    ),
    (
        "socket_of_a_living_agent_is_never_taken_away",
        &[],
        living_agent,
    ),
    (
        "request_that_is_dropped_is_refused",
        &["ip"],
        dropped_request,
    ),
];

const LIMIT: Duration = Duration::from_secs(10);

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("zds.sock");
    (folder, path)
}

fn info(name: &str) -> PodInfo {
    PodInfo::new(name, "default", "account")
}

fn client(path: &Path) -> Client {
    Client::new(path, ClientConfig::default(), Arc::new(()))
}

fn server(path: &Path) -> Server {
    let mut config = ServerConfig::default();
    config.answer_deadline = Duration::from_millis(300);
    Server::bind(path, config, Arc::new(())).unwrap()
}

async fn event(client: &mut Client) -> ClientEvent {
    timeout(LIMIT, client.next()).await.unwrap()
}

async fn connected(client: &mut Client) {
    assert!(matches!(event(client).await, ClientEvent::Connected));
}

async fn request(client: &mut Client) -> Request {
    match event(client).await {
        ClientEvent::Request(request) => request,
        other => panic!("{other:?}"),
    }
}

async fn accept_next(client: &mut Client) -> Order {
    let request = request(client).await;
    let order = request.order().clone();
    request.accept().unwrap();
    order
}

fn added(uid: &str, netns: &Netns) -> Order {
    Order::Add {
        uid: uid.to_owned(),
        info: info(uid),
        netns: netns.clone(),
    }
}

fn snapshot_and_changes() {
    let ((_folder, path), pods) = (folder(), [namespace(), namespace()]);
    block_on(async {
        let server = server(&path);
        let none = server.add("a", info("a"), pods[0].clone()).await.unwrap();
        assert_eq!(none.acknowledged, 0, "nobody is there yet");
        server.keep("lost");
        let mut client = client(&path);
        connected(&mut client).await;
        assert_eq!(accept_next(&mut client).await, added("a", &pods[0]));
        let lost = || "lost".to_owned();
        assert_eq!(accept_next(&mut client).await, Order::Keep { uid: lost() });
        assert_eq!(server.proxies(), 0, "the snapshot is not complete");
        assert_eq!(accept_next(&mut client).await, Order::SnapshotSent);
        timeout(LIMIT, server.proxies_until(|count| count == 1))
            .await
            .unwrap();

        let proxy = async {
            assert_eq!(accept_next(&mut client).await, added("b", &pods[1]));
            let refused = request(&mut client).await;
            refused.refuse("the ports are taken").unwrap();
            let del = accept_next(&mut client).await;
            assert_eq!(
                del,
                Order::Del {
                    uid: "a".to_owned()
                }
            );
        };
        let agent = async {
            let told = server.add("b", info("b"), pods[1].clone()).await.unwrap();
            assert_eq!((told.acknowledged, told.lost), (1, 0));
            let told = server.add("c", info("c"), pods[1].clone()).await.unwrap();
            assert_eq!(told.refused, ["the ports are taken"]);
            assert_eq!(server.del("a").await.acknowledged, 1);
        };
        tokio::join!(proxy, agent);
    });
}

fn late_answer() {
    let ((_folder, path), pod) = (folder(), namespace());
    block_on(async {
        let server = server(&path);
        let mut client = client(&path);
        connected(&mut client).await;
        assert_eq!(accept_next(&mut client).await, Order::SnapshotSent);
        let (told, held) = tokio::join!(
            server.add("a", info("a"), pod.clone()),
            request(&mut client)
        );
        // The agent gave up before the answer: the connection is gone, and the answer with it.
        assert_eq!(told.unwrap().lost, 1);
        assert!(held.accept().is_err());
        assert!(matches!(
            event(&mut client).await,
            ClientEvent::Disconnected
        ));
        connected(&mut client).await;
        assert_eq!(accept_next(&mut client).await, added("a", &pod));
        assert_eq!(accept_next(&mut client).await, Order::SnapshotSent);
    });
}

fn two_proxies() {
    let ((_folder, path), pod) = (folder(), namespace());
    block_on(async {
        let server = server(&path);
        let (mut older, mut newer) = (client(&path), client(&path));
        for client in [&mut older, &mut newer] {
            connected(client).await;
            assert_eq!(accept_next(client).await, Order::SnapshotSent);
        }
        timeout(LIMIT, server.proxies_until(|count| count == 2))
            .await
            .unwrap();
        let (told, first, second) = tokio::join!(
            server.add("a", info("a"), pod.clone()),
            accept_next(&mut older),
            accept_next(&mut newer),
        );
        assert_eq!(told.unwrap().acknowledged, 2);
        assert_eq!((first, second), (added("a", &pod), added("a", &pod)));
        drop(newer);
        timeout(LIMIT, server.proxies_until(|count| count == 1))
            .await
            .unwrap();
        let (told, _) = tokio::join!(server.del("a"), accept_next(&mut older));
        assert_eq!(told.acknowledged, 1);
    });
}

fn silent_connection() {
    let ((_folder, path), pod) = (folder(), namespace());
    block_on(async {
        let server = server(&path);
        let mut client = client(&path);
        connected(&mut client).await;
        assert_eq!(accept_next(&mut client).await, Order::SnapshotSent);
        timeout(LIMIT, server.proxies_until(|count| count == 1))
            .await
            .unwrap();
        let _silent = raw_connect(&path);
        let (told, _) = tokio::join!(
            server.add("a", info("a"), pod.clone()),
            accept_next(&mut client)
        );
        assert_eq!((told.unwrap().acknowledged, server.proxies()), (1, 1));
    });
}

fn dropped_request() {
    let ((_folder, path), pod) = (folder(), namespace());
    block_on(async {
        let server = server(&path);
        let mut client = client(&path);
        connected(&mut client).await;
        assert_eq!(accept_next(&mut client).await, Order::SnapshotSent);
        let (told, ()) = tokio::join!(server.add("a", info("a"), pod), async {
            drop(request(&mut client).await);
        });
        assert_eq!(told.unwrap().refused.len(), 1);
    });
}

fn agent_restarts() {
    let ((_folder, path), pod) = (folder(), namespace());
    block_on(async {
        let mut client = client(&path);
        for _ in 0..3 {
            let server = server(&path);
            server.add("a", info("a"), pod.clone()).await.unwrap();
            connected(&mut client).await;
            assert_eq!(accept_next(&mut client).await, added("a", &pod));
            assert_eq!(accept_next(&mut client).await, Order::SnapshotSent);
            let second = Server::bind(&path, ServerConfig::default(), Arc::new(()));
            assert!(second.is_err(), "one agent at a time");
            drop(server);
            assert!(matches!(
                event(&mut client).await,
                ClientEvent::Disconnected
            ));
        }
        // A file that a killed agent left is replaced.
        let stale = seqpacket();
        bind(stale.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        drop(stale);
        let _server = server(&path);
        connected(&mut client).await;
    });
}

fn living_agent() {
    let (_folder, path) = folder();
    let bind_ours = || Server::bind(&path, ServerConfig::default(), Arc::new(()));
    block_on(async {
        // An agent that is too busy to accept: the next connection would have to wait.
        let busy = seqpacket();
        bind(busy.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        listen(&busy, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
        let _waiting = raw_connect(&path);
        let error = bind_ours().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse, "{error}");
        assert!(path.exists(), "the file is the other's");
        drop(busy);

        // A file that somebody else put in the place of ours stays when we go.
        let older = bind_ours().unwrap();
        fs::remove_file(&path).unwrap();
        let newer = bind_ours().unwrap();
        drop(older);
        assert!(path.exists(), "the successor's file");
        drop(newer);
        assert!(!path.exists(), "our own file");
    });
}

fn many_pods() {
    let ((_folder, path), pod) = (folder(), namespace());
    block_on(async {
        let server = server(&path);
        for number in 0..1000 {
            let uid = format!("pod-{number}");
            server.add(&uid, info(&uid), pod.clone()).await.unwrap();
        }
        let mut client = client(&path);
        connected(&mut client).await;
        let whole = async {
            let mut count = 0;
            while accept_next(&mut client).await != Order::SnapshotSent {
                count += 1;
            }
            count
        };
        assert_eq!(timeout(LIMIT, whole).await.unwrap(), 1000);
        assert_eq!(
            open_descriptors(pod.id()),
            1,
            "ours; the server's clones share it"
        );
    });
}

/// Counts this process's descriptors of one namespace: other tests run beside this one.
fn open_descriptors(id: NetnsId) -> usize {
    let wanted = format!("net:[{}]", id.ino);
    let all = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(Result::ok);
    let targets = all.filter_map(|entry| fs::read_link(entry.path()).ok());
    targets
        .filter(|target| target.to_str() == Some(&wanted))
        .count()
}

fn seqpacket() -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC;
    socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap()
}

fn raw_connect(path: &Path) -> OwnedFd {
    let socket = seqpacket();
    connect(socket.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    socket
}

#[derive(Clone, Default)]
struct Seen {
    refused: Recorder<ZdsRefused>,
    disconnected: Recorder<ZdsDisconnected>,
}

impl Events for Seen {
    fn zds_refused(&self, event: &ZdsRefused) {
        self.refused.record(event.clone());
    }

    fn zds_disconnected(&self, event: &ZdsDisconnected) {
        self.disconnected.record(event.clone());
    }
}

/// An agent written by hand, which sends what no agent should.
fn bad_agent(path: &Path, pod: &Netns) -> thread::JoinHandle<Vec<Vec<u8>>> {
    let listener = seqpacket();
    bind(listener.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    listen(&listener, nix::sys::socket::Backlog::new(4).unwrap()).unwrap();
    let pod = pod.clone();
    thread::spawn(move || {
        let add: &[u8] = b"\x0a\x0a\x0a\x01u\x12\x05\x0a\x01p\x12\x00";
        let (null, own) = (
            File::open("/dev/null").unwrap(),
            File::open("/proc/self/ns/net").unwrap(),
        );
        let pod = pod.as_fd().as_raw_fd();
        let (null, own) = (null.as_raw_fd(), own.as_raw_fd());
        let long = vec![0x0a; 20_000];
        let many = vec![pod; 200];
        // Each ends with the connection where `true`.
        let script: &[(&[u8], &[RawFd], bool)] = &[
            (add, &[], false),
            (add, &[pod, pod], false),
            (add, &many, false),
            (add, &[null], false),
            (add, &[own], false),
            (b"\x1a\x00", &[pod], false),
            (b"\x0a\x03\x0a\x01u", &[pod], false),
            (b"\x4a\x00", &[pod], false),
            (&long, &[pod], true),
            (b"\xff\xff", &[pod], true),
            (add, &[pod], false),
        ];
        let mut answers = Vec::new();
        let mut socket = accept_one(&listener);
        for (bytes, fds, ends) in script {
            let rights = [ControlMessage::ScmRights(fds)];
            let control: &[_] = if fds.is_empty() { &[] } else { &rights };
            let slices = [IoSlice::new(bytes)];
            let flags = MsgFlags::empty();
            sendmsg::<()>(socket.as_raw_fd(), &slices, control, flags, None).unwrap();
            answers.push(receive(&socket));
            if *ends {
                assert_eq!(receive(&socket), b"", "the proxy closed");
                socket = accept_one(&listener);
            }
        }
        answers
    })
}

fn accept_one(listener: &OwnedFd) -> OwnedFd {
    let listener = socket2::Socket::from(listener.try_clone().unwrap());
    let (socket, _proxy) = listener.accept().unwrap();
    let socket = OwnedFd::from(socket);
    let limit = TimeVal::seconds(10);
    setsockopt(&socket, sockopt::ReceiveTimeout, &limit).unwrap();
    assert_eq!(receive(&socket), [0x08, 0x01], "hello");
    socket
}

fn receive(socket: &OwnedFd) -> Vec<u8> {
    let mut buffer = [0; 2048];
    let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
    buffer[..length].to_vec()
}

fn bad_messages() {
    let ((_folder, path), pod) = (folder(), namespace());
    let agent = bad_agent(&path, &pod);
    let seen = Seen::default();
    block_on(async {
        let events = Arc::new(seen.clone());
        let mut client = Client::new(&path, ClientConfig::default(), events);
        for _ in 0..2 {
            connected(&mut client).await;
            assert!(matches!(
                event(&mut client).await,
                ClientEvent::Disconnected
            ));
        }
        connected(&mut client).await;
        match accept_next(&mut client).await {
            Order::Add { netns, .. } => assert_eq!(netns, pod),
            other => panic!("{other:?}"),
        }
    });
    let answers = agent.join().unwrap();
    let (last, refusals) = answers.split_last().unwrap();
    assert_eq!(
        last,
        &[0x0a, 0x00],
        "the good one is acknowledged after all the bad"
    );
    assert_eq!(refusals.len(), 10);
    assert!(
        refusals
            .iter()
            .all(|answer| answer.len() > 4 && answer[0] == 0x0a)
    );
    assert_eq!(seen.refused.count(|_| true), 10);
    assert_eq!(seen.refused.count(|event| event.disconnects), 2);
    assert_eq!(seen.disconnected.count(|_| true), 2);
    assert_eq!(open_descriptors(pod.id()), 1, "only the test's own is left");
}
