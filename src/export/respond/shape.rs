//! What a reader wants to see of a profile: whose samples, beside what, in which format.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::Plane;
use super::form::{self, FORMATS, Format, Written, compared, written};
use super::message::Reply;
use super::query::Query;
use crate::config;
use crate::export::difference;
use crate::export::guard::{Reason, Refusal};
use crate::export::labels::{self, Root};
use crate::export::runtime_frames;
use crate::store::CpuSpan;
use crate::store::label::ROUTE;
use crate::store::profile::{Label, Profile};

/// Which labels a reader wants to see beyond those that every sample has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extra {
    None,
    /// A frame at the root of each stack.
    Root(Root),
    /// Trace and span of the request; they multiply the samples.
    Span,
    /// How long ago live blocks were allocated.
    Age,
}

const LABELS: [(&str, Extra); 3] = [
    ("route", Extra::Root(Root::Route)),
    ("thread", Extra::Root(Root::Thread)),
    ("span", Extra::Span),
];

const FRAMES: [(&str, bool); 2] = [("all", false), ("own", true)];

const HEAP_LABELS: [(&str, Extra); 2] = [("route", Extra::Root(Root::Route)), ("age", Extra::Age)];

/// What a reader wants to see of a profile, checked.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) format: Format,
    labels: Extra,
    /// Samples of this route only.
    route: Option<String>,
    /// Whether addresses get names here, not by the tool that reads the profile.
    pub(super) names: bool,
    /// How long before the same seconds lie that are subtracted.
    pub(super) diff_ago: Option<Duration>,
    /// The route whose samples are subtracted.
    diff_route: Option<String>,
    /// What else is subtracted, for the title.
    pub(super) subtracted: Option<String>,
    /// The name under which a file is saved, without an ending.
    pub(super) file: &'static str,
    /// What is subtracted is first brought to the same total.
    normalize: bool,
    /// Whether frames of the runtime are left out between others.
    own_frames: bool,
}

impl Shape {
    /// Reads all that concerns a profile of one window.
    pub(super) fn read(query: &Query, default: Format) -> Result<Self, Refusal> {
        for past in ["diff_ago", "symbolize"] {
            if query.has(past) {
                let text = format!("{past} is for CPU profiles alone");
                return Err(Refusal::new(400, Reason::Parameter, text));
            }
        }
        Self::checked(query, default, None, &LABELS, false)
    }

    /// Reads the same and what concerns the past of a profile whose past is kept.
    pub(super) fn read_with_past(
        query: &Query,
        default: Format,
        span: CpuSpan,
    ) -> Result<Self, Refusal> {
        let diff_ago = if query.has("diff_ago") {
            let seconds = query.number("diff_ago", &reach(span), 0)?;
            Some(Duration::from_secs(seconds))
        } else {
            None
        };
        Self::checked(query, default, diff_ago, &LABELS, false)
    }

    /// Reads what concerns a profile of the heap, from which something may be subtracted.
    pub(super) fn read_heap(
        query: &Query,
        default: Format,
        is_difference: bool,
    ) -> Result<Self, Refusal> {
        if query.has("diff_ago") {
            let text = "diff_ago is for CPU profiles alone; seconds shows what changes, diff_at less \
                        a heap that was kept";
            return Err(Refusal::new(400, Reason::Parameter, text));
        }
        Self::checked(query, default, None, &HEAP_LABELS, is_difference)
    }

