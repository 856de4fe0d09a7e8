//! Input that nobody should send: the thing is named, nobody else is harmed.

use std::{
    fs::File,
    io::{ErrorKind, IoSlice},
    os::fd::{AsRawFd, RawFd},
    path::Path,
    time::Duration,
};

use meshwright_testbed::{Proxy, ProxySpec, READY, Step, World, WorldError, wait::eventually};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::standard::{ECHO, SOON, assert_reaches};

/// Acknowledgement without an error.
const ACK: [u8; 2] = [0x0a, 0x00];
/// `snapshot_sent`.
const SNAPSHOT: [u8; 2] = [0x1a, 0x00];
/// Longest wait for a proxy to connect again: its pauses grow.
const AGAIN: Duration = Duration::from_secs(20);

pub(crate) fn malformed_handover_never_ends_the_proxy(world: &World) -> Result<(), WorldError> {
    let socket = world.dir().join("bad-agent.sock");
    let agent = BadAgent::listen(&socket)?;
    let spec = outsider(world, "bad-agent")?.env("INPOD_UDS", socket.to_string_lossy());
    let proxy = world.launch(&world.outpost("bad-agent")?, &spec)?;
    let devnull = File::open("/dev/null").step("open a descriptor that is no namespace")?;
    let namespace = world.pod("out")?.space().file().as_raw_fd();
    let add = add("uid-x", "x");
    let long = [add.clone(), vec![0x7a; 2000]].concat();
    let bad: [(&str, &[u8], &[RawFd]); 6] = [
        ("bytes that are no message", &[0xff; 20], &[]),
        ("a pod without a namespace", &add, &[]),
        ("a namespace that is none", &add, &[devnull.as_raw_fd()]),
        ("two namespaces", &add, &[namespace, namespace]),
        ("a message longer than 1024 bytes", &long, &[]),
        ("an order that nobody knows", &[0x7a, 0x00], &[]),
    ];
    for (what, message, descriptors) in bad {
        let connection = agent.accept()?;
        connection.send(message, descriptors)?;
        let answer = connection.receive()?;
        assert_ne!(answer, ACK, "{what} was acknowledged");
        assert!(proxy.process().ended().is_none(), "{what} ended the proxy");
    }
    for (what, order) in [
        ("a second snapshot", SNAPSHOT.to_vec()),
        (
            "keep after the snapshot",
            vec![0x2a, 0x03, 0x0a, 0x01, b'k'],
        ),
    ] {
        let connection = agent.accept()?;
        connection.send(&SNAPSHOT, &[])?;
        assert_eq!(connection.receive()?, ACK, "the first snapshot");
        connection.send(&order, &[])?;
        assert_ne!(connection.receive()?, ACK, "{what} was acknowledged");
        assert!(proxy.process().ended().is_none(), "{what} ended the proxy");
    }
    let connection = agent.accept()?;
    connection.send(&SNAPSHOT, &[])?;
    assert_eq!(
        connection.receive()?,
        ACK,
        "an agent that behaves is served"
    );
    proxy.ready(READY)?;
    assert_without_panic(&proxy)
}

pub(crate) fn wrong_root_is_never_ready(world: &World) -> Result<(), WorldError> {
    let root = world.dir().join("wrong-root.pem");
    let authority = meshwright_identity::ca::CertificateAuthority::new(
        "cluster.local".parse().step("read a trust domain")?,
    )
    .step("make another authority")?;
    std::fs::write(&root, authority.root_pem()).step("write another root")?;
    let spec = outsider(world, "wrong-root")?.env("XDS_ROOT_CA", root.to_string_lossy());
    let proxy = world.launch(&world.outpost("wrong-root")?, &spec)?;
    never_ready(&proxy, "certificate")
}

pub(crate) fn unreachable_control_plane_is_never_ready(world: &World) -> Result<(), WorldError> {
    let spec = outsider(world, "unreachable")?.env("XDS_ADDRESS", "https://10.77.0.1:1");
    let proxy = world.launch(&world.outpost("unreachable")?, &spec)?;
    never_ready(&proxy, "10.77.0.1:1")
}

pub(crate) fn unreadable_token_is_named(world: &World) -> Result<(), WorldError> {
    // A path that exists and cannot be read as a file, also by root.
    let token = world.dir().join("token-that-is-a-folder");
    std::fs::create_dir_all(&token).step("make a folder")?;
    let spec = outsider(world, "no-token")?.env("AUTH_TOKEN", token.to_string_lossy());
    let proxy = world.launch(&world.outpost("no-token")?, &spec)?;
    eventually("the token's name in the log", SOON, || {
        let log = proxy.process().printed_since(0).ok()?;
        log.contains("token-that-is-a-folder").then_some(())
    })?;
    if proxy.process().ended().is_none() {
        assert_ne!(proxy.readiness()?.status, 200, "ready without a token");
    }
    assert_without_panic(&proxy)
}

pub(crate) fn unknown_token_is_never_ready(world: &World) -> Result<(), WorldError> {
    let token = world.dir().join("token-of-nobody");
    std::fs::write(&token, "a-token-that-nobody-has-handed-out").step("write a token")?;
    let spec = outsider(world, "unknown-token")?.env("AUTH_TOKEN", token.to_string_lossy());
    let proxy = world.launch(&world.outpost("unknown-token")?, &spec)?;
    never_ready(&proxy, "bearer token")
}

