//! CPU profiles, and the small paths that Go's tools expect beside them.

use std::time::{Duration, Instant};

use super::Plane;
use super::message::{Reply, Request};
use super::query::{Query, shown};
use super::shape::{Format, Shape};
use super::span;
use crate::catalog::endpoints::{self, TEXT};
use crate::config;
use crate::export::guard::{Reason, Refusal};
use crate::store::demand::{Full, Outcome};
use crate::store::{CpuSpan, CpuWish, NoProfile};

/// What a reader wants, checked.
#[derive(Debug)]
struct Ask {
    span: CpuSpan,
    shape: Shape,
}

impl Ask {
    fn read(plane: &Plane, request: &Request, default: Format) -> Result<Self, Refusal> {
        let query = Query::parse(&request.query);
        if query.has("seconds") && query.has("debug") {
            let text = "seconds and debug exclude each other";
            return Err(Refusal::new(400, Reason::Parameter, text));
        }
        Ok(Self {
            span: span::read(&query, &plane.config.hz())?,
            shape: Shape::read(&query, default)?,
        })
    }
}

/// Whether the host lets profiles be seen at all.
pub(super) fn is_on(plane: &Plane) -> Result<(), Refusal> {
    if plane.config.profiling {
        Ok(())
    } else {
        Err(Refusal::new(404, Reason::Absent, "profile plane is off"))
    }
}

/// The same for those that need an engine.
pub(super) fn is_served(plane: &Plane) -> Result<(), Refusal> {
    if !endpoints::PROFILING {
        let text = "built without feature \"profiling\"";
        return Err(Refusal::new(501, Reason::Absent, text));
    }
    is_on(plane)
}

/// A CPU profile of the seconds to come, or at once of some that are over.
pub(super) async fn cpu(
    plane: &Plane,
    request: &Request,
    default: Format,
) -> Result<Reply, Refusal> {
    is_served(plane)?;
    let ask = Ask::read(plane, request, default)?;
    if request.is_head() {
        // The length is known only after the work, which HEAD must not start.
        return Ok(ask.shape.head(plane));
    }
    let format = ask.shape.format.word();
    let seconds = ask.span.duration().as_secs();
    let running = plane.actions.begin(request, seconds, ask.span.hz(), format);
    let reply = answer(plane, &ask).await;
    match &reply {
        Ok(reply) => running.ended(reply.status, reply.body().len()),
        Err(refusal) => running.ended(refusal.status, 0),
    }
    reply
}

async fn answer(plane: &Plane, ask: &Ask) -> Result<Reply, Refusal> {
    let wait = match ask.span {
        CpuSpan::Next { duration, .. } => duration + config::SYMBOLISE,
        CpuSpan::Ago { .. } | CpuSpan::Between { .. } => config::SYMBOLISE,
    };
    let wish = CpuWish {
        span: ask.span,
        traces: ask.shape.tells_traces_apart(),
    };
    let demand = plane
        .store
        .cpu
        .ask(wish, Instant::now() + wait)
        .map_err(crowded)?;
    let profile = match demand.await {
        Outcome::Answered(Ok(profile)) => profile,
        Outcome::Answered(Err(NoProfile { text, not_held })) => {
            return Err(if not_held {
                Refusal::new(404, Reason::Unavailable, text)
            } else {
                unavailable(text)
            });
        }
        Outcome::Expired => {
            let text = format!("no profile after {} s", wait.as_secs());
            return Err(unavailable(text));
        }
    };
    ask.shape.show(plane, &profile, None)
}

/// The refusal of a reader beyond as many as may wait.
pub(super) fn crowded(full: Full) -> Refusal {
    let text = format!("profile readers at limit {}", full.limit);
    Refusal::new(429, Reason::Readers, text).retry_after(Duration::from_secs(1))
}

pub(super) fn unavailable(text: String) -> Refusal {
    Refusal::new(503, Reason::Unavailable, text).retry_after(Duration::from_secs(1))
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
