//! A directory with made-up files, for the tests of this room; gone when dropped.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::catalog::Metric;
use crate::store::metrics::{Metrics, MetricsLimits, Value};

pub(crate) struct Fixture(PathBuf);

impl Fixture {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("streamgate-agent-{}-{number}", std::process::id());
        let root = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&root).unwrap();
        Self(root)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.0
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    pub(crate) fn write(&self, file: &str, text: &str) -> PathBuf {
        let path = self.path(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

pub(crate) fn metrics() -> Metrics {
    Metrics::new(MetricsLimits {
        series: 10_000,
        bytes: 32 << 20,
    })
}

/// Labels and value of each series that has one, in order of registration.
pub(crate) fn shown(metrics: &Metrics, metric: &Metric) -> Vec<(String, f64)> {
    let snapshot = metrics.snapshot();
    let Some(family) = snapshot.family(metric) else {
        return Vec::new();
    };
    let values = snapshot.values(family);
    values
        .map(|(series, value)| {
            let value = match value {
                Value::Float(value) => value,
                Value::Total(total) => total as f64,
                Value::Histogram(row) => row.count() as f64,
                other => panic!("{other:?}"),
            };
            (series.values.join(" "), value)
        })
        .collect()
}

/// The value of the one series with these labels, joined by blanks.
pub(crate) fn value(metrics: &Metrics, metric: &Metric, labels: &str) -> Option<f64> {
    let shown = shown(metrics, metric);
    let mut found = shown.iter().filter(|(seen, _)| seen == labels);
    found.next().map(|(_, value)| *value)
}
