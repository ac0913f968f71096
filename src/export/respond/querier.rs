//! Queries of profiles as Pyroscope's servers answer them: unary calls of Connect, in protobuf or JSON.
//!
//! Source: <https://connectrpc.com/docs/protocol>: a POST whose body is the message, the answer in the same
//! encoding; an error is JSON, whatever the encoding.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::Plane;
use super::actions::Running;
use super::form;
use super::heap;
use super::message::{Reply, Request};
use super::profile;
use crate::catalog::endpoints::{JSON, Method};
use crate::config;
use crate::export::guard::{Reason, Refusal};
use crate::export::pprof;
use crate::export::pyroscope::fields::{Fields, invalid};
use crate::export::pyroscope::flame::{self, Tree};
use crate::export::pyroscope::json;
use crate::export::pyroscope::kinds::{self, ProfileType};
use crate::export::pyroscope::schema::{self, Schema};
use crate::export::pyroscope::selector::Selector;
use crate::export::pyroscope::series::{Aggregation, Series, Steps, pair};
use crate::export::wire::Message;
use crate::store::heap::{HeapMoment, HeapProfileWish, INUSE_OBJECTS, INUSE_SPACE};
use crate::store::metrics::{unix_nanos_now, whole_nanos};
use crate::store::profile::{Profile, SPAN_ID, Sample, TRACE_ID};
use crate::store::{CpuSpan, CpuWish, Detail};

const PROTO: &str = "application/proto";
/// A body of JSON is several times as long as the message.
const JSON_PROFILE_BYTES: usize = config::PROFILE_BODY_BYTES / 8;
/// The heap is that of this moment: spans that ended longer ago have none.
const HEAP_AGE: Duration = Duration::from_secs(60);

/// How a message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Proto,
    Json,
}

impl Encoding {
    fn of(request: &Request) -> Result<Self, Refusal> {
        if let Some(compressed) = request.list("content-encoding")
            && !compressed.eq_ignore_ascii_case("identity")
        {
            let refusal = invalid("content-encoding", "identity", &compressed);
            return Err(Refusal {
                status: 501,
                ..refusal
            });
        }
        let given = request.list("content-type").unwrap_or_default();
        let kind = given.split(';').next().unwrap_or_default().trim();
        if kind.eq_ignore_ascii_case(PROTO) {
            Ok(Self::Proto)
        } else if kind.eq_ignore_ascii_case(JSON) {
            Ok(Self::Json)
        } else {
            let allowed = "application/proto|application/json";
            Err(Refusal {
                status: 415,
                reason: Reason::ContentType,
                ..invalid("content-type", allowed, &given)
            })
        }
    }
}

#[derive(Serialize)]
struct Failure<'a> {
    code: &'static str,
    message: &'a str,
}

/// An error as clients of Connect read it.
pub(super) fn failure(status: u16, text: &str) -> Reply {
    let code = match status {
        400 | 415 => "invalid_argument",
        403 => "permission_denied",
        404 => "not_found",
        405 | 501 => "unimplemented",
        413 | 414 | 429 => "resource_exhausted",
        503 => "unavailable",
        _ => "internal",
    };
    let message = text;
    let body = serde_json::to_vec(&Failure { code, message }).unwrap_or_default();
    Reply::new(status, JSON, body)
}

/// Answers a call.
pub(super) async fn answer(
    plane: &Plane,
    request: &Request,
    method: &Method,
    body: &[u8],
) -> Result<Reply, Refusal> {
    profile::is_on(plane)?;
    let mut call = Call {
        plane,
        request,
        encoding: Encoding::of(request)?,
        body,
        running: None,
    };
    let answered = call.answer(method).await;
    let reply = answered.and_then(|(message, schema)| call.reply(message, schema));
    if let Some(running) = call.running.take() {
        match &reply {
            Ok(reply) => running.ended(reply.status, reply.body().len()),
            Err(refusal) => running.ended(refusal.status, 0),
        }
    }
    reply
}

type Answer = Result<(Message, Schema), Refusal>;

/// A call being answered.
#[derive(Debug)]
struct Call<'a> {
    plane: &'a Plane,
    request: &'a Request,
    encoding: Encoding,
    body: &'a [u8],
    /// Once it is known what is asked for.
    running: Option<Running<'a>>,
}

