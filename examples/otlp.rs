//! Pushes its metrics to an OpenTelemetry collector, and says what becomes of them.
//!
//! `docker run -p 4318:4318 otel/opentelemetry-collector`, and beside it
//! `OTEL_METRIC_EXPORT_INTERVAL=5000 cargo run --features otlp --example otlp`. The collector may be
//! elsewhere: `OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318`.
#![expect(clippy::print_stdout, reason = "an example tells what happens")]

use std::time::Duration;

use streamgate_agent::{Agent, AgentHandle, DEFAULT_ADDRESS, Metric, Otlp, Request};

static ORDERS: Metric =
    Metric::counter("shop_orders_total", "Orders placed.").labels(&["shop_channel"]);

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
    let orders = agent.counter(&ORDERS, &["web"])?;

    let mut customers = tokio::time::interval(Duration::from_millis(100));
    let mut looks = tokio::time::interval(Duration::from_secs(5));
    loop {
        tokio::select! {
            _ = customers.tick() => orders.inc(),
            _ = looks.tick() => say_what_was_pushed(&agent).await,
            stopped = tokio::signal::ctrl_c() => break stopped?,
        }
    }
    // What was counted since the last push goes out now, for at most 5 s.
    let end = agent.shutdown(Duration::from_secs(5)).await?;
    println!("stopped; still running: {:?}", end.still_running);
    Ok(())
}

/// The same counters tell an alert that a collector takes nothing: those with an `error_type` went in vain.
async fn say_what_was_pushed(agent: &AgentHandle) {
    let page = Request::new("GET", "/metrics").header("host", "localhost");
    let page = agent.respond(page).await;
    for line in String::from_utf8_lossy(page.body()).lines() {
        if line.starts_with("otel_sdk_exporter_metric_data_point_exported_total{") {
            println!("{line}");
        }
    }
}
