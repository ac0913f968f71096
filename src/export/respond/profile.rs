//! CPU profiles, and the small paths that Go's tools expect beside them.

use std::time::{Duration, Instant};

use super::Plane;
use super::message::{Reply, Request};
use super::query::{Query, shown};
use super::shape::{Format, Shape};
use crate::catalog::endpoints::{self, TEXT};
use crate::config::{self, SampleRate};
use crate::error::Error;
use crate::export::guard::{Reason, Refusal};
use crate::store::demand::Outcome;
use crate::store::{CpuWish, Unavailable};

/// What a reader wants, checked.
#[derive(Debug)]
struct Ask {
    seconds: u64,
    rate: SampleRate,
    shape: Shape,
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
        Ok(Self {
            seconds,
            rate,
            shape: Shape::read(&query, default)?,
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
    if request.is_head() {
        // The length is known only after the work, which HEAD must not start.
        return Ok(ask.shape.head(plane));
    }
    let format = ask.shape.format.word();
    let running = plane
        .actions
        .begin(request, ask.seconds, ask.rate.hz(), format);
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
        traces: ask.shape.tells_traces_apart(),
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
    ask.shape.show(plane, &profile, None)
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
