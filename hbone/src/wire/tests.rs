//! The seam to `h2`, frame by frame: our end on one side, a peer that writes out its frames on the
//! other.

use super::{Settings, client, server, stream::Stream};
use crate::{Authority, error::Reset, tls::TlsStream};
use bytes::Bytes;
use http::HeaderMap;
use meshwright_identity::{
    AcceptedPeers, Member, SpiffeId, TrustDomain, ca::CertificateAuthority, tls::TlsEngine,
};
use meshwright_testkit::trace;
use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex},
    task::JoinSet,
};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;

/// A pipe that counts how often our end writes to it.
struct Counted {
    pipe: DuplexStream,
    writes: Arc<AtomicUsize>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        Pin::new(&mut self.pipe).poll_write(cx, data)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        Pin::new(&mut self.pipe).poll_write_vectored(cx, slices)
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

fn members() -> (Member, Member) {
    let authority = CertificateAuthority::new(TrustDomain::parse("td").unwrap()).unwrap();
    let engine = TlsEngine::aws_lc_rs();
    let member = |name: &str| {
        let id = SpiffeId::parse(&format!("spiffe://td/ns/n/sa/{name}")).unwrap();
        let svid = authority.issue(&id, Duration::from_secs(3600)).unwrap();
        Member::new(svid, &engine).unwrap()
    };
    (member("ours"), member("peer"))
}

/// The peer: TLS with frames written out by hand.
struct Peer {
    tls: TlsStream,
    received: Vec<u8>,
}

#[derive(Debug, PartialEq)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Peer {
    async fn sends(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = len[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        self.sends_raw(&bytes).await;
    }

    async fn sends_raw(&mut self, mut bytes: &[u8]) {
        poll_fn(|cx| {
            while !bytes.is_empty() {
                match self.tls.poll_write(cx, &[io::IoSlice::new(bytes)]) {
                    Poll::Ready(count) => bytes = &bytes[count.unwrap()..],
                    Poll::Pending => return Poll::Pending,
                }
            }
            self.tls.poll_flush(cx)
        })
        .await
        .unwrap();
    }

    async fn read(&mut self, len: usize) -> Vec<u8> {
        while self.received.len() < len {
            let mut block = vec![0; 16 * 1024];
            let mut buf = ReadBuf::new(&mut block);
            poll_fn(|cx| self.tls.poll_read(cx, &mut buf))
                .await
                .unwrap();
            assert!(!buf.filled().is_empty(), "our end has hung up");
            self.received.extend(buf.filled());
        }
        let rest = self.received.split_off(len);
        std::mem::replace(&mut self.received, rest)
    }

    async fn sees(&mut self) -> Frame {
        let header = self.read(9).await;
        let len = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        Frame {
            kind: header[3],
            flags: header[4],
            stream: u32::from_be_bytes(header[5..9].try_into().unwrap()),
            payload: self.read(len.try_into().unwrap()).await,
        }
    }

    /// The next frame of this kind; skips others.
    async fn sees_next(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.sees().await;
            if frame.kind == kind {
                return frame;
            }
        }
    }
}

