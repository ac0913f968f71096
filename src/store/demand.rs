//! Readers' wishes: who waits for what until when, and who wakes them.
//!
//! A reader leaves a wish on a [`Board`] and awaits its [`Demand`]; the collecting thread sees it,
//! does the work and answers. Waiting needs no runtime: the board keeps `std::task::Waker`s. A
//! reader that leaves drops its demand, which withdraws the wish at once.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::sync::lock;

/// Wishes of one kind and their answers.
pub(crate) struct Board<W, A> {
    state: Mutex<State<W, A>>,
    changed: Condvar,
    /// Wakes whoever waits for something else as well, and so not here.
    elsewhere: OnceLock<fn()>,
    limit: usize,
}

struct State<W, A> {
    next_id: u64,
    places: Vec<Place<W, A>>,
    /// Wishes came or went since whoever waits last woke, who may have looked before.
    news: bool,
    /// What all get once nobody works for them any more.
    closed: Option<A>,
    /// Those who will still ask when the agent ends.
    held: usize,
}

struct Place<W, A> {
    id: u64,
    wish: W,
    deadline: Instant,
    answer: Option<Outcome<A>>,
    waker: Option<Waker>,
}

/// What became of a wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome<A> {
    Answered(A),
    /// Nobody answered before the deadline.
    Expired,
}

/// The board already holds as many waiting readers as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full {
    pub(crate) limit: usize,
}

