//! Stands in for jemalloc's numbers when the feature `jemalloc` is off: every row is absent.

use std::sync::Arc;

use super::Source;
use crate::error::Error;
use crate::store::Store;

/// Nothing to read.
///
/// # Errors
/// Never; the other build can fail.
#[expect(
    clippy::unnecessary_wraps,
    reason = "the same signature as with the feature"
)]
pub(crate) fn source(_: &Arc<Store>) -> Result<Option<Box<dyn Source>>, Error> {
    Ok(None)
}
