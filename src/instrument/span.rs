//! The tracing layer: while a span is entered, CPU samples carry its name.

use std::cell::RefCell;
use std::collections::HashMap;

use tracing_core::Subscriber;
use tracing_core::span::Id;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::entered::Entered;
use crate::store::label::{self, LabelSet, Mark};

/// The label that names the innermost entered span.
const SPAN: &str = "span";

/// Known combinations of a label set and a span's name per thread; beyond them the table starts anew.
const KNOWN: usize = 1024;

/// A layer for `tracing_subscriber` that labels CPU samples with the name of the entered span.
///
/// An instrumented future enters its span for each poll, so the label follows the task and never the
/// thread. Only names are read, no fields. The agent installs no subscriber: the host adds the layer
/// to its own, with a per-layer filter where it has many spans.
///
/// # Cost
/// Two thread-local look-ups per enter and exit.
///
/// ```
/// use tracing_subscriber::layer::SubscriberExt as _;
///
/// let subscriber = tracing_subscriber::registry().with(streamgate_agent::SpanLabels::default());
/// # drop(subscriber);
/// ```
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct SpanLabels {}

#[derive(Default)]
struct Labelled {
    spans: Entered<LabelSet>,
    known: HashMap<(LabelSet, &'static str), LabelSet>,
}

thread_local! {
    static LABELLED: RefCell<Labelled> = RefCell::default();
}

impl Labelled {
    fn enter(&mut self, id: u64, name: &'static str) {
        let before = label::current();
        if self.known.len() >= KNOWN {
            self.known.clear();
        }
        let known = self.known.entry((before.set, name));
        let set = *known.or_insert_with(|| before.set.with(SPAN, name));
        label::replace(Mark { set, ..before });
        self.spans.enter(id, before.set);
    }

    fn exit(&mut self, id: u64) {
        // Only the labels: where the request is in its trace is another layer's.
        if let Some(set) = self.spans.exit(id) {
            label::replace(Mark {
                set,
                ..label::current()
            });
        }
    }
}

fn with(act: impl FnOnce(&mut Labelled)) {
    let done = LABELLED.try_with(|entered| {
        if let Ok(mut entered) = entered.try_borrow_mut() {
            act(&mut entered);
        }
    });
    // Thread-locals may be gone while a thread ends; then nothing is labelled any more.
    if done.is_err() {}
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for SpanLabels {
    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            with(|entered| entered.enter(id.into_u64(), span.name()));
        }
    }

    fn on_exit(&self, id: &Id, _context: Context<'_, S>) {
        with(|entered| entered.exit(id.into_u64()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_core::dispatcher;
    use tracing_subscriber::layer::SubscriberExt as _;

    fn name() -> Option<String> {
        let value = label::current().set.value(SPAN);
        value.map(|name| name.to_string())
    }

    #[test]
    fn the_innermost_entered_span_is_named_and_leaving_it_names_the_one_around() {
        let subscriber = tracing_subscriber::registry().with(SpanLabels::default());
        let dispatch = dispatcher::Dispatch::new(subscriber);
        dispatcher::with_default(&dispatch, || {
            let outer = tracing::info_span!("outer");
            let inner = tracing::info_span!("inner", secret = "never read");
            {
                let _outer = outer.enter();
                assert_eq!(name().as_deref(), Some("outer"));
                inner.in_scope(|| assert_eq!(name().as_deref(), Some("inner")));
                assert_eq!(name().as_deref(), Some("outer"));
            }
            assert_eq!(name(), None);
        });
    }

    #[test]
    fn spans_left_in_the_order_they_were_entered_leave_nothing_behind() {
        let before = label::current();
        let mut entered = Labelled::default();
        entered.enter(1, "first");
        entered.enter(2, "second");
        entered.exit(1);
        assert_eq!(name().as_deref(), Some("second"));
        entered.exit(2);
        assert_eq!(label::current(), before);
        entered.exit(3);
        assert_eq!(label::current(), before);
    }
}
