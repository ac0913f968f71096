//! Where messages go, so that tests can be the collector.

use std::time::Duration;

use super::PushSignal;
use crate::config::otlp::Otlp;
use crate::export::push::post::{Outcome, Post};

pub(super) trait Transport: Send + Sync {
    /// Whether there is anywhere to send this signal.
    fn takes(&self, signal: PushSignal) -> bool;

    /// Sends one message, for at most `most`.
    fn send(&self, signal: PushSignal, message: &[u8], most: Duration) -> Outcome;
}

/// OTLP over HTTP, each signal to its own address.
pub(super) struct Posts {
    spans: Option<Post>,
    logs: Option<Post>,
    profiles: Option<Post>,
}

impl Posts {
    pub(super) fn new(otlp: &Otlp) -> Self {
        Self {
            spans: otlp.spans.clone().map(Post::new),
            logs: otlp.logs.clone().map(Post::new),
            profiles: otlp.profiles.clone().map(Post::new),
        }
    }

    fn post(&self, signal: PushSignal) -> Option<&Post> {
        let post = match signal {
            PushSignal::Spans => &self.spans,
            PushSignal::Logs => &self.logs,
            PushSignal::Profiles => &self.profiles,
        };
        post.as_ref()
    }
}

impl Transport for Posts {
    fn takes(&self, signal: PushSignal) -> bool {
        self.post(signal).is_some()
    }

    fn send(&self, signal: PushSignal, message: &[u8], most: Duration) -> Outcome {
        match self.post(signal) {
            Some(post) => post.send(message, most),
            // Left on disk by a process that had an address for it.
            None => Outcome::Refused {
                why: "no_endpoint".into(),
            },
        }
    }
}
