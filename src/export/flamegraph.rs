//! Shows a profile as a flame graph: one SVG that zooms and searches in any browser.
//!
//! Drawn by `inferno` from our folded lines. A feature of its own, see `flamegraph_off.rs`.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use inferno::flamegraph::color::{MultiPalette, Palette};
use inferno::flamegraph::{Direction, Options, from_lines};

use super::bounded::Bounded;
use super::folded;
use super::runtime_frames::MARK;
use super::summary::summary;
use crate::config;
use crate::store::profile::Profile;

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
    let lines = lines
        .iter()
        .map(|(stack, value)| format!("{stack} {value}"));
    let (unit, factor) = unit(profile);
    let texts = Texts {
        title,
        subtitle: if profile.mappings.is_empty() {
            // Names without code, of which the colours say nothing.
            summary(profile)
        } else {
            format!("{}. {COLOURS}{}", summary(profile), left_out(profile))
        },
        unit,
        factor,
    };
    smaller_until_it_fits(&texts, &lines.collect::<Vec<String>>())
}

/// The picture of the later profile, in which what grew is red and what shrank is blue.
///
/// # Errors
/// As [`encode`].
pub(crate) fn encode_pair(
    earlier: &Profile,
    later: &Profile,
    title: &str,
) -> Result<Vec<u8>, NoFlamegraph> {
    if later.total(later.default_column()) <= 0 {
        return Ok(empty(later, title));
    }
    // The library forgets the factor in the shares it prints of a difference, so it gets whole
    // numbers of the unit that it shall print.
    let (words, factor) = unit(later);
    let (unit, divisor) = if words == "ms" {
        ("µs", 1000)
    } else {
        (words, 1)
    };
    let pairs = folded::pairs(earlier, later, config::PROFILE_BODY_BYTES);
    let gone: i64 = pairs
        .values()
        .filter(|[_, after]| *after == 0)
        .map(|[before, _]| *before)
        .sum();
    let lines = pairs.iter().map(|(stack, [before, after])| {
        let [before, after] = [before, after].map(|value| (value + divisor / 2) / divisor);
        format!("{stack} {before} {after}")
    });
    let texts = Texts {
        title,
        subtitle: format!(
            "Red: more than before, blue: less, gone: {:.0} {words}. Now {}; before {}",
            gone as f64 * factor,
            sampled(later),
            sampled(earlier),
        ),
        unit,
        factor: 1.0,
    };
    smaller_until_it_fits(&texts, &lines.collect::<Vec<String>>())
}

/// How much a profile of a difference rests on; more does not fit on its line.
fn sampled(profile: &Profile) -> String {
    let (seconds, samples) = (profile.duration.as_secs_f64(), profile.accounting.recorded);
    format!("{seconds:.1} s, {samples} samples")
}

/// How to see the frames that are left out, if there are any.
fn left_out(profile: &Profile) -> &'static str {
    let mut names = profile.functions.iter().map(|function| &*function.name);
    if names.any(|name| name == MARK) {
        "; whole stacks: frames=all"
    } else {
        ""
    }
}

/// What the library's colours for Rust mean.
const COLOURS: &str = "Orange: standard library, blue: other Rust, yellow: names without a path";

/// What stands around the boxes.
struct Texts<'a> {
    title: &'a str,
    subtitle: String,
    unit: &'a str,
    factor: f64,
}

fn smaller_until_it_fits(texts: &Texts<'_>, lines: &[String]) -> Result<Vec<u8>, NoFlamegraph> {
    let mut last = NoFlamegraph(String::new());
    for min_width in MIN_WIDTHS {
        match draw(texts, lines, min_width) {
            Ok(svg) => return Ok(finish(&svg)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn draw(texts: &Texts<'_>, lines: &[String], min_width: f64) -> Result<Vec<u8>, NoFlamegraph> {
    let mut options = Options::default();
    options.title = folded::frame(texts.title).into_owned();
    options.subtitle = Some(texts.subtitle.clone());
    options.count_name = texts.unit.to_owned();
    options.factor = texts.factor;
    options.min_width = min_width;
    options.colors = Palette::Multi(MultiPalette::Rust);
    // The same profile gives the same picture, and a function the same colour in each.
    options.deterministic = true;
    // Async stacks are a hundred frames deep: with the root above, a page opens where the wide boxes are.
    options.direction = Direction::Inverted;
    let mut out = Bounded::new(config::PROFILE_BODY_BYTES - ADDED_BYTES);
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
fn unit(profile: &Profile) -> (&'static str, f64) {
    let column = profile.sample_types.get(profile.default_column());
    match column.map_or("count", |column| column.unit) {
        "nanoseconds" => ("ms", 1e-6),
        "count" => ("samples", 1.0),
        other => (other, 1.0),
    }
}

const INIT: &str = " onload=\"init(evt)\"";
const END: &str = "<script type=\"text/ecmascript\">init()</script></svg>";
/// Bytes that [`finish`] adds at most.
const ADDED_BYTES: usize = 2048;
const FRAMES: &str = "<svg id=\"frames\"";

/// What is changed in the part before the boxes: the search button can be seen, and a box shows the
/// end of its function's name without what all ends have in common. Hover and search keep the whole.
const CHANGES: [(&str, &str); 3] = [
    ("opacity:0.1", "opacity:0.7"),
    (
        "find_child(e, \"title\").textContent.replace(/\\([^(]*\\)$/,\"\")",
        "short_name(find_child(e, \"title\").textContent)",
    ),
    (
        "function get_params() {",
        "function short_name(title) {\n\
         var name = title.replace(/\\([^(]*\\)$/, \"\").trim();\n\
         name = name.replace(/(::\\{+[a-z_]+(#[0-9]+)?\\}+)+/g, \"{}\");\n\
         if (!name.endsWith(\">\")) return name;\n\
         var open = 0, at = name.length;\n\
         do {\n\
         at -= 1;\n\
         if (name[at] === \">\" && name[at - 1] !== \"-\") open += 1;\n\
         if (name[at] === \"<\") open -= 1;\n\
         } while (open > 0 && at > 0);\n\
         return at > 0 ? name.substring(0, at).replace(/::$/, \"\") : name;\n\
         }\n\
         function get_params() {",
    ),
];

/// Makes the picture fit for a page that allows a script by its nonce: the picture's own is started
/// from a script element, since an attribute can be allowed only together with all others.
fn finish(svg: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(svg);
    let parts = text.split_once(INIT).and_then(|(start, rest)| {
        let (middle, boxes) = rest.split_once(FRAMES)?;
        let boxes = boxes.trim_end().strip_suffix("</svg>")?;
        let mut middle = middle.to_owned();
        for (from, to) in CHANGES {
            middle = middle.replace(from, to);
        }
        Some([start, &middle, FRAMES, boxes, END].concat())
    });
    parts.map_or_else(|| svg.to_vec(), String::into_bytes)
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
    let words = match profile.accounting.expected {
        None => "No samples in this window".to_owned(),
        Some(0) => "No samples: the process used almost no CPU time in this window".to_owned(),
        Some(expected) => {
            format!("No samples; {expected} were to be expected from the CPU time used")
        }
    };
    let mut out = String::from(
        "<?xml version=\"1.0\" standalone=\"no\"?>\n<svg version=\"1.1\" width=\"1200\" \
         height=\"120\" xmlns=\"http://www.w3.org/2000/svg\" font-family=\"monospace\" \
         text-anchor=\"middle\">\n<rect width=\"100%\" height=\"100%\" fill=\"#f8f8f8\"/>\n",
    );
    let subtitle = summary(profile);
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
