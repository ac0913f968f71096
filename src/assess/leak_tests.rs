//! Leaks, caches, batches and warm-ups, simulated block by block under a clock of the test's own.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::leaks::{CacheReading, Leaks, SiteGrowth, Verdict};
use crate::catalog::families;
use crate::config::leaks as limits;
use crate::store::metrics::{Metrics, MetricsLimits};
use crate::store::sites::SiteReading;
use Verdict::{Growing, Leaking, Plateau, Unknown};

const MIB: f64 = (1_u64 << 20) as f64;
/// Mean bytes between samples, and so what a sampled small block stands for.
const WEIGHT: f64 = MIB / 2.0;

/// A place that allocates small blocks, seen through exponential sampling.
struct Site {
    id: u64,
    /// Seconds at which the live samples were born, oldest first.
    born: Vec<f64>,
    allocated: u64,
    to_next: f64,
    random: u64,
}

impl Site {
    fn new(id: u64) -> Self {
        let mut site = Self {
            id,
            born: Vec::new(),
            allocated: 0,
            to_next: 0.0,
            random: id * 7_919 + 12_345,
        };
        site.to_next = site.gap();
        site
    }

    fn gap(&mut self) -> f64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005);
        self.random = self.random.wrapping_add(1_442_695_040_888_963_407);
        let uniform = ((self.random >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        -uniform.ln() * WEIGHT
    }

    fn allocate(&mut self, now: f64, mut bytes: f64) {
        while bytes >= self.to_next {
            bytes -= self.to_next;
            self.to_next = self.gap();
            self.born.push(now);
            self.allocated += 1;
        }
        self.to_next -= bytes;
    }

    fn live(&self) -> f64 {
        self.born.len() as f64 * WEIGHT
    }

    /// Frees the oldest until no more than `bytes` live.
    fn shrink_to(&mut self, bytes: f64) {
        let over = (self.live() - bytes) / WEIGHT;
        let free = (0..self.born.len())
            .take_while(|freed| (*freed as f64) < over)
            .count();
        self.born.drain(..free);
    }

    fn reading(&self, now: f64) -> SiteReading {
        let aged = |from: f64, to: f64| {
            let ages = self.born.iter().map(|born| (now - born) / 60.0);
            ages.filter(|age| (from..to).contains(age)).count() as f64 * WEIGHT
        };
        SiteReading {
            site: self.id,
            live_bytes: self.live(),
            live_objects: self.live() / 100.0,
            live_samples: self.born.len() as u64,
            allocated_bytes: self.allocated as f64 * WEIGHT,
            variance: self.born.len() as f64 * WEIGHT * WEIGHT,
            age_bytes: [
                aged(0.0, 1.0),
                aged(1.0, 10.0),
                aged(10.0, 60.0),
                aged(60.0, f64::MAX),
            ],
        }
    }
}

/// Sites and caches that change once a second and are observed every 5 s.
struct World {
    sites: Vec<Site>,
    caches: Vec<CacheReading>,
    leaks: Leaks,
    start: Instant,
    second: u32,
}

impl World {
    fn of(sites: u64) -> Self {
        Self {
            sites: (0..sites).map(Site::new).collect(),
            caches: Vec::new(),
            leaks: Leaks::default(),
            start: Instant::now(),
            second: 0,
        }
    }

    /// Runs for so many seconds; `step` is given the second.
    fn run(&mut self, seconds: u32, mut step: impl FnMut(&mut [Site], &mut [CacheReading], f64)) {
        for _ in 0..seconds {
            self.second += 1;
            let now = f64::from(self.second);
            step(&mut self.sites, &mut self.caches, now);
            if self.second.is_multiple_of(5) {
                self.observe();
            }
        }
    }

    fn observe(&mut self) {
        let at = self.start + Duration::from_secs(self.second.into());
        let readings = self
            .sites
            .iter()
            .map(|site| site.reading(self.second.into()));
        self.leaks
            .observe(at, readings.collect(), self.caches.clone());
    }

    fn site(&self, id: u64) -> SiteGrowth {
        let mut judged = self.leaks.judge().into_iter();
        judged.find(|growth| growth.now.site == id).unwrap()
    }

    fn verdict(&self, id: u64) -> Verdict {
        self.site(id).verdict
    }
}

