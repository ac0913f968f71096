//! Profiles to a collector, as OTLP in development; delivery waits for it and counts.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::resource::v1::Resource;

use super::MESSAGE_BYTES;
use super::profiles::{ProfilesPush, Receiver, count_lost};
use super::windows::Sent;
use crate::export::delivery::{Delivery, Producer, PushSignal};
use crate::export::otlp::profiles::{count, encode};
use crate::store::Store;
use crate::store::profile::Profile;

/// A collector behind its queue.
struct Collector {
    store: Arc<Store>,
    producer: Producer,
    resource: Resource,
}

/// A push to the collector; `None` where profiles are not to be pushed.
pub(crate) fn push(
    store: &Arc<Store>,
    delivery: &Arc<Delivery>,
    resource: Resource,
) -> Option<ProfilesPush> {
    let collector = Collector {
        store: Arc::clone(store),
        producer: delivery.producer(PushSignal::Profiles)?,
        resource,
    };
    Some(ProfilesPush::new(store, Box::new(collector)))
}

impl Receiver for Collector {
    fn send(&self, profile: &Profile, _most: Duration) -> Sent {
        match encode(&self.resource, profile, MESSAGE_BYTES) {
            Ok(message) => self.producer.enqueue(message, count(profile)),
            Err(_) => count_lost(&self.store, "size", count(profile)),
        }
        Sent::Done
    }
}

#[cfg(test)]
#[path = "otlp_profiles_tests.rs"]
mod tests;
