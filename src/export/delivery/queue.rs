//! What waits of one signal, oldest first: a part on disk, then a part in memory, bounded in bytes.
//!
//! Knows no clock, no network and no files: those who have them say what happened.

use std::collections::VecDeque;
use std::mem::size_of;
use std::sync::Arc;
use std::time::Duration;

use super::books::{Books, Counts, Reason};

/// Memory that one waiting message takes beside its bytes: its place in a list that may be a quarter full,
/// and the headers of its two allocations.
const PLACE_BYTES: usize = 4 * size_of::<Held>() + 64;

/// A message in memory.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) stamp: Stamp,
    pub(super) body: Arc<Vec<u8>>,
}

impl Held {
    fn cost(&self) -> usize {
        self.body.capacity().saturating_add(PLACE_BYTES)
    }
}

/// A message on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spooled {
    pub(super) stamp: Stamp,
    pub(super) file: SpoolFile,
}

/// One file of the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SpoolFile {
    /// Files are numbered in the order in which they were written.
    pub(super) number: u64,
    /// What it takes of the disk.
    pub(super) bytes: u64,
}

/// What is known of a message without its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) items: u64,
    pub(super) created_unix_nanos: u64,
    /// When it is given up, by the delivery's clock.
    pub(super) expires: Duration,
}

/// The oldest message, wherever it is.
#[derive(Debug, Clone)]
pub(super) enum Oldest {
    InMemory(Held),
    OnDisk(Spooled),
}

pub(super) struct Queue {
    on_disk: VecDeque<Spooled>,
    in_memory: VecDeque<Held>,
    /// Of both lists; at most `limit`.
    bytes: usize,
    limit: usize,
    /// The oldest in memory is being sent or written: it stays until that has ended.
    pinned: bool,
    closed: bool,
    books: Books,
}

impl Queue {
    pub(super) fn new(limit: usize, books: Books) -> Self {
        let queue = Self {
            on_disk: VecDeque::new(),
            in_memory: VecDeque::new(),
            bytes: 0,
            limit,
            pinned: false,
            closed: false,
            books,
        };
        queue.show();
        queue
    }

    pub(super) fn counts(&self) -> Counts {
        self.books.counts()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.on_disk.is_empty() && self.in_memory.is_empty()
    }

    pub(super) fn has_memory(&self) -> bool {
        !self.in_memory.is_empty()
    }

    /// Takes a message; for lack of room the oldest in memory go, or where that would not help, this one.
    pub(super) fn push(&mut self, held: Held) {
        let items = held.stamp.items;
        self.books.created(items);
        let cost = held.cost();
        let stays = self.pinned.then(|| self.in_memory.front()).flatten();
        let stays = self.on_disk.len() * PLACE_BYTES + stays.map_or(0, Held::cost);
        if self.closed {
            self.books.dropped(items, Reason::Shutdown);
        } else if stays.saturating_add(cost) > self.limit {
            self.books.dropped(items, Reason::QueueFull);
        } else {
            while self.bytes + cost > self.limit {
                let Some(oldest) = self.in_memory.remove(usize::from(self.pinned)) else {
                    break;
                };
                self.bytes -= oldest.cost();
                self.books.dropped(oldest.stamp.items, Reason::QueueFull);
                shrink(&mut self.in_memory);
            }
            self.bytes += cost;
            self.in_memory.push_back(held);
        }
        self.show();
    }

    /// The oldest message, or the oldest in memory while the disk cannot be read. It stays until
    /// [`end`](Self::end) or [`unpin`](Self::unpin).
    pub(super) fn oldest(&mut self, disk_reads: bool) -> Option<Oldest> {
        match self.on_disk.front() {
            Some(spooled) if disk_reads => Some(Oldest::OnDisk(*spooled)),
            _ => self.pin().map(Oldest::InMemory),
        }
    }

    /// The oldest in memory, which stays there until [`spooled`](Self::spooled) or [`unpin`](Self::unpin).
    pub(super) fn pin(&mut self) -> Option<Held> {
        let held = self.in_memory.front().cloned();
        self.pinned = held.is_some();
        held
    }

    pub(super) fn unpin(&mut self) {
        self.pinned = false;
    }

