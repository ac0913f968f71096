//! Around the routes, inside the compression: shedding, the deadline, bodies of problems.
//!
//! Metric: `http_server_requests_shed_total{reason="queue"}`. Breaking tests:
//! `a_request_over_the_limit_is_shed`, `a_request_over_its_deadline_is_503`,
//! `a_target_of_every_form_gets_an_answer`.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, Request, StatusCode};
use http_body::Body as _;
use sha2::{Digest as _, Sha256};
use streamgate_agent::ShedReason;
use tokio::sync::Semaphore;
use tower::Service;
use warp::reply::Response;

use crate::cache::asker;
use crate::edge::origin::EDGE_TOKEN;
use crate::faults::Fault;
use crate::observe::Observe;
use crate::problem::{Problem, TraceParent, render};
use crate::settings::Settings;

/// What the routes answered, for whoever stands outside the compression.
#[derive(Clone, Copy, Debug)]
pub(super) struct Original {
    /// The compression answers 406 to a client that refuses every encoding, even after a write has
    /// been done; that would be a lie.
    pub(super) status: StatusCode,
    /// Bytes of the body before compression.
    pub(super) bytes: u64,
}

/// The routes with their limits.
#[derive(Clone, Debug)]
pub(super) struct Origin<S> {
    routes: S,
    free: Arc<Semaphore>,
    deadline: Duration,
    observe: Observe,
    /// Of the secret that an edge proves itself with.
    edge: Option<[u8; 32]>,
}

/// What the fault `error_rate` answers.
#[derive(Debug, thiserror::Error)]
#[error("the fault error_rate is on")]
struct ErrorRate;

impl<S> Origin<S> {
    /// At most `in_flight` requests at once, each answered within `request_deadline`.
    pub(super) fn new(routes: S, settings: &Settings, observe: Observe) -> Self {
        let edge = settings.edge_token.as_ref();
        Self {
            routes,
            free: Arc::new(Semaphore::new(settings.in_flight)),
            deadline: settings.request_deadline,
            observe,
            edge: edge.map(|token| Sha256::digest(token).into()),
        }
    }
}

impl<S> Origin<S> {
    /// Digests are compared, so that a wrong secret takes as long as a nearly right one.
    fn is_edge(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(EDGE_TOKEN);
        let given = given.map(|token| <[u8; 32]>::from(Sha256::digest(token)));
        given.is_some() && given == self.edge
    }
}

impl<S, B> Service<Request<B>> for Origin<S>
where
    S: Service<Request<B>, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.routes.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let trace = TraceParent::of(request.headers());
        // CONNECT names a host and no path, and warp's filters for parts of the path panic without one.
        if request.uri().path_and_query().is_none() {
            let response = finish(Problem::NotFound.into_response(), &trace);
            return Box::pin(std::future::ready(Ok(response)));
        }
        let Ok(place) = Arc::clone(&self.free).try_acquire_owned() else {
            self.observe.shed(ShedReason::Queue);
            let response = finish(Problem::Overloaded.into_response(), &trace);
            return Box::pin(std::future::ready(Ok(response)));
        };
        let fills = self.is_edge(request.headers());
        let faults = &self.observe.faults;
        let (late, fails) = (faults.time(Fault::Latency), faults.fails());
        let routed = self.routes.call(request);
        let answer = tokio::time::timeout(self.deadline, async move {
            if let Some(late) = late {
                tokio::time::sleep(late).await;
            }
            if fails {
                return Ok(Problem::Internal(Arc::new(ErrorRate)).into_response());
            }
            routed.await
        });
        Box::pin(async move {
            let answer = if fills {
                asker::for_edge(answer).await
            } else {
                answer.await
            };
            let response = match answer {
                Ok(Ok(response)) => response,
                Err(_) => Problem::Overloaded.into_response(),
            };
            drop(place);
            Ok(finish(response, &trace))
        })
    }
}

fn finish(response: Response, trace: &TraceParent) -> Response {
    let mut response = render(response, trace);
    let original = Original {
        status: response.status(),
        bytes: response.body().size_hint().exact().unwrap_or(0),
    };
    response.extensions_mut().insert(original);
    response
}
