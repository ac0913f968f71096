//! The response body on its way out: counts bytes and ends the request's record.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::request::{End, RequestRecord};
use super::routes::Abort;
use super::scope::{self, Scope};

pin_project! {
    /// A response body whose end ends the request's record.
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        #[pin]
        inner: B,
        open: Option<Open>,
    }

    impl<B> PinnedDrop for ResponseBody<B> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let Some(mut open) = this.open.take() {
                open.absorb();
                // A server does not poll a body of known size to its end: all bytes sent is the end.
                let whole = open.expected.is_some_and(|size| open.record.bytes_sent() >= size);
                if whole || open.record.is_bodyless() {
                    open.record.end(End::Complete);
                }
            }
        }
    }
}

#[derive(Debug)]
struct Open {
    record: RequestRecord,
    scope: Option<Box<Scope>>,
    /// Bytes that the whole body has, if it is known.
    expected: Option<u64>,
}

impl Open {
    fn absorb(&mut self) {
        if let Some(scope) = self.scope.as_deref() {
            self.record.absorb(scope);
        }
    }
}

impl<B: Body> ResponseBody<B> {
    pub(crate) fn new(inner: B, record: RequestRecord, scope: Option<Box<Scope>>) -> Self {
        let expected = inner.size_hint().exact();
        Self {
            inner,
            open: Some(Open {
                record,
                scope,
                expected,
            }),
        }
    }

    pub(crate) fn unrecorded(inner: B) -> Self {
        Self { inner, open: None }
    }
}

impl<B: Body> Body for ResponseBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let mut this = self.project();
        let Some(open) = this.open.as_mut() else {
            return this.inner.poll_frame(context);
        };
        let inner = this.inner.as_mut();
        let frame = ready!(scope::poll(&mut open.scope, || inner.poll_frame(context)));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    open.record.sent(bytes::Buf::remaining(data));
                }
            }
            Some(Err(_)) => {
                open.absorb();
                open.record.end(End::Aborted(Abort::BodyError));
            }
            None => {
                open.absorb();
                open.record.end(End::Complete);
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