    /// The oldest message has reached its end: what the books say of it is up to the caller. Of one in
    /// memory nothing is said if the queue was closed meanwhile, and so counted it as lost.
    pub(super) fn end(&mut self, oldest: &Oldest, say: impl FnOnce(&mut Books, u64)) {
        let stamp = match oldest {
            Oldest::OnDisk(_) => self.pop_spooled().map(|spooled| spooled.stamp),
            Oldest::InMemory(_) => self.pop_held().map(|held| held.stamp),
        };
        self.pinned = false;
        if let Some(stamp) = stamp {
            say(&mut self.books, stamp.items);
        }
        self.show();
    }

    /// Moves the oldest in memory behind those on disk; `false` if it is there no more.
    pub(super) fn spooled(&mut self, file: SpoolFile) -> bool {
        self.pinned = false;
        let Some(held) = self.pop_held() else {
            return false;
        };
        self.on_disk.push_back(Spooled {
            stamp: held.stamp,
            file,
        });
        self.bytes += PLACE_BYTES;
        self.show();
        true
    }

    /// Takes over what an earlier process left on disk.
    pub(super) fn resume(&mut self, spooled: Spooled) {
        self.books.created(spooled.stamp.items);
        self.on_disk.push_back(spooled);
        self.bytes += PLACE_BYTES;
        self.show();
    }

    /// Gives up the oldest on disk, and returns its file.
    pub(super) fn drop_spooled(&mut self) -> Option<SpoolFile> {
        let spooled = self.pop_spooled()?;
        self.books.dropped(spooled.stamp.items, Reason::QueueFull);
        self.show();
        Some(spooled.file)
    }

    pub(super) fn oldest_file(&self) -> Option<SpoolFile> {
        self.on_disk.front().map(|spooled| spooled.file)
    }

    /// Whether those on disk take more than half of the memory by their places alone.
    pub(super) fn is_crowded(&self) -> bool {
        self.on_disk.len() * PLACE_BYTES > self.limit / 2
    }

    /// Gives up what is too old, and returns the files of those that were on disk.
    pub(super) fn expire(&mut self, now: Duration) -> Vec<SpoolFile> {
        let mut files = Vec::new();
        while self
            .on_disk
            .front()
            .is_some_and(|spooled| spooled.stamp.expires <= now)
            && let Some(spooled) = self.pop_spooled()
        {
            self.books.dropped(spooled.stamp.items, Reason::Expired);
            files.push(spooled.file);
        }
        while self
            .in_memory
            .front()
            .is_some_and(|held| held.stamp.expires <= now)
            && let Some(held) = self.pop_held()
        {
            self.books.dropped(held.stamp.items, Reason::Expired);
        }
        self.show();
        files
    }

    /// Takes nothing any more, and gives up what is not on disk.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.pinned = false;
        while let Some(held) = self.pop_held() {
            self.books.dropped(held.stamp.items, Reason::Shutdown);
        }
        self.show();
    }

    fn pop_spooled(&mut self) -> Option<Spooled> {
        let spooled = self.on_disk.pop_front()?;
        self.bytes -= PLACE_BYTES;
        shrink(&mut self.on_disk);
        Some(spooled)
    }

    fn pop_held(&mut self) -> Option<Held> {
        let held = self.in_memory.pop_front()?;
        self.bytes -= held.cost();
        shrink(&mut self.in_memory);
        Some(held)
    }

    fn show(&self) {
        self.books.show(self.bytes);
    }
}

/// Gives back the places of a crowd that has gone: what is left takes a quarter of them at least.
fn shrink<T>(list: &mut VecDeque<T>) {
    if list.len() <= list.capacity() / 4 {
        list.shrink_to(list.len() * 2);
    }
}

#[cfg(test)]
impl Queue {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn items(&self) -> u64 {
        let on_disk = self.on_disk.iter().map(|spooled| spooled.stamp.items);
        let in_memory = self.in_memory.iter().map(|held| held.stamp.items);
        on_disk.chain(in_memory).sum()
    }

    /// What the lists and the messages take, by their capacities.
    pub(super) fn memory(&self) -> usize {
        let bodies: usize = self.in_memory.iter().map(|held| held.body.capacity()).sum();
        let on_disk = self.on_disk.capacity() * size_of::<Spooled>();
        bodies + on_disk + self.in_memory.capacity() * size_of::<Held>()
    }
}
