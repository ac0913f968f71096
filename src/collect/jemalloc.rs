//! jemalloc: what it holds, and how long it keeps what nobody uses.
//!
//! Its numbers mean something only if it is the process's allocator. Linked beside another one it
//! holds a few kilobytes of its own, so a block of ours must move its count before anything is shown.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tikv_jemalloc_ctl::{Access, AsName, Error as JemallocError};

use super::Source;
use crate::catalog::families::ALLOCATOR_BYTES;
use crate::error::Error;
use crate::store::metrics::{Gauge, Metrics};
use crate::store::tuning::{Decay, DecayNow, Pages, Tuning, TuningAnswer, TuningChange};
use crate::store::{Store, Unavailable};

/// How often the numbers are read when nobody scrapes.
const INTERVAL: Duration = Duration::from_secs(10);
/// Scrapes closer than this share a reading: jemalloc locks every arena to add it up.
const FRESH: Duration = Duration::from_secs(1);
/// The block that must move the count.
const PROBE_BYTES: usize = 1 << 20;

/// The series of `allocator_bytes` and jemalloc's names for them.
const KINDS: [(&str, &[u8]); 6] = [
    ("allocated", b"stats.allocated\0"),
    ("active", b"stats.active\0"),
    ("metadata", b"stats.metadata\0"),
    ("resident", b"stats.resident\0"),
    ("mapped", b"stats.mapped\0"),
    ("retained", b"stats.retained\0"),
];

/// Shows what jemalloc holds, and changes how it is tuned when somebody who may asks for it.
///
/// # Cost
/// Each ten seconds, and at scrapes at most once a second, one walk over the arenas.
#[derive(Debug)]
pub(crate) struct JemallocSource {
    store: Arc<Store>,
    kinds: Vec<(&'static [u8], Gauge)>,
    /// Why there is nothing to show; `None` until it was tried.
    tried: Option<Result<(), Unavailable>>,
    read: Option<Instant>,
}

/// # Errors
/// Out of range if the family was declared with another shape before.
pub(crate) fn source(store: &Arc<Store>) -> Result<Option<Box<dyn Source>>, Error> {
    Ok(Some(Box::new(JemallocSource::new(store)?)))
}

impl JemallocSource {
    fn new(store: &Arc<Store>) -> Result<Self, Error> {
        Ok(Self {
            store: Arc::clone(store),
            kinds: gauges(&store.metrics)?,
            tried: None,
            read: None,
        })
    }

    fn show(&mut self, now: Instant) {
        let fresh = |read: Instant| now.saturating_duration_since(read) < FRESH;
        if self.read.is_some_and(fresh) {
            return;
        }
        self.read = Some(now);
        // jemalloc answers with what it added up when the epoch was last advanced.
        let added_up = write(b"epoch\0", 1_u64).is_ok();
        for (name, gauge) in &self.kinds {
            match read::<usize>(name) {
                Ok(bytes) if added_up => gauge.set(bytes as f64),
                _ => gauge.clear(),
            }
        }
    }

    fn answer_wishes(&self, usable: &Result<(), Unavailable>) {
        for (id, changes) in self.store.tuning.open() {
            let answer = usable.clone().and_then(|()| change(&changes));
            self.store.tuning.answer(id, answer);
        }
    }
}

impl Source for JemallocSource {
    fn component(&self) -> &'static str {
        "jemalloc"
    }

    fn interval(&self) -> Duration {
        INTERVAL
    }

    fn on_scrape(&self) -> bool {
        true
    }

    fn collect(&mut self) {
        let usable = self.tried.get_or_insert_with(is_ours).clone();
        if usable.is_ok() {
            self.show(Instant::now());
        }
        self.answer_wishes(&usable);
    }
}

fn gauges(metrics: &Metrics) -> Result<Vec<(&'static [u8], Gauge)>, Error> {
    KINDS
        .iter()
        .map(|(kind, name)| Ok((*name, metrics.gauge(&ALLOCATOR_BYTES, &["jemalloc", kind])?)))
        .collect()
}

/// Whether a block of the program moves jemalloc's count for this thread.
fn is_ours() -> Result<(), Unavailable> {
    let count = || read::<u64>(b"thread.allocated\0").map_err(unavailable("thread.allocated"));
    let before = count()?;
    drop(black_box(Vec::<u8>::with_capacity(PROBE_BYTES)));
    let moved = count()?.saturating_sub(before);
    if moved >= PROBE_BYTES as u64 {
        return Ok(());
    }
    let text = "jemalloc is linked but not the global allocator";
    Err(Unavailable(text.to_owned()))
}

fn read<T>(name: &[u8]) -> Result<T, JemallocError>
where
    tikv_jemalloc_ctl::Name: Access<T>,
{
    name.name().read()
}

fn write<T>(name: &[u8], value: T) -> Result<(), JemallocError>
where
    tikv_jemalloc_ctl::Name: Access<T>,
{
    name.name().write(value)
}

