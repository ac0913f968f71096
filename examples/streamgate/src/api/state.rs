//! What handlers share: the database, the caches, the cursor keys.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use streamgate_agent::{Cache, CacheClass, InvalidationKind, ShedReason};
use uuid::Uuid;

use super::admin::Admin;
use super::content::Represented;
use super::cursor::Signer;
use super::jobs::Jobs;
use super::kept::Kept;
use crate::archive::Archive;
use crate::cache::{CacheKey, Cached, Epochs, L1, Resource, Tag, Variant, budget};
use crate::db::content::Content;
use crate::db::nft::Nft;
use crate::db::users::User;
use crate::db::{Database, DbError};
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
}

/// A content as the cache keeps it.
#[derive(Debug)]
pub(super) struct ContentView {
    pub(super) content: Content,
    /// `None` where the key asks for the row alone.
    pub(super) nfts: Option<Vec<Nft>>,
    /// All fields as JSON, made when the first client asks for them.
    pub(super) whole: OnceLock<Represented>,
}

/// A page as the cache keeps it: as it is sent.
#[derive(Debug)]
pub(super) struct PageView {
    pub(super) body: Bytes,
    /// One gated row makes the page gated.
    pub(super) gated: bool,
    pub(super) kept: Arc<Kept>,
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
        settings: &Settings,
    ) -> Result<Self, streamgate_agent::Error> {
        let db = Arc::new(db);
        let cache_bytes = settings.cache_bytes.unwrap_or_else(budget::bytes);
        let epochs = Arc::new(Epochs::default());
        // Details are asked for most and live longest; users are few and small.
        let share = |percent: u64| cache_bytes / 100 * percent;
        let cache =
            |percent, observe: &Cache| (share(percent), Arc::clone(&epochs), observe.clone());
        let (capacity, tags, handle) = cache(60, &observe.content_cache);
        let contents = Arc::new(L1::new(capacity, tags, handle, &observe)?);
        let (capacity, tags, handle) = cache(30, &observe.page_cache);
        let pages = Arc::new(L1::new(capacity, tags, handle, &observe)?);
        let (capacity, tags, handle) = cache(10, &observe.user_cache);
        let users = Arc::new(L1::new(capacity, tags, handle, &observe)?);
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
            observe,
            gate: Box::new(MockChain::new(Arc::clone(&db), settings.chain)),
            db,
            archive,
        })
    }

    /// Voids all that shows these contents or counts them for their users.
    pub(super) async fn contents_changed(&self, contents: &[Uuid], users: &[Uuid]) {
        for id in contents {
            self.epochs.bump(Tag::Content(*id));
        }
        for id in users {
            self.epochs.bump(Tag::User(*id));
        }
        self.epochs.bump(Tag::AllContents);
        self.epochs.bump(Tag::AllNfts);
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

    /// Voids cached rows whose payload has moved: nothing but its place has changed.
    pub(crate) async fn payloads_moved(&self, contents: &[Uuid]) {
        for id in contents {
            self.epochs.bump(Tag::Content(*id));
        }
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
