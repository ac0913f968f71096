//! CPU time by route, as the samples say: the same numbers that a profile's labels add up to.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::families;
use crate::store::Store;
use crate::store::label::{LabelSet, ROUTE};
use crate::store::metrics::ObservedCounter;

/// The route of work that serves no request.
const NONE: &str = "<none>";

/// Sums since start.
pub(super) struct RouteCpu {
    store: Arc<Store>,
    routes: HashMap<LabelSet, Arc<str>>,
    sums: HashMap<Arc<str>, Sum>,
}

struct Sum {
    cpu: Duration,
    /// Absent if the catalogue's row does not fit, which a test excludes.
    shown: Option<ObservedCounter>,
}

impl fmt::Debug for RouteCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteCpu")
            .field("routes", &self.sums.len())
            .finish_non_exhaustive()
    }
}

impl RouteCpu {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            routes: HashMap::new(),
            sums: HashMap::new(),
        }
    }

    /// Adds samples that stand for this much CPU time each.
    pub(super) fn add(&mut self, samples: &HashMap<LabelSet, u64>, period: Duration) {
        for (set, weight) in samples {
            // Sets never change, and there are few: the tables stay as small as their table.
            let route = self.routes.entry(*set);
            let route = route.or_insert_with(|| set.value(ROUTE).unwrap_or_else(|| NONE.into()));
            let metrics = &self.store.metrics;
            let sum = self.sums.entry(Arc::clone(route)).or_insert_with(|| Sum {
                cpu: Duration::ZERO,
                shown: metrics
                    .observed_counter(&families::HTTP_SERVER_CPU_TIME, &[route])
                    .ok(),
            });
            let weight = u32::try_from(*weight).unwrap_or(u32::MAX);
            sum.cpu = sum.cpu.saturating_add(period.saturating_mul(weight));
            if let Some(shown) = &sum.shown {
                shown.set(sum.cpu.as_secs_f64());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::metrics::Value;

    #[test]
    fn samples_add_up_by_route_and_work_without_one_stays_apart() {
        let store = Arc::new(Store::new(100));
        let mut cpu = RouteCpu::new(Arc::clone(&store));
        let get = LabelSet::NONE.with(ROUTE, "/a").with("tenant", "x");
        let other = LabelSet::NONE.with(ROUTE, "/a").with("tenant", "y");
        let samples = HashMap::from([(get, 20), (other, 30), (LabelSet::NONE, 5)]);
        cpu.add(&samples, Duration::from_millis(10));
        cpu.add(&samples, Duration::from_millis(1));
        let snapshot = store.metrics.snapshot();
        let family = snapshot.family(&families::HTTP_SERVER_CPU_TIME).unwrap();
        let value = |route: &str| {
            let mut values = snapshot.values(family);
            let found = values.find(|(series, _)| format!("{series:?}").contains(route));
            found.map(|(_, value)| value)
        };
        assert_eq!(snapshot.values(family).count(), 2);
        assert_eq!(value("/a"), Some(Value::Float(0.55)));
        assert_eq!(value(NONE), Some(Value::Float(0.055)));
    }
}
