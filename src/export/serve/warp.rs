//! The endpoints as a warp filter.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::Method;
use http_body::{Body, Frame};
use warp::filters::BoxedFilter;
use warp::path::Tail;
use warp::{Filter, Rejection, Stream};

use super::tower::{AgentService, Connected, Head};

impl AgentService {
    /// The endpoints as a warp filter that answers every request it sees, below whatever path
    /// filters stand before it.
    ///
    /// ```no_run
    /// use warp::Filter;
    /// # fn mount(agent: streamgate_agent::AgentHandle) {
    /// let routes = warp::path("agent").and(agent.service().filter());
    /// # drop(routes);
    /// # }
    /// ```
    pub fn filter(&self) -> BoxedFilter<(warp::reply::Response,)> {
        let service = self.clone();
        let query = warp::query::raw().or(warp::any().map(String::new)).unify();
        let below = warp::path::tail()
            .and(query)
            .map(|path: Tail, query: String| format!("/{}?{query}", path.as_str()));
        let root = warp::any().map(|| "/".to_owned());
        // CONNECT has no path, and warp 0.4.3 panics on looking for it.
        let target = has_path().and(below).or(root).unify();
        let no_authority = warp::any().map(|| None);
        let authority = warp::host::optional().or(no_authority).unify();
        warp::method()
            .and(target)
            .and(authority)
            .and(warp::header::headers_cloned())
            .and(warp::ext::optional::<Connected>())
            .and(warp::body::stream())
            .then(
                move |method, target, authority: Option<_>, headers, connected, body| {
                    let head = Head {
                        method,
                        target,
                        authority: authority.map(|name: http::uri::Authority| name.to_string()),
                        headers,
                        connected,
                    };
                    let service = service.clone();
                    async move {
                        let response = service.answer(head, Streamed(Box::pin(body))).await;
                        response.map(super::AgentBody::into_bytes)
                    }
                },
            )
            .map(warp::Reply::into_response)
            .boxed()
    }
}

fn has_path() -> impl Filter<Extract = (), Error = Rejection> + Copy {
    let checked = warp::method().and_then(async |method: Method| {
        if method == Method::CONNECT {
            return Err(warp::reject::not_found());
        }
        Ok(())
    });
    checked.untuple_one()
}

/// warp's stream of a request body, as a body again.
struct Streamed<S>(Pin<Box<S>>);

impl<S, D> Body for Streamed<S>
where
    S: Stream<Item = Result<D, warp::Error>>,
    D: Buf,
{
    type Data = Bytes;
    type Error = warp::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, warp::Error>>> {
        let next = self.0.as_mut().poll_next(context);
        next.map_ok(|mut data| Frame::data(data.copy_to_bytes(data.remaining())))
    }
}
