//! CPU profiles in their formats, and the small paths that Go's tools expect beside them.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Plane;
use super::message::{Reply, Request};
use super::query::{Query, shown};
use crate::catalog::endpoints::{self, PPROF, SVG, TEXT};
use crate::config::{self, SampleRate};
use crate::error::Error;
use crate::export::guard::{Reason, Refusal};
use crate::export::{flamegraph, folded, pprof};
use crate::store::demand::Outcome;
use crate::store::profile::Profile;
use crate::store::{CpuWish, Unavailable};

/// How a profile is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Pprof,
    Folded,
    Svg,
}

const FORMATS: [(&str, Format); 3] = [
    ("pprof", Format::Pprof),
    ("folded", Format::Folded),
    ("svg", Format::Svg),
];

impl Format {
    const fn word(self) -> &'static str {
        match self {
            Self::Pprof => "pprof",
            Self::Folded => "folded",
            Self::Svg => "svg",
        }
    }

    const fn content_type(self) -> &'static str {
        match self {
            Self::Pprof => PPROF,
            Self::Folded => TEXT,
            Self::Svg => SVG,
        }
    }
}

/// Labels beyond those that every sample has, and whether they tell traces apart.
const LABELS: [(&str, bool); 1] = [("span", true)];

/// What a reader wants, checked.
#[derive(Debug)]
struct Ask {
    seconds: u64,
    rate: SampleRate,
    format: Format,
    /// Whether requests that are traced are told apart: they multiply the samples.
    traces: bool,
}

impl Ask {
    fn read(plane: &Plane, request: &Request, default: Format) -> Result<Self, Refusal> {
        let query = Query::parse(&request.query);
        if query.has("seconds") && query.has("debug") {
            let text = "seconds and debug exclude each other";
            return Err(Refusal::new(400, Reason::Parameter, text));
        }
        let seconds = query.number(
            "seconds",
            &config::PROFILE_SECONDS,
            config::PROFILE_SECONDS_DEFAULT,
        )?;
        let range = plane.config.hz();
        let wide = u64::from(*range.start())..=u64::from(*range.end());
        let hz = query.number("hz", &wide, config::HZ_DEFAULT.into())?;
        let refused = |error: Error| Refusal::new(400, Reason::Parameter, error.to_string());
        let rate = SampleRate::new(u32::try_from(hz).unwrap_or(0), &range).map_err(refused)?;
        let format = query.word("format", &FORMATS, default)?;
        Ok(Self {
            seconds,
            rate,
            format,
            traces: query.word("labels", &LABELS, false)?,
        })
    }
}

/// A CPU profile of the seconds to come.
pub(super) async fn cpu(
    plane: &Plane,
    request: &Request,
    default: Format,
) -> Result<Reply, Refusal> {
    if !endpoints::PROFILING {
        let text = "built without feature \"profiling\"";
        return Err(Refusal::new(501, Reason::Absent, text));
    }
    if !plane.config.profiling {
        return Err(Refusal::new(404, Reason::Absent, "profile plane is off"));
    }
    let ask = Ask::read(plane, request, default)?;
    if ask.format == Format::Svg && !endpoints::FLAMEGRAPH {
        let text = "built without feature \"flamegraph\"";
        return Err(Refusal::new(501, Reason::Absent, text));
    }
    if request.is_head() {
        // The length is known only after the work, which HEAD must not start.
        return Ok(present(
            ask.format,
            Reply::new(200, ask.format.content_type(), Vec::new()),
        )
        .without_length());
    }
    let running = plane
        .actions
        .begin(request, ask.seconds, ask.rate.hz(), ask.format.word());
    let reply = answer(plane, &ask).await;
    match &reply {
        Ok(reply) => running.ended(reply.status, reply.body().len()),
        Err(refusal) => running.ended(refusal.status, 0),
    }
    reply
}

