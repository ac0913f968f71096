//! A profile as a reply: its formats, and the headers with which each opens where it should.

use std::borrow::Cow;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use super::Plane;
use super::message::Reply;
use super::profile::unavailable;
use crate::catalog::endpoints::{self, JSON, PPROF, SVG, TEXT};
use crate::config;
use crate::export::firefox::Program;
use crate::export::guard::{Reason, Refusal};
use crate::export::{difference, firefox, flamegraph, folded, pprof, speedscope};
use crate::store::profile::Profile;

/// How a profile is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Pprof,
    Folded,
    Svg,
    Speedscope,
    Firefox,
}

pub(super) const FORMATS: [(&str, Format); 5] = [
    ("pprof", Format::Pprof),
    ("folded", Format::Folded),
    ("svg", Format::Svg),
    ("speedscope", Format::Speedscope),
    ("firefox", Format::Firefox),
];

impl Format {
    pub(super) fn word(self) -> &'static str {
        let mut words = FORMATS.iter();
        words
            .find(|(_, format)| *format == self)
            .map_or("", |(word, _)| word)
    }

    /// Whether this build has it.
    pub(super) fn is_built(self) -> Result<(), Refusal> {
        if self == Self::Svg && !endpoints::FLAMEGRAPH {
            let text = "built without feature \"flamegraph\"";
            return Err(Refusal::new(501, Reason::Absent, text));
        }
        Ok(())
    }

    /// Whether it has room for when samples were taken.
    pub(super) const fn shows_time(self) -> bool {
        matches!(self, Self::Speedscope | Self::Firefox)
    }

    const fn content_type(self) -> &'static str {
        match self {
            Self::Pprof => PPROF,
            Self::Folded => TEXT,
            Self::Svg => SVG,
            Self::Speedscope | Self::Firefox => JSON,
        }
    }
}

/// The answer to HEAD. The length is known only after the work, which HEAD must not start.
pub(super) fn head(format: Format, file: &str) -> Reply {
    let reply = Reply::new(200, format.content_type(), Vec::new());
    present(format, file, reply).without_length()
}

/// How a profile is written and what it is called.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written<'a> {
    pub(super) format: Format,
    pub(super) title: &'a str,
    /// The name of a file, without an ending.
    pub(super) file: &'static str,
}

/// A profile as a reply in its format.
///
/// # Errors
/// When the picture cannot be drawn or too many large answers are being read.
pub(super) fn written(
    plane: &Plane,
    profile: &Profile,
    as_written: Written<'_>,
) -> Result<Reply, Refusal> {
    let shown = encode(plane, profile, None, as_written)?;
    reply(plane, as_written, shown)
}

/// What a profile has more than an earlier one, as a reply in its format.
///
/// # Errors
/// As [`written`], and when the two count different things.
pub(super) fn compared(
    plane: &Plane,
    later: &Profile,
    earlier: &Profile,
    as_written: Written<'_>,
) -> Result<Reply, Refusal> {
    let shown = encode(plane, later, Some(earlier), as_written)?;
    reply(plane, as_written, shown)
}

fn reply(
    plane: &Plane,
    Written { format, file, .. }: Written<'_>,
    (bytes, policy): Shown,
) -> Result<Reply, Refusal> {
    let body = plane.large.admit(bytes).ok_or_else(too_many_large)?;
    let reply = Reply::shared(200, format.content_type(), Arc::new(body));
    let reply = present(format, file, reply);
    Ok(match policy {
        Some(policy) => reply.with("Content-Security-Policy", policy),
        None => reply,
    })
}

/// The refusal of a large answer beyond as many as may be on their way.
pub(super) fn too_many_large() -> Refusal {
    let text = format!("large answers at limit {}", config::LARGE_BODIES);
    Refusal::new(503, Reason::LargeBodies, text).retry_after(config::WRITE_PROGRESS)
}

/// A body, and for a page with a script the policy that lets this script run and no other.
type Shown = (Vec<u8>, Option<String>);

fn encode(
    plane: &Plane,
    later: &Profile,
    earlier: Option<&Profile>,
    Written { format, title, .. }: Written<'_>,
) -> Result<Shown, Refusal> {
    let subtracted = || match earlier {
        None => Ok(Cow::Borrowed(later)),
        Some(earlier) => difference::subtract(earlier, later)
            .map(Cow::Owned)
            .ok_or_else(|| unavailable("the two profiles count different things".to_owned())),
    };
    let too_large = || unavailable("the profile exceeds its limit".to_owned());
    let bytes = match format {
        Format::Pprof => pprof::encode(&*subtracted()?),
        Format::Folded => match earlier {
            Some(earlier) => folded::encode_pairs(earlier, later),
            None => folded::encode(later),
        },
        Format::Svg => {
            let svg = match earlier {
                Some(earlier) => flamegraph::encode_pair(earlier, later, title),
                None => flamegraph::encode(later, title),
            };
            let svg = svg.map_err(|error| unavailable(error.to_string()))?;
            let (svg, policy) = guarded(&svg);
            return Ok((svg, Some(policy)));
        }
        Format::Speedscope => speedscope::encode(&*subtracted()?, title).ok_or_else(too_large)?,
        Format::Firefox => {
            let program = Program {
                service: &plane.config.service,
                pid: std::process::id(),
            };
            firefox::encode(&*subtracted()?, program).ok_or_else(too_large)?
        }
    };
    Ok((bytes, None))
}

/// Headers of a profile, as Go's server sends them. The pprof body is gzip without
/// `Content-Encoding`: the file itself is compressed, and a client must not unpack it. Files for a
/// viewer elsewhere are saved under a name that it opens; text and picture are shown.
fn present(format: Format, file: &str, reply: Reply) -> Reply {
    let ending = match format {
        Format::Pprof => "",
        Format::Speedscope => ".speedscope.json",
        Format::Firefox => ".firefox.json",
        Format::Folded | Format::Svg => return reply,
    };
    reply.with(
        "Content-Disposition",
        format!("attachment; filename=\"{file}{ending}\""),
    )
}

/// Lets the picture's own scripts run and nothing else: a name that broke out of its escape would
/// not carry the nonce.
fn guarded(svg: &[u8]) -> (Vec<u8>, String) {
    let nonce = nonce();
    let policy = format!(
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-{nonce}'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    (flamegraph::with_nonce(svg, &nonce), policy)
}

/// 128 bits that a client cannot know before it has the answer: SipHash under the random keys that
/// the standard library draws from the system.
fn nonce() -> String {
    let half = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", half(), half())
}
