//! Whose CPU time it was: labels of interleaved tasks, and of requests, against the kernel's clocks.
#![cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::float_cmp,
    reason = "tests; sums of samples are whole numbers"
)]

mod sampling;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::MatchedPath;
use axum::routing::get;
use http_body::Frame;
use http_body_util::BodyExt as _;
use sampling::{agent, burn, spin, take};
use streamgate_agent::{AgentHandle, Labels, Request, label};
use tower::ServiceExt as _;

/// The groups of tasks and the CPU time that one turn of each takes.
const GROUPS: [(&str, u64); 4] = [("half", 500), ("third", 300), ("few", 150), ("rest", 50)];
const TASKS: usize = 100;

/// CPU time by group, as the kernel counts it.
type Used = Arc<[AtomicU64; GROUPS.len()]>;

#[inline(never)]
fn labelled_turn(time: Duration) -> Duration {
    burn(time)
}

#[inline(never)]
fn turn_of_a_spawned_task(time: Duration) -> Duration {
    burn(time)
}

#[inline(never)]
fn unlabelled_turn(time: Duration) -> Duration {
    burn(time)
}

fn has(stack: &sampling::Stack, function: &str) -> bool {
    stack.names.iter().any(|name| name.ends_with(function))
}

/// Works in turns until the deadline, between which other tasks of the worker run.
async fn work(place: usize, used: Used, until: Instant) {
    let (_, micros) = GROUPS[place];
    while Instant::now() < until {
        let time = labelled_turn(Duration::from_micros(micros));
        used[place].fetch_add(u64::try_from(time.as_nanos()).unwrap(), Ordering::Relaxed);
        tokio::task::yield_now().await;
    }
}

fn workers() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn interleaved_tasks_are_told_apart_and_nothing_else_is_labelled() {
    let _turn = sampling::serial();
    let agent = agent();
    let runtime = workers();
    let used = Used::default();
    let taking = take(&agent, 499, 4);
    let until = Instant::now() + Duration::from_secs(3);
    let tasks: Vec<_> = (0..TASKS)
        .map(|n| {
            let place = n % GROUPS.len();
            let labels = label("group", GROUPS[place].0);
            runtime.spawn(labels.scope(work(place, Arc::clone(&used), until)))
        })
        .collect();
    // Unlabelled work on the same workers, after tasks with labels and after one that panics.
    let bare = runtime.spawn(async move {
        while Instant::now() < until {
            unlabelled_turn(Duration::from_micros(500));
            tokio::task::yield_now().await;
        }
    });
    let spawned = runtime.spawn(label("group", "spawner").scope(async move {
        let labels = Labels::current();
        let child = tokio::spawn(labels.scope(async {
            turn_of_a_spawned_task(Duration::from_millis(100));
        }));
        child.await.unwrap();
    }));
    let panics = runtime.spawn(label("group", "panics").scope(async {
        labelled_turn(Duration::from_millis(20));
        std::panic::resume_unwind(Box::new("a bug of the host"));
    }));
    runtime.block_on(async {
        for task in tasks {
            task.await.unwrap();
        }
        bare.await.unwrap();
        spawned.await.unwrap();
        assert!(panics.await.unwrap_err().is_panic());
    });
    let profile = taking.profile();

    let by_clock: Vec<f64> = used
        .iter()
        .map(|nanos| Duration::from_nanos(nanos.load(Ordering::Relaxed)).as_secs_f64())
        .collect();
    let by_label: Vec<f64> = GROUPS
        .iter()
        .map(|(group, _)| profile.labelled("group", group))
        .collect();
    let (clock, labels): (f64, f64) = (by_clock.iter().sum(), by_label.iter().sum());
    assert!(labels > 100.0, "{labels} samples");
    for (place, (group, _)) in GROUPS.iter().enumerate() {
        let wanted = 100.0 * by_clock[place] / clock;
        let seen = 100.0 * by_label[place] / labels;
        eprintln!("{group:>6}: {wanted:5.1} % by the kernel's clock, {seen:5.1} % by label");
        // The kernel looks 250 times a second, so two of the 499 stand for one look, and chance alone moves
        // the share of few looks: on a machine that does other work there may be 100 instead of 1500.
        let chance = 400.0 * (wanted / 100.0 * (1.0 - wanted / 100.0) / (labels / 2.0)).sqrt();
        assert!(
            (wanted - seen).abs() < chance.max(5.0),
            "{group}: {seen} instead of {wanted}"
        );
    }
    let bare = profile.sum(|stack| has(stack, "unlabelled_turn"));
    let stained =
        profile.sum(|stack| has(stack, "unlabelled_turn") && stack.labels.contains_key("group"));
    assert!(bare > 10.0, "{bare} samples of unlabelled work");
    assert_eq!(stained, 0.0, "of {bare} samples of unlabelled work");
    let child = profile.sum(|stack| has(stack, "turn_of_a_spawned_task"));
    let carried = profile.sum(|stack| {
        has(stack, "turn_of_a_spawned_task")
            && stack
                .labels
                .get("group")
                .is_some_and(|group| group == "spawner")
    });
    assert!(child > 10.0, "{child} samples of the spawned task");
    assert_eq!(
        carried, child,
        "a scope carries its labels into a spawned task"
    );
    let turns = profile.sum(|stack| has(stack, "labelled_turn") && !has(stack, "unlabelled_turn"));
    let missed = profile.sum(|stack| {
        has(stack, "labelled_turn")
            && !has(stack, "unlabelled_turn")
            && !stack.labels.contains_key("group")
    });
    assert_eq!(missed, 0.0, "of {turns} samples of labelled work");
}

