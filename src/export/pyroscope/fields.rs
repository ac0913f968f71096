//! A request's fields, whichever encoding it came in.

use serde_json::Value as Json;

use super::records::{Record, Records};
use super::schema::{Field, Kind, Schema, camel};
use crate::error::Error;
use crate::export::guard::{Reason, Refusal};
use crate::export::respond::query::shown;

/// The known fields of a message; the others are nobody's business, since clients are newer than servers.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Fields(Vec<(u32, Value)>);

#[derive(Debug, PartialEq)]
enum Value {
    Text(String),
    Whole(i64),
    Double(f64),
    Message(Fields),
}

/// The refusal of a field's value.
pub(crate) fn invalid(field: &'static str, allowed: &str, seen: &str) -> Refusal {
    let error = Error::out_of_range(field, allowed, shown(seen));
    Refusal::new(400, Reason::Parameter, error.to_string())
}

impl Fields {
    /// Reads a message.
    ///
    /// # Errors
    /// What is malformed, by the field.
    pub(crate) fn of_proto(message: &[u8], schema: Schema) -> Result<Self, Refusal> {
        let mut fields = Self::default();
        for record in Records::of(message) {
            let (number, record) = record.map_err(|why| {
                let text = format!("body must be a protobuf message: {why}");
                Refusal::new(400, Reason::Parameter, text)
            })?;
            if let Some(field) = schema.iter().find(|field| field.number == number) {
                fields.put(field, proto_value(field, record)?);
            }
        }
        Ok(fields)
    }

    /// Reads a JSON object.
    ///
    /// # Errors
    /// As [`of_proto`](Self::of_proto).
    pub(crate) fn of_json(text: &[u8], schema: Schema) -> Result<Self, Refusal> {
        let json: Option<Json> = serde_json::from_slice(text).ok();
        let seen = || String::from_utf8_lossy(text);
        let json = json.ok_or_else(|| invalid("body", "a JSON object", &seen()))?;
        Self::of_object("body", &json, schema)
    }

    fn of_object(name: &'static str, json: &Json, schema: Schema) -> Result<Self, Refusal> {
        let object = json.as_object();
        let object = object.ok_or_else(|| invalid(name, "a JSON object", &json.to_string()))?;
        let mut fields = Self::default();
        for (key, json) in object {
            let named = |field: &&Field| field.name == key || camel(field.name).eq(key.chars());
            let Some(field) = schema.iter().find(named) else {
                continue;
            };
            match json {
                Json::Null => {}
                Json::Array(values) if field.is_list => {
                    for value in values {
                        fields.put(field, json_value(field, value)?);
                    }
                }
                _ if field.is_list => {
                    return Err(invalid(field.name, "a JSON array", &json.to_string()));
                }
                _ => fields.put(field, json_value(field, json)?),
            }
        }
        Ok(fields)
    }

    /// Adds to a list; replaces a single value, and merges a single message, as proto3 asks.
    fn put(&mut self, field: &Field, value: Value) {
        let mut held = self.0.iter_mut();
        let held = held.find(|(number, _)| *number == field.number && !field.is_list);
        match (held, value) {
            (None, value) => self.0.push((field.number, value)),
            (Some((_, Value::Message(held))), Value::Message(more)) => held.0.extend(more.0),
            (Some((_, held)), value) => *held = value,
        }
    }

    fn all(&self, number: u32) -> impl DoubleEndedIterator<Item = &Value> {
        let of_number = move |held: &&(u32, Value)| held.0 == number;
        self.0.iter().filter(of_number).map(|held| &held.1)
    }

    /// A text, empty where it is not given.
    pub(crate) fn text(&self, number: u32) -> &str {
        self.texts(number).last().unwrap_or_default()
    }

    /// The texts of a list.
    pub(crate) fn texts(&self, number: u32) -> impl Iterator<Item = &str> {
        self.all(number).filter_map(|value| match value {
            Value::Text(text) => Some(text.as_str()),
            Value::Whole(_) | Value::Double(_) | Value::Message(_) => None,
        })
    }

