//! Which places in the program hold more and more memory, and whether that is a leak.
//!
//! A leak and a cache that fills look the same while the cache fills: nothing is freed and memory
//! grows. What tells them apart is knowable in three ways, and each is used. A cache that the agent
//! was told of (`cache.observe`) says itself how much it took, and growth that it explains is
//! *growing*. A cache that slows down, because more and more of what is asked for is there, grows
//! less and less, which a leak does not. A cache that is full frees as much as it takes, which is
//! *plateau*. What remains is a cache that nobody told the agent of, that fills at an even rate for
//! more than ten minutes: it is called *leaking* until it slows down or evicts, and so is a batch
//! that holds what it took for longer than that. Of two sites that grow beside one known cache, the
//! one whose curve is more like the cache's is explained first, and only as far as the cache grew.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::trend::{self, Point};
use crate::catalog::Metric;
use crate::catalog::families::{CACHE_CAPACITY, CACHE_SIZE};
use crate::config::leaks as limits;
use crate::store::metrics::{Snapshot, Value};
use crate::store::sites::SiteReading;

/// What the growth of a site means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Verdict {
    /// It grows, and nothing speaks for an end of it.
    Leaking,
    /// It grows, as a cache that fills or a warm-up does.
    Growing,
    /// It does not grow, or no longer.
    Plateau,
    /// Too few samples or too short a time. That is not "no leak".
    Unknown,
}

impl Verdict {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Leaking => "leaking",
            Self::Growing => "growing",
            Self::Plateau => "plateau",
            Self::Unknown => "unknown",
        }
    }
}

/// A cache of the host's, as it says itself.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CacheReading {
    pub(crate) name: Arc<str>,
    pub(crate) bytes: f64,
    /// `None`: it did not say.
    pub(crate) capacity_bytes: Option<f64>,
}

impl CacheReading {
    /// The caches in the process that have said their size.
    pub(crate) fn all(snapshot: &Snapshot) -> Vec<Self> {
        let sizes = |metric: &'static Metric| {
            let family = snapshot.family(metric);
            let series = family.map(|family| snapshot.values(family));
            series
                .into_iter()
                .flatten()
                .filter_map(move |(series, value)| {
                    let mut labels = series.labels(metric).map(|(_, value)| value);
                    let (name, level) = (labels.next()?, labels.next()?);
                    match value {
                        Value::Float(bytes) if level == "l1" => {
                            Some((Arc::<str>::from(name), bytes))
                        }
                        _ => None,
                    }
                })
        };
        let of = |(name, bytes): (Arc<str>, f64)| Self {
            capacity_bytes: sizes(&CACHE_CAPACITY)
                .find(|(other, _)| *other == name)
                .map(|(_, capacity)| capacity),
            name,
            bytes,
        };
        sizes(&CACHE_SIZE).map(of).collect()
    }
}

/// A site, its verdict, and what the verdict stands on; what cannot be said is `None`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SiteGrowth {
    pub(crate) now: SiteReading,
    pub(crate) verdict: Verdict,
    /// Time covered by observations; gaps count as [`limits::GAP`] at most.
    pub(crate) observed: Duration,
    pub(crate) bytes_per_hour: Option<f64>,
    /// The chance that values without a trend rise so steadily.
    pub(crate) p: Option<f64>,
    /// The growth over the window in standard errors.
    pub(crate) sigmas: Option<f64>,
    /// Of the bytes allocated in the window, the share that is alive, at least.
    pub(crate) survivor_ratio: Option<f64>,
    /// The slope of the last third of the window over that of the first; `None` where the first did
    /// not rise.
    pub(crate) steadiness_ratio: Option<f64>,
    /// The chance that an even rate of growth falls so steadily.
    pub(crate) slowing_p: Option<f64>,
    /// A known cache that grew as much, in the same way.
    pub(crate) cache: Option<CacheReading>,
}

impl SiteGrowth {
    /// Whether it grows for sure, however short the time.
    pub(crate) fn grows(&self) -> bool {
        self.bytes_per_hour.is_some_and(|slope| slope > 0.0)
            && self.p.is_some_and(|p| p < limits::CHANCE)
            && self.sigmas.is_some_and(|sigmas| sigmas > limits::SIGMAS)
    }

