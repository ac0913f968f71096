//! Closures that the host gave to be called about once a second on the agent's thread.

use std::fmt;
use std::sync::{Arc, Mutex};

use super::sync::lock;

/// Closures kept; each is a pool, a cache or one of the host's own readings. A service has tens.
pub(crate) const LIMIT: usize = 4_096;

type Callback = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
pub(crate) struct Callbacks {
    held: Mutex<Vec<Callback>>,
}

impl fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callbacks")
            .field("held", &lock(&self.held).len())
            .finish()
    }
}

impl Callbacks {
    /// Adds a closure; says whether there was room.
    pub(crate) fn add(&self, callback: impl Fn() + Send + Sync + 'static) -> bool {
        let mut held = lock(&self.held);
        let room = held.len() < LIMIT;
        if room {
            held.push(Arc::new(callback));
        }
        room
    }

    pub(crate) fn all(&self) -> Vec<Callback> {
        lock(&self.held).clone()
    }
}
