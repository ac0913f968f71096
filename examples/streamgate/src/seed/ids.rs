//! Identities of the demo data as pure functions of (seed, index).
//!
//! Ids have the shape of UUIDv7: 48 bits of milliseconds, then bits mixed from seed and index. So
//! they sort by index as real ones sort by time, and two processes agree on them without talking.

use uuid::Uuid;

/// Time of the content with index 0: 2026-01-01T00:00:00Z.
pub const CONTENT_EPOCH_MILLIS: u64 = 1_767_225_600_000;

/// Time between two contents: 100 000 rows span 69 days.
pub const CONTENT_STEP_MILLIS: u64 = 60_000;

/// Time of the user with index 0: 2025-10-01T00:00:00Z, before any content.
pub const USER_EPOCH_MILLIS: u64 = 1_759_276_800_000;

/// Time between two users: a million of them still sign up before the first content.
pub const USER_STEP_MILLIS: u64 = 1_000;

/// One in so many contents is older than a year, so that the archiver has work.
const IMPORTED_EVERY: u64 = 64;

/// How much older than its id an imported content is.
const IMPORTED_AGE_MILLIS: u64 = 2 * 365 * 24 * 3_600_000;

/// NFT contracts in the demo data; rows per contract = contents / this.
pub const CONTRACTS: u64 = 200;

/// What a number is drawn for, so that equal indexes of different kinds share no bits.
#[derive(Clone, Copy)]
pub(crate) enum Draw {
    UserId = 1,
    ContentId,
    NftId,
    TransactionId,
    Owner,
    Wallet,
    Contract,
    ContractAddress,
    Holder,
    TransactionHash,
    Text,
    Trait,
    Segment,
}