    fn checked(
        query: &Query,
        default: Format,
        diff_ago: Option<Duration>,
        extras: &[(&str, Extra)],
        is_difference: bool,
    ) -> Result<Self, Refusal> {
        let format = query.word("format", &FORMATS, default)?;
        let shape = Self {
            format,
            labels: query.word("labels", extras, Extra::None)?,
            route: query.text("route", config::LABEL_BYTES)?,
            names: query.word("symbolize", &[("none", false)], true)?,
            diff_ago,
            diff_route: query.text("diff_route", config::LABEL_BYTES)?,
            subtracted: None,
            file: "profile",
            normalize: query.word("normalize", &[("0", false), ("1", true)], false)?,
            own_frames: query.word("frames", &FRAMES, format == Format::Svg)?,
        };
        let refused = |text| Err(Refusal::new(400, Reason::Parameter, text));
        if shape.diff_route.is_some() && shape.route.is_none() {
            return refused("diff_route needs the route that it is subtracted from");
        }
        if shape.diff_ago.is_some() && shape.diff_route.is_some() {
            return refused("diff_ago and diff_route exclude each other");
        }
        if is_difference && shape.diff_route.is_some() {
            return refused("diff_route and seconds, diff_at exclude each other");
        }
        let differs = is_difference || shape.diff_ago.is_some() || shape.diff_route.is_some();
        if shape.normalize && !differs {
            return refused(
                "normalize needs something to subtract: diff_ago, diff_route or diff_at",
            );
        }
        if shape.format == Format::Speedscope && differs {
            return refused(
                "format=speedscope cannot show a difference, which has values below zero; \
                 pprof, folded, svg and firefox can",
            );
        }
        if !shape.names && shape.format != Format::Pprof {
            return refused(
                "symbolize=none needs format=pprof, whose readers find names themselves",
            );
        }
        if shape.own_frames && !matches!(shape.format, Format::Svg | Format::Folded) {
            return refused("frames=own needs format=svg or folded");
        }
        shape.format.is_built()?;
        Ok(shape)
    }

    /// The answer to HEAD.
    pub(super) fn head(&self) -> Reply {
        form::head(self.format, self.file)
    }

    /// Whether a reader wants to see what has these labels.
    pub(super) fn is_of(&self, labels: &[Label]) -> bool {
        self.route.as_ref().is_none_or(|route| {
            let mut labels = labels.iter();
            labels.any(|label| label.key == ROUTE && *label.value == **route)
        })
    }

    /// Whether samples of different traces must be told apart.
    pub(super) fn tells_traces_apart(&self) -> bool {
        self.labels == Extra::Span
    }

    /// Whether live blocks of different ages must be told apart.
    pub(super) fn tells_ages_apart(&self) -> bool {
        self.labels == Extra::Age
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
        let root = match self.labels {
            Extra::Root(root) => Some(root),
            // Tools that read pprof files know labels; pictures need a frame.
            Extra::Age if self.format != Format::Pprof => Some(Root::Age),
            Extra::Age | Extra::Span | Extra::None => None,
        };
        if let Some(root) = root {
            later = Cow::Owned(labels::rooted(&later, root));
            earlier = earlier.map(|earlier| Cow::Owned(labels::rooted(&earlier, root)));
        }
        if self.normalize {
            earlier = earlier.map(|earlier| Cow::Owned(difference::normalized(&earlier, &later)));
        }
        if self.own_frames {
            later = Cow::Owned(runtime_frames::without(&later));
            earlier = earlier.map(|earlier| Cow::Owned(runtime_frames::without(&earlier)));
        }
        let title = self.title(plane, &later);
        match earlier {
            Some(earlier) => compared(plane, &later, &earlier, self.written(&title)),
            None => written(plane, &later, self.written(&title)),
        }
    }

    fn written<'a>(&self, title: &'a str) -> Written<'a> {
        Written {
            format: self.format,
            title,
            file: self.file,
        }
    }

    fn title(&self, plane: &Plane, profile: &Profile) -> String {
        let kind = match profile.default_type {
            "cpu" => "CPU",
            "wall" => "Wall time",
            "delay" => "Waits of requests",
            "inuse_space" => "Memory in use",
            "inuse_objects" => "Objects in use",
            "alloc_space" => "Memory allocated",
            "alloc_objects" => "Objects allocated",
            "threadcreate" => "Threads by name",
            "goroutine" => "Open requests",
            other => other,
        };
        let mut title = format!("{kind} of {}", plane.config.service);
        if let Some(route) = &self.route {
            title.push_str(&format!(", {route}"));
        }
        if let Some(route) = &self.diff_route {
            title.push_str(&format!(" less {route}"));
        }
        if let Some(subtracted) = &self.subtracted {
            title.push_str(&format!(" less {subtracted}"));
        }
        if let Some(ago) = self.diff_ago {
            title.push_str(&format!(" less {} s before", ago.as_secs()));
        }
        title
    }
}

/// How far back `diff_ago` may reach, in seconds: past the window itself and within what is kept.
fn reach(span: CpuSpan) -> RangeInclusive<u64> {
    let least = span.duration().as_secs();
    let behind = match span {
        CpuSpan::Ago { ago, .. } => ago.as_secs(),
        CpuSpan::Next { .. } | CpuSpan::Between { .. } => 0,
    };
    let most = config::RECORDED_SECONDS.saturating_sub(behind);
    least..=most.max(least)
}
