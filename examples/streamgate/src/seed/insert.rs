//! Writes the demo data: a hundred rows per statement, one transaction, indexes at the end.
//!
//! Guide 1.3 (batch instead of single rows). Indexes that exist while rows arrive in random order
//! are rewritten all over; built afterwards they are sorted once. Measured with SQLite 3.40 from
//! Python on a busy 2-core VM, 2026-11, 300 000 rows: 30.2 s with indexes from the start, 17.9 s
//! with indexes at the end. A crash on the way leaves the database as it was, indexes included.

use sqlx::{AssertSqlSafe, Executor as _};

use super::rows;
use crate::db::Direct;
use crate::db::lease::{To, on};

/// Rows per statement: at most 1 200 binds of the 32 766 that SQLite takes, 65 535 PostgreSQL.
const CHUNK: u64 = 100;

/// A row that knows its table.
pub(super) trait Insert: Sized {
    /// The statement up to the word `VALUES`.
    const INTO: &'static str;

    /// The row's values in the order of its columns.
    fn values(self) -> Vec<Value>;
}

/// A value of either database.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Number(i64),
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

/// Seeds an empty database; leaves one that already holds users as it is. Of several processes that come
/// together one seeds it.
///
/// # Errors
/// The driver's error; nothing is kept once the connection is closed.
pub(crate) async fn seed(
    direct: &mut Direct,
    seed: u64,
    users: u64,
    contents: u64,
) -> sqlx::Result<()> {
    let lock = match direct.to() {
        To::Sqlite(_) => "BEGIN IMMEDIATE",
        // Any number will do that is the same in all of them: SHARE ROW EXCLUSIVE goes with no other writer.
        To::Postgres(_) => "BEGIN; LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE",
    };
    script(direct, lock).await?;
    if is_seeded(direct).await? {
        return script(direct, "ROLLBACK").await;
    }
    write(direct, seed, users, contents).await?;
    script(direct, "COMMIT").await?;
    let settle = match direct.to() {
        // Otherwise the log stays as large as the database, and every read looks through it first.
        To::Sqlite(_) => "PRAGMA wal_checkpoint(TRUNCATE)",
        // Otherwise it plans for empty tables until its own daemon comes by.
        To::Postgres(_) => r#"ANALYZE users, content, nft, "transaction""#,
    };
    script(direct, settle).await
}

async fn write(direct: &mut Direct, seed: u64, users: u64, contents: u64) -> sqlx::Result<()> {
    let indexes = drop_indexes(direct).await?;
    fill(direct, users, |i| rows::user(seed, i)).await?;
    fill(direct, contents, |i| rows::content(seed, i, users)).await?;
    fill(direct, contents, |i| rows::nft(seed, i, users)).await?;
    fill(direct, contents, |i| rows::transaction(seed, i, users)).await?;
    for create in &indexes {
        script(direct, create).await?;
    }
    Ok(())
}

/// Drops the named indexes and gives the statements that make them again.
async fn drop_indexes(direct: &mut Direct) -> sqlx::Result<Vec<String>> {
    let named = match direct.to() {
        To::Sqlite(_) => {
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND name LIKE 'idx_%'"
        }
        To::Postgres(_) => {
            "SELECT indexname::text, indexdef FROM pg_indexes \
             WHERE schemaname = current_schema() AND indexname LIKE 'idx\\_%'"
        }
    };
    let indexes: Vec<(String, String)> = on!(direct.to(), |conn| sqlx::query_as(named)
        .fetch_all(conn)
        .await?);
    for (name, _) in &indexes {
        script(direct, &format!("DROP INDEX {name}")).await?;
    }
    Ok(indexes.into_iter().map(|(_, create)| create).collect())
}

/// Runs a text of our own, or one that the database itself has given: the statements of the migrations.
async fn script(direct: &mut Direct, text: &str) -> sqlx::Result<()> {
    let script = sqlx::raw_sql(AssertSqlSafe(text.to_owned()));
    on!(direct.to(), |conn| conn.execute(script).await.map(drop))
}

async fn is_seeded(direct: &mut Direct) -> sqlx::Result<bool> {
    on!(direct.to(), |conn| {
        let any = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM users)");
        any.fetch_one(conn).await
    })
}

async fn fill<R: Insert>(
    direct: &mut Direct,
    rows: u64,
    row: impl Fn(u64) -> R,
) -> sqlx::Result<()> {
    let mut start = 0;
    while start < rows {
        let end = rows.min(start.saturating_add(CHUNK));
        let chunk: Vec<Vec<Value>> = (start..end).map(|index| row(index).values()).collect();
        // Two texts in all, of constants only: full chunks and the last one.
        let text = format!("{} VALUES {}", R::INTO, places(&chunk));
        let values = chunk.into_iter().flatten();
        on!(direct.to(), |conn| {
            let mut insert = sqlx::query(AssertSqlSafe(text));
            for value in values {
                insert = match value {
                    Value::Text(text) => insert.bind(text),
                    Value::Number(number) => insert.bind(number),
                };
            }
            insert.execute(conn).await.map(drop)?;
        });
        start = end;
    }
    Ok(())
}

/// `($1, $2), ($3, $4)` for two rows of two values.
fn places(rows: &[Vec<Value>]) -> String {
    let mut place = 0;
    let rows = rows.iter().map(|row| {
        let places = row.iter().map(|_| {
            place += 1;
            format!("${place}")
        });
        format!("({})", places.collect::<Vec<_>>().join(", "))
    });
    rows.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Place;

    async fn database() -> Direct {
        let place = Place::File(":memory:".into());
        let mut direct = Direct::open(&place).await.unwrap();
        direct.migrate().await.unwrap();
        direct
    }

    async fn count(direct: &mut Direct, sql: &'static str) -> i64 {
        on!(direct.to(), |conn| sqlx::query_scalar(sql)
            .fetch_one(conn)
            .await
            .unwrap())
    }

    #[tokio::test]
    async fn all_rows_and_all_indexes_are_there_and_a_second_time_changes_nothing() {
        let mut direct = database().await;
        let indexes = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'index'";
        let before = count(&mut direct, indexes).await;
        for contents in [250, 999] {
            seed(&mut direct, 1, 7, contents).await.unwrap();
            assert_eq!(count(&mut direct, "SELECT COUNT(*) FROM users").await, 7);
            assert_eq!(
                count(&mut direct, "SELECT COUNT(*) FROM content").await,
                250
            );
            assert_eq!(count(&mut direct, "SELECT COUNT(*) FROM nft").await, 250);
            assert_eq!(
                count(&mut direct, "SELECT COUNT(*) FROM \"transaction\"").await,
                250
            );
            assert_eq!(count(&mut direct, indexes).await, before);
        }
        let wrong = "SELECT COUNT(*) FROM content WHERE body_bytes <> length(CAST(body AS BLOB))";
        assert_eq!(count(&mut direct, wrong).await, 0);
    }

    #[tokio::test]
    async fn no_contents_is_no_error() {
        let mut direct = database().await;
        seed(&mut direct, 1, 1, 0).await.unwrap();
        assert_eq!(count(&mut direct, "SELECT COUNT(*) FROM content").await, 0);
    }
}