/// 64 bits that depend on every bit of the arguments: SplitMix64's finaliser over a running sum.
pub(crate) fn mix(seed: u64, draw: Draw, index: u64, lane: u64) -> u64 {
    let mut z = seed
        .wrapping_add((draw as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .wrapping_add(lane.wrapping_mul(0xd1b5_4a32_d192_ed03));
    for part in [index, 0] {
        z = z.wrapping_add(part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
    }
    z
}

fn uuid_v7(seed: u64, draw: Draw, index: u64, millis: u64) -> Uuid {
    let low = mix(seed, draw, index, 0);
    let high = mix(seed, draw, index, 1);
    let mut bytes = [0_u8; 10];
    let (head, tail) = bytes.split_at_mut(8);
    head.copy_from_slice(&low.to_be_bytes());
    tail.copy_from_slice(&u16::try_from(high >> 48).unwrap_or(0).to_be_bytes());
    uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid()
}

/// The id of a user.
#[must_use]
pub fn user_id(seed: u64, index: u64) -> Uuid {
    uuid_v7(seed, Draw::UserId, index, user_millis(index))
}

/// The id of a content.
#[must_use]
pub fn content_id(seed: u64, index: u64) -> Uuid {
    uuid_v7(seed, Draw::ContentId, index, content_millis(index))
}

/// The id of the NFT that belongs to the content of the same index.
#[must_use]
pub fn nft_id(seed: u64, index: u64) -> Uuid {
    uuid_v7(seed, Draw::NftId, index, content_millis(index))
}

/// The id of a transaction.
#[must_use]
pub fn transaction_id(seed: u64, index: u64) -> Uuid {
    uuid_v7(seed, Draw::TransactionId, index, content_millis(index))
}

/// The index of the user that owns a content, below `users`; 0 when there are none.
#[must_use]
pub fn content_owner(seed: u64, index: u64, users: u64) -> u64 {
    mix(seed, Draw::Owner, index, 0)
        .checked_rem(users)
        .unwrap_or(0)
}

/// The index of the user whose wallet holds the NFT of a content, below `users`.
#[must_use]
pub fn nft_holder(seed: u64, index: u64, users: u64) -> u64 {
    mix(seed, Draw::Holder, index, 0)
        .checked_rem(users)
        .unwrap_or(0)
}

/// The wallet address of a user: `0x` and 40 hexadecimal digits.
#[must_use]
pub fn wallet_address(seed: u64, user: u64) -> String {
    address(seed, Draw::Wallet, user)
}

/// The address of the contract that minted the NFT of a content, one of [`CONTRACTS`].
#[must_use]
pub fn contract_address(seed: u64, index: u64) -> String {
    let contract = mix(seed, Draw::Contract, index, 0) % CONTRACTS;
    address(seed, Draw::ContractAddress, contract)
}

/// The token id of the NFT of a content: unique within its contract.
#[must_use]
pub fn token_id(index: u64) -> String {
    index.to_string()
}

/// Milliseconds since 1970 at which a content came to be.
#[must_use]
pub fn content_millis(index: u64) -> u64 {
    CONTENT_EPOCH_MILLIS.saturating_add(index.saturating_mul(CONTENT_STEP_MILLIS))
}

/// Milliseconds since 1970 that a content says it was made at: one in 64 came from an older service and is
/// two years older than its id.
#[must_use]
pub fn content_created_millis(index: u64) -> u64 {
    let imported = index % IMPORTED_EVERY == IMPORTED_EVERY - 1;
    content_millis(index).saturating_sub(if imported { IMPORTED_AGE_MILLIS } else { 0 })
}

/// Milliseconds since 1970 at which a user signed up.
#[must_use]
pub fn user_millis(index: u64) -> u64 {
    USER_EPOCH_MILLIS.saturating_add(index.saturating_mul(USER_STEP_MILLIS))
}

fn address(seed: u64, draw: Draw, index: u64) -> String {
    let (a, b, c) = (
        mix(seed, draw, index, 0),
        mix(seed, draw, index, 1),
        mix(seed, draw, index, 2) >> 32,
    );
    format!("0x{a:016x}{b:016x}{c:08x}")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_uuid_v7_and_sort_by_index() {
        let ids: Vec<Uuid> = (0..1_000).map(|index| content_id(7, index)).collect();
        assert!(ids.iter().all(|id| id.get_version_num() == 7));
        assert!(ids.is_sorted());
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
    }

    #[test]
    fn kinds_and_seeds_share_no_id() {
        let mut seen = HashSet::new();
        for seed in 0..4 {
            for index in 0..500 {
                assert!(seen.insert(content_id(seed, index)));
                assert!(seen.insert(nft_id(seed, index)));
                assert!(seen.insert(transaction_id(seed, index)));
                assert!(seen.insert(user_id(seed, index)));
            }
        }
    }

    /// The load generator may be another build: these values are a promise between processes.
    #[test]
    fn the_same_arguments_give_the_same_text_for_ever() {
        assert_eq!(
            user_id(1, 7).to_string(),
            "01999d11-b358-7fe7-b3ff-49c06676c889"
        );
        assert_eq!(
            content_id(1, 7).to_string(),
            "019b76e1-10a0-72d4-9068-0b273c530304"
        );
        assert_eq!(
            nft_id(1, 7).to_string(),
            "019b76e1-10a0-7cdc-903f-850eeb071277"
        );
        assert_eq!(
            transaction_id(1, 7).to_string(),
            "019b76e1-10a0-78f7-99b9-f7c6ea775ba0"
        );
        assert_eq!(content_owner(1, 7, 5_000), 3_793);
        assert_eq!(nft_holder(1, 7, 5_000), 3_590);
        assert_eq!(
            wallet_address(1, 7),
            "0x514554d348fdccb17e4eaacd3ef270498052aa25"
        );
        assert_eq!(
            contract_address(1, 7),
            "0x4707dbcf383948767353b88f15318faf22faa1b8"
        );
    }

    #[test]
    fn owners_are_spread_over_all_users() {
        let owners: HashSet<u64> = (0..10_000)
            .map(|index| content_owner(1, index, 100))
            .collect();
        assert_eq!(owners.len(), 100);
        assert_eq!(content_owner(1, 5, 0), 0);
    }
}
