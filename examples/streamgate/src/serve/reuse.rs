//! Inside the compression: answers that were compressed before leave as they did then.
//!
//! Guide 3.1. Metric: `streamgate_compressions_saved_total`. Breaking test:
//! `an_answer_is_compressed_once_for_each_encoding`.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use http::{HeaderMap, HeaderValue, Request};
use streamgate_agent::Counter;
use tower::Service;
use warp::reply::Response;

use crate::api::{Encoded, Kept};
use crate::faults::{Fault, Faults};

/// Where the encoded body that leaves is to be kept.
#[derive(Clone, Debug)]
pub(super) struct Keep {
    kept: Arc<Kept>,
    accept: HeaderValue,
}

impl Keep {
    /// Keeps the encoding that was made.
    pub(super) fn put(self, made: Encoded) {
        self.kept.put(&self.accept, made);
    }
}

/// Looks whether the routes' answer is there in the encoding that this client gets.
#[derive(Clone, Debug)]
pub(super) struct Reuse<S> {
    inner: S,
    saved: Counter,
    faults: Faults,
}

impl<S> Reuse<S> {
    pub(super) fn new(inner: S, saved: Counter, faults: Faults) -> Self {
        Self {
            inner,
            saved,
            faults,
        }
    }
}

impl<S, B> Service<Request<B>> for Reuse<S>
where
    S: Service<Request<B>, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let gzip_off = self.faults.is_on(Fault::GzipOff);
        let accept = only(request.headers()).filter(|_| !gzip_off);
        let saved = self.saved.clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let Ok(mut response) = answer.await;
            let kept = response.extensions_mut().remove::<Arc<Kept>>();
            if let Some((kept, accept)) = kept.zip(accept) {
                match kept.get(&accept) {
                    Some(encoded) => {
                        saved.inc();
                        let headers = response.headers_mut();
                        headers.insert(CONTENT_ENCODING, encoded.encoding);
                        *response.body_mut() = encoded.body.into();
                    }
                    None => {
                        response.extensions_mut().insert(Keep { kept, accept });
                    }
                }
            }
            Ok(response)
        })
    }
}

/// The value of Accept-Encoding, where there is one line of it.
fn only(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut values = headers.get_all(ACCEPT_ENCODING).iter();
    let first = values.next()?;
    values.next().is_none().then(|| first.clone())
}
