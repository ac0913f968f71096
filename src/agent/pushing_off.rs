//! Pushes nothing: the feature `otlp` is not built.

use super::Shared;
use crate::error::Error;

/// Does nothing.
///
/// # Errors
/// None.
pub(super) fn start(_shared: &Shared) -> Result<(), Error> {
    Ok(())
}
