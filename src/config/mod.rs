//! Every limit and default: value, unit, range and why.
//!
//! Limits stand only here, so that an edge and the code behind it cannot disagree.

#[cfg_attr(not(feature = "otlp"), path = "otlp_off.rs")]
pub(crate) mod otlp;
#[cfg_attr(not(feature = "otlp-profiles"), path = "pyroscope_off.rs")]
pub(crate) mod pyroscope;
#[cfg(feature = "otlp")]
pub(crate) mod traces;

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::error::Error;

/// Where Go programs serve their profiles; every engineer's fingers know it.
pub const DEFAULT_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 6060);

/// Seconds that a profile request may wait for.
pub(crate) const PROFILE_SECONDS: RangeInclusive<u64> = 1..=60;
/// Go's default.
pub(crate) const PROFILE_SECONDS_DEFAULT: u64 = 30;
/// Samples per second of CPU time that a request may ask for.
pub(crate) const HZ: RangeInclusive<u32> = 1..=250;
/// The same where the host allowed high rates.
pub(crate) const HZ_HIGH: RangeInclusive<u32> = 1..=999;
/// 99 and not 100, so that sampling does not march in step with timers of round periods.
pub(crate) const HZ_DEFAULT: u32 = 99;
/// How far back the flight recorder reaches, and so the longest profile of the past.
pub(crate) const RECORDED_SECONDS: u64 = 900;
/// Samples per second of CPU time that the flight recorder takes; 0 turns it off.
pub(crate) const RECORDER_HZ: RangeInclusive<u32> = 0..=99;
/// A coarse picture of any minute, at a fifth of the cost of 99; half leaves 9 samples of a request
/// that burns a second of CPU, double buys no finer answer to "what ran".
pub(crate) const RECORDER_HZ_DEFAULT: u32 = 19;
/// Share of the host's CPU time that sampling may cost before its rate is lowered; at most half.
pub(crate) const PROFILING_BUDGET: f64 = 0.03;
/// See [`PROFILING_BUDGET`].
pub(crate) const PROFILING_BUDGET_MOST: f64 = 0.5;
/// Seconds of a wall-clock profile that is not told otherwise.
pub(crate) const WALL_SECONDS_DEFAULT: u64 = 10;
/// Moments per second at which a wall-clock profile looks at threads. Each costs two small reads and,
/// for a thread that runs, a signal; double would show no more of waits that matter.
pub(crate) const WALL_HZ: RangeInclusive<u32> = 1..=99;
/// See [`WALL_HZ`]; not a divisor of common periods.
pub(crate) const WALL_HZ_DEFAULT: u32 = 19;
/// Readers that may wait for a profile at once.
pub(crate) const PROFILE_READERS: usize = 8;
/// Times a minute that readers may have the sampling rate raised. Scrapers of profiles come each 10 or
/// 15 s, and need one each time.
pub(crate) const PROFILE_RAISES: RangeInclusive<u32> = 1..=600;
/// See [`PROFILE_RAISES`].
pub(crate) const PROFILE_RAISES_DEFAULT: u32 = 6;
/// Scrapes that may be in flight.
pub(crate) const SCRAPES: usize = 4;
/// How long a scrape waits for fresh readings before it is answered with the last ones.
pub(crate) const REFRESH_WAIT: Duration = Duration::from_millis(500);
/// Time for symbolising beyond the profiled seconds.
pub(crate) const SYMBOLISE: Duration = Duration::from_secs(10);

