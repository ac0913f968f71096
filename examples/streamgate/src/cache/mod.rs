//! The in-process cache, level 1.
//!
//! Owns: keys ([`key`]), tag epochs ([`epoch`]), entries ([`entry`]), the bounded map with single flight ([`l1`]) and how
//! large it may be ([`budget`]). May use: the handles of `observe`. Absent: SQL, HTTP and any
//! knowledge of what a value means beyond its size and class.
//!
//! Guide 2.1 (multi-level caching), 2.2 (keys), 2.3 (invalidation), 3.3 (deduplication).

pub(crate) mod asker;
pub(crate) mod budget;
mod entry;
pub(crate) mod epoch;
pub(crate) mod key;
pub(crate) mod l1;
pub(crate) mod l2;
mod level2;

pub(crate) use entry::{Cached, Found};
pub(crate) use epoch::{Epochs, Tag};
pub(crate) use key::{CacheKey, Resource, Variant};
pub(crate) use l1::{L1, LoadError};
pub(crate) use l2::{Bus, L2};
pub(crate) use level2::Level2;
