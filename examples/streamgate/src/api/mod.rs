//! The HTTP API as warp filters.
//!
//! Owns: routes, parameters, bodies, cursors, tags and the JSON of answers. May use: `db`, `cache`,
//! `problem`, the handles of `observe`. Absent: sockets, compression and limits on connections,
//! which lie around it in `serve`; SQL.
//!
//! Each path is one filter that stores its template for the metrics and then looks at the method:
//! so a wrong method is 405 with the allowed ones, labelled with its route.

mod admin;
mod ask;
mod batch;
mod body;
mod content;
mod content_write;
mod cursor;
pub(crate) mod etag;
mod fields;
mod input;
mod jobs;
mod kept;
mod list;
mod media;
mod nft;
mod page;
mod range;
pub(crate) mod reply;
mod rows;
mod state;
mod streams;
mod transactions;
mod users;
mod verify;
mod wire;

use std::convert::Infallible;
use std::sync::Arc;

use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, Rejection};

pub use admin::Admin as AdminAccess;
pub(crate) use admin::routes as admin_routes;
pub(crate) use kept::{Encoded, Kept};
pub(crate) use state::{App, Levels};

use crate::problem::Problem;

/// All routes; every rejection is a problem.
pub(crate) fn routes(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    content::routes(app)
        .or(batch::route(app))
        .unify()
        .or(users::route(app))
        .unify()
        .or(verify::route(app))
        .unify()
        .or(streams::routes(app))
        .unify()
        .or(nft::route(app))
        .unify()
        .or(transactions::route(app))
        .unify()
        .or(jobs::route(app))
        .unify()
        .recover(rejected)
        .unify()
        .boxed()
}

/// The answer of a handler, whatever it is.
fn answer(result: Result<Response, Problem>) -> Response {
    result.unwrap_or_else(Problem::into_response)
}

async fn rejected(rejection: Rejection) -> Result<Response, Infallible> {
    let problem = if rejection.find::<warp::reject::InvalidQuery>().is_some() {
        Problem::BadParameter("the query must be name=value pairs".to_owned())
    } else {
        Problem::NotFound
    };
    Ok(problem.into_response())
}