    /// A whole number; `None` where it is not given.
    pub(crate) fn whole(&self, number: u32) -> Option<i64> {
        self.all(number).rev().find_map(|value| match value {
            Value::Whole(whole) => Some(*whole),
            Value::Text(_) | Value::Double(_) | Value::Message(_) => None,
        })
    }

    /// A number; `None` where it is not given.
    pub(crate) fn double(&self, number: u32) -> Option<f64> {
        self.all(number).rev().find_map(|value| match value {
            Value::Double(double) => Some(*double),
            Value::Text(_) | Value::Whole(_) | Value::Message(_) => None,
        })
    }

    /// The messages of a field.
    pub(crate) fn messages(&self, number: u32) -> impl Iterator<Item = &Self> {
        self.all(number).filter_map(|value| match value {
            Value::Message(fields) => Some(fields),
            Value::Text(_) | Value::Whole(_) | Value::Double(_) => None,
        })
    }
}

impl Kind {
    const fn words(self) -> &'static str {
        match self {
            Self::Text => "text in UTF-8",
            Self::Signed | Self::Unsigned => "a whole number of 64 bits",
            Self::Double => "a number",
            Self::Flag => "true|false",
            Self::Choice(_) => "a number or name of the enum",
            Self::Message(_) => "a message",
        }
    }
}

fn proto_value(field: &Field, record: Record<'_>) -> Result<Value, Refusal> {
    let wrong = |seen: &str| invalid(field.name, field.kind.words(), seen);
    match (field.kind, record) {
        (Kind::Text, Record::Bytes(bytes)) => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Value::Text(text.to_owned())),
            Err(_) => Err(wrong(&String::from_utf8_lossy(bytes))),
        },
        (Kind::Message(schema), Record::Bytes(bytes)) => {
            Ok(Value::Message(Fields::of_proto(bytes, schema)?))
        }
        (Kind::Double, Record::Fixed64(bits)) => Ok(Value::Double(f64::from_bits(bits))),
        (Kind::Signed | Kind::Unsigned | Kind::Flag | Kind::Choice(_), Record::Varint(number)) => {
            Ok(Value::Whole(number.cast_signed()))
        }
        (_, Record::Varint(_)) => Err(wrong("a varint")),
        (_, Record::Fixed64(_)) => Err(wrong("8 bytes")),
        (_, Record::Fixed32) => Err(wrong("4 bytes")),
        (_, Record::Bytes(_)) => Err(wrong("bytes")),
    }
}

fn json_value(field: &Field, json: &Json) -> Result<Value, Refusal> {
    let wrong = || invalid(field.name, field.kind.words(), &plain(json));
    let value = match field.kind {
        Kind::Text => json.as_str().map(|text| Value::Text(text.to_owned())),
        Kind::Message(schema) => {
            let fields = Fields::of_object(field.name, json, schema)?;
            return Ok(Value::Message(fields));
        }
        Kind::Double => match json {
            Json::String(text) => text.parse().ok(),
            _ => json.as_f64(),
        }
        .map(Value::Double),
        Kind::Flag => json.as_bool().map(|flag| Value::Whole(flag.into())),
        Kind::Signed | Kind::Unsigned => whole(json).map(Value::Whole),
        Kind::Choice(names) => {
            let by_name = || {
                let place = names.iter().position(|name| Some(*name) == json.as_str())?;
                i64::try_from(place).ok()
            };
            whole(json).or_else(by_name).map(Value::Whole)
        }
    };
    value.ok_or_else(wrong)
}

/// A number of 64 bits, which JSON carries as a text so that no digit is lost; written out as a number it
/// may have a fraction of zero.
fn whole(json: &Json) -> Option<i64> {
    match json {
        Json::String(text) => text.parse().ok(),
        _ => json.as_i64().or_else(|| exact(json.as_f64()?)),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::float_cmp,
    reason = "only what comes back the same is taken, and beyond 2^53 that is not asked for"
)]
fn exact(number: f64) -> Option<i64> {
    let whole = number as i64;
    (number.abs() <= (1_u64 << 53) as f64 && whole as f64 == number).then_some(whole)
}

/// A value as it stands in the error: a text without its quotes.
fn plain(json: &Json) -> String {
    json.as_str()
        .map_or_else(|| json.to_string(), str::to_owned)
}
