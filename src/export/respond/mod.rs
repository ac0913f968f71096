//! Answers requests to the agent's endpoints, whoever carries them.
//!
//! Runs under any executor: it waits only on demands in the store, which wake it. Absent on
//! purpose: sockets, HTTP crates, clocks that tick by themselves; somebody expires the demands.

mod about;
mod actions;
mod block;
mod bodies;
mod form;
mod heap;
mod heap_stats;
pub(crate) mod leaks;
mod logical;
pub(crate) mod message;
mod moment;
mod profile;
mod querier;
pub(crate) mod query;
mod raises;
mod scopes;
mod scrape;
mod shape;
mod span;
mod symbol;
mod tuning;
mod wall;

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::catalog::endpoints::{Place, QUERIER, TEXT};
use crate::catalog::families::AGENT_PANICS;
use crate::config::Config;
use crate::export::guard::{Denied, Guard, Reason, Refusal};
use crate::export::negotiate::Negotiated;
use crate::export::{Published, index};
use crate::store::Store;

use actions::Actions;
use bodies::{LargeBodies, Pages};
use form::Format;
use heap::Shown as Heap;
pub use message::{Reply, Request};
use query::Query;
use raises::Raises;

/// All that answers are made from.
#[derive(Debug)]
pub(crate) struct Plane {
    pub(crate) store: Arc<Store>,
    pub(crate) config: Arc<Config>,
    pub(crate) published: Arc<Published>,
    pub(crate) denied: Denied,
    pub(crate) started: Instant,
    guard: Guard,
    pages: Pages<Negotiated>,
    large: LargeBodies,
    actions: Actions,
    raises: Raises,
    /// The program's file name.
    program: String,
}

impl Plane {
    pub(crate) fn new(store: Arc<Store>, config: Arc<Config>, published: Arc<Published>) -> Self {
        let denied = Denied::new(&store.metrics);
        let first = std::env::args_os().next().unwrap_or_default();
        let program = Path::new(&first).file_name().unwrap_or_default();
        Self {
            denied,
            started: Instant::now(),
            guard: Guard::new(config.hosts.clone(), config.control),
            pages: Pages::default(),
            large: LargeBodies::default(),
            actions: Actions::default(),
            raises: Raises::new(&config),
            program: program.to_string_lossy().into_owned(),
            store,
            config,
            published,
        }
    }

    /// Ends the waiting of readers that are overdue. Whoever carries requests calls this a few
    /// times a second while one is being answered, so that a stuck collecting thread makes pages
    /// old but not late.
    pub(crate) fn expire(&self, now: Instant) {
        self.store.refresh.expire(now);
        self.store.cpu.expire(now);
        self.store.names.expire(now);
        self.store.looks.expire(now);
        self.store.heap.wishes.expire(now);
        self.store.pauses.expire(now);
        self.store.tuning.expire(now);
    }

    /// Counts a refusal and puts it in the form that the path's clients read.
    pub(crate) fn refuse(&self, path: &str, refusal: &Refusal) -> Reply {
        self.denied.count(refusal.reason);
        let text = &refusal.text;
        let reply = failure(path, refusal.status, text);
        let reply = match refusal.retry_after {
            // Whole seconds, and who comes again before all have passed is refused again.
            Some(wait) => reply.with("Retry-After", whole_seconds(wait).to_string()),
            None => reply,
        };
        let reply = match refusal.allow {
            Some(allow) => reply.with("Allow", allow),
            None => reply,
        };
        if refusal.closes() {
            reply.with("Connection", "close")
        } else {
            reply
        }
    }
}

/// As many whole seconds as cover a wait, at least one.
fn whole_seconds(wait: Duration) -> u64 {
    let part = u64::from(wait.subsec_nanos() > 0);
    (wait.as_secs() + part).max(1)
}

/// Answers a request. A panic on the way becomes 500 for this request alone.
pub(crate) async fn respond(plane: &Plane, request: Request) -> Reply {
    let mut work = pin!(answer(plane, &request));
    let caught = poll_fn(|context| {
        // After a panic the work is not polled again, and the store's locks recover.
        match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
            Ok(poll) => poll.map(Some),
            Err(_) => Poll::Ready(None),
        }
    });
    let reply = match caught.await {
        Some(Ok(reply)) => reply,
        Some(Err(refusal)) => plane.refuse(&request.path, &refusal),
        None => {
            if let Ok(panics) = plane.store.metrics.counter(&AGENT_PANICS, &["http"]) {
                panics.inc();
            }
            failure(&request.path, 500, "internal error")
        }
    };
    if request.is_head() {
        reply.without_body()
    } else {
        reply
    }
}

