//! What a request costs with our layer, and with the stock parts that trace one: tower-http's `TraceLayer`,
//! tracing-opentelemetry, the SDK's batch processor and opentelemetry-otlp.
//!
//! Run in this folder with `cargo run --release --locked`; `ROUNDS=15` says how often. Both sides have the
//! same service, whose handler makes a lookup and a statement, and push to the same collector, in a process
//! of its own. Ours counts and times each request, lookup and statement as well and sets the CPU labels; the
//! stock side has spans only. Each round runs all rows, one after the other, on one thread and on two; each
//! row is judged by the CPU time of its threads, and by that of the whole process until its spans are gone.

#[path = "../../collector.rs"]
mod collector;

use std::convert::Infallible;
use std::future::Future;
use std::io::Read;
use std::net::TcpListener;
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use futures_executor::block_on;
use http_body_util::{BodyExt, Full};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{Compression, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider,
};
use rustix::time::{ClockId, clock_gettime};
use streamgate_agent::{
    Agent, AgentHandle, Cache, CacheClass, Otlp, Query, QueryLabels, Request, Tier,
};
use tower::{Layer, Service};
use tower_http::trace::TraceLayer;
use tracing::Dispatch;
use tracing_subscriber::layer::SubscriberExt;

/// Per thread. Below what the batch processor's queue holds at two threads and three spans each, so that
/// nobody is fast because it drops.
const REQUESTS: usize = 1_200;
const QUEUE: usize = 16_384;
const RATIOS: [f64; 3] = [0.01, 0.1, 1.0];
const THREADS: [usize; 2] = [1, 2];

type Body = Full<&'static [u8]>;

const LABELS: QueryLabels = QueryLabels {
    system: "sqlite",
    namespace: "main",
    operation: "SELECT",
    collection: "content",
    summary: "SELECT content by id",
};

/// What the handler does beside answering.
enum Work {
    Nothing,
    Ours {
        query: Query,
        cache: Cache,
    },
    /// As the conventions have it, in `tracing`'s words.
    Stock,
}

impl Work {
    async fn done(&self) {
        match self {
            Self::Nothing => {}
            Self::Ours { query, cache } => {
                cache.get().miss(CacheClass::Public);
                query.start().ok(1);
            }
            Self::Stock => {
                tracing::info_span!(
                    "cache get content l1",
                    cache.name = "content",
                    cache.level = "l1",
                    cache.operation = "get",
                    cache.result = "miss",
                )
                .in_scope(|| std::hint::black_box(()));
                tracing::info_span!(
                    "SELECT content by id",
                    otel.kind = "client",
                    db.system.name = "sqlite",
                    db.namespace = "main",
                    db.operation.name = "SELECT",
                    db.collection.name = "content",
                    db.query.summary = "SELECT content by id",
                    db.response.returned_rows = 1,
                )
                .in_scope(|| std::hint::black_box(()));
            }
        }
    }
}

fn handler(
    work: Work,
) -> impl Service<
    http::Request<Body>,
    Response = http::Response<Body>,
    Error = Infallible,
    Future = impl Future<Output = Result<http::Response<Body>, Infallible>> + Send,
> + Clone
+ Send
+ 'static {
    let work = Arc::new(work);
    tower::service_fn(move |_| {
        let work = Arc::clone(&work);
        async move {
            work.done().await;
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
            let body = pin!(response.into_body());
            std::hint::black_box(body.collect().await.ok().unwrap());
        });
    }
}

