//! Families of foreign registries, in a form that every encoder can write.

use std::sync::{Arc, Mutex};

use super::sync::lock;

/// What a foreign family says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ForeignKind {
    Counter,
    Gauge,
    Histogram,
    Summary,
    Untyped,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ForeignFamily {
    pub(crate) name: String,
    pub(crate) help: String,
    pub(crate) kind: ForeignKind,
    pub(crate) series: Vec<ForeignSeries>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ForeignSeries {
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) value: ForeignValue,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ForeignValue {
    Number(f64),
    /// Upper bounds with cumulative counts, without `+Inf`.
    Histogram {
        buckets: Vec<(f64, u64)>,
        sum: f64,
        count: u64,
    },
    Summary {
        quantiles: Vec<(f64, f64)>,
        sum: f64,
        count: u64,
    },
}

/// The last families gathered.
#[derive(Debug, Default)]
pub(crate) struct Foreign {
    families: Mutex<Arc<[ForeignFamily]>>,
}

impl Foreign {
    pub(crate) fn replace(&self, families: Vec<ForeignFamily>) {
        *lock(&self.families) = families.into();
    }

    pub(crate) fn get(&self) -> Arc<[ForeignFamily]> {
        Arc::clone(&lock(&self.families))
    }
}