fn cache(name: &str, capacity_mib: f64) -> CacheReading {
    CacheReading {
        name: name.into(),
        bytes: 0.0,
        capacity_bytes: Some(capacity_mib * MIB),
    }
}

#[test]
fn a_leak_of_1_mib_a_second_stands_first_within_a_minute_and_is_one_after_ten() {
    let mut world = World::of(4);
    // A large stable heap, a busy place that keeps a second of what it makes, one that keeps a minute.
    world.run(120, |sites, _, now| {
        sites[0].allocate(now, 16.0 * MIB);
        sites[1].allocate(now, 40.0 * MIB);
        sites[1].shrink_to(40.0 * MIB);
        sites[2].allocate(now, 3.0 * MIB);
        sites[2].shrink_to(180.0 * MIB);
    });
    let leak = |sites: &mut [Site], _: &mut [CacheReading], now: f64| {
        sites[1].allocate(now, 40.0 * MIB);
        sites[1].shrink_to(40.0 * MIB);
        sites[2].allocate(now, 3.0 * MIB);
        sites[2].shrink_to(180.0 * MIB);
        sites[3].allocate(now, MIB);
    };
    // The heap that came before is stable now, and forgotten.
    world.leaks = Leaks::default();
    world.run(60, leak);
    let first = world.leaks.judge().remove(0);
    assert_eq!((first.now.site, first.verdict), (3, Unknown), "{first:?}");
    assert!(first.grows(), "{first:?}");
    let hourly = first.bytes_per_hour.unwrap() / MIB;
    assert!((2_700.0..4_500.0).contains(&hourly), "{hourly} MiB/h");
    world.run(570, leak);
    for _ in 0..25 {
        let judged = world.leaks.judge();
        let (first, others) = judged.split_first().unwrap();
        assert_eq!((first.now.site, first.verdict), (3, Leaking), "{first:?}");
        for other in others {
            assert_eq!(other.verdict, Plateau, "{other:?}");
        }
        world.run(120, leak);
    }
    let hourly = world.site(3).bytes_per_hour.unwrap() / MIB;
    assert!((3_500.0..3_700.0).contains(&hourly), "{hourly} MiB/h");
}

#[test]
fn a_leak_that_begins_in_a_place_that_was_stable_for_an_hour_is_found() {
    let mut world = World::of(1);
    world.run(60, |sites, _, now| sites[0].allocate(now, 4.0 * MIB));
    world.run(3_600, |_, _, _| {});
    assert_eq!(world.verdict(0), Plateau);
    world.run(1_500, |sites, _, now| sites[0].allocate(now, MIB));
    assert_eq!(world.verdict(0), Leaking, "{:?}", world.site(0));
}

/// What a cache holds after so many seconds, in MiB: at an even rate, or ever more slowly because
/// more of what is asked for is there.
fn filled(evenly: bool, seconds: f64) -> f64 {
    if evenly {
        0.4 * seconds
    } else {
        800.0 * (1.0 - (-seconds / 1_200.0).exp())
    }
}

#[test]
fn a_known_cache_grows_until_it_is_full_and_never_leaks() {
    for evenly in [true, false] {
        let cap = 600.0;
        let mut world = World::of(2);
        world.caches = vec![cache("content", cap), cache("other", 10.0)];
        let mut seen = Vec::new();
        for _ in 0..80 {
            world.run(60, |sites, caches, now| {
                // Three quarters are values, the rest keys and table; the cache weighs both.
                let more = filled(evenly, now) - filled(evenly, now - 1.0);
                sites[0].allocate(now, 0.75 * more * MIB);
                sites[1].allocate(now, 0.25 * more * MIB);
                sites[0].shrink_to(0.75 * cap * MIB);
                sites[1].shrink_to(0.25 * cap * MIB);
                caches[0].bytes = (filled(evenly, now) * MIB).min(cap * MIB);
            });
            let judged = world.leaks.judge();
            let leaking = judged.iter().find(|growth| growth.verdict == Leaking);
            assert_eq!(leaking, None, "evenly: {evenly}");
            seen.extend(
                judged
                    .iter()
                    .filter(|growth| growth.now.site == 0)
                    .map(|growth| growth.verdict),
            );
        }
        seen.dedup();
        assert_eq!(seen, [Unknown, Growing, Plateau], "evenly: {evenly}");
    }
}

