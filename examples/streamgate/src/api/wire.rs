//! The answers as protobuf messages; `proto/streamgate.proto` is the same for readers in other languages.
//!
//! Guide 5.3. Metric: `http_server_response_body_size_bytes`. Breaking tests:
//! `a_protobuf_answer_says_what_the_json_says`, `the_proto_file_and_the_messages_agree`.
//!
//! A message is made out of the JSON of the same answer, so that field selection, order and rules of what a
//! client may see stand in one place. Pages pay for it once, because they are cached as they are sent.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub(super) struct Content {
    #[prost(string, optional, tag = "1")]
    id: Option<String>,
    #[prost(string, optional, tag = "2")]
    user_id: Option<String>,
    #[prost(string, optional, tag = "3")]
    title: Option<String>,
    #[prost(string, optional, tag = "4")]
    description: Option<String>,
    #[prost(string, optional, tag = "5")]
    status: Option<String>,
    #[prost(string, optional, tag = "6")]
    kind: Option<String>,
    #[prost(string, optional, tag = "7")]
    visibility: Option<String>,
    #[prost(string, optional, tag = "8")]
    body: Option<String>,
    #[prost(int64, optional, tag = "9")]
    body_bytes: Option<i64>,
    #[prost(int64, optional, tag = "10")]
    version: Option<i64>,
    #[prost(string, optional, tag = "11")]
    #[serde(deserialize_with = "text_of_json")]
    metadata: Option<String>,
    #[prost(int64, optional, tag = "12")]
    created_at: Option<i64>,
    #[prost(int64, optional, tag = "13")]
    updated_at: Option<i64>,
    #[prost(string, optional, tag = "14")]
    storage: Option<String>,
    #[prost(message, repeated, tag = "15")]
    nfts: Vec<Nft>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub(super) struct Nft {
    #[prost(string, optional, tag = "1")]
    id: Option<String>,
    #[prost(string, optional, tag = "2")]
    contract_address: Option<String>,
    #[prost(string, optional, tag = "3")]
    token_id: Option<String>,
    #[prost(string, optional, tag = "4")]
    owner_address: Option<String>,
    #[prost(int64, optional, tag = "5")]
    chain_id: Option<i64>,
    #[prost(string, optional, tag = "6")]
    content_id: Option<String>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub(super) struct Transaction {
    #[prost(string, optional, tag = "1")]
    id: Option<String>,
    #[prost(string, optional, tag = "2")]
    user_id: Option<String>,
    #[prost(string, optional, tag = "3")]
    tx_hash: Option<String>,
    #[prost(string, optional, tag = "4")]
    status: Option<String>,
    #[prost(string, optional, tag = "5")]
    value: Option<String>,
    #[prost(int64, optional, tag = "6")]
    created_at: Option<i64>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub(super) struct User {
    #[prost(string, optional, tag = "1")]
    id: Option<String>,
    #[prost(string, optional, tag = "2")]
    wallet_address: Option<String>,
    #[prost(string, optional, tag = "3")]
    display_name: Option<String>,
    #[prost(int64, optional, tag = "4")]
    created_at: Option<i64>,
    #[prost(int64, optional, tag = "5")]
    content_bytes: Option<i64>,
    #[prost(map = "string, int64", tag = "6")]
    content_by_status: HashMap<String, i64>,
}

/// A page of any of them.
macro_rules! page {
    ($name:ident of $row:ty) => {
        #[derive(Clone, PartialEq, Message, Deserialize)]
        #[serde(default)]
        pub(super) struct $name {
            #[prost(message, repeated, tag = "1")]
            items: Vec<$row>,
            #[prost(string, optional, tag = "2")]
            next: Option<String>,
        }
    };
}

page!(ContentPage of Content);
page!(NftPage of Nft);
page!(TransactionPage of Transaction);

/// The message with the same content as a JSON text.
///
/// # Errors
/// The text is no JSON of this message: never one of the service's own.
pub(super) fn of_json<M: Message + DeserializeOwned>(json: &[u8]) -> serde_json::Result<Bytes> {
    let message: M = serde_json::from_slice(json)?;
    Ok(message.encode_to_vec().into())
}

fn text_of_json<'de, D: Deserializer<'de>>(value: D) -> Result<Option<String>, D::Error> {
    let raw = Box::<RawValue>::deserialize(value)?;
    Ok(Some(raw.get().to_owned()))
}
