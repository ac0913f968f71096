//! Reads pages of transactions by user, status or time window.

use sqlx::FromRow;
use uuid::Uuid;

use super::lease::run;
use super::{Database, DbError, Position};

/// One transaction.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Transaction {
    pub(crate) id: String,
    pub(crate) user_id: String,
    pub(crate) tx_hash: String,
    pub(crate) status: String,
    pub(crate) value: String,
    pub(crate) created_at: i64,
}

/// Which transactions a list shows: always exactly one condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TransactionFilter {
    User(Uuid),
    Status(&'static str),
    /// Microseconds since 1970, the end excluded.
    Time {
        from: i64,
        to: i64,
    },
}

impl Database {
    /// Up to `limit` transactions after a position, newest first.
    pub(crate) async fn transaction_page(
        &self,
        filter: &TransactionFilter,
        after: Position,
        limit: u32,
    ) -> Result<Vec<Transaction>, DbError> {
        let all = &self.statements;
        let statement = match filter {
            TransactionFilter::User(_) => &all.transaction_page_by_user,
            TransactionFilter::Status(_) => &all.transaction_page_by_status,
            TransactionFilter::Time { .. } => &all.transaction_page_by_time,
        };
        let mut lease = self.reader().await?;
        run!(self, lease.conn(), statement, Vec::len, |sql, on| {
            let query = sqlx::query_as(sql)
                .bind(after.id.to_string())
                .bind(i64::from(limit));
            let query = match filter {
                TransactionFilter::User(user) => query.bind(user.to_string()),
                TransactionFilter::Status(status) => query.bind(*status),
                TransactionFilter::Time { from, to } => {
                    query.bind(*from).bind(*to).bind(after.micros)
                }
            };
            query.fetch_all(on)
        })
    }
}
