//! The contract of the HTTP API over real sockets.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test says that the contract is broken"
)]

mod admin;
mod batch;
mod content;
mod encoding;
mod jobs;
mod limits;
mod lists;
mod observed;
mod support;
mod writes;
