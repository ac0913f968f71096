//! The contract of the HTTP API over real sockets.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test says that the contract is broken"
)]

mod admin;
mod bad_input;
mod batch;
mod content;
mod database;
mod edge;
mod encoding;
mod http2;
mod jobs;
mod limits;
mod lists;
mod observed;
mod protobuf;
mod redis;
mod scripted_origin;
mod streams;
mod support;
mod tls;
mod writes;
