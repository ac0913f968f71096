//! The requests that are open now: each scope's face, which other threads may read.
//!
//! A scope takes a place when it is made and gives it back when it ends. Both lock a shard that the
//! thread shares with few others, and a place's memory is used again, so a request allocates nothing
//! for being seen.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::awaits::{Frame, LogicalStack};
use super::label::{LabelSet, Mark};
use super::metrics::whole_nanos;
use super::sync::lock;

/// Places that are locked one at a time.
pub(crate) const SHARDS: usize = 16;
/// Scopes of one shard that are seen; more go to the other shards, and when all are full are counted.
const PLACES: usize = 1_024;
/// Names open at one time beyond which further ones are not noted: joined futures may open thousands.
const MOST: usize = 64;

/// Not waiting: polled right now, or between head and body.
const BUSY: u64 = 0;
/// Waiting inside a future that is clocked itself.
const UNCLOCKED: u64 = 1;

/// All scopes that are open.
#[derive(Debug)]
pub(crate) struct Scopes {
    shards: [Mutex<Shard>; SHARDS],
    unseen: AtomicUsize,
}

#[derive(Debug, Default)]
struct Shard {
    places: Vec<Place>,
    free: Vec<usize>,
    begun: u64,
}

#[derive(Debug)]
struct Place {
    face: Arc<Face>,
    /// `None`: nobody's.
    number: Option<u64>,
}

/// A scope as other threads see it; written by the scope's own task.
#[derive(Debug)]
pub(crate) struct Face {
    began: Instant,
    mark: Mark,
    /// Where a task waits that works for a request.
    carried: Option<LogicalStack>,
    set: AtomicU32,
    route: AtomicU32,
    /// [`BUSY`], [`UNCLOCKED`], or nanoseconds from `began` to the end of the last poll.
    waiting: AtomicU64,
    /// The response's head is out.
    sending: AtomicBool,
    open: Mutex<Vec<(u32, Frame)>>,
    next: AtomicU32,
}

/// An open scope's place; ends with it.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) face: Arc<Face>,
    /// Shard and place; `None`: it found none.
    at: Option<(usize, usize)>,
}

/// What an open scope does at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    /// It is being polled, or is about to be.
    Running,
    /// Its response's head is out, and nobody asks for more of the body.
    Sending,
    /// The last poll was pending; how long ago, if it is clocked.
    Waiting(Option<Duration>),
}

/// One open scope at one moment.
#[derive(Debug, Clone)]
pub(crate) struct OpenScope {
    pub(crate) number: u64,
    pub(crate) age: Duration,
    pub(crate) doing: Doing,
    pub(crate) mark: Mark,
    /// Whether it is a task that works for a request.
    pub(crate) is_task: bool,
    pub(crate) stack: LogicalStack,
}

thread_local! {
    /// The shard where the thread's scopes begin.
    static SHARD: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The running thread's shard; threads take turns.
pub(crate) fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let own = SHARD.try_with(|shard| {
        shard.get().unwrap_or_else(|| {
            let taken = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
            shard.set(Some(taken));
            taken
        })
    });
    own.unwrap_or(0)
}

impl Default for Scopes {
    fn default() -> Self {
        Self {
            shards: Default::default(),
            unseen: AtomicUsize::new(0),
        }
    }
}

impl Scopes {
    /// A place for a scope that began at a moment.
    ///
    /// # Cost
    /// One lock that is seldom contended; memory only when more are open than ever before.
    pub(crate) fn enter(&self, began: Instant, mark: Mark, carried: Option<LogicalStack>) -> Seat {
        let (tail, head) = self.shards.split_at(shard());
        let first = tail.len();
        let shards = (first..).zip(head).chain((0..).zip(tail));
        for (at, shard) in shards {
            let taken = lock(shard).take(at, began, mark, carried);
            if let Some((place, face)) = taken {
                let at = Some((at, place));
                return Seat { face, at };
            }
        }
        self.unseen.fetch_add(1, Ordering::Relaxed);
        Seat {
            face: Arc::new(Face::new(began, mark, carried)),
            at: None,
        }
    }

    /// Gives a place back.
    pub(crate) fn leave(&self, seat: &Seat) {
        let Some((shard, at)) = seat.at else {
            self.unseen.fetch_sub(1, Ordering::Relaxed);
            return;
        };
        let Some(shard) = self.shards.get(shard) else {
            return;
        };
        let mut shard = lock(shard);
        if let Some(place) = shard.places.get_mut(at) {
            place.number = None;
            shard.free.push(at);
        }
    }

