//! The cache that instances share, level 2: Redis.
//!
//! Guide 2.1 and 2.3. Metrics: `cache_requests_total{cache_level="l2"}`, `streamgate_l2_stores_total{outcome}`.
//! Breaking tests: those of `tests/api/redis.rs`. It may be slow, full, read only, wrong or gone: then the
//! database answers.
//!
//! Owns: where values lie in Redis ([`scripts`]) and how ([`envelope`]), when it is asked ([`link`],
//! [`breaker`]), what it must not be asked for ([`pending`]), and what instances tell one another ([`bus`]).

mod breaker;
mod bus;
mod envelope;
mod link;
mod pending;
mod scripts;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::Client;
use streamgate_agent::{AgentHandle, Counter, Error, Metric};

use self::bus::Teller;
use self::envelope::Envelope;
use self::link::{Link, Operation};
use self::pending::Pending;
use super::epoch::Tag;
use super::key::CacheKey;
use crate::error::Fatal;

pub(crate) use bus::Bus;

/// The guide's lifetime, less up to a tenth so that what was stored together does not expire together.
const LIFE: Duration = Duration::from_secs(30 * 60);
const JITTER: f64 = 0.10;

/// How long one instance loads for all; who comes meanwhile waits once and then loads anyway.
const LOCK: Duration = Duration::from_millis(2_000);
const WAIT: Duration = Duration::from_millis(50);

static STORES: Metric = Metric::counter(
    "streamgate_l2_stores_total",
    "Values offered to Redis: stored, overtaken by a write, or refused.",
)
.labels(&["outcome"]);

/// The shared cache; one for all kinds of values.
#[derive(Debug)]
pub(crate) struct L2 {
    link: Link,
    /// Begins every key of a value: instances whose pages hold other signatures share none.
    space: String,
    pending: Pending,
    teller: Teller,
    stored: Counter,
    overtaken: Counter,
    refused: Counter,
}

/// What Redis knows of a key.
#[derive(Debug)]
pub(super) enum Known {
    Value(Value),
    /// Nothing that counts; the token stores what is loaded now.
    Nothing(Token),
}

/// A value as it was stored.
#[derive(Debug)]
pub(super) struct Value {
    pub(super) body: Vec<u8>,
    /// Since it was read from the database.
    pub(super) age: Duration,
    /// What is left of its life.
    pub(super) rest: Duration,
}

/// The epochs from before a load, and the lock if this instance holds it.
#[derive(Debug)]
pub(super) struct Token {
    epochs: Option<Vec<u64>>,
    owner: u64,
}

/// Redis cannot be asked, or what it holds is damaged.
#[derive(Debug)]
pub(super) struct Unavailable;

impl L2 {
    /// Nothing is connected yet: Redis may come later. What it does not answer by `deadline` has failed.
    ///
    /// # Errors
    /// The address is none, or the agent refuses a family.
    pub(crate) fn new(
        address: &str,
        deadline: Duration,
        space: &[u8],
        agent: &AgentHandle,
    ) -> Result<Self, Fatal> {
        let client = Client::open(address).map_err(|_| Fatal::OutOfRange {
            parameter: "--redis",
            range: "redis://[user:password@]host[:port][/database]".to_owned(),
            // It may hold a password.
            seen: "another address".to_owned(),
        })?;
        let space = space.iter().map(|byte| format!("{byte:02x}")).collect();
        Self::with(client, deadline, space, agent).map_err(Fatal::Agent)
    }

    fn with(
        client: Client,
        deadline: Duration,
        space: String,
        agent: &AgentHandle,
    ) -> Result<Self, Error> {
        Ok(Self {
            link: Link::new(client, deadline, agent)?,
            space,
            pending: Pending::default(),
            teller: Teller::default(),
            stored: agent.counter(&STORES, &["stored"])?,
            overtaken: agent.counter(&STORES, &["overtaken"])?,
            refused: agent.counter(&STORES, &["refused"])?,
        })
    }

