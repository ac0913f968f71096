//! `streamgate bench` as a process, against services that behave in known ways.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failing support function fails its test"
)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::process::Command;

/// A service that answers like StreamGate, with what it saw.
#[derive(Debug, Default)]
struct Seen {
    requests: AtomicU64,
    connections: AtomicU64,
    http2: AtomicU64,
    traced: AtomicU64,
    conditional: AtomicU64,
    with_cursor: AtomicU64,
    patched: AtomicU64,
    not_gzip: AtomicU64,
}

/// How the service behaves.
#[derive(Debug, Clone, Copy, Default)]
struct Manner {
    /// Answers nothing in this span after the first request.
    stall: Option<(Duration, Duration)>,
    /// Status of every answer.
    status: Option<u16>,
    /// Closes the connection after each answer.
    close: bool,
}

async fn service(manner: Manner) -> (SocketAddr, Arc<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Seen::default());
    let state = Arc::clone(&seen);
    tokio::spawn(async move {
        let begin = Arc::new(std::sync::OnceLock::new());
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            state.connections.fetch_add(1, Ordering::Relaxed);
            let (state, begin) = (Arc::clone(&state), Arc::clone(&begin));
            tokio::spawn(async move {
                let answer = service_fn(move |request| {
                    let (state, begin) = (Arc::clone(&state), Arc::clone(&begin));
                    async move {
                        let begin = *begin.get_or_init(Instant::now);
                        Ok::<_, Infallible>(answer(request, manner, begin, &state).await)
                    }
                });
                drop(
                    auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), answer)
                        .await,
                );
            });
        }
    });
    (address, seen)
}

async fn answer(
    request: Request<Incoming>,
    manner: Manner,
    begin: Instant,
    seen: &Seen,
) -> Response<Full<Bytes>> {
    let count =
        |counter: &AtomicU64, yes: bool| counter.fetch_add(u64::from(yes), Ordering::Relaxed);
    let headers = request.headers();
    let query = request.uri().query().unwrap_or_default();
    count(&seen.requests, true);
    count(&seen.http2, request.version() == Version::HTTP_2);
    count(
        &seen.traced,
        headers
            .get("traceparent")
            .is_some_and(|value| value.to_str().unwrap().ends_with("-01")),
    );
    count(&seen.conditional, headers.contains_key("if-none-match"));
    count(&seen.with_cursor, query.contains("cursor=next"));
    count(&seen.not_gzip, headers.get("accept-encoding").is_none());
    if let Some((from, length)) = manner.stall {
        let now = begin.elapsed();
        if now >= from && now < from + length {
            tokio::time::sleep(from + length - now).await;
        }
    }
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let tag = headers
        .get("if-match")
        .or(headers.get("if-none-match"))
        .cloned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut response = Response::new(Full::default());
    *response.status_mut() = match (method, path.as_str()) {
        (Method::POST, "/v1/content") => {
            assert!(serde_json::from_slice::<Value>(&body).unwrap()["title"].is_string());
            StatusCode::CREATED
        }
        (Method::POST, "/v1/content:batch") => {
            assert_eq!(
                serde_json::from_slice::<Value>(&body).unwrap()["items"]
                    .as_array()
                    .unwrap()
                    .len(),
                10
            );
            StatusCode::CREATED
        }
        (Method::PATCH, _) => {
            // One in two loses the race against somebody else.
            assert_eq!(tag.unwrap(), "\"7\"");
            let losing = seen
                .patched
                .fetch_add(1, Ordering::Relaxed)
                .is_multiple_of(2);
            if losing {
                StatusCode::PRECONDITION_FAILED
            } else {
                StatusCode::OK
            }
        }
        (Method::GET, _) if tag.is_some() => StatusCode::NOT_MODIFIED,
        (Method::GET, path) => {
            response
                .headers_mut()
                .insert("etag", "\"7\"".parse().unwrap());
            let list = r#"{"items":[],"next":"next"}"#;
            *response.body_mut() = Full::from(if path == "/v1/content" { list } else { "{}" });
            StatusCode::OK
        }
        _ => StatusCode::METHOD_NOT_ALLOWED,
    };
    if let Some(status) = manner.status {
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
    }
    if manner.close {
        response
            .headers_mut()
            .insert("connection", "close".parse().unwrap());
    }
    response
}

