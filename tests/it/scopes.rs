//! The requests that are open now, as the goroutine profile shows them.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get as on_get;
use streamgate_agent::{AgentHandle, Tier, awaiting, in_request};
use tokio::sync::{Notify, Semaphore};
use tower::{Layer, ServiceExt};

use crate::awaits::{LABELS, agent, page, serve};

/// An app whose requests stay open until they are let go.
#[derive(Clone)]
struct Gate {
    inside: Arc<Semaphore>,
    open: Arc<Notify>,
}

impl Gate {
    fn new() -> Self {
        Self {
            inside: Arc::new(Semaphore::new(0)),
            open: Arc::new(Notify::new()),
        }
    }

    /// Waits until it is opened.
    async fn pass(self) {
        let opened = self.open.notified();
        tokio::pin!(opened);
        opened.as_mut().enable();
        self.inside.add_permits(1);
        opened.await;
    }

    /// Waits until so many wait inside.
    async fn filled(&self, count: u32) {
        self.inside.acquire_many(count).await.unwrap().forget();
    }
}

fn app(agent: &AgentHandle, gate: &Gate) -> Router {
    let query = agent.query(LABELS);
    let cache = agent.cache("content", Tier::L1);
    let loading = gate.clone();
    let load = move || {
        let (gate, query, cache) = (loading.clone(), query.clone(), cache.clone());
        async move {
            let _load = cache.load();
            let _run = query.start();
            gate.pass().await;
        }
    };
    let bare = gate.clone();
    let named = gate.clone();
    let task = gate.clone();
    Router::new()
        .route("/load/{id}", on_get(load))
        .route("/bare", on_get(move || bare.clone().pass()))
        .route(
            "/named",
            on_get(move || awaiting("an <answer>", named.clone().pass())),
        )
        .route(
            "/task",
            on_get(move || {
                let work = tokio::spawn(in_request(task.clone().pass()));
                async move { awaiting("its task", work).await.unwrap() }
            }),
        )
}

fn folded(agent: &AgentHandle, more: &str) -> Vec<String> {
    let (status, body) = page(
        agent,
        &format!("/debug/pprof/goroutine?format=folded{more}"),
    );
    assert_eq!(status, 200, "{body}");
    let mut lines: Vec<String> = body.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn open_requests_are_shown_with_what_they_wait_for_until_they_end() {
    let (agent, gate) = (Arc::new(agent()), Gate::new());
    assert_eq!(folded(&agent, ""), [""; 0]);
    let paths = ["/load/1", "/load/2", "/bare", "/named", "/task"];
    let requests = paths.map(|path| {
        let (agent, app) = (Arc::clone(&agent), app(&agent, &gate));
        tokio::spawn(async move { serve(&agent, app, &[path]).await })
    });
    gate.filled(5).await;
    let wanted = [
        "/bare;[other] 1",
        "/load/{id};cache load content;query SELECT content by id 2",
        "/named;an <answer> 1",
        "/task;[in_request];[other] 1",
        "/task;its task 1",
    ];
    assert_eq!(folded(&agent, ""), wanted);
    assert_eq!(folded(&agent, "&route=/load/{id}"), [wanted[1]]);
    assert_eq!(
        folded(&agent, "&route=/bare&labels=route"),
        ["[GET /bare];/bare;[other] 1"]
    );
    let (_, text) = page(&agent, "/debug/pprof/goroutine?debug=1");
    let first = "goroutine profile: total 6\n2 @\n\
        # labels: {\"http_request_method\":\"GET\", \"http_route\":\"/load/{id}\"}\n\
        #\tquery SELECT content by id\n#\tcache load content\n#\t/load/{id}\n\n1 @\n";
    assert!(text.starts_with(first), "{text}");
    let (_, each) = page(&agent, "/debug/pprof/goroutine?debug=2&route=/task");
    let blocks: Vec<&str> = each.split("\n\n").collect();
    assert!(blocks[0].starts_with("request "), "{each}");
    assert!(blocks[0].contains(" [waiting 0."), "{each}");
    assert!(blocks[0].ends_with("}\nits task\n/task"), "{each}");
    assert!(blocks[1].starts_with("task "), "{each}");
    assert_eq!(blocks.len(), 3, "{each}");
    for format in ["speedscope", "firefox", "svg", "pprof"] {
        let target = format!("/debug/pprof/goroutine?format={format}");
        let (status, body) = page(&agent, &target);
        let built = format != "svg" || cfg!(feature = "flamegraph");
        assert_eq!(status, if built { 200 } else { 501 }, "{body}");
    }

    gate.open.notify_waiters();
    for request in requests {
        request.await.unwrap();
    }
    assert_eq!(folded(&agent, ""), [""; 0]);
    let (_, each) = page(&agent, "/debug/pprof/goroutine?debug=2");
    assert_eq!(each, "no request is open\n");
}

#[tokio::test]
async fn a_response_whose_body_nobody_takes_is_sending_and_a_dropped_one_is_gone() {
    let agent = agent();
    let layer = agent.http_layer();
    let answers = tower::service_fn(|_: axum::http::Request<axum::body::Body>| async {
        Ok::<_, std::convert::Infallible>(axum::http::Response::new(axum::body::Body::from("x")))
    });
    let request = axum::http::Request::post("/").header(
        "traceparent",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    );
    let request = request.body(axum::body::Body::empty()).unwrap();
    let response = layer.layer(answers).oneshot(request).await.unwrap();
    let (_, each) = page(&agent, "/debug/pprof/goroutine?debug=2");
    assert!(each.contains(" [sending, open 0."), "{each}");
    assert!(
        each.contains("\"trace_id\":\"4bf92f3577b34da6a3ce929d0e0e4736\""),
        "{each}"
    );
    assert!(each.ends_with("}\n<unmatched>\n\n"), "{each}");
    drop(response);
    assert_eq!(folded(&agent, ""), [""; 0]);
}

#[tokio::test]
async fn what_the_page_cannot_show_is_refused_with_the_reason() {
    let agent = agent();
    let refused = |more: &str| page(&agent, &format!("/debug/pprof/goroutine?{more}"));
    let (status, text) = refused("seconds=5");
    assert_eq!(status, 400);
    assert_eq!(text, "seconds: this profile shows one moment\n");
    let (status, text) = refused("debug=3");
    assert_eq!((status, &*text), (400, "debug must be 0|1|2 (got \"3\")\n"));
    assert_eq!(refused("diff_ago=60").0, 400);
    let wait = Duration::from_secs(15);
    assert_eq!(agent.shutdown(wait).await.unwrap().still_running, [""; 0]);
}
