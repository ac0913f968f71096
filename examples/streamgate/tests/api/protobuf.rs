//! Protobuf answers, read by the numbers that stand in `proto/streamgate.proto`.

use std::collections::BTreeMap;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};

use crate::support::{Service, content, service, user};

const PROTO: &str = include_str!("../../proto/streamgate.proto");
const MEDIA: (&str, &str) = ("accept", "application/x-protobuf");

/// Fields by number: name, type, and whether there may be several.
type Fields = BTreeMap<u64, (String, String, bool)>;

/// Messages by name.
struct Schema(BTreeMap<String, Fields>);

impl Schema {
    /// Reads what the file uses of the language: messages of scalar, repeated and map fields.
    fn read() -> Self {
        let (mut messages, mut name) = (BTreeMap::new(), String::new());
        for line in PROTO.lines().map(str::trim) {
            if let Some(rest) = line.strip_prefix("message ") {
                name = rest.trim_end_matches(" {").to_owned();
                messages.insert(name.clone(), Fields::new());
            } else if let Some((left, number)) = line.split_once(" = ")
                && let Some(fields) = messages.get_mut(&name)
            {
                let number = number.trim_end_matches(';').parse().unwrap();
                let (kind, field) = left.rsplit_once(' ').unwrap();
                let several = kind.starts_with("repeated ");
                let kind = kind.trim_start_matches("repeated ");
                let kind = kind.trim_start_matches("optional ").to_owned();
                let old = fields.insert(number, (field.to_owned(), kind, several));
                assert!(old.is_none(), "{name}: number {number} stands twice");
            }
        }
        Self(messages)
    }

    fn decode(&self, message: &str, mut bytes: &[u8]) -> Value {
        let fields = &self.0[message];
        let mut object = Map::new();
        for (name, kind, several) in fields.values() {
            if *several {
                object.insert(name.clone(), json!([]));
            } else if kind.starts_with("map<") {
                object.insert(name.clone(), json!({}));
            }
        }
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let (name, kind, several) = &fields[&(key >> 3)];
            let value = match (kind.as_str(), key & 7) {
                ("int64", 0) => json!(varint(&mut bytes).cast_signed()),
                ("string", 2) => json!(std::str::from_utf8(taken(&mut bytes)).unwrap()),
                ("map<string, int64>", 2) => {
                    let mut entry = taken(&mut bytes);
                    assert_eq!(varint(&mut entry), 1 << 3 | 2);
                    let key = std::str::from_utf8(taken(&mut entry)).unwrap().to_owned();
                    let value = if entry.is_empty() {
                        0
                    } else {
                        assert_eq!(varint(&mut entry), 2 << 3);
                        varint(&mut entry)
                    };
                    object[name][key] = json!(value);
                    continue;
                }
                (message, 2) => self.decode(message, taken(&mut bytes)),
                (kind, wire) => panic!("{name}: {kind} on the wire as {wire}"),
            };
            if *several {
                object[name].as_array_mut().unwrap().push(value);
            } else {
                object.insert(name.clone(), value);
            }
        }
        Value::Object(object)
    }
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let (first, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        shift += 7;
        if first & 0x80 == 0 {
            return value;
        }
    }
}

fn taken<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
    let length = usize::try_from(varint(bytes)).unwrap();
    let (taken, rest) = bytes.split_at(length);
    *bytes = rest;
    taken
}

