//! Which format and which encoding a scrape is answered in.
//!
//! Prometheus 3 refuses a page without an exact `Content-Type`, so format and type are one choice.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

/// A format of the metrics page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Prometheus text 0.0.4.
    Text,
    /// OpenMetrics for a reader that asked for version 1.0.0, or for no version.
    OpenMetrics,
    /// The same page for a reader that knows version 0.0.1 only.
    OpenMetrics001,
}

impl Format {
    /// The exact `Content-Type`.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::OpenMetrics001 => "application/openmetrics-text; version=0.0.1; charset=utf-8",
        }
    }

    /// The word for label values.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::OpenMetrics | Self::OpenMetrics001 => "openmetrics",
        }
    }
}

/// What a scrape is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Negotiated {
    pub(crate) format: Format,
    pub(crate) gzip: bool,
}

/// Chooses from the two request headers; a missing one is `None`.
///
/// The reader's highest quality wins, then the order it wrote. Who asks for nothing we know gets
/// plain text rather than 406: a page is worth more than a refusal.
pub(crate) fn negotiate(accept: Option<&str>, accept_encoding: Option<&str>) -> Negotiated {
    Negotiated {
        format: format(accept.unwrap_or_default()),
        gzip: gzip_wanted(accept_encoding.unwrap_or_default()),
    }
}

/// Whether the reader is a browser, which alone asks for HTML by name.
pub(crate) fn is_browser(accept: &str) -> bool {
    elements(accept)
        .any(|element| element.quality > 0 && element.name.eq_ignore_ascii_case("text/html"))
}

/// Compresses at level 1: a page of 11.3 MB takes 58 ms there and 285 ms at level 6, for 0.77 MB
/// (design measurement).
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 8), Compression::new(1));
    // Writing into memory cannot fail; an empty body would fail the reader's decoder, not lie to it.
    encoder
        .write_all(bytes)
        .and_then(|()| encoder.finish())
        .unwrap_or_default()
}

fn format(accept: &str) -> Format {
    let mut best = (0, Format::Text);
    for element in elements(accept) {
        let version = element.parameter("version");
        let format = match element.name.to_ascii_lowercase().as_str() {
            "application/openmetrics-text" => match version {
                None | Some("1.0.0") => Format::OpenMetrics,
                Some("0.0.1") => Format::OpenMetrics001,
                Some(_) => continue,
            },
            "text/plain" if matches!(version, None | Some("0.0.4")) => Format::Text,
            "text/*" | "*/*" => Format::Text,
            _ => continue,
        };
        if element.quality > best.0 {
            best = (element.quality, format);
        }
    }
    best.1
}

fn gzip_wanted(accept_encoding: &str) -> bool {
    let mut named = None;
    let mut any = None;
    let mut identity = None;
    for element in elements(accept_encoding) {
        let place = match element.name.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => &mut named,
            "*" => &mut any,
            "identity" => &mut identity,
            _ => continue,
        };
        *place = Some(element.quality);
    }
    let gzip = named.or(any).unwrap_or(0);
    gzip > 0 && gzip >= identity.unwrap_or(0)
}

/// One element of a comma-separated header: a name with parameters.
struct Element<'a> {
    name: &'a str,
    parameters: &'a str,
    /// In thousandths, as HTTP limits `q` to three digits.
    quality: u16,
}

impl<'a> Element<'a> {
    fn parameter(&self, wanted: &str) -> Option<&'a str> {
        parameter(self.parameters, wanted)
    }
}

fn elements(header: &str) -> impl Iterator<Item = Element<'_>> {
    header.split(',').map(|element| {
        let (name, parameters) = element.split_once(';').unwrap_or((element, ""));
        Element {
            name: name.trim(),
            parameters,
            quality: parameter(parameters, "q").map_or(1000, quality),
        }
    })
}

fn parameter<'a>(parameters: &'a str, wanted: &str) -> Option<&'a str> {
    parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case(wanted)
            .then(|| value.trim().trim_matches('"'))
    })
}

