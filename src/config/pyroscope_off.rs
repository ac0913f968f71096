//! Stands in for Pyroscope's address where no profiles are pushed.

/// There is none.
#[derive(Debug, Clone)]
pub(crate) enum Pyroscope {}
