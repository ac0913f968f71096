//! The record of one request that is traced: where it stands in its trace, and its children.
//!
//! The record is memory that is used again: what a request writes into it allocates only where no request
//! before had as much to write.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::context::{self, Parent, SAMPLED};
use super::ids;
use super::keep::{self, Keep};
use super::logs::LogRecord;
use super::sites::Site;
use crate::config::traces::Sampling;
use crate::store::metrics::TraceContext;
use crate::store::sync::lock;

/// Children of one request that are written down; further ones are counted.
pub(crate) const CHILDREN: usize = 64;
/// Log records of one request that are written down; further ones are counted.
const LOGS: usize = 64;
/// Bytes of path and query that are written down.
const TARGET_BYTES: usize = 2_048;
/// Bytes of a text that are kept from one request to the next.
const KEPT_BYTES: usize = 512;

/// A request that is open, or waits to be sent.
#[derive(Debug)]
pub(crate) struct OpenTrace {
    pub(crate) began: Instant,
    pub(crate) context: TraceContext,
    pub(crate) parent: Option<Parent>,
    /// What was decided at the start.
    pub(crate) start: Option<Keep>,
    pub(crate) tracestate: String,
    pub(crate) baggage: String,
    /// Path and query, as they came.
    pub(crate) target: String,
    written: Mutex<Written>,
}

/// What is written while the request is open.
#[derive(Debug, Default)]
struct Written {
    children: Vec<Child>,
    beyond: u32,
    logs: Vec<LogRecord>,
    logs_beyond: u32,
    root: Option<Root>,
    /// Nothing is added any more.
    sent: bool,
}

/// How a kept request ended.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    pub(crate) method: &'static str,
    pub(crate) route: Arc<str>,
    pub(crate) scheme: &'static str,
    /// 0: it ended without a response.
    pub(crate) status: u16,
    pub(crate) error: &'static str,
    pub(crate) elapsed: Duration,
    pub(crate) sent_bytes: u64,
    pub(crate) keep: Keep,
}

/// One piece of a request's work.
#[derive(Debug, Clone)]
pub(crate) struct Child {
    pub(crate) parent: u64,
    /// After the request's start.
    pub(crate) start: Duration,
    pub(crate) elapsed: Duration,
    pub(crate) work: Work,
}

/// What a piece of work was, and how it ended.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    /// A statement; `error` is empty where it succeeded.
    Query {
        site: Site,
        error: &'static str,
        rows: u64,
    },
    /// A lookup in a cache.
    Lookup {
        site: Site,
        result: &'static str,
        class: &'static str,
    },
    /// A load from behind a cache.
    Load { site: Site, failed: bool },
    /// A span of the host's own.
    Host(Box<HostSpan>),
}

/// A span of the host's own.
#[derive(Debug, Clone)]
pub(crate) struct HostSpan {
    pub(crate) span_id: u64,
    pub(crate) name: &'static str,
    pub(crate) target: &'static str,
    pub(crate) fields: Vec<(&'static str, String)>,
}

/// What became of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Added {
    Held,
    /// The request has as many as are written down.
    Beyond,
    /// The request's spans are gone already.
    Late,
}

/// What a caller says of a request.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Incoming<'a> {
    pub(crate) parent: Option<Parent>,
    pub(crate) tracestate: &'a str,
    pub(crate) baggage: &'a str,
    pub(crate) target: &'a str,
}

/// What is taken out of a record to be sent.
#[derive(Debug)]
pub(crate) struct Spans {
    pub(crate) root: Root,
    pub(crate) children: Vec<Child>,
    pub(crate) beyond: u32,
    pub(crate) logs: Vec<LogRecord>,
    pub(crate) logs_beyond: u32,
}

impl Default for OpenTrace {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            context: TraceContext {
                trace_id: 1,
                span_id: 1,
            },
            parent: None,
            start: None,
            tracestate: String::new(),
            baggage: String::new(),
            target: String::new(),
            written: Mutex::default(),
        }
    }
}

