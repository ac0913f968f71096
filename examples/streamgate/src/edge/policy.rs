//! What a shared cache may keep of an answer, and for how long: RFC 9111, 5861 and 9213.
//!
//! Guide 2.1, level L3. Breaking tests: `what_may_not_be_shared_is_not_kept`,
//! `a_directive_for_cdns_goes_before_one_for_all`.
//!
//! Own code, because `http-cache-semantics` 3.0 compares directives by case, so that it would keep an
//! answer marked `Private`, writes `Date` in a form that RFC 9110 does not allow, and knows neither stale
//! windows nor directives for CDNs. Stricter than RFC 9111 where that is simpler: no heuristic lifetimes,
//! no `Expires`, nothing with `Set-Cookie`, and no answer to a request with `Authorization`.

use std::time::Duration;

use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CACHE_CONTROL, HeaderName, SET_COOKIE, VARY,
};
use http::{HeaderMap, StatusCode};
use streamgate_agent::CacheClass;

const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// How long an answer is served, counted from when it left the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lives {
    pub(super) fresh: Duration,
    /// Past `fresh`, while it is fetched anew.
    pub(super) while_revalidate: Duration,
    /// Past `fresh`, when the origin fails.
    pub(super) if_error: Duration,
}

impl Lives {
    /// When there is no more use for the answer.
    pub(super) fn longest(&self) -> Duration {
        self.fresh
            .saturating_add(self.while_revalidate.max(self.if_error))
    }
}

/// Whether the answer to such a request comes from the origin whatever is kept.
pub(super) fn passes(request: &HeaderMap) -> bool {
    request.contains_key(AUTHORIZATION) || Directives::of(request, &CACHE_CONTROL).has("no-store")
}

/// Whether the client wants nothing from beyond this cache.
pub(super) fn only_if_cached(request: &HeaderMap) -> bool {
    Directives::of(request, &CACHE_CONTROL).has("only-if-cached")
}

/// How long an answer may be kept; `None` when it may not.
pub(super) fn lives(status: StatusCode, headers: &HeaderMap) -> Option<Lives> {
    let kept = [
        StatusCode::OK,
        StatusCode::MOVED_PERMANENTLY,
        StatusCode::PERMANENT_REDIRECT,
        StatusCode::NOT_FOUND,
        StatusCode::GONE,
    ];
    let directives = directives(headers);
    let forbidden = ["no-store", "private", "no-cache"];
    if !kept.contains(&status)
        || headers.contains_key(SET_COOKIE)
        || !varies_by_known(headers)
        || forbidden.iter().any(|name| directives.has(name))
    {
        return None;
    }
    let fresh = directives
        .seconds("s-maxage")
        .or_else(|| directives.seconds("max-age"))?;
    let strict = directives.has("must-revalidate") || directives.has("proxy-revalidate");
    let window = |name| {
        let window = directives.seconds(name).filter(|_| !strict);
        window.unwrap_or(Duration::ZERO)
    };
    Some(Lives {
        fresh,
        while_revalidate: window("stale-while-revalidate"),
        if_error: window("stale-if-error"),
    })
}

/// For whom an answer is.
pub(super) fn class(status: StatusCode, headers: &HeaderMap) -> CacheClass {
    match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => CacheClass::Absent,
        _ if directives(headers).has("private") => CacheClass::Gated,
        _ => CacheClass::Public,
    }
}

/// RFC 9213: a header for CDNs replaces the one for all, if it says anything.
fn directives(headers: &HeaderMap) -> Directives {
    let targeted = Directives::of(headers, &CDN_CACHE_CONTROL);
    if targeted.0.is_empty() {
        Directives::of(headers, &CACHE_CONTROL)
    } else {
        targeted
    }
}

/// Keys hold what [`super::key::Key`] takes from a request; an answer that varies by more has no key.
fn varies_by_known(headers: &HeaderMap) -> bool {
    let names = headers.get_all(VARY).iter();
    let mut names = names.flat_map(|value| value.to_str().unwrap_or("*").split(','));
    names.all(|name| {
        let name = name.trim();
        name.is_empty()
            || [ACCEPT, ACCEPT_ENCODING]
                .iter()
                .any(|known| name.eq_ignore_ascii_case(known.as_str()))
    })
}

/// Names in small letters, with their values.
struct Directives(Vec<(String, Option<String>)>);

