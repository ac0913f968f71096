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
use crate::api::{App, routes};
use crate::faults::Fault;
use crate::settings::Settings;

/// Smallest body that is compressed: below it the answer fits one packet anyway. tower-http's own
/// default is 32 bytes.
const SMALLEST: u64 = 1_024;

/// The whole service of one request.
pub(super) fn stack(
    app: &Arc<App>,
    settings: &Settings,
) -> impl Service<
    Request<Incoming>,
    Response = Response<
        impl Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    >,
    Error = Infallible,
    Future: Send + 'static,
> + Clone
+ Send
+ 'static {
    let origin = Origin::new(
        warp::service(routes(app)),
        settings.in_flight,
        settings.request_deadline,
        app.observe.clone(),
    );
    // gzip, brotli and zstd as the client ranks them, by Accept-Encoding with its weights. Not
    // `warp::compression`: it ignores the header and sets no Vary.
    let faults = app.observe.faults.clone();
    let gzipped = GzipAnswers::new(origin, app.work.gzip.clone(), faults.clone(), SMALLEST);
    let gzip_on = move |_: StatusCode, _: Version, _: &HeaderMap, _: &Extensions| {
        !faults.is_on(Fault::GzipOff)
    };
    let compressed = CompressionLayer::new()
        .quality(CompressionLevel::Fastest)
        .compress_when(
            gzip_on
                .and(SizeAbove::new(SMALLEST))
                .and(NotForContentType::SSE),
        )
        .layer(gzipped);
    app.observe
        .agent
        .http_layer()
        .layer(Front::new(compressed, &app.observe))
}
