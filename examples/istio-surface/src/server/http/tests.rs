use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{HttpServer, ServerLimits, bind};
use crate::server::Readiness;

async fn server(limits: ServerLimits) -> HttpServer {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = bind(address).await.unwrap();
    HttpServer::start(vec![listener], Readiness::new(), limits)
}

async fn probe(server: &HttpServer) -> String {
    let mut stream = TcpStream::connect(server.addresses()[0]).await.unwrap();
    let request = b"GET /healthz/ready HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn request_is_answered_and_its_connection_closed() {
    let _trace = meshwright_testkit::trace();
    let server = server(ServerLimits::default()).await;
    let answer = probe(&server).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nready\n"), "{answer}");
}

#[tokio::test]
async fn crowd_of_idle_connections_does_not_keep_a_probe_out() {
    let _trace = meshwright_testkit::trace();
    let limits = ServerLimits {
        connections: 8,
        ..ServerLimits::default()
    };
    let server = server(limits).await;
    let mut crowd = Vec::new();
    for _ in 0..64 {
        let mut idle = TcpStream::connect(server.addresses()[0]).await.unwrap();
        // The oldest may be gone already; that is what is tested.
        drop(idle.write_all(b"GET /heal").await);
        crowd.push(idle);
    }
    assert!(probe(&server).await.ends_with("ready\n"));
    let mut byte = [0];
    let oldest = crowd[0].read(&mut byte).await;
    assert!(matches!(oldest, Ok(0) | Err(_)), "the oldest made room");
}

#[tokio::test]
async fn head_that_does_not_arrive_ends_the_connection() {
    let _trace = meshwright_testkit::trace();
    let limits = ServerLimits {
        head: Duration::from_millis(50),
        ..ServerLimits::default()
    };
    let server = server(limits).await;
    for head in ["", "GET /healthz/ready HTTP/1.1\r\nx: "] {
        let mut stream = TcpStream::connect(server.addresses()[0]).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // Ends by itself: otherwise this test would never end.
        drop(stream.read_to_end(&mut answer).await);
    }
}

#[tokio::test]
async fn port_that_is_taken_is_named() {
    let _trace = meshwright_testkit::trace();
    let server = server(ServerLimits::default()).await;
    let address = server.addresses()[0];
    let error = bind(address).await.unwrap_err();
    assert_eq!(error.to_string(), format!("could not listen on {address}"));
    meshwright_testkit::assert_chain_says_each_thing_once(&error);
}
