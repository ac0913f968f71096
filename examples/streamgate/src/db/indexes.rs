//! The indexes by name, and how one is taken away and given back.
//!
//! Guide 1.1. Breaking tests: `a_dropped_index_changes_the_plan_until_the_fault_ends`,
//! `all_indexes_exist_by_name_and_each_is_used`.

use super::Database;

/// What makes them; the migration has run it once.
const TEXT: &str = include_str!("../../migrations/0002_indexes.sql");

/// Each index with the statement that makes it.
pub(crate) fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    TEXT.lines().filter_map(|line| {
        let (name, _) = line.strip_prefix("CREATE INDEX ")?.split_once(' ')?;
        Some((name, line))
    })
}

impl Database {
    /// Makes every index again that is missing, and then takes away the one at this place, from 1; 0 takes
    /// none. Whoever was killed with an index away is helped by the next start.
    ///
    /// # Errors
    /// The database refuses; some may have been made.
    pub(crate) async fn swap_index(&self, place: u64) -> sqlx::Result<()> {
        let mut conn = self.direct().await?;
        for (_, create) in all() {
            let again = create.replacen("CREATE INDEX", "CREATE INDEX IF NOT EXISTS", 1);
            sqlx::query(sqlx::AssertSqlSafe(again))
                .execute(&mut *conn)
                .await?;
        }
        let place = usize::try_from(place).unwrap_or(usize::MAX).checked_sub(1);
        if let Some((name, _)) = place.and_then(|place| all().nth(place)) {
            let drop = sqlx::AssertSqlSafe(format!("DROP INDEX {name}"));
            sqlx::query(drop).execute(&mut *conn).await?;
        }
        Ok(())
    }
}
