//! Writes the demo data: thousands of rows per statement, one transaction.
//!
//! Guide 1.3 (batch instead of single rows): the same `json_each` technique as
//! `POST /v1/content:batch`, one bind whatever the number of rows.

use serde::Serialize;
use sqlx::{Connection as _, SqliteConnection};

use super::rows;

/// Rows per statement: about 1.5 MB of JSON for contents, held twice for a moment.
const CHUNK: u64 = 1_000;

const INSERT_USERS: &str = "INSERT INTO users (id, wallet_address, display_name, created_at) \
     SELECT value ->> 'id', value ->> 'wallet_address', value ->> 'display_name', \
            value ->> 'created_at' FROM json_each($1)";

const INSERT_CONTENT: &str = "INSERT INTO content (id, user_id, title, description, status, kind, \
            visibility, body, body_bytes, metadata, created_at, updated_at) \
     SELECT value ->> 'id', value ->> 'user_id', value ->> 'title', value ->> 'description', \
            value ->> 'status', value ->> 'kind', value ->> 'visibility', value ->> 'body', \
            length(CAST(value ->> 'body' AS BLOB)), value ->> 'metadata', value ->> 'created_at', \
            value ->> 'created_at' FROM json_each($1)";

const INSERT_NFT: &str = "INSERT INTO nft (id, contract_address, token_id, owner_address, \
            chain_id, content_id) \
     SELECT value ->> 'id', value ->> 'contract_address', value ->> 'token_id', \
            value ->> 'owner_address', value ->> 'chain_id', value ->> 'content_id' \
       FROM json_each($1)";

const INSERT_TRANSACTION: &str = "INSERT INTO \"transaction\" (id, user_id, tx_hash, status, \
            value, created_at) \
     SELECT value ->> 'id', value ->> 'user_id', value ->> 'tx_hash', value ->> 'status', \
            value ->> 'value', value ->> 'created_at' FROM json_each($1)";

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
    let conn = &mut *transaction;
    fill(conn, INSERT_USERS, users, |i| rows::user(seed, i)).await?;
    fill(conn, INSERT_CONTENT, contents, |i| {
        rows::content(seed, i, users)
    })
    .await?;
    fill(conn, INSERT_NFT, contents, |i| rows::nft(seed, i, users)).await?;
    fill(conn, INSERT_TRANSACTION, contents, |i| {
        rows::transaction(seed, i, users)
    })
    .await?;
    transaction.commit().await
}

async fn fill<R: Serialize>(
    conn: &mut SqliteConnection,
    insert: &'static str,
    rows: u64,
    row: impl Fn(u64) -> R,
) -> sqlx::Result<()> {
    let mut start = 0;
    while start < rows {
        let end = rows.min(start.saturating_add(CHUNK));
        let chunk: Vec<R> = (start..end).map(&row).collect();
        let json =
            serde_json::to_string(&chunk).map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
        sqlx::query(insert).bind(json).execute(&mut *conn).await?;
        start = end;
    }
    Ok(())
}
