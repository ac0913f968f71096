//! The host's own words for whose work a thread does, carried by its CPU samples.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::store::label::{self, Mark, Marked};
use crate::store::profile::{SPAN_ID, THREAD, TRACE_ID};

/// Labels that CPU samples carry while the work under them runs.
///
/// Cheap to copy. At most eight labels are held together, route and method among them; a value is cut
/// at 128 bytes, and a process has at most 4,096 different sets: samples of further ones are labelled
/// `[overflow]`. So a label should name something that there are few of, such as a tenant or a kind of
/// job, never an id of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "nothing is labelled before scope() or run()"]
pub struct Labels(Mark);

/// The running work's labels with one more.
///
/// Inside a request these are its route and method. They come out as string labels of the pprof
/// profile (`go tool pprof -tags`, `-tagfocus`). The keys `thread`, `trace_id` and `span_id` are the
/// agent's own and are passed over.
///
/// # Cost
/// One look-up of the set, about 0.2 us; then 5 ns per poll.
///
/// ```
/// use streamgate_agent::label;
///
/// async fn convert() -> u32 {
///     label("job", "thumbnail").and("tenant", "acme").scope(async { 7 }).await
/// }
/// let sum: u64 = label("job", "sum").run(|| (1..=10).sum());
/// # assert_eq!(sum, 55);
/// # drop(convert());
/// ```
pub fn label(key: &'static str, value: &str) -> Labels {
    Labels::current().and(key, value)
}

const RESERVED: [&str; 3] = [THREAD, TRACE_ID, SPAN_ID];

impl Labels {
    /// The labels of the work that runs now, to give to a thread or a task: those inherit nothing by
    /// themselves.
    ///
    /// ```
    /// use streamgate_agent::Labels;
    ///
    /// let labels = Labels::current();
    /// let thread = std::thread::spawn(move || labels.run(|| 7));
    /// # assert_eq!(thread.join().unwrap(), 7);
    /// ```
    pub fn current() -> Self {
        Self(label::current())
    }

    /// These labels with one more, or with another value for a key.
    pub fn and(self, key: &'static str, value: &str) -> Self {
        if RESERVED.contains(&key) {
            return self;
        }
        let set = self.0.set.with(key, value);
        Self(Mark { set, ..self.0 })
    }

    /// A future whose polls run under these labels, on whichever thread.
    pub fn scope<F: Future>(self, future: F) -> Labelled<F> {
        Labelled {
            future: Box::pin(future),
            mark: self.0,
        }
    }

    /// Does work under these labels; the ones before are back afterwards, also after a panic.
    pub fn run<R>(self, work: impl FnOnce() -> R) -> R {
        let _marked = Marked::new(self.0);
        work()
    }
}

/// A future that runs under labels; see [`Labels::scope`].
#[derive(Debug)]
pub struct Labelled<F> {
    future: Pin<Box<F>>,
    mark: Mark,
}

impl<F: Future> Future for Labelled<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let _marked = Marked::new(self.mark);
        self.future.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::label::{LabelSet, METHOD};

    fn pairs(labels: Labels) -> Vec<(&'static str, String)> {
        let held = labels.0.set.labels();
        let pairs = held
            .iter()
            .map(|label| (label.key, label.value.to_string()));
        pairs.collect()
    }

    #[test]
    fn labels_add_up_inwards_and_are_gone_outside() {
        let outer = label("tenant", "acme");
        let inner = outer.run(|| label("job", "resize"));
        let both = [("job", "resize".to_owned()), ("tenant", "acme".to_owned())];
        assert_eq!(pairs(inner), both);
        assert_eq!(pairs(Labels::current()), []);
        assert_eq!(label(THREAD, "mine"), Labels::current());
    }

    #[test]
    fn two_futures_on_one_thread_keep_their_labels_apart_across_awaits() {
        let seen = |value: &'static str| {
            label("tenant", value).scope(async move {
                for _ in 0..10 {
                    assert_eq!(pairs(Labels::current()), [("tenant", value.to_owned())]);
                    yield_once().await;
                }
            })
        };
        let (mut one, mut two) = (Box::pin(seen("a")), Box::pin(seen("b")));
        let mut context = Context::from_waker(std::task::Waker::noop());
        for _ in 0..11 {
            let left = one.as_mut().poll(&mut context);
            assert_eq!(left, two.as_mut().poll(&mut context));
            assert_eq!(Labels::current().0, Mark::NONE);
        }
    }

    async fn yield_once() {
        let mut first = true;
        std::future::poll_fn(|_| {
            if std::mem::take(&mut first) {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
        .await;
    }

    #[test]
    fn a_request_keeps_its_method_when_the_host_adds_a_label() {
        let set = LabelSet::NONE.with(METHOD, "GET");
        let mark = Mark { set, ..Mark::NONE };
        let labels = Labels(mark).run(|| label("tenant", "acme"));
        assert_eq!(pairs(labels)[0], (METHOD, "GET".to_owned()));
    }
}