/// What protobuf leaves out: nulls, and lists and metadata in another form.
fn as_message(mut json: Value) -> Value {
    match &mut json {
        Value::Object(object) => {
            if let Some(metadata) = object.get_mut("metadata") {
                *metadata = json!(metadata.to_string());
            }
            object.retain(|_, value| !value.is_null());
            for (name, value) in object.iter_mut() {
                if name != "metadata" {
                    *value = as_message(value.take());
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                *item = as_message(item.take());
            }
        }
        _ => {}
    }
    json
}

/// The answer in both forms, after what must hold for each.
async fn both(service: &Service, path: &str, message: &str) -> (Value, Value) {
    let text = service.get(path).await;
    let binary = service.get_with(path, &[MEDIA]).await;
    assert_eq!(text.header("content-type"), "application/json");
    assert_eq!(binary.header("content-type"), MEDIA.1, "{path}");
    assert_eq!(binary.header("vary"), "Accept-Encoding, Accept");
    assert_eq!(binary.header("cache-control"), text.header("cache-control"));
    assert!(binary.body.len() < text.body.len(), "{path}");
    (
        as_message(text.json()),
        Schema::read().decode(message, &binary.body),
    )
}

#[tokio::test]
async fn a_protobuf_answer_says_what_the_json_says() {
    let service = service().await;
    for (path, message) in [
        (format!("/v1/content/{}", content(3)), "Content"),
        (format!("/v1/content/{}?expand=nfts", content(3)), "Content"),
        (
            format!("/v1/content/{}?fields=title,version", content(3)),
            "Content",
        ),
        ("/v1/content?limit=7".to_owned(), "ContentPage"),
        ("/v1/content?limit=7&fields=id".to_owned(), "ContentPage"),
        (format!("/v1/users/{}", user(5)), "User"),
        (
            format!(
                "/v1/nft?contract={}",
                streamgate::seed::ids::contract_address(7, 4)
            ),
            "NftPage",
        ),
        (
            "/v1/transactions?status=confirmed".to_owned(),
            "TransactionPage",
        ),
    ] {
        let (mut text, mut binary) = both(&service, &path, message).await;
        // An empty list is absent on the wire, and so is one that nobody asked for.
        for value in [&mut text, &mut binary] {
            drop_empty(value);
        }
        assert_eq!(binary, text, "{path}");
    }
}

fn drop_empty(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|_, value| *value != json!([]) && *value != json!({}));
            object.values_mut().for_each(drop_empty);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_empty),
        _ => {}
    }
}

#[tokio::test]
async fn each_media_type_has_its_own_tag_and_its_own_cached_page() {
    let service = service().await;
    let path = format!("/v1/content/{}", content(0));
    let text = service.get(&path).await;
    let binary = service.get_with(&path, &[MEDIA]).await;
    assert_ne!(text.header("etag"), binary.header("etag"));
    let known = [MEDIA, ("if-none-match", binary.header("etag"))];
    assert_eq!(service.get_with(&path, &known).await.status, 304);
    let foreign = [MEDIA, ("if-none-match", text.header("etag"))];
    assert_eq!(service.get_with(&path, &foreign).await.status, 200);
    for _ in 0..2 {
        let page = "/v1/content?limit=3";
        assert_eq!(
            service.get(page).await.json()["items"]
                .as_array()
                .unwrap()
                .len(),
            3
        );
        let binary = service.get_with(page, &[MEDIA]).await;
        let page = Schema::read().decode("ContentPage", &binary.body);
        assert_eq!(page["items"].as_array().unwrap().len(), 3);
    }
}

#[tokio::test]
async fn a_problem_is_json_whatever_the_client_accepts() {
    let service = service().await;
    let answer = service.get_with("/v1/content?limit=0", &[MEDIA]).await;
    assert_eq!(answer.problem(), (400, "bad-parameter".to_owned()));
}

/// The table of the README, printed with `--nocapture`: bytes of a page in each form.
#[tokio::test]
async fn a_page_is_smaller_as_protobuf_with_and_without_gzip() {
    let service = service().await;
    let packed = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap().len()
    };
    for path in [
        format!("/v1/content/{}", content(3)),
        "/v1/content?limit=20".to_owned(),
        format!("/v1/users/{}", user(5)),
        "/v1/transactions?status=confirmed&limit=20".to_owned(),
    ] {
        let text = service.get(&path).await.body;
        let binary = service.get_with(&path, &[MEDIA]).await.body;
        println!(
            "{path}: JSON {}, gzip {}, protobuf {}, gzip {}",
            text.len(),
            packed(&text),
            binary.len(),
            packed(&binary)
        );
        assert!(binary.len() < text.len());
    }
}
