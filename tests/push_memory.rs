//! A push of as many series as an agent holds takes memory for a message, not for all of them.
#![cfg(all(feature = "otlp", feature = "prometheus"))]
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod counting;
#[expect(dead_code, reason = "each test binary uses a part of it")]
#[path = "../src/export/push/tests/receiver.rs"]
mod receiver;

use std::iter::repeat_with;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use counting::{LIVE, PEAK};
use receiver::{answers, receiver};
use streamgate_agent::{Agent, Metric, Otlp};

const FAMILIES: usize = 25;
/// Of each family, as many label sets as it may have.
const SERIES: usize = 2_000;
/// The snapshot of all series, one message of 4 MiB as it is made, as bytes and packed, and what this
/// program's own receiver holds of it.
const BOUND: usize = 24 << 20;

#[test]
fn the_memory_of_a_push_is_bounded_by_a_message_and_not_by_the_series() {
    let (collector, requests) = receiver(repeat_with(|| answers("200 OK", "", &[])));
    let otlp = Otlp::to(&collector).unwrap();
    // The last push is the only one.
    let otlp = otlp.metrics_interval(Duration::from_secs(3600)).unwrap();
    let agent = Agent::builder("shop").no_listener().profiling(false);
    let agent = agent.otlp(otlp.timeout(Duration::from_secs(30)).unwrap());
    let agent = agent.start().unwrap();
    for family in 0..FAMILIES {
        let name = format!("shop_family_{family}_total").leak();
        let labels = &["shop_place", "shop_kind", "shop_item"];
        let metric = Metric::counter(name, "Things.").labels(labels);
        for series in 0..SERIES {
            let item = format!(
                "a thing with the number {series}, {}",
                "and so on ".repeat(8)
            );
            let values = ["a place that has a name", "of one kind", &*item];
            agent.counter(&metric, &values).unwrap().inc();
        }
    }
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let report = agent.shutdown_blocking(Duration::from_secs(120));
    let peak = PEAK.load(Relaxed) - before;
    assert_eq!(report.still_running, [""; 0]);
    let sent: Vec<_> = requests.try_iter().collect();
    let points: usize = sent
        .iter()
        .flat_map(|sent| sent.message().resource_metrics)
        .flat_map(|resource| resource.scope_metrics)
        .flat_map(|scope| scope.metrics)
        .filter(|metric| metric.name.starts_with("shop_family_"))
        .map(|metric| match metric.data {
            Some(opentelemetry_proto::tonic::metrics::v1::metric::Data::Sum(sum)) => {
                sum.data_points.len()
            }
            _ => 0,
        })
        .sum();
    println!("{points} points in {} messages, {peak} bytes", sent.len());
    // The cap on all series comes a little earlier than that of each family.
    assert!(points > FAMILIES * SERIES * 9 / 10, "{points}");
    assert!(sent.len() > 2, "{}", sent.len());
    assert!(peak < BOUND, "{peak} bytes");
}
