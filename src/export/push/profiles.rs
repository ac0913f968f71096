//! CPU and heap profiles to a collector, every 15 s, as OTLP in development.

use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceResponse;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;

use super::post::{Outcome, Post};
use super::windows::{CLOSING, CpuWindows, HeapWindows, Sent, WINDOW};
use super::{LONGEST_WAIT, MESSAGE_BYTES};
use crate::catalog::families;
use crate::config::otlp::Otlp;
use crate::export::otlp::profiles::encode;
use crate::store::Store;
use crate::store::metrics::{Histogram, unix_nanos_now};
use crate::store::profile::Profile;

const SIGNAL: &str = "profiles";
const COMPONENT: &str = "otlp_http_profile_exporter";

/// Pushes windows of samples; what a collector misses is pushed again while the recorder holds it.
pub(crate) struct ProfilesPush {
    cpu: CpuWindows,
    heap: HeapWindows,
    out: Out,
    due: Instant,
}

/// Where they go.
struct Out {
    store: Arc<Store>,
    post: Post,
    resource: Resource,
    took: Histogram,
}

impl ProfilesPush {
    /// `None` where profiles are not to be pushed.
    pub(crate) fn new(store: &Arc<Store>, otlp: &Otlp, resource: Resource) -> Option<Self> {
        let target = otlp.profiles.clone()?;
        let row = &families::OTEL_EXPORTER_OPERATION_DURATION;
        Some(Self {
            cpu: CpuWindows::new(store, unix_nanos_now() / 1_000_000),
            heap: HeapWindows::new(store),
            out: Out {
                store: Arc::clone(store),
                post: Post::new(target),
                resource,
                took: store.metrics.own_histogram(row, &[COMPONENT]),
            },
            due: Instant::now() + WINDOW + CLOSING,
        })
    }

    /// Pushes if it is time, and returns how long until it is again.
    pub(crate) fn turn(&mut self) -> Duration {
        let now = Instant::now();
        if now >= self.due {
            let wait = self.push(unix_nanos_now() / 1_000_000);
            self.due = now + WINDOW.max(wait);
        }
        self.due.saturating_duration_since(Instant::now())
    }

    /// Pushes what is due at a moment, and returns how long the collector wants to be left alone.
    fn push(&mut self, unix_millis: u64) -> Duration {
        let out = &self.out;
        let turn = self.cpu.turn(unix_millis, &mut |profile| out.send(profile));
        count_lost(&self.out.store, SIGNAL, "age", turn.lost);
        if !turn.wait.is_zero() {
            return turn.wait;
        }
        self.heap.turn(&mut |profile| self.out.send(profile))
    }
}

impl Out {
    fn send(&self, profile: &Profile) -> Sent {
        let Ok(message) = encode(&self.resource, profile, MESSAGE_BYTES) else {
            count_lost(&self.store, SIGNAL, "size", 1);
            return Sent::Done;
        };
        let started = Instant::now();
        let outcome = self.post.send(&message);
        self.took.record(started.elapsed());
        match outcome {
            Outcome::Accepted(body) => {
                count_lost(&self.store, SIGNAL, "rejected", rejected(&body));
                say_success(&self.store, SIGNAL);
                Sent::Done
            }
            Outcome::Later { after, .. } => {
                let least = Duration::from_secs(1);
                Sent::Later(after.unwrap_or_default().clamp(least, LONGEST_WAIT))
            }
            Outcome::Refused { why } => {
                count_lost(&self.store, SIGNAL, &why, 1);
                Sent::Done
            }
        }
    }
}

/// Counts what nobody will have.
pub(super) fn count_lost(store: &Store, signal: &str, reason: &str, items: u64) {
    if items > 0 {
        let row = &families::AGENT_DROPPED;
        store.metrics.own_counter(row, &[signal, reason]).add(items);
    }
}

pub(super) fn say_success(store: &Store, signal: &str) {
    let gauge = store
        .metrics
        .own_gauge(&families::AGENT_LAST_SUCCESS, &[signal]);
    gauge.set(unix_nanos_now() as f64 / 1e9);
}

/// Profiles that the collector says it could not use.
fn rejected(body: &[u8]) -> u64 {
    let answer = ExportProfilesServiceResponse::decode(body).unwrap_or_default();
    let partial = answer.partial_success.unwrap_or_default();
    u64::try_from(partial.rejected_profiles).unwrap_or(0)
}

#[cfg(test)]
#[path = "profiles_tests.rs"]
mod tests;
