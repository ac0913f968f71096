//! What the request layer writes down for every way a request can end, on axum and on warp.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Path};
use axum::routing::{get as on_get, post};
use streamgate_agent::{Agent, AgentHandle, QueryLabels};
use tokio::net::TcpListener;

use crate::agent::eventually;
use crate::client::{get, request};

/// A service on its own runtime thread and the agent that watches it.
struct Service {
    agent: AgentHandle,
    public: String,
}

pub(crate) const LABELS: QueryLabels = QueryLabels {
    system: "sqlite",
    namespace: "main",
    operation: "SELECT",
    collection: "content",
    summary: "SELECT content by id",
};

impl Service {
    fn start() -> Self {
        let test = Agent::builder("test").no_listener().recorder(0);
        let agent = test.start().unwrap();
        let query = agent.query(LABELS);
        let layer = agent
            .http_layer()
            .matched_path(|extensions| extensions.get::<MatchedPath>().map(MatchedPath::as_str));
        let app = Router::new()
            .route(
                "/ok/{id}",
                on_get(|Path(id): Path<String>| async move { id }),
            )
            .route(
                "/fail",
                on_get(|| async { (axum::http::StatusCode::SERVICE_UNAVAILABLE, "no") }),
            )
            .route("/panic", on_get(panicking))
            .route("/slow", on_get(std::future::pending::<String>))
            .route("/stream", on_get(|| async { Body::new(Endless) }))
            .route("/echo", post(|body: String| async move { body }))
            .route(
                "/query",
                on_get(move || {
                    let query = query.clone();
                    async move {
                        query.start().ok(1);
                        query.start().ok(2);
                        "queried"
                    }
                }),
            )
            .layer(layer);
        let (sender, receiver) = std::sync::mpsc::channel::<SocketAddr>();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                sender.send(listener.local_addr().unwrap()).unwrap();
                axum::serve(listener, app).await.unwrap();
            });
        });
        Self {
            agent,
            public: receiver.recv().unwrap().to_string(),
        }
    }

    fn page(&self) -> String {
        let request = streamgate_agent::Request::new("GET", "/metrics").header("host", "localhost");
        let reply = futures_executor::block_on(self.agent.respond(request));
        String::from_utf8(reply.body().to_vec()).unwrap()
    }

    /// Waits for a line that starts with `start` and ends with `end`.
    fn expect(&self, start: &str, end: &str) {
        eventually(&format!("{start} {end}"), || {
            self.page()
                .lines()
                .any(|line| line.starts_with(start) && line.ends_with(end))
        });
    }
}

async fn panicking() -> &'static str {
    panic!("handler bug")
}

/// A body that never ends.
struct Endless;

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        std::task::Poll::Ready(Some(Ok(http_body::Frame::data(Bytes::from_static(
            &[0; 1024],
        )))))
    }
}

const COUNT: &str = "http_server_request_duration_seconds_count";

