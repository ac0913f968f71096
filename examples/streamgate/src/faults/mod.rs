//! Faults on command: typed switches, off by default, each of which ends by itself.
//!
//! Owns: which faults exist, what values they take, since when and until when each is on. May use: the
//! handles of the agent. Absent: what a fault breaks, which stands at the place that it breaks.
//!
//! Metrics: `streamgate_fault_active{fault}`, `streamgate_fault_changed_timestamp_seconds{fault}`, which
//! dashboards draw as annotations. Breaking test: `each_fault_moves_its_signal_and_recovery_closes_it`.
//!
//! A new fault is a variant of [`Fault`], its row in [`TABLE`] and a question where it bites:
//! `faults.is_on(Fault::L2Down)`. While it is off that costs one relaxed load.

mod effects;
mod form;
pub(crate) mod leak;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use streamgate_agent::{AgentHandle, Error, Gauge, Metric, Unit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

pub(crate) use effects::drive;
use form::Form;

use crate::problem::Problem;

static ACTIVE: Metric = Metric::gauge(
    "streamgate_fault_active",
    "1 while a fault is switched on, else 0.",
)
.labels(&["fault"]);
static CHANGED: Metric = Metric::gauge(
    "streamgate_fault_changed_timestamp_seconds",
    "When a fault was last switched on or off, since 1970; absent until then.",
)
.labels(&["fault"])
.unit(Unit::Seconds);

/// Longest time a fault stays on: a forgotten one must not outlive the demonstration.
pub(crate) const LONGEST: Duration = Duration::from_secs(600);

/// Something that can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    NPlusOne,
    DropIndex,
    PoolMax,
    HoldConn,
    SingleWrites,
    L1Off,
    SingleflightOff,
    GzipOff,
    ConnClose,
    BlockWorker,
    Leak,
    PoolBuffersOff,
    QuadraticDuplicates,
    CpuBurn,
    ErrorRate,
    Latency,
}

/// Each fault with its name and the values it takes, in the order of [`Fault`].
const TABLE: &[(Fault, &str, Form)] = &[
    (Fault::NPlusOne, "nplus1", Form::Flag),
    (Fault::DropIndex, "drop_index", Form::Index),
    (Fault::PoolMax, "pool_max", Form::Count { most: 100 }),
    (
        Fault::HoldConn,
        "hold_conn",
        Form::Milliseconds { most: 5_000 },
    ),
    (Fault::SingleWrites, "single_writes", Form::Flag),
    (Fault::L1Off, "l1_off", Form::Flag),
    (Fault::SingleflightOff, "singleflight_off", Form::Flag),
    (Fault::GzipOff, "gzip_off", Form::Flag),
    (Fault::ConnClose, "conn_close", Form::Flag),
    (
        Fault::BlockWorker,
        "block_worker",
        Form::Milliseconds { most: 1_000 },
    ),
    (Fault::Leak, "leak", Form::BytesPerSecond),
    (Fault::PoolBuffersOff, "pool_buffers_off", Form::Flag),
    (
        Fault::QuadraticDuplicates,
        "quadratic_duplicates",
        Form::Flag,
    ),
    (Fault::CpuBurn, "cpu_burn", Form::Flag),
    (Fault::ErrorRate, "error_rate", Form::Percent),
    (
        Fault::Latency,
        "latency",
        Form::Milliseconds { most: 4_000 },
    ),
];

/// All switches. Cloning gives another handle to the same.
#[derive(Clone, Debug)]
pub(crate) struct Faults(Arc<Switches>);

#[derive(Debug)]
struct Switches {
    /// By the place in [`TABLE`]; 0 is off.
    values: Vec<AtomicU64>,
    on: Mutex<Vec<Option<On>>>,
    /// The connections that `pool_max` leaves.
    places: Mutex<Arc<Semaphore>>,
    changed: watch::Sender<()>,
    active: Vec<Gauge>,
    changed_at: Vec<Gauge>,
}

/// A switch that is on.
#[derive(Clone, Debug)]
struct On {
    text: String,
    since: SystemTime,
    until: Instant,
}

/// A fault with a value that it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    place: usize,
    value: u64,
    text: String,
}

/// One switch as the admin plane shows it.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    fault: &'static str,
    /// What follows the `=` of a setting.
    values: String,
    active: bool,
    value: Option<String>,
    /// Seconds since 1970.
    since_unix_seconds: Option<u64>,
    left_seconds: Option<u64>,
}

impl Setting {
    /// Reads `name` or `name=value`.
    ///
    /// # Errors
    /// [`Problem::BadParameter`], naming the range and what was given.
    pub(crate) fn parse(setting: &str) -> Result<Self, Problem> {
        let (name, text) = match setting.split_once('=') {
            Some((name, text)) => (name, Some(text)),
            None => (setting, None),
        };
        let place = place(name)?;
        let Some((_, name, form)) = TABLE.get(place) else {
            return Err(Problem::NotFound);
        };
        let refused = || Problem::parameter(name, &form.range(), text.unwrap_or(""));
        Ok(Self {
            place,
            value: form.parse(text).ok_or_else(refused)?,
            text: text.unwrap_or("on").to_owned(),
        })
    }
}

