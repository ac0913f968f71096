//! Requests through the layer, and the spans in the bytes that a collector would get.

#[cfg(feature = "tracing")]
#[path = "host_spans_tests.rs"]
mod host_spans;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_executor::block_on;
use http_body_util::{BodyExt, Full};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tower_layer::Layer as _;
use tower_service::Service as _;

use super::attribute;
use super::exporter::Exporter;
use super::traces::SpanEncoder;
use crate::config::traces::Sampling;
use crate::export::openmetrics;
use crate::instrument::cache::{Cache, CacheClass, Tier};
use crate::instrument::query::{Query, QueryLabels};
use crate::instrument::request::Requests;
use crate::instrument::request_layer::HttpLayer;
use crate::instrument::routes::Routes;
use crate::instrument::scope::{in_request, set_route};
use crate::instrument::traces::inject_trace_context;
use crate::store::Store;
use crate::store::metrics::TraceContext;
use crate::store::traces::tests::dropped;

const LABELS: QueryLabels = QueryLabels {
    system: "sqlite",
    namespace: "main",
    operation: "SELECT",
    collection: "content",
    summary: "SELECT content by id",
};

/// Nothing is kept but what failed or took a second.
const FAILED_OR_SLOW: f64 = 0.0;

struct Host {
    store: Arc<Store>,
    layer: HttpLayer,
}

impl Host {
    fn new(ratio: f64, slow: Duration) -> Self {
        let store = Arc::new(Store::new(10_000));
        let sampling = Sampling {
            slow: Some(slow),
            ..Sampling::new(true, ratio)
        };
        store.traces.start(sampling, true, &store.metrics);
        let routes = Arc::new(Routes::new(Arc::clone(&store)));
        let layer = HttpLayer::new(Arc::new(Requests::new(Arc::clone(&store), routes)));
        Self { store, layer }
    }

    /// One request, answered by `work` with a status.
    fn request(&self, headers: &[(&str, &str)], work: impl AsyncFn() -> u16) {
        let answer = async |_: http::Request<()>| {
            let status = work().await;
            let response = http::Response::builder().status(status);
            Ok::<_, Infallible>(response.body(Full::new(&b"body"[..])).unwrap())
        };
        let mut service = self.layer.layer(tower::service_fn(answer));
        let mut request = http::Request::get("/content/7?page=2&token=t0p");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answered = service.call(request.body(()).unwrap());
        block_on(async { drop(answered.await.unwrap().into_body().collect().await.unwrap()) });
    }

    /// The spans of all messages for what is kept.
    fn spans(&self) -> Vec<Span> {
        let resource = Resource {
            attributes: vec![attribute("service.name", "shop")],
            ..Resource::default()
        };
        let exporter = Exporter::of_spans(&self.store, &resource).unwrap();
        let mut encoder = SpanEncoder::new(&exporter, &self.store.traces.sites);
        let mut messages = Vec::new();
        self.store.traces.drain(|trace, spans| {
            messages.extend(encoder.add(trace, spans));
        });
        messages.extend(encoder.message());
        let read = messages.into_iter().flat_map(|message| {
            assert!(message.body.len() < 4 << 20);
            let decoded = ExportTraceServiceRequest::decode(&*message.body).unwrap();
            let [of] = &decoded.resource_spans[..] else {
                panic!("{} resources", decoded.resource_spans.len());
            };
            assert_eq!(of.resource.as_ref(), Some(&resource));
            let spans = of.scope_spans[0].spans.clone();
            assert_eq!(spans.len() as u64, message.items);
            spans
        });
        read.collect()
    }

    fn dropped(&self, reason: &str) -> u64 {
        dropped(&self.store.metrics, reason)
    }
}

/// The attributes of a span as texts.
fn said(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|one| one.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{other:?}"),
    }
}

fn root(spans: &[Span]) -> &Span {
    spans.iter().find(|span| span.kind == 2).unwrap()
}

