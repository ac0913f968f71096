//! Pages: limit, position, the JSON of a page and its cache key.
//!
//! Guide 3.2. One row more than asked for is read: it tells whether there is a next page, and no
//! client walks into an empty one.

use std::num::IntErrorKind;

use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::ask::Query;
use super::cursor::{ListId, Signer};
use super::fields::{FieldSet, Selectable, Selected};
use super::media::Media;
use crate::cache::{CacheKey, Resource};
use crate::db::{DbError, Position};
use crate::problem::Problem;

const DEFAULT_LIMIT: u32 = 20;
const LARGEST_LIMIT: u32 = 100;

/// Which part of a list was asked for, in which fields.
#[derive(Clone, Debug)]
pub(super) struct PageAsk {
    pub(super) list: ListId,
    pub(super) after: Position,
    pub(super) limit: u32,
    pub(super) fields: FieldSet,
    pub(super) media: Media,
}

#[derive(Serialize)]
#[serde(bound = "")]
struct Page<'a, T: Selectable> {
    items: Vec<Selected<'a, T>>,
    /// The cursor of the next page; null on the last.
    next: Option<String>,
}

impl PageAsk {
    /// Takes `limit`, `cursor` and `fields` from a query.
    pub(super) fn take<T: Selectable>(
        query: &mut Query,
        list: ListId,
        media: Media,
        signer: &Signer,
    ) -> Result<Self, Problem> {
        let limit = limit(query.take("limit")?.as_deref())?;
        let fields = FieldSet::parse::<T>(query.take("fields")?.as_deref())?;
        let after = match query.take("cursor")? {
            Some(text) => signer.verify(&list, &text)?,
            None => Position::START,
        };
        Ok(Self {
            list,
            after,
            limit,
            fields,
            media,
        })
    }

    /// How many rows to read.
    pub(super) fn rows_to_read(&self) -> u32 {
        self.limit + 1
    }

    /// The key under which the page is cached: everything that shapes its bytes.
    pub(super) fn key(&self, resource: Resource) -> CacheKey {
        let mut digest = Sha256::new();
        // The only part of variable length is last, so that no two requests share a text.
        digest.update(self.limit.to_be_bytes());
        digest.update([u8::from(self.media == Media::Protobuf)]);
        digest.update(self.fields.bits().to_be_bytes());
        digest.update(self.after.micros.to_be_bytes());
        digest.update(self.after.id.as_bytes());
        digest.update(&self.list.0);
        let digest: [u8; 32] = digest.finalize().into();
        let mut first = [0; 16];
        first
            .iter_mut()
            .zip(digest)
            .for_each(|(to, from)| *to = from);
        CacheKey::page(resource, first)
    }

    /// The JSON of a page out of the rows read.
    pub(super) fn json<T: Selectable>(
        &self,
        rows: &[T],
        signer: &Signer,
        position: impl Fn(&T) -> Option<Position>,
    ) -> Result<Bytes, DbError> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let shown = rows.get(..limit).unwrap_or(rows);
        let more = rows.len() > shown.len();
        let last = shown.last().filter(|_| more).and_then(position);
        let page = Page {
            items: shown
                .iter()
                .map(|row| Selected {
                    row,
                    fields: self.fields,
                })
                .collect(),
            next: last.map(|position| signer.sign(&self.list, position)),
        };
        let json = serde_json::to_vec(&page).map_err(DbError::encode)?;
        // As long as it is, since it is kept.
        Ok(json.into_boxed_slice().into())
    }
}

/// The position of a row in a list ordered by id.
pub(super) fn by_id(id: &str) -> Option<Position> {
    Some(Position {
        micros: i64::MAX,
        id: Uuid::try_parse(id).ok()?,
    })
}

/// 1..=100, 20 when absent; more is clamped, so that a client may say "as many as you give".
fn limit(text: Option<&str>) -> Result<u32, Problem> {
    let Some(text) = text else {
        return Ok(DEFAULT_LIMIT);
    };
    match text.parse::<u32>() {
        Ok(limit) if limit > 0 => Ok(limit.min(LARGEST_LIMIT)),
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => Ok(LARGEST_LIMIT),
        _ => Err(Problem::parameter("limit", "1..=100", text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_clamped_above_and_refused_below() {
        let limit = |text| limit(Some(text)).ok();
        assert_eq!(super::limit(None).unwrap(), 20);
        assert_eq!(limit("1"), Some(1));
        assert_eq!(limit("100"), Some(100));
        assert_eq!(limit("101"), Some(100));
        assert_eq!(limit("99999999999999999999"), Some(100));
        for bad in ["0", "-1", "-99999999999999999999", "ten", "", " 5", "5.0"] {
            assert_eq!(limit(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn every_part_of_the_request_is_in_the_key() {
        let ask = PageAsk {
            list: ListId("a".to_owned()),
            after: Position::START,
            limit: 20,
            fields: FieldSet::ALL,
            media: Media::Json,
        };
        let key = ask.key(Resource::Content);
        let others = [
            PageAsk {
                list: ListId("b".to_owned()),
                ..ask.clone()
            }
            .key(Resource::Content),
            PageAsk {
                media: Media::Protobuf,
                ..ask.clone()
            }
            .key(Resource::Content),
            PageAsk {
                limit: 21,
                ..ask.clone()
            }
            .key(Resource::Content),
            PageAsk {
                after: Position {
                    micros: 1,
                    ..Position::START
                },
                ..ask.clone()
            }
            .key(Resource::Content),
            PageAsk {
                after: Position {
                    id: Uuid::nil(),
                    ..Position::START
                },
                ..ask.clone()
            }
            .key(Resource::Content),
            ask.key(Resource::Nft),
        ];
        assert!(others.iter().all(|other| *other != key));
        assert_eq!(ask.clone().key(Resource::Content), key);
    }
}