/// Open connections to the agent's listener.
pub(crate) const CONNECTIONS: usize = 64;
/// The same from one peer address.
pub(crate) const CONNECTIONS_PER_PEER: usize = 16;
/// From accept, or from the end of the last answer's first following byte, to a whole head.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// A kept-alive connection without a request.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// A client must take `WRITE_PROGRESS_BYTES` in this time while an answer is being written.
pub(crate) const WRITE_PROGRESS: Duration = Duration::from_secs(10);
/// See [`WRITE_PROGRESS`].
pub(crate) const WRITE_PROGRESS_BYTES: u64 = 64 * 1024;
/// How long a closing connection still takes and drops what its client sends. Closing with unread
/// bytes resets the connection, which may destroy the answer before the client has read it.
pub(crate) const LINGER: Duration = Duration::from_secs(1);
/// Bytes that it takes in this time.
pub(crate) const LINGER_BYTES: usize = 256 * 1024;
/// Bytes of a request head.
pub(crate) const HEAD_BYTES: usize = 16 * 1024;
/// Header lines of a request.
pub(crate) const HEADERS: usize = 64;
/// Bytes of a request target.
pub(crate) const URI_BYTES: usize = 4 * 1024;
/// Bytes of a request body.
pub(crate) const BODY_BYTES: usize = 64 * 1024;
/// Requests per second to the endpoints, and the burst above it.
pub(crate) const REQUEST_RATE: (u32, u32) = (20, 40);
/// Addresses that one symbol request may name.
pub(crate) const SYMBOLS: usize = 4096;
/// How long such a request waits for names that no profile has needed yet. Symbol tables of a large
/// debug build are read in half a second.
pub(crate) const SYMBOLS_WAIT: Duration = Duration::from_secs(5);
/// Bytes of a profile answer.
pub(crate) const PROFILE_BODY_BYTES: usize = 32 << 20;
/// Profile answers above [`LARGE_BODY_BYTES`] that may be alive; slow readers hold them.
pub(crate) const LARGE_BODIES: usize = 2;
/// See [`LARGE_BODIES`]: a profile of a busy service is a few hundred KiB.
pub(crate) const LARGE_BODY_BYTES: usize = 1 << 20;
/// Bytes of a metrics page before compression.
pub(crate) const METRICS_BODY_BYTES: usize = 16 << 20;
/// Profile requests that the agent's own page remembers.
pub(crate) const ACTIONS: usize = 256;
/// How long jemalloc may be told to keep free pages, in milliseconds; -1 for ever. An hour is longer than
/// any pause between two peaks that is worth holding memory for.
pub(crate) const DECAY_MS: RangeInclusive<i64> = -1..=3_600_000;
/// How long a change of the allocator may wait for the collecting thread.
pub(crate) const TUNING_WAIT: Duration = Duration::from_secs(5);
/// Bytes of a refused value that are repeated to the client.
pub(crate) const ECHO_BYTES: usize = 32;

/// What sampling may hold and how it goes.
#[cfg(feature = "profiling")]
pub(crate) mod sampling {
    use std::time::Duration;

    /// Frames of a stack that are kept, from the leaf. 41 % of the stacks of an async service were
    /// above 128 deep, and without its root a stack is hard to place in a flame graph.
    pub(crate) const STACK_DEPTH: usize = 512;
    /// Distinct stacks that are kept.
    pub(crate) const STACKS: usize = 65_536;
    /// Bytes of distinct stacks.
    pub(crate) const STACK_BYTES: usize = 32 << 20;
    /// How far back profile buckets reach.
    pub(crate) const RECORDER: Duration = Duration::from_secs(super::RECORDED_SECONDS);
    /// Bytes of profile buckets.
    pub(crate) const RECORDER_BYTES: usize = 16 << 20;
    /// How long samples are gathered into one bucket.
    pub(crate) const BUCKET: Duration = Duration::from_secs(1);
    /// Distinct thread names that are kept.
    pub(crate) const THREAD_NAMES: usize = 16_384;
    /// Bytes of distinct thread names; a name has at most 15.
    pub(crate) const THREAD_NAME_BYTES: usize = 2 << 20;
    /// Traces that samples are kept apart by; further ones are folded into one.
    pub(crate) const TRACES: usize = 16_384;
    /// Bytes of their ids, 24 each, with the table around them.
    pub(crate) const TRACE_BYTES: usize = 2 << 20;
    /// Unpacked bytes of one module's debug sections; a module with more gets names without lines.
    pub(crate) const DEBUG_BYTES: u64 = 256 << 20;
    /// Coverage below which a profile says so in words.
    pub(crate) const COVERAGE: f64 = 0.97;
    /// How long coverage is gathered before it becomes a metric.
    pub(crate) const COVERAGE_WINDOW: Duration = Duration::from_secs(60);
    /// Samples expected in that time below which chance says more than coverage.
    pub(crate) const COVERAGE_SAMPLES: u64 = 100;
    /// How long sampling must cost too much, or leave room, before its rate changes.
    pub(crate) const BUDGET_WINDOW: Duration = Duration::from_secs(10);
    /// CPU time, as a share of one core, that sampling may cost although its host is idle: watching
    /// threads costs some at any rate.
    pub(crate) const IDLE_COST: f64 = 0.005;
    /// First pause after sampling could not be started; doubled each time up to the last.
    pub(crate) const RETRY: Duration = Duration::from_millis(500);
    /// See [`RETRY`].
    pub(crate) const RETRY_LAST: Duration = Duration::from_secs(30);
}