impl OpenTrace {
    /// Begins anew, with the memory of what was before.
    pub(crate) fn begin(&mut self, began: Instant, incoming: Incoming<'_>, sampling: &Sampling) {
        let parent = incoming.parent;
        let context = TraceContext {
            trace_id: parent.map_or_else(ids::trace_id, |parent| parent.context.trace_id),
            span_id: ids::span_id(),
        };
        self.began = began;
        self.context = context;
        self.parent = parent;
        self.start = keep::at_start(sampling, parent.map(Parent::is_sampled), context.trace_id);
        // Without its parent a state belongs to nobody.
        let is_state = parent.is_some() && context::is_tracestate(incoming.tracestate);
        write(&mut self.tracestate, incoming.tracestate, is_state);
        let is_baggage = context::is_baggage(incoming.baggage);
        write(&mut self.baggage, incoming.baggage, is_baggage);
        write(&mut self.target, cut(incoming.target, TARGET_BYTES), true);
        let written = self.written.get_mut();
        let written = written.unwrap_or_else(std::sync::PoisonError::into_inner);
        written.children.clear();
        written.beyond = 0;
        written.logs.clear();
        written.logs_beyond = 0;
        written.root = None;
        written.sent = false;
    }

    /// Whether those that the request calls are told to keep their spans.
    pub(crate) fn flags(&self) -> u8 {
        let random = self
            .parent
            .map_or(context::RANDOM, |parent| parent.flags & context::RANDOM);
        let sampled = if self.start.is_some() { SAMPLED } else { 0 };
        random | sampled
    }

    /// Writes a child down.
    pub(crate) fn add(&self, child: Child) -> Added {
        let mut written = lock(&self.written);
        if written.sent {
            return Added::Late;
        }
        if written.children.len() < CHILDREN {
            written.children.push(child);
            return Added::Held;
        }
        written.beyond = written.beyond.saturating_add(1);
        Added::Beyond
    }

    /// Writes down what was said in the request; goes with its spans.
    pub(crate) fn log(&self, record: LogRecord) {
        let mut written = lock(&self.written);
        if written.sent || written.logs.len() >= LOGS {
            written.logs_beyond = written.logs_beyond.saturating_add(1);
        } else {
            written.logs.push(record);
        }
    }

    /// The request has ended, and this is how.
    pub(crate) fn end(&self, root: Root) {
        lock(&self.written).root = Some(root);
    }

    /// Spans and bytes that the record stands for.
    pub(crate) fn size(&self) -> (u64, usize) {
        let written = lock(&self.written);
        let hosts = written.children.iter().map(|child| match &child.work {
            Work::Host(span) => span.bytes(),
            _ => 0,
        });
        let texts = self.target.capacity() + self.tracestate.capacity() + self.baggage.capacity();
        let bytes = size_of::<Self>()
            + texts
            + written.children.capacity() * size_of::<Child>()
            + hosts.sum::<usize>()
            + written.logs.iter().map(LogRecord::bytes).sum::<usize>();
        (written.children.len() as u64 + 1, bytes)
    }

    /// Takes out what is to be sent, and leaves `buffer` for the next children.
    pub(crate) fn take(&self, buffer: Vec<Child>) -> Option<Spans> {
        let mut written = lock(&self.written);
        written.sent = true;
        let root = written.root.take()?;
        Some(Spans {
            root,
            children: std::mem::replace(&mut written.children, buffer),
            beyond: written.beyond,
            logs: std::mem::take(&mut written.logs),
            logs_beyond: written.logs_beyond,
        })
    }
}

impl HostSpan {
    fn bytes(&self) -> usize {
        size_of::<Self>() + fields_bytes(&self.fields)
    }
}

pub(super) fn fields_bytes(fields: &[(&'static str, String)]) -> usize {
    let each = fields.iter();
    each.map(|(_, value)| value.capacity() + size_of::<(&str, String)>())
        .sum()
}

/// Writes a text over another one.
fn write(place: &mut String, text: &str, is_wanted: bool) {
    place.clear();
    if place.capacity() > KEPT_BYTES {
        place.shrink_to(KEPT_BYTES);
    }
    if is_wanted {
        place.push_str(text);
    }
}

/// As much of a text as so many bytes hold, cut between characters.
pub(crate) fn cut(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes))
        .unwrap_or_default()
}
