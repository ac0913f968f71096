#![doc = include_str!("../README.md")]
#![cfg_attr(
    not(all(feature = "http", feature = "host")),
    expect(
        dead_code,
        reason = "limits, guards and records of parts that are not built"
    )
)]

mod agent;
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

pub use agent::{
    Agent, AgentHandle, Builder, MemoryPressureSubscription, Responding, ShedReason, Shutdown,
    thread_started,
};
pub use assess::memory_pressure::{MemoryPressure, PressureLevel};
pub use assess::targets::{Latency, Status, TargetRow, TargetTable};
pub use catalog::{Metric, Signal, Unit};
pub use collect::sys::heap::ProfiledAllocator;
pub use config::DEFAULT_ADDRESS;
#[cfg(feature = "otlp")]
pub use config::otlp::Otlp;
#[cfg(feature = "otlp-profiles")]
pub use config::pyroscope::Pyroscope;
pub use error::Error;
pub use export::flushed::Flushed;
pub use export::respond::{Reply, Request};
pub use instrument::awaits::awaiting;
pub use instrument::buffer_pool::BufferPool;
pub use instrument::cache::{
    Cache, CacheClass, CacheSize, EvictionCause, InvalidationKind, Load, Lookup, Tier,
};
pub use instrument::connection::Connection;
pub use instrument::label::{Labelled, Labels, label};
pub use instrument::pool::{Pool, PoolState, PoolUse, PoolWait};
pub use instrument::query::{Query, QueryLabels, QueryRun};
pub use instrument::scope::{InRequest, in_request};
pub use instrument::worker_pool::{QueuedJob, RunningJob, WorkerPool};
pub use store::metrics::{Counter, Gauge, Held, Histogram, ObservedCounter, TraceContext, UpDown};

#[cfg(feature = "prometheus")]
pub use export::collector::CoreCollector;
#[cfg(feature = "http")]
pub use export::serve::{AgentBody, AgentService, Connected};
#[cfg(feature = "tracing")]
pub use instrument::log_line::LogLine;
#[cfg(feature = "opentelemetry")]
pub use instrument::meter::MeterProvider;
#[cfg(feature = "metrics")]
pub use instrument::recorder::MetricsRecorder;
#[cfg(feature = "tower")]
pub use instrument::request_body::ResponseBody;
#[cfg(feature = "tower")]
pub use instrument::request_layer::{HttpLayer, HttpService, ResponseFuture};
#[cfg(feature = "tracing")]
pub use instrument::span::SpanLabels;
#[cfg(feature = "otlp")]
pub use instrument::traces::inject_trace_context;