impl<W, A> fmt::Debug for Board<W, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board")
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl<W: Clone, A: Clone> Board<W, A> {
    pub(crate) fn new(limit: usize) -> Self {
        let state = State {
            next_id: 0,
            places: Vec::new(),
            news: false,
            closed: None,
            held: 0,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            elsewhere: OnceLock::new(),
            limit,
        }
    }

    /// Leaves a wish.
    ///
    /// # Errors
    /// `Full` when as many readers wait as the board holds.
    pub(crate) fn ask(self: &Arc<Self>, wish: W, deadline: Instant) -> Result<Demand<W, A>, Full> {
        let mut state = lock(&self.state);
        if state.places.len() >= self.limit {
            return Err(Full { limit: self.limit });
        }
        let id = state.next_id;
        state.next_id += 1;
        let answer = state.closed.clone().map(Outcome::Answered);
        state.places.push(Place {
            id,
            wish,
            deadline,
            answer,
            waker: None,
        });
        self.tell(state);
        Ok(Demand {
            board: Arc::clone(self),
            id,
        })
    }

    /// Wishes without an answer.
    pub(crate) fn open(&self) -> Vec<(u64, W)> {
        let state = lock(&self.state);
        let open = state.places.iter().filter(|place| place.answer.is_none());
        open.map(|place| (place.id, place.wish.clone())).collect()
    }

    /// Whether a wish is still there and without an answer.
    pub(crate) fn is_open(&self, id: u64) -> bool {
        let state = lock(&self.state);
        let mut places = state.places.iter();
        places.any(|place| place.id == id && place.answer.is_none())
    }

    /// Readers that wait or have not yet fetched their answer.
    pub(crate) fn waiting(&self) -> usize {
        lock(&self.state).places.len()
    }

    /// Answers a wish; nothing happens if its reader has left.
    pub(crate) fn answer(&self, id: u64, answer: A) {
        self.finish(|place| place.id == id, &Outcome::Answered(answer));
    }

    /// Answers all wishes so, those that wait and those to come: nobody works for them any more.
    pub(crate) fn close(&self, answer: A) {
        lock(&self.state).closed = Some(answer.clone());
        self.finish(|_| true, &Outcome::Answered(answer));
    }

    /// Ends the waiting of readers whose deadline has passed.
    pub(crate) fn expire(&self, now: Instant) {
        self.finish(|place| place.deadline <= now, &Outcome::Expired);
    }

    /// Waits until wishes come or go, or `timeout` has passed; returns at once if they did since the
    /// last time. One thread waits.
    pub(crate) fn wait(&self, timeout: Duration) {
        let state = lock(&self.state);
        let waited = self
            .changed
            .wait_timeout_while(state, timeout, |state| !state.news);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.news = false;
    }

    /// Waits until there is a wish without an answer, or `timeout` has passed.
    pub(crate) fn wait_for_wish(&self, timeout: Duration) {
        let state = lock(&self.state);
        let none = |state: &mut State<W, A>| !state.places.iter().any(|one| one.answer.is_none());
        // Under the lock, so that a wish that comes before the wait is not missed.
        drop(
            self.changed
                .wait_timeout_while(state, timeout, none)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// Wakes whoever is in [`wait`](Self::wait), or will be next.
    pub(crate) fn nudge(&self) {
        self.tell(lock(&self.state));
    }

    /// Has `wake` called at each change, for a thread that waits elsewhere. The first one stays.
    pub(crate) fn wakes(&self, wake: fn()) {
        self.elsewhere.get_or_init(|| wake);
    }

    fn finish(&self, chosen: impl Fn(&Place<W, A>) -> bool, outcome: &Outcome<A>) {
        let wakers: Vec<Waker> = {
            let mut state = lock(&self.state);
            let chosen = state
                .places
                .iter_mut()
                .filter(|place| place.answer.is_none() && chosen(place));
            chosen
                .filter_map(|place| {
                    place.answer = Some(outcome.clone());
                    place.waker.take()
                })
                .collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl<W, A> Board<W, A> {
    /// Somebody will still ask when the agent ends: whoever answers here stays for that.
    pub(crate) fn hold(self: &Arc<Self>) -> Hold<W, A> {
        lock(&self.state).held += 1;
        Hold(Arc::clone(self))
    }

    /// Whether somebody will still ask.
    pub(crate) fn is_held(&self) -> bool {
        lock(&self.state).held > 0
    }

    /// Wishes came or went.
    fn tell(&self, mut state: MutexGuard<'_, State<W, A>>) {
        state.news = true;
        drop(state);
        self.changed.notify_all();
        if let Some(wake) = self.elsewhere.get() {
            wake();
        }
    }
}

/// Somebody who will still ask when the agent ends, until it is dropped.
pub(crate) struct Hold<W, A>(Arc<Board<W, A>>);

impl<W, A> fmt::Debug for Hold<W, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hold").finish_non_exhaustive()
    }
}

impl<W, A> Drop for Hold<W, A> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.held = state.held.saturating_sub(1);
        self.0.tell(state);
    }
}

/// A wish that waits; dropping it withdraws the wish.
pub(crate) struct Demand<W, A> {
    board: Arc<Board<W, A>>,
    id: u64,
}

impl<W, A> fmt::Debug for Demand<W, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Demand")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl<W, A: Clone> Future for Demand<W, A> {
    type Output = Outcome<A>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = lock(&self.board.state);
        let Some(place) = state.places.iter_mut().find(|place| place.id == self.id) else {
            return Poll::Ready(Outcome::Expired);
        };
        match &place.answer {
            Some(outcome) => Poll::Ready(outcome.clone()),
            None => {
                place.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<W, A> Drop for Demand<W, A> {
    fn drop(&mut self) {
        let mut state = lock(&self.board.state);
        state.places.retain(|place| place.id != self.id);
        self.board.tell(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn poll<W, A: Clone>(demand: &mut Demand<W, A>) -> Poll<Outcome<A>> {
        Pin::new(demand).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_closed_board_answers_who_waits_and_who_comes_later_at_once() {
        let board = Arc::new(Board::<u8, u8>::new(2));
        let mut early = board.ask(1, later()).unwrap();
        board.close(7);
        assert_eq!(poll(&mut early), Poll::Ready(Outcome::Answered(7)));
        let mut late = board.ask(2, later()).unwrap();
        assert_eq!(poll(&mut late), Poll::Ready(Outcome::Answered(7)));
        assert_eq!(board.open(), []);
    }

    #[test]
    fn a_reader_that_leaves_withdraws_its_wish_and_frees_its_place() {
        let board: Arc<Board<u8, u8>> = Arc::new(Board::new(1));
        let demand = board.ask(1, later()).unwrap();
        assert_eq!(board.ask(2, later()).unwrap_err(), Full { limit: 1 });
        drop(demand);
        assert_eq!(board.waiting(), 0);
        board.answer(0, 9);
        assert!(board.ask(2, later()).is_ok());
    }

    #[test]
    fn every_reader_of_a_wish_gets_the_answer_meant_for_it() {
        let board: Arc<Board<u8, u8>> = Arc::new(Board::new(8));
        let mut first = board.ask(1, later()).unwrap();
        let mut second = board.ask(2, later()).unwrap();
        assert_eq!(poll(&mut first), Poll::Pending);
        for (id, wish) in board.open() {
            board.answer(id, wish * 10);
        }
        assert_eq!(poll(&mut second), Poll::Ready(Outcome::Answered(20)));
        assert_eq!(poll(&mut first), Poll::Ready(Outcome::Answered(10)));
        assert!(board.open().is_empty());
    }

    #[test]
    fn what_came_or_went_before_the_wait_ends_it_at_once() {
        let board: Arc<Board<u8, u8>> = Arc::new(Board::new(1));
        let long = Duration::from_secs(600);
        let demand = board.ask(1, later()).unwrap();
        board.wait(long);
        drop(demand);
        board.wait(long);
        board.nudge();
        board.wait(long);
        assert!(!lock(&board.state).news, "told once");
    }

    #[test]
    fn a_wish_that_came_first_ends_the_wait_for_wishes_at_once() {
        let board: Arc<Board<u8, u8>> = Arc::new(Board::new(8));
        let _demand = board.ask(1, later()).unwrap();
        board.wait_for_wish(Duration::from_secs(3600));
    }

    #[test]
    fn an_overdue_wish_expires_and_a_late_answer_changes_nothing() {
        let board: Arc<Board<u8, u8>> = Arc::new(Board::new(8));
        let mut demand = board.ask(1, Instant::now()).unwrap();
        board.expire(Instant::now());
        board.answer(0, 1);
        assert_eq!(poll(&mut demand), Poll::Ready(Outcome::Expired));
    }
}
