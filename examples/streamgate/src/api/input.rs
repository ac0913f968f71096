//! Contents as clients send them, and what makes one valid.

use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::db::content_write::{ContentPatch, NewContent};

const TITLE_CHARS: usize = 200;
const DESCRIPTION_BYTES: usize = 4 << 10;
const BODY_BYTES: usize = 64 << 10;
const METADATA_BYTES: usize = 16 << 10;
const METADATA_DEPTH: usize = 16;
const KIND_BYTES: usize = 32;

/// The states of a content.
pub(super) const STATUSES: &[&str] = &["draft", "processing", "ready", "failed"];
const VISIBILITIES: &[&str] = &["public", "gated"];

/// The body of a POST, and one item of a batch.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ContentInput {
    id: Option<Uuid>,
    user_id: Uuid,
    title: String,
    #[serde(default)]
    description: String,
    status: Option<String>,
    kind: Option<String>,
    visibility: Option<String>,
    #[serde(default)]
    body: String,
    metadata: Option<Box<RawValue>>,
}

/// The body of a PATCH; absent fields stay.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PatchInput {
    title: Option<String>,
    description: Option<String>,
    status: Option<String>,
    visibility: Option<String>,
    body: Option<String>,
    metadata: Option<Box<RawValue>>,
}

/// Why an input is not valid: the field and what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Invalid {
    pub(super) field: &'static str,
    pub(super) reason: String,
}

impl ContentInput {
    /// The row to write.
    pub(super) fn into_row(self, now_micros: i64) -> Result<NewContent, Invalid> {
        let kind = self.kind.unwrap_or_else(|| "video".to_owned());
        let kind_letters = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if kind.is_empty() || kind.len() > KIND_BYTES || !kind.bytes().all(kind_letters) {
            return Err(invalid("kind", "1..=32 of a-z, 0-9 and -"));
        }
        let status = self
            .status
            .as_deref()
            .map_or(Ok("draft"), |text| one_of("status", text, STATUSES));
        let visibility = self.visibility.as_deref();
        let visibility = visibility.map_or(Ok("public"), |text| {
            one_of("visibility", text, VISIBILITIES)
        });
        check_title(&self.title)?;
        check_bytes("description", &self.description, DESCRIPTION_BYTES)?;
        check_bytes("body", &self.body, BODY_BYTES)?;
        Ok(NewContent {
            id: self.id.unwrap_or_else(Uuid::now_v7),
            user_id: self.user_id,
            title: self.title,
            description: self.description,
            status: status?,
            kind,
            visibility: visibility?,
            body: self.body,
            metadata: self
                .metadata
                .as_deref()
                .map_or_else(|| Ok("{}".to_owned()), metadata)?,
            created_at: now_micros,
        })
    }
}

impl PatchInput {
    /// The columns to change.
    pub(super) fn into_patch(self) -> Result<ContentPatch, Invalid> {
        if let Some(title) = &self.title {
            check_title(title)?;
        }
        check_bytes(
            "description",
            self.description.as_deref().unwrap_or(""),
            DESCRIPTION_BYTES,
        )?;
        check_bytes("body", self.body.as_deref().unwrap_or(""), BODY_BYTES)?;
        let status = self
            .status
            .as_deref()
            .map(|text| one_of("status", text, STATUSES));
        let visibility = self.visibility.as_deref();
        let visibility = visibility.map(|text| one_of("visibility", text, VISIBILITIES));
        Ok(ContentPatch {
            title: self.title,
            description: self.description,
            status: status.transpose()?,
            visibility: visibility.transpose()?,
            body: self.body,
            metadata: self.metadata.as_deref().map(metadata).transpose()?,
        })
    }
}

/// The known word that a text is.
pub(super) fn one_of(
    field: &'static str,
    text: &str,
    known: &'static [&'static str],
) -> Result<&'static str, Invalid> {
    let found = known.iter().find(|word| **word == text).copied();
    found.ok_or_else(|| invalid(field, &format!("one of {}", known.join(", "))))
}

fn invalid(field: &'static str, wanted: &str) -> Invalid {
    Invalid {
        field,
        reason: format!("must be {wanted}"),
    }
}

fn check_title(title: &str) -> Result<(), Invalid> {
    if title.trim().is_empty() || title.chars().count() > TITLE_CHARS {
        return Err(invalid("title", "1..=200 characters"));
    }
    check_storable("title", title)
}

fn check_bytes(field: &'static str, text: &str, limit: usize) -> Result<(), Invalid> {
    if text.len() > limit {
        return Err(invalid(field, &format!("at most {limit} bytes")));
    }
    check_storable(field, text)
}

/// PostgreSQL's text holds every character but one.
fn check_storable(field: &'static str, text: &str) -> Result<(), Invalid> {
    if text.contains('\0') {
        return Err(invalid(field, "without the character U+0000"));
    }
    Ok(())
}

fn metadata(raw: &RawValue) -> Result<String, Invalid> {
    let text = raw.get();
    check_bytes("metadata", text, METADATA_BYTES)?;
    if !text.starts_with('{') {
        return Err(invalid("metadata", "an object"));
    }
    if depth(text) > METADATA_DEPTH {
        return Err(invalid("metadata", "at most 16 levels deep"));
    }
    Ok(text.to_owned())
}

/// Levels of nesting of a text that is known to be JSON.
fn depth(json: &str) -> usize {
    let (mut level, mut deepest, mut in_text, mut escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => {
                level += 1;
                deepest = deepest.max(level);
            }
            b'}' | b']' if !in_text => level = level.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(json: &str) -> Result<NewContent, Invalid> {
        serde_json::from_str::<ContentInput>(json)
            .unwrap()
            .into_row(1)
    }

    fn with(field: &str, value: &str) -> Result<NewContent, Invalid> {
        let title = if field == "title" {
            ""
        } else {
            r#""title":"t","#
        };
        let user = "00000000-0000-7000-8000-000000000000";
        input(&format!(
            r#"{{"user_id":"{user}",{title}"{field}":{value}}}"#
        ))
    }

    #[test]
    fn each_limit_holds_at_its_edge() {
        let text = |n: usize| format!("\"{}\"", "é".repeat(n));
        assert!(with("title", &text(200)).is_ok());
        assert_eq!(with("title", &text(201)).unwrap_err().field, "title");
        assert_eq!(with("title", "\" \"").unwrap_err().field, "title");
        assert_eq!(with("title", r#""a\u0000b""#).unwrap_err().field, "title");
        assert_eq!(with("body", r#""\u0000""#).unwrap_err().field, "body");
        assert!(with("description", &text(2_048)).is_ok());
        assert_eq!(
            with("description", &text(2_049)).unwrap_err().field,
            "description"
        );
        assert_eq!(with("status", "\"gone\"").unwrap_err().field, "status");
        assert_eq!(with("visibility", "\"\"").unwrap_err().field, "visibility");
        assert_eq!(with("kind", "\"No\"").unwrap_err().field, "kind");
        let nested = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        assert!(with("metadata", &nested(16)).is_ok());
        assert_eq!(with("metadata", &nested(17)).unwrap_err().field, "metadata");
        assert_eq!(with("metadata", "[]").unwrap_err().field, "metadata");
    }

    #[test]
    fn braces_inside_text_are_no_levels() {
        assert_eq!(depth(r#"{"a":"{[\"{","b":[{}]}"#), 3);
    }

    #[test]
    fn an_unknown_field_of_a_body_is_an_error() {
        assert!(serde_json::from_str::<PatchInput>(r#"{"lease_owner":"me"}"#).is_err());
    }
}
