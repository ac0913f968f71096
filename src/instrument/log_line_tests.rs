//! Lines through a subscriber of the host's.

use std::io::Write;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tracing_core::Dispatch;
use tracing_core::dispatcher::with_default;
use tracing_subscriber::layer::SubscriberExt as _;

use super::LogLine;
use crate::store::label::{self, Mark, Trace};

#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What stands on the page once `work` has said what it has to say.
fn said(line: LogLine, work: impl FnOnce()) -> String {
    let page = Page::default();
    let written = page.clone();
    let layer = tracing_subscriber::fmt::layer().event_format(line);
    let layer = layer.with_writer(move || written.clone());
    let subscriber = tracing_subscriber::registry().with(layer);
    with_default(&Dispatch::new(subscriber), work);
    let bytes = page.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

fn in_trace(work: impl FnOnce()) {
    let trace = Trace {
        trace_id: 0xabc,
        span_id: 0xdef,
    };
    let before = label::replace(Mark {
        trace,
        ..label::current()
    });
    work();
    label::replace(before);
}

#[test]
fn a_line_of_json_holds_what_was_said_where_and_in_which_trace() {
    let work = || {
        tracing::info!(
            size = 1.5,
            none = f64::NAN,
            ok = true,
            n = -7,
            who = "me",
            "took {}",
            3
        );
        in_trace(|| {
            let outer = tracing::info_span!("outer", secret = "not shown");
            outer.in_scope(|| tracing::info_span!("inner").in_scope(|| tracing::warn!("odd")));
        });
    };
    let page = said(LogLine::json(), work);
    let lines: Vec<Value> = page
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [took, odd] = &lines[..] else {
        panic!("{page}");
    };
    assert_eq!(took["message"], "took 3");
    assert_eq!(took["level"], "INFO");
    assert_eq!(took["target"], module_path!());
    let fields = serde_json::json!({"size": 1.5, "none": "NaN", "ok": true, "n": -7, "who": "me"});
    assert_eq!(took["fields"], fields);
    assert!(took["timestamp"].as_str().unwrap().ends_with('Z'), "{page}");
    assert!(took.get("trace_id").is_none() && took.get("spans").is_none());
    assert_eq!(odd["trace_id"], format!("{:032x}", 0xabc));
    assert_eq!(odd["span_id"], format!("{:016x}", 0xdef));
    assert_eq!(odd["spans"], serde_json::json!(["outer", "inner"]));
    assert!(odd.get("fields").is_none());
}

#[test]
fn a_line_of_text_says_the_same() {
    let page = said(LogLine::text(), || {
        in_trace(|| {
            tracing::info_span!("outer").in_scope(|| tracing::warn!(order = 7, who = "a b", "odd"))
        });
    });
    let (time, rest) = page.split_once(' ').unwrap();
    assert!(time.ends_with('Z'), "{page}");
    let ids = format!("trace_id={:032x} span_id={:016x}", 0xabc, 0xdef);
    let expected = format!(
        " WARN {}: odd order=7 who=\"a b\" {ids} spans=outer\n",
        module_path!()
    );
    assert_eq!(rest, expected);
}

#[test]
fn nobody_who_is_quoted_ends_a_line_moves_the_cursor_or_turns_the_text() {
    let hostile =
        "a\r\n2026-01-01T00:00:00Z ERROR x: forged\u{1b}[2J\u{9b}31m\u{7f}\u{202e}\u{2028}\"\\\0";
    for line in [LogLine::text(), LogLine::json()] {
        let page = said(line, || {
            tracing::warn!(name = hostile, shown = %hostile, "{hostile}");
        });
        assert_eq!(page.matches('\n').count(), 1, "{page:?}");
        let inner = page.trim_end_matches('\n');
        let is_plain = |letter: char| !letter.is_control() && !"\u{202e}\u{2028}".contains(letter);
        assert!(inner.chars().all(is_plain), "{page:?}");
    }
    let page = said(LogLine::json(), || tracing::warn!(name = hostile, "x"));
    let read: Value = serde_json::from_str(&page).unwrap();
    assert_eq!(read["fields"]["name"], hostile, "nothing of it is lost");
}

#[test]
fn a_message_and_each_field_are_cut_at_2_kib_between_letters() {
    let long = "é".repeat(500_000);
    let page = said(
        LogLine::json(),
        || tracing::warn!(long, other = %long, "{long}"),
    );
    let read: Value = serde_json::from_str(&page).unwrap();
    for value in [
        &read["message"],
        &read["fields"]["long"],
        &read["fields"]["other"],
    ] {
        assert_eq!(value.as_str().unwrap().len(), 2_048);
    }
    assert!(page.len() < 7_000, "{}", page.len());
}