/// What heap profiles may hold.
#[cfg(feature = "profiling")]
pub(crate) mod heap {
    use std::time::Duration;

    /// Bytes allocated between two samples, on average, until an agent says otherwise.
    pub(crate) const RATE_BYTES: u64 = super::HEAP_SAMPLING_DEFAULT;
    /// Samples in a second of the whole process above which that distance is doubled.
    pub(crate) const SAMPLES_PER_SECOND: u64 = 500;
    /// Samples that wait for their stacks to be followed.
    pub(crate) const RING_SLOTS: u32 = 256;
    /// Distinct stacks that allocated: half of what CPU profiles hold, since few places allocate.
    pub(crate) const STACKS: usize = 32_768;
    /// Bytes of distinct stacks.
    pub(crate) const STACK_BYTES: usize = 16 << 20;
    /// Distinct stacks by labels, since the start.
    pub(crate) const SUMS: usize = 65_536;
    /// Distinct stacks by labels and age, of one look at what is in use.
    pub(crate) const LIVE_SUMS: usize = 131_072;
    /// Stacks by labels and age of a heap that is kept, with 64 bytes each.
    pub(crate) const KEPT_ENTRIES: usize = 16_384;
    /// Heaps that are kept for each of the two reasons.
    pub(crate) const KEPT: usize = 2;
    /// A heap is kept when it is larger than the last by so much, and by [`PEAK_BYTES`].
    pub(crate) const PEAK_GROWTH: f64 = 1.1;
    /// See [`PEAK_GROWTH`].
    pub(crate) const PEAK_BYTES: f64 = (64_u64 << 20) as f64;
    /// Share of its memory limit at which the process's heap is kept, before it may be killed.
    pub(crate) const LIMIT_RATIO: f64 = 0.9;
    /// Share below which it is kept again when it comes near the limit the next time.
    pub(crate) const LIMIT_LEFT_RATIO: f64 = 0.8;
    /// How often the places that hold most are shown to whoever looks for leaks.
    pub(crate) const SITES: Duration = Duration::from_secs(5);
    /// How often the heap's size is looked at.
    pub(crate) const LOOK: Duration = Duration::from_secs(1);
    /// Over how long rates of allocation are taken.
    pub(crate) const RATE_SPAN: Duration = Duration::from_secs(10);
}

/// Mean bytes between two samples of the heap; Go's default.
pub(crate) const HEAP_SAMPLING_DEFAULT: u64 = 512 << 10;
/// See [`HEAP_SAMPLING_DEFAULT`]; 0 turns it off, 1 samples every block.
pub(crate) const HEAP_SAMPLING: RangeInclusive<u64> = 0..=1 << 30;

/// Label sets that samples may carry, those of one process together.
pub(crate) const LABEL_SETS: usize = 4096;
/// Labels of one set: route, method, span and five of the host's.
pub(crate) const LABELS: usize = 8;
/// Bytes of a label's value.
pub(crate) const LABEL_BYTES: usize = 128;

/// Bytes of names and lines kept for addresses seen in profiles.
pub(crate) const SYMBOL_BYTES: usize = 16 << 20;

/// Label sets over all families.
pub(crate) const SERIES: usize = 50_000;
/// Bytes of the recording threads' own cells.
pub(crate) const CELL_BYTES: usize = 32 << 20;

/// How often the process, the runtime and the host's callbacks are read.
pub(crate) const COLLECT_INTERVAL: Duration = Duration::from_secs(1);
/// How often the machine's disks and networks are read; `sysinfo` needs 0.3 ms for networks alone.
pub(crate) const HOST_INTERVAL: Duration = Duration::from_secs(15);
/// How often targets are judged.
pub(crate) const ASSESS_INTERVAL: Duration = Duration::from_secs(10);
/// Windows of [`ASSESS_INTERVAL`] that one verdict looks back on.
pub(crate) const ASSESS_WINDOWS: usize = 6;

/// When a place in the program is said to leak.
pub(crate) mod leaks {
    use std::time::Duration;

