//! What one cache of this process asks L2: typed values, and what is counted of it.
//!
//! Guide 2.1. Metric: `cache_requests_total{cache_level="l2"}`. Breaking test:
//! `each_level_is_asked_for_what_the_one_before_missed`.

use std::sync::Arc;
use std::time::Duration;

use streamgate_agent::{self as agent, Lookup};

use super::asker::Asker;
use super::entry::Cached;
use super::epoch::Tag;
use super::key::CacheKey;
use super::l2::{Known, L2, Token};

/// L2 under the name of one cache.
#[derive(Clone, Debug)]
pub(crate) struct Level2 {
    l2: Arc<L2>,
    observe: agent::Cache,
}

/// What came of asking. A lookup ends with the load, which says its class.
pub(super) enum Asked<V> {
    /// There is no L2.
    Absent,
    Found {
        value: V,
        age: Duration,
        rest: Duration,
    },
    Nothing {
        token: Token,
        lookup: Option<Lookup>,
    },
    Unavailable {
        lookup: Option<Lookup>,
    },
}

impl Level2 {
    pub(crate) fn new(l2: Arc<L2>, observe: agent::Cache) -> Self {
        Self { l2, observe }
    }

    /// Asks for a value; a refresh, which has no asker, is not counted.
    pub(super) async fn ask<V: Cached>(
        &self,
        key: CacheKey,
        tags: &[Tag],
        asker: Option<Asker>,
    ) -> Asked<V> {
        let lookup = asker.map(|asker| (asker, self.observe.get()));
        let found = match self.l2.get(key, tags).await {
            Ok(Known::Value(found)) => found,
            Ok(Known::Nothing(token)) => {
                let lookup = lookup.map(|(_, lookup)| lookup);
                return Asked::Nothing { token, lookup };
            }
            Err(_) => {
                let lookup = lookup.map(|(_, lookup)| lookup);
                return Asked::Unavailable { lookup };
            }
        };
        let Ok(value) = serde_json::from_slice::<V>(&found.body) else {
            // Whole and unchanged, and yet no value: another version of the service wrote it.
            let lookup = lookup.map(|(_, lookup)| lookup);
            return Asked::Unavailable { lookup };
        };
        if let Some((asker, lookup)) = lookup {
            lookup.hit(asker.class(value.class()));
        }
        Asked::Found {
            value,
            age: found.age,
            rest: found.rest,
        }
    }

    /// Stores what was loaded, while its readers have it already.
    pub(super) fn keep<V: Cached>(&self, key: CacheKey, tags: &[Tag], token: Token, value: Arc<V>) {
        let (l2, tags) = (Arc::clone(&self.l2), tags.to_vec());
        tokio::spawn(async move {
            if let Ok(body) = serde_json::to_vec(&*value) {
                l2.store(key, &tags, token, body).await;
            }
        });
    }
}
