//! The listener of the admin plane.
//!
//! Apart from the public one, so that its connections and requests are in none of the numbers that the
//! service is judged by, and no fault makes it slow.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower::Service as _;

use crate::api::{AdminAccess, App, admin_routes};
use crate::error::Fatal;
use crate::problem::{Problem, TraceParent, render};
use crate::settings::Settings;

/// Connections at once: people and scripts on this machine.
const CONNECTIONS: usize = 16;

/// Time for a request's head, and for a request in all.
const HEAD: Duration = Duration::from_secs(5);
const REQUEST: Duration = Duration::from_secs(30);

/// Pause after a failed accept, as on the public address.
const PAUSE: Duration = Duration::from_millis(100);

/// Who may change what: with the given token, or one at random.
pub(super) fn access(settings: &Settings) -> AdminAccess {
    let token = settings.admin_token.clone();
    let token = token.unwrap_or_else(|| format!("{:032x}", rand::random::<u128>()));
    AdminAccess::new(token, settings.profile)
}

/// Binds the address; the future serves until it is dropped.
///
/// # Errors
/// The address is not on loopback, or taken.
pub(super) async fn listen(
    address: SocketAddr,
    app: Arc<App>,
) -> Result<(SocketAddr, impl Future<Output = ()> + Send), Fatal> {
    if !address.ip().is_loopback() {
        return Err(Fatal::OutOfRange {
            parameter: "--admin",
            range: "an address of this machine such as 127.0.0.1:8081".to_owned(),
            seen: address.to_string(),
        });
    }
    let refused = |source| Fatal::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    Ok((bound, accept(listener, app)))
}

async fn accept(listener: TcpListener, app: Arc<App>) {
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    let routes = warp::service(admin_routes(&app));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the admin plane accepted no connection");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&free).try_acquire_owned() else {
            continue;
        };
        let routes = routes.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let trace = TraceParent::of(request.headers());
            // As on the public address: warp's filters for parts of the path panic without one.
            let has_path = request.uri().path_and_query().is_some();
            let answer = has_path.then(|| routes.clone().call(request));
            async move {
                let response = match answer {
                    Some(answer) => {
                        let Ok(response) = answer.await;
                        response
                    }
                    None => Problem::NotFound.into_response(),
                };
                Ok::<_, Infallible>(render(response, &trace))
            }
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            if let Ok(Err(error)) = tokio::time::timeout(REQUEST, serving).await {
                tracing::debug!(%error, "a connection of the admin plane ended early");
            }
            drop(place);
        });
    }
}
