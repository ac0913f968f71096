//! Where requests waited, at the path of Go's profile of blocked goroutines.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Plane;
use super::form::Format;
use super::logical::{self, Named, Taken};
use super::message::{Reply, Request};
use super::moment::text;
use super::profile;
use super::query::Query;
use super::shape::Shape;
use crate::catalog::endpoints::TEXT;
use crate::config;
use crate::export::guard::{Reason, Refusal};
use crate::store::awaits::AwaitTable;
use crate::store::label::ROUTE;
use crate::store::profile::{Label, Profile, ValueType};

/// Go's names for the columns.
const CONTENTIONS: ValueType = ValueType {
    name: "contentions",
    unit: "count",
};
const DELAY: ValueType = ValueType {
    name: "delay",
    unit: "nanoseconds",
};

/// Waits since the start or, with `seconds`, of the seconds to come.
pub(super) async fn block(
    plane: &Plane,
    request: &Request,
    default: Format,
) -> Result<Reply, Refusal> {
    profile::is_on(plane)?;
    let query = Query::parse(&request.query);
    if query.has("seconds") && query.has("debug") {
        let text = "seconds and debug exclude each other";
        return Err(Refusal::new(400, Reason::Parameter, text));
    }
    let seconds = query.number("seconds", &config::PROFILE_SECONDS, 0)?;
    let debug = query.word("debug", &[("0", false), ("1", true)], false)?;
    let shape = Shape::read(&query, default)?;
    if request.is_head() {
        return Ok(if debug {
            Reply::new(200, TEXT, Vec::new()).without_length()
        } else {
            shape.head()
        });
    }
    let mut table = plane.store.awaits.table();
    if seconds > 0 {
        let running = plane
            .actions
            .begin(request, seconds, None, shape.format.word());
        // Nobody answers: the wish expires, which is what is waited for.
        let end = Instant::now() + Duration::from_secs(seconds);
        let pause = plane.store.pauses.ask((), end).map_err(profile::crowded)?;
        pause.await;
        table = plane.store.awaits.table().since(&table);
        running.ended(200, 0);
    }
    if debug {
        return text(plane, page(&table));
    }
    shape.show(plane, &profile_of(&table), None)
}

fn profile_of(table: &AwaitTable) -> Profile {
    let version = env!("CARGO_PKG_VERSION");
    let mut comments = vec![
        format!("streamgate-agent {version}, waits of requests by route and by what was open"),
        "a wait counts when it has ended; a task under [in_request] waits beside its request"
            .to_owned(),
    ];
    if table.folded > 0 {
        let folded = table.folded;
        comments.push(format!(
            "{folded} waits whose stack found no place are under [overflow]"
        ));
    }
    let whole = |value| i64::try_from(value).unwrap_or(i64::MAX);
    let stacks = table.stacks.iter().map(|(stack, waits)| Named {
        names: stack.clone(),
        values: vec![whole(waits.count), whole(waits.nanos)],
        labels: stack.first().map(route).into_iter().collect(),
    });
    let taken = Taken {
        start_unix_nanos: table.start_unix_nanos,
        duration: table.duration,
    };
    logical::profile(&[CONTENTIONS, DELAY], taken, comments, stacks.collect())
}

/// The outermost name of a stack as the label that it is in other profiles.
fn route(name: &Arc<str>) -> Label {
    Label {
        key: ROUTE,
        value: Arc::clone(name),
    }
}

/// One block per stack, the longest delay first.
fn page(table: &AwaitTable) -> String {
    let mut stacks: Vec<_> = table.stacks.iter().collect();
    stacks.sort_by_key(|(_, waits)| std::cmp::Reverse(waits.nanos));
    let mut out = format!(
        "block profile: waits of requests in {:.1} s\n",
        table.duration.as_secs_f64()
    );
    for (stack, waits) in stacks {
        let total = Duration::from_nanos(waits.nanos);
        let mean = Duration::from_nanos(waits.nanos / waits.count.max(1));
        out.push_str(&format!(
            "{:.6} s, {} waits, {:.6} s each @\n",
            total.as_secs_f64(),
            waits.count,
            mean.as_secs_f64()
        ));
        for name in stack.iter().rev() {
            out.push_str(&format!("#\t{}\n", name.escape_debug()));
        }
        out.push('\n');
    }
    out
}
