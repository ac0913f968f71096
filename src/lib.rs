//! placeholder
mod assess;
#[doc(hidden)]
pub mod bench_door;
mod catalog;
mod collect;
mod config;
mod error;
mod export;
mod instrument;
mod store;
pub use assess::targets::{Latency, Status, TargetRow, TargetTable};
pub use catalog::{Metric, Signal, Unit};
pub use error::Error;
pub use instrument::cache::Tier;
pub use store::metrics::{Counter, Gauge, Held, Histogram, ObservedCounter, TraceContext, UpDown};
