//! Cache keys that cannot be confused: `resource:id:variant` as types.
//!
//! Guide 2.2. Breaking test: `different_keys_have_different_texts` (property). There is no
//! constructor from text: `data:x` or `temp` cannot be built, and `a:b` + `c` is not `a` + `b:c`.

use std::fmt;

use uuid::Uuid;

/// What a key is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Resource {
    Content,
    User,
    Nft,
    Transaction,
}

/// Which view of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Variant {
    /// The row alone.
    Row,
    /// The row with its NFTs.
    WithNfts,
    /// A page of a list.
    Page,
}

/// Identity of a cached value; 18 bytes, compared and hashed without allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CacheKey {
    resource: Resource,
    variant: Variant,
    id: u128,
}

impl CacheKey {
    /// The key of one row.
    pub(crate) fn row(resource: Resource, id: Uuid, variant: Variant) -> Self {
        Self {
            resource,
            variant,
            id: id.as_u128(),
        }
    }

    /// The key of a page: 128 bits of the SHA-256 of its normalised filter.
    pub(crate) fn page(resource: Resource, filter_digest: [u8; 16]) -> Self {
        Self {
            resource,
            variant: Variant::Page,
            id: u128::from_be_bytes(filter_digest),
        }
    }
}

/// The text that logs and, later, remote levels use.
impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let resource = match self.resource {
            Resource::Content => "content",
            Resource::User => "user",
            Resource::Nft => "nft",
            Resource::Transaction => "transaction",
        };
        let variant = match self.variant {
            Variant::Row => "row",
            Variant::WithNfts => "with-nfts",
            Variant::Page => "page",
        };
        write!(f, "{resource}:{:032x}:{variant}", self.id)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_key() -> impl Strategy<Value = CacheKey> {
        let resource = prop_oneof![
            Just(Resource::Content),
            Just(Resource::User),
            Just(Resource::Nft),
            Just(Resource::Transaction)
        ];
        let variant = prop_oneof![
            Just(Variant::Row),
            Just(Variant::WithNfts),
            Just(Variant::Page)
        ];
        // Few ids, so that equal ones meet.
        (resource, variant, prop_oneof![0_u128..4, any::<u128>()]).prop_map(
            |(resource, variant, id)| CacheKey {
                resource,
                variant,
                id,
            },
        )
    }

    proptest! {
        #[test]
        fn different_keys_have_different_texts(a in any_key(), b in any_key()) {
            prop_assert_eq!(a == b, a.to_string() == b.to_string());
        }
    }

    #[test]
    fn the_text_has_three_parts_of_the_allowed_letters() {
        let key = CacheKey::row(Resource::Content, Uuid::max(), Variant::WithNfts);
        let text = key.to_string();
        assert_eq!(text, "content:ffffffffffffffffffffffffffffffff:with-nfts");
        assert_eq!(text.split(':').count(), 3);
    }
}
