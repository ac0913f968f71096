//! Where requests wait, as the block profile shows it.

use std::future::{Future as _, poll_fn};
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::MatchedPath;
use axum::routing::get as on_get;
use futures_executor::block_on;
use streamgate_agent::{Agent, AgentHandle, CacheClass, QueryLabels, Request, Tier, awaiting};
use tokio::time::sleep;
use tower::{Layer, ServiceExt};

pub(crate) const LABELS: QueryLabels = QueryLabels {
    system: "sqlite",
    namespace: "main",
    operation: "SELECT",
    collection: "content",
    summary: "SELECT content by id",
};

pub(crate) fn page(agent: &AgentHandle, target: &str) -> (u16, String) {
    let request = Request::new("GET", target).header("host", "localhost");
    let reply = block_on(agent.respond(request));
    let body = String::from_utf8_lossy(reply.body()).into_owned();
    (reply.status(), body)
}

/// Stacks and their nanoseconds.
fn folded(agent: &AgentHandle) -> Vec<(String, u64)> {
    let (status, body) = page(agent, "/debug/pprof/block?format=folded");
    assert_eq!(status, 200, "{body}");
    let lines = body.lines().map(|line| line.rsplit_once(' ').unwrap());
    lines
        .map(|(stack, nanos)| (stack.to_owned(), nanos.parse().unwrap()))
        .collect()
}

fn nanos(folded: &[(String, u64)], stack: &str) -> u64 {
    let found = folded.iter().find(|line| line.0 == stack);
    found
        .unwrap_or_else(|| panic!("no {stack} in {folded:?}"))
        .1
}

/// Serves requests of an app below the agent's layer, one after the other.
pub(crate) async fn serve(agent: &AgentHandle, app: Router, paths: &[&str]) {
    let layer = agent
        .http_layer()
        .matched_path(|extensions| extensions.get::<MatchedPath>().map(MatchedPath::as_str));
    let app = app.layer(layer);
    for path in paths {
        let request = axum::http::Request::get(*path).body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        axum::body::to_bytes(response.into_body(), 1 << 20)
            .await
            .unwrap();
    }
}

pub(crate) fn agent() -> AgentHandle {
    let test = Agent::builder("test").no_listener().recorder(0);
    test.start().unwrap()
}

#[tokio::test]
async fn delays_of_two_kinds_of_requests_stand_as_they_slept() {
    let agent = agent();
    let app = Router::new()
        .route("/short", on_get(|| sleep(Duration::from_millis(30))))
        .route(
            "/long/{id}",
            on_get(|| awaiting("long sleep", sleep(Duration::from_millis(70)))),
        );
    let requests = ["/short", "/long/1"].repeat(10);
    serve(&agent, app, &requests).await;
    let seen = folded(&agent);
    let short = nanos(&seen, "/short;[other]") as f64;
    let long = nanos(&seen, "/long/{id};long sleep") as f64;
    let share = short / (short + long);
    assert!((share - 0.3).abs() < 0.02, "{share} of {seen:?}");
    assert!(short >= 0.3e9 && long >= 0.7e9, "{seen:?}");
    let (_, text) = page(&agent, "/debug/pprof/block?debug=1");
    assert!(text.contains(" s, 10 waits, 0.0"), "{text}");
    assert!(text.contains("#\tlong sleep\n#\t/long/{id}\n"), "{text}");
}

#[tokio::test]
async fn guards_stand_in_the_order_in_which_they_were_opened() {
    let agent = agent();
    let (query, cache) = (agent.query(LABELS), agent.cache("content", Tier::L1));
    let pool = agent.pool("main");
    let handler = move || {
        let (query, cache, pool) = (query.clone(), cache.clone(), pool.clone());
        async move {
            let lookup = cache.get();
            let wait = pool.wait();
            sleep(Duration::from_millis(1)).await;
            let held = wait.acquired();
            let run = query.start();
            sleep(Duration::from_millis(1)).await;
            run.ok(1);
            lookup.miss(CacheClass::Public);
            drop(held);
            let load = cache.load();
            // Opened before it and ended after: overlap is no nesting.
            let task = tokio::spawn(streamgate_agent::in_request(async move {
                let run = query.start();
                sleep(Duration::from_millis(2)).await;
                run.ok(1);
            }));
            task.await.unwrap();
            load.done(CacheClass::Public);
            sleep(Duration::from_millis(1)).await;
        }
    };
    serve(&agent, Router::new().route("/c", on_get(handler)), &["/c"]).await;
    let seen = folded(&agent);
    let stacks: Vec<&str> = seen.iter().map(|line| &*line.0).collect();
    assert_eq!(
        stacks,
        [
            "/c;[other]",
            "/c;cache get content l1;pool acquire main",
            "/c;cache get content l1;query SELECT content by id",
            "/c;cache load content",
            "/c;cache load content;[in_request];query SELECT content by id",
        ]
    );
}

#[tokio::test]
async fn a_request_that_is_given_up_waited_for_what_it_had_open() {
    let agent = agent();
    let layer = agent.http_layer();
    let never = tower::service_fn(|_: axum::http::Request<Body>| async {
        awaiting("an answer", std::future::pending::<()>()).await;
        Ok::<_, std::convert::Infallible>(axum::http::Response::new(Body::empty()))
    });
    let request = axum::http::Request::get("/").body(Body::empty()).unwrap();
    let mut answer = Box::pin(layer.layer(never).oneshot(request));
    // Its wait begins before the 20 ms do, however busy the machine is.
    let waits = poll_fn(|context| Poll::Ready(answer.as_mut().poll(context).is_pending()));
    assert!(waits.await);
    sleep(Duration::from_millis(20)).await;
    drop(answer);
    let seen = folded(&agent);
    assert!(
        nanos(&seen, "<unmatched>;an answer") >= 20_000_000,
        "{seen:?}"
    );
    assert_eq!(seen.len(), 1, "{seen:?}");
}

#[tokio::test]
async fn a_block_profile_of_seconds_leaves_out_what_was_before() {
    let agent = agent();
    let app = || {
        Router::new()
            .route("/before", on_get(|| sleep(Duration::from_millis(5))))
            .route("/after", on_get(|| sleep(Duration::from_millis(5))))
    };
    serve(&agent, app(), &["/before"]).await;
    let target = "/debug/pprof/block?seconds=1&format=folded";
    let request = Request::new("GET", target).header("host", "localhost");
    let reading = tokio::spawn(agent.respond(request));
    while !reading.is_finished() {
        serve(&agent, app(), &["/after"]).await;
    }
    let reply = reading.await.unwrap();
    let body = String::from_utf8_lossy(reply.body()).into_owned();
    assert!(body.contains("/after;[other] "), "{body}");
    assert!(!body.contains("/before"), "{body}");
    let (status, svg) = page(&agent, "/debug/flamegraph?type=await");
    assert_eq!(status, 200);
    assert!(svg.contains("/before") && svg.contains("<svg"));
    let (status, text) = page(&agent, "/debug/flamegraph?type=sleep");
    assert_eq!(status, 400);
    assert!(text.contains("type must be cpu|wall|await"), "{text}");
}
