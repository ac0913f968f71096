//! Shows a profile as a flame graph: one SVG that zooms and searches in any browser.
//!
//! Drawn by `inferno` from our folded lines. A feature of its own, see `flamegraph_off.rs`.

use std::fmt;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use inferno::flamegraph::color::{MultiPalette, Palette};
use inferno::flamegraph::{Options, from_lines};

use super::folded;
use crate::config;
use crate::store::profile::{Profile, ValueType};

/// Why there is no picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NoFlamegraph(pub(crate) String);

impl fmt::Display for NoFlamegraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Shares of the picture's width, in percent, below which a frame is left out; the next is tried
/// when the picture exceeds its byte limit. At 1 % and 130 frames deep it has at most 13,000 boxes.
const MIN_WIDTHS: [f64; 3] = [0.01, 0.1, 1.0];

/// The picture as a response body of at most [`config::PROFILE_BODY_BYTES`]; a profile without
/// samples gives a picture that says so.
///
/// # Errors
/// `NoFlamegraph` when the drawing fails.
pub(crate) fn encode(profile: &Profile, title: &str) -> Result<Vec<u8>, NoFlamegraph> {
    if profile.total(profile.default_column()) <= 0 {
        return Ok(empty(profile, title));
    }
    let lines = folded::lines(profile, config::PROFILE_BODY_BYTES);
    let lines: Vec<String> = lines
        .iter()
        .map(|(stack, value)| format!("{stack} {value}"))
        .collect();
    let mut last = NoFlamegraph(String::new());
    for min_width in MIN_WIDTHS {
        match draw(profile, title, &lines, min_width) {
            Ok(svg) => return Ok(start_from_script(&svg)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn draw(
    profile: &Profile,
    title: &str,
    lines: &[String],
    min_width: f64,
) -> Result<Vec<u8>, NoFlamegraph> {
    let column = profile.sample_types.get(profile.default_column());
    let (unit, factor) = unit(column.copied());
    let mut options = Options::default();
    options.title = folded::frame(title).into_owned();
    options.subtitle = Some(subtitle(profile));
    options.count_name = unit.to_owned();
    options.factor = factor;
    options.min_width = min_width;
    options.colors = Palette::Multi(MultiPalette::Rust);
    // The same profile gives the same picture, and a function the same colour in each.
    options.deterministic = true;
    let mut out = Bounded {
        bytes: Vec::new(),
        limit: config::PROFILE_BODY_BYTES - END.len(),
    };
    // inferno has `unreachable!` where its input is odd; the reader then gets a text instead.
    let drawn = catch_unwind(AssertUnwindSafe(|| {
        from_lines(&mut options, lines.iter().map(String::as_str), &mut out)
    }));
    match drawn {
        Ok(Ok(())) => Ok(out.bytes),
        Ok(Err(error)) => Err(NoFlamegraph(format!(
            "cannot draw the flame graph: {error}"
        ))),
        Err(_) => Err(NoFlamegraph(
            "cannot draw the flame graph: the drawing library gave up on these stacks; \
             format=folded has them as text"
                .to_owned(),
        )),
    }
}

/// Nanoseconds are drawn as milliseconds: a picture of seconds has nine digits too many.
fn unit(column: Option<ValueType>) -> (&'static str, f64) {
    match column.map_or("count", |column| column.unit) {
        "nanoseconds" => ("ms", 1e-6),
        "count" => ("samples", 1.0),
        other => (other, 1.0),
    }
}

fn subtitle(profile: &Profile) -> String {
    let accounting = &profile.accounting;
    let coverage = accounting
        .coverage
        .map_or("not known".to_owned(), |share| format!("{share:.2}"));
    let rate = if profile.period_type.unit == "nanoseconds" && profile.period > 0 {
        // Rounded: the period of 99 Hz is not a whole number of nanoseconds.
        let hertz = (1_000_000_000 + profile.period / 2) / profile.period;
        format!("{hertz} Hz, ")
    } else {
        String::new()
    };
    format!(
        "{:.1} s, {rate}{} samples, coverage {coverage}",
        profile.duration.as_secs_f64(),
        accounting.recorded
    )
}

const INIT: &str = " onload=\"init(evt)\"";
const END: &str = "<script type=\"text/ecmascript\">init()</script></svg>";

/// Starts the picture's script from a script element instead of an attribute, since a page may
/// allow a script by its nonce but an attribute only together with all others.
fn start_from_script(svg: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(svg);
    let parts = text.split_once(INIT).and_then(|(head, rest)| {
        let body = rest.trim_end().strip_suffix("</svg>")?;
        Some([head, body, END])
    });
    parts.map_or_else(|| svg.to_vec(), |parts| parts.concat().into_bytes())
}

/// The picture with a nonce on its scripts, for a `script-src 'nonce-..'` policy. Names in the
/// picture are escaped, so only its own scripts match.
pub(crate) fn with_nonce(svg: &[u8], nonce: &str) -> Vec<u8> {
    let marked = format!("<script nonce=\"{nonce}\" ");
    String::from_utf8_lossy(svg)
        .replace("<script ", &marked)
        .into_bytes()
}

fn empty(profile: &Profile, title: &str) -> Vec<u8> {
    let mut words = String::from("No samples: the process used almost no CPU time in this window");
    if let Some(expected) = profile.accounting.expected {
        words = format!("No samples; {expected} were to be expected from the CPU time used");
    }
    let mut out = String::from(
        "<?xml version=\"1.0\" standalone=\"no\"?>\n<svg version=\"1.1\" width=\"1200\" \
         height=\"120\" xmlns=\"http://www.w3.org/2000/svg\" font-family=\"monospace\" \
         text-anchor=\"middle\">\n<rect width=\"100%\" height=\"100%\" fill=\"#f8f8f8\"/>\n",
    );
    let subtitle = subtitle(profile);
    for (y, size, words) in [
        (34, 17, &*folded::frame(title)),
        (64, 14, words.as_str()),
        (94, 12, subtitle.as_str()),
    ] {
        let words = words
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
        out.push_str(&format!(
            "<text x=\"600\" y=\"{y}\" font-size=\"{size}\">{words}</text>\n"
        ));
    }
    out.push_str("</svg>\n");
    out.into_bytes()
}

/// Refuses what exceeds its limit.
struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
}

impl Write for Bounded {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + more.len() > self.limit {
            let words = format!("the picture exceeds {} bytes", self.limit);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, words));
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
