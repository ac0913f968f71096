//! Where and how profiles are pushed to Pyroscope.

use std::collections::BTreeMap;
use std::time::Duration;

use super::otlp::{Target, check_header, checked};
use crate::error::Error;

/// For one attempt; Pyroscope answers when its ingesters have the profile.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Labels that a series may have by Pyroscope's default, less those that it has from us.
const LABELS: usize = 27;
/// Bytes of a label's value that Pyroscope takes by default.
const VALUE_BYTES: usize = 2048;
const AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));

/// A Pyroscope server, and how it is spoken to.
///
/// ```
/// use streamgate_agent::Pyroscope;
///
/// let pyroscope = Pyroscope::to("http://pyroscope:4040")?.label("region", "eu")?;
/// # Ok::<(), streamgate_agent::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pyroscope {
    pub(crate) target: Target,
    pub(crate) labels: BTreeMap<String, String>,
}

impl Pyroscope {
    /// Pushes to the server at a base address: the CPU windows and the heap, every 15 s.
    ///
    /// # Errors
    /// If this is no `http://` or `https://` address.
    pub fn to(endpoint: &str) -> Result<Self, Error> {
        let base = checked("pyroscope", endpoint.to_owned())?;
        let agent = ("User-Agent".to_owned(), AGENT.to_owned());
        Ok(Self {
            target: Target {
                url: format!("{}/push.v1.PusherService/Push", base.trim_end_matches('/')),
                headers: BTreeMap::from([agent]),
                timeout: TIMEOUT,
                // The profile inside is packed already.
                gzip: false,
                grpc_method: None,
            },
            labels: BTreeMap::new(),
        })
    }

    /// Sends a header with every push, such as `Authorization`, or `X-Scope-OrgID` for a tenant.
    ///
    /// # Errors
    /// If a server could not read it as one header.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, Error> {
        check_header("header", name, value)?;
        self.target
            .headers
            .insert(name.to_owned(), value.to_owned());
        Ok(self)
    }

    /// Puts a label on every profile, at most 27; `service_name` is the agent's service.
    ///
    /// # Errors
    /// If Pyroscope would refuse the name or the value by its own defaults, or there are too many.
    pub fn label(mut self, name: &str, value: &str) -> Result<Self, Error> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let begins = name
            .bytes()
            .next()
            .is_some_and(|byte| !byte.is_ascii_digit());
        let own = name.starts_with("__") || name == "service_name";
        if !begins || own || !name.bytes().all(is_word) || name.len() > 128 {
            let range = "[a-zA-Z_][a-zA-Z0-9_]* of 1..=128 bytes other than service_name and __*";
            return Err(Error::out_of_range("label name", range, name));
        }
        if value.is_empty() || value.len() > VALUE_BYTES {
            let range = format!("1..={VALUE_BYTES} bytes");
            return Err(Error::out_of_range("label value", range, value.len()));
        }
        self.labels.insert(name.to_owned(), value.to_owned());
        if self.labels.len() > LABELS {
            let range = format!("0..={LABELS}");
            return Err(Error::out_of_range("labels", range, self.labels.len()));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_that_of_pyroscopes_push_call_and_secrets_are_not_shown() {
        let pyroscope = Pyroscope::to("https://p.example/base/").unwrap();
        let pyroscope = pyroscope.header("Authorization", "Bearer s3cret").unwrap();
        let url = "https://p.example/base/push.v1.PusherService/Push";
        assert_eq!(pyroscope.target.url, url);
        let shown = format!("{pyroscope:?}");
        assert!(
            shown.contains("Authorization") && !shown.contains("s3cret"),
            "{shown}"
        );
    }

    #[test]
    fn what_pyroscope_would_refuse_is_refused_here_by_name() {
        let pyroscope = || Pyroscope::to("http://p").unwrap();
        let names = "[a-zA-Z_][a-zA-Z0-9_]* of 1..=128 bytes other than service_name and __*";
        for name in ["", "9lives", "a.b", "a-b", "__name__", "service_name"] {
            let error = pyroscope().label(name, "x").unwrap_err().to_string();
            assert_eq!(error, format!("label name must be {names} (got {name:?})"));
        }
        let long = "x".repeat(2049);
        let error = pyroscope().label("a", &long).unwrap_err().to_string();
        assert_eq!(error, "label value must be 1..=2048 bytes (got \"2049\")");
        let full = (0..27).try_fold(pyroscope(), |held, n| held.label(&format!("l{n}"), "x"));
        let error = full.unwrap().label("more", "x").unwrap_err().to_string();
        assert_eq!(error, "labels must be 0..=27 (got \"28\")");
        let error = Pyroscope::to("p:4040").unwrap_err().to_string();
        assert!(error.contains("http:// or https://"), "{error}");
    }
}