/// The stretch of time that is asked for, in milliseconds since 1970: never wrong, at most empty.
#[derive(Debug, Clone, Copy)]
struct Range {
    start: i64,
    end: i64,
}

impl Range {
    /// Without a start all that is held, without an end until now.
    fn of(fields: &Fields, start: u32, end: u32) -> Self {
        Self {
            start: fields.whole(start).unwrap_or(0).max(0),
            end: match fields.whole(end) {
                Some(end) if end != 0 => end,
                _ => now(),
            },
        }
    }

    fn span(self) -> Option<CpuSpan> {
        // What was is held for so long, and a second more never hurts.
        let reach = i64::try_from(config::RECORDED_SECONDS).unwrap_or(0) * 1000 + 1000;
        let from = self.start.max(now() - reach);
        let to = self.end.min(now() + 1000);
        let (from, to) = (u64::try_from(from).ok()?, u64::try_from(to).ok()?);
        (from < to).then_some(CpuSpan::Between { from, to })
    }

    fn is_now(self) -> bool {
        let age = i64::try_from(HEAP_AGE.as_millis()).unwrap_or(0);
        self.start <= now() && self.end >= now() - age
    }

    fn seconds(self) -> u64 {
        self.span().map_or(0, |span| span.duration().as_secs())
    }
}

fn now() -> i64 {
    i64::try_from(unix_nanos_now() / 1_000_000).unwrap_or(i64::MAX)
}

/// Samples that are asked for.
#[derive(Debug)]
struct Selection<'a> {
    kind: &'static ProfileType,
    selector: Selector,
    range: Range,
    /// Span ids; empty: whatever they belong to.
    spans: HashSet<&'a str>,
    /// Names from the root on; empty: whatever they begin with.
    call_site: Vec<&'a str>,
    nodes: usize,
}

/// Where the parts of a selection stand in a request.
#[derive(Debug, Clone, Copy)]
struct Numbers {
    range: (u32, u32),
    nodes: u32,
    format: u32,
    stack_trace_selector: u32,
    profile_id_selector: u32,
    span_selector: u32,
}

/// No field has this number.
const ABSENT: u32 = 0;

const STACKTRACES: Numbers = Numbers {
    range: (3, 4),
    nodes: 5,
    format: 6,
    stack_trace_selector: 7,
    profile_id_selector: 8,
    span_selector: 11,
};

const SPAN_PROFILE: Numbers = Numbers {
    range: (4, 5),
    nodes: 6,
    format: 7,
    stack_trace_selector: ABSENT,
    profile_id_selector: ABSENT,
    span_selector: 3,
};

const MERGED_PROFILE: Numbers = Numbers {
    range: (3, 4),
    nodes: 5,
    format: ABSENT,
    stack_trace_selector: 6,
    profile_id_selector: 7,
    span_selector: ABSENT,
};

const SELECT_SERIES: Numbers = Numbers {
    range: (3, 4),
    nodes: ABSENT,
    format: ABSENT,
    stack_trace_selector: 8,
    profile_id_selector: ABSENT,
    span_selector: ABSENT,
};

