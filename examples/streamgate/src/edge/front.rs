//! The way of one request: kept, stale and fetched anew, fetched, or passed on.
//!
//! Guide 2.1, level L3. Metric: `cache_requests_total{cache_level="l3"}` by result and class. Breaking tests:
//! `hit_miss_stale_and_bypass_are_told_apart`, `gated_content_is_never_kept`.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use http::header::{AUTHORIZATION, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, RANGE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, BodyStream, StreamBody};
use hyper::body::Incoming;
use streamgate_agent as agent;
use tower::Service;

use super::answer::{mark, of_kept, whole};
use super::flights::{Flight, Flights};
use super::kept::{Kept, LARGEST, Store};
use super::key::{Key, target};
use super::origin::{Body, BoxError, Failure, Origin, boxed};
use super::policy;
use crate::api::reply::SURROGATE_KEY;
use crate::problem::{Problem, TraceParent, render};

/// Fetches that may end purged before a client gets what there is: one can be under way when it asks.
const FETCHES: usize = 3;

/// The edge's service; cloning is cheap.
#[derive(Clone, Debug)]
pub(super) struct Front(Arc<Edge>);

#[derive(Debug)]
struct Edge {
    store: Arc<Store>,
    flights: Flights<Fetched>,
    origin: Origin,
    observe: agent::Cache,
}

/// How a fetch ended, for all who waited for it.
#[derive(Clone, Debug)]
enum Fetched {
    Kept(Arc<Kept>),
    /// Not for others: whoever began the fetch takes it.
    Own(Arc<Mutex<Option<Response<Body>>>>),
    Failed(Failure),
}

/// What of a request decides about the answer; its body is empty.
#[derive(Clone, Debug)]
struct Ask {
    method: Method,
    key: Key,
    headers: HeaderMap,
}

impl Front {
    pub(super) fn new(store: Arc<Store>, origin: Origin, observe: agent::Cache) -> Self {
        Self(Arc::new(Edge {
            store,
            flights: Flights::default(),
            origin,
            observe,
        }))
    }
}

impl Service<Request<Incoming>> for Front {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let edge = Arc::clone(&self.0);
        let trace = TraceParent::of(request.headers());
        Box::pin(async move {
            let answer = edge.answer(request).await;
            Ok(answer.unwrap_or_else(|problem| {
                render(problem.into_response(), &trace)
                    .map(|body| body.map_err(BoxError::from).boxed_unsync())
            }))
        })
    }
}

impl Edge {
    async fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Problem> {
        // CONNECT names a host and no path; this is no tunnel.
        if request.uri().path_and_query().is_none() {
            return Err(Problem::NotFound);
        }
        let (parts, body) = request.into_parts();
        let path = target(&parts.uri).to_owned();
        if parts.method != Method::GET && parts.method != Method::HEAD {
            let sent = self
                .origin
                .send(parts.method, &path, parts.headers, boxed(body));
            let response = sent.await?;
            // RFC 9111 section 4.4: a write voids what is kept of its target.
            if !response.status().is_client_error() && !response.status().is_server_error() {
                self.store.purge(&path);
            }
            return Ok(passed(response, "fwd=method"));
        }
        if policy::passes(&parts.headers) {
            let lookup = self.observe.get();
            let reason = if parts.headers.contains_key(AUTHORIZATION) {
                "fwd=bypass; detail=authorization"
            } else {
                "fwd=bypass; detail=no-store"
            };
            let sent = self
                .origin
                .send(parts.method, &path, parts.headers, boxed(body));
            let response = sent.await?;
            lookup.bypass(policy::class(response.status(), response.headers()));
            return Ok(passed(response, reason));
        }
        let ask = Ask {
            key: Key::of(&parts.uri, &parts.headers),
            method: parts.method,
            headers: parts.headers,
        };
        self.look_up(ask).await
    }

