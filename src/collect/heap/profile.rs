//! A snapshot of the heap and the names of its addresses become a profile.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::callers::{Machinery, machinery};
use super::estimate::Weighed;
use super::tally::{Age, Snapshot};
use crate::collect::code::symbols::Symbolised;
use crate::collect::code::tables::Tables;
use crate::store::heap::{AGE, COLUMNS, HeapProfileWish, INUSE_SPACE, KeptFor, SPACE};
use crate::store::label::LabelSet;
use crate::store::profile::{Accounting, Label, Profile, Sample};
use crate::store::stacks::{LOST, LOST_NAME, OVERFLOW, TRUNCATED, mark_name};

/// The profile of a snapshot; `kept` says what for, if it was kept.
pub(super) fn profile(
    snapshot: &Snapshot,
    kept: Option<KeptFor>,
    symbolised: Symbolised,
    wish: HeapProfileWish,
) -> Profile {
    let mut tables = Tables::of(&symbolised);
    for mark in [TRUNCATED, OVERFLOW, LOST] {
        if let Some(name) = mark_name(mark)
            && snapshot.entries.iter().any(|one| one.stack.contains(&mark))
        {
            tables.mark(mark, name);
        }
    }
    let mut places: HashMap<Arc<[u64]>, Arc<[u32]>> = HashMap::new();
    let mut sums: HashMap<Key, [Weighed; 2]> = HashMap::new();
    for entry in &snapshot.entries {
        let stack = places.entry(Arc::clone(&entry.stack));
        let stack = stack.or_insert_with(|| locate(&entry.stack, &symbolised, &mut tables));
        let key = Key {
            stack: Arc::clone(stack),
            set: entry.set,
            age: entry.age.filter(|_| wish.ages),
        };
        let [allocated, in_use] = sums.entry(key).or_default();
        match entry.age {
            None => allocated.add(entry.weighed),
            Some(_) => in_use.add(entry.weighed),
        }
    }
    let first = COLUMNS.iter().position(|column| *column == wish.column);
    let heaviest = |sample: &Sample| first.and_then(|column| sample.values.get(column).copied());
    let mut samples: Vec<Sample> = sums.into_iter().map(sample).collect();
    samples.sort_by(|a, b| {
        heaviest(b)
            .cmp(&heaviest(a))
            .then_with(|| a.stack.cmp(&b.stack))
            .then_with(|| a.labels.cmp(&b.labels))
    });
    let mut comments = comments(snapshot, kept);
    comments.extend(symbolised.comments);
    Profile {
        start_unix_nanos: snapshot.unix_nanos,
        duration: Duration::ZERO,
        period_type: SPACE,
        period: snapshot.rate,
        sample_types: COLUMNS.to_vec(),
        default_type: wish.column.name,
        slices: Vec::new(),
        samples,
        locations: tables.locations,
        functions: tables.functions,
        mappings: symbolised.mappings,
        accounting: Accounting {
            recorded: match wish.column {
                INUSE_SPACE => snapshot.live.samples,
                _ => snapshot.allocated.samples,
            },
            lost: snapshot
                .lost
                .iter()
                .map(|(cause, weighed)| (*cause, weighed.samples))
                .collect(),
            truncated: snapshot.truncated,
            ..Accounting::default()
        },
        comments,
    }
}

/// What makes a sample of a profile.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    stack: Arc<[u32]>,
    set: LabelSet,
    age: Option<Age>,
}

fn sample((key, [allocated, in_use]): (Key, [Weighed; 2])) -> Sample {
    let mut labels = key.set.labels().to_vec();
    if let Some(age) = key.age {
        labels.push(Label {
            key: AGE,
            value: age.word().into(),
        });
    }
    let sums = [
        allocated.objects,
        allocated.bytes,
        in_use.objects,
        in_use.bytes,
    ];
    Sample {
        stack: key.stack,
        values: sums.into_iter().map(whole).collect(),
        times: Vec::new(),
        labels,
    }
}

/// Sums are rounded at the end, so that many small blocks do not lose theirs.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounded; a conversion from float keeps within the type's range"
)]
pub(super) fn whole(sum: f64) -> i64 {
    sum.round() as i64
}

/// The places of a stack's frames from whoever allocated.
fn locate(stack: &[u64], symbolised: &Symbolised, tables: &mut Tables) -> Arc<[u32]> {
    let Machinery { addresses, inlined } = machinery(stack, symbolised);
    let stack = stack.get(addresses..).unwrap_or_default();
    let caller = stack.first().filter(|_| inlined > 0);
    let caller = caller.and_then(|address| {
        // Addresses of code have 47 bits, 48 on aarch64: above them is room for the number of
        // functions that are left out at this one.
        let key = address | (inlined as u64) << 48;
        if !tables.places.contains_key(&key) {
            let place = symbolised.places.get(address)?;
            let symbols = place.symbols.get(inlined..)?;
            tables.locate(key, *address, place.mapping, symbols);
        }
        tables.places.get(&key).copied()
    });
    let rest = stack.iter().skip(usize::from(caller.is_some()));
    let rest = rest.filter_map(|address| tables.places.get(address).copied());
    caller.into_iter().chain(rest).collect()
}

const MIB: f64 = (1_u64 << 20) as f64;

fn comments(snapshot: &Snapshot, kept: Option<KeptFor>) -> Vec<String> {
    let version = env!("CARGO_PKG_VERSION");
    let rate = match snapshot.rate {
        0 => "sampling is off now".to_owned(),
        1 => "every block was sampled".to_owned(),
        rate => format!("one sample in {rate} bytes on average"),
    };
    let mut out = vec![format!(
        "streamgate-agent {version}, heap of the Rust allocator, {rate}"
    )];
    if let Some(kept) = kept {
        out.push(match kept {
            KeptFor::Peak => "kept when more was in use than ever before".to_owned(),
            KeptFor::Limit => "kept when the process came near its memory limit".to_owned(),
        });
    }
    let sum = |what: &str, sum: &Weighed| {
        format!(
            "{what}: {:.1} MiB in {:.0} objects, estimated from {} samples, standard error {:.1} %",
            sum.bytes / MIB,
            sum.objects,
            sum.samples,
            100.0 * sum.relative_error()
        )
    };
    out.push(sum("in use", &snapshot.live));
    out.push(sum("allocated since the start", &snapshot.allocated));
    out.push(match snapshot.resident_bytes {
        Some(resident) => format!(
            "resident memory of the process: {:.1} MiB; what it has beyond the estimate are stacks, code, \
             C libraries, memory maps, the agent itself and what the allocator keeps free",
            resident / MIB
        ),
        None => "resident memory of the process: not known".to_owned(),
    });
    for (cause, weighed) in &snapshot.lost {
        out.push(format!(
            "lost {} samples: {cause}; their {:.1} MiB are under {LOST_NAME}",
            weighed.samples,
            weighed.bytes / MIB
        ));
    }
    if snapshot.folded > 0 {
        out.push(format!(
            "{} samples whose stack found no place are under [overflow]",
            snapshot.folded
        ));
    }
    if snapshot.truncated > 0 {
        out.push(format!(
            "{} samples were deeper than is kept or could not be followed to their root",
            snapshot.truncated
        ));
    }
    out
}