async fn answer(plane: &Plane, ask: &Ask) -> Result<Reply, Refusal> {
    let duration = Duration::from_secs(ask.seconds);
    let wait = duration + config::SYMBOLISE;
    let wish = CpuWish {
        rate: ask.rate,
        duration,
        traces: ask.traces,
    };
    let demand = plane
        .store
        .cpu
        .ask(wish, Instant::now() + wait)
        .map_err(|full| {
            let text = format!("profile readers at limit {}", full.limit);
            Refusal::new(429, Reason::Readers, text).retry_after(Duration::from_secs(1))
        })?;
    let profile = match demand.await {
        Outcome::Answered(Ok(profile)) => profile,
        Outcome::Answered(Err(Unavailable(text))) => return Err(unavailable(text)),
        Outcome::Expired => {
            let text = format!("no profile after {} s", wait.as_secs());
            return Err(unavailable(text));
        }
    };
    let (bytes, policy) = encode(plane, &profile, ask.format)?;
    drop(profile);
    let body = plane.large.admit(bytes).ok_or_else(|| {
        let text = format!("large answers at limit {}", config::LARGE_BODIES);
        Refusal::new(503, Reason::LargeBodies, text).retry_after(config::WRITE_PROGRESS)
    })?;
    let reply = Reply::shared(200, ask.format.content_type(), Arc::new(body));
    let reply = present(ask.format, reply);
    Ok(match policy {
        Some(policy) => reply.with("Content-Security-Policy", policy),
        None => reply,
    })
}

fn unavailable(text: String) -> Refusal {
    Refusal::new(503, Reason::Unavailable, text).retry_after(Duration::from_secs(1))
}

/// The body, and for a page with a script the policy that lets this script run and no other.
fn encode(
    plane: &Plane,
    profile: &Profile,
    format: Format,
) -> Result<(Vec<u8>, Option<String>), Refusal> {
    match format {
        Format::Pprof => Ok((pprof::encode(profile), None)),
        Format::Folded => Ok((folded::encode(profile), None)),
        Format::Svg => {
            let title = format!("CPU of {}", plane.config.service);
            let svg = flamegraph::encode(profile, &title)
                .map_err(|error| unavailable(error.to_string()))?;
            let (svg, policy) = guarded(&svg);
            Ok((svg, Some(policy)))
        }
    }
}

/// Headers of a profile, as Go's server sends them. The pprof body is gzip without
/// `Content-Encoding`: the file itself is compressed, and a client must not unpack it.
fn present(format: Format, reply: Reply) -> Reply {
    if format == Format::Pprof {
        reply.with("Content-Disposition", "attachment; filename=\"profile\"")
    } else {
        reply
    }
}

/// Lets the picture's own scripts run and nothing else: a name that broke out of its escape would
/// not carry the nonce.
fn guarded(svg: &[u8]) -> (Vec<u8>, String) {
    let nonce = nonce();
    let policy = format!(
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-{nonce}'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    (flamegraph::with_nonce(svg, &nonce), policy)
}

/// 128 bits that a client cannot know before it has the answer: SipHash under the random keys that
/// the standard library draws from the system.
fn nonce() -> String {
    let half = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", half(), half())
}

/// Only the name of the program: arguments may hold secrets.
pub(super) fn cmdline(plane: &Plane) -> Reply {
    Reply::new(200, TEXT, plane.program.clone().into_bytes())
}

/// Names of addresses: `0x1+0x2` in the body or, by GET, in the query.
pub(super) fn symbol(plane: &Plane, request: &Request, body: &[u8]) -> Result<Reply, Refusal> {
    let text = if request.method == "POST" {
        String::from_utf8_lossy(body)
    } else {
        request.query.as_str().into()
    };
    let words: Vec<&str> = text.split('+').filter(|word| !word.is_empty()).collect();
    if words.len() > config::SYMBOLS {
        let text = format!("at most {} addresses", config::SYMBOLS);
        return Err(Refusal::new(413, Reason::BodySize, text));
    }
    // The tool only wants to know that there are symbols at all.
    let mut out = String::from("num_symbols: 1\n");
    for word in words {
        let word = word.trim();
        let address = word
            .strip_prefix("0x")
            .and_then(|hex| u64::from_str_radix(hex, 16).ok());
        out.push_str(&match address {
            Some(address) => format!("{address:#x} {}\n", name(plane, address)),
            None => format!("{} ??\n", shown(word).escape_debug()),
        });
    }
    Ok(Reply::new(200, TEXT, out.into_bytes()))
}

/// The function that holds an address, if a profile has resolved it before.
fn name(plane: &Plane, address: u64) -> String {
    let symbols = plane.store.symbols.get(address);
    // Innermost inlined function first; the code belongs to the last.
    symbols
        .as_deref()
        .and_then(|symbols| symbols.last())
        .map_or_else(
            || "??".to_owned(),
            |symbol| symbol.function.name.to_string(),
        )
}
