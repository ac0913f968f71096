//! A chain for one process: its state is the table of NFTs, its slowness and its failures are settings.
//!
//! The same requests in the same order get the same answers and the same failures. A client of a real chain
//! would be another implementation of the trait; none is linked here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use uuid::Uuid;

use super::{Answer, GateChecker, GateError};
use crate::db::Database;

/// How a chain behaves.
#[derive(Clone, Copy, Debug)]
pub struct ChainSettings {
    /// Time until each answer.
    pub latency: Duration,
    /// Every n-th question stays without an answer; 0: none.
    pub fail_every: u64,
}

/// The chain.
#[derive(Debug)]
pub(crate) struct MockChain {
    db: Arc<Database>,
    settings: ChainSettings,
    asked: AtomicU64,
}

impl MockChain {
    pub(crate) fn new(db: Arc<Database>, settings: ChainSettings) -> Self {
        Self {
            db,
            settings,
            asked: AtomicU64::new(0),
        }
    }
}

impl GateChecker for MockChain {
    fn owns<'a>(&'a self, wallet: &'a str, content: Uuid) -> Answer<'a> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        Box::pin(async move {
            tokio::time::sleep(self.settings.latency).await;
            let every = self.settings.fail_every;
            if every > 0 && asked.is_multiple_of(every) {
                return Err(GateError::Unreachable);
            }
            Ok(self.db.nft_is_owned(wallet, content).await?)
        })
    }
}