#[test]
fn a_failed_request_is_one_trace_with_its_query_and_its_cache_lookup() {
    let host = Host::new(FAILED_OR_SLOW, Duration::from_secs(1));
    let query = Query::new(&host.store, LABELS, Duration::from_secs(1));
    let cache = Cache::new(&host.store, "content", Tier::L2);
    let route = Routes::new(Arc::clone(&host.store)).get("/content/{id}");
    host.request(&[], async || 200);
    host.request(&[], async || {
        set_route(&route);
        cache.get().miss(CacheClass::Public);
        let load = cache.load();
        query.start().ok(3);
        query.start().failed("timeout");
        load.done(CacheClass::Public);
        503
    });
    let spans = host.spans();
    let names: Vec<&str> = spans.iter().map(|span| &*span.name).collect();
    let expected = [
        "GET /content/{id}",
        "cache get content l2",
        "SELECT content by id",
        "SELECT content by id",
        "cache load content l2",
    ];
    assert_eq!(names, expected);
    let root = root(&spans);
    assert_eq!(root.status.as_ref().unwrap().code, 2);
    let told = [
        ("http.request.method", "GET"),
        ("http.route", "/content/{id}"),
        ("http.response.status_code", "503"),
        ("http.response.body.size", "4"),
        ("error.type", "503"),
        ("keep.reason", "error"),
        ("url.scheme", "http"),
        ("url.path", "/content/7"),
        ("url.query", "page=2&token=REDACTED"),
    ];
    for (key, value) in told {
        assert_eq!(said(root, key).as_deref(), Some(value), "{key}");
    }
    assert!(
        root.parent_span_id.is_empty() && root.flags == 0x102,
        "{root:?}"
    );
    let mut ids: Vec<&[u8]> = spans.iter().map(|span| &*span.span_id).collect();
    for child in &spans[1..] {
        assert_eq!(child.trace_id, root.trace_id);
        assert_eq!(child.parent_span_id, root.span_id);
        assert!(child.start_time_unix_nano >= root.start_time_unix_nano);
        assert!(child.end_time_unix_nano <= root.end_time_unix_nano);
        assert_eq!(child.kind, 3, "a client's");
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 5);
    assert_eq!(said(&spans[1], "cache.result").as_deref(), Some("miss"));
    assert_eq!(
        said(&spans[2], "db.response.returned_rows").as_deref(),
        Some("3")
    );
    assert_eq!(said(&spans[2], "db.system.name").as_deref(), Some("sqlite"));
    assert_eq!(said(&spans[3], "error.type").as_deref(), Some("timeout"));
    assert_eq!(spans[3].status.as_ref().unwrap().code, 2);
    assert!(host.spans().is_empty(), "sent once");
}

#[test]
fn the_callers_trace_goes_on_and_out_again() {
    let host = Host::new(FAILED_OR_SLOW, Duration::from_secs(1));
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let came = format!("00-{trace}-b7ad6b7169203331-01");
    let headers = [
        ("traceparent", &*came),
        ("tracestate", "a=1"),
        ("tracestate", "b=2"),
        ("baggage", "user=7"),
    ];
    let sent = std::cell::RefCell::new(Vec::new());
    host.request(&headers, async || {
        inject_trace_context(|name, value| sent.borrow_mut().push((name, value.to_owned())));
        200
    });
    let spans = host.spans();
    let root = root(&spans);
    assert_eq!(
        root.trace_id,
        0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes()
    );
    assert_eq!(root.parent_span_id, 0xb7ad_6b71_6920_3331_u64.to_be_bytes());
    assert_eq!(root.trace_state, "a=1,b=2");
    assert_eq!(said(root, "keep.reason").as_deref(), Some("parent"));
    let own: String = root
        .span_id
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let expected = [
        ("traceparent", format!("00-{trace}-{own}-01")),
        ("tracestate", "a=1,b=2".to_owned()),
        ("baggage", "user=7".to_owned()),
    ];
    assert_eq!(*sent.borrow(), expected);
    sent.borrow_mut().clear();
    host.request(
        &[
            ("traceparent", &came.replace("-01", "-xx")),
            ("tracestate", "a=1"),
            ("baggage", "no"),
        ],
        async || {
            inject_trace_context(|name, value| sent.borrow_mut().push((name, value.to_owned())));
            500
        },
    );
    let spans = host.spans();
    let [(name, value)] = &sent.borrow()[..] else {
        panic!("{sent:?}");
    };
    assert_eq!(*name, "traceparent");
    let (context, flags) = TraceContext::from_traceparent(value).unwrap();
    assert_eq!(flags, 2, "kept for what happened later");
    assert_eq!(spans[0].trace_id, context.trace_id.to_be_bytes());
    assert_eq!(spans[0].span_id, context.span_id.to_be_bytes());
}

#[test]
fn children_beyond_64_are_counted_and_tasks_write_into_their_request() {
    let host = Host::new(FAILED_OR_SLOW, Duration::from_secs(1));
    let query = Query::new(&host.store, LABELS, Duration::from_secs(1));
    host.request(&[], async || {
        (0..70).for_each(|_| query.start().ok(1));
        500
    });
    host.request(&[], async || {
        let work = in_request(async { query.start().ok(2) });
        std::thread::scope(|threads| drop(threads.spawn(|| block_on(work)).join()));
        500
    });
    let spans = host.spans();
    let roots: Vec<&Span> = spans.iter().filter(|span| span.kind == 2).collect();
    let children = |root: &Span| {
        spans
            .iter()
            .filter(|span| span.parent_span_id == root.span_id)
            .count()
    };
    assert_eq!(children(roots[0]), 64);
    assert_eq!(
        said(roots[0], "dropped_children_count").as_deref(),
        Some("6")
    );
    assert_eq!(children(roots[1]), 1);
    assert_eq!(host.dropped("children"), 6);
}