    async fn look_up(self: &Arc<Self>, ask: Ask) -> Result<Response<Body>, Problem> {
        let lookup = self.observe.get();
        let old = self.store.get(&ask.key).await;
        if let Some(kept) = &old {
            let class = policy::class(kept.status, &kept.headers);
            if kept.is_fresh() {
                lookup.hit(class);
                return Ok(answered(kept, &ask, "hit"));
            }
            if kept.may_be_stale() {
                // Those who come meanwhile join the same fetch; nobody waits for it.
                let (refresh, began) = self.fetch(&ask, old.clone());
                drop(refresh);
                if began {
                    self.observe.refreshed();
                }
                lookup.stale(class);
                return Ok(answered(kept, &ask, "hit"));
            }
        }
        if policy::only_if_cached(&ask.headers) {
            return Err(Problem::GatewayTimeout);
        }
        let started = Instant::now();
        let why = if old.is_some() {
            "fwd=stale"
        } else {
            "fwd=uri-miss"
        };
        for _ in 0..FETCHES {
            let (fetched, began) = self.fetch(&ask, old.clone());
            match fetched
                .await
                .unwrap_or(Fetched::Failed(Failure::Unreachable))
            {
                Fetched::Kept(kept) => {
                    // A fetch that began before a purge may carry what the purge was for.
                    if !began && !self.store.is_valid(&kept) {
                        continue;
                    }
                    let class = policy::class(kept.status, &kept.headers);
                    if !began {
                        self.observe.coalesced(true, started.elapsed());
                    }
                    lookup.miss(class);
                    let how = if began { "; stored" } else { "; collapsed" };
                    return Ok(answered(&kept, &ask, &format!("{why}{how}")));
                }
                Fetched::Own(response) => {
                    let own = response
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .take();
                    // A whole answer is none to a request for a part, or for news only.
                    let plain = ![RANGE, IF_NONE_MATCH, IF_MODIFIED_SINCE]
                        .iter()
                        .any(|name| ask.headers.contains_key(name));
                    let response = match own.filter(|_| began && plain) {
                        Some(response) => response,
                        None => self.pass(&ask).await?,
                    };
                    lookup.bypass(policy::class(response.status(), response.headers()));
                    return Ok(marked(response, "fwd=bypass; detail=uncacheable"));
                }
                Fetched::Failed(failure) => {
                    if let Some(kept) = old.as_ref().filter(|kept| kept.serves_errors()) {
                        lookup.stale(policy::class(kept.status, &kept.headers));
                        return Ok(answered(kept, &ask, "hit; detail=stale-if-error"));
                    }
                    if !began {
                        self.observe.coalesced(false, started.elapsed());
                    }
                    return Err(failure.into());
                }
            }
        }
        // Purged faster than it is fetched: everybody for himself.
        let response = self.pass(&ask).await?;
        lookup.bypass(policy::class(response.status(), response.headers()));
        Ok(marked(response, "fwd=bypass; detail=purged"))
    }

    /// Begins a fetch, or joins the one under way.
    fn fetch(self: &Arc<Self>, ask: &Ask, old: Option<Arc<Kept>>) -> (Flight<Fetched>, bool) {
        let (edge, ask) = (Arc::clone(self), ask.clone());
        self.flights.join(&ask.key.clone(), move || {
            agent::in_request(async move { edge.load(&ask, old).await })
        })
    }

