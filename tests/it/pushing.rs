//! An agent that pushes: what arrives, and how it stops while a collector takes its time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use prometheus::core::{Collector, Desc};
use streamgate_agent::{Agent, AgentHandle, Metric, Otlp};

use crate::agent::eventually;
use crate::client::get;
use crate::receiver::{Sent, Turn, answers, receiver};

static ORDERS: Metric = Metric::counter("shop_orders_total", "Orders placed.");
static STOCK: Metric = Metric::gauge("shop_stock", "Things on the shelf.");

/// For an attempt; a stop that waited for it would be told apart from one that did not.
const PATIENCE: Duration = Duration::from_secs(30);

/// An agent that pushes every second to a collector that does this with each request.
fn start(
    turns: impl IntoIterator<Item = Turn, IntoIter: Send + 'static>,
) -> (AgentHandle, Receiver<Sent>) {
    let (collector, requests) = receiver(turns);
    let agent = pushing_to(&collector, PATIENCE);
    agent.counter(&ORDERS, &[]).unwrap().inc();
    (agent, requests)
}

fn pushing_to(collector: &str, timeout: Duration) -> AgentHandle {
    let otlp = Otlp::to(collector).unwrap().timeout(timeout).unwrap();
    Agent::builder("shop")
        .listen(([127, 0, 0, 1], 0).into())
        .recorder(0)
        .otlp(otlp.metrics_interval(Duration::from_secs(1)).unwrap())
        .start()
        .unwrap()
}

fn taken() -> Turn {
    answers("200 OK", "", &[])
}

/// The number of a family of one series.
fn number(sent: &Sent, name: &str) -> Option<f64> {
    let points = match sent.metric(name)?.data? {
        Data::Gauge(gauge) => gauge.data_points,
        Data::Sum(sum) => sum.data_points,
        other => panic!("{other:?}"),
    };
    assert_eq!(points.len(), 1);
    Some(match points[0].value? {
        Value::AsInt(number) => number as f64,
        Value::AsDouble(number) => number,
    })
}

/// The total of a counter's series with this value of its only label.
fn total(sent: &Sent, name: &str, label: &str) -> Option<i64> {
    let Some(Data::Sum(sum)) = sent.metric(name)?.data else {
        panic!("no sum");
    };
    let has = |text: &str| text.contains(&format!("StringValue({label:?})"));
    let point = sum
        .data_points
        .iter()
        .find(|point| has(&format!("{:?}", point.attributes)))?;
    match point.value? {
        Value::AsInt(number) => Some(number),
        Value::AsDouble(_) => None,
    }
}

#[test]
fn an_orderly_stop_pushes_what_was_counted_last_and_a_second_one_nothing() {
    let (agent, requests) = start(std::iter::repeat_with(taken));
    agent.counter(&ORDERS, &[]).unwrap().add(41);
    for _ in 0..2 {
        let report = agent.shutdown_blocking(PATIENCE);
        assert_eq!(report.still_running, [""; 0]);
    }
    let sent: Vec<Sent> = requests.try_iter().collect();
    let last = sent.last().unwrap();
    assert_eq!(number(last, "shop_orders_total"), Some(42.0));
    let resource = format!("{:?}", last.message().resource_metrics[0].resource);
    let pid = format!("IntValue({})", std::process::id());
    for value in [&*pid, r#"StringValue("shop")"#, r#"StringValue("rust")"#] {
        assert!(resource.contains(value), "{resource}");
    }
    // Nobody is left who could push.
    assert!(requests.try_recv().is_err());
}

#[test]
fn two_processes_of_a_service_are_told_apart() {
    let instance = || {
        let (agent, requests) = start(std::iter::repeat_with(taken));
        agent.shutdown_blocking(PATIENCE);
        let message = requests.iter().next().unwrap().message();
        let resource = message.resource_metrics[0].resource.clone().unwrap();
        let mut all = resource.attributes.into_iter();
        let id = all.find(|one| one.key == "service.instance.id").unwrap();
        format!("{:?}", id.value.unwrap().value.unwrap())
    };
    assert_ne!(instance(), instance());
}

#[tokio::test(flavor = "current_thread")]
async fn a_silent_collector_does_not_hold_a_stop_beyond_its_deadline() {
    let (agent, requests) = start([Turn::KeepsSilent]);
    let requests = tokio::task::spawn_blocking(move || {
        requests.recv().unwrap();
        requests
    });
    let _requests = requests.await.unwrap();
    let started = Instant::now();
    let report = agent.shutdown(Duration::from_millis(500)).await.unwrap();
    assert!(started.elapsed() < PATIENCE / 2, "{:?}", started.elapsed());
    assert!(report.still_running.contains(&"sg-otlp"), "{report:?}");
}