/// Our client's end with its driver on a task, and the peer after both sides' SETTINGS.
async fn client(settings: Settings) -> (client::Opener, Peer, Arc<AtomicUsize>, JoinSet<()>) {
    let (ours, peer) = members();
    let (near, far) = duplex(4 * 1024 * 1024);
    let writes = Arc::new(AtomicUsize::new(0));
    let near = Counted {
        pipe: near,
        writes: Arc::clone(&writes),
    };
    let config = ours.client_config(&AcceptedPeers::from(peer.id().clone()));
    let name = rustls::pki_types::ServerName::try_from("peer").unwrap();
    let tls = rustls::ClientConnection::new(config, name).unwrap();
    let mut ours = TlsStream::new(near, tls.into());
    let tls = rustls::ServerConnection::new(peer.server_config()).unwrap();
    let mut theirs = TlsStream::new(far, tls.into());
    let (one, two) = tokio::join!(ours.handshake(), theirs.handshake());
    one.unwrap();
    two.unwrap();
    let (opener, mut driver) = client::start(ours, &settings).await.unwrap();
    let mut driving = JoinSet::new();
    driving.spawn(async move {
        let _ended = poll_fn(|cx| driver.poll(cx)).await;
    });
    let mut peer = Peer {
        tls: theirs,
        received: Vec::new(),
    };
    // RFC 9113 §3.4: the preface comes first.
    assert_eq!(peer.read(24).await, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    peer.sends(SETTINGS, 0, 0, &[]).await;
    peer.sends(SETTINGS, 1, 0, &[]).await;
    (opener, peer, writes, driving)
}

/// Opens a stream; the peer answers 200.
async fn open(opener: &client::Opener, peer: &mut Peer) -> Stream {
    let authority = Authority::parse("10.0.0.7:80").unwrap();
    let opened = opener.clone().open(&authority, HeaderMap::new());
    let answer = async {
        let request = peer.sees_next(HEADERS).await;
        // HPACK: `:status: 200` is entry 8 of the static table.
        peer.sends(HEADERS, 4, request.stream, &[0x88]).await;
    };
    let (opened, ()) = tokio::join!(opened, answer);
    opened.unwrap().0
}

#[tokio::test]
async fn client_announces_its_limits() {
    let _trace = trace();
    let (_opener, mut peer, _writes, _driving) = client(Settings::default()).await;
    let settings = peer.sees_next(SETTINGS).await;
    let pairs: Vec<(u16, u32)> = settings
        .payload
        .chunks(6)
        .map(|pair| {
            let id = u16::from_be_bytes([pair[0], pair[1]]);
            (id, u32::from_be_bytes(pair[2..6].try_into().unwrap()))
        })
        .collect();
    let expected = Settings::default();
    // RFC 9113 §6.5.2: no push, window, frame size, header list.
    for wanted in [
        (2, 0),
        (4, expected.windows.stream),
        (5, expected.max_frame),
        (6, expected.max_header_list),
    ] {
        assert!(pairs.contains(&wanted), "{wanted:?} is not in {pairs:?}");
    }
    let window = peer.sees_next(WINDOW_UPDATE).await;
    assert_eq!(window.stream, 0);
    let more = expected.windows.connection - 65_535;
    assert_eq!(window.payload, more.to_be_bytes());
}

#[tokio::test]
async fn all_frames_of_one_wake_up_go_out_in_one_write() {
    let _trace = trace();
    let (opener, mut peer, writes, _driving) = client(Settings::default()).await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(open(&opener, &mut peer).await);
    }
    let before = writes.load(Ordering::SeqCst);
    for stream in &mut streams {
        let mut chunk = Bytes::from_static(b"small");
        poll_fn(|cx| stream.poll_send(cx, &mut chunk))
            .await
            .unwrap();
        poll_fn(|cx| Poll::Ready(stream.finish(cx))).await.unwrap();
    }
    for _ in 0..20 {
        while peer.sees_next(DATA).await.flags & 1 == 0 {}
    }
    assert_eq!(
        writes.load(Ordering::SeqCst) - before,
        1,
        "20 streams, one write"
    );
}

#[tokio::test]
async fn bytes_survive_being_cut_into_full_records() {
    // RFC 8446 §5.1: a record carries at most 2^14 bytes; a frame with its header has nine more.
    let _trace = trace();
    let (ours, peer) = members();
    let (near, far) = duplex(4 * 1024 * 1024);
    let config = peer.client_config(&AcceptedPeers::from(ours.id().clone()));
    let name = rustls::pki_types::ServerName::try_from("peer").unwrap();
    let tls = rustls::ClientConnection::new(config, name).unwrap();
    let mut client = TlsStream::new(near, tls.into());
    let tls = rustls::ServerConnection::new(ours.server_config()).unwrap();
    let mut server = TlsStream::new(far, tls.into());
    let (one, two) = tokio::join!(client.handshake(), server.handshake());
    one.unwrap();
    two.unwrap();
    // A frame header and 64 KiB, ten times, as `h2` writes them.
    let (header, payload) = ([1; 9], vec![2; 64 * 1024]);
    for _ in 0..10 {
        let slices = [io::IoSlice::new(&header), io::IoSlice::new(&payload)];
        let written = poll_fn(|cx| client.poll_write(cx, &slices)).await.unwrap();
        assert_eq!(written, 9 + 64 * 1024);
    }
    poll_fn(|cx| client.poll_flush(cx)).await.unwrap();
    let total = 10 * (9 + 64 * 1024);
    let mut block = vec![0; 256 * 1024];
    let (mut got, mut odd) = (0, Vec::new());
    while got < total {
        let mut buf = ReadBuf::new(&mut block);
        poll_fn(|cx| server.poll_read(cx, &mut buf)).await.unwrap();
        for byte in buf.filled() {
            let within = got % (9 + 64 * 1024);
            if *byte != if within < 9 { 1 } else { 2 } {
                odd.push(got);
            }
            got += 1;
        }
    }
    assert!(odd.is_empty(), "bytes out of place: {odd:?}");
}

