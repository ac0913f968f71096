//! What handlers share: the database, the caches, the cursor keys.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use streamgate_agent::{Cache, CacheClass, InvalidationKind, ShedReason, Tier};
use uuid::Uuid;

use super::admin::Admin;
use super::content::Represented;
use super::cursor::Signer;
use super::jobs::Jobs;
use super::kept::Kept;
use crate::archive::Archive;
use crate::cache::{Bus, CacheKey, Cached, Epochs, L1, L2, Level2, Resource, Tag, Variant, budget};
use crate::db::content::Content;
use crate::db::nft::Nft;
use crate::db::users::User;
use crate::db::{Database, DbError};
use crate::edge::Purger;
use crate::gate::GateChecker;
use crate::gate::mock::MockChain;
use crate::observe::Observe;
use crate::problem::Problem;
use crate::settings::Settings;
use crate::work::Work;

/// Shared by all requests.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) observe: Observe,
    pub(crate) db: Arc<Database>,
    pub(super) gate: Box<dyn GateChecker>,
    pub(crate) archive: Archive,
    pub(super) contents: Arc<L1<ContentView>>,
    pub(super) pages: Arc<L1<PageView>>,
    pub(super) users: Arc<L1<User>>,
    pub(super) signer: Signer,
    pub(super) keys_in_use: KeysInUse,
    pub(super) admin: Admin,
    pub(super) jobs: Jobs,
    pub(crate) work: Work,
    epochs: Arc<Epochs>,
    l2: Option<Arc<L2>>,
    edge: Option<Purger>,
}

/// A content as the cache keeps it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ContentView {
    pub(super) content: Content,
    /// `None` where the key asks for the row alone.
    pub(super) nfts: Option<Vec<Nft>>,
    /// All fields as JSON, made when the first client asks for them.
    #[serde(skip)]
    pub(super) whole: OnceLock<Represented>,
}

/// A page as the cache keeps it: as it is sent.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PageView {
    #[serde(with = "as_sent")]
    pub(super) body: Bytes,
    /// One gated row makes the page gated.
    pub(super) gated: bool,
    #[serde(skip)]
    pub(super) kept: Arc<Kept>,
}

/// The levels beside the in-process one on which a value may be found.
#[derive(Debug)]
pub(crate) struct Levels {
    pub(crate) l2: Option<Arc<L2>>,
    pub(crate) edge: Option<Purger>,
}

impl App {
    /// # Errors
    /// The agent looks at too many things already.
    pub(crate) fn new(
        observe: Observe,
        db: Database,
        archive: Archive,
        work: Work,
        admin: Admin,
        Levels { l2, edge }: Levels,
        settings: &Settings,
    ) -> Result<Self, streamgate_agent::Error> {
        let db = Arc::new(db);
        let cache_bytes = settings.cache_bytes.unwrap_or_else(budget::bytes);
        let epochs = Arc::new(Epochs::default());
        // Details are asked for most and live longest; users are few and small.
        let share = |percent: u64| cache_bytes / 100 * percent;
        let cache =
            |percent, observe: &Cache| (share(percent), Arc::clone(&epochs), observe.clone());
        let level2 = |name| {
            let l2 = Arc::clone(l2.as_ref()?);
            Some(Level2::new(l2, observe.agent.cache(name, Tier::L2)))
        };
        let (capacity, tags, handle) = cache(60, &observe.content_cache);
        let contents = Arc::new(L1::new(
            capacity,
            tags,
            handle,
            &observe,
            level2("content"),
        )?);
        let (capacity, tags, handle) = cache(30, &observe.page_cache);
        let pages = Arc::new(L1::new(capacity, tags, handle, &observe, level2("pages"))?);
        let (capacity, tags, handle) = cache(10, &observe.user_cache);
        let users = Arc::new(L1::new(capacity, tags, handle, &observe, level2("users"))?);
        Ok(Self {
            contents,
            pages,
            users,
            signer: Signer::new(&settings.cursor_keys),
            keys_in_use: KeysInUse::default(),
            admin,
            work,
            jobs: Jobs::default(),
            epochs,
            l2,
            edge,
            observe,
            gate: Box::new(MockChain::new(Arc::clone(&db), settings.chain)),
            db,
            archive,
        })
    }

    /// Hears what other instances write; `None` without L2.
    pub(crate) fn bus(&self) -> Option<Bus> {
        let l2 = Arc::clone(self.l2.as_ref()?);
        let caches = [
            &self.observe.content_cache,
            &self.observe.page_cache,
            &self.observe.user_cache,
        ];
        let caches = caches.into_iter().cloned().collect();
        Some(Bus::new(l2, Arc::clone(&self.epochs), caches))
    }

    /// Voids all that shows these contents or counts them for their users.
    pub(super) async fn contents_changed(&self, contents: &[Uuid], users: &[Uuid]) {
        let own = contents.iter().copied().map(Tag::Content);
        let shared = users.iter().copied().map(Tag::User);
        let lists = [Tag::AllContents, Tag::AllNfts];
        let tags: Vec<Tag> = own.chain(shared).chain(lists).collect();
        self.void(&tags).await;
        for id in contents {
            for variant in [Variant::Row, Variant::WithNfts] {
                self.contents
                    .remove(&CacheKey::row(Resource::Content, *id, variant))
                    .await;
            }
        }
        let (own, shared) = (count(contents.len()), count(users.len()));
        self.observe
            .content_cache
            .invalidated(InvalidationKind::Event, own);
        self.observe
            .user_cache
            .invalidated(InvalidationKind::Dependency, shared);
        // The two tags of the lists over everything, and each user's lists.
        self.observe
            .page_cache
            .invalidated(InvalidationKind::Dependency, shared.saturating_add(2));
    }