async fn bench(url: &str, options: &[&str]) -> (Output, Option<Value>) {
    let output = Command::new(env!("CARGO_BIN_EXE_streamgate"))
        .args([
            "bench",
            "--json",
            "--url",
            url,
            "--users",
            "50",
            "--contents",
            "500",
        ])
        .args(options)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let last = String::from_utf8(output.stdout.clone())
        .unwrap()
        .lines()
        .last()
        .map(str::to_owned);
    let report = last.map(|line| serde_json::from_str(&line).unwrap());
    (output, report)
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_arrival_reaches_the_service_and_is_counted_once() {
    let (address, seen) = service(Manner::default()).await;
    let (output, report) = bench(&url(address), &["--rate", "400", "--duration", "3s"]).await;
    let report = report.unwrap();
    assert_eq!(report["requests"], 1200);
    assert_eq!(report["errors"], 0, "{report}");
    assert_eq!(seen.requests.load(Ordering::Relaxed), 1200);
    let journeys = report["journeys"].as_object().unwrap();
    assert_eq!(
        journeys
            .values()
            .map(|journey| journey["requests"].as_u64().unwrap())
            .sum::<u64>(),
        1200
    );
    // Each way of asking was taken, and what a race explains is told apart from an error.
    for counter in [
        &seen.traced,
        &seen.conditional,
        &seen.with_cursor,
        &seen.patched,
    ] {
        assert!(counter.load(Ordering::Relaxed) > 0, "{seen:?}");
    }
    assert_eq!(
        report["not_modified"].as_u64().unwrap(),
        seen.conditional.load(Ordering::Relaxed)
    );
    assert!(report["precondition_failed"].as_u64().unwrap() > 0);
    assert!(seen.not_gzip.load(Ordering::Relaxed) < 120, "{seen:?}");
    assert!(seen.connections.load(Ordering::Relaxed) <= 64);
    if report["void"] == false {
        assert!(output.status.success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_of_a_second_shows_in_the_percentiles() {
    let stall = Some((Duration::from_millis(1500), Duration::from_secs(1)));
    let (address, _) = service(Manner {
        stall,
        ..Manner::default()
    })
    .await;
    // With four connections a closed loop would see 4 slow answers of thousands.
    let options = [
        "--rate",
        "300",
        "--duration",
        "4s",
        "--connections",
        "4",
        "--mix",
        "read",
    ];
    let (_, report) = bench(&url(address), &options).await;
    let report = report.unwrap();
    assert_eq!(report["errors"], 0, "{report}");
    // A quarter of the arrivals fall into the stall, evenly over 0..1 s of waiting.
    assert!(report["p99_ms"].as_f64().unwrap() > 900.0, "{report}");
    assert!(report["p95_ms"].as_f64().unwrap() > 600.0, "{report}");
    // The wait for a connection is the service's doing and does not void the run.
    assert!(
        report["connection_wait_p99_ms"].as_f64().unwrap() > 500.0,
        "{report}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arrivals_past_the_bound_are_errors_and_none_is_skipped() {
    let stall = Some((Duration::ZERO, Duration::from_secs(1)));
    let (address, seen) = service(Manner {
        stall,
        ..Manner::default()
    })
    .await;
    let options = ["--rate", "200", "--duration", "1s", "--in-flight", "10"];
    let (output, report) = bench(&url(address), &options).await;
    let report = report.unwrap();
    let saturated = report["errors_by_kind"]["client_saturated"]
        .as_u64()
        .unwrap();
    assert_eq!(report["requests"], 200);
    assert_eq!(report["errors"].as_u64().unwrap(), saturated);
    assert!(saturated >= 150, "{report}");
    assert_eq!(seen.requests.load(Ordering::Relaxed), 200 - saturated);
    assert!(!output.status.success());
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("client_saturated"),
        "{output:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unexpected_status_is_an_error_of_its_own_kind() {
    let (address, _) = service(Manner {
        status: Some(503),
        ..Manner::default()
    })
    .await;
    let (output, report) = bench(&url(address), &["--rate", "100", "--duration", "1s"]).await;
    let report = report.unwrap();
    assert_eq!(report["errors_by_kind"]["status_503"], 100, "{report}");
    assert_eq!(report["statuses"]["503"], 100);
    assert!(!output.status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_never_answers_gives_timeouts_and_the_load_still_ends() {
    let stall = Some((Duration::ZERO, Duration::from_secs(3600)));
    let (address, _) = service(Manner {
        stall,
        ..Manner::default()
    })
    .await;
    let options = [
        "--rate",
        "50",
        "--duration",
        "1s",
        "--timeout",
        "300ms",
        "--connections",
        "2",
    ];
    let (_, report) = bench(&url(address), &options).await;
    let report = report.unwrap();
    assert_eq!(report["errors_by_kind"]["timeout"], 50, "{report}");
    assert!(report["p50_ms"].as_f64().unwrap() >= 299.0, "{report}");
    assert_eq!(report["rps"], 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_listening_gives_connect_errors_and_no_latency() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let (_, report) = bench(&url(address), &["--rate", "50", "--duration", "1s"]).await;
    let report = report.unwrap();
    assert_eq!(report["errors_by_kind"]["connect"], 50, "{report}");
    assert!(report["p50_ms"].is_null(), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_the_service_closes_are_replaced_without_an_error() {
    let (address, seen) = service(Manner {
        close: true,
        ..Manner::default()
    })
    .await;
    let (_, report) = bench(&url(address), &["--rate", "200", "--duration", "1s"]).await;
    let report = report.unwrap();
    assert_eq!(report["errors"], 0, "{report}");
    assert_eq!(seen.connections.load(Ordering::Relaxed), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_carries_the_load_on_its_few_connections() {
    let (address, seen) = service(Manner::default()).await;
    let (_, report) = bench(
        &url(address),
        &["--rate", "300", "--duration", "2s", "--http2"],
    )
    .await;
    let report = report.unwrap();
    assert_eq!(report["errors"], 0, "{report}");
    assert_eq!(seen.http2.load(Ordering::Relaxed), 600);
    assert!(seen.connections.load(Ordering::Relaxed) <= 2, "{seen:?}");
}

#[tokio::test]
async fn other_machines_are_refused_before_anything_is_sent() {
    let (output, report) = bench("http://192.0.2.1:8080", &["--duration", "1s"]).await;
    assert!(!output.status.success());
    assert!(report.is_none());
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        message.contains("must be this machine") && message.contains("192.0.2.1"),
        "{message}"
    );
}