#[inline(never)]
fn work_of_a_handler(time: Duration) -> u64 {
    burn(time);
    spin(7)
}

#[inline(never)]
fn work_of_a_body(time: Duration) -> u64 {
    burn(time);
    spin(9)
}

/// A body that works for each of its pieces after the handler has returned.
struct Working {
    left: u32,
}

impl http_body::Body for Working {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(left) = self.left.checked_sub(1) else {
            return Poll::Ready(None);
        };
        self.left = left;
        let text = work_of_a_body(Duration::from_millis(2)).to_string();
        Poll::Ready(Some(Ok(Frame::data(text.into()))))
    }
}

fn page(agent: &AgentHandle, path: &str) -> String {
    let request = Request::new("GET", path).header("host", "localhost");
    let reply = futures_executor::block_on(agent.respond(request));
    assert_eq!(reply.status(), 200, "{path}");
    String::from_utf8(reply.body().to_vec()).unwrap()
}

/// CPU seconds of a route on the metrics page.
fn route_cpu(page: &str, route: &str) -> f64 {
    let start = format!("http_server_cpu_seconds_total{{http_route=\"{route}\"}} ");
    let mut lines = page.lines();
    let value = lines.find_map(|line| line.strip_prefix(&start));
    value.map_or(0.0, |value| value.parse().unwrap())
}

#[test]
fn samples_of_a_request_carry_its_route_also_those_of_its_body() {
    let _turn = sampling::serial();
    let agent = agent();
    let handler = |time: u64| {
        move || async move {
            work_of_a_handler(Duration::from_millis(time));
            Body::new(Working { left: 5 })
        }
    };
    let observed = agent
        .http_layer()
        .matched_path(|extensions| extensions.get::<MatchedPath>().map(MatchedPath::as_str));
    let app = Router::new()
        .route("/heavy/{id}", get(handler(30)))
        .route("/light", get(handler(10)))
        .layer(observed);
    let runtime = workers();
    let before = page(&agent, "/metrics");
    let taking = take(&agent, 499, 3);
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    runtime.block_on(async {
        for n in 0..25 {
            for path in [format!("/heavy/{n}"), "/light".to_owned()] {
                let request = http::Request::get(path).header("traceparent", trace);
                let request = request.body(Body::empty()).unwrap();
                let response = app.clone().oneshot(request).await.unwrap();
                response.into_body().collect().await.unwrap();
            }
        }
    });
    let profile = taking.profile();
    let after = page(&agent, "/metrics");

    let route = |route: &str| profile.labelled("http_route", route);
    let (heavy, light) = (route("/heavy/{id}"), route("/light"));
    let share = heavy / (heavy + light);
    eprintln!("/heavy/{{id}} {heavy}, /light {light} samples: {share:.3} of 0.667");
    assert!((share - 40.0 / 60.0).abs() < 0.05, "{share}");
    for work in ["work_of_a_handler", "work_of_a_body"] {
        let all = profile.sum(|stack| has(stack, work));
        let labelled = profile.sum(|stack| {
            let is = |key: &str| stack.labels.contains_key(key);
            has(stack, work) && is("http_route") && is("http_request_method")
        });
        assert!(all > 50.0, "{all} samples of {work}");
        assert_eq!(all, labelled, "{work}");
    }
    let traced = profile.sum(|stack| stack.labels.contains_key("trace_id"));
    assert_eq!(
        traced, 0.0,
        "traces multiply the samples: only by labels=span"
    );

    let metric = |path| route_cpu(&after, path) - route_cpu(&before, path);
    for (path, samples) in [("/heavy/{id}", heavy), ("/light", light)] {
        let seconds = metric(path);
        assert!(
            (seconds - samples / 499.0).abs() < 0.02,
            "{path}: {seconds} s on /metrics, {samples} samples"
        );
    }
}
