//! What the client makes of answers.

use crate::mesh::{Mesh, pool, soon, target};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use meshwright_hbone::{
    Baggage, ConnectError, Forwarded, ResponseHeaders, TraceParent, TunnelHeaders,
};
use meshwright_testkit::trace;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Opens a tunnel to a raw peer that answers with `answer`; returns how that went.
async fn answered(
    mesh: &Mesh,
    answer: impl AsyncFnOnce(h2::server::SendResponse<bytes::Bytes>),
) -> Result<meshwright_hbone::Tunnel, ConnectError> {
    let raw = mesh.raw_server().await;
    let (pool, member) = (pool(), mesh.member("client"));
    let request = pool.tunnel(&member, target(raw.addr()));
    let serve = async {
        let mut connection = h2::server::handshake(raw.accept().await).await.unwrap();
        let (_request, respond) = connection.accept().await.unwrap().unwrap();
        tokio::join!(answer(respond), async {
            while connection.accept().await.is_some() {}
        });
    };
    tokio::select! {
        opened = soon("the answer is understood", request) => opened,
        () = serve => panic!("the server's end ended first"),
    }
}

fn response(status: u16) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

#[tokio::test]
async fn only_200_opens_a_tunnel() {
    let _trace = trace();
    let mesh = Mesh::new();
    for status in [201, 204, 206, 302, 400, 401, 407, 503, 999] {
        for end_stream in [true, false] {
            let opened = answered(&mesh, async |mut respond| {
                let stream = respond.send_response(response(status), end_stream);
                let _kept = (stream, std::future::pending::<()>().await);
            })
            .await;
            match opened {
                Err(ConnectError::Refused { status: seen, .. }) => assert_eq!(seen, status),
                other => panic!("status {status} gave {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_few_informational_answers_are_skipped_and_many_are_not() {
    // RFC 9110 §15.2: a client must be able to parse them and may ignore them.
    let _trace = trace();
    let mesh = Mesh::new();
    for (count, opens) in [(8, true), (9, false)] {
        let opened = answered(&mesh, async |mut respond| {
            for _ in 0..count {
                respond.send_informational(response(103)).unwrap();
            }
            let stream = respond.send_response(response(200), false);
            let _kept = (stream, std::future::pending::<()>().await);
        })
        .await;
        assert_eq!(
            opened.is_ok(),
            opens,
            "{count} informational answers: {opened:?}"
        );
    }
}

#[tokio::test]
async fn reset_instead_of_an_answer_is_not_safe_to_retry() {
    let _trace = trace();
    let mesh = Mesh::new();
    let error = answered(&mesh, async |mut respond| {
        respond.send_reset(h2::Reason::INTERNAL_ERROR);
        std::future::pending::<()>().await;
    })
    .await
    .unwrap_err();
    assert!(matches!(error, ConnectError::Reset { .. }), "{error}");
    assert!(!error.is_safe_to_retry());
}

#[tokio::test]
async fn end_of_stream_with_the_answer_is_an_end_and_a_reset_after_it_a_reset() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut peer = mesh.server().await;
    let (pool, member) = (pool(), mesh.member("client"));
    let (client, server) = tokio::join!(pool.tunnel(&member, peer.target()), peer.accept());
    let (mut client, mut server) = (client.unwrap(), server);
    server.shutdown().await.unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);

    let (client, server) = tokio::join!(pool.tunnel(&member, peer.target()), peer.accept());
    let mut client = client.unwrap();
    drop(server);
    client
        .read(&mut [0])
        .await
        .expect_err("a reset is not an end");
}

#[tokio::test]
async fn headers_arrive_as_sent() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut peer = mesh.server().await;
    let (pool, member) = (pool(), mesh.member("client"));
    let mut baggage = Baggage::default();
    baggage.namespace = Some("default".into());
    let traceparent = TraceParent::generate();
    let forwarded = Forwarded::new("10.0.0.1:4711".parse().unwrap()).with_host("reviews.prod");
    let headers = TunnelHeaders::new()
        .with_baggage(baggage.to_header())
        .with_forwarded(&forwarded)
        .with_traceparent(traceparent)
        .with_forwarded_network("net-a");
    let target = peer.target().with_headers(headers);
    let mut answer_baggage = Baggage::default();
    answer_baggage.service_name = Some("reviews".into());
    let (opened, _accepted) = tokio::join!(pool.tunnel_with_baggage(&member, target), async {
        let request = peer.request().await;
        assert_eq!(request.baggage(), baggage);
        assert_eq!(request.forwarded(), forwarded);
        assert_eq!(request.traceparent(), Some(traceparent));
        assert_eq!(request.forwarded_network(), Some("net-a"));
        let answer = ResponseHeaders::new().with_baggage(answer_baggage.to_header());
        request.accept(answer).unwrap()
    });
    let (_tunnel, seen) = opened.unwrap();
    assert_eq!(seen, answer_baggage);
}

#[tokio::test]
async fn hostile_answer_baggage_is_bounded() {
    let _trace = trace();
    let mut headers = HeaderMap::new();
    let value = format!("service.name={},k8s.cluster.name=ok", "x".repeat(300));
    headers.insert("baggage", HeaderValue::try_from(value).unwrap());
    let baggage = Baggage::from_headers(&headers);
    assert_eq!(
        (baggage.service_name, baggage.cluster.as_deref()),
        (None, Some("ok"))
    );
}
