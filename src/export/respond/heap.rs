//! Heap profiles, at the two paths of Go's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Plane;
use super::form::Format;
use super::message::{Reply, Request};
use super::moment::text;
use super::profile::{self, crowded, is_served, unavailable};
use super::query::Query;
use super::shape::Shape;
use crate::catalog::endpoints::TEXT;
use crate::config;
use crate::export::guard::{Reason, Refusal};
use crate::export::{difference, heap_text};
use crate::store::NoProfile;
use crate::store::demand::Outcome;
use crate::store::heap::{
    ALLOC_OBJECTS, ALLOC_SPACE, HeapMoment, HeapProfileWish, HeapSeen, HeapWish, INUSE_OBJECTS,
    INUSE_SPACE, KeptFor, Recording,
};
use crate::store::profile::{Profile, ValueType};

/// The two profiles, which differ in what is seen first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    InUse,
    Allocated,
}

impl Shown {
    /// What Go calls the file.
    const fn file(self, is_delta: bool) -> &'static str {
        match (self, is_delta) {
            (Self::InUse, false) => "heap",
            (Self::InUse, true) => "heap-delta",
            (Self::Allocated, false) => "allocs",
            (Self::Allocated, true) => "allocs-delta",
        }
    }

    const fn column(self) -> ValueType {
        match self {
            Self::InUse => INUSE_SPACE,
            Self::Allocated => ALLOC_SPACE,
        }
    }
}

const COLUMNS: [(&str, ValueType); 4] = [
    ("inuse_space", INUSE_SPACE),
    ("inuse_objects", INUSE_OBJECTS),
    ("alloc_space", ALLOC_SPACE),
    ("alloc_objects", ALLOC_OBJECTS),
];

const KEPT: [(&str, HeapMoment); 6] = [
    ("peak", HeapMoment::Kept(KeptFor::Peak)),
    ("limit", HeapMoment::Kept(KeptFor::Limit)),
    ("0", HeapMoment::Number(0)),
    ("1", HeapMoment::Number(1)),
    ("2", HeapMoment::Number(2)),
    ("3", HeapMoment::Number(3)),
];

/// What a host has to write for its heap to be recorded.
pub(super) const HOW_TO: &str = "\
the heap is not recorded: that needs an allocator that samples. streamgate-agent brings one, in its \
feature \"profiling\" (on by default); add these lines to main.rs, with your allocator in place of System \
if you have one:

#[global_allocator]
static ALLOCATOR: streamgate_agent::ProfiledAllocator<std::alloc::System> =
    streamgate_agent::ProfiledAllocator::new(std::alloc::System);";

/// Whether there is something to read.
pub(super) fn is_recorded(plane: &Plane) -> Result<(), Refusal> {
    is_served(plane)?;
    let why = match plane.store.heap.recording.get() {
        Some(Recording::On) => return Ok(()),
        Some(Recording::NotInstalled) => HOW_TO,
        Some(Recording::Off(why)) => why,
        None => "the agent has not started",
    };
    Err(Refusal::new(503, Reason::Unavailable, why))
}

/// What a reader wants, checked.
#[derive(Debug)]
struct Ask {
    moment: HeapMoment,
    column: ValueType,
    /// Zero: no difference over time.
    seconds: u64,
    /// What was kept of the past and is subtracted.
    less: Option<HeapMoment>,
    is_text: bool,
    shape: Shape,
}

impl Ask {
    fn read(request: &Request, shown: Shown, default: Format) -> Result<Self, Refusal> {
        let refused = |text: &'static str| Err(Refusal::new(400, Reason::Parameter, text));
        let query = Query::parse(&request.query);
        if query.has("seconds") && query.has("debug") {
            return refused("seconds and debug exclude each other");
        }
        if query.has("seconds") && (query.has("at") || query.has("diff_at")) {
            return refused(
                "seconds and at, diff_at exclude each other: a kept heap is of the past",
            );
        }
        let seconds = if query.has("seconds") {
            query.number("seconds", &config::PROFILE_SECONDS, 0)?
        } else {
            0
        };
        // Go runs its collector first if asked; there is none here, so this is read and does nothing.
        query.number("gc", &(0..=u64::MAX), 0)?;
        let moment = query.word("at", &KEPT, HeapMoment::Now)?;
        let less = if query.has("diff_at") {
            Some(query.word("diff_at", &KEPT, HeapMoment::Now)?)
        } else {
            None
        };
        let column = query.word("sample_index", &COLUMNS, shown.column())?;
        let is_text = query.word("debug", &[("0", false), ("1", true)], false)?;
        let subtracted = match less {
            Some(_) => query.text("diff_at", config::LABEL_BYTES)?,
            None => (seconds > 0).then(|| format!("{seconds} s before")),
        };
        // What was allocated only grows, so its difference is a profile like any other.
        let is_signed = less.is_some() || seconds > 0 && !counts_allocations(column);
        let mut shape = Shape::read_heap(&query, default, is_signed)?;
        shape.file = shown.file(seconds > 0);
        shape.subtracted = subtracted;
        Ok(Self {
            moment,
            column,
            seconds,
            less,
            is_text,
            shape,
        })
    }

