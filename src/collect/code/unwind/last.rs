//! Each thread's last stack, so that frames which are there again need no unwinding.
//!
//! A frame and the stack words that were read to get beyond it decide what lies beyond. So where frame
//! and words are the same as last time, the outcome is too: nothing is guessed.

use super::{Beyond, End, Frame};

/// Threads whose last stack is held; further ones take the place of the one longest unseen.
const THREADS: usize = 64;

/// A word of the stack that was read, `None` where the copied bytes did not reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) address: u64,
    pub(super) value: Option<u64>,
}

/// What was found, outwards from the leaf's caller.
#[derive(Debug, Default)]
struct Stack {
    steps: Vec<Step>,
    reads: Vec<Read>,
    /// What lies beyond the last step; `None` if nobody looked.
    end: Option<End>,
}

#[derive(Debug, Clone, Copy)]
struct Step {
    frame: Frame,
    /// Where its words begin among the stack's reads.
    reads: usize,
}

impl Stack {
    fn clear(&mut self) {
        self.steps.clear();
        self.reads.clear();
        self.end = None;
    }

    /// The words that were read at a step.
    fn reads(&self, step: usize) -> Option<&[Read]> {
        let from = self.steps.get(step)?.reads;
        let to = self.steps.get(step.saturating_add(1));
        let to = to.map_or(self.reads.len(), |next| next.reads);
        self.reads.get(from..to)
    }

    fn beyond(&self, step: usize) -> Option<Beyond> {
        match self.steps.get(step.saturating_add(1)) {
            Some(next) => Some(Beyond::Frame(next.frame)),
            None => self.end.map(Beyond::End),
        }
    }
}

/// The threads' last stacks.
#[derive(Debug, Default)]
pub(super) struct Lasts {
    held: Vec<Last>,
    /// Counts the walks.
    now: u64,
}

#[derive(Debug, Default)]
struct Last {
    tid: u32,
    seen: u64,
    old: Stack,
    new: Stack,
}

impl Lasts {
    /// Forgets all: the same addresses may hold other code now.
    pub(super) fn forget(&mut self) {
        self.held.clear();
    }

    /// Begins to walk along a thread's present stack.
    pub(super) fn walk(&mut self, tid: u32) -> Walk<'_> {
        self.now = self.now.wrapping_add(1);
        let known = self.held.iter().position(|last| last.tid == tid);
        let place = known.unwrap_or_else(|| {
            if self.held.len() < THREADS {
                self.held.push(Last::default());
                return self.held.len() - 1;
            }
            let ages = self.held.iter().zip(0..);
            ages.min_by_key(|(last, _)| last.seen)
                .map_or(0, |(_, place)| place)
        });
        if let Some(last) = self.held.get_mut(place) {
            std::mem::swap(&mut last.old, &mut last.new);
            last.new.clear();
            if known.is_none() {
                last.old.clear();
            }
            last.tid = tid;
            last.seen = self.now;
        }
        Walk {
            last: self.held.get_mut(place),
            at: 0,
        }
    }
}

/// A walk along one stack, beside the thread's last.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    last: Option<&'a mut Last>,
    /// The old stack's step that was come to.
    at: usize,
}

impl Walk<'_> {
    /// What lies beyond a frame: as last time if `word` still gives the same, else by `unwind`, which
    /// notes what it reads.
    pub(super) fn beyond(
        &mut self,
        frame: Frame,
        word: impl Fn(u64) -> Option<u64>,
        unwind: impl FnOnce(&mut Vec<Read>) -> Beyond,
    ) -> Beyond {
        let Some(Last { old, new, .. }) = self.last.as_deref_mut() else {
            return unwind(&mut Vec::new());
        };
        new.steps.push(Step {
            frame,
            reads: new.reads.len(),
        });
        // Both stacks are walked upwards.
        while old
            .steps
            .get(self.at)
            .is_some_and(|step| step.frame.sp < frame.sp)
        {
            self.at += 1;
        }
        let same = old
            .steps
            .get(self.at)
            .is_some_and(|step| step.frame == frame);
        if let Some((reads, beyond)) = old.reads(self.at).zip(old.beyond(self.at))
            && same
            && reads.iter().all(|read| word(read.address) == read.value)
        {
            new.reads.extend_from_slice(reads);
            return beyond;
        }
        unwind(&mut new.reads)
    }

    /// The walk is over.
    pub(super) fn end(self, end: End) -> End {
        if let Some(last) = self.last {
            last.new.end = Some(end);
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stack in which each word is the next frame's return address, 0 at its end.
    fn follow(lasts: &mut Lasts, tid: u32, words: &[u64]) -> (Vec<u64>, usize) {
        let word = |address: u64| words.get(usize::try_from(address).unwrap()).copied();
        let (mut found, mut unwound) = (Vec::new(), 0);
        let mut walk = lasts.walk(tid);
        let mut frame = Frame {
            return_address: words[0],
            sp: 1,
            fp: 0,
        };
        loop {
            found.push(frame.return_address);
            let beyond = walk.beyond(frame, word, |reads| {
                unwound += 1;
                let value = word(frame.sp);
                reads.push(Read {
                    address: frame.sp,
                    value,
                });
                match value {
                    None => Beyond::End(End::Truncated),
                    Some(0) => Beyond::End(End::Whole),
                    Some(return_address) => Beyond::Frame(Frame {
                        return_address,
                        sp: frame.sp + 1,
                        fp: 0,
                    }),
                }
            });
            match beyond {
                Beyond::Frame(next) => frame = next,
                Beyond::End(end) => {
                    walk.end(end);
                    return (found, unwound);
                }
            }
        }
    }

    #[test]
    fn only_what_changed_is_unwound_again() {
        let mut lasts = Lasts::default();
        assert_eq!(
            follow(&mut lasts, 1, &[5, 6, 7, 8, 0]),
            (vec![5, 6, 7, 8], 4)
        );
        assert_eq!(
            follow(&mut lasts, 1, &[5, 6, 7, 8, 0]),
            (vec![5, 6, 7, 8], 0)
        );
        assert_eq!(
            follow(&mut lasts, 1, &[5, 6, 9, 8, 0]),
            (vec![5, 6, 9, 8], 2),
            "the frame before the changed word and the changed frame"
        );
        assert_eq!(
            follow(&mut lasts, 2, &[5, 6, 9, 8, 0]).1,
            4,
            "another thread"
        );
        assert_eq!(
            follow(&mut lasts, 1, &[5, 6, 9, 8]),
            (vec![5, 6, 9, 8], 1),
            "a shorter slice ends where it ends"
        );
        lasts.forget();
        assert_eq!(follow(&mut lasts, 1, &[5, 6, 9, 8]).1, 4);
    }

    #[test]
    fn a_crowd_of_threads_keeps_to_its_bound() {
        let mut lasts = Lasts::default();
        follow(&mut lasts, 0, &[5, 6, 0]);
        for tid in 1..1000 {
            assert_eq!(follow(&mut lasts, tid, &[5, 6, 0]), (vec![5, 6], 2));
            assert_eq!(follow(&mut lasts, 0, &[5, 6, 0]).1, 0, "seen just before");
        }
        assert_eq!(lasts.held.len(), THREADS);
    }
}
