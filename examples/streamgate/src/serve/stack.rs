//! The layers around the routes, from the outside in.
//!
//! Guide 3.1 (compression). Breaking tests: `small_answers_are_not_compressed`,
//! `the_encoding_is_what_the_client_ranks_first`.

use std::convert::Infallible;
use std::sync::Arc;

use http::{Extensions, HeaderMap, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use tower::{Layer as _, Service};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate as _, SizeAbove};

use super::front::Front;
use super::gzip::GzipAnswers;
use super::origin::Origin;
use super::reuse::Reuse;
use crate::api::{App, routes};
use crate::faults::Fault;
use crate::settings::Settings;

/// Smallest body that is compressed: below it the answer fits one packet anyway. tower-http's own
/// default is 32 bytes.
const SMALLEST: u64 = 1_024;

/// Packed already, and asked for in parts, whose numbers are those of the plain bytes.
const VIDEO: NotForContentType = NotForContentType::const_new("video/");

/// What answers a connection's requests.
pub(crate) trait Serves:
    Service<
        Request<Incoming>,
        Response = Response<Self::Sent>,
        Error = Infallible,
        Future: Send + 'static,
    > + Clone
    + Send
    + 'static
{
    /// The body of its answers.
    type Sent: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + 'static;
}

impl<S, R> Serves for S
where
    S: Service<
            Request<Incoming>,
            Response = Response<R>,
            Error = Infallible,
            Future: Send + 'static,
        > + Clone
        + Send
        + 'static,
    R: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    type Sent = R;
}

/// The whole service of one request, under the agent's eyes.
pub(super) fn stack(app: &Arc<App>, settings: &Settings) -> impl Serves {
    let observed = app.observe.agent.http_layer();
    observed.layer(unobserved(app, settings))
}

/// The same without the agent's layer: what a request costs without it is measured against this.
pub(super) fn unobserved(app: &Arc<App>, settings: &Settings) -> impl Serves {
    let origin = Origin::new(warp::service(routes(app)), settings, app.observe.clone());
    // gzip, brotli and zstd as the client ranks them, by Accept-Encoding with its weights. Not
    // `warp::compression`: it ignores the header and sets no Vary.
    let faults = app.observe.faults.clone();
    let saved = app.observe.compressions_saved.clone();
    let reused = Reuse::new(origin, saved, faults.clone());
    let gzipped = GzipAnswers::new(reused, app.work.gzip.clone(), faults.clone(), SMALLEST);
    let gzip_on = move |_: StatusCode, _: Version, _: &HeaderMap, _: &Extensions| {
        !faults.is_on(Fault::GzipOff)
    };
    let compressed = CompressionLayer::new()
        .quality(CompressionLevel::Fastest)
        .compress_when(
            gzip_on
                .and(SizeAbove::new(SMALLEST))
                .and(NotForContentType::SSE)
                .and(VIDEO),
        )
        .layer(gzipped);
    Front::new(compressed, &app.observe)
}
