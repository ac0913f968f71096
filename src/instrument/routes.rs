//! Route templates and, for each, the series that its requests have used so far.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock, RwLock};

use super::method::{self, Method};
use crate::catalog::families as rows;
use crate::store::Store;
use crate::store::awaits::Frame;
use crate::store::label::{self, LabelSet};
use crate::store::metrics::{Counter, Histogram};
use crate::store::sync::{read, write};

/// The route of requests that matched none: never the path, which clients choose.
pub(crate) const UNMATCHED: &str = "<unmatched>";

/// The route of templates beyond [`ROUTES`].
const OTHER: &str = "_OTHER";

/// Templates kept apart.
const ROUTES: usize = 1_000;

/// Places for a route's combinations of method, status, scheme and error. A route answers one or
/// two methods with a handful of statuses; a combination beyond these pays a lookup per request.
const PLACES: usize = 32;

/// What tells one request series of a route from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) method: Method,
    /// 0: the request ended without a response.
    pub(crate) status: u16,
    pub(crate) scheme: &'static str,
    pub(crate) error: &'static str,
}

impl Outcome {
    fn spread(&self) -> usize {
        usize::from(self.status) * 7 + self.method.place() * 3 + self.error.len()
    }
}

/// The handles that one finished request writes to.
#[derive(Debug)]
pub(crate) struct RequestSeries {
    pub(crate) duration: Histogram,
    pub(crate) request_size: Histogram,
    pub(crate) response_size: Histogram,
    pub(crate) first_byte: Histogram,
}

pub(crate) struct Route {
    template: Arc<str>,
    store: Arc<Store>,
    places: [OnceLock<(Outcome, Arc<RequestSeries>)>; PLACES],
    queries: Histogram,
    frame: Frame,
    aborted: [Counter; ABORTS.len()],
    labels: [OnceLock<LabelSet>; method::COUNT],
}

/// Why a response ended before its last byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Abort {
    Client,
    BodyError,
    Panic,
    Timeout,
}

const ABORTS: [(Abort, &str); 4] = [
    (Abort::Client, "client"),
    (Abort::BodyError, "body_error"),
    (Abort::Panic, "panic"),
    (Abort::Timeout, "timeout"),
];

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("template", &self.template)
            .finish_non_exhaustive()
    }
}

impl Route {
    fn new(store: &Arc<Store>, template: &str) -> Self {
        let metrics = &store.metrics;
        let aborted = ABORTS.map(|(_, reason)| {
            metrics.own_counter(&rows::HTTP_SERVER_RESPONSE_ABORTED, &[template, reason])
        });
        Self {
            template: template.into(),
            store: Arc::clone(store),
            places: [const { OnceLock::new() }; PLACES],
            queries: metrics.own_histogram(&rows::DB_QUERIES_PER_REQUEST, &[template]),
            frame: store.awaits.frame(template),
            aborted,
            labels: [const { OnceLock::new() }; method::COUNT],
        }
    }

    pub(crate) fn template(&self) -> &Arc<str> {
        &self.template
    }

    /// What CPU samples of a request of this route say; found without a lock after the first time.
    pub(crate) fn labels(&self, method: Method) -> LabelSet {
        let make = || method_labels(method).with(label::ROUTE, &self.template);
        let place = self.labels.get(method.place());
        place.map_or_else(make, |place| *place.get_or_init(make))
    }

    /// Its name among those of awaits.
    pub(crate) fn frame(&self) -> Frame {
        self.frame
    }

    /// The handles for this outcome; found without a lock or an allocation after the first time.
    pub(crate) fn series(&self, outcome: Outcome) -> Arc<RequestSeries> {
        let start = outcome.spread() % PLACES;
        let (tail, head) = self.places.split_at(start);
        for place in head.iter().chain(tail) {
            // Another thread may be first here, with this outcome or another.
            let (held, series) = place.get_or_init(|| (outcome, Arc::new(self.resolve(outcome))));
            if *held == outcome {
                return Arc::clone(series);
            }
        }
        Arc::new(self.resolve(outcome))
    }

    pub(crate) fn count_queries(&self, queries: u32) {
        self.queries.record_value(u64::from(queries));
    }