async fn answer(plane: &Plane, request: &Request) -> Result<Reply, Refusal> {
    let place = plane.guard.check(request, Instant::now())?;
    let body = request.body.as_ref().map_err(Refusal::clone)?;
    #[cfg(test)]
    tests::failpoint(request);
    let endpoint = match place {
        Place::Served(endpoint) => endpoint,
        Place::Query(method) => return querier::answer(plane, request, method, body).await,
        Place::Absent(absent) => return Err(Refusal::new(501, Reason::Absent, absent.reason)),
    };
    match endpoint.path {
        "/" => Ok(index::agent(plane, request)),
        "/metrics" => scrape::metrics(plane, request).await,
        "/targets" => about::targets(plane),
        "/healthz" => Ok(about::health(plane)),
        "/readyz" => Ok(about::ready(plane)),
        "/debug/flamegraph" => flamegraph(plane, request).await,
        "/debug/pprof/" => Ok(index::profiles(plane)),
        "/debug/pprof/profile" => profile::cpu(plane, request, Format::Pprof).await,
        "/debug/pprof/block" => block::block(plane, request, Format::Pprof).await,
        "/debug/pprof/wall" => wall::wall(plane, request, Format::Pprof).await,
        "/debug/pprof/goroutine" => scopes::goroutine(plane, request),
        "/debug/pprof/heap" => heap::heap(plane, request, Heap::InUse, Format::Pprof).await,
        "/debug/pprof/allocs" => heap::heap(plane, request, Heap::Allocated, Format::Pprof).await,
        "/debug/heap/stats" => heap_stats::stats(plane, request).await,
        "/debug/heap/leaks" => leaks::leaks(plane, request).await,
        "/debug/pprof/threads" => wall::threads(plane, request).await,
        "/debug/pprof/threadcreate" => wall::by_name(plane, request).await,
        "/debug/pprof/cmdline" => Ok(profile::cmdline(plane)),
        "/debug/pprof/symbol" => symbol::symbol(plane, request, body).await,
        "/debug/heap/tuning" => tuning::tuning(plane, request, body).await,
        "/debug/agent" => about::agent(plane),
        other => Err(Refusal::new(404, Reason::Route, other)),
    }
}

/// What a flame graph is drawn of.
#[derive(Debug, Clone, Copy)]
enum Drawn {
    Cpu,
    Wall,
    Await,
    Heap(Heap),
}

const DRAWN: [(&str, Drawn); 5] = [
    ("cpu", Drawn::Cpu),
    ("wall", Drawn::Wall),
    ("await", Drawn::Await),
    ("heap", Drawn::Heap(Heap::InUse)),
    ("allocs", Drawn::Heap(Heap::Allocated)),
];

async fn flamegraph(plane: &Plane, request: &Request) -> Result<Reply, Refusal> {
    let drawn = Query::parse(&request.query).word("type", &DRAWN, Drawn::Cpu)?;
    match drawn {
        Drawn::Cpu => profile::cpu(plane, request, Format::Svg).await,
        Drawn::Wall => wall::wall(plane, request, Format::Svg).await,
        Drawn::Heap(shown) => heap::heap(plane, request, shown, Format::Svg).await,
        Drawn::Await => block::block(plane, request, Format::Svg).await,
    }
}

#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
}

/// An error as the path's clients read it: Go's tool shows a text only with its header, everyone
/// else gets RFC 9457, but for clients of Connect.
fn failure(path: &str, status: u16, text: &str) -> Reply {
    if path.starts_with(QUERIER) {
        return querier::failure(status, text);
    }
    if path.starts_with("/debug/pprof/") {
        let body = format!("{text}\n").into_bytes();
        return Reply::new(status, TEXT, body).with("X-Go-Pprof", "1");
    }
    let problem = Problem {
        r#type: "about:blank",
        title: title(status),
        status,
        detail: text,
    };
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    Reply::new(status, "application/problem+json", body)
}

const fn title(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        _ => "Error",
    }
}

#[cfg(test)]
pub(crate) mod tests;
