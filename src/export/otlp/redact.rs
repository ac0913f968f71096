//! Takes secrets out of queries and fields before anybody else sees them.

use std::borrow::Cow;

/// What stands where a value stood; OpenTelemetry's own word.
const REDACTED: &str = "REDACTED";

/// Parts of names, in lower case and without separators, whose values are nobody's business.
const SECRET: [&str; 16] = [
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "auth",
    "cookie",
    "session",
    "credential",
    "signature",
    "jwt",
    "otp",
    "privatekey",
];
/// Whole names of that kind that are too short to look for as parts.
const SECRET_NAMES: [&str; 4] = ["sig", "key", "code", "pin"];

/// The query with the values of secret names replaced.
pub(super) fn query(query: &str) -> Cow<'_, str> {
    if !query.split('&').any(is_secret) {
        return Cow::Borrowed(query);
    }
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if is_secret(pair) => Cow::Owned(format!("{name}={REDACTED}")),
        _ => Cow::Borrowed(pair),
    });
    Cow::Owned(pairs.collect::<Vec<_>>().join("&"))
}

/// The fields of a span or an event of the host's, the values of secret names replaced.
pub(super) fn fields<'a>(
    fields: &'a [(&'static str, String)],
) -> impl Iterator<Item = (&'static str, &'a str)> {
    fields.iter().map(|(name, value)| {
        let shown = if is_secret_name(name) {
            REDACTED
        } else {
            value
        };
        (*name, shown)
    })
}

fn is_secret(pair: &str) -> bool {
    // An escaped name could be any.
    pair.split_once('=')
        .is_some_and(|(name, _)| name.contains('%') || is_secret_name(name))
}

fn is_secret_name(name: &str) -> bool {
    let letters = name.bytes().filter(u8::is_ascii_alphanumeric);
    let plain: String = letters
        .map(|byte| char::from(byte.to_ascii_lowercase()))
        .collect();
    SECRET_NAMES.contains(&&*plain) || SECRET.iter().any(|part| plain.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_secret_names_are_replaced_and_others_stay() {
        let rows = [
            ("page=2&sort=asc&flag", "page=2&sort=asc&flag"),
            ("", ""),
            ("api_key=abc&page=2", "api_key=REDACTED&page=2"),
            ("X-Amz-Signature=a=b&x=1", "X-Amz-Signature=REDACTED&x=1"),
            (
                "a=1&AccessToken=&password=p",
                "a=1&AccessToken=REDACTED&password=REDACTED",
            ),
            ("pass%77ord=p", "pass%77ord=REDACTED"),
            (
                "sig=1&design=2&key=3&monkey=4",
                "sig=REDACTED&design=2&key=REDACTED&monkey=4",
            ),
        ];
        for (came, shown) in rows {
            assert_eq!(query(came), shown);
        }
    }
}
