//! `POST /v1/nft/verify`, and the playback tokens that it signs.
//!
//! Breaking tests: `a_gated_stream_needs_a_token_of_an_owner`, `a_token_is_refused_after_any_change`.
//!
//! A token says who asked and for what; it holds no permission. Whoever shows it is asked about again, so
//! one that was given before a sale opens nothing after it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::Stream;
use http::header::{AUTHORIZATION, CACHE_CONTROL};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, path};

use super::ask::{Ask, ask, with};
use super::content_write::{malformed, now_micros};
use super::cursor::Signer;
use super::state::App;
use super::{answer, body, reply};
use crate::problem::Problem;

/// How long a token is good for.
const LIFE: Duration = Duration::from_secs(300);

/// Longest wait for the chain: a player that waits longer has stalled anyway.
const PATIENCE: Duration = Duration::from_secs(2);

const BODY_LIMIT: usize = 4 << 10;

/// The first byte of a signed text: not the one of cursors, so that neither passes for the other.
const VERSION: u8 = 2;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct VerifyInput {
    content_id: Uuid,
    wallet_address: String,
}

#[derive(Debug, Serialize)]
struct Verified {
    token: String,
    /// Microseconds since 1970.
    expires_at: i64,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Claim {
    content: Uuid,
    expires_at: i64,
    wallet: String,
}

impl Claim {
    fn sign(&self, signer: &Signer) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend(self.content.as_bytes());
        bytes.extend(self.expires_at.to_be_bytes());
        bytes.extend(self.wallet.as_bytes());
        signer.seal(bytes)
    }

    fn verify(signer: &Signer, text: &str) -> Option<Self> {
        let bytes = signer.open(text)?;
        let rest = bytes.strip_prefix(&[VERSION])?;
        let (content, rest) = rest.split_first_chunk::<16>()?;
        let (expires_at, wallet) = rest.split_first_chunk::<8>()?;
        Some(Self {
            content: Uuid::from_bytes(*content),
            expires_at: i64::from_be_bytes(*expires_at),
            wallet: str::from_utf8(wallet).ok()?.to_owned(),
        })
    }
}

pub(super) fn route(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    path!("v1" / "nft" / "verify")
        .and(app.observe.agent.route("/v1/nft/verify"))
        .and(with(Arc::clone(app)))
        .and(ask())
        .then(async |app, ask| answer(verify(app, ask).await))
        .boxed()
}

async fn verify<S, B>(app: Arc<App>, ask: Ask<S>) -> Result<Response, Problem>
where
    S: Stream<Item = Result<B, warp::Error>> + Send,
    B: Buf,
{
    if ask.method != Method::POST {
        return Err(Problem::MethodNotAllowed("POST"));
    }
    ask.query.finish("none")?;
    let bytes = body::json(&ask.headers, ask.body, BODY_LIMIT).await?;
    let input: VerifyInput = serde_json::from_slice(&bytes).map_err(malformed)?;
    let wallet = wallet(&input.wallet_address)?;
    let view = super::content::view(&app, input.content_id, false).await?;
    if view.content.is_gated() && !owns(&app, &wallet, input.content_id).await? {
        return Err(Problem::Gated);
    }
    let life = i64::try_from(LIFE.as_micros()).unwrap_or(i64::MAX);
    let claim = Claim {
        content: input.content_id,
        expires_at: now_micros().saturating_add(life),
        wallet,
    };
    let verified = Verified {
        token: claim.sign(&app.signer),
        expires_at: claim.expires_at,
    };
    let json = serde_json::to_vec(&verified).map_err(malformed)?;
    let mut response = reply::json(StatusCode::OK, Bytes::from(json), true);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Lets through whoever shows a token of an owner; the chain is asked each time.
///
/// # Errors
/// [`Problem::Gated`] without such a token, [`Problem::Overloaded`] when the chain does not answer.
pub(super) async fn admit(app: &App, content: Uuid, token: Option<&str>) -> Result<(), Problem> {
    let claim = token.and_then(|text| Claim::verify(&app.signer, text));
    let claim = claim.filter(|claim| claim.content == content && claim.expires_at > now_micros());
    let claim = claim.ok_or(Problem::Gated)?;
    if owns(app, &claim.wallet, content).await? {
        Ok(())
    } else {
        Err(Problem::Gated)
    }
}

/// The token of a request: in its query, where players can put it, or as a bearer.
pub(super) fn token(query: Option<String>, headers: &HeaderMap) -> Option<String> {
    let bearer = || {
        let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
        Some(value.strip_prefix("Bearer ")?.to_owned())
    };
    query.or_else(bearer)
}

async fn owns(app: &App, wallet: &str, content: Uuid) -> Result<bool, Problem> {
    match tokio::time::timeout(PATIENCE, app.gate.owns(wallet, content)).await {
        Ok(Ok(owns)) => Ok(owns),
        Ok(Err(error)) => {
            tracing::debug!(%error, "the gate is not answered");
            Err(Problem::Overloaded)
        }
        Err(_) => Err(Problem::Overloaded),
    }
}

/// A wallet's address, without the capitals that make a checksum.
fn wallet(text: &str) -> Result<String, Problem> {
    let digits = text.strip_prefix("0x").unwrap_or("");
    if digits.len() != 40 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let wanted = "0x and 40 hexadecimal digits";
        return Err(Problem::parameter("wallet_address", wanted, text));
    }
    Ok(text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_refused_after_any_change() {
        let signer = Signer::new(&[]);
        let claim = Claim {
            content: Uuid::from_u128(7),
            expires_at: 9,
            wallet: "0xab".to_owned(),
        };
        let text = claim.sign(&signer);
        assert_eq!(Claim::verify(&signer, &text), Some(claim));
        for at in 0..text.len() {
            for letter in ["A", "z", "_", "=", ""] {
                let mut changed = text.clone();
                changed.replace_range(at..=at, letter);
                assert!(changed == text || Claim::verify(&signer, &changed).is_none());
            }
        }
        assert!(Claim::verify(&Signer::new(&[]), &text).is_none());
    }

    #[test]
    fn a_token_is_taken_from_the_query_or_from_the_header() {
        let mut headers = HeaderMap::new();
        assert_eq!(token(None, &headers), None);
        assert_eq!(token(Some("q".to_owned()), &headers).as_deref(), Some("q"));
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer h"));
        assert_eq!(token(None, &headers).as_deref(), Some("h"));
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Basic h"));
        assert_eq!(token(None, &headers), None);
    }
}
