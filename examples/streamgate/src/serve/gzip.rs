//! Gzip for answers that are small enough to be compressed at once, inside tower-http's compression and
//! around the encodings that were kept.
//!
//! Guide 3.1 and 4.2. Metric: `buffer_pool_gets_total{pool="gzip"}`. Breaking tests:
//! `the_encoding_is_what_the_client_ranks_first`, `gzip_is_left_to_the_other_layer_where_it_is_not_clearly_first`.
//!
//! What it does not take, such as brotli, larger answers and headers that need thought, the layer around it
//! does; that one makes a new compressor for each answer. Nothing is compressed before the body is asked
//! for, so that a 304 and a HEAD cost none of it.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    VARY,
};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use tower::Service;

use crate::faults::{Fault, Faults};
use crate::work::gzip::Gzip;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Compresses what a service answers.
#[derive(Clone, Debug)]
pub(super) struct GzipAnswers<S> {
    inner: S,
    gzip: Gzip,
    faults: Faults,
    smallest: u64,
}

impl<S> GzipAnswers<S> {
    pub(super) fn new(inner: S, gzip: Gzip, faults: Faults, smallest: u64) -> Self {
        Self {
            inner,
            gzip,
            faults,
            smallest,
        }
    }
}

impl<S, B, R> Service<Request<B>> for GzipAnswers<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible>,
    S::Future: Send + 'static,
    R: Body<Data = Bytes> + Unpin,
{
    type Response = Response<MaybeGzip<R>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let gzip = (prefers_gzip(request.headers()) && !self.faults.is_on(Fault::GzipOff))
            .then(|| self.gzip.clone());
        let smallest = self.smallest;
        let answer = self.inner.call(request);
        Box::pin(async move {
            let Ok(mut response) = answer.await;
            let gzip = gzip.filter(|_| is_ours(&response, smallest));
            if gzip.is_some() {
                relabel(response.headers_mut());
            }
            Ok(response.map(|body| MaybeGzip {
                body,
                gzip,
                first: Bytes::new(),
                rest: BytesMut::new(),
                ended: false,
            }))
        })
    }
}

/// Whether gzip comes first by what the header names: no wildcards, no weight that is not a number.
fn prefers_gzip(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(ACCEPT_ENCODING).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return false;
    };
    let Ok(text) = value.to_str() else {
        return false;
    };
    let mut gzip = 0.0;
    let mut others: f64 = 0.0;
    for part in text.split(',') {
        let (name, weight) = match part.split_once(';') {
            None => (part, 1.0),
            Some((name, weight)) => {
                let number = weight.trim().strip_prefix("q=").map(str::parse::<f64>);
                match number {
                    Some(Ok(weight)) if (0.0..=1.0).contains(&weight) => (name, weight),
                    _ => return false,
                }
            }
        };
        match name.trim() {
            "gzip" => gzip = weight,
            // The other layer does not know it.
            "deflate" => {}
            "identity" => others = others.max(weight - f64::EPSILON),
            "*" => return false,
            _ => others = others.max(weight),
        }
    }
    gzip > others
}

/// JSON or protobuf of a size that one buffer holds, and in no encoding yet.
fn is_ours<R: Body>(response: &Response<R>, smallest: u64) -> bool {
    let headers = response.headers();
    let largest = u64::try_from(Gzip::LARGEST).unwrap_or(u64::MAX);
    let size = response.body().size_hint().exact();
    let media = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    size.is_some_and(|size| (smallest..=largest).contains(&size))
        && matches!(
            media,
            Some(b"application/json" | b"application/problem+json" | b"application/x-protobuf")
        )
        && !headers.contains_key(CONTENT_ENCODING)
        && !headers.contains_key(CONTENT_RANGE)
}

fn relabel(headers: &mut HeaderMap) {
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.remove(CONTENT_LENGTH);
    headers.remove(ACCEPT_RANGES);
    let varies = headers.get_all(VARY).iter().any(|value| {
        value
            .to_str()
            .is_ok_and(|text| text.to_ascii_lowercase().contains("accept-encoding"))
    });
    if !varies {
        headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    }
}

/// A body as it came, or compressed when it is asked for.
#[derive(Debug)]
pub(super) struct MaybeGzip<R> {
    body: R,
    /// `None` when it is to pass unchanged, or has been compressed.
    gzip: Option<Gzip>,
    /// What came so far: bodies of one frame are copied nowhere.
    first: Bytes,
    rest: BytesMut,
    /// The compressed text has been given.
    ended: bool,
}

impl<R> Body for MaybeGzip<R>
where
    R: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        loop {
            let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
            let Some(gzip) = &this.gzip else {
                return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
            };
            match frame {
                Some(Ok(frame)) => {
                    // Trailers are nothing that the service has.
                    let Ok(data) = frame.into_data() else {
                        continue;
                    };
                    if this.first.is_empty() {
                        this.first = data;
                    } else {
                        this.rest.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => {
                    let packed = if this.rest.is_empty() {
                        gzip.compress(&this.first)
                    } else {
                        gzip.compress(&[&this.first[..], &this.rest[..]].concat())
                    };
                    this.gzip = None;
                    this.ended = true;
                    this.first = Bytes::new();
                    this.rest = BytesMut::new();
                    return Poll::Ready(Some(packed.map(Frame::data).map_err(Into::into)));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended || (self.gzip.is_none() && self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match self.gzip {
            Some(_) => SizeHint::default(),
            None => self.body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_left_to_the_other_layer_where_it_is_not_clearly_first() {
        for (accept, ours) in [
            ("gzip", true),
            ("gzip, deflate", true),
            ("identity, gzip", true),
            ("gzip;q=0.5, identity;q=0.5", true),
            ("br;q=0.5, gzip;q=0.6", true),
            ("gzip, deflate, br", false),
            ("gzip;q=0.5, identity", false),
            ("gzip;q=0", false),
            ("gzip;q=0, identity;q=0", false),
            ("*", false),
            ("gzip, *;q=0", false),
            ("gzip;q=nan", false),
            ("gzip;q=2", false),
            ("deflate", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(accept));
            assert_eq!(prefers_gzip(&headers), ours, "{accept:?}");
        }
    }
}
