use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;

use super::super::{Body, ConfigDump, Handler, Stats};
use super::Admin;
use crate::logging::{Filter, LogFormat, Logging};
use crate::metrics::Metrics;
use crate::server::Readiness;

struct Big;

impl ConfigDump for Big {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        for _ in 0..1000 {
            out.write_all(&[b'x'; 1000])?;
        }
        Ok(())
    }
}

fn admin() -> (Admin, Arc<AtomicUsize>) {
    let logging = Logging::new(Filter::default(), LogFormat::Plain);
    let (subscriber, control) = logging.build(io::sink()).unwrap();
    // A filter can be changed only while its subscriber exists.
    std::mem::forget(subscriber);
    let quits = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&quits);
    let quit = move || {
        counted.fetch_add(1, Ordering::Relaxed);
    };
    (Admin::new(Arc::new(Big), control, quit), quits)
}

async fn ask(
    handler: &impl Handler,
    method: &str,
    uri: &str,
    headers: &[(&str, &str)],
) -> (StatusCode, String) {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let answer: Response<Body> = handler.handle(parts).await;
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn dump_is_written_in_pieces_to_its_end() {
    let _trace = meshwright_testkit::trace();
    let (admin, _) = admin();
    let (status, body) = ask(&admin, "GET", "/config_dump", &[]).await;
    assert_eq!((status, body.len()), (StatusCode::OK, 1_000_000));
}

#[tokio::test]
async fn log_level_is_shown_changed_and_reset_as_istioctl_asks() {
    let _trace = meshwright_testkit::trace();
    let (admin, _) = admin();
    let local = [("host", "localhost:15000")];
    let post = async |uri: &str| ask(&admin, "POST", uri, &local).await;
    assert_eq!(
        post("/logging").await,
        (StatusCode::OK, "current log level is info\n".into())
    );
    let (status, body) = post("/logging?level=access%3Ddebug,h2=off").await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        body.contains("access=debug") && body.contains("h2=off"),
        "{body}"
    );
    let (status, _) = post("/logging?level=access:debug").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(
        post("/logging?level=info&reset").await,
        (StatusCode::OK, "current log level is info\n".into())
    );
    let (status, _) = ask(&admin, "GET", "/logging?level=debug", &local).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn nothing_shuts_down_by_get_or_from_a_web_page() {
    let _trace = meshwright_testkit::trace();
    let (admin, quits) = admin();
    let refused = [
        ("GET", vec![]),
        ("HEAD", vec![]),
        ("POST", vec![("origin", "http://evil.example")]),
        ("POST", vec![("origin", "null")]),
        ("POST", vec![("origin", "http://localhost:15000")]),
        ("POST", vec![("host", "evil.example")]),
        ("POST", vec![("host", "localhost.evil.example:15000")]),
        ("POST", vec![("host", "127.0.0.1.evil.example")]),
        ("POST", vec![("host", "10.0.0.1:15000")]),
        ("POST", vec![("host", "evil@localhost")]),
        (
            "POST",
            vec![("host", "localhost"), ("host", "evil.example")],
        ),
        ("POST", vec![("host", "")]),
    ];
    for (method, headers) in refused {
        let (status, _) = ask(&admin, method, "/quitquitquit", &headers).await;
        assert!(status.is_client_error(), "{method} {headers:?}: {status}");
    }
    assert_eq!(quits.load(Ordering::Relaxed), 0);
    for host in ["localhost", "127.0.0.1:15000", "[::1]:15000", "LOCALHOST:1"] {
        let (status, body) = ask(&admin, "POST", "/quitquitquit", &[("host", host)]).await;
        assert_eq!(
            (status, body.as_str()),
            (StatusCode::OK, "shutdown now\n"),
            "{host}"
        );
    }
    assert_eq!(quits.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn probe_is_told_what_is_pending() {
    let _trace = meshwright_testkit::trace();
    let readiness = Readiness::new();
    let first = readiness.block("state manager");
    let second = readiness.block("proxy");
    let third = readiness.block("proxy");
    let probe = async || ask(&readiness, "GET", "/healthz/ready", &[]).await;
    assert_eq!(
        probe().await,
        (
            StatusCode::INTERNAL_SERVER_ERROR,
            "not ready, pending: proxy, state manager\n".into()
        )
    );
    drop((first, second));
    assert_eq!(probe().await.1, "not ready, pending: proxy\n");
    drop(third);
    assert_eq!(probe().await, (StatusCode::OK, "ready\n".into()));
    let post = ask(&readiness, "POST", "/healthz/ready", &[]).await;
    assert_eq!(post.0, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(
        ask(&readiness, "GET", "/", &[]).await.0,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn metrics_have_the_type_that_is_accepted() {
    let _trace = meshwright_testkit::trace();
    let stats = Stats::new(Arc::new(Metrics::new("ztunnel", "unknown")));
    let prometheus =
        "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    for (path, accept, expected) in [
        ("/metrics", "*/*", "text/plain; charset=utf-8"),
        (
            "/stats/prometheus",
            prometheus,
            "application/openmetrics-text;charset=utf-8;version=1.0.0",
        ),
    ] {
        let request = Request::builder().uri(path).header("accept", accept);
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let answer = stats.handle(parts).await;
        assert_eq!(answer.headers()["content-type"], expected);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(body.ends_with(b"# EOF\n"));
    }
    assert_eq!(ask(&stats, "GET", "/", &[]).await.0, StatusCode::NOT_FOUND);
}