#[tokio::test]
async fn window_is_given_back_only_when_bytes_are_released() {
    let _trace = trace();
    let settings = Settings {
        windows: super::windows::Windows::fixed(64 * 1024, 1024 * 1024),
        ..Settings::default()
    };
    let (opener, mut peer, _writes, _driving) = client(settings).await;
    let mut stream = open(&opener, &mut peer).await;
    for _ in 0..4 {
        peer.sends(DATA, 0, 1, &[0; 16 * 1024]).await;
    }
    let mut held = 0;
    while held < 64 * 1024 {
        held += poll_fn(|cx| stream.poll_recv(cx))
            .await
            .unwrap()
            .unwrap()
            .len();
    }
    let mut updates = Vec::new();
    let quiet = tokio::time::timeout(Duration::from_millis(50), async {
        loop {
            updates.push(peer.sees_next(WINDOW_UPDATE).await);
        }
    });
    quiet.await.unwrap_err();
    assert!(
        updates
            .iter()
            .all(|update| update.stream == 0 && update.payload != [0, 1, 0, 0])
    );
    stream.release(held);
    loop {
        let update = peer.sees_next(WINDOW_UPDATE).await;
        if update.stream == 1 {
            assert_eq!(update.payload, [0, 1, 0, 0]);
            break;
        }
    }
}

#[tokio::test]
async fn sender_waits_for_the_peers_window() {
    let _trace = trace();
    let (opener, mut peer, _writes, _driving) = client(Settings::default()).await;
    let mut stream = open(&opener, &mut peer).await;
    // RFC 9113 §6.9.2: a peer that says nothing takes 65 535 bytes.
    let mut chunk = Bytes::from(vec![7; 100_000]);
    poll_fn(|cx| stream.poll_send(cx, &mut chunk))
        .await
        .unwrap();
    let mut seen = 0;
    while seen < 65_535 {
        seen += peer.sees_next(DATA).await.payload.len();
    }
    assert_eq!(seen, 65_535);
    let waiting = tokio::time::timeout(
        Duration::from_millis(50),
        poll_fn(|cx| stream.poll_send(cx, &mut chunk)),
    );
    waiting.await.expect_err("the window is used up");
    for stream in [0, 1] {
        peer.sends(WINDOW_UPDATE, 0, stream, &100_000_u32.to_be_bytes())
            .await;
    }
    while !chunk.is_empty() {
        poll_fn(|cx| stream.poll_send(cx, &mut chunk))
            .await
            .unwrap();
    }
    while seen < 100_000 {
        seen += peer.sees_next(DATA).await.payload.len();
    }
}

#[tokio::test]
async fn every_reset_code_is_a_reset_also_those_that_sound_harmless() {
    let _trace = trace();
    let (opener, mut peer, _writes, _driving) = client(Settings::default()).await;
    for code in [0_u32, 2, 5, 8, 10] {
        let mut stream = open(&opener, &mut peer).await;
        let id = u32::try_from(1 + 2 * [0, 2, 5, 8, 10].iter().position(|c| *c == code).unwrap());
        peer.sends(RST_STREAM, 0, id.unwrap(), &code.to_be_bytes())
            .await;
        let end = poll_fn(|cx| stream.poll_recv(cx)).await;
        assert_eq!(
            end,
            Some(Err(Reset::Stream(code))),
            "RFC 9113 §7, code {code}"
        );
    }
}

