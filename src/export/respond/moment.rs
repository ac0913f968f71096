//! Pages of one moment: read alike, answered as a profile or as text.

use std::sync::Arc;

use super::Plane;
use super::form::Format;
use super::message::{Reply, Request};
use super::query::Query;
use super::shape::Shape;
use crate::catalog::endpoints::TEXT;
use crate::config;
use crate::export::guard::{Reason, Refusal};

const DEBUG: [(&str, u8); 3] = [("0", 0), ("1", 1), ("2", 2)];

/// How a page of this moment is wanted.
#[derive(Debug)]
pub(super) struct Page {
    /// 0: a profile; 1: text by stack; 2: text one by one.
    pub(super) debug: u8,
    pub(super) shape: Shape,
}

impl Page {
    pub(super) fn read(request: &Request) -> Result<Self, Refusal> {
        let query = Query::parse(&request.query);
        if query.has("seconds") {
            let text = "seconds: this profile shows one moment";
            return Err(Refusal::new(400, Reason::Parameter, text));
        }
        Ok(Self {
            debug: query.word("debug", &DEBUG, 0)?,
            shape: Shape::read(&query, Format::Pprof)?,
        })
    }

    pub(super) fn head(&self) -> Reply {
        if self.debug > 0 {
            Reply::new(200, TEXT, Vec::new()).without_length()
        } else {
            self.shape.head()
        }
    }
}

/// A page of text, within the limits of profiles.
pub(super) fn text(plane: &Plane, text: String) -> Result<Reply, Refusal> {
    let mut bytes = text.into_bytes();
    bytes.truncate(config::PROFILE_BODY_BYTES);
    let body = plane.large.admit(bytes).ok_or_else(|| {
        let text = format!("large answers at limit {}", config::LARGE_BODIES);
        Refusal::new(503, Reason::LargeBodies, text).retry_after(config::WRITE_PROGRESS)
    })?;
    Ok(Reply::shared(200, TEXT, Arc::new(body)))
}
