//! Label selectors, as Prometheus and Pyroscope write them: `{service_name="shop", http_route=~"/v1/.*"}`.

use std::collections::HashMap;
use std::iter::Peekable;
use std::str::Chars;

use regex_lite::{Regex, RegexBuilder};

use super::fields::invalid;
use crate::export::guard::Refusal;

/// Conditions of one selector, and bytes of a regular expression in it.
const MATCHERS: usize = 64;
/// See [`MATCHERS`].
const PATTERN_BYTES: usize = 1024;
/// Bytes of a regular expression that is ready to run: room for a thousand letters, none for `(.{999}){999}`.
const PROGRAM_BYTES: usize = 256 << 10;

/// All of its conditions hold, or it does not match.
#[derive(Debug, Default)]
pub(crate) struct Selector(Vec<Matcher>);

#[derive(Debug)]
struct Matcher {
    name: String,
    test: Test,
    /// Whether the test must fail.
    negated: bool,
}

#[derive(Debug)]
enum Test {
    Equals(String),
    /// Met by the whole value.
    Matches(Regex),
}

impl Matcher {
    /// A label that is not there is empty.
    fn holds(&self, value: Option<&str>) -> bool {
        let value = value.unwrap_or_default();
        let met = match &self.test {
            Test::Equals(wanted) => wanted == value,
            Test::Matches(regex) => regex.is_match(value),
        };
        met != self.negated
    }
}

impl Selector {
    /// Reads a selector; nothing and `{}` match all.
    ///
    /// # Errors
    /// What is wrong with it, by the field that it stands in.
    pub(crate) fn parse(field: &'static str, text: &str) -> Result<Self, Refusal> {
        let mut reader = Reader {
            field,
            text,
            rest: text.chars().peekable(),
        };
        reader.selector()
    }

    /// Whether it speaks of a label.
    pub(crate) fn names(&self, label: &str) -> bool {
        self.0.iter().any(|matcher| matcher.name == label)
    }

    /// Whether labels match whose values a function tells.
    pub(crate) fn matches<'a>(&self, value: impl Fn(&str) -> Option<&'a str>) -> bool {
        let mut matchers = self.0.iter();
        matchers.all(|matcher| matcher.holds(value(&matcher.name)))
    }

    /// Whether they may, of which a function tells only some.
    pub(crate) fn may_match<'a>(&self, value: impl Fn(&str) -> Option<&'a str>) -> bool {
        let mut matchers = self.0.iter();
        matchers.all(|matcher| {
            let value = value(&matcher.name);
            value.is_none() || matcher.holds(value)
        })
    }

    /// [`matches`](Self::matches) for many samples, which have few values between them.
    pub(crate) fn remembering(&self) -> Remembering<'_> {
        let matchers = self.0.iter();
        Remembering(matchers.map(|matcher| (matcher, HashMap::new())).collect())
    }
}

/// A selector that tests each value once.
#[derive(Debug)]
pub(crate) struct Remembering<'a>(Vec<(&'a Matcher, HashMap<Option<&'a str>, bool>)>);

impl<'a> Remembering<'a> {
    /// As [`Selector::matches`].
    pub(crate) fn matches(&mut self, value: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter_mut().all(|(matcher, met)| {
            let value = value(&matcher.name);
            *met.entry(value).or_insert_with(|| matcher.holds(value))
        })
    }
}

/// A selector being read.
struct Reader<'a> {
    field: &'static str,
    text: &'a str,
    rest: Peekable<Chars<'a>>,
}

const FORM: &str = "a label selector such as {service_name=\"shop\", http_route=~\"/v1/.*\"}";

