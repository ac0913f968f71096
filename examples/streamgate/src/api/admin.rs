//! The admin plane: faults on command, and whether the service wants traffic.
//!
//! Answered on an address of its own that only this machine reaches; changes need a token besides, since
//! a page in a browser reaches it as well. Breaking tests: `a_change_without_the_token_is_refused`,
//! `production_refuses_faults`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Buf;
use futures_util::Stream;
use http::header::{AUTHORIZATION, CACHE_CONTROL};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, path};

use super::ask::{Ask, ask, with};
use super::content_write::malformed;
use super::state::App;
use super::{answer, body, rejected, reply};
use crate::faults::{self, LONGEST, Setting, Shown};
use crate::problem::Problem;
use crate::settings::Profile;
use crate::work::buffers::Buffers;

const BODY_LIMIT: usize = 16 << 10;

/// Who may change what.
#[derive(Clone, Debug)]
pub struct Admin {
    token: String,
    profile: Profile,
}

/// What a POST changes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    /// Settings such as `pool_max=2`.
    #[serde(default)]
    on: Vec<String>,
    /// Names; after those that are switched on.
    #[serde(default)]
    off: Vec<String>,
    /// How long what is switched on stays so.
    seconds: Option<u64>,
}

#[derive(Serialize)]
struct Faults {
    faults: Vec<Shown>,
}

impl Admin {
    pub(crate) fn new(token: String, profile: Profile) -> Self {
        Self { token, profile }
    }

    /// What a POST must carry as `Authorization: Bearer`.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    fn check(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let given = headers
            .get(AUTHORIZATION)
            .map_or(&b""[..], HeaderValue::as_bytes);
        let given = given.strip_prefix(b"Bearer ").unwrap_or_default();
        // Hashes are compared, so that the time says nothing about the token.
        if Sha256::digest(given) == Sha256::digest(&self.token) {
            Ok(())
        } else {
            Err(Problem::Unauthorized)
        }
    }
}

/// The routes of the admin plane.
pub(crate) fn routes(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    let faults = path!("admin" / "faults")
        .and(with(Arc::clone(app)))
        .and(ask())
        .then(async |app, ask| answer(faults(app, ask).await));
    let ready = path!("readyz")
        .and(with(Arc::clone(app)))
        .and(ask())
        .then(async |app: Arc<App>, ask| answer(ready(&app, ask).await));
    faults.or(ready).unify().recover(rejected).unify().boxed()
}

async fn faults<S, B>(app: Arc<App>, ask: Ask<S>) -> Result<Response, Problem>
where
    S: Stream<Item = Result<B, warp::Error>> + Send,
    B: Buf,
{
    ask.query.finish("none")?;
    let faults = &app.observe.faults;
    match ask.method {
        Method::GET | Method::HEAD => {}
        Method::POST => {
            app.admin.check(&ask.headers)?;
            if app.admin.profile == Profile::Production {
                return Err(Problem::Forbidden(
                    "faults are refused where --profile is production",
                ));
            }
            let bytes = body::json(&ask.headers, ask.body, BODY_LIMIT).await?;
            // All is checked before anything is changed.
            let change: Change = serde_json::from_slice(&bytes).map_err(malformed)?;
            let on = change.on.iter().map(|text| Setting::parse(text));
            let on = on.collect::<Result<Vec<Setting>, Problem>>()?;
            let off = change.off.iter().map(|name| faults::place(name));
            let off = off.collect::<Result<Vec<usize>, Problem>>()?;
            let longest = LONGEST.as_secs();
            let seconds = change.seconds.unwrap_or(longest);
            if !(1..=longest).contains(&seconds) {
                let range = format!("1..={longest}");
                return Err(Problem::parameter("seconds", &range, &seconds.to_string()));
            }
            faults.switch_on(on, Duration::from_secs(seconds));
            faults.switch_off(off);
        }
        _ => return Err(Problem::MethodNotAllowed("GET, HEAD, POST")),
    }
    let shown = Faults {
        faults: faults.shown(),
    };
    json(&app.work.buffers, &shown)
}

async fn ready<S>(app: &App, ask: Ask<S>) -> Result<Response, Problem> {
    if !matches!(ask.method, Method::GET | Method::HEAD) {
        return Err(Problem::MethodNotAllowed("GET, HEAD"));
    }
    ask.query.finish("none")?;
    let answer = app
        .observe
        .agent
        .respond(streamgate_agent::Request::new("GET", "/readyz").header("host", "localhost"))
        .await;
    let status = StatusCode::from_u16(answer.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let mut response = Response::new(answer.body().to_vec().into());
    *response.status_mut() = status;
    Ok(response)
}

fn json(buffers: &Buffers, shown: &impl Serialize) -> Result<Response, Problem> {
    let json = reply::written(buffers, 4 << 10, shown)?;
    let mut response = reply::json(StatusCode::OK, json, true);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
