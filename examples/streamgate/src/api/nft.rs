//! `GET /v1/nft?owner|contract|token_id`: exactly one of the three.

use std::sync::Arc;

use http::{Method, StatusCode};
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, path};

use super::ask::{Ask, Query, ask, with};
use super::cursor::ListId;
use super::page::{PageAsk, by_id};
use super::state::{App, PageView};
use super::{answer, reply};
use crate::cache::{Resource, Tag};
use crate::db::nft::{Nft, NftFilter};
use crate::problem::Problem;

const LONGEST_VALUE: usize = 128;

pub(super) fn route(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    path!("v1" / "nft")
        .and(app.observe.agent.route("/v1/nft"))
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
        NftFilter::Owner(value) => format!("nft|owner|{value}"),
        NftFilter::Contract(value) => format!("nft|contract|{value}"),
        NftFilter::Token(value) => format!("nft|token_id|{value}"),
    });
    let page = PageAsk::take::<Nft>(&mut ask.query, list, &app.signer)?;
    ask.query
        .finish("owner, contract, token_id, cursor, limit, fields")?;

    let key = page.key(Resource::Nft);
    let load = {
        let app = Arc::clone(&app);
        move || {
            let (app, page, filter) = (Arc::clone(&app), page.clone(), filter.clone());
            async move {
                let rows = app
                    .db
                    .nft_page(&filter, page.after, page.rows_to_read())
                    .await?;
                let json = page.json(&rows, &app.signer, |row| by_id(&row.id))?;
                Ok(Some(PageView { json, gated: false }))
            }
        }
    };
    let found = app.pages.get(key, &[Tag::AllNfts], load).await;
    let view = found
        .map_err(|error| app.refused(error))?
        .ok_or(Problem::NotFound)?;
    Ok(reply::json(StatusCode::OK, view.json.clone(), false))
}

fn filter(query: &mut Query) -> Result<NftFilter, Problem> {
    let given = (
        query.take("owner")?,
        query.take("contract")?,
        query.take("token_id")?,
    );
    let (name, value, filter): (_, _, fn(String) -> NftFilter) = match given {
        (Some(value), None, None) => ("owner", value, NftFilter::Owner),
        (None, Some(value), None) => ("contract", value, NftFilter::Contract),
        (None, None, Some(value)) => ("token_id", value, NftFilter::Token),
        _ => {
            return Err(Problem::BadParameter(
                "exactly one of owner, contract, token_id must be given".to_owned(),
            ));
        }
    };
    if value.is_empty() || value.len() > LONGEST_VALUE || !value.is_ascii() {
        return Err(Problem::parameter(name, "1..=128 ASCII characters", &value));
    }
    // Addresses are hexadecimal: a checksum in their capitals is for the eye.
    let value = if value.starts_with("0x") {
        value.to_ascii_lowercase()
    } else {
        value
    };
    Ok(filter(value))
}