#[test]
fn growth_that_a_cache_explains_names_the_cache() {
    let mut world = World::of(1);
    world.caches = vec![cache("content", 600.0)];
    world.run(900, |sites, caches, now| {
        sites[0].allocate(now, 0.4 * MIB);
        caches[0].bytes += 0.4 * MIB;
    });
    let explained = world.site(0).cache.unwrap();
    assert_eq!(&*explained.name, "content");
    assert_eq!(explained.capacity_bytes, Some(600.0 * MIB));
    let evidence = world.site(0).evidence();
    assert!(
        evidence.ends_with("100 % of what it allocated is alive, as much as a known cache grew"),
        "{evidence}"
    );
}

#[test]
fn a_leak_beside_a_filling_cache_is_not_hidden_by_it() {
    for evenly in [true, false] {
        let mut world = World::of(2);
        world.caches = vec![cache("content", 10_000.0)];
        world.run(900, |sites, caches, now| {
            let more = filled(evenly, now) - filled(evenly, now - 1.0);
            sites[0].allocate(now, more * MIB);
            caches[0].bytes += more * MIB;
            sites[1].allocate(now, MIB);
        });
        let verdicts = [world.verdict(0), world.verdict(1)];
        assert_eq!(verdicts, [Growing, Leaking], "evenly: {evenly}");
        assert_eq!(world.leaks.judge()[0].now.site, 1);
    }
}

#[test]
fn a_cache_that_nobody_told_of_grows_if_it_slows_down() {
    let mut world = World::of(1);
    let mut seen = Vec::new();
    for _ in 0..120 {
        world.run(60, |sites, _, now| {
            let size = |now: f64| 1_600.0 * (1.0 - (-now / 900.0).exp());
            sites[0].allocate(now, (size(now) - size(now - 1.0)) * MIB);
        });
        seen.push(world.verdict(0));
    }
    seen.dedup();
    assert_eq!(seen, [Unknown, Growing, Plateau]);
}

/// The limit that the module's documentation admits.
#[test]
fn a_cache_that_nobody_told_of_and_fills_evenly_is_a_leak_until_it_evicts() {
    let mut world = World::of(1);
    let mut seen = Vec::new();
    for _ in 0..100 {
        world.run(60, |sites, _, now| {
            sites[0].allocate(now, MIB);
            sites[0].shrink_to(1_200.0 * MIB);
        });
        seen.push(world.verdict(0));
    }
    seen.dedup();
    assert_eq!(seen, [Unknown, Leaking, Growing, Plateau]);
}

#[test]
fn a_warm_up_that_ends_before_ten_minutes_is_never_more_than_unknown() {
    let mut world = World::of(1);
    let mut seen = Vec::new();
    for _ in 0..160 {
        world.run(30, |sites, _, now| {
            if now < 300.0 {
                sites[0].allocate(now, 2.0 * MIB);
            }
        });
        seen.push(world.verdict(0));
    }
    seen.dedup();
    assert_eq!(seen, [Unknown, Plateau]);
}

#[test]
fn a_batch_that_frees_what_it_took_is_no_leak() {
    let mut world = World::of(1);
    for _ in 0..200 {
        world.run(30, |sites, _, now| {
            sites[0].allocate(now, 2.0 * MIB);
            if now % 240.0 < 0.5 {
                sites[0].shrink_to(20.0 * MIB);
            }
        });
        assert_ne!(world.verdict(0), Leaking, "{:?}", world.site(0));
    }
    assert_eq!(world.verdict(0), Plateau);
}

#[test]
fn a_step_is_no_growth_that_goes_on() {
    let mut world = World::of(1);
    world.run(60, |sites, _, now| sites[0].allocate(now, 4.0 * MIB));
    world.run(800, |_, _, _| {});
    world.run(1, |sites, _, now| sites[0].allocate(now, 400.0 * MIB));
    for _ in 0..60 {
        world.run(30, |_, _, _| {});
        assert_eq!(world.verdict(0), Plateau, "{:?}", world.site(0));
    }
}

#[test]
fn a_place_that_shrinks_does_not_grow() {
    let mut world = World::of(1);
    world.run(60, |sites, _, now| sites[0].allocate(now, 16.0 * MIB));
    world.leaks = Leaks::default();
    world.run(900, |sites, _, now| {
        sites[0].shrink_to((1_020.0 - now) * MIB)
    });
    let site = world.site(0);
    assert_eq!(site.verdict, Plateau);
    assert!(site.bytes_per_hour.unwrap() < 0.0 && !site.grows());
}

