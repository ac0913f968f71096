//! `POST /purge`: voids what carries the surrogate keys of the request.
//!
//! Guide 2.3. Metric: `cache_invalidations_total{cache_level="l3"}`. Breaking tests:
//! `a_purge_without_the_token_is_refused`, `a_purged_answer_is_fetched_anew`. On a listener of its own, bound
//! to loopback: whoever can void a cache can overload what lies behind it.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use sha2::{Digest as _, Sha256};
use streamgate_agent::{self as agent, InvalidationKind};
use tower::Service;

use super::kept::Store;
use crate::api::reply::SURROGATE_KEY;

/// The service behind the listener; cloning is cheap.
#[derive(Clone, Debug)]
pub(super) struct Purge {
    store: Arc<Store>,
    observe: agent::Cache,
    /// Of the token, so that comparing takes the same time whatever is given.
    digest: [u8; 32],
}

impl Purge {
    pub(super) fn new(store: Arc<Store>, observe: agent::Cache, token: &str) -> Self {
        Self {
            store,
            observe,
            digest: Sha256::digest(token).into(),
        }
    }

    fn answer(&self, method: &Method, path: &str, headers: &HeaderMap) -> StatusCode {
        if path != "/purge" {
            return StatusCode::NOT_FOUND;
        }
        if method != Method::POST {
            return StatusCode::METHOD_NOT_ALLOWED;
        }
        let token = headers
            .get(AUTHORIZATION)
            .map_or(b"".as_slice(), |value| value.as_bytes());
        let token = token.strip_prefix(b"Bearer ").unwrap_or(b"");
        if <[u8; 32]>::from(Sha256::digest(token)) != self.digest {
            return StatusCode::UNAUTHORIZED;
        }
        let values = headers.get_all(SURROGATE_KEY).iter();
        let keys = values.flat_map(|value| value.to_str().unwrap_or("").split_ascii_whitespace());
        let mut purged = 0;
        for key in keys {
            self.store.purge(key);
            purged += 1;
        }
        self.observe.invalidated(InvalidationKind::Event, purged);
        match purged {
            0 => StatusCode::BAD_REQUEST,
            _ => StatusCode::NO_CONTENT,
        }
    }
}

impl Service<Request<Incoming>> for Purge {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let status = self.answer(request.method(), request.uri().path(), request.headers());
        let mut response = Response::new(Full::default());
        *response.status_mut() = status;
        ready(Ok(response))
    }
}
