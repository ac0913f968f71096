//! Every answer that is no success: one enum to status and RFC 9457 body.
//!
//! Breaking test: `no_answer_carries_sql_or_inner_text`. Clients get what they can act on; the
//! inner cause goes to the log under the same `trace_id`.

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_RANGE, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use warp::reply::Response;

use crate::cache::LoadError;
use crate::db::DbError;
use crate::db::content_write::RowFault;

/// Bytes of a client's value that an answer repeats.
const ECHO: usize = 32;

/// Why a request is not answered with success.
#[derive(Clone, Debug)]
pub(crate) enum Problem {
    /// A value is out of range or malformed; the text names parameter, range and value.
    BadParameter(String),
    BadCursor,
    UnknownField {
        field: String,
        known: &'static [&'static str],
    },
    /// No such route or row.
    NotFound,
    MethodNotAllowed(&'static str),
    Exists,
    /// The same idempotency key is being worked on.
    InProgress,
    PreconditionFailed,
    PreconditionRequired,
    BodyTooLarge {
        limit: usize,
    },
    UnsupportedMediaType(&'static str),
    BatchInvalid(Arc<[RowFault]>),
    KeyMismatch,
    /// More requests than the service takes at once, or one that took too long.
    Overloaded,
    PoolTimeout,
    /// The edge cannot reach the service, and keeps nothing to answer with.
    BadGateway,
    /// The service does not answer the edge in time.
    GatewayTimeout,
    /// As many jobs wait as may.
    QueueFull,
    /// The admin plane wants its token.
    Unauthorized,
    /// The service is not run to be broken; the text says by which setting.
    Forbidden(&'static str),
    /// The database is away for now; the cause is for the log.
    Unavailable(Arc<dyn Error + Send + Sync>),
    /// The content is for owners of an NFT, and the request does not show one.
    Gated,
    /// The range begins behind the end.
    RangeNotSatisfiable {
        length: u64,
    },
    /// Our fault; the cause is for the log.
    Internal(Arc<dyn Error + Send + Sync>),
}

/// What a problem is rendered as.
#[derive(Serialize)]
struct Body<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    trace_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<&'a [RowFault]>,
}

impl Problem {
    /// `name must be range (got "value")`, with the value cut and escaped.
    pub(crate) fn parameter(name: &str, range: &str, seen: &str) -> Self {
        let cut = seen
            .char_indices()
            .map(|(at, c)| at + c.len_utf8())
            .take_while(|end| *end <= ECHO);
        let echo = seen.get(..cut.last().unwrap_or(0)).unwrap_or("");
        Self::BadParameter(format!("{name} must be {range} (got {echo:?})"))
    }

    /// The response that carries this problem until [`render`] gives it a body.
    pub(crate) fn into_response(self) -> Response {
        let mut response = Response::default();
        *response.status_mut() = self.status();
        response.extensions_mut().insert(self);
        response
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::BadParameter(_) | Self::BadCursor | Self::UnknownField { .. } => {
                StatusCode::BAD_REQUEST
            }
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Exists | Self::InProgress => StatusCode::CONFLICT,
            Self::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Self::PreconditionRequired => StatusCode::PRECONDITION_REQUIRED,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BatchInvalid(_) | Self::KeyMismatch => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Overloaded | Self::PoolTimeout | Self::QueueFull | Self::Unavailable(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::BadGateway => StatusCode::BAD_GATEWAY,
            Self::GatewayTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Gated => StatusCode::FORBIDDEN,
            Self::RangeNotSatisfiable { .. } => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The last segment of the problem's type, and its title.
    fn slug_and_title(&self) -> (&'static str, &'static str) {
        match self {
            Self::BadParameter(_) => ("bad-parameter", "A parameter is not valid"),
            Self::BadCursor => ("bad-cursor", "The cursor is not valid"),
            Self::UnknownField { .. } => ("unknown-field", "A field does not exist"),
            Self::NotFound => ("not-found", "There is no such resource"),
            Self::MethodNotAllowed(_) => ("method-not-allowed", "The method is not allowed here"),
            Self::Exists => ("exists", "The resource exists already"),
            Self::InProgress => ("in-progress", "The same request is being worked on"),
            Self::PreconditionFailed => ("precondition-failed", "The resource has changed"),
            Self::PreconditionRequired => ("precondition-required", "If-Match is required"),
            Self::BodyTooLarge { .. } => ("body-too-large", "The body is too large"),
            Self::UnsupportedMediaType(_) => {
                ("unsupported-media-type", "The body is of a wrong type")
            }
            Self::BatchInvalid(_) => ("batch-invalid", "Rows of the batch are not valid"),
            Self::KeyMismatch => (
                "key-mismatch",
                "The idempotency key belongs to another request",
            ),
            Self::Overloaded => ("overloaded", "The service is overloaded"),
            Self::QueueFull => ("queue-full", "Too many jobs wait"),
            Self::PoolTimeout => ("pool-timeout", "The database is overloaded"),
            Self::BadGateway => ("bad-gateway", "The service cannot be reached"),
            Self::GatewayTimeout => ("gateway-timeout", "The service does not answer"),
            Self::Unauthorized => ("unauthorized", "The token is missing or not ours"),
            Self::Forbidden(_) => ("forbidden", "This is not allowed here"),
            Self::Unavailable(_) => ("unavailable", "The database is away for now"),
            Self::Gated => ("gated", "The content is for owners"),
            Self::RangeNotSatisfiable { .. } => ("range", "The range lies behind the end"),
            Self::Internal(_) => ("internal", "Something failed on our side"),
        }
    }

    fn detail(&self) -> String {
        match self {
            Self::BadParameter(text) => text.clone(),
            Self::BadCursor => {
                "cursor must be the next value of a page of the same list".to_owned()
            }
            Self::UnknownField { field, known } => {
                format!("fields must be of {} (got {field:?})", known.join(", "))
            }
            Self::NotFound => "nothing is kept under this path".to_owned(),
            Self::MethodNotAllowed(allow) => format!("method must be one of {allow}"),
            Self::Exists => "an object with this id exists already".to_owned(),
            Self::InProgress => "a request with this Idempotency-Key is under way".to_owned(),
            Self::PreconditionFailed => {
                "If-Match names another version than the current".to_owned()
            }
            Self::PreconditionRequired => {
                "send If-Match with the ETag of the version to change".to_owned()
            }
            Self::BodyTooLarge { limit } => format!("the body must be at most {limit} bytes"),
            Self::UnsupportedMediaType(wanted) => format!("the body must be {wanted}"),
            Self::BatchInvalid(rows) => {
                format!("nothing was written; {} errors follow", rows.len())
            }
            Self::KeyMismatch => "send another Idempotency-Key for another body".to_owned(),
            Self::Overloaded | Self::PoolTimeout | Self::QueueFull | Self::Unavailable(_) => {
                "try again after the stated time".to_owned()
            }
            Self::BadGateway | Self::GatewayTimeout => {
                "nothing is kept that could be served instead".to_owned()
            }
            Self::Unauthorized => "send Authorization: Bearer and the admin token".to_owned(),
            Self::Forbidden(why) => (*why).to_owned(),
            Self::Gated => "show a token of POST /v1/nft/verify for an owner's wallet".to_owned(),
            Self::RangeNotSatisfiable { length } => format!("there are {length} bytes"),
            Self::Internal(_) => "the cause is in the log under this trace_id".to_owned(),
        }
    }
}

impl From<DbError> for Problem {
    fn from(error: DbError) -> Self {
        match error {
            DbError::PoolTimeout => Self::PoolTimeout,
            DbError::QueryTimeout { .. } => Self::Overloaded,
            DbError::Exists => Self::Exists,
            DbError::Unavailable { .. } => Self::Unavailable(Arc::new(error)),
            DbError::Dangling | DbError::Cold(_) | DbError::Failed { .. } => {
                Self::Internal(Arc::new(error))
            }
        }
    }
}

impl From<LoadError> for Problem {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Failed(error) => error.into(),
            LoadError::TooSlow => Self::Overloaded,
        }
    }
}

/// Writes body and headers of the problem that a response carries; others pass unchanged.
pub(crate) fn render(response: Response, request_headers: &TraceParent) -> Response {
    let (mut parts, body) = response.into_parts();
    let Some(problem) = parts.extensions.remove::<Problem>() else {
        return Response::from_parts(parts, body);
    };
    let trace_id = request_headers.trace_id();
    if let Problem::Internal(cause) = &problem {
        tracing::error!(trace_id, cause = chain(cause.as_ref()), "a request failed");
    }
    if let Problem::Unavailable(cause) = &problem {
        tracing::warn!(
            trace_id,
            cause = chain(cause.as_ref()),
            "the database is away"
        );
    }
    let (slug, title) = problem.slug_and_title();
    let body = Body {
        r#type: &format!("/problems/{slug}"),
        title,
        status: problem.status().as_u16(),
        detail: &problem.detail(),
        trace_id: &trace_id,
        errors: match &problem {
            Problem::BatchInvalid(rows) => Some(rows),
            _ => None,
        },
    };
    let bytes = serde_json::to_vec(&body)
        .map(Bytes::from)
        .unwrap_or_default();
    let headers = &mut parts.headers;
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    match &problem {
        Problem::MethodNotAllowed(allow) => {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        Problem::Unauthorized => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        Problem::RangeNotSatisfiable { length } => {
            if let Ok(range) = HeaderValue::try_from(format!("bytes */{length}")) {
                headers.insert(CONTENT_RANGE, range);
            }
        }
        Problem::Overloaded
        | Problem::PoolTimeout
        | Problem::QueueFull
        | Problem::Unavailable(_) => {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        _ => {}
    }
    Response::from_parts(parts, bytes.into())
}

/// The caller's `traceparent`, kept from the request until its problem needs a name.
#[derive(Clone, Debug)]
pub(crate) struct TraceParent(Option<HeaderValue>);

impl TraceParent {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        Self(headers.get("traceparent").cloned())
    }

    /// The caller's trace id if the header is well formed (W3C Trace Context), else one at random.
    fn trace_id(&self) -> String {
        let given = self.0.as_ref().and_then(|value| value.to_str().ok());
        let given = given.and_then(|text| text.split('-').nth(1)).filter(|id| {
            id.len() == 32
                && id
                    .bytes()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
                && id.bytes().any(|byte| byte != b'0')
        });
        given.map_or_else(|| format!("{:032x}", rand::random::<u128>()), str::to_owned)
    }
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_is_cut_between_characters_and_escaped() {
        let Problem::BadParameter(text) = Problem::parameter("limit", "1..=100", &"é\n".repeat(99))
        else {
            panic!("another problem");
        };
        assert!(
            text.starts_with("limit must be 1..=100 (got \"é\\n"),
            "{text}"
        );
        assert!(text.len() < 100, "{text}");
    }

    #[test]
    fn a_trace_id_is_taken_only_when_well_formed() {
        let of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", HeaderValue::from_static(value));
            TraceParent::of(&headers).trace_id()
        };
        let given = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(
            of("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            given
        );
        for bad in [
            "",
            "00-4BF9-x",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        ] {
            assert_eq!(of(bad).len(), 32);
            assert_ne!(of(bad), of(bad), "{bad:?} gives a random one each time");
        }
    }
}
