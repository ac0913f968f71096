//! Query parameters: decoded, checked against their ranges, refused with the value seen.

use std::ops::RangeInclusive;

use crate::config;
use crate::error::Error;
use crate::export::guard::{Reason, Refusal};

/// The pairs of a query string, decoded. Unknown names are nobody's business: tools add their own.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(raw: &str) -> Self {
        let pairs = raw.split('&').filter(|pair| !pair.is_empty());
        let decoded = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        });
        Self(decoded.collect())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|pair| pair.0 == name)
    }

    /// A number within a range, `default` where it is not given.
    ///
    /// Go takes 30 s for what it cannot read; a typo then costs half a minute and shows the wrong
    /// window, so here everything but plain digits is refused.
    pub(crate) fn number(
        &self,
        name: &'static str,
        range: &RangeInclusive<u64>,
        default: u64,
    ) -> Result<u64, Refusal> {
        let allowed = format!("{}..={}", range.start(), range.end());
        self.one(name, &allowed, default, |value| {
            let digits = value.bytes().all(|byte| byte.is_ascii_digit());
            let number = digits.then(|| value.parse().ok())?;
            number.filter(|number| range.contains(number))
        })
    }

    /// One of several words, `default` where it is not given.
    pub(crate) fn word<T: Copy>(
        &self,
        name: &'static str,
        words: &[(&str, T)],
        default: T,
    ) -> Result<T, Refusal> {
        let allowed: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        self.one(name, &allowed.join("|"), default, |value| {
            let found = words.iter().find(|(word, _)| *word == value);
            found.map(|(_, meaning)| *meaning)
        })
    }

    /// A short text as it was given, `None` where it is not.
    pub(crate) fn text(
        &self,
        name: &'static str,
        longest: usize,
    ) -> Result<Option<String>, Refusal> {
        let allowed = format!("a text of 1..={longest} bytes");
        self.one(name, &allowed, None, |value| {
            let fits = (1..=longest).contains(&value.len());
            fits.then(|| Some(value.to_owned()))
        })
    }

    fn one<T>(
        &self,
        name: &'static str,
        allowed: &str,
        default: T,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<T, Refusal> {
        let named = self.0.iter().filter(|pair| pair.0 == name);
        let values: Vec<&str> = named.map(|pair| &*pair.1).collect();
        let read = match *values {
            [] => return Ok(default),
            [value] => read(value),
            _ => None,
        };
        read.ok_or_else(|| {
            let seen = values.join(",");
            let error = Error::out_of_range(name, allowed, shown(&seen));
            Refusal::new(400, Reason::Parameter, error.to_string())
        })
    }
}

/// As much of a client's text as is repeated to it.
pub(crate) fn shown(text: &str) -> &str {
    let mut end = text.len().min(config::ECHO_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// Undoes `%41` and `+`; what is no escape stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = |at: usize| {
            let digit = char::from(*after.get(at)?).to_digit(16)?;
            u8::try_from(digit).ok()
        };
        rest = after;
        bytes.push(match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                rest = after.get(2..).unwrap_or_default();
                high << 4 | low
            }
            (b'+', ..) => b' ',
            _ => first,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_out_of_range_are_refused_with_range_and_value() {
        let long = "9".repeat(100);
        let cut = "9".repeat(32);
        let rows = [
            ("", Ok(30)),
            ("seconds=1", Ok(1)),
            ("seconds=60", Ok(60)),
            ("seconds=%36%30", Ok(60)),
            ("other=x&seconds=7&seconds2=9", Ok(7)),
            ("seconds=0", Err("0")),
            ("seconds=-1", Err("-1")),
            ("seconds=61", Err("61")),
            ("seconds=1e9", Err("1e9")),
            ("seconds=18446744073709551615", Err("18446744073709551615")),
            ("seconds=18446744073709551616", Err("18446744073709551616")),
            ("seconds=5s", Err("5s")),
            ("seconds=", Err("")),
            ("seconds", Err("")),
            ("seconds=+5", Err(" 5")),
            ("seconds=%2B5", Err("+5")),
            ("seconds=5&seconds=5", Err("5,5")),
            (&*format!("seconds={long}"), Err(&*cut)),
            ("seconds=%3Cscript%3E%0d%0a", Err("<script>\\r\\n")),
            ("seconds=%00%22", Err("\\0\\\"")),
            ("seconds=%ff", Err("\u{fffd}")),
        ];
        for (query, wanted) in rows {
            let seen = Query::parse(query).number("seconds", &(1..=60), 30);
            let wanted = wanted.map_err(|value| {
                let text = format!("seconds must be 1..=60 (got \"{value}\")");
                Refusal::new(400, Reason::Parameter, text)
            });
            assert_eq!(seen, wanted, "{query}");
        }
    }

    #[test]
    fn an_unknown_word_is_refused_with_the_words_that_are_known() {
        let words = [("pprof", 1), ("svg", 2)];
        let ask = |query: &str| Query::parse(query).word("format", &words, 1);
        assert_eq!(ask(""), Ok(1));
        assert_eq!(ask("format=svg"), Ok(2));
        let refusal = ask("format=xml").unwrap_err();
        assert_eq!(refusal.text, "format must be pprof|svg (got \"xml\")");
    }

    #[test]
    fn an_echo_is_cut_between_characters() {
        let text = "ä".repeat(17);
        assert_eq!(shown(&text).len(), 32);
        assert_eq!(shown(&format!("x{text}")).len(), 31);
    }
}
