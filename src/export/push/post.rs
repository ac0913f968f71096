//! One message to a collector, and what became of it.
//!
//! Source: the OTLP specification, "OTLP/HTTP Response": 429, 502, 503 and 504 may be tried again, after
//! what `Retry-After` says; anything else that is not 2xx must not be.

use std::borrow::Cow;
use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use ureq::Agent;

use crate::config::otlp::Target;

/// Bytes of an answer that are read: a reason, if there is one.
const ANSWER_BYTES: u64 = 64 << 10;
const AGENT: &str = concat!("OTel-OTLP-Exporter-Rust/", env!("CARGO_PKG_VERSION"));

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The collector has it; its answer may say that it could not use all.
    Accepted(Vec<u8>),
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
pub(super) struct Post {
    agent: Agent,
    target: Target,
    content_type: &'static str,
}

impl Post {
    pub(super) fn new(target: Target) -> Self {
        Self::of(target, "application/x-protobuf")
    }

    /// For bodies of another type.
    pub(super) fn of(target: Target, content_type: &'static str) -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(target.timeout))
            .http_status_as_error(false)
            // A collector that has moved is the operator's business: tokens go where they were sent.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(AGENT)
            .build();
        Self {
            agent: config.into(),
            target,
            content_type,
        }
    }

    /// Sends a message and waits for its answer, at most for the target's timeout.
    pub(super) fn send(&self, message: &[u8]) -> Outcome {
        let packed = if self.target.gzip {
            packed(message)
        } else {
            None
        };
        let mut request = self.agent.post(&self.target.url);
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
                let after = answer.headers().get("retry-after");
                let after = after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
                let body = answer.into_body().into_with_config().limit(ANSWER_BYTES);
                match status {
                    // What cannot be read of an answer changes nothing: the message is there.
                    200..=299 => Outcome::Accepted(body.read_to_vec().unwrap_or_default()),
                    429 | 502..=504 => Outcome::Later {
                        why: status.to_string().into(),
                        after: after.map(Duration::from_secs),
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

fn failed(error: &ureq::Error) -> Outcome {
    let why = match error {
        ureq::Error::Timeout(_) => "timeout",
        ureq::Error::HostNotFound => "name_resolution",
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

fn packed(message: &[u8]) -> Option<Vec<u8>> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(message).ok()?;
    packer.finish().ok()
}
