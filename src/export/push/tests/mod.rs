//! Pushes to receivers that take, refuse, reject, keep silent, break off or are not there.

pub(in crate::export) mod receiver;

use std::collections::BTreeSet;
use std::net::TcpListener;

use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;

use super::*;
use crate::catalog::{Kind, Metric};
use crate::store::metrics::Value;
use receiver::{Sent, Turn, answers, receiver};

const ALWAYS: Duration = Duration::MAX;

static WORK: Metric = Metric::counter("work_total", "Work.").labels(&["place"]);

fn push(address: &str) -> (Arc<Store>, MetricsPush) {
    let store = Arc::new(Store::new(10_000));
    store.metrics.counter(&WORK, &["here"]).unwrap().add(7);
    let push = to(address, &store, 30_000);
    (store, push)
}

fn to(address: &str, store: &Arc<Store>, timeout_millis: u64) -> MetricsPush {
    let otlp = Otlp::to(address).unwrap().header("X-Token", "t").unwrap();
    let otlp = otlp.timeout(Duration::from_millis(timeout_millis)).unwrap();
    let resource = resource([("service.name", "shop")], &otlp);
    MetricsPush::new(store, &otlp, resource).unwrap()
}

/// Points by what became of them.
fn counted(store: &Store) -> Vec<(String, u64)> {
    let snapshot = store.metrics.snapshot();
    let family = snapshot
        .family(&families::OTEL_EXPORTED_METRIC_POINTS)
        .unwrap();
    let values = snapshot.values(family).map(|(series, value)| {
        let Value::Total(total) = value else {
            panic!("{value:?}");
        };
        (series.values[1].to_string(), total)
    });
    values.collect()
}

fn work(sent: &Sent) -> String {
    format!("{:?}", sent.metric("work_total").unwrap().data)
}

#[test]
fn a_push_is_packed_protobuf_with_its_headers_and_the_value() {
    let (address, requests) = receiver([answers("200 OK", "", &[])]);
    let (store, push) = push(&address);
    assert_eq!(push.push(ALWAYS), Duration::ZERO);
    let sent = requests.recv().unwrap();
    let head = &sent.head;
    assert!(head.starts_with("post /v1/metrics http/1.1"), "{head}");
    for line in [
        "content-type: application/x-protobuf",
        "content-encoding: gzip",
        "x-token: t",
    ] {
        assert!(head.contains(line), "{head}");
    }
    let points = points(&sent.message());
    assert_eq!(counted(&store), [(String::new(), points)]);
    assert!(work(&sent).contains("AsInt(7)"), "{}", work(&sent));
    let snapshot = store.metrics.snapshot();
    assert!(snapshot.family(&families::AGENT_LAST_SUCCESS).is_some());
}

#[test]
fn what_a_collector_cannot_use_is_counted_and_its_wish_to_wait_is_heeded() {
    let rejects = ExportMetricsServiceResponse {
        partial_success: Some(ExportMetricsPartialSuccess {
            rejected_data_points: 1,
            error_message: "no".to_owned(),
        }),
    };
    let retry = "Retry-After: 1000000000\r\n";
    let elsewhere = "Location: http://127.0.0.1:1/\r\n";
    let (address, _requests) = receiver([
        answers("200 OK", "", &rejects.encode_to_vec()),
        answers("503 Service Unavailable", retry, b"later"),
        answers("400 Bad Request", "", b"never"),
        answers("307 Temporary Redirect", elsewhere, &[]),
    ]);
    let (store, push) = push(&address);
    let waits = [(); 4].map(|()| push.push(ALWAYS));
    let (none, long) = (Duration::ZERO, LONGEST_WAIT);
    assert_eq!(waits, [none, long, none, none]);
    let counted = counted(&store);
    let kinds: Vec<&str> = counted.iter().map(|(kind, _)| &**kind).collect();
    assert_eq!(kinds, ["", "rejected", "503", "400", "307"]);
    assert_eq!(counted[1].1, 1);
}

