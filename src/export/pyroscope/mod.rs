//! Profiles as Pyroscope's servers answer queries for them, so that Grafana draws them from the agent alone.
//!
//! Source: grafana/pyroscope, `api/querier/v1/querier.proto`, `api/types/v1/types.proto` and
//! `api/google/v1/profile.proto`; grafana/grafana, `pkg/tsdb/grafana-pyroscope-datasource` (what it asks for
//! and how it reads answers). Pure functions of messages and profiles: which profile, and the waiting for
//! it, is `respond`'s.

pub(crate) mod fields;
pub(crate) mod flame;
pub(crate) mod json;
pub(crate) mod kinds;
mod records;
pub(crate) mod schema;
pub(crate) mod selector;
pub(crate) mod series;

#[cfg(test)]
mod tests;