fn unavailable(name: &str) -> impl Fn(JemallocError) -> Unavailable {
    move |error| Unavailable(format!("jemalloc refused {name}: {error}"))
}

/// Makes the changes in order and says what is so afterwards.
fn change(changes: &[TuningChange]) -> TuningAnswer {
    for change in changes {
        match *change {
            TuningChange::Decay(pages, decay) => set_decay(pages, decay)?,
            TuningChange::BackgroundThread(on) => {
                write(b"background_thread\0", on).map_err(unavailable("background_thread"))?;
            }
            TuningChange::Purge => purge()?,
        }
    }
    let background = read(b"background_thread\0").map_err(unavailable("background_thread"))?;
    let limit = read(b"opt.narenas\0").map_err(unavailable("opt.narenas"))?;
    Ok(Tuning {
        dirty: decay(Pages::Dirty)?,
        muzzy: decay(Pages::Muzzy)?,
        background_thread: background,
        arenas_limit: limit,
        arenas: u32::try_from(arenas()?.len()).unwrap_or(u32::MAX),
    })
}

/// The arenas that exist: jemalloc makes them when threads first need them.
fn arenas() -> Result<Vec<u32>, Unavailable> {
    let count = read::<u32>(b"arenas.narenas\0").map_err(unavailable("arenas.narenas"))?;
    let exists = |arena: &u32| {
        let name = format!("arena.{arena}.initialized\0");
        read::<bool>(name.as_bytes()).unwrap_or(false)
    };
    Ok((0..count).filter(exists).collect())
}

const fn word(pages: Pages) -> &'static str {
    match pages {
        Pages::Dirty => "dirty_decay_ms",
        Pages::Muzzy => "muzzy_decay_ms",
    }
}

fn of_new(pages: Pages) -> String {
    format!("arenas.{}\0", word(pages))
}

fn of_arena(arena: u32, pages: Pages) -> String {
    format!("arena.{arena}.{}\0", word(pages))
}

fn decay(pages: Pages) -> Result<DecayNow, Unavailable> {
    let failed = unavailable(word(pages));
    let mut values = arenas()?
        .iter()
        .map(|arena| read::<isize>(of_arena(*arena, pages).as_bytes()))
        .collect::<Result<Vec<isize>, _>>()
        .map_err(&failed)?;
    values.sort_unstable();
    values.dedup();
    Ok(DecayNow {
        new_arenas: from_ms(read(of_new(pages).as_bytes()).map_err(&failed)?),
        arenas: values.into_iter().map(from_ms).collect(),
    })
}

/// `arenas.*_decay_ms` reaches only arenas to come, so each existing one is told too.
fn set_decay(pages: Pages, decay: Decay) -> Result<(), Unavailable> {
    let ms = to_ms(decay);
    let failed = unavailable(word(pages));
    write(of_new(pages).as_bytes(), ms).map_err(&failed)?;
    for arena in arenas()? {
        write(of_arena(arena, pages).as_bytes(), ms).map_err(&failed)?;
    }
    Ok(())
}

/// A decay time of 0 gives every free page back at once; then each arena gets its own back.
fn purge() -> Result<(), Unavailable> {
    for arena in arenas()? {
        for pages in [Pages::Dirty, Pages::Muzzy] {
            let name = of_arena(arena, pages);
            let failed = unavailable(word(pages));
            // Not `update`: that hands jemalloc one variable for the old and the new value, which then
            // sets the old one again and purges nothing.
            let before = read::<isize>(name.as_bytes()).map_err(&failed)?;
            write(name.as_bytes(), 0_isize).map_err(&failed)?;
            write(name.as_bytes(), before).map_err(&failed)?;
        }
    }
    Ok(())
}

fn from_ms(ms: isize) -> Decay {
    match u64::try_from(ms) {
        Ok(ms) => Decay::After(Duration::from_millis(ms)),
        Err(_) => Decay::Never,
    }
}

fn to_ms(decay: Decay) -> isize {
    match decay {
        Decay::Never => -1,
        Decay::After(time) => isize::try_from(time.as_millis()).unwrap_or(isize::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::metrics::Value;

    /// The test program's allocator is the system's; `tests/jemalloc.rs` is the other case.
    #[test]
    fn linked_but_not_the_allocator_is_absent_and_said_so() {
        let store = Arc::new(Store::new(100));
        let mut source = JemallocSource::new(&store).unwrap();
        source.collect();
        let snapshot = store.metrics.snapshot();
        let shown = snapshot.family(&ALLOCATOR_BYTES).map_or(0, |family| {
            let values = snapshot.values(family);
            values
                .filter(|(_, value)| matches!(value, Value::Float(bytes) if !bytes.is_nan()))
                .count()
        });
        assert_eq!(shown, 0);
        let text = source.tried.unwrap().unwrap_err().0;
        assert_eq!(text, "jemalloc is linked but not the global allocator");
    }
}