    /// All open scopes, oldest first, and how many more are open that found no place.
    pub(crate) fn all(&self) -> (Vec<OpenScope>, usize) {
        let mut faces = Vec::new();
        for shard in &self.shards {
            // Read outside of the lock, for which requests wait. A place whose face is held here gets
            // another one for its next scope.
            let shard = lock(shard);
            let places = shard.places.iter();
            let taken = places.filter_map(|place| Some((place.number?, Arc::clone(&place.face))));
            faces.extend(taken);
        }
        let now = Instant::now();
        let mut all: Vec<OpenScope> = faces
            .into_iter()
            .map(|(number, face)| face.seen(number, now))
            .collect();
        all.sort_by_key(|scope| (std::cmp::Reverse(scope.age), scope.number));
        (all, self.unseen.load(Ordering::Relaxed))
    }
}

impl Shard {
    /// Takes a place; `None` if all are taken.
    fn take(
        &mut self,
        at: usize,
        began: Instant,
        mark: Mark,
        carried: Option<LogicalStack>,
    ) -> Option<(usize, Arc<Face>)> {
        let place = match self.free.pop() {
            Some(place) => place,
            None if self.places.len() < PLACES => {
                self.places.push(Place {
                    face: Arc::new(Face::new(began, mark, carried)),
                    number: None,
                });
                self.places.len() - 1
            }
            None => return None,
        };
        let number = self.begun * SHARDS as u64 + at as u64 + 1;
        self.begun += 1;
        let held = self.places.get_mut(place)?;
        match Arc::get_mut(&mut held.face) {
            Some(face) => face.reset(began, mark, carried),
            // A reader looks at it, or a guard of the last scope is still open.
            None => held.face = Arc::new(Face::new(began, mark, carried)),
        }
        held.number = Some(number);
        Some((place, Arc::clone(&held.face)))
    }
}

impl Face {
    fn new(began: Instant, mark: Mark, carried: Option<LogicalStack>) -> Self {
        Self {
            began,
            mark,
            carried,
            set: AtomicU32::new(mark.set.number()),
            route: AtomicU32::new(Frame::UNMATCHED.number()),
            waiting: AtomicU64::new(BUSY),
            sending: AtomicBool::new(false),
            open: Mutex::default(),
            next: AtomicU32::new(0),
        }
    }

    fn reset(&mut self, began: Instant, mark: Mark, carried: Option<LogicalStack>) {
        let mut open = std::mem::take(&mut self.open);
        open.get_mut()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clear();
        *self = Self {
            open,
            ..Self::new(began, mark, carried)
        };
    }

    /// Says what the scope's work is called from now on.
    pub(crate) fn set_route(&self, route: Frame, set: LabelSet) {
        self.route.store(route.number(), Ordering::Relaxed);
        self.set.store(set.number(), Ordering::Relaxed);
    }

    /// The response's head is out.
    pub(crate) fn send(&self) {
        self.sending.store(true, Ordering::Relaxed);
    }

    /// A poll was pending; `clocked` if nothing around it clocks the wait.
    pub(crate) fn wait(&self, clocked: bool) {
        let since = if clocked {
            whole_nanos(self.began.elapsed()).max(UNCLOCKED + 1)
        } else {
            UNCLOCKED
        };
        self.waiting.store(since, Ordering::Relaxed);
    }

    /// The wait is over; how long it was, if it was one that is clocked.
    pub(crate) fn resume(&self) -> Option<Duration> {
        // Only the scope's own task writes it.
        let since = self.waiting.load(Ordering::Relaxed);
        if since == BUSY {
            return None;
        }
        self.waiting.store(BUSY, Ordering::Relaxed);
        let clocked = since > UNCLOCKED;
        clocked.then(|| waited(self.began.elapsed(), since))
    }

    /// What the scope has open, below its route; says whether it has anything.
    pub(crate) fn stack(&self) -> (LogicalStack, bool) {
        let route = Frame::numbered(self.route.load(Ordering::Relaxed));
        let mut stack = self.carried.unwrap_or_else(|| LogicalStack::of(route));
        let open = lock(&self.open);
        open.iter().for_each(|(_, frame)| stack.push(*frame));
        (stack, !open.is_empty())
    }

