//! Wall-clock profiles and the pages of threads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Plane;
use super::form::Format;
use super::logical::{self, Named, Taken};
use super::message::{Reply, Request};
use super::moment::{Page, text};
use super::profile::{self, is_served};
use super::query::Query;
use super::shape::Shape;
use crate::config::{self, SampleRate};
use crate::error::Error;
use crate::export::guard::{Reason, Refusal};
use crate::export::labels::{self, Root};
use crate::store::Unavailable;
use crate::store::demand::Outcome;
use crate::store::looks::{Look, Seen, ThreadChoice, ThreadRow, WallWish};
use crate::store::profile::{Location, ValueType, to_usize};

/// A wall-clock profile of the seconds to come.
pub(super) async fn wall(
    plane: &Plane,
    request: &Request,
    default: Format,
) -> Result<Reply, Refusal> {
    is_served(plane)?;
    let query = Query::parse(&request.query);
    if query.has("seconds") && query.has("debug") {
        let text = "seconds and debug exclude each other";
        return Err(Refusal::new(400, Reason::Parameter, text));
    }
    let seconds = query.number(
        "seconds",
        &config::PROFILE_SECONDS,
        config::WALL_SECONDS_DEFAULT,
    )?;
    let range = config::WALL_HZ;
    let wide = u64::from(*range.start())..=u64::from(*range.end());
    let hz = query.number("hz", &wide, config::WALL_HZ_DEFAULT.into())?;
    let refused = |error: Error| Refusal::new(400, Reason::Parameter, error.to_string());
    let rate = SampleRate::new(u32::try_from(hz).unwrap_or(0), &range).map_err(refused)?;
    let shape = Shape::read(&query, default)?;
    let idle = query.word("idle", &[("0", false), ("1", true)], false)?;
    let threads = match query.text("threads", THREAD_NAME)? {
        None => ThreadChoice::Workers,
        Some(name) if name == "all" => ThreadChoice::All,
        Some(name) => ThreadChoice::Prefix(name),
    };
    if request.is_head() {
        return Ok(shape.head());
    }
    let duration = Duration::from_secs(seconds);
    let wish = WallWish {
        threads,
        rate,
        duration,
        idle,
    };
    let format = shape.format.word();
    let running = plane
        .actions
        .begin(request, seconds, Some(rate.hz()), format);
    let seen = seen(plane, Look::Over(wish), duration).await;
    let reply = seen.and_then(|seen| shown(plane, &shape, &seen));
    match &reply {
        Ok(reply) => running.ended(reply.status(), reply.body().len()),
        Err(refusal) => running.ended(refusal.status, 0),
    }
    reply
}

/// Bytes of a thread's name that may be asked for; the kernel keeps 15, hosts give longer ones.
const THREAD_NAME: usize = 64;

/// The profile; in formats without labels, with each sample's state as its outermost frame.
fn shown(plane: &Plane, shape: &Shape, seen: &Seen) -> Result<Reply, Refusal> {
    if shape.format == Format::Pprof {
        shape.show(plane, &seen.profile, None)
    } else {
        let rooted = labels::rooted(&seen.profile, Root::State);
        shape.show(plane, &rooted, None)
    }
}

async fn seen(plane: &Plane, look: Look, duration: Duration) -> Result<Arc<Seen>, Refusal> {
    let wait = duration + config::SYMBOLISE;
    let demand = plane
        .store
        .looks
        .ask(look, Instant::now() + wait)
        .map_err(profile::crowded)?;
    match demand.await {
        Outcome::Answered(Ok(seen)) => Ok(seen),
        Outcome::Answered(Err(Unavailable(text))) => Err(profile::unavailable(text)),
        Outcome::Expired => {
            let text = format!("no answer after {} s", wait.as_secs());
            Err(profile::unavailable(text))
        }
    }
}

/// All threads of this moment.
pub(super) async fn threads(plane: &Plane, request: &Request) -> Result<Reply, Refusal> {
    is_served(plane)?;
    let page = Page::read(request)?;
    if request.is_head() {
        return Ok(page.head());
    }
    let seen = seen(plane, Look::Now { stacks: true }, Duration::ZERO).await?;
    match page.debug {
        0 => shown(plane, &page.shape, &seen),
        1 => text(plane, grouped(&seen)),
        _ => text(plane, each(&seen)),
    }
}