    pub(crate) fn count_abort(&self, abort: Abort) {
        let place = ABORTS.iter().position(|(known, _)| *known == abort);
        let counter = place.and_then(|place| self.aborted.get(place));
        if let Some(counter) = counter {
            counter.inc();
        }
    }

    fn resolve(&self, outcome: Outcome) -> RequestSeries {
        let metrics = &self.store.metrics;
        let (method, route) = (outcome.method.name(), &*self.template);
        let status = if outcome.status == 0 {
            String::new()
        } else {
            outcome.status.to_string()
        };
        let labels = [method, route, &status, outcome.scheme, outcome.error];
        let sized = [method, route, &status];
        RequestSeries {
            duration: metrics.own_histogram(&rows::HTTP_SERVER_REQUEST_DURATION, &labels),
            request_size: metrics.own_histogram(&rows::HTTP_SERVER_REQUEST_BODY_SIZE, &sized),
            response_size: metrics.own_histogram(&rows::HTTP_SERVER_RESPONSE_BODY_SIZE, &sized),
            first_byte: metrics
                .own_histogram(&rows::HTTP_SERVER_TIME_TO_FIRST_BYTE, &[method, route]),
        }
    }
}

/// What CPU samples of a request say before its route is known.
pub(crate) fn method_labels(method: Method) -> LabelSet {
    static SETS: [OnceLock<LabelSet>; method::COUNT] = [const { OnceLock::new() }; method::COUNT];
    let make = || LabelSet::NONE.with(label::METHOD, method.name());
    let place = SETS.get(method.place());
    place.map_or_else(make, |place| *place.get_or_init(make))
}

/// All routes, found by their template.
#[derive(Debug)]
pub(crate) struct Routes {
    store: Arc<Store>,
    by_template: RwLock<HashMap<Box<str>, Arc<Route>>>,
    unmatched: Arc<Route>,
    other: Arc<Route>,
}

impl Routes {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        let unmatched = Arc::new(Route::new(&store, UNMATCHED));
        let other = Arc::new(Route::new(&store, OTHER));
        Self {
            store,
            by_template: RwLock::default(),
            unmatched,
            other,
        }
    }

    /// The route of a template, made on first use.
    pub(crate) fn get(&self, template: &str) -> Arc<Route> {
        if let Some(route) = read(&self.by_template).get(template) {
            return Arc::clone(route);
        }
        let mut routes = write(&self.by_template);
        if routes.len() >= ROUTES && !routes.contains_key(template) {
            return Arc::clone(&self.other);
        }
        let make = || Arc::new(Route::new(&self.store, template));
        Arc::clone(routes.entry(template.into()).or_insert_with(make))
    }

    pub(crate) fn unmatched(&self) -> Arc<Route> {
        Arc::clone(&self.unmatched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: Outcome = Outcome {
        method: Method::GET,
        status: 200,
        scheme: "http",
        error: "",
    };

    #[test]
    fn a_second_request_of_an_outcome_gets_the_same_series() {
        let routes = Routes::new(Arc::new(Store::new(1000)));
        let route = routes.get("/a/{id}");
        let first = route.series(OK);
        assert!(Arc::ptr_eq(&first, &route.series(OK)));
        let other = route.series(Outcome { status: 404, ..OK });
        assert!(!Arc::ptr_eq(&first, &other));
    }

    #[test]
    fn more_outcomes_than_places_still_find_series() {
        let routes = Routes::new(Arc::new(Store::new(10_000)));
        let route = routes.get("/a");
        for status in 100..400 {
            route
                .series(Outcome { status, ..OK })
                .response_size
                .record_value(1);
        }
    }

    #[test]
    fn templates_beyond_the_limit_share_a_route() {
        let routes = Routes::new(Arc::new(Store::new(100)));
        let all: Vec<_> = (0..ROUTES + 2)
            .map(|n| routes.get(&format!("/{n}")))
            .collect();
        assert!(Arc::ptr_eq(&all[ROUTES], &all[ROUTES + 1]));
        assert!(!Arc::ptr_eq(&all[0], &all[1]));
    }
}