/// The place of a name in the table.
///
/// # Errors
/// [`Problem::BadParameter`] with all names.
pub(crate) fn place(name: &str) -> Result<usize, Problem> {
    let found = TABLE.iter().position(|(_, known, _)| *known == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = TABLE.iter().map(|(_, name, _)| *name).collect();
        Problem::parameter("fault", &format!("one of {}", names.join(", ")), name)
    })
}

impl Faults {
    /// All off.
    ///
    /// # Errors
    /// The host has registered a family of the same name.
    pub(crate) fn new(agent: &AgentHandle) -> Result<Self, Error> {
        let gauges = |metric| {
            let all = TABLE
                .iter()
                .map(|(_, name, _)| agent.gauge(metric, &[name]));
            all.collect::<Result<Vec<Gauge>, Error>>()
        };
        let active = gauges(&ACTIVE)?;
        active.iter().for_each(|gauge| gauge.set(0.0));
        Ok(Self(Arc::new(Switches {
            values: TABLE.iter().map(|_| AtomicU64::new(0)).collect(),
            on: Mutex::new(vec![None; TABLE.len()]),
            places: Mutex::new(Arc::new(Semaphore::new(0))),
            changed: watch::Sender::new(()),
            active,
            changed_at: gauges(&CHANGED)?,
        })))
    }

    /// The value of a fault in the unit of its form; 0 while it is off.
    pub(crate) fn value(&self, fault: Fault) -> u64 {
        // Relaxed: a request that overlaps the switching may see either.
        let value = self.0.values.get(fault as usize);
        value.map_or(0, |value| value.load(Ordering::Relaxed))
    }

    pub(crate) fn is_on(&self, fault: Fault) -> bool {
        self.value(fault) != 0
    }

    /// The time that a fault of milliseconds takes; `None` while it is off.
    pub(crate) fn time(&self, fault: Fault) -> Option<Duration> {
        match self.value(fault) {
            0 => None,
            milliseconds => Some(Duration::from_millis(milliseconds)),
        }
    }

    /// Whether this request is one of those that `error_rate` lets fail.
    pub(crate) fn fails(&self) -> bool {
        let share = self.value(Fault::ErrorRate);
        share != 0 && rand::random_range(0..form::WHOLE) < share
    }

    /// One of the places that `pool_max` leaves, once it is free; `None` while the fault is off.
    pub(crate) async fn pool_place(&self) -> Option<OwnedSemaphorePermit> {
        if !self.is_on(Fault::PoolMax) {
            return None;
        }
        let places = Arc::clone(&lock(&self.0.places));
        places.acquire_owned().await.ok()
    }

    /// Waits as long as `hold_conn` says.
    pub(crate) async fn hold(&self) {
        if let Some(time) = self.time(Fault::HoldConn) {
            tokio::time::sleep(time).await;
        }
    }

    /// Switches on for this long.
    pub(crate) fn switch_on(&self, settings: Vec<Setting>, time: Duration) {
        let mut on = lock(&self.0.on);
        for Setting { place, value, text } in settings {
            if TABLE.get(place).is_some_and(|row| row.0 == Fault::PoolMax) {
                let places = usize::try_from(value).unwrap_or(usize::MAX);
                *lock(&self.0.places) = Arc::new(Semaphore::new(places));
            }
            let entry = On {
                text,
                since: SystemTime::now(),
                until: Instant::now() + time.min(LONGEST),
            };
            if let Some(slot) = on.get_mut(place) {
                *slot = Some(entry);
            }
            self.show(place, value);
        }
        drop(on);
        self.0.changed.send_replace(());
    }

    /// Switches off; what is off stays off.
    pub(crate) fn switch_off(&self, places: impl IntoIterator<Item = usize>) {
        let mut on = lock(&self.0.on);
        for place in places {
            if on.get_mut(place).and_then(Option::take).is_some() {
                self.show(place, 0);
            }
        }
        drop(on);
        self.0.changed.send_replace(());
    }

    /// Switches off what is over; the time when the next is.
    fn expire(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut on = lock(&self.0.on);
        let mut next: Option<Instant> = None;
        for (place, slot) in on.iter_mut().enumerate() {
            match slot.as_ref().map(|on| on.until) {
                Some(until) if until <= now => {
                    *slot = None;
                    self.show(place, 0);
                }
                Some(until) => next = Some(next.map_or(until, |next| next.min(until))),
                None => {}
            }
        }
        next
    }

    /// Every switch.
    pub(crate) fn shown(&self) -> Vec<Shown> {
        let on = lock(&self.0.on).clone();
        let now = Instant::now();
        let rows = TABLE.iter().zip(on).map(|((_, fault, form), on)| Shown {
            fault,
            values: form.range(),
            active: on.is_some(),
            value: on.as_ref().map(|on| on.text.clone()),
            since_unix_seconds: on.as_ref().map(|on| unix(on.since).as_secs()),
            left_seconds: on.map(|on| on.until.saturating_duration_since(now).as_secs()),
        });
        rows.collect()
    }

