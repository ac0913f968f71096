//! The requests that are open now, at the path of Go's profile of goroutines.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Plane;
use super::logical::{self, Named, Taken};
use super::message::{Reply, Request};
use super::moment::{Page, text};
use super::profile;
use crate::config;
use crate::export::guard::Refusal;
use crate::store::label::Trace;
use crate::store::looks::STATE;
use crate::store::metrics::unix_nanos_now;
use crate::store::profile::{Label, OVERFLOW_NAME, Profile, SPAN_ID, TRACE_ID, ValueType};
use crate::store::scopes::{Doing, OpenScope};

/// Go's name for the column.
const GOROUTINE: ValueType = ValueType {
    name: "goroutine",
    unit: "count",
};

/// Bytes that are kept free for a page's last lines.
const LAST_LINES: usize = 256;

/// The open requests of one moment.
struct Seen {
    scopes: Vec<Shown>,
    /// Open requests that found no place.
    unseen: usize,
}

/// One of them, with its names.
struct Shown {
    scope: OpenScope,
    /// Outermost first.
    names: Vec<Arc<str>>,
    labels: Vec<Label>,
}

/// All requests that are open now.
pub(super) fn goroutine(plane: &Plane, request: &Request) -> Result<Reply, Refusal> {
    profile::is_on(plane)?;
    let page = Page::read(request)?;
    if request.is_head() {
        return Ok(page.head());
    }
    let seen = look(plane);
    if page.debug == 0 {
        let traces = page.shape.tells_traces_apart();
        return page.shape.show(plane, &profile_of(seen, traces), None);
    }
    let wanted = |shown: &Shown| page.shape.is_of(&shown.labels);
    let seen = Seen {
        scopes: seen.scopes.into_iter().filter(wanted).collect(),
        ..seen
    };
    text(
        plane,
        if page.debug == 1 {
            grouped(&seen)
        } else {
            each(&seen)
        },
    )
}

fn look(plane: &Plane) -> Seen {
    let (scopes, unseen) = plane.store.scopes.all();
    let scopes = scopes.into_iter().map(|scope| Shown {
        names: plane.store.awaits.names(&scope.stack),
        labels: scope.mark.set.labels().to_vec(),
        scope,
    });
    Seen {
        scopes: scopes.collect(),
        unseen,
    }
}

impl Doing {
    const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Sending => "sending",
            Self::Waiting(_) => "waiting",
        }
    }
}

fn trace_labels(trace: Trace) -> Vec<Label> {
    if trace == Trace::default() {
        return Vec::new();
    }
    let label = |key, value: String| Label {
        key,
        value: value.into(),
    };
    vec![
        label(TRACE_ID, format!("{:032x}", trace.trace_id)),
        label(SPAN_ID, format!("{:016x}", trace.span_id)),
    ]
}

fn profile_of(seen: Seen, traces: bool) -> Profile {
    let version = env!("CARGO_PKG_VERSION");
    let mut comments = vec![
        format!("streamgate-agent {version}, requests open at one moment, by what they have open"),
        "a task under [in_request] works beside its request and is counted too".to_owned(),
    ];
    let mut counts: BTreeMap<(Vec<Arc<str>>, Vec<Label>), i64> = BTreeMap::new();
    for Shown {
        scope,
        names,
        mut labels,
    } in seen.scopes
    {
        if traces {
            labels.extend(trace_labels(scope.mark.trace));
        }
        labels.push(Label {
            key: STATE,
            value: scope.doing.word().into(),
        });
        *counts.entry((names, labels)).or_default() += 1;
    }
    let mut stacks: Vec<Named> = counts
        .into_iter()
        .map(|((names, labels), count)| Named {
            names,
            values: vec![count],
            labels,
        })
        .collect();
    if seen.unseen > 0 {
        comments.push(format!(
            "{} more are open that found no place: {OVERFLOW_NAME}",
            seen.unseen
        ));
        stacks.push(Named {
            names: vec![OVERFLOW_NAME.into()],
            values: vec![i64::try_from(seen.unseen).unwrap_or(i64::MAX)],
            labels: Vec::new(),
        });
    }
    let taken = Taken {
        start_unix_nanos: unix_nanos_now(),
        duration: Duration::ZERO,
    };
    logical::profile(&[GOROUTINE], taken, comments, stacks)
}

/// One block per distinct stack and labels, the most frequent first, in Go's form.
fn grouped(seen: &Seen) -> String {
    let mut groups: BTreeMap<(&[Arc<str>], &[Label]), usize> = BTreeMap::new();
    for shown in &seen.scopes {
        let key = (&*shown.names, &*shown.labels);
        *groups.entry(key).or_default() += 1;
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, count)| Reverse(*count));
    let total = seen.scopes.len() + seen.unseen;
    let mut out = format!("goroutine profile: total {total}\n");
    let blocks = groups.into_iter().map(|((names, labels), count)| {
        let mut block = format!("{count} @\n");
        push_labels(&mut block, labels);
        push_names(&mut block, names, "#\t");
        block
    });
    push_blocks(&mut out, blocks, "stacks");
    push_unseen(&mut out, seen);
    out
}

/// One block per request, the oldest first.
fn each(seen: &Seen) -> String {
    let mut out = String::new();
    let blocks = seen.scopes.iter().map(|shown| {
        let scope = &shown.scope;
        let doing = match scope.doing {
            Doing::Waiting(Some(since)) => format!("waiting {:.3} s", since.as_secs_f64()),
            doing => doing.word().to_owned(),
        };
        let mut block = format!(
            "{} {} [{doing}, open {:.3} s]:\n",
            if scope.is_task { "task" } else { "request" },
            scope.number,
            scope.age.as_secs_f64()
        );
        let traced = trace_labels(scope.mark.trace);
        push_labels(&mut block, &[&*shown.labels, &*traced].concat());
        push_names(&mut block, &shown.names, "");
        block
    });
    push_blocks(&mut out, blocks, "requests");
    push_unseen(&mut out, seen);
    if out.is_empty() {
        out.push_str("no request is open\n");
    }
    out
}

/// As many blocks as the page's limit lets, and how many are left out.
fn push_blocks(out: &mut String, blocks: impl Iterator<Item = String>, what: &str) {
    let room = config::PROFILE_BODY_BYTES - LAST_LINES;
    let mut left_out = 0_usize;
    for block in blocks {
        if left_out > 0 || out.len() + block.len() >= room {
            left_out += 1;
        } else {
            out.push_str(&block);
            out.push('\n');
        }
    }
    if left_out > 0 {
        out.push_str(&format!(
            "{left_out} more {what} are left out to save room\n"
        ));
    }
}

fn push_unseen(out: &mut String, seen: &Seen) {
    if seen.unseen > 0 {
        out.push_str(&format!(
            "{} more requests are open that found no place\n",
            seen.unseen
        ));
    }
}

fn push_labels(out: &mut String, labels: &[Label]) {
    if labels.is_empty() {
        return;
    }
    let pairs = labels.iter();
    let pairs = pairs.map(|label| format!("{:?}:{:?}", label.key, &*label.value));
    let pairs: Vec<String> = pairs.collect();
    out.push_str(&format!("# labels: {{{}}}\n", pairs.join(", ")));
}

fn push_names(out: &mut String, names: &[Arc<str>], before: &str) {
    for name in names.iter().rev() {
        out.push_str(&format!("{before}{}\n", name.escape_debug()));
    }
}
