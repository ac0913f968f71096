//! An agent that pushes spans and log records: a slow request and what leads to it, at the collector.

use std::io::Read as _;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::MatchedPath;
use axum::routing::get;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use streamgate_agent::{Agent, AgentHandle, CacheClass, Otlp, Tier};
use tower::ServiceExt as _;

use crate::receiver::{Sent, answers, receiver};
use crate::request::LABELS;

/// A host whose handler asks a cache and a database.
pub(crate) fn host(agent: &AgentHandle) -> Router {
    let (query, cache) = (agent.query(LABELS), agent.cache("content", Tier::L1));
    let handler = async move || {
        cache.get().miss(CacheClass::Public);
        query.start().ok(1);
        "found"
    };
    let layer = agent
        .http_layer()
        .matched_path(|extensions| extensions.get::<MatchedPath>().map(MatchedPath::as_str));
    Router::new()
        .route("/content/{id}", get(handler))
        .layer(layer)
}

pub(crate) fn serve(host: &Router) {
    futures_executor::block_on(async {
        let request = axum::http::Request::get("/content/7?token=t0p")
            .body(Body::empty())
            .unwrap();
        let answer = host.clone().oneshot(request).await.unwrap();
        axum::body::to_bytes(answer.into_body(), 100).await.unwrap();
    });
}

fn page(agent: &AgentHandle) -> String {
    let request = streamgate_agent::Request::new("GET", "/metrics")
        .header("host", "localhost")
        .header("accept", "application/openmetrics-text; version=1.0.0");
    let reply = futures_executor::block_on(agent.respond(request));
    String::from_utf8(reply.body().to_vec()).unwrap()
}

fn spans(sent: &Sent) -> Vec<Span> {
    let mut message = Vec::new();
    let mut unpacked = flate2::read::GzDecoder::new(&*sent.body);
    unpacked.read_to_end(&mut message).unwrap();
    let decoded = ExportTraceServiceRequest::decode(&*message).unwrap();
    let of = &decoded.resource_spans[0];
    let resource = format!("{:?}", of.resource);
    assert!(
        resource.contains("service.name") && resource.contains("\"shop\""),
        "{resource}"
    );
    of.scope_spans[0].spans.clone()
}

#[test]
fn a_slow_request_arrives_with_its_children_and_the_exemplar_points_to_it() {
    let turns = std::iter::repeat_with(|| answers("200 OK", "", &[]));
    let (collector, requests) = receiver(turns);
    let otlp = Otlp::to(&collector).unwrap().trace_ratio(0.0).unwrap();
    let agent = Agent::builder("shop")
        .no_listener()
        .recorder(0)
        .otlp(otlp.slow_request(Duration::ZERO))
        .start()
        .unwrap();
    serve(&host(&agent));
    let page = page(&agent);
    let stopped = agent.shutdown_blocking(Duration::from_secs(10));
    assert_eq!(stopped.still_running, [""; 0]);
    let sent = requests
        .iter()
        .find(|sent| sent.head.starts_with("post /v1/traces"));
    let spans = spans(&sent.unwrap());
    let names: Vec<&str> = spans.iter().map(|span| &*span.name).collect();
    let expected = ["GET /content/{id}", "cache get content l1", LABELS.summary];
    assert_eq!(names, expected);
    let (root, children) = spans.split_first().unwrap();
    assert!(
        children
            .iter()
            .all(|child| child.parent_span_id == root.span_id && child.trace_id == root.trace_id)
    );
    assert!(!format!("{spans:?}").contains("t0p"));
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    let (trace, span) = (hex(&root.trace_id), hex(&root.span_id));
    let exemplar = format!("# {{trace_id=\"{trace}\",span_id=\"{span}\"}}");
    assert!(page.contains(&exemplar), "{exemplar}");
}

#[test]
fn without_spans_wanted_no_request_has_any() {
    let otlp = Otlp::to("http://127.0.0.1:9")
        .unwrap()
        .trace_ratio(0.0)
        .unwrap();
    let agent = Agent::builder("shop")
        .no_listener()
        .recorder(0)
        .otlp(otlp)
        .start()
        .unwrap();
    serve(&host(&agent));
    let stopped = agent.shutdown_blocking(Duration::from_secs(5));
    assert!(stopped.flushed.is_empty(), "{:?}", stopped.flushed);
}