#[tokio::test]
async fn data_before_a_reset_that_follows_the_end_is_kept() {
    let _trace = trace();
    let (opener, mut peer, _writes, _driving) = client(Settings::default()).await;
    let mut stream = open(&opener, &mut peer).await;
    peer.sends(DATA, 1, 1, b"whole").await;
    peer.sends(RST_STREAM, 0, 1, &0_u32.to_be_bytes()).await;
    let reset = poll_fn(|cx| stream.poll_reset(cx)).await;
    assert_eq!(reset, Reset::Stream(0), "nothing can be sent any more");
    let data = poll_fn(|cx| stream.poll_recv(cx)).await;
    assert_eq!(data, Some(Ok(Bytes::from_static(b"whole"))));
    assert_eq!(
        poll_fn(|cx| stream.poll_recv(cx)).await,
        None,
        "the end was clean"
    );
}

#[tokio::test]
async fn dropped_stream_is_reset_with_connect_error() {
    let _trace = trace();
    let (opener, mut peer, _writes, _driving) = client(Settings::default()).await;
    let stream = open(&opener, &mut peer).await;
    drop(stream);
    let reset = peer.sees_next(RST_STREAM).await;
    assert_eq!(
        (reset.stream, reset.payload),
        (1, vec![0, 0, 0, 10]),
        "RFC 9113 §8.5"
    );
}

#[tokio::test]
async fn trailers_end_a_stream_and_are_no_payload() {
    let _trace = trace();
    let (opener, mut peer, _writes, _driving) = client(Settings::default()).await;
    let mut stream = open(&opener, &mut peer).await;
    peer.sends(DATA, 0, 1, b"data").await;
    peer.sends(HEADERS, 5, 1, b"\x00\x01x\x01y").await;
    let data = poll_fn(|cx| stream.poll_recv(cx)).await;
    assert_eq!(data, Some(Ok(Bytes::from_static(b"data"))));
    assert_eq!(poll_fn(|cx| stream.poll_recv(cx)).await, None);
}

#[tokio::test]
async fn all_streams_together_queue_no_more_than_the_connections_credit() {
    let _trace = trace();
    let settings = Settings {
        connection_send_buffer: 128 * 1024,
        ..Settings::default()
    };
    let (opener, mut peer, _writes, driving) = client(settings).await;
    let huge = 0x7000_0000_u32;
    peer.sends(
        SETTINGS,
        0,
        0,
        &[[0, 4].as_slice(), &huge.to_be_bytes()].concat(),
    )
    .await;
    peer.sends(WINDOW_UPDATE, 0, 0, &huge.to_be_bytes()).await;
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(open(&opener, &mut peer).await);
    }
    // From here on nobody writes what is queued.
    drop(driving);
    let mut queued = 0;
    for stream in &mut streams {
        let mut chunk = Bytes::from(vec![0; 64 * 1024]);
        let sent = poll_fn(|cx| Poll::Ready(stream.poll_send(cx, &mut chunk))).await;
        queued += if sent.is_ready() {
            64 * 1024 - chunk.len()
        } else {
            0
        };
    }
    assert!(queued <= 128 * 1024, "{queued} bytes are queued");
}

#[tokio::test]
async fn transport_that_ends_without_close_notify_is_an_error() {
    let _trace = trace();
    let (ours, peer) = members();
    let (near, far) = duplex(64 * 1024);
    let tls = rustls::ServerConnection::new(ours.server_config()).unwrap();
    let mut server = TlsStream::new(near, tls.into());
    let config = peer.client_config(&AcceptedPeers::from(ours.id().clone()));
    let name = rustls::pki_types::ServerName::try_from("peer").unwrap();
    let tls = rustls::ClientConnection::new(config, name).unwrap();
    let mut client = TlsStream::new(far, tls.into());
    let (one, two) = tokio::join!(server.handshake(), client.handshake());
    one.unwrap();
    two.unwrap();
    drop(client);
    let ended = server::start(server, &Settings::default()).await;
    assert_eq!(
        ended.unwrap_err().kind(),
        io::ErrorKind::UnexpectedEof,
        "RFC 8446 §6.1"
    );
}
