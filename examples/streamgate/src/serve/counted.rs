//! A body that counts its bytes as they leave.
//!
//! Guide 3.1. Metric: `streamgate_response_bytes_total{stage=raw|sent}`: before and after
//! compression, so that their ratio is what compression saves.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use streamgate_agent::Counter;

/// A body and the counter of its stage. The body must be `Unpin`: every body of the service is.
#[derive(Debug)]
pub(super) struct Counted<B> {
    body: B,
    counter: Counter,
}

impl<B> Counted<B> {
    pub(super) fn new(body: B, counter: Counter) -> Self {
        Self { body, counter }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Counted<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.counter
                .add(u64::try_from(data.remaining()).unwrap_or(u64::MAX));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
