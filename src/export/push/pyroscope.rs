//! Profiles to Pyroscope, as its own clients push them.
//!
//! Source: grafana/pyroscope, `api/push/v1/push.proto` and `pkg/validation`: a Connect call, which for one
//! message is a POST of protobuf, with gzipped pprof in it.

use std::sync::Arc;
use std::time::Duration;

use super::post::Post;
use super::profiles::{ProfilesPush, Receiver, settle};
use super::windows::Sent;
use crate::config::pyroscope::Pyroscope;
use crate::export::pprof;
use crate::export::wire::Message;
use crate::store::Store;
use crate::store::profile::{CPU, Profile};

/// Bytes of a profile before compression and samples of it that Pyroscope takes unless it is told
/// otherwise.
const PROFILE_BYTES: usize = 4 << 20;
/// See [`PROFILE_BYTES`].
const SAMPLES: usize = 16_000;

/// A Pyroscope server, or an agent of Grafana's before it.
struct Server {
    store: Arc<Store>,
    post: Post,
    service: String,
    labels: Vec<(String, String)>,
}

/// A push to Pyroscope.
pub(crate) fn push(store: &Arc<Store>, pyroscope: &Pyroscope, service: &str) -> ProfilesPush {
    let labels = pyroscope.labels.iter();
    let server = Server {
        store: Arc::clone(store),
        post: Post::of(pyroscope.target.clone(), "application/proto"),
        service: service.to_owned(),
        labels: labels
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
    };
    ProfilesPush::new(store, Box::new(server))
}

impl Receiver for Server {
    fn send(&self, profile: &Profile, most: Duration) -> Sent {
        let outcome = self.post.send(self.request(profile).as_bytes(), most);
        settle(&self.store, &outcome)
    }
}

impl Server {
    /// `PushRequest` with one series of one sample.
    fn request(&self, profile: &Profile) -> Message {
        let name = if profile.period_type == CPU {
            "process_cpu"
        } else {
            "memory"
        };
        let own = [
            ("__name__", name),
            // What was allocated is a difference already, so that an outage loses none of it.
            ("__delta__", "false"),
            ("service_name", &*self.service),
        ];
        let given = self.labels.iter().map(|(name, value)| (&**name, &**value));
        let mut series = Message::default();
        for (name, value) in own.into_iter().chain(given) {
            let mut pair = Message::default();
            pair.bytes(1, name.as_bytes());
            pair.bytes(2, value.as_bytes());
            series.message(1, &pair);
        }
        let folded;
        let profile = if profile.samples.len() > SAMPLES {
            folded = profile.folded_to(SAMPLES - 1);
            &folded
        } else {
            profile
        };
        let mut sample = Message::default();
        sample.bytes(1, &pprof::encode_within(profile, PROFILE_BYTES));
        series.message(2, &sample);
        let mut request = Message::default();
        request.message(1, &series);
        request
    }
}

#[cfg(test)]
#[path = "pyroscope_tests.rs"]
mod tests;
