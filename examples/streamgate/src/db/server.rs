//! What a PostgreSQL server allows us: connections, and its own slow log.
//!
//! Guide 1.1, 1.2.

use sqlx::Executor as _;
use sqlx::postgres::PgConnection;

use super::pool::PoolSize;

/// The setting that makes the server write slow statements to its own log.
pub(super) const SLOW_LOG: &str = "log_min_duration_statement";

/// Its value, the guide's 1000 ms.
pub(super) const SLOW_LOG_MS: u32 = 1_000;

/// Connections that are none of the pool's: plans, migrations, listeners, and an administrator's.
const OUTSIDE: u32 = 7;

/// The server's answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    /// `max_connections`.
    pub(super) limit: u32,
    /// Of these, what only superusers and privileged roles get.
    pub(super) reserved: u32,
    /// Why we may not set [`SLOW_LOG`]; `None` where we may.
    pub(super) slow_log_denied: Option<String>,
}

impl Server {
    /// Our share of what the server has left for everybody, at least one.
    pub(super) fn pool_max(&self, size: PoolSize) -> u32 {
        let left = self
            .limit
            .saturating_sub(self.reserved)
            .saturating_sub(OUTSIDE);
        size.max.min(left / size.instances.max(1)).max(1)
    }
}

/// Asks the server. Setting a superuser's parameter takes `GRANT SET ON PARAMETER`, PostgreSQL 15.
pub(super) async fn ask(conn: &mut PgConnection) -> sqlx::Result<Server> {
    // The second setting is new in PostgreSQL 16 and absent before.
    let (limit, reserved): (i32, i32) = sqlx::query_as(
        "SELECT current_setting('max_connections')::int, \
                current_setting('superuser_reserved_connections')::int \
                + COALESCE(current_setting('reserved_connections', true), '0')::int",
    )
    .fetch_one(&mut *conn)
    .await?;
    let set = conn.execute("SET log_min_duration_statement = 1000").await;
    let slow_log_denied = match set {
        Ok(_) => None,
        Err(sqlx::Error::Database(error)) => Some(error.message().to_owned()),
        Err(error) => return Err(error),
    };
    Ok(Server {
        limit: u32::try_from(limit).unwrap_or(0),
        reserved: u32::try_from(reserved).unwrap_or(0),
        slow_log_denied,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_takes_its_share_of_what_the_server_allows() {
        let max = |limit, max, instances| {
            let server = Server {
                limit,
                reserved: 3,
                slow_log_denied: None,
            };
            server.pool_max(PoolSize { max, instances })
        };
        assert_eq!(max(100, 100, 1), 90);
        assert_eq!(max(100, 100, 2), 45);
        assert_eq!(max(500, 100, 2), 100);
        assert_eq!(max(100, 2, 1), 2);
        assert_eq!(max(5, 100, 0), 1);
    }
}
