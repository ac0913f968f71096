//! Who asks: a client, or an edge that fills itself.
//!
//! Guide 2.1. Metric: `cache_requests_total{cache_class="fill"}`. Breaking test:
//! `what_the_edge_fetches_is_fill_and_not_judged`. An edge asks for what L1 and L2 have long forgotten, so its
//! lookups say nothing about how well those serve clients.

use streamgate_agent::CacheClass;

tokio::task_local! {
    static EDGE: ();
}

/// Runs what answers a request of an edge.
pub(crate) async fn for_edge<F: Future>(answer: F) -> F::Output {
    EDGE.scope((), answer).await
}

/// Who the running request is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    Client,
    Edge,
}

impl Asker {
    /// To be asked in the request's own task: another one knows nothing of it.
    pub(super) fn now() -> Self {
        match EDGE.try_with(|()| ()) {
            Ok(()) => Self::Edge,
            Err(_) => Self::Client,
        }
    }

    /// The class of a lookup that found something of `class`.
    pub(super) fn class(self, of: CacheClass) -> CacheClass {
        match (self, of) {
            (Self::Edge, CacheClass::Public) => CacheClass::Fill,
            (_, other) => other,
        }
    }
}
