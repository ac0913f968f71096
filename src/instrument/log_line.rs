//! An event of the host's as one line, text or JSON, with the ids of the trace that it belongs to.

use std::fmt;
use std::fmt::Write as _;

use tracing_core::field::{Field, Visit};
use tracing_core::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::bounded_text::bounded;
use crate::store::label;

/// Bytes of a field, and of a message.
const FIELD_BYTES: usize = 2 << 10;
/// Names of open spans in a line, outermost first.
const SPANS: usize = 16;

/// Writes what the host says as lines, each with the ids of the running request's trace.
///
/// The agent prints nothing: the host gives this to the `fmt` layer of its own subscriber. A line holds time
/// (UTC), level, target, message, fields, `trace_id` and `span_id` where a request is traced, and the names of the
/// open spans. Message and each field are cut at 2 KiB, and whatever could end a line, move a cursor or turn the
/// direction of reading is escaped, so that nobody who is quoted in a log can forge one. Nothing is redacted.
///
/// # Cost
/// One allocation for each field, on the thread that says it. What the lines go to is the host's choice; standard
/// output blocks while nobody reads it.
///
/// ```
/// use streamgate_agent::LogLine;
/// use tracing_subscriber::layer::SubscriberExt as _;
///
/// let lines = tracing_subscriber::fmt::layer().event_format(LogLine::json());
/// let subscriber = tracing_subscriber::registry().with(lines.with_writer(std::io::sink));
/// # let _unused = subscriber;
/// // {"timestamp":"..","level":"WARN","target":"shop","message":"odd","fields":{"order":7},"trace_id":".."}
/// ```
#[derive(Debug, Clone, Copy)]
pub struct LogLine {
    form: Form,
}

#[derive(Debug, Clone, Copy)]
enum Form {
    Text,
    Json,
}

impl LogLine {
    /// `2026-11-27T05:20:23.123456Z WARN shop: odd order=7 trace_id=.. span_id=.. spans=outer:inner`
    #[must_use]
    pub const fn text() -> Self {
        Self { form: Form::Text }
    }

    /// One JSON object a line.
    #[must_use]
    pub const fn json() -> Self {
        Self { form: Form::Json }
    }
}

impl<S, N> FormatEvent<S, N> for LogLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut said = Said::default();
        event.record(&mut said);
        let scope = context.event_scope();
        let spans = scope.into_iter().flat_map(|scope| scope.from_root());
        let line = Line {
            time,
            level: metadata.level().as_str(),
            target: metadata.target(),
            said,
            trace: label::current().trace,
            spans: spans.take(SPANS).map(|span| span.name()).collect(),
        };
        match self.form {
            Form::Text => line.text(&mut writer),
            Form::Json => line.json(&mut writer),
        }
    }
}

struct Line {
    time: String,
    level: &'static str,
    target: &'static str,
    said: Said,
    trace: label::Trace,
    spans: Vec<&'static str>,
}

impl Line {
    fn text(&self, out: &mut impl fmt::Write) -> fmt::Result {
        let (time, level) = (&self.time, self.level);
        write!(out, "{time} {level:>5} {}: ", Escaped(self.target))?;
        write!(out, "{}", Escaped(&self.said.message))?;
        for (name, value) in &self.said.fields {
            write!(out, " {}=", Escaped(name))?;
            match value {
                Shown::Plain(text) => out.write_str(text)?,
                Shown::Text(text) => write!(out, "\"{}\"", Escaped(text))?,
            }
        }
        if self.trace.trace_id != 0 {
            let label::Trace { trace_id, span_id } = self.trace;
            write!(out, " trace_id={trace_id:032x} span_id={span_id:016x}")?;
        }
        for (place, name) in self.spans.iter().enumerate() {
            let before = if place == 0 { " spans=" } else { ":" };
            write!(out, "{before}{}", Escaped(name))?;
        }
        writeln!(out)
    }

    fn json(&self, out: &mut impl fmt::Write) -> fmt::Result {
        write!(out, "{{\"timestamp\":\"{}\"", self.time)?;
        write!(out, ",\"level\":\"{}\"", self.level)?;
        write!(out, ",\"target\":\"{}\"", Escaped(self.target))?;
        write!(out, ",\"message\":\"{}\"", Escaped(&self.said.message))?;
        for (place, (name, value)) in self.said.fields.iter().enumerate() {
            let before = if place == 0 { ",\"fields\":{" } else { "," };
            write!(out, "{before}\"{}\":", Escaped(name))?;
            match value {
                Shown::Plain(text) => out.write_str(text)?,
                Shown::Text(text) => write!(out, "\"{}\"", Escaped(text))?,
            }
        }
        if !self.said.fields.is_empty() {
            out.write_char('}')?;
        }
        if self.trace.trace_id != 0 {
            let label::Trace { trace_id, span_id } = self.trace;
            write!(out, ",\"trace_id\":\"{trace_id:032x}\"")?;
            write!(out, ",\"span_id\":\"{span_id:016x}\"")?;
        }
        for (place, name) in self.spans.iter().enumerate() {
            let before = if place == 0 { ",\"spans\":[" } else { "," };
            write!(out, "{before}\"{}\"", Escaped(name))?;
        }
        if !self.spans.is_empty() {
            out.write_char(']')?;
        }
        writeln!(out, "}}")
    }
}

/// What an event says.
#[derive(Default)]
struct Said {
    message: String,
    fields: Vec<(&'static str, Shown)>,
}

enum Shown {
    /// A number, or true or false.
    Plain(String),
    Text(String),
}

impl Said {
    fn plain(&mut self, field: &Field, value: impl fmt::Display) {
        let value = Shown::Plain(bounded(FIELD_BYTES, value));
        self.fields.push((field.name(), value));
    }

    fn text(&mut self, field: &Field, value: impl fmt::Display) {
        let text = bounded(FIELD_BYTES, value);
        match field.name() {
            "message" => self.message = text,
            name => self.fields.push((name, Shown::Text(text))),
        }
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.text(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.plain(field, value);
        } else {
            // JSON has no such numbers.
            self.text(field, value);
        }
    }
}

/// A text as it stands between quotes, in JSON's escapes.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '"' | '\\' => write!(f, "\\{letter}")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                _ if is_hidden(letter) => write!(f, "\\u{:04x}", u32::from(letter))?,
                _ => f.write_char(letter)?,
            }
        }
        Ok(())
    }
}

/// Whether a letter ends a line, moves a cursor, or changes the direction of what is read; all have four digits.
fn is_hidden(letter: char) -> bool {
    let turns = matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}') || turns
}

#[cfg(test)]
#[path = "log_line_tests.rs"]
mod tests;