#[test]
fn a_place_that_keeps_half_of_what_it_makes_grows_but_is_no_leak_for_sure() {
    let mut world = World::of(1);
    let mut keep = 0.0;
    world.run(1_500, |sites, _, now| {
        sites[0].allocate(now, 2.0 * MIB);
        keep += 1.0;
        sites[0].shrink_to(keep * MIB);
    });
    assert_eq!(world.verdict(0), Growing, "{:?}", world.site(0));
}

#[test]
fn too_little_is_unknown_and_never_no_leak() {
    let mut few = World::of(1);
    few.run(3_000, |sites, _, now| sites[0].allocate(now, 0.004 * MIB));
    let site = few.site(0);
    assert!(site.now.live_samples < limits::SAMPLES);
    assert_eq!(site.verdict, Unknown, "few samples");
    assert_eq!(
        site.evidence(),
        format!(
            "{} live samples of at least 30 and 49 of at least 10 minutes: too little to say",
            site.now.live_samples
        )
    );

    let mut short = World::of(1);
    short.run(300, |sites, _, now| sites[0].allocate(now, MIB));
    assert_eq!(short.verdict(0).word(), "unknown", "five minutes");

    assert_eq!(Leaks::default().judge(), []);
    let mut once = World::of(1);
    once.run(5, |sites, _, now| sites[0].allocate(now, 100.0 * MIB));
    let site = once.site(0);
    assert_eq!((site.verdict, site.bytes_per_hour), (Unknown, None));
}

#[test]
fn a_gap_counts_as_two_minutes_at_most() {
    let mut world = World::of(1);
    let leak = |sites: &mut [Site], _: &mut [CacheReading], now: f64| sites[0].allocate(now, MIB);
    world.run(120, leak);
    for _ in 0..1_200 {
        world.second += 1;
        leak(&mut world.sites, &mut [], world.second.into());
    }
    world.run(120, leak);
    let site = world.site(0);
    assert_eq!(site.observed.as_secs(), 115 + 120 + 115);
    assert_eq!(site.verdict, Unknown);
    world.run(300, leak);
    assert_eq!(world.verdict(0), Leaking);
}

#[test]
fn observations_are_bounded_in_number_sites_and_age_and_the_newest_is_the_last() {
    let start = Instant::now();
    let mut leaks = Leaks::default();
    let sites = |count: u64, bytes: f64| -> Vec<SiteReading> {
        let reading = |site| SiteReading {
            site,
            live_bytes: bytes + site as f64,
            ..SiteReading::default()
        };
        (0..count).map(reading).collect()
    };
    for second in 0..4_000 {
        let at = start + Duration::from_secs(second);
        leaks.observe(at, sites(600, second as f64), Vec::new());
        assert!(leaks.kept().0 <= limits::OBSERVATIONS);
    }
    let (observations, oldest) = leaks.kept();
    let seconds = oldest.unwrap().duration_since(start).as_secs();
    assert_eq!(observations, limits::OBSERVATIONS);
    assert!((399..460).contains(&seconds), "oldest at {seconds} s");
    let judged = leaks.judge();
    assert_eq!(judged.len(), limits::SITES);
    assert!(
        judged
            .iter()
            .all(|growth| growth.now.live_bytes >= 3_999.0 + 88.0)
    );
    // A clock that went back is no observation.
    leaks.observe(start, sites(1, 0.0), Vec::new());
    assert_eq!(leaks.judge().len(), limits::SITES);
}