impl Directives {
    fn of(headers: &HeaderMap, name: &HeaderName) -> Self {
        let values = headers.get_all(name).iter();
        // What is no text may be anything: it forbids.
        let texts = values.map(|value| value.to_str().unwrap_or("no-store"));
        let mut all = Vec::new();
        for text in texts {
            let mut quoted = false;
            let parts = text.split(|c| {
                quoted ^= c == '"';
                c == ',' && !quoted
            });
            for part in parts.map(str::trim).filter(|part| !part.is_empty()) {
                let (name, value) = match part.split_once('=') {
                    Some((name, value)) => (name, Some(value.trim().trim_matches('"').to_owned())),
                    None => (part, None),
                };
                all.push((name.trim().to_ascii_lowercase(), value));
            }
        }
        Self(all)
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(given, _)| given == name)
    }

    /// The value in seconds: the least if it is given twice, none at all if it is no number.
    fn seconds(&self, name: &str) -> Option<Duration> {
        let given = self.0.iter().filter(|(given, _)| given == name);
        given
            .map(|(_, value)| {
                let value = value.as_deref().unwrap_or("");
                let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
                // RFC 9111 section 1.2.2: too large a number is 2^31.
                let seconds = if digits {
                    value.parse().unwrap_or(1 << 31)
                } else {
                    0
                };
                Duration::from_secs(seconds.min(1 << 31))
            })
            .min()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn of(pairs: &[(&'static str, &'static str)]) -> Option<(u64, u64, u64)> {
        let lives = lives(StatusCode::OK, &headers(pairs))?;
        let all = (lives.fresh, lives.while_revalidate, lives.if_error);
        Some((all.0.as_secs(), all.1.as_secs(), all.2.as_secs()))
    }

    #[test]
    fn the_lifetimes_are_those_for_shared_caches() {
        let all =
            "public, max-age=60, s-maxage=3600, stale-while-revalidate=60, stale-if-error=600";
        assert_eq!(of(&[("cache-control", all)]), Some((3_600, 60, 600)));
        assert_eq!(of(&[("cache-control", "Max-Age = 5")]), Some((5, 0, 0)));
        assert_eq!(of(&[("cache-control", "max-age=\"7\"")]), Some((7, 0, 0)));
        let twice = [
            ("cache-control", "max-age=9"),
            ("cache-control", "max-age=3"),
        ];
        assert_eq!(of(&twice), Some((3, 0, 0)));
        assert_eq!(of(&[("cache-control", "max-age=x")]), Some((0, 0, 0)));
        let huge = [("cache-control", "max-age=99999999999999999999")];
        assert_eq!(of(&huge), Some((1 << 31, 0, 0)));
        let strict = "max-age=5, must-revalidate, stale-if-error=600";
        assert_eq!(of(&[("cache-control", strict)]), Some((5, 0, 0)));
        let quoted = "x=\"max-age=99, public\", max-age=5";
        assert_eq!(of(&[("cache-control", quoted)]), Some((5, 0, 0)));
    }

    #[test]
    fn what_may_not_be_shared_is_not_kept() {
        for forbidden in [
            "private, max-age=60",
            "PRIVATE, max-age=60",
            "no-store, max-age=60",
            "No-Cache, max-age=60",
            "public",
            "",
        ] {
            assert_eq!(of(&[("cache-control", forbidden)]), None, "{forbidden:?}");
        }
        let max_age = ("cache-control", "max-age=60");
        assert_eq!(of(&[max_age, ("set-cookie", "a=b")]), None);
        assert_eq!(of(&[max_age, ("vary", "*")]), None);
        assert_eq!(of(&[max_age, ("vary", "Accept, Cookie")]), None);
        assert_eq!(
            of(&[max_age, ("vary", "accept-encoding"), ("vary", "Accept")]),
            Some((60, 0, 0))
        );
        let partial = lives(StatusCode::PARTIAL_CONTENT, &headers(&[max_age]));
        assert_eq!(partial, None);
    }

    #[test]
    fn a_directive_for_cdns_goes_before_one_for_all() {
        let cdn = [
            ("cache-control", "private, no-store"),
            ("cdn-cache-control", "max-age=9"),
        ];
        assert_eq!(of(&cdn), Some((9, 0, 0)));
        let cdn = [
            ("cache-control", "max-age=9"),
            ("cdn-cache-control", "no-store"),
        ];
        assert_eq!(of(&cdn), None);
    }

    #[test]
    fn a_request_with_credentials_or_no_store_passes() {
        assert!(passes(&headers(&[("authorization", "Bearer x")])));
        assert!(passes(&headers(&[("cache-control", "No-Store")])));
        assert!(!passes(&headers(&[("cache-control", "no-cache")])));
    }
}