impl<'a> Selection<'a> {
    fn read(fields: &'a Fields, numbers: Numbers) -> Result<Self, Refusal> {
        let unimplemented = |text: String| Err(Refusal::new(501, Reason::Parameter, text));
        let format = fields.whole(numbers.format).unwrap_or(0);
        if !matches!(format, 0 | 1) {
            return unimplemented(format!(
                "format must be PROFILE_FORMAT_UNSPECIFIED|PROFILE_FORMAT_FLAMEGRAPH (got {format})"
            ));
        }
        if fields.texts(numbers.profile_id_selector).next().is_some() {
            return unimplemented(
                "profile_id_selector must be empty: samples are kept, not profiles".to_owned(),
            );
        }
        let stacks = || fields.messages(numbers.stack_trace_selector);
        if stacks().any(|stacks| stacks.messages(2).next().is_some()) {
            return unimplemented("go_pgo must be absent: it is for Go's compiler".to_owned());
        }
        let spans: HashSet<&str> = fields.texts(numbers.span_selector).collect();
        let is_id = |id: &str| {
            id.len() == 16
                && id
                    .bytes()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        if let Some(wrong) = spans.iter().find(|id| !is_id(id)) {
            let allowed = "ids of 16 hexadecimal digits, 0-9 and a-f";
            return Err(invalid("span_selector", allowed, wrong));
        }
        let (start, end) = numbers.range;
        Ok(Self {
            kind: ProfileType::of_id("profile_typeID", fields.text(1))?,
            selector: Selector::parse("label_selector", fields.text(2))?,
            range: Range::of(fields, start, end),
            spans,
            call_site: stacks()
                .flat_map(|stacks| stacks.messages(1))
                .map(|location| location.text(1))
                .collect(),
            nodes: nodes(fields.whole(numbers.nodes))?,
        })
    }

    fn tells_traces_apart(&self) -> bool {
        let named = [SPAN_ID, TRACE_ID];
        !self.spans.is_empty() || named.iter().any(|label| self.selector.names(label))
    }

    /// The samples of a profile that are chosen.
    fn chosen<'p>(&self, profile: &'p Profile, labels: &Labels) -> Vec<&'p Sample> {
        let mut selector = self.selector.remembering();
        let samples = profile.samples.iter();
        let chosen = samples.filter(|sample| {
            selector.matches(|name| labels.value(sample, name))
                && (self.spans.is_empty()
                    || sample
                        .label(SPAN_ID)
                        .is_some_and(|id| self.spans.contains(&**id)))
                && (self.call_site.is_empty()
                    || names(profile, sample).starts_with(&self.call_site))
        });
        chosen.collect()
    }

    /// The place of the values that are asked for.
    fn column(&self, profile: &Profile) -> usize {
        let mut columns = profile.sample_types.iter();
        let place = columns.position(|column| *column == self.kind.column);
        place.unwrap_or_else(|| profile.default_column())
    }

    /// The stacks that are chosen, root first, the heaviest first.
    fn stacks<'p>(
        &self,
        profile: &'p Profile,
        labels: &Labels,
    ) -> impl Iterator<Item = (Vec<&'p str>, i64)> {
        let column = self.column(profile);
        let chosen = self.chosen(profile, labels).into_iter();
        chosen.map(move |sample| {
            let value = sample.values.get(column).copied().unwrap_or(0);
            (names(profile, sample), value)
        })
    }

    /// When each slice of a profile was, in milliseconds since 1970. The heap has one, the moment itself;
    /// of what was allocated since the start no step can be told.
    fn moments(&self, profile: &Profile) -> Vec<i64> {
        let millis = |nanos: u64| i64::try_from(nanos / 1_000_000).unwrap_or(i64::MAX);
        if self.kind.is_cpu() {
            let middles = profile.slices.iter().map(|slice| {
                let middle = whole_nanos(slice.from + (slice.to - slice.from) / 2);
                millis(profile.start_unix_nanos.saturating_add(middle))
            });
            return middles.collect();
        }
        let is_now = [INUSE_OBJECTS, INUSE_SPACE].contains(&self.kind.column);
        is_now
            .then(|| self.range.end.min(now()))
            .into_iter()
            .collect()
    }
}

fn texts(texts: BTreeSet<&str>) -> (Message, Schema) {
    let mut out = Message::default();
    for text in texts {
        out.bytes(1, text.as_bytes());
    }
    (out, schema::NAMES_RESPONSE)
}

fn nodes(asked: Option<i64>) -> Result<usize, Refusal> {
    match asked {
        None | Some(0) => Ok(flame::NODES),
        Some(asked) => usize::try_from(asked)
            .map(|asked| asked.min(flame::NODES))
            .map_err(|_| invalid("max_nodes", "0 or more", &asked.to_string())),
    }
}

/// A stack's names, root first.
fn names<'p>(profile: &'p Profile, sample: &'p Sample) -> Vec<&'p str> {
    let mut names: Vec<&str> = profile.names(sample).collect();
    names.reverse();
    names
}