pub(crate) fn unknown_variable_of_ours_stops_the_start(world: &World) -> Result<(), WorldError> {
    let spec = outsider(world, "unknown-variable")?.env("MESHWRIGHT_POLICY_MODES", "strict");
    refused_at_start(
        world,
        "unknown-variable",
        &spec,
        &["MESHWRIGHT_POLICY_MODES"],
    )
}

pub(crate) fn every_unreadable_value_is_named_at_once(world: &World) -> Result<(), WorldError> {
    let spec = outsider(world, "bad-values")?
        .env("ZTUNNEL_WORKER_THREADS", "many")
        .env("INSTANCE_IP", "node-1")
        .env("SOME_OTHER_VARIABLE", "is none of our business");
    refused_at_start(
        world,
        "bad-values",
        &spec,
        &["ZTUNNEL_WORKER_THREADS", "INSTANCE_IP"],
    )
}

fn refused_at_start(
    world: &World,
    name: &str,
    spec: &ProxySpec,
    named: &[&str],
) -> Result<(), WorldError> {
    let proxy = world.launch(&world.outpost(name)?, spec)?;
    let status = proxy.process().wait(SOON)?;
    assert!(!status.success(), "it must not start: {status}");
    let log = proxy.process().printed_since(0)?;
    for name in named {
        assert!(log.contains(name), "the log names {name}: {log}");
    }
    assert!(!log.contains("SOME_OTHER_VARIABLE"), "{log}");
    assert_without_panic(&proxy)
}

/// It goes on trying, says why, and is not ready; the mesh does not notice.
fn never_ready(proxy: &Proxy, reason: &str) -> Result<(), WorldError> {
    eventually("the reason in the log", SOON, || {
        let log = proxy.process().printed_since(0).ok()?;
        log.to_lowercase().contains(reason).then_some(())
    })?;
    let answer = proxy.readiness()?;
    assert_eq!(answer.status, 500, "{}", answer.body);
    assert!(
        proxy.process().ended().is_none(),
        "it waits for better times"
    );
    assert_without_panic(proxy)
}

fn assert_without_panic(proxy: &Proxy) -> Result<(), WorldError> {
    let log = proxy.process().printed_since(0)?;
    assert!(!log.contains("panicked"), "{log}");
    Ok(())
}

/// Settings of a proxy beside the nodes'; the mesh works before it starts.
fn outsider(world: &World, name: &str) -> Result<ProxySpec, WorldError> {
    let (a1, b1) = (world.pod("a1")?, world.pod("b1")?);
    let _app = world.app(b1, ECHO, meshwright_testbed::apps::Behaviour::Echo)?;
    assert_reaches(a1, b1.at(ECHO));
    let node = world.node("node-1")?;
    Ok(world.proxy_spec(node, &format!("ztunnel-{name}")).env(
        "INPOD_UDS",
        world.dir().join("nobody.sock").to_string_lossy(),
    ))
}

/// Encodes an `add` of a pod in namespace `default`.
fn add(uid: &str, name: &str) -> Vec<u8> {
    let info = [
        field(1, name.as_bytes()),
        field(2, b"default"),
        field(3, b"x"),
    ]
    .concat();
    field(1, &[field(1, uid.as_bytes()), field(2, &info)].concat())
}

/// Encodes a field with a length, shorter than 128 bytes.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).unwrap_or(u8::MAX);
    [&[number << 3 | 2, length], content].concat()
}

/// An agent that sends whatever it is told, over the handover socket.
struct BadAgent {
    listener: Socket,
}

/// A connection from the proxy, after its hello.
struct Connection(Socket);

impl BadAgent {
    fn listen(path: &Path) -> Result<Self, WorldError> {
        let step = || format!("listen on {}", path.display());
        let listener = Socket::new(Domain::UNIX, Type::SEQPACKET, None).step(step())?;
        listener
            .bind(&SockAddr::unix(path).step(step())?)
            .step(step())?;
        listener.listen(8).step(step())?;
        listener.set_read_timeout(Some(AGAIN)).step(step())?;
        Ok(Self { listener })
    }

    /// Waits for the proxy to connect and say hello.
    fn accept(&self) -> Result<Connection, WorldError> {
        let (socket, _from) = self.listener.accept().step("see the proxy connect")?;
        socket.set_read_timeout(Some(SOON)).step("limit the wait")?;
        let connection = Connection(socket);
        assert_eq!(connection.receive()?, [8, 1], "the hello names version 1");
        Ok(connection)
    }
}

impl Connection {
    fn send(&self, message: &[u8], descriptors: &[RawFd]) -> Result<(), WorldError> {
        let control = [ControlMessage::ScmRights(descriptors)];
        let control = if descriptors.is_empty() {
            &[][..]
        } else {
            &control
        };
        let message = [IoSlice::new(message)];
        sendmsg::<()>(
            self.0.as_raw_fd(),
            &message,
            control,
            MsgFlags::empty(),
            None,
        )
        .map(drop)
        .step("send to the proxy")
    }

    /// Receives an answer; empty when the proxy has hung up.
    fn receive(&self) -> Result<Vec<u8>, WorldError> {
        use std::io::Read;
        let mut buffer = [0; 4096];
        match (&self.0).read(&mut buffer) {
            Ok(length) => Ok(buffer.get(..length).unwrap_or_default().to_vec()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(Vec::new()),
            Err(error) => Err(error).step("hear from the proxy"),
        }
    }
}
