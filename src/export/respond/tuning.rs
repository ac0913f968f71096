//! How the allocator is tuned: shown to everybody, changed on the control plane.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Map, Value};

use super::Plane;
use super::about::json;
use super::message::{Reply, Request};
use super::profile::unavailable;
use super::query::{Query, shown};
use crate::catalog::endpoints;
use crate::config;
use crate::error::Error;
use crate::export::guard::{Reason, Refusal};
use crate::store::demand::Outcome;
use crate::store::tuning::{Decay, DecayNow, Pages, Tuning, TuningChange};

#[derive(Serialize)]
struct Shown {
    allocator: &'static str,
    /// Whether POST is taken.
    changeable: bool,
    dirty_decay_ms: ShownDecay,
    muzzy_decay_ms: ShownDecay,
    background_thread: bool,
    arenas: u32,
    arenas_limit: u32,
}

/// -1: for ever.
#[derive(Serialize)]
struct ShownDecay {
    new_arenas: i64,
    /// Each value once.
    arenas: Vec<i64>,
}

impl ShownDecay {
    fn of(decay: &DecayNow) -> Self {
        Self {
            new_arenas: ms(decay.new_arenas),
            arenas: decay.arenas.iter().copied().map(ms).collect(),
        }
    }
}

fn ms(decay: Decay) -> i64 {
    match decay {
        Decay::Never => -1,
        Decay::After(time) => i64::try_from(time.as_millis()).unwrap_or(i64::MAX),
    }
}

/// GET shows, POST changes; the guard has seen to it that POST is allowed.
pub(super) async fn tuning(
    plane: &Plane,
    request: &Request,
    body: &[u8],
) -> Result<Reply, Refusal> {
    if !endpoints::JEMALLOC {
        let text = "built without feature \"jemalloc\"";
        return Err(Refusal::new(501, Reason::Absent, text));
    }
    if request.method != "POST" {
        let query = Query::parse(&request.query);
        // A link must not change anything.
        if ACTIONS.iter().any(|name| query.has(name)) {
            let mut refusal = Refusal::new(405, Reason::Method, "method POST required");
            refusal.allow = Some("GET, HEAD, POST");
            return Err(refusal);
        }
        return json(&show(plane, &ask(plane, Vec::new()).await?));
    }
    let changes = read(request, body)?;
    let noted = changes.iter().map(text).collect::<Vec<String>>().join(", ");
    let running = plane
        .actions
        .begin(request, 0, None, "json")
        .changing(noted);
    let reply = match ask(plane, changes).await {
        Ok(tuning) => json(&show(plane, &tuning)),
        Err(refusal) => Err(refusal),
    };
    let (status, bytes) = match &reply {
        Ok(reply) => (reply.status(), reply.body().len()),
        Err(refusal) => (refusal.status, 0),
    };
    running.ended(status, bytes);
    reply
}

fn show(plane: &Plane, tuning: &Tuning) -> Shown {
    Shown {
        allocator: "jemalloc",
        changeable: plane.config.control,
        dirty_decay_ms: ShownDecay::of(&tuning.dirty),
        muzzy_decay_ms: ShownDecay::of(&tuning.muzzy),
        background_thread: tuning.background_thread,
        arenas: tuning.arenas,
        arenas_limit: tuning.arenas_limit,
    }
}

/// The collecting thread answers such wishes when it takes fresh readings.
async fn ask(plane: &Plane, changes: Vec<TuningChange>) -> Result<Tuning, Refusal> {
    let deadline = Instant::now() + config::TUNING_WAIT;
    let full = |_| {
        let text = format!("readers of the tuning at limit {}", config::PROFILE_READERS);
        Refusal::new(429, Reason::Readers, text).retry_after(Duration::from_secs(1))
    };
    let demand = plane.store.tuning.ask(changes, deadline).map_err(full)?;
    let _fresh = plane.store.refresh.ask((), deadline).map_err(full)?;
    match demand.await {
        Outcome::Answered(answer) => answer.map_err(|why| unavailable(why.0)),
        Outcome::Expired => Err(unavailable(
            "the collecting thread did not answer".to_owned(),
        )),
    }
}

/// What a body asks for, in the order of the body.
fn read(request: &Request, body: &[u8]) -> Result<Vec<TuningChange>, Refusal> {
    let json = |value: &[u8]| {
        let kind = value.split(|byte| *byte == b';').next().unwrap_or_default();
        kind.trim_ascii().eq_ignore_ascii_case(b"application/json")
    };
    let mut kinds = request.values("content-type");
    if !kinds.next().is_some_and(json) {
        let text = "content type application/json required";
        return Err(Refusal::new(415, Reason::ContentType, text));
    }
    let object: Map<String, Value> = serde_json::from_slice(body)
        .map_err(|_| wrong("body", "a JSON object", &String::from_utf8_lossy(body)))?;
    if object.is_empty() {
        return Err(wrong("body", NAMES, "{}"));
    }
    object
        .iter()
        .map(|(name, value)| change(name, value))
        .collect()
}

const ACTIONS: [&str; 4] = [
    "dirty_decay_ms",
    "muzzy_decay_ms",
    "background_thread",
    "purge",
];

const NAMES: &str = "an object of dirty_decay_ms|muzzy_decay_ms|background_thread|purge";

fn change(name: &str, value: &Value) -> Result<TuningChange, Refusal> {
    let decay = |pages| {
        let range = config::DECAY_MS;
        let allowed = format!("{}..={}", range.start(), range.end());
        let ms = value.as_i64().filter(|ms| range.contains(ms));
        let ms = ms.ok_or_else(|| wrong(name, &allowed, &plain(value)))?;
        let after = u64::try_from(ms).map(|ms| Decay::After(Duration::from_millis(ms)));
        Ok(TuningChange::Decay(pages, after.unwrap_or(Decay::Never)))
    };
    match (name, value) {
        ("dirty_decay_ms", _) => decay(Pages::Dirty),
        ("muzzy_decay_ms", _) => decay(Pages::Muzzy),
        ("background_thread", Value::Bool(on)) => Ok(TuningChange::BackgroundThread(*on)),
        ("background_thread", _) => Err(wrong(name, "true|false", &plain(value))),
        ("purge", Value::Bool(true)) => Ok(TuningChange::Purge),
        ("purge", _) => Err(wrong(name, "true", &plain(value))),
        _ => Err(wrong("body", NAMES, name)),
    }
}

/// A value as it stands in the error: a text without its quotes.
fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn wrong(name: &str, allowed: &str, seen: &str) -> Refusal {
    let known = ACTIONS.iter().find(|known| **known == name);
    let name = known.copied().unwrap_or("body");
    let error = Error::out_of_range(name, allowed, shown(seen));
    Refusal::new(400, Reason::Parameter, error.to_string())
}

/// A change as the record of actions names it.
fn text(change: &TuningChange) -> String {
    match change {
        TuningChange::Decay(Pages::Dirty, decay) => format!("dirty_decay_ms={}", ms(*decay)),
        TuningChange::Decay(Pages::Muzzy, decay) => format!("muzzy_decay_ms={}", ms(*decay)),
        TuningChange::BackgroundThread(on) => format!("background_thread={on}"),
        TuningChange::Purge => "purge".to_owned(),
    }
}
