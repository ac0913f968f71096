//! Reads contents: one by id, with its NFTs in one join, and pages.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::{ColumnIndex, Decode, FromRow, Row, Type};
use uuid::Uuid;

use super::lease::run;
use super::nft::Nft;
use super::{Database, DbError, Position};
use crate::faults::Fault;

/// One content with its body.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Content {
    pub(crate) id: String,
    pub(crate) user_id: String,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) status: String,
    pub(crate) kind: String,
    pub(crate) visibility: String,
    pub(crate) body: String,
    pub(crate) body_bytes: i64,
    pub(crate) version: i64,
    pub(crate) metadata: Box<RawValue>,
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
    pub(crate) storage: Storage,
}

/// Where the payload of a content lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Storage {
    /// In the row.
    Hot,
    /// In an object; body and metadata of the row are empty.
    Cold,
}

/// One content as lists show it.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct ContentSummary {
    pub(crate) id: String,
    pub(crate) user_id: String,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) status: String,
    pub(crate) kind: String,
    pub(crate) visibility: String,
    pub(crate) body_bytes: i64,
    pub(crate) version: i64,
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
}

/// A content joined with one of its NFTs, if it has any.
#[derive(FromRow)]
struct WithNft {
    #[sqlx(flatten)]
    content: Content,
    nft_id: Option<String>,
    contract_address: Option<String>,
    token_id: Option<String>,
    owner_address: Option<String>,
    chain_id: Option<i64>,
}

impl WithNft {
    fn nft(&self) -> Option<Nft> {
        Some(Nft {
            id: self.nft_id.clone()?,
            contract_address: self.contract_address.clone()?,
            token_id: self.token_id.clone()?,
            owner_address: self.owner_address.clone()?,
            chain_id: self.chain_id?,
            content_id: Some(self.content.id.clone()),
        })
    }
}

/// Which contents a list shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ContentFilter {
    pub(crate) user_id: Option<Uuid>,
    pub(crate) status: Option<&'static str>,
}

/// By hand, because text has to become raw JSON on the way.
impl<'r, R: Row> FromRow<'r, R> for Content
where
    &'static str: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        let metadata = RawValue::from_string(row.try_get("metadata")?)
            .map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        Ok(Self {
            id: row.try_get("id")?,
            user_id: row.try_get("user_id")?,
            title: row.try_get("title")?,
            description: row.try_get("description")?,
            status: row.try_get("status")?,
            kind: row.try_get("kind")?,
            visibility: row.try_get("visibility")?,
            body: row.try_get("body")?,
            body_bytes: row.try_get("body_bytes")?,
            version: row.try_get("version")?,
            metadata,
            created_at: row.try_get("created_at")?,
            updated_at: row.try_get("updated_at")?,
            storage: match row.try_get::<String, _>("archive_state")?.as_str() {
                "archived" => Storage::Cold,
                _ => Storage::Hot,
            },
        })
    }
}

impl Database {
    /// The content with this id.
    pub(crate) async fn content(&self, id: Uuid) -> Result<Option<Content>, DbError> {
        let mut lease = self.reader().await?;
        let id = id.to_string();
        let statement = &self.statements.content_by_id;
        let rows = |row: &Option<_>| usize::from(row.is_some());
        run!(self, lease.conn(), statement, rows, |sql, on| {
            sqlx::query_as(sql).bind(&id).fetch_optional(on)
        })
    }

    /// The content with this id and the NFTs that point at it, by one statement.
    pub(crate) async fn content_with_nfts(
        &self,
        id: Uuid,
    ) -> Result<Option<(Content, Vec<Nft>)>, DbError> {
        if self.faults.is_on(Fault::NPlusOne) {
            return self.content_and_each_nft(id).await;
        }
        let mut lease = self.reader().await?;
        let id = id.to_string();
        let statement = &self.statements.content_with_nfts;
        let rows: Vec<WithNft> = run!(self, lease.conn(), statement, Vec::len, |sql, on| {
            sqlx::query_as(sql).bind(&id).fetch_all(on)
        })?;
        let mut content = None;
        let mut nfts = Vec::new();
        for row in rows {
            nfts.extend(row.nft());
            content.get_or_insert(row.content);
        }
        Ok(content.map(|content| (content, nfts)))
    }

    /// What the fault `nplus1` does instead: a statement for the content, one for the ids of its NFTs, and
    /// one for each of them.
    async fn content_and_each_nft(&self, id: Uuid) -> Result<Option<(Content, Vec<Nft>)>, DbError> {
        let Some(content) = self.content(id).await? else {
            return Ok(None);
        };
        let mut nfts = Vec::new();
        for nft in self.nft_ids_of_content(id).await? {
            nfts.extend(self.nft(&nft).await?);
        }
        Ok(Some((content, nfts)))
    }

    /// Up to `limit` contents after a position, newest first.
    pub(crate) async fn content_page(
        &self,
        filter: &ContentFilter,
        after: Position,
        limit: u32,
    ) -> Result<Vec<ContentSummary>, DbError> {
        let all = &self.statements;
        let statement = match (filter.user_id, filter.status) {
            (None, None) => &all.content_page,
            (None, Some(_)) => &all.content_page_by_status,
            (Some(_), None) => &all.content_page_by_user,
            (Some(_), Some(_)) => &all.content_page_by_user_and_status,
        };
        let mut lease = self.reader().await?;
        run!(self, lease.conn(), statement, Vec::len, |sql, on| {
            let mut query = sqlx::query_as(sql)
                .bind(after.id.to_string())
                .bind(i64::from(limit));
            if let Some(user) = filter.user_id {
                query = query.bind(user.to_string());
            }
            if let Some(status) = filter.status {
                query = query.bind(status);
            }
            query.fetch_all(on)
        })
    }

    /// What the fault `nplus1` adds to a page: a statement for each of its rows.
    pub(crate) async fn read_again_one_by_one(
        &self,
        rows: &[ContentSummary],
    ) -> Result<(), DbError> {
        if self.faults.is_on(Fault::NPlusOne) {
            for id in rows.iter().filter_map(|row| row.id.parse().ok()) {
                self.content(id).await?;
            }
        }
        Ok(())
    }
}

impl Content {
    /// Whether only holders of an NFT may see what it leads to.
    pub(crate) fn is_gated(&self) -> bool {
        self.visibility != "public"
    }

    /// Bytes behind the strings.
    pub(crate) fn heap_bytes(&self) -> usize {
        let texts = [
            &self.id,
            &self.user_id,
            &self.title,
            &self.description,
            &self.status,
            &self.kind,
            &self.visibility,
            &self.body,
        ];
        texts.iter().map(|text| text.len()).sum::<usize>() + self.metadata.get().len()
    }
}