#[test]
fn finished_requests_are_counted_by_template_method_and_status() {
    let service = Service::start();
    for id in 0..3 {
        assert_eq!(get(&service.public, &format!("/ok/{id}")).status, 200);
    }
    assert_eq!(get(&service.public, "/fail").status, 503);
    assert_eq!(get(&service.public, "/nothing/here").status, 404);
    service.expect(
        &format!(r#"{COUNT}{{http_request_method="GET",http_route="/ok/{{id}}",http_response_status_code="200",url_scheme="http"}}"#),
        " 3",
    );
    service.expect(
        &format!(r#"{COUNT}{{http_request_method="GET",http_route="/fail",http_response_status_code="503",url_scheme="http",error_type="503"}}"#),
        " 1",
    );
    service.expect(
        &format!(r#"{COUNT}{{http_request_method="GET",http_route="<unmatched>","#),
        " 1",
    );
}

#[test]
fn ten_thousand_random_paths_and_methods_add_one_series_each() {
    let service = Service::start();
    let mut stream = TcpStream::connect(&service.public).unwrap();
    let mut sink = stream.try_clone().unwrap();
    let reader = std::thread::spawn(move || std::io::copy(&mut sink, &mut std::io::sink()));
    for n in 0..10_000_u32 {
        let method = if n % 2 == 0 {
            "GET".to_owned()
        } else {
            format!("M{n}")
        };
        let close = if n == 9_999 {
            "connection: close\r\n"
        } else {
            ""
        };
        write!(
            stream,
            "{method} /random/{} HTTP/1.1\r\nhost: x\r\n{close}\r\n",
            n.wrapping_mul(2_654_435_761)
        )
        .unwrap();
    }
    reader.join().unwrap().unwrap();
    let page = service.page();
    let series = page.lines().filter(|line| line.starts_with(COUNT)).count();
    assert_eq!(series, 2, "{page}");
    service.expect(
        &format!(r#"{COUNT}{{http_request_method="_OTHER","#),
        " 5000",
    );
}

#[test]
fn a_panicking_handler_is_no_5xx_but_an_abort_of_its_own_kind() {
    let service = Service::start();
    let mut stream = TcpStream::connect(&service.public).unwrap();
    stream
        .write_all(b"GET /panic HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    let mut rest = Vec::new();
    drop(stream.read_to_end(&mut rest));
    assert!(rest.is_empty());
    service.expect(
        r#"http_server_response_aborted_total{http_route="/panic",reason="panic"}"#,
        " 1",
    );
    service.expect(
        &format!(r#"{COUNT}{{http_request_method="GET",http_route="/panic",url_scheme="http",error_type="panic"}}"#),
        " 1",
    );
}

#[test]
fn a_client_that_leaves_is_an_abort_and_the_request_is_no_longer_active() {
    let service = Service::start();
    let active = r#"http_server_active_requests{http_request_method="GET",url_scheme="http"}"#;
    let mut waiting = TcpStream::connect(&service.public).unwrap();
    waiting
        .write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    service.expect(active, " 1");
    drop(waiting);
    service.expect(active, " 0");
    service.expect(
        r#"http_server_response_aborted_total{http_route="/slow",reason="client"}"#,
        " 1",
    );

    let mut streaming = TcpStream::connect(&service.public).unwrap();
    streaming
        .write_all(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    streaming.read_exact(&mut [0; 4096]).unwrap();
    drop(streaming);
    service.expect(
        r#"http_server_response_aborted_total{http_route="/stream",reason="client"}"#,
        " 1",
    );
}

#[test]
fn bodies_are_measured_and_a_head_request_is_complete() {
    let service = Service::start();
    let text =
        "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
    assert_eq!(request(&service.public, text).body, "hello");
    request(
        &service.public,
        "HEAD /ok/1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    );
    let labels =
        r#"{http_request_method="POST",http_route="/echo",http_response_status_code="200"}"#;
    service.expect(
        &format!("http_server_request_body_size_bytes_sum{labels}"),
        " 5",
    );
    service.expect(
        &format!("http_server_response_body_size_bytes_sum{labels}"),
        " 5",
    );
    service.expect(&format!(r#"{COUNT}{{http_request_method="HEAD",http_route="/ok/{{id}}",http_response_status_code="200",url_scheme="http"}}"#), " 1");
}

#[test]
fn queries_are_counted_per_request_and_timed_by_statement() {
    let service = Service::start();
    assert_eq!(get(&service.public, "/query").status, 200);
    service.expect(r#"db_queries_per_request_sum{http_route="/query"}"#, " 2");
    service.expect(
        "db_client_operation_duration_seconds_count{db_system_name=\"sqlite\"",
        " 2",
    );
    service.expect(
        r#"db_client_response_returned_rows_sum{db_query_summary="SELECT content by id"}"#,
        " 3",
    );
}

#[test]
fn a_sampled_trace_becomes_an_exemplar_in_openmetrics_only() {
    let service = Service::start();
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let text = format!(
        "GET /ok/1 HTTP/1.1\r\nhost: x\r\ntraceparent: 00-{trace}-b7ad6b7169203331-01\r\nconnection: close\r\n\r\n"
    );
    request(&service.public, &text);
    let open = || {
        let request = streamgate_agent::Request::new("GET", "/metrics")
            .header("host", "localhost")
            .header("accept", "application/openmetrics-text; version=1.0.0");
        let reply = futures_executor::block_on(service.agent.respond(request));
        String::from_utf8(reply.body().to_vec()).unwrap()
    };
    eventually("the exemplar is shown", || {
        open().contains(&format!(
            "# {{trace_id=\"{trace}\",span_id=\"b7ad6b7169203331\"}}"
        ))
    });
    assert!(open().ends_with("# EOF\n"));
    assert!(!service.page().contains(trace));
}