/// The labels that all samples of a type have.
#[derive(Debug)]
struct Labels([(&'static str, String); 7]);

impl Labels {
    fn of(plane: &Plane, kind: &ProfileType) -> Self {
        Self(kind.labels(&plane.config.service))
    }

    fn common(&self, name: &str) -> Option<&str> {
        let mut common = self.0.iter();
        let (_, value) = common.find(|(label, _)| *label == name)?;
        Some(value)
    }

    fn value<'a>(&'a self, sample: &'a Sample, name: &str) -> Option<&'a str> {
        let own = || sample.label(name).map(|value| &**value);
        self.common(name).or_else(own)
    }

    /// All labels of a sample.
    fn all<'a>(&'a self, sample: Option<&'a Sample>) -> impl Iterator<Item = (&'a str, &'a str)> {
        let common = self.0.iter().map(|(name, value)| (*name, &**value));
        let own = sample.into_iter().flat_map(|sample| &sample.labels);
        common.chain(own.map(|label| (label.key, &*label.value)))
    }
}

/// The types of which there are profiles.
fn served(plane: &Plane) -> impl Iterator<Item = &'static ProfileType> {
    let is_served = |kind: &&ProfileType| {
        let served = if kind.is_cpu() {
            profile::is_served(plane)
        } else {
            heap::is_recorded(plane)
        };
        served.is_ok()
    };
    kinds::ALL.iter().filter(is_served)
}

/// Sets of labels with values.
type Sets = BTreeSet<Vec<(String, String)>>;

/// Sets of labels of an answer at most.
const SETS: usize = 4_096;

impl Call<'_> {
    async fn answer(&mut self, method: &Method) -> Answer {
        match method.name {
            "ProfileTypes" => self.profile_types(),
            "LabelNames" => self.label_names().await,
            "LabelValues" => self.label_values().await,
            "Series" => self.series().await,
            "SelectMergeStacktraces" => {
                let request = self.read(schema::SELECT_MERGE_STACKTRACES_REQUEST)?;
                self.flame(&request, STACKTRACES).await
            }
            "SelectMergeSpanProfile" => {
                let request = self.read(schema::SELECT_MERGE_SPAN_PROFILE_REQUEST)?;
                self.flame(&request, SPAN_PROFILE).await
            }
            "SelectSeries" => self.select_series().await,
            "SelectMergeProfile" => self.merged_profile().await,
            "Diff" => self.diff().await,
            other => Err(Refusal::new(501, Reason::Route, other.to_owned())),
        }
    }

    fn read(&self, schema: Schema) -> Result<Fields, Refusal> {
        match self.encoding {
            Encoding::Proto => Fields::of_proto(self.body, schema),
            Encoding::Json => Fields::of_json(self.body, schema),
        }
    }

    fn reply(&self, message: Message, schema: Schema) -> Result<Reply, Refusal> {
        let (content_type, bytes) = match self.encoding {
            Encoding::Proto => (PROTO, message.into_bytes()),
            Encoding::Json => (JSON, json::of_proto(message.as_bytes(), schema)),
        };
        let body = self
            .plane
            .large
            .admit(bytes)
            .ok_or_else(form::too_many_large)?;
        Ok(Reply::shared(200, content_type, Arc::new(body)))
    }

    fn profile_types(&self) -> Answer {
        self.read(schema::PROFILE_TYPES_REQUEST)?;
        let mut out = Message::default();
        for kind in served(self.plane) {
            out.message(1, &kind.message());
        }
        Ok((out, schema::PROFILE_TYPES_RESPONSE))
    }

    async fn label_names(&mut self) -> Answer {
        let request = self.read(schema::LABEL_NAMES_REQUEST)?;
        let range = Range::of(&request, 2, 3);
        let sets = self.sets(request.texts(1), range, |_| true).await?;
        let names = sets.iter().flatten().map(|(name, _)| name.as_str());
        // Those are for servers among themselves.
        let names = names.filter(|name| !name.starts_with("__"));
        Ok(texts(names.collect()))
    }

    async fn label_values(&mut self) -> Answer {
        let request = self.read(schema::LABEL_VALUES_REQUEST)?;
        let range = Range::of(&request, 3, 4);
        let wanted = request.text(1);
        if wanted.is_empty() {
            return Err(invalid("name", "the name of a label", wanted));
        }
        let matchers = request.texts(2);
        let sets = self.sets(matchers, range, |name| name == wanted).await?;
        let values = sets.iter().flatten().map(|(_, value)| value.as_str());
        Ok(texts(values.collect()))
    }

    async fn series(&mut self) -> Answer {
        let request = self.read(schema::SERIES_REQUEST)?;
        let range = Range::of(&request, 3, 4);
        let wanted: HashSet<&str> = request.texts(2).collect();
        let is_wanted = |name: &str| wanted.is_empty() || wanted.contains(name);
        let mut out = Message::default();
        for set in self.sets(request.texts(1), range, is_wanted).await? {
            let mut labels = Message::default();
            for (name, value) in set {
                labels.message(1, &pair(&name, &value));
            }
            out.message(2, &labels);
        }
        Ok((out, schema::SERIES_RESPONSE))
    }

    /// The sets of values that the wanted labels have in what any of the selectors chooses.
    async fn sets(
        &mut self,
        matchers: impl Iterator<Item = &str>,
        range: Range,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Result<Sets, Refusal> {
        let selectors = matchers.map(|text| Selector::parse("matchers", text));
        let mut selectors: Vec<Selector> = selectors.collect::<Result<_, _>>()?;
        if selectors.is_empty() {
            selectors.push(Selector::default());
        }
        let traces = Detail {
            traces: true,
            times: false,
        };
        // The four types of memory are of one profile.
        let mut memory = None;
        let mut sets = Sets::new();
        for kind in served(self.plane) {
            let common = Labels::of(self.plane, kind);
            if !selectors
                .iter()
                .any(|one| one.may_match(|name| common.common(name)))
            {
                continue;
            }
            let profile = match &memory {
                Some(profile) if !kind.is_cpu() => Option::clone(profile),
                _ => match self.profile(kind, range, traces, false).await {
                    Err(refusal) if refusal.reason == Reason::Unavailable => None,
                    profile => profile?,
                },
            };
            if !kind.is_cpu() {
                memory = Some(profile.clone());
            }
            let samples = profile.iter().flat_map(|profile| &profile.samples);
            for sample in samples.map(Some).chain([None]) {
                let value = |name: &str| match sample {
                    Some(sample) => common.value(sample, name),
                    None => common.common(name),
                };
                if !selectors.iter().any(|selector| selector.matches(value)) {
                    continue;
                }
                let labels = common.all(sample).filter(|(name, _)| is_wanted(name));
                let set: Vec<(String, String)> = labels
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect();
                if !set.is_empty() && sets.len() < SETS {
                    sets.insert(set);
                }
            }
        }
        Ok(sets)
    }

    /// The profile of a type; `None` where nothing is held of the span.
    async fn profile(
        &self,
        kind: &ProfileType,
        range: Range,
        detail: Detail,
        names: bool,
    ) -> Result<Option<Arc<Profile>>, Refusal> {
        if !kind.is_cpu() {
            heap::is_recorded(self.plane)?;
            if !range.is_now() {
                return Ok(None);
            }
            let wish = HeapProfileWish {
                moment: HeapMoment::Now,
                column: kind.column,
                ages: false,
                names,
            };
            return heap::seen(self.plane, wish).await.map(Some);
        }
        profile::is_served(self.plane)?;
        let Some(span) = range.span() else {
            return Ok(None);
        };
        let wish = CpuWish {
            span,
            detail,
            names,
        };
        match profile::answered(profile::wished(self.plane, wish)?).await {
            Err(refusal) if refusal.status == 404 => Ok(None),
            profile => profile.map(Some),
        }
    }

    /// The profile that a selection is of.
    async fn selected(
        &mut self,
        selection: &Selection<'_>,
        times: bool,
        names: bool,
    ) -> Result<Option<Arc<Profile>>, Refusal> {
        let seconds = selection.range.seconds();
        let format = match self.encoding {
            Encoding::Proto => "proto",
            Encoding::Json => "json",
        };
        let actions = &self.plane.actions;
        // Both sides of a difference are of one request.
        let begin = || actions.begin(self.request, seconds, None, format);
        self.running.get_or_insert_with(begin);
        let detail = Detail {
            traces: selection.tells_traces_apart(),
            times,
        };
        let Selection { kind, range, .. } = selection;
        self.profile(kind, *range, detail, names).await
    }

    async fn flame(&mut self, request: &Fields, numbers: Numbers) -> Answer {
        let selection = Selection::read(request, numbers)?;
        let labels = Labels::of(self.plane, selection.kind);
        let profile = self.selected(&selection, false, true).await?;
        let mut tree: Tree<'_, 1> = Tree::new();
        if let Some(profile) = &profile {
            for (stack, value) in selection.stacks(profile, &labels) {
                tree.add(stack.into_iter(), [value]);
            }
        }
        let flame = tree.flame(selection.nodes);
        Ok((flame.message(), schema::FLAME_GRAPH_RESPONSE))
    }

    async fn diff(&mut self) -> Answer {
        let request = self.read(schema::DIFF_REQUEST)?;
        let none = Fields::default();
        let side = |number| request.messages(number).next().unwrap_or(&none);
        let sides = [
            Selection::read(side(1), STACKTRACES)?,
            Selection::read(side(2), STACKTRACES)?,
        ];
        let [left, right] = &sides;
        let profiles = [
            self.selected(left, false, true).await?,
            self.selected(right, false, true).await?,
        ];
        let mut tree: Tree<'_, 2> = Tree::new();
        for (place, (selection, profile)) in sides.iter().zip(&profiles).enumerate() {
            let labels = Labels::of(self.plane, selection.kind);
            for (stack, value) in profile
                .iter()
                .flat_map(|one| selection.stacks(one, &labels))
            {
                let values = if place == 0 { [value, 0] } else { [0, value] };
                tree.add(stack.into_iter(), values);
            }
        }
        let flame = tree.flame(left.nodes);
        Ok((flame.message(), schema::FLAME_GRAPH_RESPONSE))
    }

    async fn merged_profile(&mut self) -> Answer {
        let request = self.read(schema::SELECT_MERGE_PROFILE_REQUEST)?;
        let selection = Selection::read(&request, MERGED_PROFILE)?;
        let labels = Labels::of(self.plane, selection.kind);
        let Some(profile) = self.selected(&selection, false, true).await? else {
            return Ok((Message::default(), schema::PROFILE));
        };
        let column = selection.column(&profile);
        let samples = selection.chosen(&profile, &labels).into_iter();
        let samples = samples.map(|sample| Sample {
            values: sample.values.get(column).copied().into_iter().collect(),
            ..sample.clone()
        });
        let samples = samples.collect();
        let mut shown = Profile::clone(&profile);
        shown.samples = samples;
        shown.sample_types = vec![selection.kind.column];
        shown.default_type = selection.kind.column.name;
        let limit = match self.encoding {
            Encoding::Proto => config::PROFILE_BODY_BYTES,
            Encoding::Json => JSON_PROFILE_BYTES,
        };
        let shown = shown.folded_to(selection.nodes);
        Ok((pprof::message(&shown, limit), schema::PROFILE))
    }

    async fn select_series(&mut self) -> Answer {
        let request = self.read(schema::SELECT_SERIES_REQUEST)?;
        let selection = Selection::read(&request, SELECT_SERIES)?;
        let Range { start, end } = selection.range;
        let steps = Steps::new(start, end, request.double(6).unwrap_or(0.0))?;
        let aggregation = match request.whole(7) {
            None | Some(0) => Aggregation::Sum,
            Some(1) => Aggregation::Average,
            Some(other) => return Err(invalid("aggregation", "SUM|AVERAGE", &other.to_string())),
        };
        let most = match request.whole(9) {
            None | Some(0) => usize::MAX,
            Some(limit) => usize::try_from(limit)
                .map_err(|_| invalid("limit", "0 or more", &limit.to_string()))?,
        };
        let by: Vec<&str> = request.texts(5).collect();
        let labels = Labels::of(self.plane, selection.kind);
        let names = !selection.call_site.is_empty();
        let profile = self.selected(&selection, true, names).await?;
        let mut series = Series::new();
        let mut moments = Vec::new();
        if let Some(profile) = &profile {
            moments = selection.moments(profile);
            let column = selection.column(profile);
            for sample in selection.chosen(profile, &labels) {
                let values = by
                    .iter()
                    .map(|name| labels.value(sample, name).unwrap_or_default());
                series.add(values.collect(), &sample.by_slice(column));
            }
        }
        let out = series.message(&by, &moments, (steps, aggregation), most);
        Ok((out, schema::SELECT_SERIES_RESPONSE))
    }
}

#[cfg(test)]
#[path = "querier_tests.rs"]
mod tests;
