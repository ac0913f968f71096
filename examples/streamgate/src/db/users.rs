//! Reads one user with what he has published.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::lease::run;
use super::{Database, DbError};

/// One user and the sums over his contents.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) wallet_address: String,
    pub(crate) display_name: String,
    pub(crate) created_at: i64,
    pub(crate) content_bytes: i64,
    /// Status and number of contents in it; a status without contents is absent.
    pub(crate) content_by_status: BTreeMap<String, i64>,
}

impl Database {
    /// The user with this id: three statements on one connection, each by an index.
    pub(crate) async fn user(&self, id: Uuid) -> Result<Option<User>, DbError> {
        let id = id.to_string();
        let mut lease = self.reader().await?;

        let statement = &self.statements.user_by_id;
        let rows = |row: &Option<_>| usize::from(row.is_some());
        let row: Option<(String, String, String, i64)> =
            run!(self, lease.conn(), statement, rows, |sql, on| {
                sqlx::query_as(sql).bind(&id).fetch_optional(on)
            })?;
        let Some((id, wallet_address, display_name, created_at)) = row else {
            return Ok(None);
        };

        let statement = &self.statements.content_bytes_of_user;
        let content_bytes = run!(self, lease.conn(), statement, |_| 1, |sql, on| {
            sqlx::query_scalar(sql).bind(&id).fetch_one(on)
        })?;

        let statement = &self.statements.content_counts_of_user;
        let counts: Vec<(String, i64)> =
            run!(self, lease.conn(), statement, Vec::len, |sql, on| {
                sqlx::query_as(sql).bind(&id).fetch_all(on)
            })?;
        let content_by_status = counts.into_iter().collect();

        Ok(Some(User {
            id,
            wallet_address,
            display_name,
            created_at,
            content_bytes,
            content_by_status,
        }))
    }
}

impl User {
    /// Bytes of the value and behind its strings.
    pub(crate) fn bytes(&self) -> usize {
        let counts = self.content_by_status.iter();
        size_of::<Self>()
            + self.id.len()
            + self.wallet_address.len()
            + self.display_name.len()
            + counts
                .map(|(status, n)| size_of_val(status) + status.len() + size_of_val(n))
                .sum::<usize>()
    }
}
