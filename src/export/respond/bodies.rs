//! Bodies in the making: one per scrape however many readers overlap, few large ones at a time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use super::message::Body;
use crate::config;
use crate::store::sync::lock;

/// Pages that overlapping scrapes share.
///
/// A page made after a reader asked is as fresh as one made for that reader. Only living pages are
/// kept: the last reader's end frees the memory.
#[derive(Debug)]
pub(crate) struct Pages<K> {
    made: Mutex<Vec<Made<K>>>,
}

#[derive(Debug)]
struct Made<K> {
    kind: K,
    begun: Instant,
    body: Weak<Body>,
}

impl<K> Default for Pages<K> {
    fn default() -> Self {
        Self {
            made: Mutex::default(),
        }
    }
}

impl<K: PartialEq> Pages<K> {
    /// A living page of this kind whose making began at `asked` or later.
    pub(crate) fn since(&self, asked: Instant, kind: &K) -> Option<Arc<Body>> {
        let made = lock(&self.made);
        made.iter()
            .filter(|page| page.kind == *kind && page.begun >= asked)
            .find_map(|page| page.body.upgrade())
    }

    /// Offers a page to readers that asked before its making began.
    pub(crate) fn offer(&self, kind: K, begun: Instant, body: &Arc<Body>) {
        let mut made = lock(&self.made);
        made.retain(|page| page.kind != kind && page.body.strong_count() > 0);
        made.push(Made {
            kind,
            begun,
            body: Arc::downgrade(body),
        });
    }
}

/// Counts large bodies that are alive.
#[derive(Debug, Default)]
pub(crate) struct LargeBodies(Arc<AtomicUsize>);

/// A large body's place, free again when the body is.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl LargeBodies {
    /// Wraps a body, with a place if it is large; `None` if all places are taken.
    pub(crate) fn admit(&self, bytes: Vec<u8>) -> Option<Body> {
        if bytes.len() <= config::LARGE_BODY_BYTES {
            return Some(Body::new(bytes, None));
        }
        let free = |alive| (alive < config::LARGE_BODIES).then_some(alive + 1);
        // Nothing is published through the count.
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, free)
            .ok()?;
        Some(Body::new(bytes, Some(Place(Arc::clone(&self.0)))))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_page_is_shared_only_with_readers_who_asked_before_it_was_begun() {
        let pages = Pages::default();
        let begun = Instant::now();
        let body = Arc::new(Body::new(b"page".to_vec(), None));
        pages.offer("text", begun, &body);
        assert!(pages.since(begun, &"text").is_some());
        assert!(pages.since(begun, &"openmetrics").is_none());
        let later = begun + Duration::from_nanos(1);
        assert!(pages.since(later, &"text").is_none(), "a stale page");
        drop(body);
        assert!(pages.since(begun, &"text").is_none(), "kept without reader");
    }

    #[test]
    fn a_third_large_body_waits_until_one_is_gone_and_small_ones_never_do() {
        let large = LargeBodies::default();
        let big = || vec![0; config::LARGE_BODY_BYTES + 1];
        let first = large.admit(big()).unwrap();
        let _second = large.admit(big()).unwrap();
        assert!(large.admit(big()).is_none());
        assert!(large.admit(vec![0; config::LARGE_BODY_BYTES]).is_some());
        drop(first);
        assert!(large.admit(big()).is_some());
    }
}
