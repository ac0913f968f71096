//! What a request costs while its spans are kept at the end, or not.
//!
//! Run with `cargo bench -p streamgate-agent --features otlp --bench traces`. No sockets on the request's side:
//! each request is a call of the service and its body read to the end. The handler asks a cache and a
//! database. A collector in this process takes what is pushed.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a bench prints, and stops where its set-up fails"
)]

#[path = "collector.rs"]
mod collector;
#[path = "measure.rs"]
mod measure;

use std::convert::Infallible;
use std::future::Future;
use std::net::TcpListener;
use std::thread;

use futures_executor::block_on;
use http_body_util::{BodyExt, Full};
use measure::{Cost, Row, cost};
use rustix::time::{ClockId, clock_gettime};
use streamgate_agent::{Agent, AgentHandle, Cache, CacheClass, Otlp, Query, QueryLabels, Tier};
use tower::{Layer, Service};

const ROUNDS: usize = 31;
/// As many as a ring holds, so that nothing is dropped however fast this goes.
const REQUESTS: usize = 1_500;
const RATIOS: [f64; 3] = [0.01, 0.1, 1.0];

type Body = Full<&'static [u8]>;

const LABELS: QueryLabels = QueryLabels {
    system: "sqlite",
    namespace: "main",
    operation: "SELECT",
    collection: "content",
    summary: "SELECT content by id",
};

/// What the handler does beside answering.
struct Work {
    query: Query,
    cache: Cache,
}

impl Work {
    fn of(agent: &AgentHandle) -> Self {
        Self {
            query: agent.query(LABELS),
            cache: agent.cache("content", Tier::L1),
        }
    }
}

fn handler(
    work: Option<Work>,
) -> impl Service<
    http::Request<Body>,
    Response = http::Response<Body>,
    Error = Infallible,
    Future = impl Future<Output = Result<http::Response<Body>, Infallible>>,
> + Clone {
    let work = std::sync::Arc::new(work);
    tower::service_fn(move |_| {
        let work = std::sync::Arc::clone(&work);
        async move {
            if let Some(work) = &*work {
                work.cache.get().miss(CacheClass::Public);
                work.query.start().ok(1);
            }
            Ok(http::Response::new(Full::new(&b"content"[..])))
        }
    })
}

fn drive<S, R>(service: &mut S)
where
    S: Service<http::Request<Body>, Response = http::Response<R>>,
    R: http_body::Body,
{
    for _ in 0..REQUESTS {
        let request = http::Request::get("/content/123?page=2");
        let request = request.body(Full::new(&b""[..])).unwrap();
        block_on(async {
            let response = service.call(request).await.ok().unwrap();
            std::hint::black_box(response.into_body().collect().await.ok().unwrap());
        });
    }
}

/// A collector that takes everything.
fn collecting() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || collector::serve(&listener));
    address
}

fn agent(otlp: Option<Otlp>) -> AgentHandle {
    let agent = Agent::builder("bench").no_listener().profiling(false);
    match otlp {
        Some(otlp) => agent.otlp(otlp).start().unwrap(),
        None => agent.start().unwrap(),
    }
}

fn process_cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// The cost on the request's thread, and of all threads until what was kept is gone.
fn round(serve: &mut dyn FnMut()) -> (Cost, f64) {
    let before = process_cpu();
    let own = cost(serve);
    // The thread that makes messages comes by four times a second.
    thread::sleep(std::time::Duration::from_millis(400));
    (own, (process_cpu() - before) / REQUESTS as f64)
}

fn main() {
    let collector = collecting();
    let plain = agent(None);
    let kept = RATIOS.map(|ratio| {
        let otlp = Otlp::to(&collector).unwrap().trace_ratio(ratio).unwrap();
        // Nothing is slow here: the ratio alone decides.
        agent(Some(otlp.slow_request(std::time::Duration::from_secs(60))))
    });
    let mut bare = handler(None);
    let mut watched = plain.http_layer().layer(handler(Some(Work::of(&plain))));
    let mut traced = kept
        .each_ref()
        .map(|agent| agent.http_layer().layer(handler(Some(Work::of(agent)))));
    let mut names = vec!["bare".to_owned(), "ours, no spans".to_owned()];
    names.extend(RATIOS.map(|ratio| format!("ours, {} % kept", ratio * 100.0)));
    let mut costs = vec![Vec::new(); names.len()];
    let mut whole = vec![Vec::new(); names.len()];
    for _ in 0..ROUNDS {
        let [one, ten, all] = &mut traced;
        let contenders: [&mut dyn FnMut(); 5] = [
            &mut || drive(&mut bare),
            &mut || drive(&mut watched),
            &mut || drive(one),
            &mut || drive(ten),
            &mut || drive(all),
        ];
        for (place, serve) in contenders.into_iter().enumerate() {
            let (own, all) = round(serve);
            costs[place].push(own);
            whole[place].push(all);
        }
    }
    let rows: Vec<Row> = names
        .iter()
        .zip(&costs)
        .map(|(name, costs)| Row::new(name, costs, REQUESTS as f64))
        .collect();
    let title = format!("One request on its own thread, {ROUNDS} rounds of {REQUESTS}");
    measure::print(&title, &rows, "ours, no spans", 1.0, "ns");
    println!("\nAll threads, CPU per request, median:\n");
    for (name, whole) in names.iter().zip(&mut whole) {
        whole.sort_by(f64::total_cmp);
        println!("- {name}: {:.0} ns", whole[whole.len() / 2]);
    }
    for (agent, ratio) in kept.iter().zip(RATIOS) {
        let request = streamgate_agent::Request::new("GET", "/metrics").header("host", "localhost");
        let page = block_on(agent.respond(request));
        let page = String::from_utf8(page.body().to_vec()).unwrap();
        let lines = page.lines().filter(|line| {
            let spans = "agent_dropped_total{signal=\"spans\"";
            line.starts_with(spans) || line.starts_with("otel_sdk_exporter_span")
        });
        println!("\n{ratio}: {}", lines.collect::<Vec<_>>().join("\n"));
    }
}
