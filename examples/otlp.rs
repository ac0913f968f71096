//! A shop that pushes metrics, spans, log records and profiles to an OpenTelemetry collector, and says
//! what becomes of them.
//!
//! `docker run -p 4318:4318 otel/opentelemetry-collector`, and beside it
//! `OTEL_METRIC_EXPORT_INTERVAL=5000 cargo run --features otlp-profiles,tracing --example otlp`. The
//! collector may be elsewhere: `OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318`.
#![expect(clippy::print_stdout, reason = "an example tells what happens")]

use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Path};
use axum::http;
use axum::routing::post;
use streamgate_agent::{
    Agent, AgentHandle, CacheClass, DEFAULT_ADDRESS, Error, Metric, Otlp, QueryLabels, Request,
    Tier,
};
use tower::ServiceExt as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

static ORDERS: Metric =
    Metric::counter("shop_orders_total", "Orders placed.").labels(&["shop_channel"]);

const PLACE: QueryLabels = QueryLabels {
    system: "postgresql",
    namespace: "shop",
    operation: "INSERT",
    collection: "orders",
    summary: "INSERT orders",
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args()
        .nth(1)
        .map_or(Ok(DEFAULT_ADDRESS), |text| text.parse())?;
    let agent = Agent::builder("shop")
        .listen(address)
        .otlp(Otlp::from_env()?)
        .start()?;
    println!("http://{}/", agent.address().unwrap_or(address));
    tracing_subscriber::registry()
        .with(agent.request_spans(tracing::Level::INFO))
        .init();
    let shop = shop(&agent)?;

    let mut customers = tokio::time::interval(Duration::from_millis(100));
    let mut looks = tokio::time::interval(Duration::from_secs(5));
    let mut item = 0_u32;
    loop {
        tokio::select! {
            _ = customers.tick() => {
                item = item.wrapping_add(1);
                let order = http::Request::post(format!("/orders/{item}")).body(Body::empty())?;
                tokio::spawn(shop.clone().oneshot(order));
            }
            _ = looks.tick() => say_what_was_pushed(&agent).await,
            stopped = tokio::signal::ctrl_c() => break stopped?,
        }
    }
    // What has not been sent yet goes out now, for at most 5 s.
    let end = agent.shutdown(Duration::from_secs(5)).await?;
    println!("since the stop: {:?}", end.flushed);
    println!("stopped; still running: {:?}", end.still_running);
    Ok(())
}

/// A service whose requests are watched by one layer; their lookups and statements are spans below them.
fn shop(agent: &AgentHandle) -> Result<Router, Error> {
    let orders = agent.counter(&ORDERS, &["web"])?;
    let (prices, insert) = (agent.cache("prices", Tier::L1), agent.query(PLACE));
    let place = async move |Path(item): Path<u32>| {
        prices.get().miss(CacheClass::Public);
        work(Duration::from_millis(5));
        let statement = insert.start();
        // One item in ten is far away.
        let way = if item.is_multiple_of(10) { 300 } else { 3 };
        tokio::time::sleep(Duration::from_millis(way)).await;
        statement.ok(1);
        orders.inc();
        tracing::info!(item, "order placed");
        "placed\n"
    };
    let layer = agent
        .http_layer()
        .matched_path(|extensions| extensions.get::<MatchedPath>().map(MatchedPath::as_str));
    Ok(Router::new()
        .route("/orders/{item}", post(place))
        .layer(layer))
}

/// What a profile shows.
fn work(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// The same counters tell an alert that a collector takes nothing: those with an `error_type` went in vain.
async fn say_what_was_pushed(agent: &AgentHandle) {
    let page = Request::new("GET", "/metrics").header("host", "localhost");
    let page = agent.respond(page).await;
    for line in String::from_utf8_lossy(page.body()).lines() {
        if line.starts_with("otel_sdk_exporter_") && line.contains("_exported_total{") {
            println!("{line}");
        }
    }
}
