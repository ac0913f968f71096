//! Stands where CPU samples would be in a build that takes none.

/// Nothing.
#[derive(Debug, Default)]
pub(crate) struct Samples {}
