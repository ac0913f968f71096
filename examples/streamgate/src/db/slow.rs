//! Statements that took over a second: the worst run of each, with its plan.
//!
//! Guide 1.1. Metric: `db_client_slow_queries_total`. Breaking test:
//! `a_slow_statement_appears_once_with_its_plan`.
//!
//! A plan is asked for on a connection of its own, never on the pool's: what made the statement slow may have
//! taken those. At most one in ten minutes per statement, so that a slow database is not asked for more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::plan::plan;
use super::statements::Statement;
use super::{Direct, Place};

/// A run of this length is slow, the guide's 1000 ms.
const SLOW: Duration = Duration::from_secs(1);

/// Between two plans of the same statement.
const PLAN_EVERY: Duration = Duration::from_secs(10 * 60);

/// Longest time for connecting and planning together.
const PLAN_WITHIN: Duration = Duration::from_secs(5);

/// What is known of the slow runs of one statement.
#[derive(Clone, Debug)]
pub struct SlowStatement {
    /// Its label in the metrics.
    pub summary: &'static str,
    /// Slow runs since the start.
    pub runs: u64,
    /// The longest of them.
    pub worst: Duration,
    /// The steps of its plan, or why there is none; `None` until the database has answered.
    pub plan: Option<String>,
}

/// As many entries as there are statements, and no more.
#[derive(Debug)]
pub(crate) struct SlowLog {
    place: Place,
    entries: Mutex<BTreeMap<&'static str, Entry>>,
}

#[derive(Debug)]
struct Entry {
    seen: SlowStatement,
    planned: Instant,
}

impl SlowLog {
    pub(super) fn new(place: Place) -> Self {
        Self {
            place,
            entries: Mutex::default(),
        }
    }

    /// Keeps a run if it was slow.
    pub(super) fn saw(self: &Arc<Self>, statement: &Statement, took: Duration) {
        if took < SLOW {
            return;
        }
        // To explain a write is to say it once more, which is safe only as long as nobody says ANALYZE.
        let wants_plan = self.keep(statement.summary, took) && statement.sql.starts_with("SELECT ");
        tracing::warn!(
            statement = statement.summary,
            milliseconds = took.as_millis(),
            "a slow statement"
        );
        if wants_plan {
            let (log, summary, sql) = (Arc::clone(self), statement.summary, statement.sql);
            tokio::spawn(async move { log.explain(summary, sql).await });
        }
    }

    /// Whether it is time for a plan.
    fn keep(&self, summary: &'static str, took: Duration) -> bool {
        let now = Instant::now();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut wants_plan = false;
        let entry = entries.entry(summary).or_insert_with(|| {
            wants_plan = true;
            Entry {
                seen: SlowStatement {
                    summary,
                    runs: 0,
                    worst: Duration::ZERO,
                    plan: None,
                },
                planned: now,
            }
        });
        entry.seen.runs += 1;
        entry.seen.worst = entry.seen.worst.max(took);
        if now.duration_since(entry.planned) >= PLAN_EVERY {
            wants_plan = true;
            entry.planned = now;
        }
        wants_plan
    }

    async fn explain(&self, summary: &'static str, sql: &'static str) {
        let planned = tokio::time::timeout(PLAN_WITHIN, async {
            let mut direct = Direct::open(&self.place).await?;
            let planned = plan(&mut direct, sql).await;
            drop(direct.close().await);
            planned
        });
        let plan = match planned.await {
            Ok(Ok(plan)) => plan,
            Ok(Err(error)) => format!("no plan: {error}"),
            Err(_) => "no plan: the database did not answer in time".to_owned(),
        };
        tracing::warn!(statement = summary, plan, "the plan of a slow statement");
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get_mut(summary) {
            entry.seen.plan = Some(plan);
        }
    }

    /// The worst first.
    pub(crate) fn statements(&self) -> Vec<SlowStatement> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = entries.values().map(|entry| entry.seen.clone()).collect();
        all.sort_by_key(|seen| std::cmp::Reverse(seen.worst));
        all
    }
}

#[cfg(test)]
mod tests {
    use streamgate_agent::{Agent, QueryLabels, Request};

    use super::*;
    use crate::db::lease::run;
    use crate::db::{Database, PoolSize};
    use crate::observe::Observe;

    async fn eventually_planned(db: &Database) -> SlowStatement {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let seen = db.slow_statements();
            if let [one] = seen.as_slice()
                && one.plan.is_some()
            {
                return one.clone();
            }
            assert!(Instant::now() < deadline, "no plan: {seen:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn database(place: Place) -> (Database, Observe) {
        let agent = Agent::builder("test").no_listener().start().unwrap();
        let observe = Observe::new(agent).unwrap();
        let size = PoolSize {
            max: 3,
            instances: 1,
        };
        // Long enough for the slowest machine: it is no deadline that is tested.
        let deadline = Duration::from_secs(60);
        let db = Database::open(&place, size, deadline, &observe).await;
        (db.unwrap(), observe)
    }

    fn statement(observe: &Observe, sql: &'static str) -> Statement {
        let summary = "SELECT slowly";
        let labels = QueryLabels {
            system: "test",
            namespace: "main",
            operation: "SELECT",
            collection: "none",
            summary,
        };
        Statement {
            sql,
            summary,
            query: observe.query(labels),
        }
    }

    #[tokio::test]
    async fn a_slow_statement_appears_once_with_its_plan() {
        let Some(server) = crate::servers::postgres::for_tests().await else {
            return;
        };
        let (db, observe) = database(server.url().parse().unwrap()).await;
        let statement = statement(&observe, "SELECT 1 FROM pg_sleep(1.1)");
        let mut lease = db.reader().await.unwrap();
        run!(db, lease.conn(), &statement, |_: &i32| 1, |sql, on| {
            sqlx::query_scalar(sql).fetch_one(on)
        })
        .unwrap();
        let seen = eventually_planned(&db).await;
        assert_eq!((seen.runs, seen.worst >= SLOW), (1, true));
        let plan = seen.plan.unwrap();
        assert!(plan.contains("Function Scan on pg_sleep"), "{plan}");

        let request = Request::new("GET", "/metrics").header("host", "localhost");
        let reply = observe.agent.respond(request).await;
        let page = String::from_utf8_lossy(reply.body()).into_owned();
        let counted = page.lines().find(|line| {
            line.starts_with("db_client_slow_queries_total{") && line.contains("SELECT slowly")
        });
        assert!(
            counted.is_some_and(|line| line.ends_with(" 1")),
            "{counted:?}"
        );
    }

    #[tokio::test]
    async fn a_slow_statement_has_its_plan_on_sqlite() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::File(dir.path().join("slow.db"));
        let mut direct = Direct::open(&place).await.unwrap();
        direct.migrate().await.unwrap();
        let (db, observe) = database(place).await;
        let statement = statement(&observe, "SELECT id FROM nft WHERE owner_address = $1");
        db.slow.saw(&statement, 2 * SLOW);
        let plan = eventually_planned(&db).await.plan.unwrap();
        assert!(plan.contains("idx_nft_owner"), "{plan}");
    }

    #[tokio::test]
    async fn a_second_plan_waits_ten_minutes() {
        let log = SlowLog::new(Place::File("unused".into()));
        assert!(log.keep("SELECT a", SLOW));
        assert!(!log.keep("SELECT a", 3 * SLOW));
        assert!(log.keep("SELECT b", 2 * SLOW));
        let seen = log.statements();
        let seen: Vec<_> = seen.iter().map(|one| (one.summary, one.runs)).collect();
        assert_eq!(seen, [("SELECT a", 2), ("SELECT b", 1)]);
    }
}