#[test]
fn the_sizes_of_caches_in_the_process_are_read_from_the_metrics() {
    let limits = MetricsLimits {
        series: 100,
        bytes: 1 << 20,
    };
    let metrics = Metrics::new(limits);
    let set = |metric, name, level, bytes| {
        let gauge = metrics.gauge(metric, &[name, level]).unwrap();
        gauge.set(bytes);
    };
    set(&families::CACHE_SIZE, "content", "l1", 5.0);
    set(&families::CACHE_CAPACITY, "content", "l1", 9.0);
    set(&families::CACHE_SIZE, "pages", "l1", 7.0);
    // Redis is in no heap of ours, and a size that was not said is none.
    set(&families::CACHE_SIZE, "content", "l2", 100.0);
    set(&families::CACHE_CAPACITY, "silent", "l1", 9.0);
    let mut caches = CacheReading::all(&metrics.snapshot());
    caches.sort_by(|one, other| one.name.cmp(&other.name));
    let seen: Vec<_> = caches
        .iter()
        .map(|cache| (&*cache.name, cache.bytes, cache.capacity_bytes))
        .collect();
    assert_eq!(seen, [("content", 5.0, Some(9.0)), ("pages", 7.0, None)]);
}

prop_compose! {
    fn reading()(
        site in 0_u64..4,
        numbers in prop::array::uniform8(prop_oneof![
            3 => 0.0..1e15,
            1 => prop_oneof![Just(0.0), Just(f64::NAN), Just(f64::INFINITY), Just(-1.0), Just(1e300)],
        ]),
        live_samples in 0_u64..1_000,
    ) -> SiteReading {
        let [live_bytes, live_objects, allocated_bytes, variance, a, b, c, d] = numbers;
        SiteReading {
            site,
            live_bytes,
            live_objects,
            live_samples,
            allocated_bytes,
            variance,
            age_bytes: [a, b, c, d],
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_read_there_is_a_number_or_nothing(
        steps in prop::collection::vec((0_u64..200, prop::collection::vec(reading(), 0..6)), 0..40),
        sizes in prop::collection::vec(prop_oneof![0.0..1e12, Just(f64::NAN)], 40),
    ) {
        let mut at = Instant::now();
        let mut leaks = Leaks::default();
        for ((seconds, sites), bytes) in steps.into_iter().zip(sizes) {
            at += Duration::from_secs(seconds);
            let known = CacheReading { bytes, ..cache("content", 1.0) };
            leaks.observe(at, sites, vec![known]);
            for growth in leaks.judge() {
                let numbers = [
                    growth.bytes_per_hour,
                    growth.p,
                    growth.sigmas,
                    growth.survivor_ratio,
                    growth.steadiness_ratio,
                    growth.slowing_p,
                ];
                prop_assert!(numbers.iter().flatten().all(|number| number.is_finite()));
                let shares = [growth.p, growth.survivor_ratio, growth.slowing_p];
                prop_assert!(shares.iter().flatten().all(|share| (0.0..=1.0).contains(share)));
            }
        }
    }

    /// A program whose blocks are so many times larger, sampled as many times less often, is the
    /// same program.
    #[test]
    fn verdicts_do_not_depend_on_the_unit_of_bytes(
        rates in prop::collection::vec(0.0_f64..4.0, 3..90),
        scale in 0.01_f64..100.0,
    ) {
        let (mut plain, mut scaled) = (Leaks::default(), Leaks::default());
        let mut site = Site::new(1);
        let start = Instant::now();
        for (step, rate) in (1_u32..).zip(rates) {
            let now = f64::from(step) * 30.0;
            site.allocate(now, rate * 30.0 * MIB);
            site.shrink_to(900.0 * MIB);
            let at = start + Duration::from_secs(30) * step;
            let reading = site.reading(now);
            plain.observe(at, vec![reading], Vec::new());
            let reading = SiteReading {
                live_bytes: reading.live_bytes * scale,
                allocated_bytes: reading.allocated_bytes * scale,
                variance: reading.variance * scale * scale,
                age_bytes: reading.age_bytes.map(|bytes| bytes * scale),
                ..reading
            };
            scaled.observe(at, vec![reading], Vec::new());
        }
        let (plain, scaled) = (plain.judge().remove(0), scaled.judge().remove(0));
        prop_assert_eq!(plain.verdict, scaled.verdict);
        let near = |one: Option<f64>, other: Option<f64>, factor: f64| match (one, other) {
            (Some(one), Some(other)) => {
                (one * factor - other).abs() <= 1e-6 * (one * factor).abs() + 1e-6
            }
            (one, other) => one == other,
        };
        prop_assert!(near(plain.bytes_per_hour, scaled.bytes_per_hour, scale));
        prop_assert!(near(plain.p, scaled.p, 1.0));
        prop_assert!(near(plain.sigmas, scaled.sigmas, 1.0));
    }
}
