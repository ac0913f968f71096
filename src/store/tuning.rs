//! How the allocator is tuned: wishes to see it or change it, and the answer.

use std::time::Duration;

use super::Unavailable;

/// What a reader wants to see, after these changes in order.
pub(crate) type TuningWish = Vec<TuningChange>;

/// What can be changed while the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TuningChange {
    /// How long free pages of a kind are kept, in the arenas that exist and those to come.
    Decay(Pages, Decay),
    /// Whether threads of the allocator's own give pages back.
    BackgroundThread(bool),
    /// All free pages go back now.
    Purge,
}

/// Pages that nobody uses: still in memory, or left for the kernel to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pages {
    Dirty,
    Muzzy,
}

/// How long free pages are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decay {
    Never,
    After(Duration),
}

/// The decay of one kind of page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DecayNow {
    /// Of arenas to come.
    pub(crate) new_arenas: Decay,
    /// Of those that exist, each value once.
    pub(crate) arenas: Vec<Decay>,
}

/// How the allocator is tuned now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tuning {
    pub(crate) dirty: DecayNow,
    pub(crate) muzzy: DecayNow,
    pub(crate) background_thread: bool,
    /// Arenas that may exist, and those that do.
    pub(crate) arenas_limit: u32,
    pub(crate) arenas: u32,
}

pub(crate) type TuningAnswer = Result<Tuning, Unavailable>;
