//! The main test binary: endpoints, formats, layering, catalogue, budget. One binary, one link.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod agent;
mod alerts;
mod awaits;
mod budget;
mod client;
mod dashboards;
mod examples;
mod formats;
mod http_descriptors;
mod http_plane;
mod layering;
#[cfg(feature = "otlp")]
mod meter;
mod metrics_pages;
#[cfg(feature = "otlp")]
mod pushing;
#[cfg(feature = "otlp-profiles")]
mod pushing_stop;
#[cfg(feature = "otlp")]
#[expect(dead_code, reason = "each test binary uses a part of it")]
#[path = "../../src/export/push/tests/receiver.rs"]
mod receiver;
mod recorder;
mod request;
mod scopes;
#[cfg(feature = "otlp")]
mod traces;
mod wall;
