//! Pushes nothing: the feature `otlp` is not built.

use super::Shared;
use crate::error::Error;

/// Does nothing.
///
/// # Errors
/// None.
pub(super) fn start(shared: &Shared) -> Result<(), Error> {
    match (&shared.config.otlp, &shared.config.pyroscope) {
        (None, None) => Ok(()),
        (Some(never), _) => match *never {},
        (_, Some(never)) => match *never {},
    }
}