    /// The verdict's grounds in one sentence.
    pub(crate) fn evidence(&self) -> String {
        let minutes = self.observed.as_secs() / 60;
        if self.verdict == Verdict::Unknown {
            return format!(
                "{} live samples of at least {} and {minutes} of at least {} minutes: too little to say",
                self.now.live_samples,
                limits::SAMPLES,
                limits::WINDOW_LEAST.as_secs() / 60,
            );
        }
        let slope = self.bytes_per_hour.unwrap_or(0.0) / (1_u64 << 20) as f64;
        let mut text = format!("{slope:+.0} MiB/h over {minutes} min");
        if let (Some(p), Some(sigmas)) = (self.p, self.sigmas) {
            text += &format!(" (p {p:.1e}, {sigmas:.1} sigma)");
        }
        if let Some(share) = self.survivor_ratio {
            text += &format!(", {:.0} % of what it allocated is alive", share * 100.0);
        }
        text += match (&self.cache, self.verdict) {
            (Some(_), _) => ", as much as a known cache grew",
            (None, Verdict::Leaking) => ", and no known cache grew so",
            (None, Verdict::Growing) if self.slows() => ", more and more slowly",
            (None, _) => "",
        };
        text
    }

    fn slows(&self) -> bool {
        self.slowing_p.is_some_and(|p| p < limits::CHANCE)
    }

    fn judge(&self, earlier: Option<f64>, recent: Option<f64>) -> Verdict {
        let few = self.now.live_samples < limits::SAMPLES;
        if few || self.observed < limits::WINDOW_LEAST {
            return Verdict::Unknown;
        }
        let whole = self.bytes_per_hour.unwrap_or(0.0);
        let goes_on = recent.is_some_and(|recent| recent > whole * limits::STILL_GROWING);
        if !self.grows() || !goes_on {
            return Verdict::Plateau;
        }
        let kept = self
            .survivor_ratio
            .is_some_and(|share| share >= limits::SURVIVORS);
        let steady = earlier.zip(recent);
        let steady = steady.is_some_and(|(earlier, recent)| recent >= earlier * limits::STEADY);
        if kept && steady && !self.slows() && self.cache.is_none() {
            Verdict::Leaking
        } else {
            Verdict::Growing
        }
    }

    /// Leaks first, then what grows for sure, what no cache explains before what one does, and the
    /// steepest first.
    fn rank(&self, other: &Self) -> Ordering {
        let key = |site: &Self| {
            (
                site.verdict == Verdict::Leaking,
                site.grows(),
                site.cache.is_none(),
            )
        };
        let slope = |site: &Self| site.bytes_per_hour.unwrap_or(f64::NEG_INFINITY);
        let steeper = slope(other).total_cmp(&slope(self));
        let by_site = self.now.site.cmp(&other.now.site);
        key(other).cmp(&key(self)).then(steeper).then(by_site)
    }
}

/// What is kept of a reading that is not the newest.
#[derive(Debug, Clone, Copy)]
struct Kept {
    site: u64,
    live_bytes: f64,
    allocated_bytes: f64,
    variance: f64,
}

#[derive(Debug)]
struct Observation {
    at: Instant,
    /// By site.
    sites: Vec<Kept>,
    caches: Vec<CacheReading>,
}

/// The last hour of the largest sites.
///
/// Holds at most 120 observations of 512 sites with 32 bytes each: 2 MiB.
#[derive(Debug, Default)]
pub(crate) struct Leaks {
    observations: VecDeque<Observation>,
    newest: Vec<SiteReading>,
}

impl Leaks {
    /// Takes what the sites hold now. May be called as often as one likes, and late: an observation
    /// that follows the last but one within [`limits::SPACING`] takes the place of the last.
    pub(crate) fn observe(
        &mut self,
        at: Instant,
        mut sites: Vec<SiteReading>,
        mut caches: Vec<CacheReading>,
    ) {
        if self.observations.back().is_some_and(|last| at < last.at) {
            return;
        }
        sites.retain(is_finite);
        if sites.len() > limits::SITES {
            sites.sort_by(|one, other| other.live_bytes.total_cmp(&one.live_bytes));
            sites.truncate(limits::SITES);
        }
        sites.sort_by_key(|reading| reading.site);
        sites.dedup_by_key(|reading| reading.site);
        caches.retain(|cache| cache.bytes.is_finite());
        caches.truncate(limits::CACHES);
        let keep = |reading: &SiteReading| Kept {
            site: reading.site,
            live_bytes: reading.live_bytes,
            allocated_bytes: reading.allocated_bytes,
            variance: reading.variance,
        };
        let kept = sites.iter().map(keep).collect();
        self.newest = sites;
        let before = self.observations.iter().nth_back(1);
        if before.is_some_and(|before| at.duration_since(before.at) < limits::SPACING) {
            self.observations.pop_back();
        }
        self.observations.push_back(Observation {
            at,
            sites: kept,
            caches,
        });
        self.forget(at);
    }

