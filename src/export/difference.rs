//! What one profile has more than another: the earlier subtracted from the later.
//!
//! Raw, as `go tool pprof -diff_base` does it: a longer or busier window has more of everything.
//! [`normalized`] first brings the earlier to the later's totals, so that shares are compared.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::store::profile::{
    Accounting, Function, Label, Line, Location, Mapping, Profile, Sample, to_usize,
};

/// The earlier profile with each kind of value scaled to the later's total.
pub(crate) fn normalized(earlier: &Profile, later: &Profile) -> Profile {
    let mut scaled = earlier.clone();
    for column in 0..scaled.sample_types.len() {
        let (from, to) = (earlier.total(column), later.total(column));
        if from == 0 {
            continue;
        }
        let values = scaled.samples.iter_mut();
        for value in values.filter_map(|sample| sample.values.get_mut(column)) {
            *value = scale(*value, from, to);
        }
    }
    scaled
}

/// `value * to / from`, rounded.
fn scale(value: i64, from: i64, to: i64) -> i64 {
    let (product, from) = (i128::from(value) * i128::from(to), i128::from(from));
    let half = from.abs() / 2 * product.signum() * from.signum();
    i64::try_from((product + half) / from).unwrap_or(i64::MAX)
}

/// The later profile less the earlier; `None` if they count different things.
///
/// Code is the same if it stands at the same place of the same file, wherever that was loaded; code
/// without a file, if it has the same name. What does not differ is left out.
pub(crate) fn subtract(earlier: &Profile, later: &Profile) -> Option<Profile> {
    if earlier.sample_types != later.sample_types || earlier.period_type != later.period_type {
        return None;
    }
    let mut merged = Merged::new(later);
    let places: Vec<u32> = merged.add(earlier);
    let mut sums = Sums::new();
    for sample in &later.samples {
        let stack = sample.stack.iter();
        let stack = stack.filter_map(|place| merged.own.get(to_usize(*place)).copied());
        add(&mut sums, stack.collect(), sample, i64::saturating_add);
    }
    for sample in &earlier.samples {
        let stack = sample.stack.iter();
        let stack = stack.filter_map(|place| places.get(to_usize(*place)).copied());
        add(&mut sums, stack.collect(), sample, i64::saturating_sub);
    }
    let samples = sums.into_iter();
    let mut samples: Vec<Sample> = samples
        .filter(|(_, values)| values.iter().any(|value| *value != 0))
        .map(|((stack, labels), values)| Sample {
            stack,
            values,
            labels,
            times: Vec::new(),
        })
        .collect();
    // Two moments make a span.
    let (start, duration) = if later.duration.is_zero() {
        (earlier.start_unix_nanos, apart(earlier, later))
    } else {
        (later.start_unix_nanos, later.duration)
    };
    let column = later.default_column();
    samples.sort_by_key(|sample| Reverse(sample.values.get(column).map(|value| value.abs())));
    Some(Profile {
        start_unix_nanos: start,
        duration,
        period_type: later.period_type,
        period: later.period.max(earlier.period),
        sample_types: later.sample_types.clone(),
        default_type: later.default_type,
        samples,
        slices: Vec::new(),
        locations: merged.locations,
        functions: merged.functions,
        mappings: merged.mappings,
        accounting: Accounting::default(),
        comments: comments(earlier, later),
    })
}

/// Values by stack and labels.
type Sums = BTreeMap<(Arc<[u32]>, Vec<Label>), Vec<i64>>;

fn add(sums: &mut Sums, stack: Arc<[u32]>, sample: &Sample, combine: fn(i64, i64) -> i64) {
    let mut labels = sample.labels.clone();
    labels.sort();
    let sum = sums.entry((stack, labels)).or_default();
    sum.resize(sample.values.len(), 0);
    for (sum, value) in sum.iter_mut().zip(&sample.values) {
        *sum = combine(*sum, *value);
    }
}

/// How long before the later the earlier began.
fn apart(earlier: &Profile, later: &Profile) -> Duration {
    let nanos = later
        .start_unix_nanos
        .saturating_sub(earlier.start_unix_nanos);
    Duration::from_nanos(nanos)
}