    /// Voids what carries these tags: L2 first and the edge last, as a level that is voided must not be filled
    /// again from a stale one.
    async fn void(&self, tags: &[Tag]) {
        if let Some(l2) = &self.l2 {
            l2.changed(tags).await;
        }
        for tag in tags {
            self.epochs.bump(*tag);
        }
        if let Some(edge) = &self.edge {
            edge.purge(tags).await;
        }
    }

    /// Voids cached rows whose payload has moved: nothing but its place has changed.
    pub(crate) async fn payloads_moved(&self, contents: &[Uuid]) {
        let tags: Vec<Tag> = contents.iter().copied().map(Tag::Content).collect();
        self.void(&tags).await;
        self.observe
            .content_cache
            .invalidated(InvalidationKind::Event, count(contents.len()));
    }

    /// Puts the payload of an archived content back into its row; `false` when it is not archived.
    pub(crate) async fn restore(&self, id: Uuid) -> Result<bool, DbError> {
        let restored = self.archive.restore(&self.db, &id.to_string()).await?;
        self.payloads_moved(&[id]).await;
        Ok(restored)
    }

    /// Counts a refusal that comes from a full pool.
    pub(super) fn refused(&self, problem: impl Into<Problem>) -> Problem {
        let problem = problem.into();
        if matches!(problem, Problem::PoolTimeout) {
            self.observe.shed(ShedReason::Pool);
        }
        problem
    }
}

/// A finished body inside of JSON: JSON as it is, and not as a text with every quote escaped; protobuf as
/// base64.
mod as_sent {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD_NO_PAD;
    use bytes::Bytes;
    use serde::de::{Deserialize as _, Error as _};
    use serde::ser::{Error as _, Serialize as _};
    use serde::{Deserializer, Serializer};
    use serde_json::value::RawValue;

    /// What a page's JSON begins with and its protobuf cannot: there it would open a group, which proto3 has
    /// none of.
    const OBJECT: u8 = b'{';

    pub(super) fn serialize<S: Serializer>(body: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        if body.first() == Some(&OBJECT) {
            let raw: &RawValue = serde_json::from_slice(body).map_err(S::Error::custom)?;
            return raw.serialize(serializer);
        }
        serializer.serialize_str(&STANDARD_NO_PAD.encode(body))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(json: D) -> Result<Bytes, D::Error> {
        let raw = Box::<RawValue>::deserialize(json)?;
        if raw.get().as_bytes().first() == Some(&OBJECT) {
            return Ok(Bytes::from(String::from(Box::<str>::from(raw))));
        }
        let text: &str = serde_json::from_str(raw.get()).map_err(D::Error::custom)?;
        let body = STANDARD_NO_PAD.decode(text).map_err(D::Error::custom)?;
        Ok(body.into())
    }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

impl Cached for ContentView {
    fn bytes(&self) -> usize {
        let nfts = self.nfts.as_deref().unwrap_or_default();
        let rows = self.content.heap_bytes() + nfts.iter().map(Nft::bytes).sum::<usize>();
        // The JSON of a row is about as long as the row.
        size_of::<Self>() + 2 * rows + Kept::weight(rows)
    }

    fn class(&self) -> CacheClass {
        class(self.content.is_gated())
    }
}

impl Cached for PageView {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.body.len() + Kept::weight(self.body.len())
    }

    fn class(&self) -> CacheClass {
        class(self.gated)
    }
}

impl Cached for User {
    fn bytes(&self) -> usize {
        self.bytes()
    }

    fn class(&self) -> CacheClass {
        CacheClass::Public
    }
}

fn class(gated: bool) -> CacheClass {
    if gated {
        CacheClass::Gated
    } else {
        CacheClass::Public
    }
}

/// Idempotency keys whose first request is under way.
#[derive(Clone, Debug, Default)]
pub(super) struct KeysInUse(Arc<Mutex<HashSet<String>>>);

/// Holds a key until dropped.
#[derive(Debug)]
pub(super) struct KeyInUse {
    key: String,
    all: KeysInUse,
}

impl KeysInUse {
    /// Takes a key; `None` while another request holds it.
    pub(super) fn take(&self, key: &str) -> Option<KeyInUse> {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = keys.insert(key.to_owned());
        taken.then(|| KeyInUse {
            key: key.to_owned(),
            all: self.clone(),
        })
    }
}

impl Drop for KeyInUse {
    fn drop(&mut self) {
        let mut keys = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent_and_read(body: &'static [u8]) -> PageView {
        let page = PageView {
            body: Bytes::from_static(body),
            gated: true,
            kept: Arc::default(),
        };
        serde_json::from_slice(&serde_json::to_vec(&page).unwrap()).unwrap()
    }

    #[test]
    fn a_page_is_read_from_the_shared_cache_as_it_was_sent_there() {
        let bodies: [&[u8]; 4] = [
            br#"{"items":[{"title":"\"\u00e9"}], "next":null}"#,
            b"",
            // Protobuf whose first bytes are blanks to JSON, and one that is no UTF-8.
            b"\n\x03{}\n",
            &[0x0a, 0x02, 0xff, 0x00],
        ];
        for body in bodies {
            let read = sent_and_read(body);
            assert_eq!(read.body, body);
            assert!(read.gated);
        }
    }
}
