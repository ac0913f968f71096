//! Pushes nothing: the feature `otlp` is not built.

use super::Shared;
use crate::error::Error;

/// Does nothing.
///
/// # Errors
/// None.
pub(super) fn start(shared: &Shared) -> Result<(), Error> {
    match &shared.config.otlp {
        None => Ok(()),
        // Nobody can have made one.
        Some(none) => match *none {},
    }
}
