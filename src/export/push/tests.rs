//! Pushes to receivers that take, refuse, reject, keep silent or are not there.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsPartialSuccess;

use super::*;
use crate::catalog::{Kind, Metric};
use crate::store::metrics::Value;

static WORK: Metric = Metric::counter("work_total", "Work.").labels(&["place"]);

/// A receiver that answers the first requests so and then is gone; what it was sent comes by the channel.
pub(in crate::export) fn receiver(answers: Vec<Vec<u8>>) -> (String, Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (seen, requests) = channel();
    thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let request = request(&mut stream);
            // Silent where it has nothing to say, until the client goes.
            if answer.is_empty() {
                drop(stream.read(&mut [0]));
            }
            stream.write_all(&answer).unwrap();
            drop(stream.shutdown(Shutdown::Write));
            if seen.send(request).is_err() {
                return;
            }
        }
    });
    (address, requests)
}

/// Head and body of a request.
fn request(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let length = stream.read(&mut piece).unwrap();
        assert_ne!(length, 0, "ended early");
        bytes.extend_from_slice(&piece[..length]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8(bytes[..end].to_vec())
            .unwrap()
            .to_lowercase();
        let (_, rest) = head.split_once("content-length: ").unwrap();
        let wanted: usize = rest.lines().next().unwrap().parse().unwrap();
        if bytes.len() >= end + 4 + wanted {
            return (head, bytes[end + 4..].to_vec());
        }
    }
}

pub(in crate::export) fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn push(address: &str) -> (Arc<Store>, MetricsPush) {
    let store = Arc::new(Store::new(10_000));
    store.metrics.counter(&WORK, &["here"]).unwrap().add(7);
    let otlp = Otlp::to(address).unwrap().header("X-Token", "t").unwrap();
    let resource = resource([("service.name", "shop")], &otlp);
    let push = MetricsPush::new(&store, &otlp, resource).unwrap();
    (store, push)
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

#[test]
fn a_push_is_packed_protobuf_with_its_headers_and_the_value() {
    let (address, requests) = receiver(vec![answer("200 OK", "", &[])]);
    let (store, push) = push(&address);
    assert_eq!(push.push(), Duration::ZERO);
    let (head, body) = requests.recv().unwrap();
    assert!(head.starts_with("post /v1/metrics http/1.1"), "{head}");
    for line in [
        "content-type: application/x-protobuf",
        "content-encoding: gzip",
        "x-token: t",
    ] {
        assert!(head.contains(line), "{head}");
    }
    let mut message = Vec::new();
    flate2::read::GzDecoder::new(&*body)
        .read_to_end(&mut message)
        .unwrap();
    let message = ExportMetricsServiceRequest::decode(&*message).unwrap();
    let points = points(&message);
    assert_eq!(counted(&store), [(String::new(), points)]);
    let metrics = &message.resource_metrics[0].scope_metrics[0].metrics;
    let work = metrics.iter().find(|metric| metric.name == "work_total");
    assert!(format!("{work:?}").contains("AsInt(7)"), "{work:?}");
    assert!(
        store
            .metrics
            .snapshot()
            .family(&families::AGENT_LAST_SUCCESS)
            .is_some()
    );
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
    let (address, _requests) = receiver(vec![
        answer("200 OK", "", &rejects.encode_to_vec()),
        answer("503 Service Unavailable", retry, b"later"),
        answer("400 Bad Request", "", b"never"),
        answer(
            "307 Temporary Redirect",
            "Location: http://127.0.0.1:1/\r\n",
            &[],
        ),
    ]);
    let (store, push) = push(&address);
    let waits = [(); 4].map(|()| push.push());
    assert_eq!(
        waits,
        [Duration::ZERO, LONGEST_WAIT, Duration::ZERO, Duration::ZERO]
    );
    let counted = counted(&store);
    let kinds: Vec<&str> = counted.iter().map(|(kind, _)| &**kind).collect();
    assert_eq!(kinds, ["", "rejected", "503", "400", "307"]);
    assert_eq!(counted[1].1, 1);
}

#[test]
fn a_collector_that_is_gone_or_silent_is_said_and_the_next_push_has_all() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let (store, gone) = push(&format!("http://{closed}"));
    gone.push();
    assert_eq!(counted(&store)[0].0, "connection");
    let (address, requests) = receiver(vec![Vec::new(), answer("200 OK", "", &[])]);
    let (store, mut silent) = push(&address);
    let mut otlp = Otlp::to(&address).unwrap();
    otlp.metrics.as_mut().unwrap().timeout = Duration::from_millis(200);
    silent.post = Post::new(otlp.metrics.unwrap());
    silent.push();
    assert_eq!(counted(&store)[0].0, "timeout");
    store.metrics.counter(&WORK, &["here"]).unwrap().add(1);
    silent.push();
    requests.recv().unwrap();
    let (_, body) = requests.recv().unwrap();
    let mut message = Vec::new();
    flate2::read::GzDecoder::new(&*body)
        .read_to_end(&mut message)
        .unwrap();
    let message = ExportMetricsServiceRequest::decode(&*message).unwrap();
    let metrics = &message.resource_metrics[0].scope_metrics[0].metrics;
    let work = metrics.iter().find(|metric| metric.name == "work_total");
    assert!(format!("{work:?}").contains("AsInt(8)"), "{work:?}");
}

#[test]
fn a_large_message_goes_in_parts_that_hold_each_family_once() {
    let store = Arc::new(Store::new(10_000));
    let counters = families::ALL
        .iter()
        .filter(|metric| metric.kind == Kind::Counter);
    for metric in counters {
        let values = vec!["x"; metric.labels.len()];
        store.metrics.counter(metric, &values).unwrap().inc();
    }
    let resource = Resource::default();
    let whole = Push {
        resource: &resource,
        start_unix_nanos: 1,
        unix_nanos: 2,
        histograms: HistogramForm::Explicit,
    };
    let whole = whole.encode(&store.metrics.snapshot(), &[]);
    let names = |message: &ExportMetricsServiceRequest| -> Vec<String> {
        let metrics = &message.resource_metrics[0].scope_metrics[0].metrics;
        metrics.iter().map(|metric| metric.name.clone()).collect()
    };
    let all = names(&whole);
    let count = points(&whole);
    let limit = 2_000;
    let parts = parts(whole, limit);
    assert!(parts.len() > 1);
    assert_eq!(parts.iter().flat_map(names).collect::<Vec<_>>(), all);
    assert_eq!(parts.iter().map(points).sum::<u64>(), count);
    for part in &parts {
        assert!(part.encoded_len() <= limit || names(part).len() == 1);
    }
}
