//! Lists: what one of them says about itself, and the answer to a page of any.
//!
//! Guide 3.2. A list says which parameters make its filter; position, size, fields, cursor, cache and
//! JSON are the same for all.

use std::sync::Arc;

use http::StatusCode;
use prost::Message;
use serde::de::DeserializeOwned;
use warp::reply::Response;

use super::ask::Query;
use super::cursor::ListId;
use super::fields::Selectable;
use super::media::Media;
use super::page::PageAsk;
use super::reply;
use super::state::{App, PageView};
use crate::cache::{Resource, Tag};
use crate::db::{Database, DbError, Position};
use crate::problem::Problem;

/// The filter of a list.
pub(super) trait List: Clone + Send + Sync + 'static {
    type Row: Selectable + Send + Sync;
    /// The page as a protobuf message.
    type Page: Message + DeserializeOwned;

    const RESOURCE: Resource;
    /// The parameters of the filter, for whoever sends another.
    const PARAMETERS: &'static str;

    /// Takes the filter from a query.
    ///
    /// # Errors
    /// [`Problem::BadParameter`] when the parameters make no filter.
    fn take(query: &mut Query) -> Result<Self, Problem>;

    /// The same text for the same filter.
    fn id(&self) -> ListId;

    /// What a change must void for the list to be read anew.
    fn tag(&self) -> Tag;

    /// Rows after a position, in the list's order.
    fn rows(
        &self,
        db: &Database,
        after: Position,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Self::Row>, DbError>> + Send;

    fn position(row: &Self::Row) -> Option<Position>;

    /// Whether shared caches must not keep a page with this row.
    fn is_gated(_row: &Self::Row) -> bool {
        false
    }
}

/// The page of a list that a query asks for.
pub(super) async fn list<L: List>(
    app: &Arc<App>,
    mut query: Query,
    media: Media,
) -> Result<Response, Problem> {
    let filter = L::take(&mut query)?;
    let ask = PageAsk::take::<L::Row>(&mut query, filter.id(), media, &app.signer)?;
    query.finish(&format!("{}, cursor, limit, fields", L::PARAMETERS))?;

    let (key, tag) = (ask.key(L::RESOURCE), filter.tag());
    let load = {
        let app = Arc::clone(app);
        move || {
            let (app, ask, filter) = (Arc::clone(&app), ask.clone(), filter.clone());
            async move {
                let rows = filter.rows(&app.db, ask.after, ask.rows_to_read()).await?;
                let gated = rows.iter().any(L::is_gated);
                let json = ask.json(&rows, &app.signer, L::position)?;
                let body = media.encode::<L::Page>(json).map_err(DbError::encode)?;
                Ok(Some(PageView {
                    body,
                    gated,
                    kept: Arc::default(),
                }))
            }
        }
    };
    let page = app.pages.get(key, &[tag], load).await;
    let page = page
        .map_err(|error| app.refused(error))?
        .ok_or(Problem::NotFound)?;
    let answer = reply::bytes(
        StatusCode::OK,
        media.content_type(),
        page.body.clone(),
        page.gated,
    );
    Ok(reply::kept(answer, &page.kept))
}