    async fn load(&self, ask: &Ask, old: Option<Arc<Kept>>) -> Fetched {
        let began = self.store.now();
        let mut headers = self.shared(ask);
        for conditional in [IF_NONE_MATCH, IF_MODIFIED_SINCE, RANGE, IF_RANGE] {
            headers.remove(conditional);
        }
        if let Some(tag) = old.as_ref().and_then(|old| old.etag()) {
            headers.insert(IF_NONE_MATCH, tag.clone());
        }
        let sent = self
            .origin
            .send(Method::GET, ask.key.target(), headers, whole(Bytes::new()));
        let response = match sent.await {
            Ok(response) => response,
            Err(failure) => return Fetched::Failed(failure),
        };
        let (mut parts, body) = response.into_parts();
        if let Some(old) = old {
            if parts.status == StatusCode::NOT_MODIFIED {
                // The answer's headers replace the kept ones; what it leaves out stays.
                let mut headers = old.headers.clone();
                for (name, value) in &parts.headers {
                    headers.insert(name, value.clone());
                }
                let body = old.body.clone();
                (parts.status, parts.headers) = (old.status, headers);
                return self.keep(&ask.key, parts, body, began).await;
            }
            let failed = matches!(parts.status.as_u16(), 500 | 502 | 503 | 504);
            if failed && old.serves_errors() {
                return Fetched::Failed(Failure::Unreachable);
            }
        }
        let long = usize::try_from(body.size_hint().lower()).is_ok_and(|least| least > LARGEST);
        if long || policy::lives(parts.status, &parts.headers).is_none() {
            return own(Response::from_parts(parts, boxed(body)));
        }
        match tokio::time::timeout(self.origin.deadline(), read(body)).await {
            Ok(Ok(Read::Whole(body))) => self.keep(&ask.key, parts, body, began).await,
            Ok(Ok(Read::Long(body))) => own(Response::from_parts(parts, body)),
            Ok(Err(error)) => {
                tracing::debug!(%error, "the origin broke off an answer");
                Fetched::Failed(Failure::Unreachable)
            }
            Err(_) => Fetched::Failed(Failure::TooSlow),
        }
    }

    /// Keeps what may be kept; a validation can have brought other headers.
    async fn keep(
        &self,
        key: &Key,
        parts: http::response::Parts,
        body: Bytes,
        began: u64,
    ) -> Fetched {
        let Some(lives) = policy::lives(parts.status, &parts.headers) else {
            return own(Response::from_parts(parts, whole(body)));
        };
        let kept = self
            .store
            .keep(key, parts.status, parts.headers, body, lives, began);
        let kept = Arc::new(kept);
        self.store.insert(key.clone(), Arc::clone(&kept)).await;
        Fetched::Kept(kept)
    }

    /// Asks the origin for this client alone.
    async fn pass(&self, ask: &Ask) -> Result<Response<Body>, Problem> {
        let empty = whole(Bytes::new());
        let headers = self.shared(ask);
        let sent = self
            .origin
            .send(ask.method.clone(), ask.key.target(), headers, empty);
        Ok(sent.await?.map(boxed))
    }

    fn shared(&self, ask: &Ask) -> HeaderMap {
        let mut headers = ask.headers.clone();
        ask.key.write(&mut headers);
        headers
    }
}

enum Read {
    Whole(Bytes),
    /// Longer than what is kept; what was read already comes first.
    Long(Body),
}

async fn read(mut body: Incoming) -> Result<Read, hyper::Error> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            bytes.extend_from_slice(&data);
        }
        if bytes.len() > LARGEST {
            let first = stream::once(std::future::ready(Ok(Frame::data(bytes.freeze()))));
            let rest = BodyStream::new(body).map(|frame| frame.map_err(BoxError::from));
            return Ok(Read::Long(
                StreamBody::new(first.chain(rest)).boxed_unsync(),
            ));
        }
    }
    // What may be kept has no room to spare, which no weight would count.
    Ok(Read::Whole(Bytes::copy_from_slice(&bytes)))
}

fn own(response: Response<Body>) -> Fetched {
    Fetched::Own(Arc::new(Mutex::new(Some(response))))
}

fn answered(kept: &Kept, ask: &Ask, how: &str) -> Response<Body> {
    let ttl = i128::from(kept.lives.fresh.as_secs()) - i128::from(kept.age().as_secs());
    let response = of_kept(kept, &ask.method, &ask.headers);
    marked(response, &format!("{how}; ttl={ttl}"))
}

fn passed(response: Response<Incoming>, how: &str) -> Response<Body> {
    marked(response.map(boxed), how)
}

fn marked(mut response: Response<Body>, how: &str) -> Response<Body> {
    response.headers_mut().remove(SURROGATE_KEY);
    mark(&mut response, how);
    response
}
