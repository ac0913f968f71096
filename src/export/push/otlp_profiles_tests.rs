//! Profiles to receivers that take, refuse and are gone.

use std::io::Read;
use std::net::TcpListener;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::profiles::v1development::{
    ExportProfilesPartialSuccess, ExportProfilesServiceRequest,
};

use super::super::resource;
use super::super::tests::{answer, receiver};
use super::super::windows::tests::{Answered, answered_store};
use super::*;
use crate::store::metrics::{Value, unix_nanos_now};

fn push(address: &str) -> (Answered, ProfilesPush) {
    let answered = answered_store();
    let otlp = Otlp::to(address).unwrap();
    let resource = resource([("service.name", "shop")], &otlp);
    let push = super::push(&answered.store, &otlp, resource).unwrap();
    (answered, push)
}

/// A moment so many seconds after the push was made.
fn after(seconds: u64) -> u64 {
    unix_nanos_now() / 1_000_000 + seconds * 1_000
}

fn lost(store: &Store) -> Vec<(String, u64)> {
    let snapshot = store.metrics.snapshot();
    let family = snapshot.family(&families::AGENT_DROPPED);
    let values = family
        .into_iter()
        .flat_map(|family| snapshot.values(family));
    let lost = values.map(|(series, value)| {
        let Value::Total(total) = value else {
            panic!("{value:?}");
        };
        assert_eq!(&*series.values[0], "profiles");
        (series.values[1].to_string(), total)
    });
    lost.collect()
}

/// The sums of the values of each profile of the next message.
fn sums(requests: &Receiver<(String, Vec<u8>)>) -> Vec<i64> {
    let (head, body) = requests.recv().unwrap();
    assert!(
        head.starts_with("post /v1development/profiles http/1.1"),
        "{head}"
    );
    assert!(
        head.contains("content-type: application/x-protobuf"),
        "{head}"
    );
    let mut message = Vec::new();
    flate2::read::GzDecoder::new(&*body)
        .read_to_end(&mut message)
        .unwrap();
    let message = ExportProfilesServiceRequest::decode(&*message).unwrap();
    let profiles = &message.resource_profiles[0].scope_profiles[0].profiles;
    let sum = |samples: &[_]| -> i64 {
        let values = samples.iter().map(
            |sample: &opentelemetry_proto::tonic::profiles::v1development::Sample| sample.values[0],
        );
        values.sum()
    };
    profiles
        .iter()
        .map(|profile| sum(&profile.samples))
        .collect()
}

#[test]
fn a_window_of_cpu_and_the_heap_arrive_as_a_message_each() {
    let ok = || answer("200 OK", "", &[]);
    let (address, requests) = receiver(vec![ok(), ok(), ok(), ok()]);
    let (answered, mut push) = push(&address);
    assert_eq!(push.push(after(18)), Duration::ZERO);
    assert_eq!(sums(&requests), [15]);
    assert_eq!(sums(&requests), [10, 1000, 2, 200]);
    assert_eq!(push.push(after(33)), Duration::ZERO);
    assert_eq!(sums(&requests), [15]);
    assert_eq!(sums(&requests), [1, 100, 2, 200]);
    assert_eq!(lost(&answered.store), []);
    let snapshot = answered.store.metrics.snapshot();
    assert!(snapshot.family(&families::AGENT_LAST_SUCCESS).is_some());
}

#[test]
fn an_outage_loses_no_window_and_a_refusal_is_counted_by_its_reason() {
    let rejects = ExportProfilesServiceResponse {
        partial_success: Some(ExportProfilesPartialSuccess {
            rejected_profiles: 3,
            error_message: "no".to_owned(),
        }),
    };
    let (address, requests) = receiver(vec![
        answer("503 Service Unavailable", "Retry-After: 4\r\n", &[]),
        answer("200 OK", "", &[]),
        answer("200 OK", "", &rejects.encode_to_vec()),
        answer("404 Not Found", "", &[]),
    ]);
    let (answered, mut push) = push(&address);
    assert_eq!(push.push(after(18)), Duration::from_secs(4));
    assert_eq!(push.push(after(33)), Duration::ZERO);
    assert_eq!(
        [sums(&requests), sums(&requests), sums(&requests)],
        [[15], [15], [15]]
    );
    assert_eq!(sums(&requests), [10, 1000, 2, 200]);
    let counted = [("rejected".to_owned(), 3), ("404".to_owned(), 1)];
    assert_eq!(lost(&answered.store), counted);
}

#[test]
fn a_collector_that_is_gone_is_tried_again_with_the_same_window() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let (answered, mut push) = push(&format!("http://{closed}"));
    for _ in 0..3 {
        assert_eq!(push.push(after(18)), Duration::from_secs(1));
    }
    assert_eq!(lost(&answered.store), []);
}

#[test]
fn without_a_target_there_is_no_push() {
    let store = Arc::new(Store::new(10));
    let otlp = Otlp::to("http://c").unwrap().without_profiles();
    assert!(super::push(&store, &otlp, Resource::default()).is_none());
}
