//! The SQL texts of the archiver.
//!
//! Guide 7.2. All times come from the database's clock, so that two archivers whose own clocks differ
//! agree on what is a year old and on whose lease is over.

use streamgate_agent::{Query, QueryLabels};

use super::dialect::Dialect;
use super::statements::{Statement, statements, text};

/// Microseconds since 1970 by the database's clock; SQLite's goes by the second.
macro_rules! now {
    () => {
        "(unixepoch() * 1000000)"
    };
    (postgres) => {
        "(EXTRACT(EPOCH FROM statement_timestamp()) * 1000000)::bigint"
    };
}

statements! {
    clock: "SELECT" "content_archive", "SELECT archive clock",
        concat!("SELECT ", now!()),
        postgres concat!("SELECT ", now!(postgres));
    /// A lease that is over is free again, whatever step it had come to.
    claim: "UPDATE" "content", "UPDATE content archive claim",
        concat!("UPDATE content SET archive_state = 'leased', lease_owner = $1, \
                 lease_until = ", now!(), " + $2 \
                 WHERE id IN (SELECT id FROM content WHERE archive_state <> 'archived' \
                 AND created_at < ", now!(), " - $3 \
                 AND (lease_until IS NULL OR lease_until <= ", now!(), ") \
                 ORDER BY created_at LIMIT $4) RETURNING id, version, body, metadata"),
        postgres concat!("UPDATE content SET archive_state = 'leased', lease_owner = $1, \
                 lease_until = ", now!(postgres), " + $2 \
                 WHERE id IN (SELECT id FROM content WHERE archive_state <> 'archived' \
                 AND created_at < ", now!(postgres), " - $3 \
                 AND (lease_until IS NULL OR lease_until <= ", now!(postgres), ") \
                 ORDER BY created_at LIMIT $4 FOR UPDATE SKIP LOCKED) RETURNING id, version, body, metadata");
    /// Every step renews the lease of what it still holds.
    advance: "UPDATE" "content", "UPDATE content archive step",
        concat!("UPDATE content SET archive_state = $2, lease_until = ", now!(), " + $3 \
                 WHERE lease_owner = $1"),
        postgres concat!("UPDATE content SET archive_state = $2, lease_until = ", now!(postgres), " + $3 \
                 WHERE lease_owner = $1");
    object_keep: "INSERT" "archive_object", "INSERT archive object",
        "INSERT INTO archive_object (object_key, doomed) VALUES ($1, 0) \
         ON CONFLICT (object_key) DO UPDATE SET doomed = archive_object.doomed RETURNING doomed";
    /// PostgreSQL locks the rows that it moves, as SQLite's transaction has locked everything already.
    manifest_insert: "INSERT" "content_archive", "INSERT content_archive batch",
        concat!("INSERT INTO content_archive \
                 (content_id, object_key, \"offset\", length, sha256, codec, version, archived_at) \
                 SELECT c.id, $2, f.value ->> 'offset', f.value ->> 'length', f.value ->> 'sha256', \
                 'zstd', c.version, ", now!(), " FROM json_each($1) AS f \
                 JOIN content AS c ON c.id = f.value ->> 'id' \
                 WHERE c.lease_owner = $3 AND c.version = f.value ->> 'version'"),
        postgres concat!("INSERT INTO content_archive \
                 (content_id, object_key, \"offset\", length, sha256, codec, version, archived_at) \
                 SELECT c.id, $2, f.\"offset\", f.length, f.sha256, \
                 'zstd', c.version, ", now!(postgres), " FROM json_to_recordset($1::json) \
                 AS f(id text, version bigint, \"offset\" bigint, length bigint, sha256 text) \
                 JOIN content AS c ON c.id = f.id \
                 WHERE c.lease_owner = $3 AND c.version = f.version FOR UPDATE OF c");
    payload_out: "UPDATE" "content", "UPDATE content payload out",
        "UPDATE content SET archive_state = 'archived', lease_owner = NULL, lease_until = NULL, \
                body = '', metadata = '{}' \
         WHERE lease_owner = $1 \
           AND id IN (SELECT content_id FROM content_archive WHERE object_key = $2) RETURNING id";
    release: "UPDATE" "content", "UPDATE content archive release",
        "UPDATE content SET archive_state = 'active', lease_owner = NULL, lease_until = NULL \
         WHERE lease_owner = $1";
    manifest: "SELECT" "content_archive", "SELECT content_archive by content",
        "SELECT object_key, \"offset\", length, sha256 FROM content_archive WHERE content_id = $1";
    /// `lease_until` without an owner keeps the archiver away for a while.
    payload_in: "UPDATE" "content", "UPDATE content payload in",
        concat!("UPDATE content SET archive_state = 'active', body = $2, metadata = $3, \
                 lease_until = ", now!(), " + $4 \
                 WHERE id = $1 AND archive_state = 'archived'"),
        postgres concat!("UPDATE content SET archive_state = 'active', body = $2, metadata = $3, \
                 lease_until = ", now!(postgres), " + $4 \
                 WHERE id = $1 AND archive_state = 'archived'");
    manifest_delete: "DELETE" "content_archive", "DELETE content_archive",
        "DELETE FROM content_archive WHERE content_id = $1";
    object_doom: "INSERT" "archive_object", "INSERT archive object doomed",
        "INSERT INTO archive_object (object_key, doomed) VALUES ($1, 1) \
         ON CONFLICT (object_key) DO UPDATE SET doomed = 1";
    /// A statement of its own after `object_doom`: it sees what was committed while that one waited.
    object_in_use: "SELECT" "content_archive", "SELECT content_archive of object",
        "SELECT EXISTS (SELECT 1 FROM content_archive WHERE object_key = $1)";
    object_forget: "DELETE" "archive_object", "DELETE archive object",
        "DELETE FROM archive_object WHERE object_key = $1 AND doomed = 1";
    /// Restored rows stay out until their rest is over; a row under a lease counts.
    oldest: "SELECT" "content", "SELECT content oldest not archived",
        concat!("SELECT created_at FROM content WHERE archive_state <> 'archived' \
                 AND (lease_owner IS NOT NULL OR lease_until IS NULL OR lease_until <= ", now!(), ") \
                 ORDER BY created_at LIMIT 1"),
        postgres concat!("SELECT created_at FROM content WHERE archive_state <> 'archived' \
                 AND (lease_owner IS NOT NULL OR lease_until IS NULL OR lease_until <= ", now!(postgres), ") \
                 ORDER BY created_at LIMIT 1");
}
