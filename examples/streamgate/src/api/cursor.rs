//! Signed cursors: where a page ended, for this list only.
//!
//! Guide 3.2. Breaking tests: `a_cursor_is_refused_by_another_list_or_after_any_change`,
//! `pages_show_every_row_once`. Page 1 000 costs what page 1 costs: the statement seeks to the id
//! instead of counting rows off.
//!
//! Text: base64url of version, hash of the list's filter, position, and 16 bytes of HMAC-SHA256.
//! It holds the time as well as the id, because one list is ordered by time.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::db::Position;
use crate::problem::Problem;

const VERSION: u8 = 1;
const FILTER_BYTES: usize = 8;
const SIGNED_BYTES: usize = 1 + FILTER_BYTES + 8 + 16;
const TAG_BYTES: usize = 16;

/// The keys: the first signs, all verify, so that a key can be replaced under way.
pub(super) struct Signer {
    keys: Vec<[u8; 32]>,
}

/// Keys are no text for a log.
impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer")
            .field("keys", &self.keys.len())
            .finish()
    }
}

/// A list and its filter, normalised: equal texts are the same list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ListId(pub(super) String);

impl ListId {
    fn filter_hash(&self) -> [u8; FILTER_BYTES] {
        let digest: [u8; 32] = Sha256::digest(&self.0).into();
        let mut hash = [0; FILTER_BYTES];
        hash.iter_mut()
            .zip(digest)
            .for_each(|(to, from)| *to = from);
        hash
    }
}

impl Signer {
    /// With these keys, or with one at random when there are none.
    pub(super) fn new(keys: &[[u8; 32]]) -> Self {
        let keys = if keys.is_empty() {
            vec![rand::random()]
        } else {
            keys.to_vec()
        };
        Self { keys }
    }

    /// The text of a position in a list.
    pub(super) fn sign(&self, list: &ListId, position: Position) -> String {
        let mut bytes = Vec::with_capacity(SIGNED_BYTES + TAG_BYTES);
        bytes.push(VERSION);
        bytes.extend(list.filter_hash());
        bytes.extend(position.micros.to_be_bytes());
        bytes.extend(position.id.as_bytes());
        self.seal(bytes)
    }

    /// Text of bytes and their signature. The first byte says what they are, so that nothing signed for one
    /// use passes for another.
    pub(super) fn seal(&self, mut bytes: Vec<u8>) -> String {
        if let Some(mac) = self.keys.first().and_then(|key| mac(key, &bytes)) {
            bytes.extend(mac.finalize().into_bytes().iter().take(TAG_BYTES));
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The bytes of a text that one of the keys has signed.
    pub(super) fn open(&self, text: &str) -> Option<Vec<u8>> {
        let mut bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (signed, tag) = bytes.split_at_checked(bytes.len().checked_sub(TAG_BYTES)?)?;
        let genuine = self
            .keys
            .iter()
            .any(|key| mac(key, signed).is_some_and(|mac| mac.verify_truncated_left(tag).is_ok()));
        let signed = signed.len();
        bytes.truncate(signed);
        genuine.then_some(bytes)
    }

    /// The position in a text that one of the keys has signed for this list.
    ///
    /// # Errors
    /// [`Problem::BadCursor`] for everything else; the answer does not tell which part was wrong.
    pub(super) fn verify(&self, list: &ListId, text: &str) -> Result<Position, Problem> {
        self.position(list, text).ok_or(Problem::BadCursor)
    }

    fn position(&self, list: &ListId, text: &str) -> Option<Position> {
        let signed = self.open(text)?;
        let rest = signed
            .strip_prefix(&[VERSION])?
            .strip_prefix(&list.filter_hash())?;
        let (micros, id) = rest.split_first_chunk::<8>()?;
        Some(Position {
            micros: i64::from_be_bytes(*micros),
            id: Uuid::from_slice(id).ok()?,
        })
    }
}

fn mac(key: &[u8; 32], bytes: &[u8]) -> Option<Hmac<Sha256>> {
    // Refused for no length: HMAC takes keys of every one.
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(bytes);
    Some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> ListId {
        ListId(text.to_owned())
    }

    const POSITION: Position = Position {
        micros: 77,
        id: Uuid::from_u128(5),
    };

    #[test]
    fn a_signed_cursor_comes_back() {
        let signer = Signer::new(&[]);
        let text = signer.sign(&list("content|user=1"), POSITION);
        assert_eq!(
            signer.verify(&list("content|user=1"), &text).unwrap(),
            POSITION
        );
    }

    #[test]
    fn a_cursor_is_refused_by_another_list_or_after_any_change() {
        let signer = Signer::new(&[]);
        let text = signer.sign(&list("a"), POSITION);
        assert!(signer.verify(&list("b"), &text).is_err());
        for at in 0..text.len() {
            for letter in ["A", "z", "_", "=", "é", ""] {
                let mut changed = text.clone();
                changed.replace_range(at..=at, letter);
                if changed != text {
                    assert!(
                        signer.verify(&list("a"), &changed).is_err(),
                        "{at} {letter}"
                    );
                }
            }
        }
        for forged in [
            "",
            "AA",
            &URL_SAFE_NO_PAD.encode([1; 49]),
            text.get(..text.len() - 4).unwrap(),
        ] {
            assert!(signer.verify(&list("a"), forged).is_err());
        }
    }

    #[test]
    fn the_second_key_still_verifies_and_a_lost_one_does_not() {
        let (old, new) = ([1; 32], [2; 32]);
        let text = Signer::new(&[old]).sign(&list("a"), POSITION);
        assert!(Signer::new(&[new, old]).verify(&list("a"), &text).is_ok());
        assert!(Signer::new(&[new]).verify(&list("a"), &text).is_err());
        assert!(Signer::new(&[]).verify(&list("a"), &text).is_err());
    }
}
