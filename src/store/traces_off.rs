//! Stands in for traces where nothing is pushed.

/// There are none.
#[derive(Debug, Default)]
pub(crate) struct Traces {}
