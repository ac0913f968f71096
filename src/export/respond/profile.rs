//! CPU profiles, and the name of the program that Go's tools ask for beside them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Plane;
use super::form::Format;
use super::message::{Reply, Request};
use super::query::Query;
use super::shape::Shape;
use super::span;
use crate::catalog::endpoints::{self, TEXT};
use crate::config;
use crate::export::guard::{Reason, Refusal};
use crate::store::demand::{Demand, Full, Outcome};
use crate::store::profile::Profile;
use crate::store::{CpuAnswer, CpuSpan, CpuWish, Detail, NoProfile};

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
        let span = span::read(&query, &plane.config.hz())?;
        let shape = Shape::read_with_past(&query, default, span)?;
        Ok(Self { span, shape })
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
        return Ok(ask.shape.head());
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
    if let CpuSpan::Next { rate, .. } = ask.span {
        plane.raises.check(plane, rate)?;
    }
    let later = wish(plane, ask, ask.span)?;
    // First the past: if it is not held, nobody needs to wait for the seconds to come.
    let earlier = match ask.shape.diff_ago {
        Some(ago) => Some(answered(wish(plane, ask, earlier(ask.span, ago))?).await?),
        None => None,
    };
    let later = answered(later).await?;
    ask.shape.show(plane, &later, earlier.as_deref())
}

fn wish(plane: &Plane, ask: &Ask, span: CpuSpan) -> Result<Wish, Refusal> {
    let detail = Detail {
        traces: ask.shape.tells_traces_apart(),
        times: ask.shape.format.shows_time(),
    };
    let names = ask.shape.names;
    wished(
        plane,
        CpuWish {
            span,
            detail,
            names,
        },
    )
}

/// Puts a wish on the board.
pub(super) fn wished(plane: &Plane, wish: CpuWish) -> Result<Wish, Refusal> {
    let wait = match wish.span {
        CpuSpan::Next { duration, .. } => duration + config::SYMBOLISE,
        CpuSpan::Ago { .. } | CpuSpan::Between { .. } => config::SYMBOLISE,
    };
    let demand = plane.store.cpu.ask(wish, Instant::now() + wait);
    let demand = demand.map_err(crowded)?;
    Ok(Wish { demand, wait })
}

/// A wish on the board, and how long it may wait there.
pub(super) struct Wish {
    demand: Demand<CpuWish, CpuAnswer>,
    wait: Duration,
}

/// What comes of it. A span of which nothing is held is a 404.
pub(super) async fn answered(wish: Wish) -> Result<Arc<Profile>, Refusal> {
    match wish.demand.await {
        Outcome::Answered(Ok(profile)) => Ok(profile),
        Outcome::Answered(Err(NoProfile { text, not_held })) => Err(if not_held {
            Refusal::new(404, Reason::Unavailable, text)
        } else {
            unavailable(text)
        }),
        Outcome::Expired => {
            let text = format!("no profile after {} s", wish.wait.as_secs());
            Err(unavailable(text))
        }
    }
}

/// The same seconds, some time before.
fn earlier(span: CpuSpan, by: Duration) -> CpuSpan {
    match span {
        CpuSpan::Next { duration, .. } => CpuSpan::Ago { ago: by, duration },
        CpuSpan::Ago { ago, duration } => CpuSpan::Ago {
            ago: ago + by,
            duration,
        },
        CpuSpan::Between { from, to } => {
            let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
            CpuSpan::Between {
                from: from.saturating_sub(by),
                to: to.saturating_sub(by),
            }
        }
    }
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
