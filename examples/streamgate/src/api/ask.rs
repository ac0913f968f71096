//! The parts of a request that handlers look at, as one filter.

use std::convert::Infallible;

use bytes::Buf;
use futures_util::Stream;
use http::{HeaderMap, Method};
use warp::{Filter, Rejection};

use crate::problem::Problem;

/// Method, headers, query and unread body.
#[derive(Debug)]
pub(super) struct Ask<S> {
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) query: Query,
    pub(super) body: S,
}

/// The pairs of a query, taken one by one; what nobody took is an error.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

/// Extracts an [`Ask`].
pub(super) fn ask() -> impl Filter<
    Extract = (Ask<impl Stream<Item = Result<impl Buf, warp::Error>> + Send>,),
    Error = Rejection,
> + Clone {
    warp::method()
        .and(warp::header::headers_cloned())
        .and(warp::query())
        .and(warp::body::stream())
        .map(|method, headers, pairs, body| Ask {
            method,
            headers,
            query: Query(pairs),
            body,
        })
}

/// Gives the same value to each request.
pub(super) fn with<T: Clone + Send>(
    value: T,
) -> impl Filter<Extract = (T,), Error = Infallible> + Clone {
    warp::any().map(move || value.clone())
}

impl Query {
    /// The value of a parameter, once.
    pub(super) fn take(&mut self, name: &str) -> Result<Option<String>, Problem> {
        let Some(at) = self.0.iter().position(|(given, _)| given == name) else {
            return Ok(None);
        };
        let (_, value) = self.0.swap_remove(at);
        if self.0.iter().any(|(given, _)| given == name) {
            return Err(Problem::BadParameter(format!("{name} must be given once")));
        }
        Ok(Some(value))
    }

    /// Refuses a parameter that no handler knows: a misspelt filter must not list everything.
    pub(super) fn finish(self, known: &str) -> Result<(), Problem> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(Problem::parameter(
                "parameter",
                &format!("one of {known}"),
                name,
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_given_twice_and_an_unknown_one_are_refused() {
        let pairs = |text: &[(&str, &str)]| {
            Query(
                text.iter()
                    .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
                    .collect(),
            )
        };
        assert!(
            pairs(&[("limit", "1"), ("limit", "2")])
                .take("limit")
                .is_err()
        );
        let mut query = pairs(&[("limit", "1"), ("limits", "2")]);
        assert_eq!(query.take("limit").unwrap().as_deref(), Some("1"));
        assert!(query.finish("limit").is_err());
    }
}
