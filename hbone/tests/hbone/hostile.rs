//! Peers with a certificate of the mesh and bad intentions, frame by frame.

use crate::mesh::{Happened, Mesh, RawTls, Server, open, pool, soon};
use meshwright_hbone::events::Limit;
use meshwright_testkit::trace;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = len[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// HPACK of a CONNECT request, without indexing.
fn connect(authority: &str) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [(":method", "CONNECT"), (":authority", authority)] {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// Sends `bytes` after the preface and SETTINGS, and reads until the server ends the connection;
/// returns the error code of its GOAWAY.
async fn attack(mesh: &Mesh, server: &Server, bytes: &[u8]) -> Option<u32> {
    let mut stream = mesh.raw_client(server.addr).await;
    let mut all = PREFACE.to_vec();
    all.extend(frame(4, 0, 0, &[]));
    all.extend(bytes);
    // The server may hang up in the middle.
    let _cut = stream.write_all(&all).await;
    let _cut = stream.flush().await;
    soon("the server ends the connection", goaway(stream)).await
}

async fn goaway(mut stream: RawTls) -> Option<u32> {
    let mut got = Vec::new();
    let _cut = stream.read_to_end(&mut got).await;
    let mut rest = got.as_slice();
    let mut code = None;
    while rest.len() >= 9 {
        let len = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
        if rest.len() < 9 + len {
            break;
        }
        if rest[3] == 7 {
            code = Some(u32::from_be_bytes(rest[13..17].try_into().unwrap()));
        }
        rest = &rest[9 + len..];
    }
    code
}

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const FRAME_SIZE_ERROR: u32 = 6;
const COMPRESSION_ERROR: u32 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;

#[tokio::test]
async fn floods_of_frames_that_cost_nothing_to_send_are_cut_off_and_named() {
    let _trace = trace();
    let mesh = Mesh::new();
    let ping = frame(6, 0, 0, &[0; 8]);
    let settings = frame(4, 0, 0, &[]);
    let priority = frame(2, 0, 1, &[0, 0, 0, 0, 1]);
    let unknown = frame(0xbe, 0, 0, b"x");
    for (kind, one) in [ping, settings, priority, unknown].into_iter().enumerate() {
        let server = mesh.server().await;
        let code = attack(&mesh, &server, &one.repeat(5000)).await;
        let limit = Happened::Limit(Limit::ControlFrames);
        assert_eq!(server.events.count(&limit), 1, "flood {kind}");
        assert!(matches!(code, None | Some(ENHANCE_YOUR_CALM)), "{code:?}");
    }
}

#[tokio::test]
async fn rapid_reset_is_cut_off() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut server = mesh.server().await;
    let mut bytes = Vec::new();
    for stream in 0..5000 {
        let id = 2 * stream + 1;
        bytes.extend(frame(1, 4, id, &connect("10.0.0.1:80")));
        bytes.extend(frame(3, 0, id, &8_u32.to_be_bytes()));
    }
    attack(&mesh, &server, &bytes).await;
    server.end().await.unwrap_err();
    let mut surfaced = 0;
    while server.has_request() {
        surfaced += 1;
    }
    assert!(surfaced <= 200, "{surfaced} requests surfaced");
}

#[tokio::test]
async fn resets_of_accepted_tunnels_are_counted_too() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut server = mesh.server().await;
    let mut stream = mesh.raw_client(server.addr).await;
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    let mut surfaced = 0;
    for number in 0..5000 {
        let id = 2 * number + 1;
        let opened = stream
            .write_all(&frame(1, 4, id, &connect("10.0.0.1:80")))
            .await;
        if opened.is_err() || stream.flush().await.is_err() {
            break;
        }
        tokio::select! {
            mut request = server.request() => {
                surfaced += 1;
                let _cut = stream.write_all(&frame(3, 0, id, &8_u32.to_be_bytes())).await;
                let _cut = stream.flush().await;
                request.abandoned().await;
            }
        }
        if server.events.count(&Happened::Limit(Limit::StreamResets)) > 0 {
            break;
        }
    }
    assert!(surfaced <= 1000, "{surfaced} tunnels were opened and reset");
    assert_eq!(
        server.events.count(&Happened::Limit(Limit::StreamResets)),
        1
    );
}

#[tokio::test]
async fn many_aborted_tunnels_of_an_honest_peer_are_no_attack() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut server = mesh.server().await;
    let (pool, member) = (pool(), mesh.member("client"));
    let mut tunnels = Vec::new();
    for _ in 0..100 {
        tunnels.push(open(&pool, &member, &mut server).await);
    }
    tunnels.clear();
    open(&pool, &member, &mut server).await;
    assert_eq!(
        pool.connections(),
        1,
        "the connection survived a hundred resets at once"
    );
}

