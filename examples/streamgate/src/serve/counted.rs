//! A body that counts its bytes as they leave.
//!
//! Guide 3.1. Metric: `streamgate_response_bytes_total{stage=raw|sent}`: before and after
//! compression, so that their ratio is what compression saves.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderValue;
use http_body::{Body, Frame, SizeHint};
use streamgate_agent::Counter;

use super::reuse::Keep;
use crate::api::Encoded;

/// A body and the counter of its stage. The body must be `Unpin`: every body of the service is.
#[derive(Debug)]
pub(super) struct Counted<B> {
    body: B,
    counter: Counter,
    copy: Option<Copied>,
}

/// What has left of a body that is to be kept.
#[derive(Debug)]
struct Copied {
    keep: Keep,
    encoding: HeaderValue,
    bytes: BytesMut,
}

impl<B> Counted<B> {
    /// Where it is to be kept, in which encoding it leaves is said beside it.
    pub(super) fn new(body: B, counter: Counter, keep: Option<(Keep, HeaderValue)>) -> Self {
        let copy = keep.map(|(keep, encoding)| Copied {
            keep,
            encoding,
            bytes: BytesMut::new(),
        });
        Self {
            body,
            counter,
            copy,
        }
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
        // Whoever sends it asks no more after a frame that says so.
        let ended = frame.is_none() || self.body.is_end_stream();
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    let bytes = u64::try_from(data.remaining()).unwrap_or(u64::MAX);
                    self.counter.add(bytes);
                    if let Some(copy) = &mut self.copy {
                        copy.bytes.extend_from_slice(data);
                    }
                }
            }
            Some(Err(_)) => self.copy = None,
            None => {}
        }
        if ended && let Some(copy) = self.copy.take() {
            copy.keep.put(Encoded {
                encoding: copy.encoding,
                // As long as it is: what grew while it was copied has up to twice the room.
                body: Bytes::copy_from_slice(&copy.bytes),
            });
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