    /// Places that are followed: those that hold most.
    pub(crate) const SITES: usize = 512;
    /// Known caches that they are compared with.
    pub(crate) const CACHES: usize = 64;
    /// How far back one looks.
    pub(crate) const RING: Duration = Duration::from_secs(3600);
    /// Observations of the ring: one every 30 s, and closer ones in its first minutes.
    pub(crate) const OBSERVATIONS: usize = 120;
    /// Observations closer than this are one; a little under 5 s, for ticks are never exact.
    pub(crate) const SPACING: Duration = Duration::from_millis(4500);
    /// The most that one gap between observations counts as time observed.
    pub(crate) const GAP: Duration = Duration::from_secs(120);
    /// Time observed before which there is no verdict.
    pub(crate) const WINDOW_LEAST: Duration = Duration::from_secs(600);
    /// Live samples below which there is none: their sum errs by 18 %.
    pub(crate) const SAMPLES: u64 = 30;
    /// What chance may do by itself.
    pub(crate) const CHANCE: f64 = 0.01;
    /// Growth in standard errors.
    pub(crate) const SIGMAS: f64 = 3.0;
    /// Share of the bytes born in the window that a leak keeps.
    pub(crate) const SURVIVORS: f64 = 0.9;
    /// Slope of the last third over that of the first, of a leak.
    pub(crate) const STEADY: f64 = 0.5;
    /// Slope of the last third over that of the whole window, below which growth has ended.
    pub(crate) const STILL_GROWING: f64 = 0.25;
    /// How far apart the curves of a site and of the cache that explains it may be, as shares of
    /// their growth.
    pub(crate) const CACHE_LIKENESS: f64 = 0.2;
    /// Bytes allocated for each byte that a cache counts: tables and headers come on top, and few
    /// caches weigh them.
    pub(crate) const CACHE_SLACK: f64 = 1.25;
}

/// Share of the memory limit above which the host's caches are told; the guide's bound for memory.
pub(crate) const MEMORY_SOFT_LIMIT: f64 = 0.8;
/// Share of the soft limit at which pressure ends: 5 points of the limit below the default.
pub(crate) const MEMORY_RELIEF: f64 = 15.0 / 16.0;

/// A query slower than this is a slow query: the guide's 1000 ms.
pub(crate) const SLOW_QUERY: Duration = Duration::from_millis(1000);

/// What the host chose.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) service: String,
    pub(crate) version: String,
    /// `None`: no listener.
    pub(crate) address: Option<SocketAddr>,
    /// The host named the address itself.
    pub(crate) address_given: bool,
    pub(crate) high_rate: bool,
    pub(crate) allow_insecure_remote: bool,
    /// Whether requests may change the running program.
    pub(crate) control: bool,
    /// Names by which clients may call the listener beside its own address and `localhost`.
    pub(crate) hosts: Vec<String>,
    pub(crate) profiling: bool,
    /// The flight recorder's rate; 0: off.
    pub(crate) recorder: u32,
    /// Share of the host's CPU time that sampling may cost.
    pub(crate) profiling_budget: f64,
    /// Times a minute that readers may have the sampling rate raised.
    pub(crate) profile_raises: u32,
    /// What the host's runtimes call their threads, beside tokio's names.
    pub(crate) workers: Vec<String>,
    /// Mean bytes between two samples of the heap; 0: off.
    pub(crate) heap_sampling: u64,
    /// Share of the memory limit above which the host is told.
    pub(crate) memory_soft_limit: f64,
    pub(crate) series: usize,
    pub(crate) slow_query: Duration,
    /// Where signals are pushed.
    pub(crate) otlp: Option<otlp::Otlp>,
    /// Where profiles are pushed too.
    pub(crate) pyroscope: Option<pyroscope::Pyroscope>,
}

impl Config {
    pub(crate) fn new(service: &str) -> Self {
        Self {
            service: service.to_owned(),
            version: String::new(),
            address: Some(DEFAULT_ADDRESS),
            address_given: false,
            high_rate: false,
            allow_insecure_remote: false,
            control: false,
            hosts: Vec::new(),
            profiling: true,
            recorder: RECORDER_HZ_DEFAULT,
            profiling_budget: PROFILING_BUDGET,
            profile_raises: PROFILE_RAISES_DEFAULT,
            workers: Vec::new(),
            heap_sampling: HEAP_SAMPLING_DEFAULT,
            memory_soft_limit: MEMORY_SOFT_LIMIT,
            series: SERIES,
            slow_query: SLOW_QUERY,
            otlp: None,
            pyroscope: None,
        }
    }

