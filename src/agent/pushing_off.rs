//! Pushes nothing: the feature `otlp` is not built.

use std::time::Duration;

use super::Shared;
use crate::error::Error;
use crate::export::flushed::Flushed;

/// Nothing is on its way.
#[derive(Default)]
pub(super) struct Pushing {}

impl Pushing {
    /// Does nothing.
    pub(super) fn stop(&self, _within: Duration) {}

    /// Nothing.
    pub(super) fn flushed(&self) -> Vec<Flushed> {
        Vec::new()
    }
}

/// Does nothing.
///
/// # Errors
/// None.
pub(super) fn start(shared: &Shared) -> Result<Pushing, Error> {
    match (&shared.config.otlp, &shared.config.pyroscope) {
        (None, None) => Ok(Pushing::default()),
        // Nobody can have made one.
        (Some(none), _) => match *none {},
        (_, Some(none)) => match *none {},
    }
}
