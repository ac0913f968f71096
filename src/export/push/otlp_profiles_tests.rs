//! Profiles through delivery to a collector.

use std::io::Read;
use std::thread;

use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::profiles::v1development::Profile as Read1;
use prost::Message as _;

use super::super::resource;
use super::super::tests::receiver::{Sent as Request, answers, receiver};
use super::super::windows::tests::answered_store;
use super::*;
use crate::config::otlp::Otlp;
use crate::store::metrics::unix_nanos_now;

/// A moment so many seconds after the push was made.
fn after(seconds: u64) -> u64 {
    unix_nanos_now() / 1_000_000 + seconds * 1_000
}

/// The sum of the values of each profile of a message.
fn sums(request: &Request) -> Vec<i64> {
    let Request { head, body } = request;
    assert!(
        head.starts_with("post /v1development/profiles http/1.1"),
        "{head}"
    );
    assert!(
        head.contains("content-type: application/x-protobuf"),
        "{head}"
    );
    let mut message = Vec::new();
    flate2::read::GzDecoder::new(&**body)
        .read_to_end(&mut message)
        .unwrap();
    let message = ExportProfilesServiceRequest::decode(&*message).unwrap();
    let profiles = &message.resource_profiles[0].scope_profiles[0].profiles;
    let sum = |profile: &Read1| profile.samples.iter().map(|sample| sample.values[0]).sum();
    profiles.iter().map(sum).collect()
}

#[test]
fn windows_of_cpu_and_the_heap_arrive_as_a_message_each_and_are_counted_by_profiles() {
    let ok = || answers("200 OK", "", &[]);
    let (address, requests) = receiver([ok(), ok(), ok(), ok()]);
    let answered = answered_store();
    let otlp = Otlp::to(&address).unwrap();
    let delivery = Delivery::new(&answered.store, &otlp);
    let sending = Arc::clone(&delivery);
    let sending = thread::spawn(move || sending.run());
    let resource = resource([("service.name", "shop")], &otlp);
    let mut push = super::push(&answered.store, &delivery, resource).unwrap();
    assert_eq!(push.push(after(18)), Duration::ZERO);
    assert_eq!(push.push(after(33)), Duration::ZERO);
    drop(push);
    let seen: Vec<_> = requests
        .iter()
        .take(4)
        .map(|request| sums(&request))
        .collect();
    let expected = [
        vec![15],
        vec![10, 1000, 2, 200],
        vec![15],
        vec![1, 100, 2, 200],
    ];
    assert_eq!(seen, expected);
    delivery.close(Duration::from_secs(30));
    sending.join().unwrap();
    let flushed = format!("{:?}", delivery.flushed());
    assert!(flushed.contains("profiles"), "{flushed}");
}

#[test]
fn without_a_target_there_is_no_push() {
    let store = Arc::new(Store::new(10));
    let otlp = Otlp::to("http://c").unwrap().without_profiles();
    let delivery = Delivery::new(&store, &otlp);
    assert!(super::push(&store, &delivery, Resource::default()).is_none());
}
