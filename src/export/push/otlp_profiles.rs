//! Profiles to a collector, as OTLP in development.

use std::sync::Arc;
use std::time::Instant;

use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceResponse;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;

use super::MESSAGE_BYTES;
use super::post::{Outcome, Post};
use super::profiles::{ProfilesPush, Receiver, count_lost, settle};
use super::windows::Sent;
use crate::catalog::families;
use crate::config::otlp::Otlp;
use crate::export::otlp::profiles::encode;
use crate::store::Store;
use crate::store::metrics::Histogram;
use crate::store::profile::Profile;

const COMPONENT: &str = "otlp_http_profile_exporter";

/// A collector.
struct Collector {
    store: Arc<Store>,
    post: Post,
    resource: Resource,
    took: Histogram,
}

/// A push to the collector; `None` where profiles are not to be pushed.
pub(crate) fn push(store: &Arc<Store>, otlp: &Otlp, resource: Resource) -> Option<ProfilesPush> {
    let row = &families::OTEL_EXPORTER_OPERATION_DURATION;
    let collector = Collector {
        store: Arc::clone(store),
        post: Post::new(otlp.profiles.clone()?),
        resource,
        took: store.metrics.own_histogram(row, &[COMPONENT]),
    };
    Some(ProfilesPush::new(store, Box::new(collector)))
}

impl Receiver for Collector {
    fn send(&self, profile: &Profile) -> Sent {
        let Ok(message) = encode(&self.resource, profile, MESSAGE_BYTES) else {
            count_lost(&self.store, "size", 1);
            return Sent::Done;
        };
        let started = Instant::now();
        let outcome = self.post.send(&message);
        self.took.record(started.elapsed());
        if let Outcome::Accepted(body) = &outcome {
            count_lost(&self.store, "rejected", rejected(body));
        }
        settle(&self.store, &outcome)
    }
}

/// Profiles that the collector says it could not use.
fn rejected(body: &[u8]) -> u64 {
    let answer = ExportProfilesServiceResponse::decode(body).unwrap_or_default();
    let partial = answer.partial_success.unwrap_or_default();
    u64::try_from(partial.rejected_profiles).unwrap_or(0)
}

#[cfg(test)]
#[path = "otlp_profiles_tests.rs"]
mod tests;
