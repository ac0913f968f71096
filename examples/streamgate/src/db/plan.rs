//! The plan of a statement, as the database would run it with values it does not know yet.
//!
//! Guide 1.1. Nothing is executed. SQLite plans with unbound values; PostgreSQL 15 does so when a prepared
//! statement is held to its generic plan.

use sqlx::{AssertSqlSafe, Executor as _, Row as _};

use super::Direct;
use super::lease::To;

/// Longest time of planning.
const TIMEOUT: &str = "SET statement_timeout = 1000";

/// The steps, one per line.
///
/// # Errors
/// The database refuses the text.
pub(super) async fn plan(direct: &mut Direct, sql: &'static str) -> sqlx::Result<String> {
    let lines: Vec<String> = match direct.to() {
        To::Sqlite(conn) => {
            // Not kept prepared: a kept EXPLAIN shows the plan from before an index was dropped.
            let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
            let steps = sqlx::query(explain).persistent(false).fetch_all(conn);
            let steps = steps.await?;
            let steps = steps.iter().map(|step| step.try_get("detail"));
            steps.collect::<sqlx::Result<_>>()?
        }
        To::Postgres(conn) => {
            conn.execute(TIMEOUT).await?;
            conn.execute("SET plan_cache_mode = force_generic_plan")
                .await?;
            let prepare = AssertSqlSafe(format!("PREPARE explained AS {sql}"));
            conn.execute(prepare).await?;
            let values = vec!["NULL"; binds(sql)];
            let values = if values.is_empty() {
                String::new()
            } else {
                format!(" ({})", values.join(", "))
            };
            let explain = AssertSqlSafe(format!("EXPLAIN EXECUTE explained{values}"));
            // As text, in one message: a prepared EXECUTE of a prepared statement is none.
            let steps = conn.fetch_all(sqlx::raw_sql(explain)).await?;
            conn.execute("DEALLOCATE explained").await?;
            let steps = steps.iter().map(|step| step.try_get(0));
            steps.collect::<sqlx::Result<_>>()?
        }
    };
    Ok(lines.join("\n"))
}

/// The highest number among the place-holders `$1`, `$2`, ..
fn binds(sql: &str) -> usize {
    let after = sql.split('$').skip(1);
    let numbers = after.filter_map(|rest| {
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    });
    numbers.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds_are_counted_by_their_highest_number() {
        assert_eq!(binds("SELECT 1"), 0);
        assert_eq!(binds("SELECT $3 WHERE id < $1 AND ($12, $2)"), 12);
    }
}
