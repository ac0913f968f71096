//! Profiles to a server that reads the call as Pyroscope's own proto file describes it.

use prost::Message as _;

use super::super::tests::receiver::{Sent as Request, answers, receiver};
use super::super::windows::tests::answered_store;
use super::*;
use crate::export::profile_tests::read_pprof;
use crate::store::metrics::unix_nanos_now;

#[derive(Clone, PartialEq, prost::Message)]
struct PushRequest {
    #[prost(message, repeated, tag = "1")]
    series: Vec<RawProfileSeries>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RawProfileSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<LabelPair>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<RawSample>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LabelPair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RawSample {
    #[prost(bytes = "vec", tag = "1")]
    raw_profile: Vec<u8>,
    #[prost(string, tag = "2")]
    id: String,
}

/// A moment so many seconds after the push was made.
fn after(seconds: u64) -> u64 {
    unix_nanos_now() / 1_000_000 + seconds * 1_000
}

struct Read {
    labels: Vec<(String, String)>,
    columns: Vec<(String, i64)>,
    samples: usize,
    time_nanos: i64,
}

impl Read {
    /// The sums of the columns, which are named so.
    fn sums<const N: usize>(&self, names: [&str; N]) -> Vec<i64> {
        let columns = self.columns.iter().zip(names);
        let sums = columns.map(|((name, sum), expected)| {
            assert_eq!(name, expected);
            *sum
        });
        sums.collect()
    }
}

const CPU_COLUMNS: [&str; 2] = ["samples", "cpu"];
const HEAP_COLUMNS: [&str; 4] = [
    "alloc_objects",
    "alloc_space",
    "inuse_objects",
    "inuse_space",
];

fn read(body: &[u8]) -> Read {
    let request = PushRequest::decode(body).unwrap();
    let [series] = &request.series[..] else {
        panic!("one series");
    };
    let [sample] = &series.samples[..] else {
        panic!("one sample");
    };
    let labels = series.labels.iter();
    let labels = labels.map(|pair| (pair.name.clone(), pair.value.clone()));
    let (columns, samples, time_nanos) = read_pprof(&sample.raw_profile);
    Read {
        labels: labels.collect(),
        columns,
        samples,
        time_nanos,
    }
}

#[test]
fn a_push_is_the_call_of_pyroscopes_own_clients() {
    let ok = || answers("200 OK", "", &[]);
    let (address, requests) = receiver(vec![ok(), ok(), ok(), ok()]);
    let answered = answered_store();
    let target = Pyroscope::to(&address)
        .unwrap()
        .label("region", "eu")
        .unwrap();
    let target = target.header("X-Scope-OrgID", "shop-1").unwrap();
    let mut push = push(&answered.store, &target, "shop");
    assert_eq!(push.push(after(18)), Duration::ZERO);
    let Request { head, body } = requests.recv().unwrap();
    assert!(
        head.starts_with("post /push.v1.pusherservice/push http/1.1"),
        "{head}"
    );
    for line in [
        "content-type: application/proto",
        "x-scope-orgid: shop-1",
        "user-agent: streamgate-agent/",
    ] {
        assert_eq!(head.matches(line).count(), 1, "{line} in {head}");
    }
    assert!(
        !head.contains("content-encoding") && !head.contains("otel"),
        "{head}"
    );
    let cpu = read(&body);
    let expected = [
        ("__name__", "process_cpu"),
        ("__delta__", "false"),
        ("service_name", "shop"),
        ("region", "eu"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(cpu.labels, expected);
    assert_eq!(cpu.sums(CPU_COLUMNS), [15, 15_000_000_000]);
    let heap = read(&requests.recv().unwrap().body);
    assert_eq!(heap.labels[0].1, "memory");
    assert_eq!(
        heap.sums(HEAP_COLUMNS),
        [10, 1000, 2, 200],
        "since the start"
    );
    push.push(after(33));
    requests.recv().unwrap();
    let heap = read(&requests.recv().unwrap().body);
    assert_eq!(
        heap.sums(HEAP_COLUMNS),
        [1, 100, 2, 200],
        "since the one before"
    );
}

#[test]
fn an_outage_of_pyroscope_loses_no_window_and_no_allocation() {
    let unavailable = || answers("503 Service Unavailable", "", b"{\"code\":\"unavailable\"}");
    let ok = || answers("200 OK", "", &[]);
    let answers = vec![unavailable(), ok(), ok(), unavailable(), ok(), ok()];
    let (address, requests) = receiver(answers);
    let answered = answered_store();
    let target = Pyroscope::to(&address).unwrap();
    let mut push = push(&answered.store, &target, "shop");
    assert_eq!(push.push(after(18)), Duration::from_secs(1));
    assert_eq!(
        push.push(after(33)),
        Duration::from_secs(1),
        "the heap's, after two windows"
    );
    assert_eq!(push.push(after(48)), Duration::ZERO);
    let taken: Vec<_> = requests
        .iter()
        .take(6)
        .map(|request| read(&request.body))
        .collect();
    let firsts = taken.iter().map(|read| read.columns[0].1);
    assert_eq!(firsts.collect::<Vec<_>>(), [15, 15, 15, 10, 15, 11]);
    assert_eq!(
        taken[0].time_nanos, taken[1].time_nanos,
        "the same window again"
    );
}

#[test]
fn a_profile_of_more_samples_than_pyroscope_takes_keeps_its_total() {
    let answered = answered_store();
    let target = Pyroscope::to("http://p").unwrap();
    let server = Server {
        store: Arc::clone(&answered.store),
        post: Post::new(target.target),
        service: "shop".to_owned(),
        labels: Vec::new(),
    };
    let mut profile = super::super::windows::tests::heap(1);
    let one = profile.samples[0].clone();
    profile.samples = vec![one; 20_000];
    let read = read(server.request(&profile).as_bytes());
    assert_eq!(read.samples, SAMPLES);
    assert_eq!(read.columns[0].1, 20_000);
}