/// Threads by name, where Go shows the stacks that created them.
pub(super) async fn by_name(plane: &Plane, request: &Request) -> Result<Reply, Refusal> {
    is_served(plane)?;
    let page = Page::read(request)?;
    if request.is_head() {
        return Ok(page.head());
    }
    let seen = seen(plane, Look::Now { stacks: false }, Duration::ZERO).await?;
    let mut counts: BTreeMap<Arc<str>, i64> = BTreeMap::new();
    for thread in &seen.threads {
        *counts.entry(Arc::clone(&thread.name)).or_default() += 1;
    }
    let mut counts: Vec<(Arc<str>, i64)> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| -count);
    if page.debug > 0 {
        let mut out = format!("threadcreate profile: total {}\n", seen.threads.len());
        for (name, count) in &counts {
            out.push_str(&format!("{count} @\n#\t{}\n\n", name.escape_debug()));
        }
        return text(plane, out);
    }
    let taken = Taken {
        start_unix_nanos: seen.profile.start_unix_nanos,
        duration: Duration::ZERO,
    };
    let comments =
        vec!["threads by name; the stacks that created them are not recorded".to_owned()];
    let stacks = counts.into_iter().map(|(name, count)| Named {
        names: vec![name],
        values: vec![count],
        labels: Vec::new(),
    });
    let profile = logical::profile(&[THREADCREATE], taken, comments, stacks.collect());
    page.shape.show(plane, &profile, None)
}

/// Go's name for the column.
const THREADCREATE: ValueType = ValueType {
    name: "threadcreate",
    unit: "count",
};

/// One block per distinct name, state and stack, the most frequent first.
fn grouped(seen: &Seen) -> String {
    let mut groups: BTreeMap<(&str, String, &[u32]), usize> = BTreeMap::new();
    for thread in &seen.threads {
        let key = (&*thread.name, state(thread), &*thread.stack);
        *groups.entry(key).or_default() += 1;
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let mut out = format!("threads profile: total {}\n", seen.threads.len());
    for ((name, state, stack), count) in groups {
        let addresses = stack.iter().filter_map(|place| location(seen, *place));
        let addresses: Vec<String> = addresses
            .filter(|location| location.address != 0)
            .map(|location| format!(" {:#x}", location.address))
            .collect();
        out.push_str(&format!("{count} @{}\n", addresses.concat()));
        out.push_str(&format!("# {} [{state}]\n", name.escape_debug()));
        for location in stack.iter().filter_map(|place| location(seen, *place)) {
            for (name, file, line) in lines(seen, location) {
                out.push_str(&format!("#\t{:#x}\t{name}", location.address));
                if !file.is_empty() {
                    out.push_str(&format!("\t{file}:{line}"));
                }
                out.push('\n');
            }
        }
        out.push('\n');
    }
    out
}

/// One block per thread.
fn each(seen: &Seen) -> String {
    let mut out = String::new();
    for thread in &seen.threads {
        let cpu = thread.cpu.map_or(String::new(), |cpu| {
            format!(", CPU {:.3} s", cpu.as_secs_f64())
        });
        out.push_str(&format!(
            "thread {} \"{}\" [{}{cpu}]:\n",
            thread.tid,
            thread.name.escape_debug(),
            state(thread)
        ));
        for location in thread
            .stack
            .iter()
            .filter_map(|place| location(seen, *place))
        {
            for (name, file, line) in lines(seen, location) {
                out.push_str(name);
                out.push('\n');
                if !file.is_empty() {
                    out.push_str(&format!("\t{file}:{line}\n"));
                }
            }
        }
        out.push('\n');
    }
    out
}

/// `running`, `sleeping: futex`.
fn state(thread: &ThreadRow) -> String {
    match &thread.call {
        Some(call) => format!("{}: {call}", thread.state),
        None => thread.state.to_owned(),
    }
}

fn location(seen: &Seen, place: u32) -> Option<&Location> {
    seen.profile.locations.get(to_usize(place))
}

/// Name, file and line of a location's functions, innermost first.
fn lines<'a>(
    seen: &'a Seen,
    location: &'a Location,
) -> impl Iterator<Item = (&'a str, &'a str, u32)> {
    location.lines.iter().filter_map(|line| {
        let function = seen.profile.functions.get(to_usize(line.function))?;
        Some((&*function.name, &*function.filename, line.line))
    })
}