/// An application that resets many connections leaves DATA of its clients on the way.
#[tokio::test]
async fn data_on_its_way_to_tunnels_that_were_reset_is_no_attack() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut server = mesh.server().await;
    let mut stream = mesh.raw_client(server.addr).await;
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    bytes.extend(frame(4, 1, 0, &[]));
    stream.write_all(&bytes).await.unwrap();
    for number in 0..500 {
        let id = 2 * number + 1;
        let request = frame(1, 4, id, &connect("10.0.0.1:80"));
        stream.write_all(&request).await.unwrap();
        stream.flush().await.unwrap();
        drop(server.accept().await);
    }
    for number in 0..500 {
        let late = frame(0, 0, 2 * number + 1, b"late");
        stream.write_all(&late).await.unwrap();
    }
    stream
        .write_all(&frame(1, 4, 1001, &connect("10.0.0.1:80")))
        .await
        .unwrap();
    stream.flush().await.unwrap();
    drop(server.accept().await);
}

/// Clients that connect, exchange a byte and reset, one after the other at full speed.
#[tokio::test]
async fn resets_of_tunnels_that_were_open_leave_their_siblings_alone() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut peer = mesh.server().await;
    let (pool, member) = (pool(), mesh.member("client"));
    let (mut healthy, mut served) = open(&pool, &member, &mut peer).await;
    for _ in 0..1000 {
        let (mut client, mut server) = open(&pool, &member, &mut peer).await;
        client.write_all(b"x").await.unwrap();
        server.read_exact(&mut [0]).await.unwrap();
        drop(client);
        server.read(&mut [0]).await.unwrap_err();
    }
    healthy.write_all(b"x").await.unwrap();
    served.read_exact(&mut [0]).await.unwrap();
    let limit = Happened::Limit(Limit::StreamResets);
    assert_eq!(peer.events.count(&limit), 0);
    assert_eq!(pool.connections(), 1);
}

/// `h2` takes requests until its PING is answered; a peer may answer all others.
#[tokio::test]
async fn peer_that_ignores_goaway_opens_no_tunnel_for_ever() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut server = mesh.server().await;
    let mut stream = mesh.raw_client(server.addr).await;
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    bytes.extend(frame(4, 1, 0, &[]));
    bytes.extend(frame(1, 4, 1, &connect("10.0.0.1:80")));
    stream.write_all(&bytes).await.unwrap();
    stream.flush().await.unwrap();
    let _tunnel = server.accept().await;
    server.drain.start();
    stream
        .write_all(&frame(1, 4, 3, &connect("10.0.0.1:80")))
        .await
        .unwrap();
    stream.flush().await.unwrap();
    let _on_its_way = server.accept().await;

    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(11)).await;
    tokio::time::resume();
    stream
        .write_all(&frame(1, 4, 5, &connect("10.0.0.1:80")))
        .await
        .unwrap();
    stream.flush().await.unwrap();
    let refusal = frame(3, 0, 5, &7_u32.to_be_bytes());
    let mut got = Vec::new();
    let refused = async {
        while !got.windows(refusal.len()).any(|part| part == refusal) {
            assert!(stream.read_buf(&mut got).await.unwrap() > 0);
        }
    };
    soon("the late request is refused as not looked at", refused).await;
    assert!(!server.has_request());
}

type Broken = (&'static str, Vec<u8>, &'static [u32]);

/// Frames on streams that HTTP/2 does not allow, and the error codes that may answer them.
fn broken_streams() -> Vec<Broken> {
    let open = frame(1, 4, 1, &connect("10.0.0.1:80"));
    let then = |rest: Vec<u8>| [open.clone(), rest].concat();
    let overflow = frame(8, 0, 0, &0x7fff_ffff_u32.to_be_bytes());
    vec![
        ("DATA on stream 0", frame(0, 0, 0, b"x"), &[PROTOCOL_ERROR]),
        (
            "DATA on an idle stream",
            frame(0, 0, 1, b"x"),
            &[PROTOCOL_ERROR],
        ),
        (
            "even stream id",
            frame(1, 4, 2, &connect("a:1")),
            &[PROTOCOL_ERROR],
        ),
        (
            "stream id goes down",
            [
                frame(1, 4, 5, &connect("a:1")),
                frame(1, 4, 3, &connect("a:1")),
            ]
            .concat(),
            &[PROTOCOL_ERROR],
        ),
        (
            "PUSH_PROMISE",
            then(frame(5, 4, 1, &[0, 0, 0, 2])),
            &[PROTOCOL_ERROR],
        ),
        (
            "window overflow",
            [overflow.clone(), overflow].concat(),
            &[FLOW_CONTROL_ERROR],
        ),
        ("zero increment", frame(8, 0, 0, &[0; 4]), &[PROTOCOL_ERROR]),
        (
            "padding as long as the frame",
            then(frame(0, 8, 1, &[5, 0, 0])),
            &[PROTOCOL_ERROR],
        ),
    ]
}

