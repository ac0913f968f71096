//! Every SQL text of the service with the labels it is measured under.
//!
//! Guide 1.1. Metrics: `db_client_operation_duration_seconds{db_query_summary}`,
//! `db_client_slow_queries_total`, `db_queries_per_request`. Breaking tests:
//! `each_statement_uses_its_index`, `all_indexes_exist_by_name_and_each_is_used`.
//!
//! The texts are static: values only ever arrive as binds, the prepared-statement cache always
//! hits, and a statement's label is bounded. Pages compare with a sentinel that sorts after every
//! id, so that the first page and all others are one text.

use streamgate_agent::{Query, QueryLabels};

/// One text and the handle that times it.
#[derive(Debug)]
pub(crate) struct Statement {
    pub(crate) sql: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) query: Query,
}

macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident: $operation:literal $collection:literal, $summary:literal, $sql:expr;)*) => {
        /// All statements, resolved once at start.
        #[derive(Debug)]
        pub(crate) struct Statements {
            $($(#[$doc])* pub(crate) $name: Statement,)*
        }

        impl Statements {
            pub(crate) fn new(mut query: impl FnMut(QueryLabels) -> Query) -> Self {
                Self {
                    $($name: Statement {
                        sql: $sql,
                        summary: $summary,
                        query: query(QueryLabels {
                            system: "sqlite",
                            namespace: "main",
                            operation: $operation,
                            collection: $collection,
                            summary: $summary,
                        }),
                    },)*
                }
            }
        }

        /// Name and text of every statement.
        #[cfg(test)]
        pub(crate) const TEXTS: &[(&str, &str)] = &[$((stringify!($name), $sql),)*];

        #[cfg(test)]
        const SUMMARIES: &[&str] = &[$($summary,)*];
    };
}

/// Columns a client may see in a list; the rest of the row never leaves the database.
macro_rules! summary_columns {
    () => {
        "id, user_id, title, description, status, kind, visibility, body_bytes, version, \
         created_at, updated_at"
    };
}

/// Columns of one content.
macro_rules! detail_columns {
    () => {
        "c.id, c.user_id, c.title, c.description, c.status, c.kind, c.visibility, c.body, \
         c.body_bytes, c.version, c.metadata, c.created_at, c.updated_at"
    };
}

macro_rules! nft_columns {
    () => {
        "id, contract_address, token_id, owner_address, chain_id, content_id"
    };
}

macro_rules! transaction_columns {
    () => {
        "id, user_id, tx_hash, status, value, created_at"
    };
}

statements! {
    content_by_id: "SELECT" "content", "SELECT content by id",
        concat!("SELECT ", detail_columns!(), " FROM content c WHERE c.id = $1");
    /// One join instead of a second statement per row.
    content_with_nfts: "SELECT" "content", "SELECT content with nfts by id",
        concat!("SELECT ", detail_columns!(), ", n.id AS nft_id, n.contract_address, n.token_id, \
                 n.owner_address, n.chain_id \
                 FROM content c LEFT JOIN nft n ON n.content_id = c.id \
                 WHERE c.id = $1 ORDER BY n.id");
    content_page: "SELECT" "content", "SELECT content page",
        concat!("SELECT ", summary_columns!(), " FROM content \
                 WHERE id < $1 ORDER BY id DESC LIMIT $2");
    /// The sign keeps SQLite from the status index, which would sort all rows of a status.
    content_page_by_status: "SELECT" "content", "SELECT content page by status",
        concat!("SELECT ", summary_columns!(), " FROM content \
                 WHERE id < $1 AND +status = $3 ORDER BY id DESC LIMIT $2");
    content_page_by_user: "SELECT" "content", "SELECT content page by user",
        concat!("SELECT ", summary_columns!(), " FROM content \
                 WHERE user_id = $3 AND id < $1 ORDER BY id DESC LIMIT $2");
    content_page_by_user_and_status: "SELECT" "content", "SELECT content page by user and status",
        concat!("SELECT ", summary_columns!(), " FROM content \
                 WHERE user_id = $3 AND id < $1 AND +status = $4 ORDER BY id DESC LIMIT $2");
    content_bytes_of_user: "SELECT" "content", "SELECT content bytes of user",
        "SELECT COALESCE(SUM(body_bytes), 0) FROM content WHERE user_id = $1";
    content_counts_of_user: "SELECT" "content", "SELECT content counts of user",
        "SELECT status, COUNT(*) FROM content WHERE user_id = $1 GROUP BY status";
    content_processing: "SELECT" "content", "SELECT content processing",
        "SELECT COUNT(*) FROM content WHERE status = 'processing'";
    content_oldest: "SELECT" "content", "SELECT content oldest",
        "SELECT MIN(created_at) FROM content";
    content_version: "SELECT" "content", "SELECT content version",
        "SELECT version, user_id FROM content WHERE id = $1";
    content_insert: "INSERT" "content", "INSERT content batch",
        "INSERT INTO content (id, user_id, title, description, status, kind, visibility, body, \
                body_bytes, metadata, created_at, updated_at) \
         SELECT value ->> 'id', value ->> 'user_id', value ->> 'title', value ->> 'description', \
                value ->> 'status', value ->> 'kind', value ->> 'visibility', value ->> 'body', \
                length(CAST(value ->> 'body' AS BLOB)), value ->> 'metadata', \
                value ->> 'created_at', value ->> 'created_at' FROM json_each($1)";
    content_existing: "SELECT" "content", "SELECT content ids that exist",
        "SELECT id FROM content WHERE id IN (SELECT value FROM json_each($1))";
    content_update: "UPDATE" "content", "UPDATE content",
        concat!("UPDATE content AS c SET title = COALESCE($2, title), \
                 description = COALESCE($3, description), status = COALESCE($4, status), \
                 visibility = COALESCE($5, visibility), body = COALESCE($6, body), \
                 body_bytes = length(CAST(COALESCE($6, body) AS BLOB)), \
                 metadata = COALESCE($7, metadata), \
                 version = version + 1, updated_at = $8 \
                 WHERE id = $1 RETURNING ", "id, user_id, title, description, status, kind, \
                 visibility, body, body_bytes, version, metadata, created_at, updated_at");
    content_delete: "DELETE" "content", "DELETE content",
        "DELETE FROM content WHERE id = $1";
    user_by_id: "SELECT" "users", "SELECT user by id",
        "SELECT id, wallet_address, display_name, created_at FROM users WHERE id = $1";
    users_missing: "SELECT" "users", "SELECT user ids that are missing",
        "SELECT value FROM json_each($1) WHERE value NOT IN (SELECT id FROM users)";
    nft_page_by_owner: "SELECT" "nft", "SELECT nft page by owner",
        concat!("SELECT ", nft_columns!(), " FROM nft \
                 WHERE owner_address = $3 AND id < $1 ORDER BY id DESC LIMIT $2");
    nft_page_by_contract: "SELECT" "nft", "SELECT nft page by contract",
        concat!("SELECT ", nft_columns!(), " FROM nft \
                 WHERE contract_address = $3 AND id < $1 ORDER BY id DESC LIMIT $2");
    nft_page_by_token: "SELECT" "nft", "SELECT nft page by token",
        concat!("SELECT ", nft_columns!(), " FROM nft \
                 WHERE token_id = $3 AND id < $1 ORDER BY id DESC LIMIT $2");
    transaction_page_by_user: "SELECT" "transaction", "SELECT transaction page by user",
        concat!("SELECT ", transaction_columns!(), " FROM \"transaction\" \
                 WHERE user_id = $3 AND id < $1 ORDER BY id DESC LIMIT $2");
    transaction_page_by_status: "SELECT" "transaction", "SELECT transaction page by status",
        concat!("SELECT ", transaction_columns!(), " FROM \"transaction\" \
                 WHERE id < $1 AND +status = $3 ORDER BY id DESC LIMIT $2");
    /// Ordered by time, so the position in the page is time and id.
    transaction_page_by_time: "SELECT" "transaction", "SELECT transaction page by time",
        concat!("SELECT ", transaction_columns!(), " FROM \"transaction\" \
                 WHERE created_at >= $3 AND created_at < $4 AND (created_at, id) < ($5, $1) \
                 ORDER BY created_at DESC, id DESC LIMIT $2");
    transaction_pending: "SELECT" "transaction", "SELECT transaction pending",
        "SELECT COUNT(*) FROM \"transaction\" WHERE status = 'pending'";
    idempotency_find: "SELECT" "idempotency", "SELECT idempotency by key",
        "SELECT request_hash, status, body FROM idempotency WHERE key = $1 AND expires_at > $2";
    idempotency_keep: "INSERT" "idempotency", "INSERT idempotency",
        "INSERT OR REPLACE INTO idempotency (key, request_hash, status, body, expires_at) \
         VALUES ($1, $2, $3, $4, $5)";
    idempotency_expire: "DELETE" "idempotency", "DELETE idempotency expired",
        "DELETE FROM idempotency WHERE expires_at <= $1";
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sqlx::Row as _;
    use streamgate_agent::Agent;

    use super::{SUMMARIES, TEXTS};
    use crate::db::{Database, indexes};
    use crate::observe::Observe;

    /// What each index is for. A primary key stands as SQLite names it.
    const PLANS: &[(&str, &str)] = &[
        ("content_by_id", "sqlite_autoindex_content_1 (id=?)"),
        ("content_with_nfts", "idx_nft_content (content_id=?)"),
        ("content_page", "sqlite_autoindex_content_1 (id<?)"),
        (
            "content_page_by_status",
            "sqlite_autoindex_content_1 (id<?)",
        ),
        (
            "content_page_by_user",
            "idx_content_user_page (user_id=? AND id<?)",
        ),
        (
            "content_page_by_user_and_status",
            "idx_content_user_page (user_id=? AND id<?)",
        ),
        ("content_bytes_of_user", "idx_content_user_id (user_id=?)"),
        (
            "content_counts_of_user",
            "COVERING INDEX idx_content_user_status (user_id=?)",
        ),
        (
            "content_processing",
            "COVERING INDEX idx_content_status (status=?)",
        ),
        ("content_oldest", "COVERING INDEX idx_content_created_at"),
        ("nft_page_by_owner", "idx_nft_owner (owner_address=?)"),
        (
            "nft_page_by_contract",
            "idx_nft_contract (contract_address=?)",
        ),
        ("nft_page_by_token", "idx_nft_token_id (token_id=?)"),
        (
            "transaction_page_by_user",
            "idx_transaction_user (user_id=?)",
        ),
        (
            "transaction_page_by_status",
            "sqlite_autoindex_transaction_1 (id<?)",
        ),
        (
            "transaction_page_by_time",
            "idx_transaction_created_at (created_at>? AND created_at<?)",
        ),
        (
            "transaction_pending",
            "COVERING INDEX idx_transaction_status (status=?)",
        ),
        (
            "idempotency_expire",
            "idx_idempotency_expires_at (expires_at<?)",
        ),
    ];

    /// The guide's ten, and ours.
    const INDEXES: &[&str] = &[
        "idx_content_user_id",
        "idx_content_created_at",
        "idx_content_status",
        "idx_content_user_status",
        "idx_nft_owner",
        "idx_nft_contract",
        "idx_nft_token_id",
        "idx_transaction_user",
        "idx_transaction_status",
        "idx_transaction_created_at",
        "idx_content_user_page",
        "idx_nft_content",
        "idx_idempotency_expires_at",
    ];

    async fn database() -> (Database, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let agent = Agent::builder("test").no_listener().start().unwrap();
        let observe = Observe::new(agent).unwrap();
        let path = dir.path().join("test.db");
        let db = Database::open(&path, Duration::from_secs(2), &observe)
            .await
            .unwrap();
        let mut conn = db.direct().await.unwrap();
        crate::seed::insert::seed(&mut conn, 1, 20, 500)
            .await
            .unwrap();
        drop(conn);
        (db, dir)
    }

    async fn plan(db: &Database, sql: &str) -> String {
        let mut conn = db.direct().await.unwrap();
        // Not kept prepared: a kept EXPLAIN shows the plan from before an index was dropped.
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
        let rows = sqlx::query(explain)
            .persistent(false)
            .fetch_all(&mut *conn)
            .await
            .unwrap();
        let steps = rows.iter().map(|row| row.get::<String, _>("detail"));
        steps.collect::<Vec<_>>().join("; ")
    }

    #[tokio::test]
    async fn each_statement_uses_its_index() {
        let (db, _dir) = database().await;
        for (name, index) in PLANS {
            let (_, sql) = TEXTS.iter().find(|(known, _)| known == name).unwrap();
            let plan = plan(&db, sql).await;
            assert!(plan.contains(index), "{name}: {plan}");
            let sorts_all = plan.contains("TEMP B-TREE") && name.starts_with("content_page");
            assert!(!sorts_all, "{name}: {plan}");
        }
    }

    #[tokio::test]
    async fn a_dropped_index_changes_the_plan_until_the_fault_ends() {
        let (db, _dir) = database().await;
        let (_, sql) = TEXTS
            .iter()
            .find(|(name, _)| *name == "nft_page_by_owner")
            .unwrap();
        let place = |index| indexes::all().position(|(name, _)| name == index);
        let swap = async |index| {
            let place = u64::try_from(place(index).unwrap()).unwrap();
            db.swap_index(place + 1).await.unwrap();
        };
        assert!(plan(&db, sql).await.contains("idx_nft_owner"));
        swap("idx_nft_owner").await;
        assert!(!plan(&db, sql).await.contains("idx_nft_owner"));
        swap("idx_nft_contract").await;
        assert!(plan(&db, sql).await.contains("idx_nft_owner"));
        swap("idx_nft_owner").await;
        db.swap_index(0).await.unwrap();
        assert!(plan(&db, sql).await.contains("idx_nft_owner"));
    }

    #[tokio::test]
    async fn all_indexes_exist_by_name_and_each_is_used() {
        let (db, _dir) = database().await;
        let mut conn = db.direct().await.unwrap();
        let mut found: Vec<String> = sqlx::query_scalar(
            "SELECT name FROM sqlite_master WHERE type = 'index' AND name LIKE 'idx_%' ORDER BY name",
        )
        .fetch_all(&mut *conn)
        .await
        .unwrap();
        found.sort();
        let mut wanted = INDEXES.to_vec();
        wanted.sort_unstable();
        assert_eq!(found, wanted);
        for index in INDEXES {
            assert!(
                PLANS.iter().any(|(_, plan)| plan.contains(index)),
                "{index} is used by nobody"
            );
        }
    }

    #[test]
    fn statements_are_told_apart_by_their_summary() {
        let mut summaries = SUMMARIES.to_vec();
        summaries.sort_unstable();
        summaries.dedup();
        assert_eq!(summaries.len(), TEXTS.len());
    }
}
