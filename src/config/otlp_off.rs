//! Stands in for the collector's address where nothing is pushed.

/// There is none.
#[derive(Debug, Clone)]
pub(crate) enum Otlp {}