    /// Says in the log what limits Redis, and whether it would rather refuse than forget.
    pub(crate) async fn report(&self) {
        let limits = self.link.run(Operation::Read, async |mut connection| {
            redis::cmd("CONFIG")
                .arg("GET")
                .arg("maxmemory*")
                .query_async::<Vec<(String, String)>>(&mut connection)
                .await
        });
        let limits = match limits.await {
            Ok(limits) => limits,
            Err(error) => {
                tracing::warn!(%error, "Redis is not there, or hides its limits; the database answers");
                return;
            }
        };
        let of = |name: &str| {
            limits
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, v)| v.as_str())
        };
        if of("maxmemory") == Some("0") {
            tracing::warn!(
                "Redis has no maxmemory: it grows until the system ends it (guide: 100 GB)"
            );
        }
        if of("maxmemory-policy") == Some("noeviction") {
            tracing::warn!("Redis has the policy noeviction: once full it refuses writes");
        }
    }

    /// Asks for a value; while another instance loads it, once more after 50 ms.
    pub(super) async fn get(&self, key: CacheKey, tags: &[Tag]) -> Result<Known, Unavailable> {
        if self.pending.holds(tags) {
            return Err(Unavailable);
        }
        let mut known = self.read(key, tags).await?;
        if let Known::Nothing(token) = &mut known {
            token.owner = rand::random();
            if !self.lock(key, token.owner).await {
                tokio::time::sleep(WAIT).await;
                known = self.read(key, tags).await?;
            }
        }
        // A write may have failed to reach Redis meanwhile.
        if self.pending.holds(tags) {
            return Err(Unavailable);
        }
        Ok(known)
    }

    async fn read(&self, key: CacheKey, tags: &[Tag]) -> Result<Known, Unavailable> {
        let mut read = scripts::READ.key(self.value_key(key));
        for tag in with_everything(tags) {
            read.key(epoch_key(tag));
        }
        for _ in with_everything(tags) {
            read.arg(rand::random::<u64>());
        }
        read.arg(scripts::EPOCH_SECONDS);
        type Raw = (Option<Vec<u8>>, i64, Vec<String>);
        let answer = self.link.run(Operation::Read, async |mut connection| {
            read.invoke_async::<Raw>(&mut connection).await
        });
        let (bytes, rest, epochs) = answer.await.map_err(|_| Unavailable)?;
        let epochs: Option<Vec<u64>> = epochs.iter().map(|epoch| epoch.parse().ok()).collect();
        let Some(bytes) = bytes else {
            return Ok(Known::Nothing(Token { epochs, owner: 0 }));
        };
        let Some(envelope) = Envelope::open(&bytes) else {
            tracing::warn!(%key, "a damaged value was taken out of Redis");
            self.remove(key).await;
            return Err(Unavailable);
        };
        let rest = Duration::from_millis(rest.try_into().unwrap_or(0));
        if epochs.as_ref() != Some(&envelope.epochs) || rest.is_zero() {
            return Ok(Known::Nothing(Token { epochs, owner: 0 }));
        }
        let age = now_micros().saturating_sub(envelope.loaded_at);
        Ok(Known::Value(Value {
            body: envelope.body,
            age: Duration::from_micros(age.try_into().unwrap_or(0)),
            rest,
        }))
    }

    /// Whether this instance is the one that loads. One that cannot find out loads as well.
    async fn lock(&self, key: CacheKey, owner: u64) -> bool {
        let locked = self.link.run(Operation::Lock, async |mut connection| {
            redis::cmd("SET")
                .arg(self.lock_key(key))
                .arg(owner)
                .arg("NX")
                .arg("PX")
                .arg(u64::try_from(LOCK.as_millis()).unwrap_or(u64::MAX))
                .query_async::<Option<String>>(&mut connection)
                .await
        });
        !matches!(locked.await, Ok(None))
    }

    /// Stores a value that was loaded after `token` was given, unless a write has come between.
    pub(super) async fn store(&self, key: CacheKey, tags: &[Tag], token: Token, body: Vec<u8>) {
        let Some(epochs) = token.epochs else {
            self.refused.inc();
            return;
        };
        let envelope = Envelope {
            epochs,
            loaded_at: now_micros(),
            body,
        };
        let Some(bytes) = envelope.seal() else {
            self.refused.inc();
            return;
        };
        let life = LIFE.mul_f64(1.0 - JITTER * rand::random::<f64>());
        let mut store = scripts::STORE.key(self.value_key(key));
        store.key(self.lock_key(key));
        for tag in with_everything(tags) {
            store.key(epoch_key(tag));
        }
        store
            .arg(bytes)
            .arg(u64::try_from(life.as_millis()).unwrap_or(u64::MAX))
            .arg(token.owner);
        for epoch in &envelope.epochs {
            store.arg(*epoch);
        }
        store.arg(scripts::EPOCH_SECONDS);
        let outcome = self.link.run(Operation::Store, async |mut connection| {
            store.invoke_async::<u8>(&mut connection).await
        });
        match outcome.await {
            Ok(1) => self.stored.inc(),
            Ok(_) => self.overtaken.inc(),
            Err(_) => self.refused.inc(),
        }
    }

    async fn remove(&self, key: CacheKey) {
        let removed = self.link.run(Operation::Store, async |mut connection| {
            redis::cmd("DEL")
                .arg(self.value_key(key))
                .query_async::<()>(&mut connection)
                .await
        });
        // It is asked for again, found damaged again, and removed then.
        drop(removed.await);
    }

    fn value_key(&self, key: CacheKey) -> String {
        format!("streamgate:1:{}:{key}", self.space)
    }

    fn lock_key(&self, key: CacheKey) -> String {
        format!("streamgate:1:{}:lock:{key}", self.space)
    }
}

/// Every value depends on this one as well: so can all be voided without a list.
fn with_everything(tags: &[Tag]) -> impl Iterator<Item = Tag> {
    tags.iter().copied().chain([Tag::Everything])
}

fn epoch_key(tag: Tag) -> String {
    format!("streamgate:1:epoch:{tag}")
}

fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use streamgate_agent::Agent;
    use uuid::Uuid;

    use super::*;
    use crate::cache::key::{Resource, Variant};
    use crate::servers::redis;

    #[tokio::test]
    async fn a_load_that_a_write_overtook_is_not_stored() {
        let Some(redis) = redis::for_tests().await else {
            return;
        };
        let agent = Agent::builder("test").no_listener().start().unwrap();
        let patient = Duration::from_secs(60);
        let l2 = L2::new(&redis.url(), patient, b"test", &agent).unwrap();
        let id = Uuid::from_u128(1);
        let key = CacheKey::row(Resource::Content, id, Variant::Row);
        let tags = [Tag::Content(id)];
        let missed = async || match l2.get(key, &tags).await.unwrap() {
            Known::Nothing(token) => token,
            Known::Value(value) => panic!("{value:?}"),
        };
        let old = missed().await;
        l2.changed(&tags).await;
        l2.store(key, &tags, old, b"old".to_vec()).await;
        let new = missed().await;
        // What others write does not matter.
        l2.changed(&[Tag::Content(Uuid::from_u128(2))]).await;
        l2.store(key, &tags, new, b"new".to_vec()).await;
        match l2.get(key, &tags).await.unwrap() {
            Known::Value(value) => assert_eq!(value.body, b"new"),
            Known::Nothing(token) => panic!("{token:?}"),
        }
    }
}
