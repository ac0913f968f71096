//! Reads contents: one by id, with its NFTs in one join, and pages.

use serde_json::value::RawValue;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row as _};
use uuid::Uuid;

use super::nft::Nft;
use super::{Database, DbError, Position};
use crate::faults::Fault;

/// One content with its body.
#[derive(Clone, Debug)]
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

/// Which contents a list shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ContentFilter {
    pub(crate) user_id: Option<Uuid>,
    pub(crate) status: Option<&'static str>,
}

impl FromRow<'_, SqliteRow> for Content {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
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
        })
    }
}

impl Database {
    /// The content with this id.
    pub(crate) async fn content(&self, id: Uuid) -> Result<Option<Content>, DbError> {
        let mut lease = self.reader().await?;
        let statement = &self.statements.content_by_id;
        let run = sqlx::query_as(statement.sql)
            .bind(id.to_string())
            .fetch_optional(lease.conn());
        self.timed(statement, |row: &Option<_>| usize::from(row.is_some()), run)
            .await
    }

    /// The content with this id and the NFTs that point at it, by one statement.
    pub(crate) async fn content_with_nfts(
        &self,
        id: Uuid,
    ) -> Result<Option<(Content, Vec<Nft>)>, DbError> {
        let mut lease = self.reader().await?;
        let statement = &self.statements.content_with_nfts;
        let run = sqlx::query(statement.sql)
            .bind(id.to_string())
            .fetch_all(lease.conn());
        let rows = self.timed(statement, Vec::len, run).await?;
        let decoded = || -> sqlx::Result<Option<(Content, Vec<Nft>)>> {
            let Some(first) = rows.first() else {
                return Ok(None);
            };
            let content = Content::from_row(first)?;
            let nfts = rows
                .iter()
                .filter_map(|row| joined_nft(row, &content.id).transpose());
            let nfts = nfts.collect::<sqlx::Result<_>>()?;
            Ok(Some((content, nfts)))
        };
        decoded().map_err(|error| DbError::of(statement.summary, error))
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
        let mut query = sqlx::query_as(statement.sql)
            .bind(after.id.to_string())
            .bind(limit);
        if let Some(user) = filter.user_id {
            query = query.bind(user.to_string());
        }
        if let Some(status) = filter.status {
            query = query.bind(status);
        }
        let mut lease = self.reader().await?;
        self.timed(statement, Vec::len, query.fetch_all(lease.conn()))
            .await
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

/// The NFT half of a joined row; `None` when the content has none.
fn joined_nft(row: &SqliteRow, content_id: &str) -> sqlx::Result<Option<Nft>> {
    let Some(id) = row.try_get::<Option<String>, _>("nft_id")? else {
        return Ok(None);
    };
    Ok(Some(Nft {
        id,
        contract_address: row.try_get("contract_address")?,
        token_id: row.try_get("token_id")?,
        owner_address: row.try_get("owner_address")?,
        chain_id: row.try_get("chain_id")?,
        content_id: Some(content_id.to_owned()),
    }))
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
