//! Places that hold more and more memory: the verdicts with the stacks' names.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;

use super::Plane;
use super::about::json;
use super::heap::{another_answer, is_recorded, wished};
use super::message::{Reply, Request};
use super::moment::text;
use super::query::Query;
use crate::assess::leaks::{CacheReading, SiteGrowth, Verdict};
use crate::catalog::endpoints::{JSON, TEXT};
use crate::config;
use crate::export::guard::Refusal;
use crate::export::{leak_text, negotiate};
use crate::store::heap::{HeapSeen, HeapWish, SiteStack};
use crate::store::symbols::Symbol;
use crate::store::sync::lock;

/// Sites on a page, unless the reader says otherwise.
const SHOWN: u64 = 20;

/// What stands on the page, the sites to look at first before the others.
#[derive(Debug, Serialize)]
pub(crate) struct Page {
    /// Sites that are followed, of which those below are the first.
    pub(crate) followed: usize,
    /// Sites whose verdict is *leaking*.
    pub(crate) leaking: usize,
    /// How long they have been observed.
    pub(crate) observed_seconds: f64,
    pub(crate) sites: Vec<Site>,
}

/// One place in the program. All bytes and objects are estimates from samples.
#[derive(Debug, Serialize)]
pub(crate) struct Site {
    site: u64,
    pub(crate) verdict: &'static str,
    pub(crate) evidence: String,
    /// Whether it grows for sure, however short the time.
    pub(crate) grows: bool,
    /// Who allocated, the first frame of the stack; `null`: the stack is gone.
    pub(crate) function: Option<String>,
    pub(crate) live_bytes: f64,
    pub(crate) live_bytes_standard_error: f64,
    live_objects: f64,
    pub(crate) live_samples: u64,
    allocated_bytes: f64,
    pub(crate) bytes_per_hour: Option<f64>,
    p: Option<f64>,
    sigmas: Option<f64>,
    survivor_ratio: Option<f64>,
    steadiness_ratio: Option<f64>,
    slowing_p: Option<f64>,
    observed_seconds: f64,
    pub(crate) age_ratios: Ages,
    pub(crate) routes: Vec<Route>,
    pub(crate) cache: Option<Cache>,
    pub(crate) stack: Vec<Frame>,
    /// A flame graph of the heap in which the function is marked.
    pub(crate) flamegraph: String,
}

/// Shares of the live bytes by how long ago they were allocated.
#[derive(Debug, Serialize)]
pub(crate) struct Ages {
    pub(crate) below_1_minute: f64,
    pub(crate) below_10_minutes: f64,
    pub(crate) below_60_minutes: f64,
    pub(crate) older: f64,
}

/// A share of the live bytes.
#[derive(Debug, Serialize)]
pub(crate) struct Route {
    /// `null`: work that served no labelled request.
    pub(crate) http_route: Option<String>,
    pub(crate) ratio: f64,
}

/// The cache that explains the growth.
#[derive(Debug, Serialize)]
pub(crate) struct Cache {
    pub(crate) name: String,
    pub(crate) bytes: f64,
    capacity_bytes: Option<f64>,
}

/// A function and the line in it, 0 if that is not known.
#[derive(Debug, Serialize)]
pub(crate) struct Frame {
    pub(crate) function: String,
    pub(crate) file: String,
    pub(crate) line: u32,
}

