//! One message to a collector, and what became of it.
//!
//! Source: the OTLP specification, "OTLP/HTTP Response": 429, 502, 503 and 504 may be tried again, after
//! what `Retry-After` says; anything else that is not 2xx must not be. RFC 9110, 10.2.3: that is a number of
//! seconds or a date.

use std::borrow::Cow;
use std::io::{self, Write as _};
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message as _;
use ureq::Agent;
use ureq::http::HeaderMap;

use super::grpc::Grpc;
use crate::config::otlp::Target;

/// Bytes of an answer that are read: a reason, if there is one.
pub(super) const ANSWER_BYTES: u64 = 64 << 10;
pub(super) const AGENT: &str = concat!("OTel-OTLP-Exporter-Rust/", env!("CARGO_PKG_VERSION"));

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::export) enum Outcome {
    /// The collector has it, and says how many of its items it could not use.
    Accepted { rejected: u64 },
    /// Nobody has it, and it may be sent again.
    Later {
        why: Cow<'static, str>,
        /// As long as the collector asks for.
        after: Option<Duration>,
    },
    /// The collector will never take it.
    Refused { why: Cow<'static, str> },
}

/// Sends to one address. The connection is kept from one message to the next.
pub(in crate::export) struct Post {
    agent: Agent,
    /// Where the target is spoken to by gRPC.
    grpc: Option<Grpc>,
    target: Target,
    content_type: &'static str,
}

impl Post {
    pub(in crate::export) fn new(target: Target) -> Self {
        Self::of(target, "application/x-protobuf")
    }

    /// For bodies of another type.
    pub(in crate::export) fn of(target: Target, content_type: &'static str) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // A collector that has moved is the operator's business: tokens go where they were sent.
            .max_redirects(0)
            .max_redirects_will_error(false)
            // Nor to a proxy that the environment names for other traffic.
            .proxy(None)
            .user_agent(AGENT)
            .build();
        Self {
            agent: config.into(),
            grpc: Grpc::new(&target),
            target,
            content_type,
        }
    }

    /// Sends a message and waits for its answer, at most for the target's timeout and as long as said.
    pub(in crate::export) fn send(&self, message: &[u8], most: Duration) -> Outcome {
        if let Some(grpc) = &self.grpc {
            return grpc.send(message, most);
        }
        let packed = if self.target.gzip {
            packed(message)
        } else {
            None
        };
        let mut request = self.agent.post(&self.target.url);
        let timeout = self.target.timeout.min(most);
        request = request.config().timeout_global(Some(timeout)).build();
        for (name, value) in &self.target.headers {
            request = request.header(name, value);
        }
        request = request.header("Content-Type", self.content_type);
        if packed.is_some() {
            request = request.header("Content-Encoding", "gzip");
        }
        match request.send(packed.as_deref().unwrap_or(message)) {
            Ok(answer) => {
                let status = answer.status().as_u16();
                let after = retry_after(answer.headers());
                let body = answer.into_body().into_with_config().limit(ANSWER_BYTES);
                match status {
                    // What cannot be read of an answer changes nothing: the message is there.
                    200..=299 => Outcome::Accepted {
                        rejected: rejected(&body.read_to_vec().unwrap_or_default()),
                    },
                    429 | 502..=504 => Outcome::Later {
                        why: status.to_string().into(),
                        after,
                    },
                    _ => Outcome::Refused {
                        why: status.to_string().into(),
                    },
                }
            }
            Err(error) => failed(&error),
        }
    }
}

/// As long as a collector wants to be left alone. A date is taken by the collector's own clock if it
/// shows one, for ours may be wrong.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let after = text("retry-after")?;
    if let Ok(seconds) = after.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(after).ok()?;
    let now = text("date").and_then(|date| httpdate::parse_http_date(date).ok());
    let now = now.unwrap_or_else(SystemTime::now);
    Some(until.duration_since(now).unwrap_or_default())
}

/// What the collector says it could not use. The answers to all signals have one shape.
pub(super) fn rejected(body: &[u8]) -> u64 {
    let answer = ExportMetricsServiceResponse::decode(body).unwrap_or_default();
    let partial = answer.partial_success.unwrap_or_default();
    u64::try_from(partial.rejected_data_points).unwrap_or(0)
}

fn failed(error: &ureq::Error) -> Outcome {
    let why = match error {
        ureq::Error::Timeout(_) => "timeout",
        ureq::Error::HostNotFound => "name_resolution",
        ureq::Error::Io(source) if is_of_name(source) => "name_resolution",
        ureq::Error::Io(_) | ureq::Error::ConnectionFailed => "connection",
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => "tls",
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
            return Outcome::Refused {
                why: "request".into(),
            };
        }
        _ => "protocol",
    };
    Outcome::Later {
        why: why.into(),
        after: None,
    }
}

/// Whether no address was found; the standard library has no kind for it, only this text of its own.
fn is_of_name(error: &io::Error) -> bool {
    let text = error.to_string();
    text.starts_with("failed to lookup address information")
}

pub(super) fn packed(message: &[u8]) -> Option<Vec<u8>> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(message).ok()?;
    packer.finish().ok()
}