fn comments(earlier: &Profile, later: &Profile) -> Vec<String> {
    let before = apart(earlier, later).as_secs_f64();
    let mut out = vec![if later.duration.is_zero() {
        format!(
            "a difference of two moments, {before:.1} s apart; below zero is what there was more of before"
        )
    } else {
        format!(
            "a difference: {:.1} s, less {:.1} s that began {before:.1} s before; below zero is what there was more of then",
            later.duration.as_secs_f64(),
            earlier.duration.as_secs_f64(),
        )
    }];
    for (which, profile) in [("later", later), ("earlier", earlier)] {
        let comments = profile.comments.iter();
        out.extend(comments.map(|comment| format!("{which}: {comment}")));
    }
    out
}

/// The tables of both.
struct Merged {
    mappings: Vec<Mapping>,
    functions: Vec<Function>,
    function_places: HashMap<Function, u32>,
    locations: Vec<Location>,
    location_places: HashMap<Key, u32>,
    /// Where the later's locations went.
    own: Vec<u32>,
}

/// What makes a location the same.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    mapping: Option<u32>,
    /// In memory; in the later's, if the mapping moved.
    address: u64,
    /// Without a mapping only.
    names: Vec<Arc<str>>,
}

impl Merged {
    fn new(later: &Profile) -> Self {
        let mut merged = Self {
            mappings: Vec::new(),
            functions: Vec::new(),
            function_places: HashMap::new(),
            locations: Vec::new(),
            location_places: HashMap::new(),
            own: Vec::new(),
        };
        merged.own = merged.add(later);
        merged
    }

    /// Takes in a profile's tables and says where each of its locations went.
    fn add(&mut self, profile: &Profile) -> Vec<u32> {
        let known = self.mappings.len();
        let mappings = profile.mappings.iter();
        let mappings: Vec<u32> = mappings.map(|held| self.mapping(held, known)).collect();
        let functions = profile.functions.iter();
        let functions: Vec<u32> = functions.map(|function| self.function(function)).collect();
        let locations = profile.locations.iter();
        let locations =
            locations.map(|location| self.location(profile, location, &mappings, &functions));
        locations.collect()
    }

    /// The mapping at the same addresses or, of those known before, the one that moved.
    fn mapping(&mut self, mapping: &Mapping, known: usize) -> u32 {
        let length = |held: &Mapping| held.limit.saturating_sub(held.start);
        let alike = |held: &Mapping| {
            held.file == mapping.file
                && held.build_id == mapping.build_id
                && held.offset == mapping.offset
                && length(held) == length(mapping)
        };
        let here = |held: &Mapping| held.start == mapping.start && alike(held);
        let exact = self.mappings.iter().position(here);
        let moved = || self.mappings.iter().take(known).position(alike);
        let place = exact.or_else(moved).unwrap_or(self.mappings.len());
        match self.mappings.get_mut(place) {
            Some(held) => held.complete &= mapping.complete,
            None => self.mappings.push(mapping.clone()),
        }
        index(place)
    }

    fn function(&mut self, function: &Function) -> u32 {
        if let Some(place) = self.function_places.get(function) {
            return *place;
        }
        let place = index(self.functions.len());
        self.functions.push(function.clone());
        self.function_places.insert(function.clone(), place);
        place
    }

    fn location(
        &mut self,
        profile: &Profile,
        location: &Location,
        mappings: &[u32],
        functions: &[u32],
    ) -> u32 {
        let own = location.mapping.map(to_usize);
        let from = own.and_then(|own| profile.mappings.get(own));
        let mapping = own.and_then(|own| mappings.get(own).copied());
        let held = mapping.and_then(|place| self.mappings.get(to_usize(place)));
        let moved = held.zip(from);
        let address = moved.map_or(location.address, |(held, from)| {
            let in_mapping = location.address.wrapping_sub(from.start);
            held.start.wrapping_add(in_mapping)
        });
        let names = profile.functions_at(location).flatten();
        let names = names.map(|function| Arc::clone(&function.name));
        let key = Key {
            mapping,
            address,
            names: if mapping.is_some() {
                Vec::new()
            } else {
                names.collect()
            },
        };
        if let Some(place) = self.location_places.get(&key) {
            return *place;
        }
        let lines = location.lines.iter().filter_map(|line| {
            let function = functions.get(to_usize(line.function)).copied()?;
            Some(Line {
                function,
                line: line.line,
            })
        });
        let lines = lines.collect();
        let place = index(self.locations.len());
        self.locations.push(Location {
            address,
            mapping,
            lines,
        });
        self.location_places.insert(key, place);
        place
    }
}

fn index(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
