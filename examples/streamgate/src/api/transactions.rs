//! `GET /v1/transactions?user_id|status|from&to`: exactly one of the three.

use std::sync::Arc;

use http::Method;
use uuid::Uuid;
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, path};

use super::ask::{Ask, Query, ask, with};
use super::content::uuid;
use super::cursor::ListId;
use super::input::one_of;
use super::list::{List, list};
use super::media::Media;
use super::state::App;
use super::{answer, wire};
use crate::cache::{Resource, Tag};
use crate::db::transactions::{Transaction, TransactionFilter};
use crate::db::{Database, DbError, Position};
use crate::problem::Problem;

const STATUSES: &[&str] = &["pending", "confirmed", "failed"];

pub(super) fn route(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    path!("v1" / "transactions")
        .and(app.observe.agent.route("/v1/transactions"))
        .and(with(Arc::clone(app)))
        .and(ask())
        .then(async |app, ask| answer(transactions(app, ask).await))
        .boxed()
}

async fn transactions<S>(app: Arc<App>, ask: Ask<S>) -> Result<Response, Problem> {
    if ask.method != Method::GET {
        return Err(Problem::MethodNotAllowed("GET, HEAD"));
    }
    list::<TransactionFilter>(&app, ask.query, Media::of(&ask.headers)).await
}

impl List for TransactionFilter {
    type Row = Transaction;
    type Page = wire::TransactionPage;

    const RESOURCE: Resource = Resource::Transaction;
    const PARAMETERS: &'static str = "user_id, status, from, to";

    fn take(query: &mut Query) -> Result<Self, Problem> {
        filter(query)
    }

    fn id(&self) -> ListId {
        ListId(match self {
            Self::User(user) => format!("transactions|user_id|{user}"),
            Self::Status(status) => format!("transactions|status|{status}"),
            Self::Time { from, to } => format!("transactions|time|{from}|{to}"),
        })
    }

    fn tag(&self) -> Tag {
        Tag::AllTransactions
    }

    async fn rows(
        &self,
        db: &Database,
        after: Position,
        limit: u32,
    ) -> Result<Vec<Transaction>, DbError> {
        db.transaction_page(self, after, limit).await
    }

    /// The list over a time window is ordered by time.
    fn position(row: &Transaction) -> Option<Position> {
        Some(Position {
            micros: row.created_at,
            id: Uuid::try_parse(&row.id).ok()?,
        })
    }
}

fn filter(query: &mut Query) -> Result<TransactionFilter, Problem> {
    let window = (query.take("from")?, query.take("to")?);
    match (query.take("user_id")?, query.take("status")?, window) {
        (Some(user), None, (None, None)) => Ok(TransactionFilter::User(uuid("user_id", &user)?)),
        (None, Some(status), (None, None)) => match one_of("status", &status, STATUSES) {
            Ok(status) => Ok(TransactionFilter::Status(status)),
            Err(_) => {
                let known = format!("one of {}", STATUSES.join(", "));
                Err(Problem::parameter("status", &known, &status))
            }
        },
        (None, None, (Some(from), Some(to))) => {
            let (from, to) = (micros("from", &from)?, micros("to", &to)?);
            if from >= to {
                return Err(Problem::parameter("to", "later than from", &to.to_string()));
            }
            Ok(TransactionFilter::Time { from, to })
        }
        _ => Err(Problem::BadParameter(
            "exactly one of user_id, status, or from and to must be given".to_owned(),
        )),
    }
}

fn micros(name: &str, text: &str) -> Result<i64, Problem> {
    let wanted = "microseconds since 1970, 0 or more";
    let value = text.parse().ok().filter(|value: &i64| *value >= 0);
    value.ok_or_else(|| Problem::parameter(name, wanted, text))
}
