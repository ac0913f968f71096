//! What instances tell one another: which tags a write has voided.
//!
//! Guide 2.3. Metrics: `cache_invalidation_lag_seconds`, `cache_flushes_total{reason="gap"}`. Breaking tests:
//! `a_write_on_one_instance_is_seen_on_the_other`, `a_lost_message_flushes_the_cache`.
//!
//! A Redis stream and not publish/subscribe, which forgets who is away. Messages are numbered by the script
//! that voids L2, so that a hole is seen; after a hole, and after a new connection, nothing kept in this
//! process is trusted.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::streams::{StreamId, StreamRangeReply, StreamReadReply};
use streamgate_agent as agent;
use tokio::sync::Notify;

use super::link::{Failure, Operation};
use super::pending::Untold;
use super::{L2, epoch_key, now_micros, scripts};
use crate::cache::epoch::{Epochs, Tag};

const STREAM: &str = "streamgate:1:bus";
const COUNTER: &str = "streamgate:1:bus:n";

/// Messages that Redis keeps: at a thousand writes a second, ten seconds for whoever is late.
const KEPT: u64 = 10_000;

/// How long one wait for messages takes, and how much longer an answer to it may.
const BLOCK: Duration = Duration::from_secs(1);
const LATE: Duration = Duration::from_secs(2);

/// Pause before a new connection, and before a write is told again.
const PAUSE: Duration = Duration::from_millis(250);

/// Hears of the writes of others, and tells again what Redis did not take.
#[derive(Debug)]
pub(crate) struct Bus {
    l2: Arc<L2>,
    epochs: Arc<Epochs>,
    caches: Vec<agent::Cache>,
}

/// The instance and its untold writes.
#[derive(Debug)]
pub(super) struct Teller {
    /// Names this instance, so that it does not hear itself.
    me: u64,
    failed: Notify,
}

impl Default for Teller {
    fn default() -> Self {
        Self {
            me: rand::random(),
            failed: Notify::new(),
        }
    }
}

impl L2 {
    /// Voids what Redis holds under these tags, then tells the other instances. Returns by the deadline of one command; until
    /// Redis has heard, this instance asks it for nothing that carries them.
    pub(crate) async fn changed(&self, tags: &[Tag]) {
        self.pending.add(tags, now_micros());
        if self.tell().await.is_err() {
            self.teller.failed.notify_one();
        }
    }

    async fn tell(&self) -> Result<(), Failure> {
        let Some(untold) = self.pending.untold() else {
            return Ok(());
        };
        let bump = self.bump(&untold);
        self.link
            .run(Operation::Bump, async |mut connection| {
                bump.invoke_async::<u64>(&mut connection).await
            })
            .await?;
        self.pending.told(&untold);
        Ok(())
    }

    fn bump(&self, untold: &Untold) -> redis::ScriptInvocation<'static> {
        let everything = untold.all.then_some(Tag::Everything);
        let tags: Vec<Tag> = untold.tags.iter().copied().chain(everything).collect();
        let words: Vec<String> = tags.iter().map(ToString::to_string).collect();
        let mut bump = scripts::BUMP.key(STREAM);
        bump.key(COUNTER);
        for tag in &tags {
            bump.key(epoch_key(*tag));
        }
        bump.arg(self.teller.me)
            .arg(words.join(" "))
            .arg(untold.since)
            .arg(scripts::EPOCH_SECONDS)
            .arg(KEPT);
        for _ in &tags {
            bump.arg(rand::random::<u64>());
        }
        bump
    }
}

/// A connection that waits for messages.
pub(crate) struct Joined {
    connection: MultiplexedConnection,
    at: Position,
}

/// Where in the stream this instance is.
#[derive(Clone, Debug)]
struct Position {
    id: String,
    n: u64,
}

impl Bus {
    pub(crate) fn new(l2: Arc<L2>, epochs: Arc<Epochs>, caches: Vec<agent::Cache>) -> Self {
        Self { l2, epochs, caches }
    }

    /// Finds where the stream ends, before anything is kept that a later message may void. `None` when Redis is
    /// not there.
    pub(crate) async fn join(&self) -> Option<Joined> {
        tokio::time::timeout(BLOCK, self.connect()).await.ok()?.ok()
    }

    /// Works until dropped.
    pub(crate) async fn run(self, joined: Option<Joined>) {
        tokio::join!(self.hear(joined), self.tell_again());
    }

    async fn tell_again(&self) {
        loop {
            self.l2.teller.failed.notified().await;
            while self.l2.tell().await.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn hear(&self, mut joined: Option<Joined>) {
        loop {
            let connected = match joined.take() {
                Some(joined) => Ok(joined),
                None => self.connect().await.inspect(|_| self.flush()),
            };
            let ended = match connected {
                Ok(joined) => self.listen(joined).await,
                Err(failure) => Err(failure),
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "the bus was left");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn connect(&self) -> Result<Joined, Failure> {
        let mut connection = self.l2.link.dedicated(BLOCK + LATE).await?;
        let at = last(&mut connection).await?;
        Ok(Joined { connection, at })
    }

    /// Hears until the connection fails.
    async fn listen(&self, joined: Joined) -> Result<(), Failure> {
        let Joined {
            mut connection,
            mut at,
        } = joined;
        loop {
            let reply: StreamReadReply = redis::cmd("XREAD")
                .arg("BLOCK")
                .arg(u64::try_from(BLOCK.as_millis()).unwrap_or(u64::MAX))
                .arg("STREAMS")
                .arg(STREAM)
                .arg(&at.id)
                .query_async(&mut connection)
                .await?;
            for message in reply.keys.iter().flat_map(|key| &key.ids) {
                at = self.take(message, &at);
            }
        }
    }

    fn take(&self, message: &StreamId, at: &Position) -> Position {
        let n = message.get("n").unwrap_or(0);
        if n != at.n + 1 {
            self.flush();
        }
        let from: u64 = message.get("from").unwrap_or(0);
        if from != self.l2.teller.me {
            let words: String = message.get("tags").unwrap_or_default();
            for word in words.split(' ') {
                match Tag::parse(word) {
                    Some(tag) => self.epochs.bump(tag),
                    // Of a newer version, perhaps: it may mean anything.
                    None => self.flush(),
                }
            }
            let written: i64 = message.get("at").unwrap_or(0);
            let lag = now_micros().saturating_sub(written).try_into().unwrap_or(0);
            for cache in &self.caches {
                cache.invalidation_lag(Duration::from_micros(lag));
            }
        }
        Position {
            id: message.id.clone(),
            n,
        }
    }

    fn flush(&self) {
        self.epochs.bump(Tag::Everything);
        for cache in &self.caches {
            cache.flushed("gap");
        }
    }
}

/// The end of the stream. The counter says how far it got even when the stream has lost its messages.
async fn last(connection: &mut MultiplexedConnection) -> Result<Position, Failure> {
    let (entries, n): (StreamRangeReply, Option<u64>) = redis::pipe()
        .atomic()
        .cmd("XREVRANGE")
        .arg(STREAM)
        .arg("+")
        .arg("-")
        .arg("COUNT")
        .arg(1)
        .cmd("GET")
        .arg(COUNTER)
        .query_async(connection)
        .await?;
    let id = entries.ids.first().map_or("0-0", |entry| entry.id.as_str());
    Ok(Position {
        id: id.to_owned(),
        n: n.unwrap_or(0),
    })
}