    fn show(&self, place: usize, value: u64) {
        if let Some(held) = self.0.values.get(place) {
            held.store(value, Ordering::Relaxed);
        }
        if let Some(gauge) = self.0.active.get(place) {
            gauge.set(if value == 0 { 0.0 } else { 1.0 });
        }
        if let Some(gauge) = self.0.changed_at.get(place) {
            gauge.set(unix(SystemTime::now()).as_secs_f64());
        }
    }
}

fn unix(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use streamgate_agent::Agent;

    use super::*;

    fn faults() -> Faults {
        Faults::new(&Agent::builder("test").no_listener().start().unwrap()).unwrap()
    }

    fn refusal(setting: &str) -> String {
        match Setting::parse(setting) {
            Err(Problem::BadParameter(text)) => text,
            other => panic!("{setting}: {other:?}"),
        }
    }

    #[test]
    fn each_fault_stands_at_its_place_under_a_name_of_its_own() {
        for (place, (fault, name, _)) in TABLE.iter().enumerate() {
            assert_eq!(*fault as usize, place, "{name}");
            assert_eq!(super::place(name).unwrap(), place, "{name}");
        }
    }

    #[test]
    fn values_out_of_range_are_refused_with_range_and_value() {
        for (setting, wanted) in [
            ("pool_max=0", "pool_max must be 1..=100 (got \"0\")"),
            ("pool_max=101", "1..=100 (got \"101\")"),
            ("pool_max", "(got \"\")"),
            ("hold_conn=6s", "1ms..=5000ms (got \"6s\")"),
            ("hold_conn=0ms", "(got \"0ms\")"),
            ("latency=-1ms", "(got \"-1ms\")"),
            ("error_rate=0%", "0.01%..=100% (got \"0%\")"),
            ("error_rate=101%", "(got \"101%\")"),
            ("error_rate=NaN%", "(got \"NaN%\")"),
            ("error_rate=5", "(got \"5\")"),
            ("leak=1", "64KiB/s..=64MiB/s"),
            ("gzip_off=1", "given without a value (got \"1\")"),
            ("drop_index=users", "idx_nft_owner"),
            ("everything", "fault must be one of nplus1, "),
        ] {
            let text = refusal(setting);
            assert!(text.contains(wanted), "{setting}: {text}");
        }
    }

    #[test]
    fn values_are_read_in_the_unit_of_their_form() {
        for (setting, value) in [
            ("nplus1", 1),
            ("pool_max=2", 2),
            ("hold_conn=500ms", 500),
            ("latency=+300ms", 300),
            ("leak=1MiB/s", 1 << 20),
            ("error_rate=5%", 500),
            ("error_rate=0.01%", 1),
            ("error_rate=100%", form::WHOLE),
        ] {
            assert_eq!(Setting::parse(setting).unwrap().value, value, "{setting}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_fault_ends_by_itself_and_no_later_than_the_longest_time() {
        let faults = faults();
        let on = |setting, seconds| {
            let setting = vec![Setting::parse(setting).unwrap()];
            faults.switch_on(setting, Duration::from_secs(seconds));
        };
        on("gzip_off", 5);
        on("pool_max=2", 10_000);
        assert_eq!(faults.value(Fault::PoolMax), 2);
        tokio::time::advance(Duration::from_secs(4)).await;
        faults.expire();
        assert!(faults.is_on(Fault::GzipOff));
        tokio::time::advance(Duration::from_secs(1)).await;
        let next = faults.expire();
        assert!(!faults.is_on(Fault::GzipOff) && faults.is_on(Fault::PoolMax));
        tokio::time::advance(LONGEST).await;
        assert!(next.unwrap() <= Instant::now());
        assert_eq!(faults.expire(), None);
        assert!(!faults.is_on(Fault::PoolMax));
    }

    #[tokio::test]
    async fn pool_max_lends_its_places_and_no_more() {
        let faults = faults();
        assert!(faults.pool_place().await.is_none(), "off");
        faults.switch_on(vec![Setting::parse("pool_max=2").unwrap()], LONGEST);
        let held = [faults.pool_place().await, faults.pool_place().await];
        assert!(held.iter().all(Option::is_some));
        let mut third = std::pin::pin!(faults.pool_place());
        assert!(futures_util::poll!(third.as_mut()).is_pending());
        drop(held);
        assert!(third.await.is_some());
    }

    #[test]
    fn all_or_none_of_the_requests_fail_at_the_ends_of_the_range() {
        let faults = faults();
        assert!((0..1_000).all(|_| !faults.fails()));
        faults.switch_on(vec![Setting::parse("error_rate=100%").unwrap()], LONGEST);
        assert!((0..1_000).all(|_| faults.fails()));
    }
}