impl Site {
    fn new(growth: SiteGrowth, stack: Option<&SiteStack>) -> Self {
        let now = growth.now;
        let share = |bytes: f64, of: f64| if of > 0.0 { bytes / of } else { 0.0 };
        let [minute, ten_minutes, hour, older] =
            now.age_bytes.map(|bytes| share(bytes, now.live_bytes));
        let frames = stack.map_or(&[][..], |stack| &stack.frames);
        let function = frames.first().map(|frame| frame.function.name.to_string());
        let routes = stack.map_or(&[][..], |stack| &stack.routes);
        let by_routes: f64 = routes.iter().map(|(_, bytes)| bytes).sum();
        Self {
            site: now.site,
            verdict: growth.verdict.word(),
            evidence: growth.evidence(),
            grows: growth.grows(),
            flamegraph: flamegraph(function.as_deref()),
            function,
            live_bytes: now.live_bytes.round(),
            live_bytes_standard_error: now.variance.sqrt().round(),
            live_objects: now.live_objects.round(),
            live_samples: now.live_samples,
            allocated_bytes: now.allocated_bytes.round(),
            bytes_per_hour: growth.bytes_per_hour,
            p: growth.p,
            sigmas: growth.sigmas,
            survivor_ratio: growth.survivor_ratio,
            steadiness_ratio: growth.steadiness_ratio,
            slowing_p: growth.slowing_p,
            observed_seconds: growth.observed.as_secs_f64(),
            age_ratios: Ages {
                below_1_minute: minute,
                below_10_minutes: ten_minutes,
                below_60_minutes: hour,
                older,
            },
            routes: routes
                .iter()
                .map(|(route, bytes)| Route {
                    http_route: route.as_deref().map(str::to_owned),
                    ratio: share(*bytes, by_routes),
                })
                .collect(),
            cache: growth.cache.map(Cache::from),
            stack: frames.iter().map(Frame::from).collect(),
        }
    }
}

impl From<CacheReading> for Cache {
    fn from(reading: CacheReading) -> Self {
        Self {
            name: reading.name.to_string(),
            bytes: reading.bytes,
            capacity_bytes: reading.capacity_bytes,
        }
    }
}

impl From<&Symbol> for Frame {
    fn from(symbol: &Symbol) -> Self {
        Self {
            function: symbol.function.name.to_string(),
            file: symbol.function.filename.to_string(),
            line: symbol.line,
        }
    }
}

/// The picture's own search takes an expression from `s`, in which a dot is any character.
fn flamegraph(function: Option<&str>) -> String {
    let path = "/debug/flamegraph?type=heap";
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '_' || c == ':' {
            c
        } else {
            '.'
        }
    };
    function.map_or_else(
        || path.to_owned(),
        |name| format!("{path}&s={}", name.chars().map(plain).collect::<String>()),
    )
}

/// The sites with their verdicts: JSON, or text for a person.
pub(super) async fn leaks(plane: &Plane, request: &Request) -> Result<Reply, Refusal> {
    is_recorded(plane)?;
    let query = Query::parse(&request.query);
    let most = config::leaks::SITES as u64;
    let limit = query.number("limit", &(1..=most), SHOWN)?;
    let accept = request.list("accept").unwrap_or_default();
    let forms = [("0", false), ("1", true)];
    let is_text = query.word("debug", &forms, negotiate::is_browser(&accept))?;
    if request.is_head() {
        let content_type = if is_text { TEXT } else { JSON };
        let reply = Reply::new(200, content_type, Vec::new()).without_length();
        return Ok(reply.with("Vary", "Accept"));
    }
    let page = page(plane, limit).await?;
    let reply = if is_text {
        text(plane, leak_text::write(&page))?
    } else {
        json(&page)?
    };
    Ok(reply.with("Vary", "Accept"))
}

async fn page(plane: &Plane, limit: u64) -> Result<Page, Refusal> {
    let mut judged = lock(&plane.published.leaks).judge();
    let followed = judged.len();
    let is_leaking = |growth: &&SiteGrowth| growth.verdict == Verdict::Leaking;
    let leaking = judged.iter().filter(is_leaking).count();
    let observed = judged.iter().map(|growth| growth.observed).max();
    judged.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let wanted = judged.iter().map(|growth| growth.now.site).collect();
    let HeapSeen::Sites(stacks) = wished(plane, HeapWish::Sites(wanted)).await? else {
        return Err(another_answer());
    };
    let stacks: HashMap<u64, &SiteStack> = stacks.iter().map(|one| (one.site, one)).collect();
    let site = |growth: SiteGrowth| {
        let stack = stacks.get(&growth.now.site).copied();
        Site::new(growth, stack)
    };
    Ok(Page {
        followed,
        leaking,
        observed_seconds: observed.unwrap_or(Duration::ZERO).as_secs_f64(),
        sites: judged.into_iter().map(site).collect(),
    })
}

#[cfg(test)]
#[path = "leak_tests.rs"]
mod tests;