impl Reader<'_> {
    fn selector(&mut self) -> Result<Selector, Refusal> {
        let mut matchers = Vec::new();
        self.space();
        // Grafana's editor writes a profile's type before the brace.
        if self.rest.peek().is_some_and(|letter| *letter != '{') {
            let name = self.name()?;
            let label = if name.contains(':') {
                "__profile_type__"
            } else {
                "__name__"
            };
            matchers.push(Matcher {
                name: label.to_owned(),
                test: Test::Equals(name),
                negated: false,
            });
            self.space();
        }
        if self.took('{') {
            self.space();
            while !self.took('}') {
                if matchers.len() >= MATCHERS {
                    let most = format!("a label selector of at most {MATCHERS} conditions");
                    return Err(invalid(self.field, &most, self.text));
                }
                matchers.push(self.matcher()?);
                self.space();
                let more = self.took(',');
                self.space();
                if !more && self.rest.peek() != Some(&'}') {
                    return Err(self.wrong());
                }
            }
            self.space();
        }
        if self.rest.peek().is_some() {
            return Err(self.wrong());
        }
        Ok(Selector(matchers))
    }

    fn matcher(&mut self) -> Result<Matcher, Refusal> {
        let name = if matches!(self.rest.peek(), Some('"' | '\'' | '`')) {
            self.quoted()?
        } else {
            self.name()?
        };
        self.space();
        let (negated, is_pattern) = if self.took('!') {
            let is_pattern = self.took('~');
            if !is_pattern && !self.took('=') {
                return Err(self.wrong());
            }
            (true, is_pattern)
        } else if self.took('=') {
            (false, self.took('~'))
        } else {
            return Err(self.wrong());
        };
        self.space();
        let value = self.quoted()?;
        Ok(Matcher {
            name,
            test: if is_pattern {
                Test::Matches(self.regex(&value)?)
            } else {
                Test::Equals(value)
            },
            negated,
        })
    }

    fn regex(&self, pattern: &str) -> Result<Regex, Refusal> {
        let refused = |why: &str| {
            let allowed = format!("a selector whose regular expressions are {why}");
            invalid(self.field, &allowed, pattern)
        };
        if pattern.len() > PATTERN_BYTES {
            return Err(refused(&format!("at most {PATTERN_BYTES} bytes long")));
        }
        let whole = format!("^(?:{pattern})$");
        let mut regex = RegexBuilder::new(&whole);
        let regex = regex.dot_matches_new_line(true).size_limit(PROGRAM_BYTES);
        regex
            .build()
            .map_err(|why| refused(&format!("well-formed and small ({why})")))
    }

    fn name(&mut self) -> Result<String, Refusal> {
        let mut name = String::new();
        let fits =
            |letter: &char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | ':' | '.');
        while let Some(letter) = self.rest.next_if(fits) {
            name.push(letter);
        }
        if name.is_empty() || name.starts_with(|letter: char| letter.is_ascii_digit()) {
            return Err(self.wrong());
        }
        Ok(name)
    }

    fn quoted(&mut self) -> Result<String, Refusal> {
        let quote = self
            .rest
            .next_if(|letter| matches!(letter, '"' | '\'' | '`'));
        let quote = quote.ok_or_else(|| self.wrong())?;
        let mut value = String::new();
        loop {
            match self.rest.next() {
                Some(letter) if letter == quote => return Ok(value),
                Some('\\') if quote != '`' => {
                    let meant = self.escaped().ok_or_else(|| self.wrong())?;
                    value.push(meant);
                }
                Some('\n') if quote != '`' => return Err(self.wrong()),
                Some(letter) => value.push(letter),
                None => return Err(self.wrong()),
            }
        }
    }

    /// What follows a backslash, as Go's strings have it.
    fn escaped(&mut self) -> Option<char> {
        let digits = match self.rest.next()? {
            'n' => return Some('\n'),
            'r' => return Some('\r'),
            't' => return Some('\t'),
            letter @ ('\\' | '"' | '\'') => return Some(letter),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => return None,
        };
        let mut code: u32 = 0;
        for _ in 0..digits {
            code = code.checked_mul(16)? + self.rest.next()?.to_digit(16)?;
        }
        // A byte beyond ASCII is part of a letter at most.
        char::from_u32(code).filter(|letter| digits > 2 || letter.is_ascii())
    }

    fn space(&mut self) {
        while self.rest.next_if(|letter| letter.is_whitespace()).is_some() {}
    }

    fn took(&mut self, letter: char) -> bool {
        self.rest.next_if_eq(&letter).is_some()
    }

    fn wrong(&self) -> Refusal {
        invalid(self.field, FORM, self.text)
    }
}
