//! Where requests stand in their traces where the agent keeps no spans: what the caller keeps is all there is.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cache::Tier;
use super::query::QueryLabels;
use crate::store::Store;
use crate::store::metrics::TraceContext;

/// Where the caller's span is kept.
#[derive(Debug)]
pub(crate) struct Traced(Option<TraceContext>);

/// Nothing is written down.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watch;

/// Nothing is written down.
#[derive(Debug)]
pub(crate) struct Begun;

/// A place without spans.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Site;

/// How long a piece of work took.
#[derive(Debug, Clone, Copy)]
#[expect(dead_code, reason = "nobody writes it down in this build")]
pub(crate) struct Took<'a> {
    pub(crate) store: &'a Store,
    pub(crate) began: Instant,
    pub(crate) elapsed: Duration,
}

/// What is known of a request at its end.
#[derive(Debug, Clone, Copy)]
#[expect(dead_code, reason = "nobody writes it down in this build")]
pub(crate) struct Ended<'a> {
    pub(crate) method: &'static str,
    pub(crate) route: &'a Arc<str>,
    pub(crate) scheme: &'static str,
    pub(crate) status: u16,
    pub(crate) error: &'static str,
    pub(crate) elapsed: Duration,
    pub(crate) sent_bytes: u64,
}

impl Traced {
    /// What the caller keeps.
    pub(crate) fn begin<'a>(
        _store: &Store,
        _began: Instant,
        _target: &str,
        header: impl Fn(&'static str) -> Option<Cow<'a, str>>,
    ) -> Self {
        let parent = header("traceparent");
        Self(
            parent
                .as_deref()
                .and_then(TraceContext::sampled_from_traceparent),
        )
    }

    /// Where CPU samples of the request belong.
    pub(crate) fn context(&self) -> Option<TraceContext> {
        self.0
    }

    pub(crate) fn watch(&self) -> Watch {
        Watch
    }

    /// Returns what the caller keeps.
    pub(crate) fn end(&mut self, _store: &Store, _ended: Ended<'_>) -> Option<TraceContext> {
        self.0
    }
}

impl Begun {
    #[inline]
    pub(crate) fn now(_store: &Arc<Store>) -> Self {
        Self
    }

    #[inline]
    pub(crate) fn query(&mut self, _took: Took<'_>, _site: Site, _error: &str, _rows: u64) {}

    #[inline]
    pub(crate) fn lookup(&mut self, _took: Took<'_>, _site: Site, _result: &str, _class: &str) {}

    #[inline]
    pub(crate) fn load(&mut self, _took: Took<'_>, _site: Site, _failed: bool) {}
}

pub(crate) fn query_site(_store: &Store, _labels: QueryLabels) -> Site {
    Site
}

pub(crate) fn cache_site(_store: &Store, _name: &str, _tier: Tier, _operation: &str) -> Site {
    Site
}