/// A quality that cannot be read wants nothing.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0..=1000"
)]
fn quality(text: &str) -> u16 {
    let quality: f64 = text.parse().unwrap_or(0.0);
    (quality.clamp(0.0, 1.0) * 1000.0).round() as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    const PROMETHEUS_2: &str = "application/openmetrics-text;version=1.0.0,\
        application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    const PROMETHEUS_3: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;\
        q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;\
        escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
    const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    const PROTOBUF: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.\
        MetricFamily;encoding=delimited,application/openmetrics-text;version=1.0.0;q=0.8";

    #[test]
    fn negotiation_table() {
        use Format::{OpenMetrics, OpenMetrics001, Text};
        for (accept, expected) in [
            (None, Text),
            (Some(""), Text),
            (Some("*/*"), Text),
            (Some("text/*"), Text),
            (Some("text/plain"), Text),
            (Some("image/png"), Text),
            (Some(PROMETHEUS_2), OpenMetrics),
            (Some(PROMETHEUS_3), OpenMetrics),
            (Some(BROWSER), Text),
            (Some(PROTOBUF), OpenMetrics),
            (Some("application/openmetrics-text"), OpenMetrics),
            (
                Some("Application/OpenMetrics-Text; Version=\"1.0.0\""),
                OpenMetrics,
            ),
            (
                Some("application/openmetrics-text; version=0.0.1"),
                OpenMetrics001,
            ),
            (Some("application/openmetrics-text; version=2.0.0"), Text),
            (Some("application/openmetrics-text;q=0"), Text),
            (Some("application/openmetrics-text;q=0.000, */*"), Text),
            (
                Some("application/openmetrics-text;q=0.3, */*;q=0.2"),
                OpenMetrics,
            ),
            (Some("application/openmetrics-text;q=0.2, */*;q=0.3"), Text),
            (Some("text/plain, application/openmetrics-text"), Text),
            (
                Some("application/openmetrics-text, text/plain"),
                OpenMetrics,
            ),
            (
                Some("application/openmetrics-text;q=x, text/plain;q=0.1"),
                Text,
            ),
            (Some(";;,,q=,=;q"), Text),
        ] {
            assert_eq!(negotiate(accept, None).format, expected, "{accept:?}");
        }
        for (encoding, expected) in [
            (None, false),
            (Some(""), false),
            (Some("gzip"), true),
            (Some("GZIP"), true),
            (Some("x-gzip"), true),
            (Some("deflate, gzip;q=1.0, *;q=0.5"), true),
            (Some("gzip;q=0"), false),
            (Some("gzip; q=0.0, *"), false),
            (Some("*"), true),
            (Some("*;q=0"), false),
            (Some("identity"), false),
            (Some("identity;q=0.5, gzip;q=0.4"), false),
            (Some("identity;q=0.5, gzip;q=0.5"), true),
            (Some("identity;q=0, *"), true),
            (Some("br, zstd"), false),
        ] {
            assert_eq!(negotiate(None, encoding).gzip, expected, "{encoding:?}");
        }
    }

    #[test]
    fn each_format_has_its_exact_content_type() {
        for (format, expected) in [
            (Format::Text, "text/plain; version=0.0.4; charset=utf-8"),
            (
                Format::OpenMetrics,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            ),
            (
                Format::OpenMetrics001,
                "application/openmetrics-text; version=0.0.1; charset=utf-8",
            ),
        ] {
            assert_eq!(format.content_type(), expected);
        }
    }

    #[test]
    fn a_compressed_page_unpacks_to_itself() {
        let page = b"up 1\n".repeat(1000);
        let packed = gzip(&page);
        assert!(packed.len() < page.len() / 10);
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(packed.as_slice())
            .read_to_end(&mut unpacked)
            .unwrap();
        assert_eq!(unpacked, page);
    }
}
