//! The main test binary: endpoints, formats, layering, catalogue, budget. One binary, one link.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod agent;
mod awaits;
mod budget;
mod client;
mod examples;
mod formats;
mod http_descriptors;
mod http_plane;
mod layering;
mod metrics_pages;
mod recorder;
mod request;
mod scopes;
mod wall;