    /// Drops what is older than the ring, then what lies nearest to its neighbours: the first
    /// minutes are seen closely without a place for each second of the hour.
    fn forget(&mut self, now: Instant) {
        let old = |kept: &Observation| now.duration_since(kept.at) > limits::RING;
        while self.observations.front().is_some_and(old) {
            self.observations.pop_front();
        }
        while self.observations.len() > limits::OBSERVATIONS {
            let times = self.observations.iter().map(|kept| kept.at);
            let around = times.clone().zip(times.skip(2));
            let gaps = around.map(|(before, after)| after.duration_since(before));
            let nearest = gaps.enumerate().min_by_key(|(_, gap)| *gap);
            let inner = nearest.map_or(0, |(before, _)| before + 1);
            self.observations.remove(inner);
        }
    }

    /// The newest sites with their verdicts, those to look at first before the others.
    ///
    /// # Cost
    /// Up to 7,140 slopes for each of 512 sites, and two sorts of them.
    pub(crate) fn judge(&self) -> Vec<SiteGrowth> {
        let mut slopes = Vec::new();
        let mut judged: Vec<Judged> = self
            .newest
            .iter()
            .map(|now| self.measure(*now, &mut slopes))
            .collect();
        self.explain(&mut judged);
        let verdict = |judged: Judged| SiteGrowth {
            verdict: judged.growth.judge(judged.earlier, judged.recent),
            ..judged.growth
        };
        let mut ranked: Vec<SiteGrowth> = judged.into_iter().map(verdict).collect();
        ranked.sort_by(SiteGrowth::rank);
        ranked
    }

    /// How many observations are held, and when the oldest was made.
    #[cfg(test)]
    pub(super) fn kept(&self) -> (usize, Option<Instant>) {
        let oldest = self.observations.front();
        (self.observations.len(), oldest.map(|kept| kept.at))
    }

    fn series(&self, site: u64) -> impl Iterator<Item = (Instant, Kept)> {
        self.observations.iter().filter_map(move |observation| {
            let at = observation
                .sites
                .binary_search_by_key(&site, |kept| kept.site);
            let kept = observation.sites.get(at.ok()?)?;
            Some((observation.at, *kept))
        })
    }

    fn measure(&self, now: SiteReading, slopes: &mut Vec<f64>) -> Judged {
        let series: Vec<(Instant, Kept)> = self.series(now.site).collect();
        let begun = series.first().map(|(at, _)| *at);
        let points: Vec<Point> = series
            .iter()
            .map(|(at, kept)| Point {
                seconds: begun.map_or(0.0, |begun| at.duration_since(begun).as_secs_f64()),
                value: kept.live_bytes,
            })
            .collect();
        let span = points.last().map_or(0.0, |last| last.seconds);
        let slope = trend::theil_sen(&points, slopes);
        let first_end = points.partition_point(|point| point.seconds <= span / 3.0);
        let last_begin = points.partition_point(|point| point.seconds < span * 2.0 / 3.0);
        let first = points.get(..first_end).unwrap_or_default();
        let last = points.get(last_begin..).unwrap_or_default();
        let earlier = trend::theil_sen(first, slopes);
        let recent = trend::theil_sen(last, slopes);
        let growth = slope.map(|slope| slope * span);
        let edges = series.first().zip(series.last());
        let noise = edges.map(|((_, first), (_, last))| (first.variance + last.variance).sqrt());
        let hourly = |slope: f64| slope * 3600.0;
        Judged {
            earlier: earlier.map(hourly),
            recent: recent.map(hourly),
            growth: SiteGrowth {
                now,
                verdict: Verdict::Unknown,
                observed: observed(&series),
                bytes_per_hour: slope.map(hourly),
                p: trend::rising(points.iter().map(|point| point.value)),
                sigmas: growth
                    .zip(noise)
                    .and_then(|(growth, noise)| share(growth, noise)),
                survivor_ratio: edges.and_then(|((_, first), _)| survivors(&now, first, span)),
                steadiness_ratio: recent
                    .zip(earlier.filter(|earlier| *earlier > 0.0))
                    .and_then(|(recent, earlier)| share(recent, earlier)),
                slowing_p: slowing(&points),
                cache: None,
            },
        }
    }