    /// Puts a name on the list of what is open; `None` beyond as many as are noted.
    pub(crate) fn open(&self, frame: Frame) -> Option<u32> {
        let mut open = lock(&self.open);
        if open.len() >= MOST {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        open.push((number, frame));
        Some(number)
    }

    /// Takes it off again.
    pub(crate) fn close(&self, number: u32) {
        let mut open = lock(&self.open);
        // The last is the likeliest; others stay in their order.
        if let Some(place) = open.iter().rposition(|(held, _)| *held == number) {
            open.remove(place);
        }
    }

    fn seen(&self, number: u64, now: Instant) -> OpenScope {
        let age = now.saturating_duration_since(self.began);
        let doing = match self.waiting.load(Ordering::Relaxed) {
            BUSY if self.sending.load(Ordering::Relaxed) => Doing::Sending,
            BUSY => Doing::Running,
            UNCLOCKED => Doing::Waiting(None),
            since => Doing::Waiting(Some(waited(age, since))),
        };
        let (mut stack, named) = self.stack();
        if !named && matches!(doing, Doing::Waiting(_)) {
            stack.push(Frame::OTHER);
        }
        OpenScope {
            number,
            age,
            doing,
            mark: Mark {
                set: LabelSet::of_number(self.set.load(Ordering::Relaxed)),
                trace: self.mark.trace,
            },
            is_task: self.carried.is_some(),
            stack,
        }
    }
}

fn waited(age: Duration, since: u64) -> Duration {
    age.saturating_sub(Duration::from_nanos(since))
}

#[cfg(test)]
mod tests {
    use super::super::awaits::Awaits;
    use super::*;

    fn enter(scopes: &Scopes) -> Seat {
        scopes.enter(Instant::now(), Mark::NONE, None)
    }

    #[test]
    fn awaits_may_overlap_and_leave_by_identity() {
        let awaits = Awaits::default();
        let frame = |name| awaits.frame(name);
        let of = |names: &[&'static str]| {
            let mut stack = LogicalStack::of(Frame::UNMATCHED);
            names.iter().for_each(|name| stack.push(frame(name)));
            stack
        };
        let face = enter(&Scopes::default()).face;
        let first = face.open(frame("a")).unwrap();
        let second = face.open(frame("b")).unwrap();
        let again = face.open(frame("a")).unwrap();
        assert_eq!(face.stack(), (of(&["a", "b", "a"]), true));
        face.close(first);
        assert_eq!(face.stack(), (of(&["b", "a"]), true));
        face.close(again);
        assert_eq!(face.stack(), (of(&["b"]), true));
        face.close(second);
        assert_eq!(face.stack(), (of(&[]), false));
        let noted = (0..2 * MOST).filter_map(|_| face.open(frame("c")));
        assert_eq!(noted.count(), MOST);
    }

    #[test]
    fn a_place_is_used_again_but_not_what_a_reader_or_a_guard_still_holds() {
        let scopes = Scopes::default();
        let first = enter(&scopes);
        let guard = Arc::clone(&first.face);
        let number = guard.open(Frame::OTHER).unwrap();
        scopes.leave(&first);
        drop(first);
        let second = enter(&scopes);
        assert!(!Arc::ptr_eq(&second.face, &guard));
        guard.close(number);
        let (all, unseen) = scopes.all();
        assert_eq!((all.len(), unseen), (1, 0));
        let was = Arc::as_ptr(&second.face);
        let seen = all.first().map(|scope| scope.number);
        scopes.leave(&second);
        drop(second);
        let third = enter(&scopes);
        assert_eq!(Arc::as_ptr(&third.face), was, "no new memory");
        assert_ne!(scopes.all().0.first().map(|scope| scope.number), seen);
    }

    #[test]
    fn scopes_beyond_all_places_are_counted_and_leave_again() {
        let scopes = Scopes::default();
        let seats: Vec<Seat> = (0..SHARDS * PLACES + 3).map(|_| enter(&scopes)).collect();
        let (all, unseen) = scopes.all();
        assert_eq!((all.len(), unseen), (SHARDS * PLACES, 3));
        seats.iter().for_each(|seat| scopes.leave(seat));
        let (all, unseen) = scopes.all();
        assert_eq!((all.len(), unseen), (0, 0));
    }

    #[test]
    fn a_wait_is_as_long_as_the_time_between_its_ends() {
        let scopes = Scopes::default();
        let long = Duration::from_secs(100);
        let began = Instant::now().checked_sub(long).unwrap();
        let seat = scopes.enter(began, Mark::NONE, None);
        let doing = || scopes.all().0.first().map(|scope| scope.doing);
        assert_eq!(doing(), Some(Doing::Running));
        seat.face.wait(true);
        assert!(matches!(doing(), Some(Doing::Waiting(Some(waited))) if waited < long));
        assert!(seat.face.resume().is_some_and(|waited| waited < long));
        assert_eq!(seat.face.resume(), None);
        seat.face.wait(false);
        assert_eq!(doing(), Some(Doing::Waiting(None)));
        assert_eq!(seat.face.resume(), None);
        seat.face.send();
        assert_eq!(doing(), Some(Doing::Sending));
        assert!(
            scopes
                .all()
                .0
                .first()
                .is_some_and(|scope| scope.age >= long)
        );
    }
}
