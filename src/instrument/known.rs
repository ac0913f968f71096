//! Handles that are kept by what they are found by, up to a number, so that an event need not look in the core.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};

use crate::store::sync::{read, write};

/// Handles that are kept of those that share it; about 300 bytes each.
const KEPT: usize = 10_000;
/// Bytes of a key that is kept. Longer ones come from clients, not from code.
const KEY_BYTES: usize = 1024;

/// How many handles may still be kept.
#[derive(Debug, Clone)]
pub(super) struct Room(Arc<AtomicUsize>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(KEPT)))
    }
}

/// Handles by key; `None`: there can be none.
#[derive(Debug)]
pub(super) struct Known<K, T> {
    held: RwLock<HashMap<K, Option<Arc<T>>>>,
    room: Room,
}

impl<K: Hash + Eq, T> Known<K, T> {
    pub(super) fn new(room: &Room) -> Self {
        Self {
            held: RwLock::default(),
            room: room.clone(),
        }
    }

    /// The handle of a key of so many bytes, made by `make`, which is told whether it will be kept.
    pub(super) fn get<Q>(
        &self,
        key: &Q,
        bytes: impl FnOnce() -> usize,
        make: impl FnOnce(bool) -> Option<T>,
    ) -> Option<Arc<T>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        if let Some(known) = read(&self.held).get(key) {
            return known.clone();
        }
        let fits = bytes() <= KEY_BYTES;
        let mut held = write(&self.held);
        if let Some(known) = held.get(key) {
            return known.clone();
        }
        let take = |left: usize| left.checked_sub(1);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        if !fits || self.room.0.fetch_update(set, fetch, take).is_err() {
            drop(held);
            return make(false).map(Arc::new);
        }
        let made = make(true).map(Arc::new);
        held.insert(key.to_owned(), made.clone());
        made
    }
}

impl<K, T> Drop for Known<K, T> {
    fn drop(&mut self) {
        let held = read(&self.held).len();
        self.room.0.fetch_add(held, Ordering::Relaxed);
    }
}
