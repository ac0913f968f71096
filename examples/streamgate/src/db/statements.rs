//! Every SQL text of the service with the labels it is measured under.
//!
//! Guide 1.1. Metrics: `db_client_operation_duration_seconds{db_query_summary}`,
//! `db_client_slow_queries_total`, `db_queries_per_request`. Breaking tests, on both databases:
//! `each_statement_uses_its_index`, `all_indexes_exist_by_name_and_each_is_used`.
//!
//! The texts are static: values only ever arrive as binds, the prepared-statement cache always
//! hits, and a statement's label is bounded. Pages compare with a sentinel that sorts after every
//! id, so that the first page and all others are one text.

use streamgate_agent::{Query, QueryLabels};

use super::dialect::Dialect;

/// One text and the handle that times it.
#[derive(Debug)]
pub(crate) struct Statement {
    pub(crate) sql: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) query: Query,
}

/// The text for a database: the one for both, or PostgreSQL's own.
macro_rules! text {
    ($dialect:expr, $both:expr) => {
        $both
    };
    ($dialect:expr, $sqlite:expr, $postgres:expr) => {
        match $dialect {
            Dialect::Sqlite => $sqlite,
            Dialect::Postgres => $postgres,
        }
    };
}

macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident: $operation:literal $collection:literal, $summary:literal,
       $sql:expr $(, postgres $postgres:expr)?;)*) => {
        /// All statements, resolved once at start.
        #[derive(Debug)]
        pub(crate) struct Statements {
            $($(#[$doc])* pub(crate) $name: Statement,)*
        }

        impl Statements {
            pub(crate) fn new(
                dialect: Dialect,
                mut query: impl FnMut(QueryLabels) -> Query,
            ) -> Self {
                Self {
                    $($name: Statement {
                        sql: text!(dialect, $sql $(, $postgres)?),
                        summary: $summary,
                        query: query(QueryLabels {
                            system: dialect.system(),
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
        pub(crate) fn texts(dialect: Dialect) -> Vec<(&'static str, &'static str)> {
            vec![$((stringify!($name), text!(dialect, $sql $(, $postgres)?)),)*]
        }

        #[cfg(test)]
        pub(crate) const SUMMARIES: &[&str] = &[$($summary,)*];
    };
}

pub(super) use {statements, text};

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
         c.body_bytes, c.version, c.metadata, c.created_at, c.updated_at, c.archive_state"
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
                 WHERE id < $1 AND +status = $3 ORDER BY id DESC LIMIT $2"),
        postgres concat!("SELECT ", summary_columns!(), " FROM content \
                 WHERE id < $1 AND status = $3 ORDER BY id DESC LIMIT $2");
    content_page_by_user: "SELECT" "content", "SELECT content page by user",
        concat!("SELECT ", summary_columns!(), " FROM content \
                 WHERE user_id = $3 AND id < $1 ORDER BY id DESC LIMIT $2");
    content_page_by_user_and_status: "SELECT" "content", "SELECT content page by user and status",
        concat!("SELECT ", summary_columns!(), " FROM content \
                 WHERE user_id = $3 AND id < $1 AND +status = $4 ORDER BY id DESC LIMIT $2"),
        postgres concat!("SELECT ", summary_columns!(), " FROM content \
                 WHERE user_id = $3 AND id < $1 AND status = $4 ORDER BY id DESC LIMIT $2");
    content_bytes_of_user: "SELECT" "content", "SELECT content bytes of user",
        "SELECT CAST(COALESCE(SUM(body_bytes), 0) AS BIGINT) FROM content WHERE user_id = $1";
    content_counts_of_user: "SELECT" "content", "SELECT content counts of user",
        "SELECT status, COUNT(*) FROM content WHERE user_id = $1 GROUP BY status";
    content_processing: "SELECT" "content", "SELECT content processing",
        "SELECT COUNT(*) FROM content WHERE status = 'processing'";
    content_oldest: "SELECT" "content", "SELECT content oldest",
        "SELECT MIN(created_at) FROM content";
    /// PostgreSQL locks the row, as SQLite's transaction has locked everything already.
    content_version: "SELECT" "content", "SELECT content version",
        "SELECT version, user_id, archive_state = 'archived' FROM content WHERE id = $1",
        postgres "SELECT version, user_id, archive_state = 'archived' FROM content WHERE id = $1 FOR UPDATE";
    content_insert: "INSERT" "content", "INSERT content batch",
        "INSERT INTO content (id, user_id, title, description, status, kind, visibility, body, \
                body_bytes, metadata, created_at, updated_at) \
         SELECT value ->> 'id', value ->> 'user_id', value ->> 'title', value ->> 'description', \
                value ->> 'status', value ->> 'kind', value ->> 'visibility', value ->> 'body', \
                octet_length(value ->> 'body'), value ->> 'metadata', \
                value ->> 'created_at', value ->> 'created_at' FROM json_each($1)",
        postgres "INSERT INTO content (id, user_id, title, description, status, kind, visibility, body, \
                body_bytes, metadata, created_at, updated_at) \
         SELECT id, user_id, title, description, status, kind, visibility, body, \
                octet_length(body), metadata, created_at, created_at \
         FROM UNNEST($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], \
                     $7::text[], $8::text[], $9::text[], $10::bigint[]) \
              AS row (id, user_id, title, description, status, kind, visibility, body, metadata, \
                      created_at)";
    content_existing: "SELECT" "content", "SELECT content ids that exist",
        "SELECT id FROM content WHERE id IN (SELECT value FROM json_each($1))",
        postgres "SELECT id FROM content WHERE id = ANY ($1::text[])";
    content_update: "UPDATE" "content", "UPDATE content",
        concat!("UPDATE content AS c SET title = COALESCE($2, title), \
                 description = COALESCE($3, description), status = COALESCE($4, status), \
                 visibility = COALESCE($5, visibility), body = COALESCE($6, body), \
                 body_bytes = octet_length(COALESCE($6, body)), \
                 metadata = COALESCE($7, metadata), \
                 version = version + 1, updated_at = $8 \
                 WHERE id = $1 RETURNING ", "id, user_id, title, description, status, kind, \
                 visibility, body, body_bytes, version, metadata, created_at, updated_at, \
                 archive_state");
    content_delete: "DELETE" "content", "DELETE content",
        "DELETE FROM content WHERE id = $1";
    user_by_id: "SELECT" "users", "SELECT user by id",
        "SELECT id, wallet_address, display_name, created_at FROM users WHERE id = $1";
    users_missing: "SELECT" "users", "SELECT user ids that are missing",
        "SELECT value FROM json_each($1) WHERE value NOT IN (SELECT id FROM users)",
        postgres "SELECT value FROM UNNEST($1::text[]) AS value \
                  WHERE NOT EXISTS (SELECT 1 FROM users WHERE id = value)";
    nft_page_by_owner: "SELECT" "nft", "SELECT nft page by owner",
        concat!("SELECT ", nft_columns!(), " FROM nft \
                 WHERE owner_address = $3 AND id < $1 ORDER BY id DESC LIMIT $2");
    nft_page_by_contract: "SELECT" "nft", "SELECT nft page by contract",
        concat!("SELECT ", nft_columns!(), " FROM nft \
                 WHERE contract_address = $3 AND id < $1 ORDER BY id DESC LIMIT $2");
    nft_page_by_token: "SELECT" "nft", "SELECT nft page by token",
        concat!("SELECT ", nft_columns!(), " FROM nft \
                 WHERE token_id = $3 AND id < $1 ORDER BY id DESC LIMIT $2");
    /// What the fault `nplus1` asks instead of the join: which there are, and then each of them.
    nft_ids_of_content: "SELECT" "nft", "SELECT nft ids of content",
        "SELECT id FROM nft WHERE content_id = $1 ORDER BY id";
    nft_by_id: "SELECT" "nft", "SELECT nft by id",
        concat!("SELECT ", nft_columns!(), " FROM nft WHERE id = $1");
    nft_is_owned: "SELECT" "nft", "SELECT nft owned by wallet",
        "SELECT EXISTS (SELECT 1 FROM nft WHERE content_id = $1 AND owner_address = $2)";
    transaction_page_by_user: "SELECT" "transaction", "SELECT transaction page by user",
        concat!("SELECT ", transaction_columns!(), " FROM \"transaction\" \
                 WHERE user_id = $3 AND id < $1 ORDER BY id DESC LIMIT $2");
    transaction_page_by_status: "SELECT" "transaction", "SELECT transaction page by status",
        concat!("SELECT ", transaction_columns!(), " FROM \"transaction\" \
                 WHERE id < $1 AND +status = $3 ORDER BY id DESC LIMIT $2"),
        postgres concat!("SELECT ", transaction_columns!(), " FROM \"transaction\" \
                 WHERE id < $1 AND status = $3 ORDER BY id DESC LIMIT $2");
    /// Ordered by time, so the position in the page is time and id.
    transaction_page_by_time: "SELECT" "transaction", "SELECT transaction page by time",
        concat!("SELECT ", transaction_columns!(), " FROM \"transaction\" \
                 WHERE created_at >= $3 AND created_at < $4 AND (created_at, id) < ($5, $1) \
                 ORDER BY created_at DESC, id DESC LIMIT $2");
    transaction_pending: "SELECT" "transaction", "SELECT transaction pending",
        "SELECT COUNT(*) FROM \"transaction\" WHERE status = 'pending'";
    /// SQLite counts no scans.
    index_scans: "SELECT" "pg_stat_user_indexes", "SELECT index scans",
        "SELECT name, 0 FROM sqlite_master WHERE FALSE",
        postgres "SELECT indexrelname::text, idx_scan FROM pg_stat_user_indexes \
                  WHERE schemaname = current_schema() AND indexrelname LIKE 'idx\\_%'";
    idempotency_find: "SELECT" "idempotency", "SELECT idempotency by key",
        "SELECT request_hash, status, body FROM idempotency WHERE key = $1 AND expires_at > $2";
    idempotency_keep: "INSERT" "idempotency", "INSERT idempotency",
        "INSERT INTO idempotency (key, request_hash, status, body, expires_at) \
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (key) DO UPDATE SET \
                request_hash = excluded.request_hash, status = excluded.status, \
                body = excluded.body, expires_at = excluded.expires_at \
         WHERE idempotency.expires_at <= $6";
    idempotency_expire: "DELETE" "idempotency", "DELETE idempotency expired",
        "DELETE FROM idempotency WHERE expires_at <= $1";
}

#[cfg(test)]
mod tests {
    use sqlx::Executor as _;

    use super::{SUMMARIES, texts};
    use crate::db::dialect::Dialect;
    use crate::db::lease::To;
    use crate::db::plan::plan;
    use crate::db::{Direct, Place, archive_statements, indexes};
    use crate::seed::insert::seed;

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
        ("nft_ids_of_content", "idx_nft_content (content_id=?)"),
        ("nft_by_id", "sqlite_autoindex_nft_1 (id=?)"),
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
        ("claim", "idx_content_not_archived (created_at<?)"),
        ("oldest", "idx_content_not_archived"),
        ("advance", "idx_content_lease (lease_owner=?)"),
        ("release", "idx_content_lease (lease_owner=?)"),
        ("payload_out", "idx_content_archive_object (object_key=?)"),
        ("object_in_use", "idx_content_archive_object (object_key=?)"),
        (
            "manifest",
            "sqlite_autoindex_content_archive_1 (content_id=?)",
        ),
    ];

    /// The same for PostgreSQL 15, generic plans over 5 000 users and 20 000 of each other row.
    const POSTGRES_PLANS: &[(&str, &str)] = &[
        ("content_by_id", "content_pkey"),
        ("content_with_nfts", "idx_nft_content"),
        ("content_page", "content_pkey"),
        ("content_page_by_status", "content_pkey"),
        ("content_page_by_user", "idx_content_user_page"),
        // Four rows of a user are sorted sooner than read in order; at twenty it takes the page's index.
        ("content_page_by_user_and_status", "idx_content_user_"),
        ("content_counts_of_user", "idx_content_user_status"),
        ("content_processing", "idx_content_status"),
        ("content_oldest", "idx_content_created_at"),
        ("nft_page_by_owner", "idx_nft_owner"),
        // A hundred rows per contract, and the last of them are wanted: the order of ids is nearer.
        ("nft_page_by_contract", "nft_pkey"),
        ("nft_page_by_token", "idx_nft_token_id"),
        ("nft_ids_of_content", "idx_nft_content"),
        ("nft_by_id", "nft_pkey"),
        ("transaction_page_by_user", "idx_transaction_user"),
        ("transaction_page_by_time", "idx_transaction_created_at"),
        ("transaction_pending", "idx_transaction_status"),
    ];

    /// Pages that would sort all rows before them if their index were gone.
    const PAGES_IN_ORDER: &[&str] = &[
        "content_page",
        "content_page_by_status",
        "content_page_by_user",
    ];

    /// The guide's own statements: which of its ten indexes serves each on SQLite, and on PostgreSQL.
    const GUIDE: &[(&str, &str, &str)] = &[
        // PostgreSQL takes a longer index that begins with the column; the short one is redundant there.
        (
            "SELECT * FROM content WHERE user_id = $1",
            "idx_content_user_id",
            "idx_content_user_",
        ),
        (
            "SELECT id FROM content WHERE created_at < $1 ORDER BY created_at LIMIT 500",
            "idx_content_created_at",
            "idx_content_created_at",
        ),
        (
            "SELECT id FROM content WHERE status = 'processing' LIMIT 100",
            "idx_content_status",
            "idx_content_status",
        ),
        (
            "SELECT COUNT(*) FROM content WHERE user_id = $1 AND status = $2",
            "idx_content_user_status",
            "idx_content_user_status",
        ),
        (
            "SELECT * FROM nft WHERE owner_address = $1",
            "idx_nft_owner",
            "idx_nft_owner",
        ),
        (
            "SELECT * FROM nft WHERE contract_address = $1",
            "idx_nft_contract",
            "idx_nft_contract",
        ),
        (
            "SELECT * FROM nft WHERE token_id = $1",
            "idx_nft_token_id",
            "idx_nft_token_id",
        ),
        (
            "SELECT * FROM \"transaction\" WHERE user_id = $1",
            "idx_transaction_user",
            "idx_transaction_user",
        ),
        (
            "SELECT id FROM \"transaction\" WHERE status = 'pending' LIMIT 100",
            "idx_transaction_status",
            "idx_transaction_status",
        ),
        (
            "SELECT id FROM \"transaction\" WHERE created_at >= $1 AND created_at < $2",
            "idx_transaction_created_at",
            "idx_transaction_created_at",
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
        "idx_content_not_archived",
        "idx_content_lease",
        "idx_content_archive_object",
    ];

    async fn database() -> (Direct, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::File(dir.path().join("test.db"));
        let mut direct = Direct::open(&place).await.unwrap();
        direct.migrate().await.unwrap();
        seed(&mut direct, 1, 20, 500).await.unwrap();
        (direct, dir)
    }

    async fn sqlite_plan(direct: &mut Direct, name: &str) -> String {
        let sql = text_of(Dialect::Sqlite, name);
        plan(direct, sql).await.unwrap()
    }

    fn text_of(dialect: Dialect, name: &str) -> &'static str {
        let all = [texts(dialect), archive_statements::texts(dialect)].concat();
        all.iter().find(|(known, _)| *known == name).unwrap().1
    }

    #[tokio::test]
    async fn each_statement_uses_its_index() {
        let (mut direct, _dir) = database().await;
        for (sql, index, _) in GUIDE {
            let plan = plan(&mut direct, sql).await.unwrap();
            assert!(plan.contains(index), "{sql}: {plan}");
        }
        for (name, index) in PLANS {
            let plan = sqlite_plan(&mut direct, name).await;
            assert!(plan.contains(index), "{name}: {plan}");
            let sorts_all = plan.contains("TEMP B-TREE") && name.starts_with("content_page");
            assert!(!sorts_all, "{name}: {plan}");
        }
    }

    #[tokio::test]
    async fn a_dropped_index_changes_the_plan_until_the_fault_ends() {
        let (mut direct, _dir) = database().await;
        drop_and_make_again(&mut direct, Dialect::Sqlite).await;
    }

    #[tokio::test]
    async fn a_dropped_index_changes_the_plan_of_postgresql_too() {
        let Some(server) = crate::servers::postgres::for_tests().await else {
            return;
        };
        let place: Place = server.url().parse().unwrap();
        let mut direct = Direct::open(&place).await.unwrap();
        direct.migrate().await.unwrap();
        let To::Postgres(conn) = direct.to() else {
            panic!("a URL is PostgreSQL");
        };
        // So few rows are sooner read one after the other.
        conn.execute("SET enable_seqscan = off").await.unwrap();
        drop_and_make_again(&mut direct, Dialect::Postgres).await;
    }

    async fn drop_and_make_again(direct: &mut Direct, dialect: Dialect) {
        let sql = text_of(dialect, "nft_page_by_owner");
        for (dropped, used) in [
            (None, true),
            (Some("idx_nft_owner"), false),
            (Some("idx_nft_contract"), true),
            (Some("idx_nft_owner"), false),
            (None, true),
        ] {
            let place = dropped.map_or(0, |name| {
                1 + indexes::all().position(|(known, _)| known == name).unwrap()
            });
            indexes::swap(direct, place.try_into().unwrap())
                .await
                .unwrap();
            let plan = plan(direct, sql).await.unwrap();
            assert_eq!(plan.contains("idx_nft_owner"), used, "{dropped:?}: {plan}");
        }
    }

    #[tokio::test]
    async fn all_indexes_exist_by_name_and_each_is_used() {
        let (mut direct, _dir) = database().await;
        let To::Sqlite(conn) = direct.to() else {
            panic!("a file is SQLite");
        };
        let mut found: Vec<String> = sqlx::query_scalar(
            "SELECT name FROM sqlite_master WHERE type = 'index' AND name LIKE 'idx_%' ORDER BY name",
        )
        .fetch_all(conn)
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

    #[tokio::test]
    async fn each_statement_uses_its_index_on_postgresql() {
        let Some(server) = crate::servers::postgres::for_tests().await else {
            return;
        };
        let place: Place = server.url().parse().unwrap();
        let mut direct = Direct::open(&place).await.unwrap();
        direct.migrate().await.unwrap();
        seed(&mut direct, 1, 5_000, 20_000).await.unwrap();
        let mut wrong = Vec::new();
        for (name, index) in POSTGRES_PLANS {
            let plan = plan(&mut direct, text_of(Dialect::Postgres, name)).await;
            let plan = plan.unwrap();
            if !plan.contains(index) || PAGES_IN_ORDER.contains(name) && plan.contains("Sort") {
                wrong.push(format!("{name} without {index}:\n{plan}"));
            }
        }
        for (sql, _, index) in GUIDE {
            let plan = plan(&mut direct, sql).await.unwrap();
            if !plan.contains(index) {
                wrong.push(format!("{sql} without {index}:\n{plan}"));
            }
        }
        let all = [
            texts(Dialect::Postgres),
            archive_statements::texts(Dialect::Postgres),
        ];
        for (name, sql) in all.concat() {
            if let Err(error) = plan(&mut direct, sql).await {
                wrong.push(format!("{name}: {error}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        let To::Postgres(conn) = direct.to() else {
            panic!("a URL is PostgreSQL");
        };
        let found: Vec<String> = sqlx::query_scalar(
            "SELECT indexname::text FROM pg_indexes WHERE indexname LIKE 'idx_%'",
        )
        .fetch_all(conn)
        .await
        .unwrap();
        let missing: Vec<_> = INDEXES
            .iter()
            .filter(|index| !found.iter().any(|f| f == *index))
            .collect();
        assert!(
            missing.is_empty() && found.len() == INDEXES.len(),
            "{missing:?} of {found:?}"
        );
    }

    #[test]
    fn statements_are_told_apart_by_their_summary() {
        let mut summaries = [SUMMARIES, archive_statements::SUMMARIES].concat();
        summaries.sort_unstable();
        summaries.dedup();
        assert_eq!(
            summaries.len(),
            SUMMARIES.len() + archive_statements::SUMMARIES.len()
        );
    }
}
