//! The rows of the demo data, as pure functions of (seed, index).

use super::ids::{self, Draw, mix};
use super::insert::{Insert, Value};

/// Words of the texts: short and common, so that bodies compress about as well as prose.
const WORDS: [&str; 32] = [
    "stream",
    "gate",
    "live",
    "chain",
    "token",
    "owner",
    "frame",
    "audio",
    "video",
    "scene",
    "light",
    "city",
    "river",
    "night",
    "signal",
    "record",
    "studio",
    "camera",
    "voice",
    "track",
    "public",
    "release",
    "artist",
    "collection",
    "edition",
    "channel",
    "archive",
    "moment",
    "season",
    "chapter",
    "rhythm",
    "harbour",
];

pub(super) struct UserRow {
    id: String,
    wallet_address: String,
    display_name: String,
    created_at: i64,
}

pub(super) struct ContentRow {
    id: String,
    user_id: String,
    title: String,
    description: String,
    status: &'static str,
    kind: &'static str,
    visibility: &'static str,
    body: String,
    metadata: String,
    created_at: i64,
}

pub(super) struct NftRow {
    id: String,
    contract_address: String,
    token_id: String,
    owner_address: String,
    chain_id: i64,
    content_id: String,
}

pub(super) struct TransactionRow {
    id: String,
    user_id: String,
    tx_hash: String,
    status: &'static str,
    value: String,
    created_at: i64,
}

impl Insert for UserRow {
    const INTO: &'static str = "INSERT INTO users (id, wallet_address, display_name, created_at)";

    fn values(self) -> Vec<Value> {
        vec![
            self.id.into(),
            self.wallet_address.into(),
            self.display_name.into(),
            self.created_at.into(),
        ]
    }
}

impl Insert for ContentRow {
    const INTO: &'static str = "INSERT INTO content (id, user_id, title, description, status, \
         kind, visibility, body_bytes, body, metadata, created_at, updated_at)";

    fn values(self) -> Vec<Value> {
        vec![
            self.id.into(),
            self.user_id.into(),
            self.title.into(),
            self.description.into(),
            self.status.into(),
            self.kind.into(),
            self.visibility.into(),
            i64::try_from(self.body.len()).unwrap_or(i64::MAX).into(),
            self.body.into(),
            self.metadata.into(),
            self.created_at.into(),
            self.created_at.into(),
        ]
    }
}

impl Insert for NftRow {
    const INTO: &'static str = "INSERT INTO nft (id, contract_address, token_id, owner_address, \
         chain_id, content_id)";

    fn values(self) -> Vec<Value> {
        vec![
            self.id.into(),
            self.contract_address.into(),
            self.token_id.into(),
            self.owner_address.into(),
            self.chain_id.into(),
            self.content_id.into(),
        ]
    }
}

impl Insert for TransactionRow {
    const INTO: &'static str =
        "INSERT INTO \"transaction\" (id, user_id, tx_hash, status, value, created_at)";

    fn values(self) -> Vec<Value> {
        vec![
            self.id.into(),
            self.user_id.into(),
            self.tx_hash.into(),
            self.status.into(),
            self.value.into(),
            self.created_at.into(),
        ]
    }
}

pub(super) fn user(seed: u64, index: u64) -> UserRow {
    UserRow {
        id: ids::user_id(seed, index).to_string(),
        wallet_address: ids::wallet_address(seed, index),
        display_name: format!("{} {index}", word(mix(seed, Draw::Text, index, 0))),
        created_at: micros(ids::user_millis(index)),
    }
}