#[test]
fn dropping_the_handle_waits_for_no_collector() {
    let (agent, requests) = start([Turn::KeepsSilent]);
    requests.recv().unwrap();
    let started = Instant::now();
    drop(agent);
    assert!(started.elapsed() < PATIENCE / 2, "{:?}", started.elapsed());
}

/// Stops its agent when its stack is unwound, as hosts do in a guard.
struct StopsIt(AgentHandle);

impl Drop for StopsIt {
    fn drop(&mut self) {
        let report = self.0.shutdown_blocking(PATIENCE);
        assert!(std::thread::panicking() && report.still_running.is_empty());
    }
}

#[test]
fn a_stop_inside_a_panic_pushes_what_was_counted_last() {
    let (agent, requests) = start(std::iter::repeat_with(taken));
    agent.counter(&ORDERS, &[]).unwrap().add(9);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _guard = StopsIt(agent);
        panic!("a host's bug");
    }));
    assert!(panicked.is_err());
    let last = requests.try_iter().last().unwrap();
    assert_eq!(number(&last, "shop_orders_total"), Some(10.0));
}

/// A collector of the host's own that panics.
struct Broken;

impl Collector for Broken {
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<prometheus::proto::MetricFamily> {
        panic!("a collector of the host's")
    }
}

#[test]
fn a_panicking_callback_loses_its_own_value_once_and_pushes_go_on() {
    let (agent, requests) = start(std::iter::repeat_with(taken));
    let stock = agent.gauge(&STOCK, &[]).unwrap();
    let (broken, panicked) = (AtomicBool::new(true), Arc::new(AtomicBool::new(false)));
    let seen = Arc::clone(&panicked);
    agent
        .observe(move || {
            if broken.swap(false, Ordering::SeqCst) {
                seen.store(true, Ordering::SeqCst);
                panic!("a closure of the host's");
            }
            stock.set(5.0);
        })
        .unwrap();
    let (bad, good) = (prometheus::Registry::new(), prometheus::Registry::new());
    bad.register(Box::new(Broken)).unwrap();
    let well = prometheus::IntGauge::new("shop_well", "Well.").unwrap();
    well.set(3);
    good.register(Box::new(well)).unwrap();
    agent.registry(bad);
    agent.registry(good);
    // The first push after the closure has run twice.
    let has_all = |sent: &Sent| number(sent, "shop_stock").is_some();
    let sent = requests.iter().find(has_all).unwrap();
    assert!(panicked.load(Ordering::SeqCst));
    assert_eq!(number(&sent, "shop_stock"), Some(5.0));
    assert_eq!(number(&sent, "shop_well"), Some(3.0));
    assert_eq!(number(&sent, "shop_orders_total"), Some(1.0));
    assert_eq!(total(&sent, "agent_panics_total", "callback"), Some(1));
    let lost = total(&sent, "agent_scrape_conflicts_total", "panic");
    assert!(lost.is_some_and(|lost| lost > 0), "{lost:?}");
}

#[test]
fn a_push_has_what_foreign_registries_hold_at_its_time() {
    let (agent, requests) = start(std::iter::repeat_with(taken));
    let registry = prometheus::Registry::new();
    let seen = prometheus::IntCounter::new("shop_seen_total", "Pushes seen.").unwrap();
    registry.register(Box::new(seen.clone())).unwrap();
    agent.registry(registry);
    let first = requests.recv().unwrap();
    let before = number(&first, "shop_seen_total");
    seen.inc_by(17);
    // One may be under way already.
    let later: Vec<Sent> = requests.iter().take(2).collect();
    assert_ne!(before, Some(17.0));
    assert_eq!(number(&later[1], "shop_seen_total"), Some(17.0));
}

/// A collector that takes connections and never answers; each comes out with the request half read.
pub(crate) fn silent() -> (String, Receiver<std::net::TcpStream>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (accepted, connections) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            if accepted.send(stream.unwrap()).is_err() {
                return;
            }
        }
    });
    (address, connections)
}

#[test]
fn while_a_collector_is_silent_one_push_waits_and_none_are_kept_for_later() {
    let (collector, connections) = silent();
    let agent = pushing_to(&collector, Duration::from_millis(100));
    let mut first = connections.recv().unwrap();
    let second = connections.recv().unwrap();
    // The first was given up before the second began: it holds one message and its end.
    let mut message = Vec::new();
    std::io::Read::read_to_end(&mut first, &mut message).unwrap();
    assert!(message.starts_with(b"POST /v1/metrics"));
    assert_eq!(message.windows(4).filter(|four| four == b"POST").count(), 1);
    let page = agent.address().unwrap().to_string();
    eventually("the loss is counted", || {
        let page = get(&page, "/metrics").body;
        page.lines().any(|line| {
            line.starts_with("otel_sdk_exporter_metric_data_point_exported_total{")
                && line.contains(r#"error_type="timeout""#)
        })
    });
    drop(second);
}
