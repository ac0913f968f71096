//! What host code calls while it serves: guards for requests, caches, queries and pools.
//!
//! May use the store and the catalogue. Absent on purpose: allocation and contended locks after
//! warm-up, since this runs inside someone's request. Every guard reads the clock once when it is made and
//! once when it ends; one that is dropped without an end records what the drop means, or nothing.

pub(crate) mod awaits;
pub(crate) mod buffer_pool;
pub(crate) mod cache;
pub(crate) mod connection;
pub(crate) mod label;
pub(crate) mod method;
pub(crate) mod pool;
pub(crate) mod query;
pub(crate) mod request;
pub(crate) mod routes;
pub(crate) mod scope;
#[cfg_attr(not(feature = "otlp"), path = "traces_off.rs")]
pub(crate) mod traces;
pub(crate) mod worker_pool;

#[cfg(feature = "tracing")]
mod bounded_text;
#[cfg(feature = "tracing")]
mod entered;
#[cfg(all(feature = "tracing", feature = "otlp"))]
pub(crate) mod host_spans;
#[cfg(any(feature = "metrics", feature = "opentelemetry"))]
mod known;
#[cfg(feature = "tracing")]
pub(crate) mod log_line;
#[cfg(feature = "opentelemetry")]
pub(crate) mod meter;
#[cfg(feature = "metrics")]
pub(crate) mod recorder;
#[cfg(feature = "tower")]
pub(crate) mod request_body;
#[cfg(feature = "tower")]
pub(crate) mod request_layer;
#[cfg(feature = "http")]
pub(crate) mod request_route;
#[cfg(feature = "tracing")]
pub(crate) mod span;
#[cfg(any(feature = "metrics", feature = "opentelemetry"))]
mod undeclared;
