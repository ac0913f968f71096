//! The indexes by name, and how one is taken away and given back.
//!
//! Guide 1.1. Breaking tests: `a_dropped_index_changes_the_plan_until_the_fault_ends`,
//! `all_indexes_exist_by_name_and_each_is_used`.

use sqlx::{AssertSqlSafe, Executor as _};

use super::lease::{To, on};
use super::{Database, Direct};

/// What makes them; the migrations have run it once. The lines are those of PostgreSQL as well.
const TEXTS: [&str; 2] = [
    include_str!("../../migrations/0002_indexes.sql"),
    include_str!("../../migrations/0003_archive.sql"),
];

/// While PostgreSQL waits for a table's lock, all who come later wait behind it: as long as for a connection.
const LOCK_TIMEOUT: &str = "SET lock_timeout = 500";

/// Each index with the statement that makes it.
pub(crate) fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    made_by(TEXTS)
}

fn made_by(
    texts: impl IntoIterator<Item = &'static str>,
) -> impl Iterator<Item = (&'static str, &'static str)> {
    texts.into_iter().flat_map(str::lines).filter_map(|line| {
        let (name, _) = line.strip_prefix("CREATE INDEX ")?.split_once(' ')?;
        Some((name, line))
    })
}

/// Makes every index again that is missing, and then takes away the one at this place, from 1; 0 takes
/// none. Whoever was killed with an index away is helped by the next start.
///
/// # Errors
/// The database refuses, or others hold a table; some may have been made.
pub(crate) async fn swap(direct: &mut Direct, place: u64) -> sqlx::Result<()> {
    let there: Vec<String> = match direct.to() {
        To::Sqlite(conn) => {
            let names = "SELECT name FROM sqlite_master WHERE type = 'index'";
            sqlx::query_scalar(names).fetch_all(conn).await?
        }
        To::Postgres(conn) => {
            conn.execute(LOCK_TIMEOUT).await?;
            let names =
                "SELECT indexname::text FROM pg_indexes WHERE schemaname = current_schema()";
            sqlx::query_scalar(names).fetch_all(conn).await?
        }
    };
    for (name, create) in all() {
        if !there.iter().any(|known| known == name) {
            let again = create.replacen("CREATE INDEX", "CREATE INDEX IF NOT EXISTS", 1);
            run(direct, again).await?;
        }
    }
    let place = usize::try_from(place).unwrap_or(usize::MAX).checked_sub(1);
    match place.and_then(|place| all().nth(place)) {
        Some((name, _)) => run(direct, format!("DROP INDEX IF EXISTS {name}")).await,
        None => Ok(()),
    }
}

async fn run(direct: &mut Direct, sql: String) -> sqlx::Result<()> {
    let sql = AssertSqlSafe(sql);
    on!(direct.to(), |on| sqlx::query(sql)
        .execute(on)
        .await
        .map(drop))
}

impl Database {
    /// [`swap`] outside the pools, which a fault may have emptied.
    ///
    /// # Errors
    /// As [`swap`], and where the database cannot be reached.
    pub(crate) async fn swap_index(&self, place: u64) -> sqlx::Result<()> {
        let mut direct = Direct::open(&self.place).await?;
        swap(&mut direct, place).await?;
        direct.close().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_databases_make_the_same_indexes() {
        let postgres = made_by([
            include_str!("../../migrations/postgres/0002_indexes.sql"),
            include_str!("../../migrations/postgres/0003_archive.sql"),
        ]);
        assert!(postgres.eq(all()));
    }
}
