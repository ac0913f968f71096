//! When what waits is written to disk, and what happens when the disk does not take it.

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::queue::{SpoolFile, Spooled, Stamp};
use super::record::Head;
use super::spool::Spool;
use super::{Delivery, PushSignal};
use crate::catalog::families;
use crate::config::otlp::delivery::{Limits, SPOOL_RETRY};
use crate::store::Store;
use crate::store::metrics::{Counter, Gauge};
use crate::store::sync::lock;

pub(super) struct Spooling {
    directory: PathBuf,
    limit: u64,
    /// `None` until the directory could be opened.
    spool: Option<Spool>,
    /// When a disk that failed is tried again.
    retry: Duration,
    bytes: Gauge,
    torn: Counter,
}

impl Spooling {
    /// `None` where nothing is to be written.
    pub(super) fn new(store: &Arc<Store>, limits: &Limits) -> Option<Self> {
        Some(Self {
            directory: limits.spool.clone()?,
            limit: limits.spool_bytes,
            spool: None,
            retry: Duration::ZERO,
            bytes: store.metrics.own_gauge(&families::AGENT_SPOOL_BYTES, &[]),
            torn: store.metrics.own_counter(&families::AGENT_SPOOL_TORN, &[]),
        })
    }

    fn held(&self) -> u64 {
        self.spool.as_ref().map_or(0, Spool::bytes)
    }

    fn remove(&mut self, file: SpoolFile) -> io::Result<()> {
        let spool = self.spool.as_mut();
        spool.map_or(Ok(()), |spool| spool.remove(file))
    }
}

impl Delivery {
    /// Writes down what waits in memory, and removes files whose messages have gone.
    pub(super) fn spool(&self, now: Duration, gone: &[SpoolFile]) {
        let mut spooling = lock(&self.spooling);
        let Some(spooling) = spooling.as_mut() else {
            return;
        };
        for file in gone {
            // What cannot be removed now is when the disk is tried again.
            drop(spooling.remove(*file));
        }
        if now < spooling.retry {
            return;
        }
        match self.write_all(spooling, now) {
            Ok(bytes) => spooling.bytes.set(bytes as f64),
            Err(_) => {
                spooling.bytes.clear();
                spooling.retry = now + SPOOL_RETRY;
            }
        }
    }

    /// Returns what the files take of the disk then.
    fn write_all(&self, spooling: &mut Spooling, now: Duration) -> io::Result<u64> {
        self.resume(spooling, now)?;
        spooling.spool.as_mut().map_or(Ok(()), Spool::sweep)?;
        for signal in PushSignal::ALL {
            self.write(spooling, signal)?;
        }
        Ok(spooling.held())
    }

    /// The message of a file; `Err(true)` if it may be there another time.
    pub(super) fn read(&self, spooled: &Spooled) -> Result<Vec<u8>, bool> {
        let spooling = lock(&self.spooling);
        let spool = spooling
            .as_ref()
            .and_then(|spooling| spooling.spool.as_ref());
        let gone = [
            ErrorKind::InvalidData,
            ErrorKind::UnexpectedEof,
            ErrorKind::NotFound,
        ];
        let read = spool.map(|spool| spool.read(spooled.file));
        let read = read.unwrap_or_else(|| Err(ErrorKind::NotFound.into()));
        read.map_err(|error| !gone.contains(&error.kind()))
    }

    pub(super) fn remove(&self, file: SpoolFile) {
        if let Some(spooling) = lock(&self.spooling).as_mut() {
            // Its message has ended all the same.
            drop(spooling.remove(file));
        }
    }

    /// Takes over what an earlier process left, the first time that the directory can be opened.
    fn resume(&self, spooling: &mut Spooling, now: Duration) -> io::Result<()> {
        if spooling.spool.is_some() {
            return Ok(());
        }
        let (spool, found) = Spool::open(&spooling.directory)?;
        spooling.spool = Some(spool);
        spooling.torn.add(found.torn);
        let unix_nanos = self.clock.unix_nanos();
        for (file, head) in found.records {
            // A clock that was set back makes nothing younger than new.
            let age = Duration::from_nanos(unix_nanos.saturating_sub(head.created_unix_nanos));
            let spooled = Spooled {
                stamp: Stamp {
                    items: head.items,
                    created_unix_nanos: head.created_unix_nanos,
                    expires: now + self.age.saturating_sub(age),
                },
                file,
            };
            lock(&self.state).lane(head.signal).queue.resume(spooled);
            // Where there is too much, and it cannot be removed now, it is when something is written.
            drop(self.make_room(spooling, head.signal, 0));
        }
        Ok(())
    }

    fn write(&self, spooling: &mut Spooling, signal: PushSignal) -> io::Result<()> {
        loop {
            let held = lock(&self.state).lane(signal).queue.pin();
            let Some(held) = held else {
                return Ok(());
            };
            let length = Spool::bytes_of(held.body.len());
            let written = if length > spooling.limit {
                // It waits in memory, and so do those behind it.
                Ok(None)
            } else {
                let room = self.make_room(spooling, signal, length);
                let stamp = held.stamp;
                let head = Head::of(signal, stamp.items, stamp.created_unix_nanos, &held.body);
                let spool = spooling.spool.as_mut();
                room.and_then(|()| {
                    spool
                        .map(|spool| spool.write(&head, &held.body))
                        .transpose()
                })
            };
            let mut state = lock(&self.state);
            let queue = &mut state.lane(signal).queue;
            let Ok(Some(file)) = written else {
                queue.unpin();
                return written.map(drop);
            };
            if !queue.spooled(file) {
                drop(state);
                spooling.remove(file)?;
            }
        }
    }

    /// Gives up the oldest files until there is room for one of so many bytes, and for its place in memory.
    fn make_room(&self, spooling: &mut Spooling, signal: PushSignal, bytes: u64) -> io::Result<()> {
        loop {
            let held = spooling.held();
            let mut state = lock(&self.state);
            let dropped = if held + bytes > spooling.limit {
                let lanes = state.lanes.iter_mut();
                let files = lanes.filter_map(|lane| Some((lane.queue.oldest_file()?, lane)));
                let oldest = files.min_by_key(|(file, _)| *file);
                oldest.and_then(|(_, lane)| lane.queue.drop_spooled())
            } else {
                let queue = &mut state.lane(signal).queue;
                if queue.is_crowded() {
                    queue.drop_spooled()
                } else {
                    None
                }
            };
            drop(state);
            let Some(file) = dropped else {
                return Ok(());
            };
            spooling.remove(file)?;
        }
    }
}
