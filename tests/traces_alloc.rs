//! A traced request that is not kept allocates nothing that an untraced one does not.
#![cfg(all(feature = "otlp", feature = "http"))]
#![allow(unsafe_code, clippy::unwrap_used, reason = "tests")]

mod counting;

use std::convert::Infallible;
use std::time::Duration;

use counting::ALLOCATIONS;
use futures_executor::block_on;
use http_body_util::{BodyExt as _, Full};
use streamgate_agent::{Agent, AgentHandle, CacheClass, Otlp, QueryLabels, Tier};
use tower::{Layer as _, Service as _};

const LABELS: QueryLabels = QueryLabels {
    system: "sqlite",
    namespace: "main",
    operation: "SELECT",
    collection: "content",
    summary: "SELECT content by id",
};

fn agent(ratio: Option<f64>) -> AgentHandle {
    let agent = Agent::builder("test").no_listener().profiling(false);
    let Some(ratio) = ratio else {
        return agent.start().unwrap();
    };
    // Nobody listens there: what is kept waits.
    let otlp = Otlp::to("http://127.0.0.1:9").unwrap();
    let otlp = otlp.slow_request(Duration::from_secs(3_600));
    agent
        .otlp(otlp.trace_ratio(ratio).unwrap())
        .start()
        .unwrap()
}

/// Calls of the allocator by 100 requests once 100 have been served.
fn allocations(agent: &AgentHandle) -> u64 {
    let (query, cache) = (agent.query(LABELS), agent.cache("content", Tier::L1));
    let mut service = agent
        .http_layer()
        .layer(tower::service_fn(|_: http::Request<()>| {
            (0..5).for_each(|_| {
                cache.get().miss(CacheClass::Public);
                query.start().ok(1);
            });
            let answer = http::Response::new(Full::new(&b"content"[..]));
            std::future::ready(Ok::<_, Infallible>(answer))
        }));
    let mut serve = || {
        (0..100).for_each(|_| {
            let request = http::Request::get("/content/7?page=2");
            let request = request
                .header(
                    "traceparent",
                    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
                )
                .header("tracestate", "a=1")
                .header("baggage", "user=7");
            let answered = service.call(request.body(()).unwrap());
            block_on(async { drop(answered.await.unwrap().into_body().collect().await.unwrap()) });
        });
    };
    serve();
    let before = ALLOCATIONS.get();
    serve();
    ALLOCATIONS.get() - before
}

#[test]
fn a_traced_request_allocates_nothing_that_an_untraced_one_does_not() {
    let untraced = allocations(&agent(None));
    assert_eq!(allocations(&agent(Some(0.0))), untraced);
}
