//! The warp filter that names the route: warp tells nobody which path it matched.

use std::convert::Infallible;
use std::sync::Arc;

use warp::Filter;

use super::routes::Route;
use super::scope;

/// A filter that always passes and says which route the running request took.
pub(crate) fn filter(
    route: Arc<Route>,
) -> impl Filter<Extract = (), Error = Infallible> + Clone + Send + Sync + 'static {
    warp::any()
        .map(move || scope::set_route(&route))
        .untuple_one()
}
