//! `GET /v1/transactions?user_id|status|from&to`: exactly one of the three.

use std::sync::Arc;

use http::{Method, StatusCode};
use uuid::Uuid;
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, path};

use super::ask::{Ask, Query, ask, with};
use super::content::uuid;
use super::cursor::ListId;
use super::input::one_of;
use super::page::PageAsk;
use super::state::{App, PageView};
use super::{answer, reply};
use crate::cache::{Resource, Tag};
use crate::db::Position;
use crate::db::transactions::{Transaction, TransactionFilter};
use crate::problem::Problem;

const STATUSES: &[&str] = &["pending", "confirmed", "failed"];

pub(super) fn route(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    path!("v1" / "transactions")
        .and(app.observe.agent.route("/v1/transactions"))
        .and(with(Arc::clone(app)))
        .and(ask())
        .then(async |app, ask| answer(list(app, ask).await))
        .boxed()
}

async fn list<S>(app: Arc<App>, mut ask: Ask<S>) -> Result<Response, Problem> {
    if ask.method != Method::GET {
        return Err(Problem::MethodNotAllowed("GET, HEAD"));
    }
    let filter = filter(&mut ask.query)?;
    let list = ListId(match &filter {
        TransactionFilter::User(user) => format!("transactions|user_id|{user}"),
        TransactionFilter::Status(status) => format!("transactions|status|{status}"),
        TransactionFilter::Time { from, to } => format!("transactions|time|{from}|{to}"),
    });
    let page = PageAsk::take::<Transaction>(&mut ask.query, list, &app.signer)?;
    ask.query
        .finish("user_id, status, from, to, cursor, limit, fields")?;

    let key = page.key(Resource::Transaction);
    let load = {
        let app = Arc::clone(&app);
        move || {
            let (app, page, filter) = (Arc::clone(&app), page.clone(), filter.clone());
            async move {
                let rows = app
                    .db
                    .transaction_page(&filter, page.after, page.rows_to_read())
                    .await?;
                let json = page.json(&rows, &app.signer, position)?;
                Ok(Some(PageView { json, gated: false }))
            }
        }
    };
    let found = app.pages.get(key, &[Tag::AllTransactions], load).await;
    let view = found
        .map_err(|error| app.refused(error))?
        .ok_or(Problem::NotFound)?;
    Ok(reply::json(StatusCode::OK, view.json.clone(), false))
}

fn position(row: &Transaction) -> Option<Position> {
    Some(Position {
        micros: row.created_at,
        id: Uuid::try_parse(&row.id).ok()?,
    })
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
