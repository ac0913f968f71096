//! Tag epochs: invalidation that also reaches loads in flight.
//!
//! Guide 2.3. Metric: `cache_invalidations_total{kind}`. Breaking test:
//! `a_load_in_flight_does_not_bring_back_the_old_value`.
//!
//! A value remembers the sum of its tags' epochs from before its load began. A write bumps the
//! epochs of what it changed; whoever reads compares. That is one addition per tag, needs no list
//! of dependants, and voids a load that read the row before the write committed, which removing the
//! key alone does not.
//!
//! Epochs live in a fixed table and a tag's place is its hash: two tags may share a place, which
//! costs a needless reload now and then and never a stale read.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

/// Places in the table: 512 KiB. A guess: collisions only cost reloads, and a write voids at most
/// one neighbour per tag, so half the places would double a small cost.
const PLACES: usize = 65_536;

/// What a value depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Tag {
    /// One content, in all its views.
    Content(Uuid),
    /// One user: his lists and sums.
    User(Uuid),
    /// Lists over all contents.
    AllContents,
    /// Lists of NFTs.
    AllNfts,
    /// Lists of transactions.
    AllTransactions,
    /// Whatever is kept at all.
    Everything,
}

/// The name that other processes, Redis and the edge know a tag by.
impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Content(id) => write!(f, "content:{id}"),
            Self::User(id) => write!(f, "user:{id}"),
            Self::AllContents => f.write_str("all-contents"),
            Self::AllNfts => f.write_str("all-nfts"),
            Self::AllTransactions => f.write_str("all-transactions"),
            Self::Everything => f.write_str("everything"),
        }
    }
}

impl Tag {
    /// The tag with this name.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let id = |text| Uuid::try_parse(text).ok();
        match name.split_once(':') {
            Some(("content", text)) => id(text).map(Self::Content),
            Some(("user", text)) => id(text).map(Self::User),
            Some(_) => None,
            None => match name {
                "all-contents" => Some(Self::AllContents),
                "all-nfts" => Some(Self::AllNfts),
                "all-transactions" => Some(Self::AllTransactions),
                "everything" => Some(Self::Everything),
                _ => None,
            },
        }
    }
}

/// Sum of the epochs of some tags; grows whenever one of them is bumped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp(u64);

/// The table.
#[derive(Debug)]
pub(crate) struct Epochs {
    places: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl Default for Epochs {
    fn default() -> Self {
        Self {
            places: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl Epochs {
    /// The state of these tags now.
    ///
    /// Acquire pairs with the release of [`bump`](Self::bump): a load that sees the new epoch also
    /// begins after the commit that came before the bump.
    pub(crate) fn stamp(&self, tags: &[Tag]) -> Stamp {
        let tags = tags.iter().copied().chain([Tag::Everything]);
        let epochs = tags.filter_map(|tag| self.place(tag));
        Stamp(epochs.fold(0, |sum, epoch| {
            sum.wrapping_add(epoch.load(Ordering::Acquire))
        }))
    }

    /// Voids every value with this tag, those being loaded included.
    pub(crate) fn bump(&self, tag: Tag) {
        if let Some(epoch) = self.place(tag) {
            epoch.fetch_add(1, Ordering::Release);
        }
    }

    fn place(&self, tag: Tag) -> Option<&AtomicU64> {
        let hash = usize::try_from(self.hasher.hash_one(tag)).unwrap_or(usize::MAX);
        self.places.get(hash % PLACES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_found_by_its_name_and_nothing_else() {
        let id = Uuid::from_u128(7);
        for tag in [
            Tag::Content(id),
            Tag::User(id),
            Tag::AllContents,
            Tag::AllNfts,
            Tag::AllTransactions,
            Tag::Everything,
        ] {
            assert_eq!(Tag::parse(&tag.to_string()), Some(tag));
        }
        for other in ["", "content", "content:", "content:x", "x:7", "all"] {
            assert_eq!(Tag::parse(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_bump_moves_only_stamps_that_hold_the_tag() {
        let epochs = Epochs::default();
        // Two tags may share a place: take a second that does not.
        let first = Tag::Content(Uuid::from_u128(1));
        let other = (2..)
            .map(|n| Tag::Content(Uuid::from_u128(n)))
            .find(|tag| !std::ptr::eq(epochs.place(*tag).unwrap(), epochs.place(first).unwrap()))
            .unwrap();
        let (one, both, unmoved) = (
            epochs.stamp(&[first]),
            epochs.stamp(&[first, other]),
            epochs.stamp(&[other]),
        );
        epochs.bump(first);
        assert!(epochs.stamp(&[first]) > one);
        assert!(epochs.stamp(&[first, other]) > both);
        assert_eq!(epochs.stamp(&[other]), unmoved);
    }
}