    fn wish(&self, moment: HeapMoment) -> HeapProfileWish {
        HeapProfileWish {
            moment,
            column: self.column,
            ages: self.shape.tells_ages_apart(),
            names: self.shape.names,
        }
    }
}

fn counts_allocations(column: ValueType) -> bool {
    [ALLOC_OBJECTS, ALLOC_SPACE].contains(&column)
}

/// A heap profile of this moment or of one that was kept; with `seconds` what changes until then.
pub(super) async fn heap(
    plane: &Plane,
    request: &Request,
    shown: Shown,
    default: Format,
) -> Result<Reply, Refusal> {
    is_recorded(plane)?;
    let ask = Ask::read(request, shown, default)?;
    if request.is_head() {
        return Ok(if ask.is_text {
            Reply::new(200, TEXT, Vec::new()).without_length()
        } else {
            ask.shape.head()
        });
    }
    let format = ask.shape.format.word();
    let running = plane.actions.begin(request, ask.seconds, None, format);
    let reply = answer(plane, &ask).await;
    match &reply {
        Ok(reply) => running.ended(reply.status(), reply.body().len()),
        Err(refusal) => running.ended(refusal.status, 0),
    }
    reply
}

async fn answer(plane: &Plane, ask: &Ask) -> Result<Reply, Refusal> {
    if ask.seconds > 0 {
        let earlier = seen(plane, ask.wish(HeapMoment::Now)).await?;
        let end = Instant::now() + Duration::from_secs(ask.seconds);
        // Nobody answers: the wish expires, which is what is waited for.
        plane.store.pauses.ask((), end).map_err(crowded)?.await;
        let later = seen(plane, ask.wish(HeapMoment::Now)).await?;
        if !counts_allocations(ask.column) {
            return ask.shape.show(plane, &later, Some(&earlier));
        }
        let more = difference::subtract(&earlier, &later)
            .ok_or_else(|| unavailable("the two profiles count different things".to_owned()))?;
        return ask.shape.show(plane, &more, None);
    }
    let later = seen(plane, ask.wish(ask.moment)).await?;
    if ask.is_text {
        return text(plane, heap_text::write(&later));
    }
    let earlier = match ask.less {
        Some(moment) => Some(seen(plane, ask.wish(moment)).await?),
        None => None,
    };
    ask.shape.show(plane, &later, earlier.as_deref())
}

/// The heap profile of a wish.
pub(super) async fn seen(plane: &Plane, wish: HeapProfileWish) -> Result<Arc<Profile>, Refusal> {
    match wished(plane, HeapWish::Profile(wish)).await? {
        HeapSeen::Profile(profile) => Ok(profile),
        HeapSeen::Stats(_) | HeapSeen::Sites(_) => Err(another_answer()),
    }
}

pub(super) fn another_answer() -> Refusal {
    unavailable("another answer than was asked for".to_owned())
}

/// Waits for the answer of the thread that reads the allocator's samples.
pub(super) async fn wished(plane: &Plane, wish: HeapWish) -> Result<HeapSeen, Refusal> {
    let deadline = Instant::now() + config::SYMBOLISE;
    let wishes = &plane.store.heap.wishes;
    let demand = wishes.ask(wish, deadline).map_err(profile::crowded)?;
    match demand.await {
        Outcome::Answered(Ok(seen)) => Ok(seen),
        Outcome::Answered(Err(NoProfile { text, not_held })) => Err(if not_held {
            Refusal::new(404, Reason::Unavailable, text)
        } else {
            unavailable(text)
        }),
        Outcome::Expired => {
            let text = format!("no answer after {} s", config::SYMBOLISE.as_secs());
            Err(unavailable(text))
        }
    }
}

#[cfg(test)]
#[path = "heap_tests.rs"]
pub(super) mod tests;
