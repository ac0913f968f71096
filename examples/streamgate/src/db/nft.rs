//! Reads pages of NFTs by owner, contract or token.

use sqlx::FromRow;
use uuid::Uuid;

use super::lease::run;
use super::{Database, DbError, Position};

/// One NFT.
#[derive(serde::Serialize, serde::Deserialize, Clone, Debug, FromRow)]
pub(crate) struct Nft {
    pub(crate) id: String,
    pub(crate) contract_address: String,
    pub(crate) token_id: String,
    pub(crate) owner_address: String,
    pub(crate) chain_id: i64,
    pub(crate) content_id: Option<String>,
}

/// Which NFTs a list shows: always exactly one condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NftFilter {
    Owner(String),
    Contract(String),
    Token(String),
}

impl Database {
    /// Up to `limit` NFTs after a position, newest first.
    pub(crate) async fn nft_page(
        &self,
        filter: &NftFilter,
        after: Position,
        limit: u32,
    ) -> Result<Vec<Nft>, DbError> {
        let (statement, value) = match filter {
            NftFilter::Owner(value) => (&self.statements.nft_page_by_owner, value),
            NftFilter::Contract(value) => (&self.statements.nft_page_by_contract, value),
            NftFilter::Token(value) => (&self.statements.nft_page_by_token, value),
        };
        let mut lease = self.reader().await?;
        run!(self, lease.conn(), statement, Vec::len, |sql, on| {
            sqlx::query_as(sql)
                .bind(after.id.to_string())
                .bind(i64::from(limit))
                .bind(value)
                .fetch_all(on)
        })
    }
}

impl Database {
    /// The NFT with this id.
    pub(super) async fn nft(&self, id: &str) -> Result<Option<Nft>, DbError> {
        let mut lease = self.reader().await?;
        let statement = &self.statements.nft_by_id;
        let rows = |row: &Option<_>| usize::from(row.is_some());
        run!(self, lease.conn(), statement, rows, |sql, on| {
            sqlx::query_as(sql).bind(id).fetch_optional(on)
        })
    }

    /// The ids of the NFTs that point at a content.
    pub(super) async fn nft_ids_of_content(&self, content: Uuid) -> Result<Vec<String>, DbError> {
        let mut lease = self.reader().await?;
        let statement = &self.statements.nft_ids_of_content;
        run!(self, lease.conn(), statement, Vec::len, |sql, on| {
            sqlx::query_scalar(sql)
                .bind(content.to_string())
                .fetch_all(on)
        })
    }

    /// Whether a wallet owns an NFT that points at a content.
    pub(crate) async fn nft_is_owned(&self, wallet: &str, content: Uuid) -> Result<bool, DbError> {
        let mut lease = self.reader().await?;
        let statement = &self.statements.nft_is_owned;
        run!(self, lease.conn(), statement, |_| 1, |sql, on| {
            sqlx::query_scalar(sql)
                .bind(content.to_string())
                .bind(wallet)
                .fetch_one(on)
        })
    }
}

impl Nft {
    /// Bytes of the value and behind its strings.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.id.len()
            + self.contract_address.len()
            + self.token_id.len()
            + self.owner_address.len()
            + self.content_id.as_ref().map_or(0, String::len)
    }
}
