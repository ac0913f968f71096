//! `GET /v1/nft?owner|contract|token_id`: exactly one of the three.

use std::sync::Arc;

use http::Method;
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, path};

use super::ask::{Ask, Query, ask, with};
use super::cursor::ListId;
use super::list::{List, list};
use super::media::Media;
use super::page::by_id;
use super::state::App;
use super::{answer, wire};
use crate::cache::{Resource, Tag};
use crate::db::nft::{Nft, NftFilter};
use crate::db::{Database, DbError, Position};
use crate::problem::Problem;

const LONGEST_VALUE: usize = 128;

pub(super) fn route(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    path!("v1" / "nft")
        .and(app.observe.agent.route("/v1/nft"))
        .and(with(Arc::clone(app)))
        .and(ask())
        .then(async |app, ask| answer(nfts(app, ask).await))
        .boxed()
}

async fn nfts<S>(app: Arc<App>, ask: Ask<S>) -> Result<Response, Problem> {
    if ask.method != Method::GET {
        return Err(Problem::MethodNotAllowed("GET, HEAD"));
    }
    list::<NftFilter>(&app, ask.query, Media::of(&ask.headers)).await
}

impl List for NftFilter {
    type Row = Nft;
    type Page = wire::NftPage;

    const RESOURCE: Resource = Resource::Nft;
    const PARAMETERS: &'static str = "owner, contract, token_id";

    fn take(query: &mut Query) -> Result<Self, Problem> {
        filter(query)
    }

    fn id(&self) -> ListId {
        ListId(match self {
            Self::Owner(value) => format!("nft|owner|{value}"),
            Self::Contract(value) => format!("nft|contract|{value}"),
            Self::Token(value) => format!("nft|token_id|{value}"),
        })
    }

    fn tag(&self) -> Tag {
        Tag::AllNfts
    }

    async fn rows(&self, db: &Database, after: Position, limit: u32) -> Result<Vec<Nft>, DbError> {
        db.nft_page(self, after, limit).await
    }

    fn position(row: &Nft) -> Option<Position> {
        by_id(&row.id)
    }
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
    let printable = value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if value.is_empty() || value.len() > LONGEST_VALUE || !printable {
        return Err(Problem::parameter(
            name,
            "1..=128 printable ASCII characters",
            &value,
        ));
    }
    // Addresses are hexadecimal: a checksum in their capitals is for the eye.
    let value = if value.starts_with("0x") {
        value.to_ascii_lowercase()
    } else {
        value
    };
    Ok(filter(value))
}
