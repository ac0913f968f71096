//! placeholder
mod catalog;
mod config;
mod error;
mod store;
pub use catalog::{Metric, Signal, Unit};
pub use error::Error;
pub use store::metrics::{Counter, Gauge, Held, Histogram, ObservedCounter, TraceContext, UpDown};
