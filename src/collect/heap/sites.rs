//! What single call stacks hold, as numbers and by name.

use std::collections::HashMap;
use std::sync::Arc;

use super::callers::{Machinery, machinery};
use super::tally::{Age, LiveSums, Tally};
use crate::collect::code::symbols::Symbolised;
use crate::config::leaks as limits;
use crate::store::heap::SiteStack;
use crate::store::label::ROUTE;
use crate::store::profile::Function;
use crate::store::sites::SiteReading;
use crate::store::stacks::{OVERFLOWED, mark_name};
use crate::store::symbols::Symbol;

/// The stacks that hold most, with what they hold and have allocated.
///
/// # Cost
/// A walk over the sums of both: at most 131,072 and 65,536.
pub(super) fn readings(tally: &Tally, live: &LiveSums) -> Vec<SiteReading> {
    let mut sites: HashMap<u32, SiteReading> = HashMap::new();
    for ((stack, _, age), sum) in &live.sums {
        // What found no place comes from many stacks, so nobody could tell what grows.
        let Some(number) = stack.filter(|number| *number != OVERFLOWED) else {
            continue;
        };
        let reading = sites.entry(number).or_default();
        reading.site = number.into();
        reading.live_bytes += sum.bytes;
        reading.live_objects += sum.objects;
        reading.live_samples += sum.samples;
        reading.variance += sum.variance;
        let [minute, ten_minutes, hour, older] = &mut reading.age_bytes;
        *match age {
            Age::Minute => minute,
            Age::TenMinutes => ten_minutes,
            Age::Hour => hour,
            Age::Older => older,
        } += sum.bytes;
    }
    for ((stack, _), sum) in &tally.sums {
        if let Some(reading) = sites.get_mut(stack) {
            reading.allocated_bytes += sum.bytes;
        }
    }
    let mut sites: Vec<SiteReading> = sites.into_values().collect();
    sites.sort_unstable_by(|one, other| other.live_bytes.total_cmp(&one.live_bytes));
    sites.truncate(limits::SITES);
    sites
}

/// A stack that somebody wants to see by name.
#[derive(Debug)]
pub(super) struct Wanted {
    site: u64,
    pub(super) stack: Arc<[u64]>,
    routes: Vec<(Option<Arc<str>>, f64)>,
}

/// The stacks of these sites, in their order, with the routes that hold their bytes.
pub(super) fn wanted(tally: &Tally, live: &LiveSums, sites: &[u64]) -> Vec<Wanted> {
    let mut routes: HashMap<u64, HashMap<Option<Arc<str>>, f64>> = HashMap::new();
    for ((stack, set, _), sum) in &live.sums {
        if let Some(number) = stack {
            let held = routes.entry((*number).into()).or_default();
            *held.entry(set.value(ROUTE)).or_default() += sum.bytes;
        }
    }
    let wanted = sites.iter().filter_map(|site| {
        let routes = routes.remove(site).unwrap_or_default();
        let mut routes: Vec<(Option<Arc<str>>, f64)> = routes.into_iter().collect();
        routes.sort_by(|one, other| other.1.total_cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        Some(Wanted {
            site: *site,
            stack: Arc::clone(tally.stacks.get(u32::try_from(*site).ok()?)),
            routes,
        })
    });
    wanted.collect()
}

/// The same with names, from whoever allocated outwards.
pub(super) fn named(wanted: &[Wanted], symbolised: &Symbolised) -> Vec<SiteStack> {
    let named = wanted.iter().map(|one| SiteStack {
        site: one.site,
        frames: frames(&one.stack, symbolised),
        routes: one.routes.clone(),
    });
    named.collect()
}

fn frames(stack: &[u64], symbolised: &Symbolised) -> Vec<Symbol> {
    let Machinery { addresses, inlined } = machinery(stack, symbolised);
    let mut frames = Vec::new();
    for address in stack.get(addresses..).unwrap_or_default() {
        let symbols = symbolised.places.get(address).map(|place| &*place.symbols);
        match symbols.filter(|symbols| !symbols.is_empty()) {
            Some(symbols) => frames.extend(symbols.iter().cloned()),
            None => frames.push(Symbol {
                function: Function::named(
                    &mark_name(*address).map_or_else(|| format!("{address:#x}"), str::to_owned),
                ),
                line: 0,
            }),
        }
    }
    frames.drain(..inlined.min(frames.len()));
    frames
}

#[cfg(test)]
mod tests {
    use super::super::estimate::Weighed;
    use super::*;
    use crate::store::label::LabelSet;
    use crate::store::stacks::TRUNCATED;

    fn block(bytes: u64) -> Weighed {
        Weighed::block(bytes, 1.0)
    }

    #[test]
    fn a_site_is_a_stack_whatever_its_labels_and_ages() {
        let shop = LabelSet::NONE.with(ROUTE, "/shop");
        let mut tally = Tally::default();
        let mut live = LiveSums::default();
        for (leaf, set, age, lives) in [
            (1, LabelSet::NONE, 0, true),
            (1, shop, 700_000, true),
            (1, shop, 0, false),
            (2, LabelSet::NONE, 0, true),
        ] {
            let number = tally.add(&[leaf, 9], set, block(100 * leaf));
            if lives {
                live.add(Some(number), set, age, block(100 * leaf));
            }
        }
        live.add(None, LabelSet::NONE, 0, block(5));
        live.add(Some(OVERFLOWED), LabelSet::NONE, 0, block(5));
        let mut seen = readings(&tally, &live);
        seen.sort_by_key(|reading| reading.site);
        let [first, second] = &*seen else {
            panic!("{seen:?}")
        };
        assert_ne!(first.site, second.site);
        let first_is = SiteReading {
            site: first.site,
            live_bytes: 200.0,
            live_objects: 2.0,
            live_samples: 2,
            allocated_bytes: 300.0,
            variance: 0.0,
            age_bytes: [100.0, 0.0, 100.0, 0.0],
        };
        assert_eq!(*first, first_is);
        assert_eq!((second.live_bytes, second.allocated_bytes), (200.0, 200.0));

        let wanted = wanted(&tally, &live, &[first.site]);
        let [one] = &*wanted else {
            panic!("{wanted:?}")
        };
        assert_eq!(*one.stack, [1, 9]);
        let routes = vec![(None, 100.0), (Some("/shop".into()), 100.0)];
        assert_eq!(one.routes, routes);
    }

    #[test]
    fn only_the_largest_sites_are_read() {
        let mut tally = Tally::default();
        let mut live = LiveSums::default();
        let more = limits::SITES as u64 + 10;
        for leaf in 1..=more {
            let number = tally.add(&[leaf], LabelSet::NONE, block(leaf));
            live.add(Some(number), LabelSet::NONE, 0, block(leaf));
        }
        let seen = readings(&tally, &live);
        assert_eq!(seen.len(), limits::SITES);
        let least = seen.iter().map(|reading| reading.live_bytes);
        assert_eq!(least.reduce(f64::min), Some(11.0));
    }

    #[test]
    fn frames_without_a_name_keep_their_place() {
        let nameless = Symbolised::raw(&[0x1000], "no names");
        let names: Vec<Arc<str>> = frames(&[0x1000, TRUNCATED], &nameless)
            .into_iter()
            .map(|frame| frame.function.name)
            .collect();
        assert_eq!(
            names,
            ["[unknown+0x1000]".into(), Arc::<str>::from("[truncated]")]
        );
    }
}