pub(super) fn content(seed: u64, index: u64, users: u64) -> ContentRow {
    let traits = mix(seed, Draw::Trait, index, 0);
    let owner = ids::content_owner(seed, index, users);
    // 90 of 100 are ready, so that a sweep for the others reads little.
    let status = match traits % 100 {
        0..90 => "ready",
        90..96 => "draft",
        96..98 => "processing",
        _ => "failed",
    };
    let kind = match (traits >> 8) % 4 {
        0 => "live",
        1 => "audio",
        _ => "video",
    };
    let visibility = if (traits >> 16).is_multiple_of(5) {
        "gated"
    } else {
        "public"
    };
    // 400 to 1 423 bytes: details lie around the 1 KiB from which answers are compressed.
    let body_bytes = 400 + (traits >> 24) % 1_024;
    ContentRow {
        id: ids::content_id(seed, index).to_string(),
        user_id: ids::user_id(seed, owner).to_string(),
        title: format!("{} {} {index}", word(traits >> 32), word(traits >> 40)),
        description: prose(seed, index, 1, 120),
        status,
        kind,
        visibility,
        body: prose(seed, index, 100, body_bytes),
        metadata: format!(
            r#"{{"bitrate":{},"hdr":{}}}"#,
            500 + traits % 7_500,
            traits & 1 == 1
        ),
        created_at: micros(ids::content_created_millis(index)),
    }
}

pub(super) fn nft(seed: u64, index: u64, users: u64) -> NftRow {
    let holder = ids::nft_holder(seed, index, users);
    NftRow {
        id: ids::nft_id(seed, index).to_string(),
        contract_address: ids::contract_address(seed, index),
        token_id: ids::token_id(index),
        owner_address: ids::wallet_address(seed, holder),
        chain_id: 1,
        content_id: ids::content_id(seed, index).to_string(),
    }
}

pub(super) fn transaction(seed: u64, index: u64, users: u64) -> TransactionRow {
    let traits = mix(seed, Draw::Trait, index, 1);
    let payer = ids::nft_holder(seed, index, users);
    let hash: String = (0..4)
        .map(|lane| format!("{:016x}", mix(seed, Draw::TransactionHash, index, lane)))
        .collect();
    TransactionRow {
        id: ids::transaction_id(seed, index).to_string(),
        user_id: ids::user_id(seed, payer).to_string(),
        tx_hash: format!("0x{hash}"),
        status: match traits % 100 {
            0..95 => "confirmed",
            95..98 => "pending",
            _ => "failed",
        },
        value: ((traits >> 8) % 1_000_000_000_000).to_string(),
        created_at: micros(ids::content_millis(index)),
    }
}

fn micros(millis: u64) -> i64 {
    i64::try_from(millis.saturating_mul(1_000)).unwrap_or(i64::MAX)
}

/// Words until `bytes` are reached; the last word may exceed it.
fn prose(seed: u64, index: u64, lane: u64, bytes: u64) -> String {
    let wanted = usize::try_from(bytes).unwrap_or(usize::MAX);
    let mut text = String::with_capacity(wanted.saturating_add(16));
    let mut lane = lane;
    while text.len() < wanted {
        let mut bits = mix(seed, Draw::Text, index, lane);
        // Twelve words of five bits each out of one number.
        for _ in 0..12 {
            text.push_str(word(bits));
            text.push(' ');
            bits >>= 5;
        }
        lane += 1;
    }
    text.truncate(text.trim_end().len());
    text
}

fn word(bits: u64) -> &'static str {
    let place = usize::try_from(bits % 32).unwrap_or(0);
    WORDS.get(place).copied().unwrap_or("stream")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_depends_on_seed_and_index_only() {
        let text = |seed, index| {
            let row = content(seed, index, 10);
            (row.id, row.user_id, row.title, row.body, row.metadata)
        };
        assert_eq!(text(1, 5), text(1, 5));
        assert_ne!(text(1, 5), text(2, 5));
        assert_ne!(text(1, 5), text(1, 6));
    }

    #[test]
    fn every_status_and_visibility_occurs() {
        let rows: Vec<ContentRow> = (0..2_000).map(|index| content(1, index, 10)).collect();
        for status in ["draft", "processing", "ready", "failed"] {
            assert!(rows.iter().any(|row| row.status == status), "{status}");
        }
        for visibility in ["public", "gated"] {
            assert!(
                rows.iter().any(|row| row.visibility == visibility),
                "{visibility}"
            );
        }
    }
}