/// Pushes in vain to `there` and waits so many seconds, then to `next`, which takes it.
fn lost_and_made_up_for(kind: &str, waits: u64, there: &str, next: &str) {
    let store = push(there).0;
    let patience = if kind == "timeout" { 100 } else { 30_000 };
    let first = to(there, &store, patience);
    assert_eq!(first.push(ALWAYS), Duration::from_secs(waits), "{kind}");
    let [(said, lost)] = &counted(&store)[..] else {
        panic!("{kind}: {:?}", counted(&store));
    };
    assert_eq!(said, kind);
    assert!(*lost > 0);
    let success = &families::AGENT_LAST_SUCCESS;
    assert!(store.metrics.snapshot().family(success).is_none());
    store.metrics.counter(&WORK, &["here"]).unwrap().add(1);
    assert_eq!(to(next, &store, 30_000).push(ALWAYS), Duration::ZERO);
    let [before, (taken, _)] = &counted(&store)[..] else {
        panic!("{kind}: {:?}", counted(&store));
    };
    assert_eq!((before, &**taken), (&(kind.to_owned(), *lost), ""));
}

#[test]
fn each_fault_of_a_collector_is_counted_by_its_kind_and_the_next_push_has_all() {
    let busy = "Retry-After: 7\r\n";
    let stranger = Turn::Answers(b"SSH-2.0-x\r\n\r\n".to_vec());
    let rows = [
        ("timeout", 0, Turn::KeepsSilent),
        ("429", 7, answers("429 Too Many Requests", busy, b"busy")),
        ("503", 0, answers("503 Service Unavailable", "", b"down")),
        ("connection", 0, Turn::Resets),
        ("connection", 0, Turn::Closes),
        ("protocol", 0, stranger),
    ];
    for (kind, waits, turn) in rows {
        let (address, requests) = receiver([turn, answers("200 OK", "", &[])]);
        lost_and_made_up_for(kind, waits, &address, &address);
        let last = requests.iter().last().unwrap();
        assert!(work(&last).contains("AsInt(8)"), "{kind}: {}", work(&last));
    }
}

#[test]
fn a_collector_that_is_not_there_is_counted_by_why_and_the_next_push_has_all() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
    let closed = format!("http://{}", closed.unwrap());
    // No name server is asked: no part of a name is as long.
    let nameless = format!("http://{}/", "a".repeat(64));
    for (kind, there) in [("connection", closed), ("name_resolution", nameless)] {
        let (address, requests) = receiver([answers("200 OK", "", &[])]);
        lost_and_made_up_for(kind, 0, &there, &address);
        let sent = requests.recv().unwrap();
        assert!(work(&sent).contains("AsInt(8)"), "{kind}: {}", work(&sent));
    }
}

#[test]
fn many_series_go_in_messages_that_hold_each_family_once_and_each_series_is_in_one() {
    let store = Arc::new(Store::new(10_000));
    let counters = families::ALL
        .iter()
        .filter(|metric| metric.kind == Kind::Counter);
    for metric in counters {
        let values = vec!["x"; metric.labels.len()];
        store.metrics.counter(metric, &values).unwrap().inc();
    }
    for place in 0..1_000 {
        let place = place.to_string();
        store.metrics.counter(&WORK, &[&place]).unwrap().inc();
    }
    let resource = Resource::default();
    let push = Push {
        resource: &resource,
        start_unix_nanos: 1,
        unix_nanos: 2,
        histograms: HistogramForm::Explicit,
    };
    let metrics = |message: ExportMetricsServiceRequest| {
        let [mut resource] = <[_; 1]>::try_from(message.resource_metrics).unwrap();
        resource.scope_metrics.remove(0).metrics
    };
    let each_once = |metrics: &[opentelemetry_proto::tonic::metrics::v1::Metric]| {
        let names: BTreeSet<&str> = metrics.iter().map(|metric| &*metric.name).collect();
        names.len() == metrics.len()
    };
    let snapshot = store.metrics.snapshot();
    let whole = metrics(push.encode(&snapshot, &[]));
    assert!(each_once(&whole));
    let limit = 20_000;
    let (mut joined, mut messages) = (Vec::new(), 0);
    for message in push.messages(&snapshot, &[], limit) {
        assert!(message.encoded_len() <= limit);
        messages += 1;
        let part = metrics(message);
        assert!(each_once(&part));
        for metric in part {
            let Some(Data::Sum(more)) = metric.data.clone() else {
                continue;
            };
            let last = joined.last_mut();
            let last = last.filter(|last: &&mut (String, Vec<_>)| last.0 == metric.name);
            match last {
                Some((_, points)) => points.extend(more.data_points),
                None => joined.push((metric.name, more.data_points)),
            }
        }
    }
    assert!(messages > 3, "{messages}");
    let sums = whole.into_iter().filter_map(|metric| match metric.data {
        Some(Data::Sum(sum)) => Some((metric.name, sum.data_points)),
        _ => None,
    });
    assert_eq!(joined, sums.collect::<Vec<_>>());
}
