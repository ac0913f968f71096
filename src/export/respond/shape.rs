//! How a profile is shown: its format, whose samples, beside what; one place for every profile.

use std::borrow::Cow;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use super::Plane;
use super::message::Reply;
use super::profile::unavailable;
use super::query::Query;
use crate::catalog::endpoints::{self, JSON, PPROF, SVG, TEXT};
use crate::config;
use crate::export::firefox::Program;
use crate::export::guard::{Reason, Refusal};
use crate::export::labels::{self, Root};
use crate::export::{difference, firefox, flamegraph, folded, pprof, speedscope};
use crate::store::label::ROUTE;
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

const FORMATS: [(&str, Format); 5] = [
    ("pprof", Format::Pprof),
    ("folded", Format::Folded),
    ("svg", Format::Svg),
    ("speedscope", Format::Speedscope),
    ("firefox", Format::Firefox),
];

/// Which labels a reader wants to see beyond those that every sample has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extra {
    None,
    /// A frame at the root of each stack.
    Root(Root),
    /// Trace and span of the request; they multiply the samples.
    Span,
}

const LABELS: [(&str, Extra); 3] = [
    ("route", Extra::Root(Root::Route)),
    ("thread", Extra::Root(Root::Thread)),
    ("span", Extra::Span),
];

impl Format {
    pub(super) fn word(self) -> &'static str {
        let mut words = FORMATS.iter();
        words
            .find(|(_, format)| *format == self)
            .map_or("", |(word, _)| word)
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

/// What a reader wants to see of a profile, checked.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) format: Format,
    labels: Extra,
    /// Samples of this route only.
    route: Option<String>,
    /// The route whose samples are subtracted.
    diff_route: Option<String>,
    /// What is subtracted is first brought to the same total.
    normalize: bool,
}

impl Shape {
    pub(super) fn read(query: &Query, default: Format) -> Result<Self, Refusal> {
        let shape = Self {
            format: query.word("format", &FORMATS, default)?,
            labels: query.word("labels", &LABELS, Extra::None)?,
            route: query.text("route", config::URI_BYTES)?,
            diff_route: query.text("diff_route", config::URI_BYTES)?,
            normalize: query.word("normalize", &[("0", false), ("1", true)], false)?,
        };
        let refused = |text| Err(Refusal::new(400, Reason::Parameter, text));
        if shape.diff_route.is_some() && shape.route.is_none() {
            return refused("diff_route needs the route that it is subtracted from");
        }
        if shape.normalize && shape.diff_route.is_none() {
            return refused("normalize needs diff_route");
        }
        if shape.format == Format::Speedscope && shape.diff_route.is_some() {
            return refused(
                "format=speedscope cannot show a difference, which has values below zero; \
                 pprof, folded, svg and firefox can",
            );
        }
        if shape.format == Format::Svg && !endpoints::FLAMEGRAPH {
            let text = "built without feature \"flamegraph\"";
            return Err(Refusal::new(501, Reason::Absent, text));
        }
        Ok(shape)
    }

    /// Whether samples of different traces must be told apart.
    pub(super) fn tells_traces_apart(&self) -> bool {
        self.labels == Extra::Span
    }

    /// The answer before its body is known.
    pub(super) fn head(&self, plane: &Plane) -> Reply {
        let empty = Reply::new(200, self.format.content_type(), Vec::new());
        self.present(plane, empty).without_length()
    }