#[test]
fn the_exemplar_of_a_slow_request_is_its_kept_trace_and_others_leave_none() {
    let host = Host::new(FAILED_OR_SLOW, Duration::ZERO);
    let idle = Host::new(FAILED_OR_SLOW, Duration::from_secs(1));
    let page = |host: &Host| {
        let mut page = Vec::new();
        openmetrics::encode(&host.store.metrics.snapshot(), &[], &mut page);
        String::from_utf8(page).unwrap()
    };
    idle.request(&[], async || 200);
    assert!(!page(&idle).contains("# {"));
    host.request(&[], async || 200);
    let spans = host.spans();
    assert_eq!(said(&spans[0], "keep.reason").as_deref(), Some("slow"));
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let (trace, span) = (hex(&spans[0].trace_id), hex(&spans[0].span_id));
    let exemplar = format!("# {{trace_id=\"{trace}\",span_id=\"{span}\"}}");
    assert!(page(&host).contains(&exemplar), "{exemplar}");
}

#[test]
fn a_full_ring_drops_and_counts_every_span_and_takes_new_ones_once_drained() {
    let host = Host::new(1.0, Duration::from_secs(1));
    let query = Query::new(&host.store, LABELS, Duration::from_secs(1));
    let requests = 3_000_u64;
    let serve = || {
        (0..requests).for_each(|_| {
            host.request(&[], async || {
                query.start().ok(1);
                200
            });
        });
    };
    serve();
    let first = host.spans().len() as u64;
    let dropped = host.dropped("ring_full");
    assert!(dropped > 0);
    assert_eq!(first + dropped, 2 * requests);
    assert_eq!(host.store.traces.kept_bytes(), 0);
    serve();
    let second = host.spans().len() as u64;
    assert!(second > 0);
    assert_eq!(first + second + host.dropped("ring_full"), 4 * requests);
}

#[test]
fn a_long_target_is_cut_between_characters() {
    let host = Host::new(1.0, Duration::from_secs(1));
    let mut service = host
        .layer
        .layer(tower::service_fn(async |_: http::Request<()>| {
            Ok::<_, Infallible>(http::Response::new(Full::new(&b""[..])))
        }));
    let uri = format!("/{}?q={}", "a".repeat(1_500), "b".repeat(5_000));
    let answered = service.call(http::Request::get(uri).body(()).unwrap());
    block_on(async { drop(answered.await.unwrap().into_body().collect().await.unwrap()) });
    let spans = host.spans();
    assert_eq!(said(&spans[0], "url.path").unwrap().len(), 1_024);
    assert!(said(&spans[0], "url.query").unwrap().len() < 1_024);
    assert_eq!(spans[0].name, "GET");
}

proptest::proptest! {
    #[test]
    fn no_span_is_longer_in_a_message_than_was_reckoned(
        texts in proptest::collection::vec(".{0,400}", 0..12),
        number in proptest::prelude::any::<i64>(),
        flags in proptest::prelude::any::<u8>(),
    ) {
        use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId};
        use opentelemetry::KeyValue;
        use std::time::UNIX_EPOCH;

        let state = "vendor=value,other=1".parse().unwrap();
        let (trace_id, span_id) = (TraceId::from(u128::MAX), SpanId::from(u64::MAX));
        let of_texts = texts.iter().map(|text| KeyValue::new(text.clone(), text.clone()));
        let span = opentelemetry_sdk::trace::SpanData {
            span_context: SpanContext::new(trace_id, span_id, TraceFlags::new(flags), false, state),
            parent_span_id: span_id,
            parent_span_is_remote: true,
            span_kind: SpanKind::Client,
            name: texts.concat().into(),
            start_time: UNIX_EPOCH + Duration::from_nanos(u64::MAX),
            end_time: UNIX_EPOCH + Duration::from_nanos(u64::MAX),
            attributes: of_texts.chain([KeyValue::new("number", number)]).collect(),
            dropped_attributes_count: u32::MAX,
            events: opentelemetry_sdk::trace::SpanEvents::default(),
            links: opentelemetry_sdk::trace::SpanLinks::default(),
            status: Status::error(""),
            instrumentation_scope: opentelemetry::InstrumentationScope::default(),
        };
        let reckoned = super::traces::most_bytes(&span);
        let bytes = Span::from(span).encoded_len();
        // A tag and the length before it.
        proptest::prop_assert!(bytes + 5 <= reckoned, "{} of {}", bytes, reckoned);
    }
}