    /// Finds the known cache that each growing site belongs to: the best likeness first, and no
    /// cache explains more than it grew itself.
    fn explain(&self, judged: &mut [Judged]) {
        let Some(newest) = self.observations.back() else {
            return;
        };
        let mut pairs = Vec::new();
        for (at, site) in judged.iter().enumerate() {
            if !site.growth.grows() {
                continue;
            }
            for (cache, reading) in newest.caches.iter().enumerate() {
                if let Some(likeness) = self.compare(site.growth.now.site, &reading.name) {
                    pairs.push((at, cache, likeness));
                }
            }
        }
        pairs.sort_by(|one, other| one.2.distance.total_cmp(&other.2.distance));
        let mut unexplained: Vec<Option<f64>> = vec![None; newest.caches.len()];
        for (at, cache, likeness) in pairs {
            let (Some(site), Some(left)) = (judged.get_mut(at), unexplained.get_mut(cache)) else {
                continue;
            };
            let left = left.get_or_insert(likeness.cache_bytes * limits::CACHE_SLACK);
            let noise = site
                .growth
                .sigmas
                .map_or(0.0, |sigmas| likeness.site_bytes / sigmas);
            let least = likeness.site_bytes - 2.0 * noise;
            if site.growth.cache.is_none() && least <= *left {
                *left = (*left - likeness.site_bytes).max(0.0);
                site.growth.cache = newest.caches.get(cache).cloned();
            }
        }
    }

    /// How alike the curves of a site and a cache are, each as a share of its own growth; `None`
    /// where the cache did not grow or the curves differ.
    fn compare(&self, site: u64, cache: &str) -> Option<Likeness> {
        let value = |observation: &Observation| {
            let mut caches = observation.caches.iter();
            caches
                .find(|reading| &*reading.name == cache)
                .map(|reading| reading.bytes)
        };
        let both: Vec<(f64, f64)> = self
            .observations
            .iter()
            .filter_map(|observation| {
                let at = observation
                    .sites
                    .binary_search_by_key(&site, |kept| kept.site);
                let kept = observation.sites.get(at.ok()?)?;
                Some((kept.live_bytes, value(observation)?))
            })
            .collect();
        let (first, last) = (both.first()?, both.last()?);
        let (site_bytes, cache_bytes) = (last.0 - first.0, last.1 - first.1);
        if both.len() < 4 || site_bytes <= 0.0 || cache_bytes <= 0.0 {
            return None;
        }
        let apart = |(site, cache): &(f64, f64)| {
            ((site - first.0) / site_bytes - (cache - first.1) / cache_bytes).abs()
        };
        let distance = both.iter().map(apart).fold(0.0, f64::max);
        (distance <= limits::CACHE_LIKENESS).then_some(Likeness {
            distance,
            site_bytes,
            cache_bytes,
        })
    }
}

struct Judged {
    growth: SiteGrowth,
    /// The slope of the first third of the window, in bytes per hour.
    earlier: Option<f64>,
    /// The slope of the last third.
    recent: Option<f64>,
}

struct Likeness {
    distance: f64,
    site_bytes: f64,
    cache_bytes: f64,
}

fn is_finite(reading: &SiteReading) -> bool {
    let [newest, young, old, oldest] = reading.age_bytes;
    [
        reading.live_bytes,
        reading.allocated_bytes,
        reading.variance,
        newest,
        young,
        old,
        oldest,
    ]
    .iter()
    .all(|number| number.is_finite() && *number >= 0.0)
}

fn share(part: f64, whole: f64) -> Option<f64> {
    let share = part / whole;
    share.is_finite().then_some(share)
}

/// Two looks twenty minutes apart are two looks, not twenty minutes.
fn observed(series: &[(Instant, Kept)]) -> Duration {
    let pairs = series.iter().zip(series.iter().skip(1));
    pairs
        .map(|((before, _), (after, _))| after.duration_since(*before).min(limits::GAP))
        .sum()
}

/// At least this share of what was allocated since `first` is alive: either all that came on top,
/// or what is young enough to have been born in the window.
fn survivors(now: &SiteReading, first: &Kept, span: f64) -> Option<f64> {
    let allocated = now.allocated_bytes - first.allocated_bytes;
    if allocated <= 0.0 {
        return None;
    }
    let minutes = [1.0, 10.0, 60.0];
    let within = minutes.iter().filter(|minutes| **minutes * 60.0 <= span);
    let young: f64 = now.age_bytes.iter().take(within.count()).sum();
    let grown = now.live_bytes - first.live_bytes;
    share(young.max(grown), allocated).map(|share| share.clamp(0.0, 1.0))
}

/// The chance that the rates between neighbouring observations fall so steadily although the rate is
/// even. New samples arrive independently of each other, as the test asks for.
fn slowing(points: &[Point]) -> Option<f64> {
    let pairs = points.iter().zip(points.iter().skip(1));
    let fall = pairs.map(|(before, after)| {
        (before.value - after.value) / (after.seconds - before.seconds).max(f64::MIN_POSITIVE)
    });
    trend::rising(fall)
}
