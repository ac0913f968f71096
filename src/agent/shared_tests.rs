//! What threads share, in tests that start some without a whole agent.

use std::sync::Arc;

use super::Shared;
use super::judge::Judge;
use crate::assess::target_file::Thresholds;
use crate::config::Config;
use crate::store::Store;

pub(super) fn shared() -> Shared {
    Shared {
        store: Arc::new(Store::new(100)),
        config: Arc::new(Config::new("test")),
        published: Arc::default(),
        stop: Arc::default(),
        threads: Arc::default(),
        runtimes: Arc::default(),
        judge: Arc::new(Judge::new(Thresholds::built_in().unwrap())),
        pressure: Arc::default(),
    }
}
