//! The signals that wait for a collector. Metrics do not: each push holds all that the last one did.

use crate::catalog::{Metric, families};

/// What is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PushSignal {
    Spans,
    Logs,
    Profiles,
}

impl PushSignal {
    pub(super) const ALL: [Self; 3] = [Self::Spans, Self::Logs, Self::Profiles];

    /// As in the labels of our metrics.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Spans => "spans",
            Self::Logs => "logs",
            Self::Profiles => "profiles",
        }
    }

    /// `otel.component.type` of what takes its items.
    pub(super) const fn processor(self) -> &'static str {
        match self {
            Self::Spans => "batching_span_processor",
            Self::Logs => "batching_log_processor",
            Self::Profiles => "batching_profile_processor",
        }
    }

    /// `otel.component.type` of what sends them.
    pub(super) const fn exporter(self) -> &'static str {
        match self {
            Self::Spans => "otlp_http_span_exporter",
            Self::Logs => "otlp_http_log_exporter",
            Self::Profiles => "otlp_http_profile_exporter",
        }
    }

    /// Counts items that were taken.
    pub(super) const fn processed(self) -> &'static Metric {
        match self {
            Self::Spans => &families::OTEL_PROCESSED_SPANS,
            Self::Logs => &families::OTEL_PROCESSED_LOGS,
            Self::Profiles => &families::OTEL_PROCESSED_PROFILES,
        }
    }

    /// Counts items that were delivered or lost.
    pub(super) const fn exported(self) -> &'static Metric {
        match self {
            Self::Spans => &families::OTEL_EXPORTED_SPANS,
            Self::Logs => &families::OTEL_EXPORTED_LOGS,
            Self::Profiles => &families::OTEL_EXPORTED_PROFILES,
        }
    }
}
