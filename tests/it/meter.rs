//! What a library records through OpenTelemetry's global meter, on the page and in a push.

use std::time::Duration;

use opentelemetry::{KeyValue, global};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use streamgate_agent::{Agent, Otlp};

use crate::agent::eventually;
use crate::client::get;
use crate::receiver::{answers, receiver};

#[test]
fn what_a_library_records_by_the_global_meter_stands_on_the_page_and_in_the_push() {
    let turns = std::iter::repeat_with(|| answers("200 OK", "", &[]));
    let (collector, requests) = receiver(turns);
    let otlp = Otlp::to(&collector).unwrap();
    let agent = Agent::builder("shop")
        .listen(([127, 0, 0, 1], 0).into())
        .recorder(0)
        .otlp(otlp.metrics_interval(Duration::from_secs(3_600)).unwrap())
        .start()
        .unwrap();
    global::set_meter_provider(agent.meter_provider());
    let meter = global::meter("a library");
    let took = meter.f64_histogram("db.call.duration").with_unit("s");
    let took = took.build();
    let retries = meter.u64_counter("db.call.retries").build();
    let spare = meter.i64_observable_gauge("db.spare");
    spare
        .with_callback(|spare| spare.observe(-3, &[KeyValue::new("pool", "main")]))
        .build();
    let broken = meter.i64_observable_gauge("broken");
    broken.with_callback(|_| panic!("the host's bug")).build();
    for call in 0..5_u64 {
        took.record(0.25, &[KeyValue::new("error.type", "none")]);
        retries.add(call, &[]);
    }
    let authority = agent.address().unwrap().to_string();
    let mut page = String::new();
    // Callbacks run about once a second, and the one that panics takes its time to say so.
    eventually("the callbacks have run", || {
        page = get(&authority, "/metrics").body;
        let panics = "agent_panics_total{component=\"callback\"} ";
        let panics = page.lines().find_map(|line| line.strip_prefix(panics));
        page.contains("\ndb_spare{pool=\"main\"} -3\n") && panics.is_some_and(|count| count != "0")
    });
    for line in [
        "\ndb_call_duration_seconds_sum{error_type=\"none\"} 1.25\n",
        "\ndb_call_duration_seconds_count{error_type=\"none\"} 5\n",
        "\ndb_call_retries_total 10\n",
    ] {
        assert!(page.contains(line), "{line} in {page}");
    }
    let report = agent.shutdown_blocking(Duration::from_secs(60));
    assert_eq!(report.still_running, [""; 0]);
    let pushes = requests
        .try_iter()
        .filter(|sent| sent.head.contains("/v1/metrics"));
    let last = pushes.last().unwrap();
    let Some(Data::Histogram(took)) = last.metric("db.call.duration").unwrap().data else {
        panic!("no histogram");
    };
    let point = &took.data_points[0];
    assert_eq!((point.count, point.sum), (5, Some(1.25)));
    assert_eq!(point.attributes[0].key, "error.type");
    let number = |name: &str| match last.metric(name).unwrap().data.unwrap() {
        Data::Sum(sum) => sum.data_points[0].value,
        Data::Gauge(gauge) => gauge.data_points[0].value,
        other => panic!("{other:?}"),
    };
    assert_eq!(number("db.call.retries"), Some(Value::AsInt(10)));
    assert_eq!(number("db.spare"), Some(Value::AsDouble(-3.0)));
    assert_eq!(last.metric("db.call.duration").unwrap().unit, "s");
}
