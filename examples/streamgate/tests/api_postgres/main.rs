//! The contract of the HTTP API on PostgreSQL: the tests of `tests/api`, and what a server can do to us.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test says that the contract is broken"
)]

mod database;
mod faults;

#[path = "../api/admin.rs"]
mod admin;
#[path = "../api/batch.rs"]
mod batch;
#[path = "../api/content.rs"]
mod content;
#[path = "../api/encoding.rs"]
mod encoding;
#[path = "../api/jobs.rs"]
mod jobs;
#[path = "../api/limits.rs"]
mod limits;
#[path = "../api/lists.rs"]
mod lists;
#[path = "../api/observed.rs"]
mod observed;
#[path = "../api/support.rs"]
mod support;
#[path = "../api/writes.rs"]
mod writes;