    /// Checks what can be checked before anything starts.
    ///
    /// # Errors
    /// Out of range for an empty or overlong service name, a bound of 0, a recorder's rate, a budget or
    /// a soft limit that cannot be; refused for an address beyond loopback that the host did not allow in
    /// so many words.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.service.is_empty() || self.service.len() > 128 {
            return Err(Error::out_of_range(
                "service",
                "a name of 1..=128 bytes",
                &self.service,
            ));
        }
        if !(1..=1_000_000).contains(&self.series) {
            return Err(Error::out_of_range("series", "1..=1000000", self.series));
        }
        if !RECORDER_HZ.contains(&self.recorder) {
            let range = "0 (off) or 1..=99";
            return Err(Error::out_of_range("recorder", range, self.recorder));
        }
        if !PROFILE_RAISES.contains(&self.profile_raises) {
            let value = self.profile_raises;
            return Err(Error::out_of_range("profile_raises", "1..=600", value));
        }
        let budget = self.profiling_budget;
        if !(budget > 0.0 && budget <= PROFILING_BUDGET_MOST) {
            let range = format!("above 0 and at most {PROFILING_BUDGET_MOST}");
            return Err(Error::out_of_range("profiling_budget", range, budget));
        }
        if !HEAP_SAMPLING.contains(&self.heap_sampling) {
            let range = format!("0 (off) or 1..={}", HEAP_SAMPLING.end());
            return Err(Error::out_of_range(
                "heap_sampling",
                range,
                self.heap_sampling,
            ));
        }
        let share = self.memory_soft_limit;
        if !(share > 0.0 && share <= 1.0) {
            let range = "above 0 and at most 1";
            return Err(Error::out_of_range("memory_soft_limit", range, share));
        }
        if let Some(address) = self.address
            && !address.ip().is_loopback()
            && !self.allow_insecure_remote
        {
            let why = format!(
                "{address} is reachable from outside and nothing protects it; \
                 listen on loopback or call allow_insecure_remote(true)"
            );
            return Err(Error::refused("listen", why));
        }
        Ok(())
    }

    /// Raises of the sampling rate that may come at once: a third of a minute's.
    pub(crate) fn profile_raises_burst(&self) -> u32 {
        (self.profile_raises / 3).max(1)
    }

    /// The rates that a profile request may ask for.
    pub(crate) fn hz(&self) -> RangeInclusive<u32> {
        if self.high_rate { HZ_HIGH } else { HZ }
    }
}

/// A sampling rate that was checked against its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SampleRate(NonZeroU32);

impl SampleRate {
    /// Checks a rate.
    ///
    /// # Errors
    /// Out of range, naming the range and the value seen.
    pub(crate) fn new(hz: u32, range: &RangeInclusive<u32>) -> Result<Self, Error> {
        let allowed = || format!("{}..={}", range.start(), range.end());
        NonZeroU32::new(hz)
            .filter(|hz| range.contains(&hz.get()))
            .map(Self)
            .ok_or_else(|| Error::out_of_range("hz", allowed(), hz))
    }

    pub(crate) fn hz(self) -> u32 {
        self.0.get()
    }
}

#[cfg_attr(
    not(feature = "profiling"),
    expect(dead_code, reason = "nothing samples in this build")
)]
impl SampleRate {
    /// The flight recorder's; `None`: it is off.
    pub(crate) fn of_recorder(config: &Config) -> Option<Self> {
        let rate = NonZeroU32::new(config.recorder).map(Self);
        rate.filter(|_| config.profiling)
    }

    pub(crate) fn period(self) -> Duration {
        Duration::from_secs(1) / self.0.get()
    }

    /// Half of the rate, but at least 1.
    pub(crate) fn halved(self) -> Self {
        Self(NonZeroU32::new(self.0.get() / 2).unwrap_or(NonZeroU32::MIN))
    }

    /// Twice the rate and one, since halving rounds down; `None` from the highest that anybody may
    /// ask for.
    pub(crate) fn doubled(self) -> Option<Self> {
        let twice = self.0.saturating_add(self.0.get()).saturating_add(1);
        (twice.get() < *HZ_HIGH.end()).then_some(Self(twice))
    }
}