/// Frames that are broken in themselves.
fn broken_frames() -> Vec<Broken> {
    vec![
        (
            "SETTINGS of odd length",
            frame(4, 0, 0, &[0; 5]),
            &[FRAME_SIZE_ERROR, PROTOCOL_ERROR],
        ),
        (
            "max frame size of 1",
            frame(4, 0, 0, &[0, 5, 0, 0, 0, 1]),
            &[PROTOCOL_ERROR],
        ),
        (
            "window of 2^31",
            frame(4, 0, 0, &[0, 4, 0x80, 0, 0, 0]),
            &[FLOW_CONTROL_ERROR, PROTOCOL_ERROR],
        ),
        (
            "frame over the limit",
            vec![1, 0, 1, 0, 0, 0, 0, 0, 1],
            &[FRAME_SIZE_ERROR],
        ),
        (
            "HPACK index 0",
            frame(1, 4, 1, &[0x80]),
            &[COMPRESSION_ERROR, PROTOCOL_ERROR],
        ),
        (
            "upper-case header name",
            frame(1, 4, 1, b"\x00\x05UPPER\x01x"),
            &[PROTOCOL_ERROR],
        ),
        (
            "line break in a header value",
            frame(1, 4, 1, b"\x00\x01x\x04a\r\nb"),
            &[PROTOCOL_ERROR],
        ),
        ("CONTINUATION alone", frame(9, 4, 1, &[]), &[PROTOCOL_ERROR]),
    ]
}

#[tokio::test]
async fn broken_frames_end_the_connection_with_the_right_error() {
    let _trace = trace();
    let mesh = Mesh::new();
    for (name, bytes, codes) in [broken_streams(), broken_frames()].concat() {
        let mut server = mesh.server().await;
        let code = attack(&mesh, &server, &bytes).await;
        let code = code.unwrap_or_else(|| panic!("{name}: no GOAWAY"));
        assert!(codes.contains(&code), "{name}: GOAWAY {code}");
        server.end().await.unwrap_err();
    }
}

#[tokio::test]
async fn endless_headers_are_cut_off() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut server = mesh.server().await;
    let mut bytes = frame(1, 0, 1, &connect("10.0.0.1:80"));
    bytes.extend(frame(9, 0, 1, &[]).repeat(5000));
    let code = attack(&mesh, &server, &bytes).await;
    assert!(
        matches!(code, Some(ENHANCE_YOUR_CALM | PROTOCOL_ERROR)),
        "{code:?}"
    );
    server.end().await.unwrap_err();
    assert!(!server.has_request());
}

#[tokio::test]
async fn small_and_empty_data_frames_into_an_unread_tunnel_are_bounded() {
    let _trace = trace();
    let mesh = Mesh::new();
    for payload in [&b""[..], b"x"] {
        let mut server = mesh.server().await;
        let mut bytes = frame(1, 4, 1, &connect("10.0.0.1:80"));
        bytes.extend(frame(0, 0, 1, payload).repeat(300_000));
        let code = attack(&mesh, &server, &bytes).await;
        let calm = matches!(code, None | Some(ENHANCE_YOUR_CALM | FLOW_CONTROL_ERROR));
        assert!(calm, "{code:?}");
        server.end().await.unwrap_err();
    }
}

#[tokio::test]
async fn malformed_requests_reset_their_stream_only() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut server = mesh.server().await;
    let mut stream = mesh.raw_client(server.addr).await;
    let block = |fields: &[(&str, &str)]| {
        let mut block = Vec::new();
        for (name, value) in fields {
            block.push(0);
            for text in [name, value] {
                block.push(u8::try_from(text.len()).unwrap());
                block.extend(text.as_bytes());
            }
        }
        block
    };
    let method = (":method", "CONNECT");
    let authority = (":authority", "10.0.0.1:80");
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    let mut id = 1;
    for fields in [
        &[method, authority, (":path", "/")][..],
        &[method, authority, (":scheme", "https")],
        &[method, authority, authority],
        &[
            method,
            (":protocol", "websocket"),
            authority,
            (":scheme", "https"),
            (":path", "/"),
        ],
        &[method, authority, ("connection", "close")],
        &[method, authority, ("transfer-encoding", "chunked")],
    ] {
        bytes.extend(frame(1, 4, id, &block(fields)));
        id += 2;
    }
    bytes.extend(frame(1, 4, id, &connect("10.0.0.1:80")));
    stream.write_all(&bytes).await.unwrap();
    stream.flush().await.unwrap();
    let request = server.request().await;
    assert_eq!(request.authority().to_string(), "10.0.0.1:80");
    assert!(!server.has_request(), "only the last one is a request");
}
