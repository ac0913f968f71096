//! Calls nobody: the feature `otlp-grpc` is not built.

use std::time::Duration;

use super::post::Outcome;
use crate::config::otlp::Target;

/// There is none.
pub(super) enum Grpc {}

impl Grpc {
    /// `None`: no target can be spoken to so.
    pub(super) fn new(_target: &Target) -> Option<Self> {
        None
    }

    pub(super) fn send(&self, _message: &[u8], _most: Duration) -> Outcome {
        match *self {}
    }
}