    /// The answer.
    ///
    /// # Errors
    /// When the picture cannot be drawn or too many large answers are being read.
    pub(super) fn show(
        &self,
        plane: &Plane,
        profile: &Profile,
        earlier: Option<&Profile>,
    ) -> Result<Reply, Refusal> {
        let routed = |profile, route: &Option<String>| match route {
            Some(route) => Cow::Owned(labels::only(profile, ROUTE, route)),
            None => Cow::Borrowed(profile),
        };
        let mut later = routed(profile, &self.route);
        let mut earlier = match &self.diff_route {
            Some(_) => Some(routed(profile, &self.diff_route)),
            None => earlier.map(|earlier| routed(earlier, &self.route)),
        };
        if let Extra::Root(root) = self.labels {
            later = Cow::Owned(labels::rooted(&later, root));
            earlier = earlier.map(|earlier| Cow::Owned(labels::rooted(&earlier, root)));
        }
        if self.normalize {
            earlier = earlier.map(|earlier| Cow::Owned(difference::normalized(&earlier, &later)));
        }
        let (bytes, policy) = self.encode(plane, &later, earlier.as_deref())?;
        let body = plane.large.admit(bytes).ok_or_else(|| {
            let text = format!("large answers at limit {}", config::LARGE_BODIES);
            Refusal::new(503, Reason::LargeBodies, text).retry_after(config::WRITE_PROGRESS)
        })?;
        let reply = Reply::shared(200, self.format.content_type(), Arc::new(body));
        let reply = self.present(plane, reply);
        Ok(match policy {
            Some(policy) => reply.with("Content-Security-Policy", policy),
            None => reply,
        })
    }

    /// The body, and for a page with a script the policy that lets this script run and no other.
    fn encode(
        &self,
        plane: &Plane,
        later: &Profile,
        earlier: Option<&Profile>,
    ) -> Result<(Vec<u8>, Option<String>), Refusal> {
        let subtracted = || match earlier {
            None => Ok(Cow::Borrowed(later)),
            Some(earlier) => difference::subtract(earlier, later)
                .map(Cow::Owned)
                .ok_or_else(|| unavailable("the two profiles count different things".to_owned())),
        };
        let too_large = || unavailable("the profile exceeds its limit".to_owned());
        let title = self.title(plane, later);
        let bytes = match self.format {
            Format::Pprof => pprof::encode(&*subtracted()?),
            Format::Folded => match earlier {
                Some(earlier) => folded::encode_pairs(earlier, later),
                None => folded::encode(later),
            },
            Format::Svg => {
                let svg = match earlier {
                    Some(earlier) => flamegraph::encode_pair(earlier, later, &title),
                    None => flamegraph::encode(later, &title),
                };
                let svg = svg.map_err(|error| unavailable(error.to_string()))?;
                let (svg, policy) = guarded(&svg);
                return Ok((svg, Some(policy)));
            }
            Format::Speedscope => {
                speedscope::encode(&*subtracted()?, &title).ok_or_else(too_large)?
            }
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

    fn title(&self, plane: &Plane, profile: &Profile) -> String {
        let kind = match profile.default_type {
            "cpu" => "CPU",
            "wall" => "Wall time",
            "delay" => "Waits of requests",
            "threadcreate" => "Threads by name",
            other => other,
        };
        let mut title = format!("{kind} of {}", plane.config.service);
        if let Some(route) = &self.route {
            title.push_str(&format!(", {route}"));
        }
        if let Some(route) = &self.diff_route {
            title.push_str(&format!(" less {route}"));
        }
        title
    }

    /// Headers of a profile, as Go's server sends them. The pprof body is gzip without
    /// `Content-Encoding`: the file itself is compressed, and a client must not unpack it. Files
    /// for a viewer elsewhere are saved under a name that it opens; text and picture are shown.
    fn present(&self, plane: &Plane, reply: Reply) -> Reply {
        let service: String = plane.config.service.chars().map(in_file_name).collect();
        let name = match self.format {
            Format::Pprof => "profile".to_owned(),
            Format::Speedscope => format!("{service}.speedscope.json"),
            Format::Firefox => format!("{service}.firefox-profile.json"),
            Format::Folded | Format::Svg => return reply,
        };
        let disposition = format!("attachment; filename=\"{name}\"");
        reply.with("Content-Disposition", disposition)
    }
}

fn in_file_name(letter: char) -> char {
    match letter {
        letter if letter.is_ascii_alphanumeric() => letter,
        '-' | '_' => letter,
        _ => '_',
    }
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
