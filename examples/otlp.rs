//! Pushes metrics to an OpenTelemetry collector, beside the endpoints.
//!
//! `OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318 cargo run --features otlp --example otlp`

use std::time::Duration;

use streamgate_agent::{Agent, Metric, Otlp};

static WORK: Metric = Metric::counter("example_work_total", "Work done.");

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let otlp = Otlp::from_env()?.metrics_interval(Duration::from_secs(5))?;
    let agent = Agent::builder("example").otlp(otlp).start()?;
    let work = agent.counter(&WORK, &[])?;
    println!("metrics go out every 5 s; Ctrl-C pushes the last and ends");
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            _ = ticks.tick() => work.inc(),
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    agent.shutdown(Duration::from_secs(5)).await?;
    Ok(())
}
