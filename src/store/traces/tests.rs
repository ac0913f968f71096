//! Records that are begun, kept, dropped and used again, without a request around them.

use std::time::{Duration, Instant};

use super::keep::Keep;
use super::open::CHILDREN;
use super::*;
use crate::store::metrics::{MetricsLimits, Value};

fn traces(ratio: f64) -> Traces {
    counted(ratio).0
}

/// Traces, and where they count.
fn counted(ratio: f64) -> (Traces, Metrics) {
    let traces = Traces::default();
    let metrics = Metrics::new(MetricsLimits {
        series: 100,
        bytes: 1 << 20,
    });
    traces.start(Sampling::new(true, ratio), true, &metrics);
    (traces, metrics)
}

/// Spans that were lost for this reason.
pub(crate) fn dropped(metrics: &Metrics, reason: &str) -> u64 {
    let snapshot = metrics.snapshot();
    let row = &families::AGENT_DROPPED;
    let mut values = snapshot.values(snapshot.family(row).unwrap());
    let found = values.find(|(series, _)| {
        let labels: Vec<_> = series.labels(row).collect();
        labels == [("signal", "spans"), ("reason", reason)]
    });
    let Some((_, Value::Total(total))) = found else {
        panic!("{reason}");
    };
    total
}

fn begin(traces: &Traces) -> Arc<OpenTrace> {
    traces.begin(Instant::now(), Incoming::default()).unwrap()
}

fn end(traces: &Traces, trace: Arc<OpenTrace>) -> bool {
    traces.end(trace, "", Duration::ZERO, |keep| Root {
        method: "GET",
        route: "/".into(),
        scheme: "http",
        status: 200,
        error: "",
        elapsed: Duration::ZERO,
        sent_bytes: 0,
        keep,
    })
}

fn child() -> Child {
    Child {
        parent: 0,
        start: Duration::ZERO,
        elapsed: Duration::ZERO,
        work: Work::Load {
            site: Site::default(),
            failed: false,
        },
    }
}

#[test]
fn nothing_is_traced_before_it_is_started() {
    let traces = Traces::default();
    assert!(traces.begin(Instant::now(), Incoming::default()).is_none());
    assert!(!traces.is_on());
}

#[test]
fn the_memory_of_a_request_goes_to_the_next_but_never_its_content() {
    let traces = traces(0.0);
    let first = begin(&traces);
    let (was, context) = (Arc::as_ptr(&first), first.context);
    traces.add(&first, child());
    assert!(!end(&traces, first));
    let second = begin(&traces);
    assert_eq!(Arc::as_ptr(&second), was);
    assert_ne!(second.context, context);
    assert_eq!(second.size().0, 1, "no child");
}

#[test]
fn a_record_that_work_still_writes_to_is_no_other_requests() {
    let traces = traces(0.0);
    let first = begin(&traces);
    let task = Arc::clone(&first);
    end(&traces, first);
    let second = begin(&traces);
    traces.add(&task, child());
    assert!(!Arc::ptr_eq(&task, &second));
    assert_eq!(second.size().0, 1);
}

#[test]
fn work_that_ends_before_its_request_is_sent_joins_it_and_later_work_is_counted() {
    let (traces, metrics) = counted(1.0);
    let trace = begin(&traces);
    let task = Arc::clone(&trace);
    assert!(end(&traces, trace));
    assert_eq!(task.add(child()), Added::Held);
    let mut sent = Vec::new();
    traces.drain(|trace, spans| {
        sent.push((trace.context, spans.children.len(), spans.root.keep));
    });
    assert_eq!(sent, [(task.context, 1, Keep::Ratio)]);
    assert_eq!(task.add(child()), Added::Late);
    traces.add(&task, child());
    assert_eq!(dropped(&metrics, "late"), 1);
}

#[test]
fn records_are_bounded_in_bytes_and_a_refused_one_is_used_again() {
    let (traces, metrics) = counted(1.0);
    let mut kept = 0_usize;
    let refused = loop {
        let trace = begin(&traces);
        (0..CHILDREN).for_each(|_| traces.add(&trace, child()));
        let at = Arc::as_ptr(&trace);
        if !end(&traces, trace) {
            break at;
        }
        kept += 1;
    };
    assert!(
        traces.kept_bytes() <= ring::BYTES && kept < ring::RECORDS,
        "{kept}"
    );
    assert_eq!(Arc::as_ptr(&begin(&traces)), refused);
    assert_eq!(dropped(&metrics, "ring_full"), 1 + CHILDREN as u64);
}

#[test]
fn a_half_full_ring_wakes_whoever_waits() {
    let traces = Arc::new(traces(1.0));
    let waiting = Arc::clone(&traces);
    let waiter = std::thread::spawn(move || waiting.wait(Duration::from_secs(60)));
    (0..ring::RECORDS / 2).for_each(|_| assert!(end(&traces, begin(&traces))));
    waiter.join().unwrap();
}
