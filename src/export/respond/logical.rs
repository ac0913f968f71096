//! Profiles whose stacks are names without addresses: what requests have open, threads by name.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::store::profile::{Accounting, Label, Profile, Sample, ValueType};

/// When a profile was taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    pub(super) start_unix_nanos: u64,
    /// Zero: at one moment.
    pub(super) duration: Duration,
}

/// One stack of names.
#[derive(Debug)]
pub(super) struct Named {
    /// Outermost first.
    pub(super) names: Vec<Arc<str>>,
    /// One per column.
    pub(super) values: Vec<i64>,
    pub(super) labels: Vec<Label>,
}

/// A profile of stacks of names. The first column counts, the last is what a reader wants to see.
pub(super) fn profile(
    columns: &[ValueType],
    taken: Taken,
    comments: Vec<String>,
    stacks: Vec<Named>,
) -> Profile {
    let counted = columns.first().copied().unwrap_or(ValueType {
        name: "",
        unit: "count",
    });
    let mut profile = Profile {
        start_unix_nanos: taken.start_unix_nanos,
        duration: taken.duration,
        period_type: counted,
        period: 1,
        sample_types: columns.to_vec(),
        default_type: columns.last().map_or("", |column| column.name),
        samples: Vec::new(),
        slices: Vec::new(),
        locations: Vec::new(),
        functions: Vec::new(),
        mappings: Vec::new(),
        accounting: Accounting::default(),
        comments,
    };
    let mut frames: HashMap<Arc<str>, u32> = HashMap::new();
    let mut samples: Vec<Sample> = Vec::new();
    for Named {
        names,
        values,
        labels,
    } in stacks
    {
        let leaf_first = names.into_iter().rev();
        let stack = leaf_first.map(|name| match frames.get(&name) {
            Some(place) => *place,
            None => {
                let place = profile.add_mark(&name);
                frames.insert(name, place);
                place
            }
        });
        samples.push(Sample {
            stack: stack.collect(),
            values,
            labels,
            times: Vec::new(),
        });
    }
    samples.sort_by(|a, b| b.values.last().cmp(&a.values.last()));
    profile.samples = samples;
    profile.accounting.recorded = u64::try_from(profile.total(0)).unwrap_or(0);
    profile
}
