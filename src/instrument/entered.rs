//! The `tracing` spans that a thread is in, and what was before each.

/// What was before each entered span.
#[derive(Debug)]
pub(super) struct Entered<T>(Vec<In<T>>);

#[derive(Debug)]
struct In<T> {
    id: u64,
    before: T,
}

impl<T> Default for Entered<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Entered<T> {
    pub(super) fn enter(&mut self, id: u64, before: T) {
        self.0.push(In { id, before });
    }

    /// Leaves a span, and returns what is to be put back, if anything.
    pub(super) fn exit(&mut self, id: u64) -> Option<T> {
        let place = self.0.iter().rposition(|span| span.id == id)?;
        let left = self.0.remove(place);
        // Spans may be left in another order than they were entered in: then the one inside goes
        // back to what was before the one that is gone.
        match self.0.get_mut(place) {
            Some(inside) => {
                inside.before = left.before;
                None
            }
            None => Some(left.before),
        }
    }
}
