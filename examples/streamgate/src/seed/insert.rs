//! Writes the demo data: a hundred rows per statement, one transaction, indexes at the end.
//!
//! Guide 1.3 (batch instead of single rows). Indexes that exist while rows arrive in random order
//! are rewritten all over; built afterwards they are sorted once. Measured with SQLite 3.40 from
//! Python on a busy 2-core VM, 2026-11, 300 000 rows: 30.2 s with indexes from the start, 17.9 s
//! with indexes at the end. A crash on the way leaves the database as it was, indexes included.

use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection as _, Sqlite};

use super::rows;

/// Rows per statement: at most 1 200 binds of the 32 766 that SQLite takes.
const CHUNK: u64 = 100;

/// A row that knows its table.
pub(super) trait Insert: Sized {
    /// The statement up to the word `VALUES`.
    const INTO: &'static str;
    /// The row's place-holders in parentheses.
    const VALUES: &'static str;

    /// Binds the row's values in the order of its columns.
    fn bind(self, query: Statement<'_>) -> Statement<'_>;
}

/// A statement while its values are bound.
pub(super) type Statement<'q> = Query<'q, Sqlite, SqliteArguments>;

/// Seeds an empty database; leaves one that already holds users as it is.
///
/// # Errors
/// The driver's error; nothing is kept.
pub(crate) async fn seed(
    conn: &mut SqliteConnection,
    seed: u64,
    users: u64,
    contents: u64,
) -> sqlx::Result<()> {
    let seeded: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM users)")
        .fetch_one(&mut *conn)
        .await?;
    if seeded {
        return Ok(());
    }
    let mut transaction = conn.begin().await?;
    write(&mut transaction, seed, users, contents).await?;
    transaction.commit().await?;
    // Otherwise the log stays as large as the database, and every read looks through it first.
    execute(conn, "PRAGMA wal_checkpoint(TRUNCATE)".to_owned()).await
}

async fn write(
    conn: &mut SqliteConnection,
    seed: u64,
    users: u64,
    contents: u64,
) -> sqlx::Result<()> {
    let indexes = drop_indexes(conn).await?;
    fill(conn, users, |i| rows::user(seed, i)).await?;
    fill(conn, contents, |i| rows::content(seed, i, users)).await?;
    fill(conn, contents, |i| rows::nft(seed, i, users)).await?;
    fill(conn, contents, |i| rows::transaction(seed, i, users)).await?;
    for create in indexes {
        execute(conn, create).await?;
    }
    Ok(())
}

/// Drops the named indexes and gives the statements that make them again.
async fn drop_indexes(conn: &mut SqliteConnection) -> sqlx::Result<Vec<String>> {
    let indexes: Vec<(String, String)> = sqlx::query_as(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND name LIKE 'idx_%'",
    )
    .fetch_all(&mut *conn)
    .await?;
    for (name, _) in &indexes {
        execute(conn, format!("DROP INDEX {name}")).await?;
    }
    Ok(indexes.into_iter().map(|(_, create)| create).collect())
}

/// Runs a text that the database itself has given: the names and statements of the migrations.
async fn execute(conn: &mut SqliteConnection, text: String) -> sqlx::Result<()> {
    sqlx::query(AssertSqlSafe(text))
        .persistent(false)
        .execute(conn)
        .await
        .map(|_| ())
}

async fn fill<R: Insert>(
    conn: &mut SqliteConnection,
    rows: u64,
    row: impl Fn(u64) -> R,
) -> sqlx::Result<()> {
    let mut start = 0;
    while start < rows {
        let end = rows.min(start.saturating_add(CHUNK));
        // Two texts in all, of constants only: full chunks and the last one.
        let values: Vec<&str> = (start..end).map(|_| R::VALUES).collect();
        let text = format!("{} VALUES {}", R::INTO, values.join(", "));
        let statement = sqlx::query(AssertSqlSafe(text));
        let bound = (start..end).fold(statement, |statement, index| row(index).bind(statement));
        bound.execute(&mut *conn).await?;
        start = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn database() -> SqliteConnection {
        let mut conn = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::migrate!("./migrations").run(&mut conn).await.unwrap();
        conn
    }

    async fn count(conn: &mut SqliteConnection, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(conn).await.unwrap()
    }

    #[tokio::test]
    async fn all_rows_and_all_indexes_are_there_and_a_second_time_changes_nothing() {
        let mut conn = database().await;
        let indexes = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'index'";
        let before = count(&mut conn, indexes).await;
        for contents in [250, 999] {
            seed(&mut conn, 1, 7, contents).await.unwrap();
            assert_eq!(count(&mut conn, "SELECT COUNT(*) FROM users").await, 7);
            assert_eq!(count(&mut conn, "SELECT COUNT(*) FROM content").await, 250);
            assert_eq!(count(&mut conn, "SELECT COUNT(*) FROM nft").await, 250);
            assert_eq!(
                count(&mut conn, "SELECT COUNT(*) FROM \"transaction\"").await,
                250
            );
            assert_eq!(count(&mut conn, indexes).await, before);
        }
        let wrong = "SELECT COUNT(*) FROM content WHERE body_bytes <> length(CAST(body AS BLOB))";
        assert_eq!(count(&mut conn, wrong).await, 0);
    }

    #[tokio::test]
    async fn no_contents_is_no_error() {
        let mut conn = database().await;
        seed(&mut conn, 1, 1, 0).await.unwrap();
        assert_eq!(count(&mut conn, "SELECT COUNT(*) FROM content").await, 0);
    }
}