fn cpu(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// One row: what each of its threads does, and how its spans get out.
struct Contender {
    name: String,
    run: Box<dyn Fn() + Sync>,
    flush: Box<dyn Fn()>,
    /// By number of threads: CPU time of a request on its thread, and in the whole process.
    costs: [(Vec<f64>, Vec<f64>); 2],
}

impl Contender {
    fn new(name: String, run: impl Fn() + Sync + 'static, flush: impl Fn() + 'static) -> Self {
        Self {
            name,
            run: Box::new(run),
            flush: Box::new(flush),
            costs: Default::default(),
        }
    }

    fn round(&mut self, place: usize, threads: usize) {
        let before = cpu(ClockId::ProcessCPUTime);
        let go = Barrier::new(threads);
        let run = &self.run;
        let own: f64 = thread::scope(|scope| {
            let threads: Vec<_> = (0..threads)
                .map(|_| {
                    scope.spawn(|| {
                        go.wait();
                        let start = cpu(ClockId::ThreadCPUTime);
                        run();
                        cpu(ClockId::ThreadCPUTime) - start
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        (self.flush)();
        let requests = (threads * REQUESTS) as f64;
        let (owns, wholes) = &mut self.costs[place];
        owns.push(own / requests);
        wholes.push((cpu(ClockId::ProcessCPUTime) - before) / requests);
    }
}

fn ours(name: String, agent: &AgentHandle) -> Contender {
    let work = Work::Ours {
        query: agent.query(LABELS),
        cache: agent.cache("content", Tier::L1),
    };
    let service = agent.http_layer().layer(handler(work));
    Contender::new(name, move || drive(&mut service.clone()), pause)
}

/// The thread that makes messages of ours comes by four times a second. All rows pause alike, so that what
/// the threads of all agents cost an idle process is part of each.
fn pause() {
    thread::sleep(Duration::from_millis(400));
}

fn agent(otlp: Option<Otlp>) -> AgentHandle {
    let agent = Agent::builder("bench").no_listener();
    match otlp {
        Some(otlp) => agent.otlp(otlp).start().unwrap(),
        None => agent.start().unwrap(),
    }
}

fn provider(collector: &str, ratio: f64) -> SdkTracerProvider {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_compression(Compression::Gzip)
        .with_endpoint(format!("{collector}/v1/traces"))
        .build()
        .unwrap();
    let config = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE)
        .build();
    let batches = BatchSpanProcessor::builder(exporter)
        .with_batch_config(config)
        .build();
    SdkTracerProvider::builder()
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(
            ratio,
        ))))
        .with_span_processor(batches)
        .build()
}

fn stock(name: String, provider: &SdkTracerProvider) -> Contender {
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("bench"));
    let dispatch = Dispatch::new(tracing_subscriber::registry().with(layer));
    let request = |request: &http::Request<Body>| {
        tracing::info_span!(
            "GET /content/{id}",
            otel.kind = "server",
            http.request.method = %request.method(),
            http.route = "/content/{id}",
            url.path = request.uri().path(),
            url.scheme = "http",
            http.response.status_code = tracing::field::Empty,
        )
    };
    let response = |response: &http::Response<Body>, _: Duration, span: &tracing::Span| {
        span.record("http.response.status_code", response.status().as_u16());
    };
    let layer = TraceLayer::new_for_http()
        .make_span_with(request)
        .on_request(())
        .on_response(response)
        .on_failure(())
        .on_body_chunk(())
        .on_eos(());
    let service = layer.layer(handler(Work::Stock));
    let run = move || {
        let _subscriber = tracing::dispatcher::set_default(&dispatch);
        drive(&mut service.clone());
    };
    let provider = provider.clone();
    let flush = move || {
        provider.force_flush().unwrap();
        pause();
    };
    Contender::new(name, run, flush)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The collector's process, which ends with this one.
struct Collector(Child);

impl Drop for Collector {
    fn drop(&mut self) {
        drop(self.0.kill());
    }
}

fn collecting() -> (Collector, String) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let child = command.arg("collector").stdout(Stdio::piped());
    let mut child = child.spawn().unwrap();
    let mut address = String::new();
    let mut byte = [0];
    let out = child.stdout.as_mut().unwrap();
    while out.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        address.push(char::from(byte[0]));
    }
    (Collector(child), address)
}

/// Takes everything.
fn collect() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("http://{}", listener.local_addr().unwrap());
    collector::serve(&listener);
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some("collector") {
        return collect();
    }
    let rounds = std::env::var("ROUNDS").map_or(15, |text| text.parse().unwrap());
    let (_ends, collector) = collecting();
    let plain = agent(None);
    let agents = RATIOS.map(|ratio| {
        let otlp = Otlp::to(&collector).unwrap().trace_ratio(ratio).unwrap();
        // Nothing is slow here: the ratio alone decides.
        agent(Some(otlp.slow_request(Duration::from_secs(60))))
    });
    let providers = RATIOS.map(|ratio| provider(&collector, ratio));
    let bare = handler(Work::Nothing);
    let bare = move || drive(&mut bare.clone());
    let mut rows = vec![
        Contender::new("bare".to_owned(), bare, pause),
        ours("ours, no spans".to_owned(), &plain),
    ];
    for ((ratio, agent), provider) in RATIOS.iter().zip(&agents).zip(&providers) {
        let percent = ratio * 100.0;
        rows.push(ours(format!("ours, {percent} % kept"), agent));
        rows.push(stock(format!("stock, {percent} % sampled"), provider));
    }
    for _ in 0..rounds {
        for row in &mut rows {
            for (place, threads) in THREADS.into_iter().enumerate() {
                row.round(place, threads);
            }
        }
    }
    println!(
        "CPU time of a request in ns above the bare service, median of {rounds} rounds of {REQUESTS} per thread\n"
    );
    println!(
        "| | own thread, 1 | own threads, 2 | process, 1 | process, 2 |\n|---|---|---|---|---|"
    );
    let medians: Vec<[f64; 4]> = rows
        .iter_mut()
        .map(|row| {
            let [(own, whole), (own_two, whole_two)] = &mut row.costs;
            [
                median(own),
                median(own_two),
                median(whole),
                median(whole_two),
            ]
        })
        .collect();
    for (row, medians_of) in rows.iter().zip(&medians).skip(1) {
        let above = medians_of
            .iter()
            .zip(&medians[0])
            .map(|(it, bare)| format!("{:.0}", it - bare));
        println!(
            "| {} | {} |",
            row.name,
            above.collect::<Vec<_>>().join(" | ")
        );
    }
    for (place, ratio) in RATIOS.iter().enumerate() {
        let of = |row: usize| {
            medians[row]
                .iter()
                .zip(&medians[0])
                .map(|(it, bare)| it - bare)
        };
        let shares = of(2 + 2 * place).zip(of(3 + 2 * place));
        let shares: Vec<String> = shares
            .map(|(ours, stock)| format!("{:.2}", ours / stock))
            .collect();
        println!(
            "| **ours / stock at {} %** | {} |",
            ratio * 100.0,
            shares.join(" | ")
        );
    }
    for (agent, ratio) in agents.iter().zip(RATIOS) {
        let request = Request::new("GET", "/metrics").header("host", "localhost");
        let page = block_on(agent.respond(request));
        let page = String::from_utf8(page.body().to_vec()).unwrap();
        let lines = page.lines().filter(|line| {
            line.starts_with("agent_dropped_total{signal=\"spans\"")
                || line.starts_with("otel_sdk_exporter_span_exported_total")
        });
        println!(
            "\nours at {ratio}: {}",
            lines.collect::<Vec<_>>().join("\n")
        );
    }
}
