//! The HTTP request of an arrival, and the statuses it may be answered with.

use std::rc::Rc;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_TYPE, HOST, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderValue, Method, Request};
use http_body_util::Full;
use serde_json::json;

use super::connection::Protocol;
use super::memory::{Memory, Page};
use super::mix::Journey;
use super::plan::Arrival;
use super::target::Target;
use crate::seed::ids;

/// Contents in one batch.
const BATCH: u8 = 10;

/// What to keep of the answer.
#[derive(Debug, Clone)]
pub(crate) enum Keep {
    /// Nothing; the body is read and dropped.
    Nothing,
    /// The tag of this content.
    Tag(u64),
    /// The position after this page of the list.
    Cursor {
        /// Path and query of the list's first page.
        list: Rc<str>,
        /// Number of the page asked for, from 1.
        number: u8,
    },
}

/// A request ready to be sent.
#[derive(Debug)]
pub(crate) struct Ask {
    /// Method, address, headers, body.
    pub(crate) request: Request<Full<Bytes>>,
    /// Statuses that are no errors.
    pub(crate) expected: &'static [u16],
    /// What to keep of the answer.
    pub(crate) keep: Keep,
}

/// Makes requests against the seeded content of one service.
#[derive(Debug)]
pub(crate) struct Asker {
    /// Where to.
    pub(crate) target: Rc<Target>,
    /// Decides whether the address carries the host (HTTP/2) or a header does.
    pub(crate) protocol: Protocol,
    /// Seed the content was made with.
    pub(crate) seed: u64,
    /// Tells this run's new rows from those of an earlier run.
    pub(crate) run: u64,
}

/// The parts in which the journeys differ.
struct Parts {
    method: Method,
    path: Rc<str>,
    body: Option<Vec<u8>>,
    condition: Option<(http::HeaderName, HeaderValue)>,
    expected: &'static [u16],
    keep: Keep,
}

impl Parts {
    fn get(path: String) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            body: None,
            condition: None,
            expected: &[200],
            keep: Keep::Nothing,
        }
    }
}

impl Asker {
    /// Makes the request of an arrival.
    ///
    /// # Errors
    /// The parts make no valid request; with ids from the seed they always do.
    pub(crate) fn ask(&self, arrival: &Arrival, memory: &mut Memory) -> Result<Ask, http::Error> {
        let parts = match arrival.journey {
            Journey::Detail => self.detail(arrival, memory),
            Journey::List => self.list(arrival, memory),
            Journey::Lookup => self.lookup(arrival),
            Journey::Transactions => self.transactions(arrival),
            Journey::Write => self.write(arrival, memory),
            Journey::Batch => self.batch(arrival),
        };
        let address = match self.protocol {
            Protocol::Http1 => parts.path.to_string(),
            Protocol::Http2 => format!("{}{}", self.target, parts.path),
        };
        let mut request = Request::builder().method(parts.method).uri(address);
        if self.protocol == Protocol::Http1 {
            request = request.header(HOST, self.target.host());
        }
        // A cursor is read out of the body, which is cheaper than inflating it first.
        if !matches!(parts.keep, Keep::Cursor { .. }) {
            request = request.header(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if let Some((name, value)) = parts.condition {
            request = request.header(name, value);
        }
        if let Some((trace, span)) = arrival.trace {
            request = request.header("traceparent", format!("00-{trace:032x}-{span:016x}-01"));
        }
        if arrival.journey == Journey::Batch {
            request = request.header(
                "idempotency-key",
                format!("bench-{:x}-{}", self.run, arrival.number),
            );
        }
        let body = match parts.body {
            Some(body) => {
                request =
                    request.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                Full::new(body.into())
            }
            None => Full::default(),
        };
        Ok(Ask {
            request: request.body(body)?,
            expected: parts.expected,
            keep: parts.keep,
        })
    }

    fn detail(&self, arrival: &Arrival, memory: &Memory) -> Parts {
        let id = ids::content_id(self.seed, arrival.content);
        match arrival.form {
            0..5 => Parts::get(format!("/v1/content/{id}?fields=id,title,status")),
            5..10 => Parts::get(format!("/v1/content/{id}?expand=nfts")),
            _ => {
                let mut parts = Parts::get(format!("/v1/content/{id}"));
                if let Some(tag) = memory.tag(arrival.content).filter(|_| arrival.conditional) {
                    parts.condition = Some((IF_NONE_MATCH, tag.clone()));
                    parts.expected = &[200, 304];
                }
                parts.keep = Keep::Tag(arrival.content);
                parts
            }
        }
    }

    fn list(&self, arrival: &Arrival, memory: &mut Memory) -> Parts {
        if !arrival.following {
            let user = ids::user_id(self.seed, arrival.user);
            return match arrival.form {
                0..70 => Parts::get(format!("/v1/content?user_id={user}&limit=20")),
                70..90 => Parts::get(format!("/v1/content?user_id={user}&status=ready&limit=20")),
                _ => Parts::get("/v1/content?limit=20".to_owned()),
            };
        }
        let (list, number, cursor) = match memory.take_page() {
            Some(Page {
                list,
                cursor,
                number,
            }) => (list, number, Some(cursor)),
            None => {
                let user = ids::user_id(self.seed, arrival.user);
                (
                    format!("/v1/content?user_id={user}&limit=5").into(),
                    1,
                    None,
                )
            }
        };
        let path = match cursor {
            Some(cursor) => format!("{list}&cursor={cursor}"),
            None => list.to_string(),
        };
        Parts {
            keep: Keep::Cursor { list, number },
            ..Parts::get(path)
        }
    }

    fn lookup(&self, arrival: &Arrival) -> Parts {
        Parts::get(match arrival.form {
            0..50 => format!("/v1/users/{}", ids::user_id(self.seed, arrival.user)),
            50..75 => format!(
                "/v1/nft?owner={}&limit=20",
                ids::wallet_address(self.seed, arrival.user)
            ),
            75..90 => format!(
                "/v1/nft?contract={}&limit=20",
                ids::contract_address(self.seed, arrival.content)
            ),
            _ => format!(
                "/v1/nft?token_id={}&limit=20",
                ids::token_id(arrival.content)
            ),
        })
    }

    fn transactions(&self, arrival: &Arrival) -> Parts {
        Parts::get(match arrival.form {
            0..80 => format!(
                "/v1/transactions?user_id={}&limit=20",
                ids::user_id(self.seed, arrival.user)
            ),
            80..90 => "/v1/transactions?status=pending&limit=20".to_owned(),
            _ => {
                let from = ids::content_millis(arrival.content) * 1000;
                let to = from + 3_600_000_000;
                format!("/v1/transactions?from={from}&to={to}&limit=20")
            }
        })
    }

    /// A change to a content whose tag is known, else a new content.
    fn write(&self, arrival: &Arrival, memory: &mut Memory) -> Parts {
        let known = if arrival.form < 50 {
            memory.take_tag(arrival.content)
        } else {
            None
        };
        match known {
            Some(tag) => Parts {
                method: Method::PATCH,
                body: Some(
                    json!({ "title": format!("Changed {}", arrival.number) })
                        .to_string()
                        .into_bytes(),
                ),
                condition: Some((IF_MATCH, tag)),
                // Somebody else may have changed it between our reading and our writing.
                expected: &[200, 412],
                ..Parts::get(format!(
                    "/v1/content/{}",
                    ids::content_id(self.seed, arrival.content)
                ))
            },
            None => Parts {
                method: Method::POST,
                body: Some(self.new_content(arrival, 0).to_string().into_bytes()),
                expected: &[201],
                ..Parts::get("/v1/content".to_owned())
            },
        }
    }

    fn batch(&self, arrival: &Arrival) -> Parts {
        let items: Vec<_> = (0..BATCH)
            .map(|item| self.new_content(arrival, item))
            .collect();
        Parts {
            method: Method::POST,
            body: Some(json!({ "items": items }).to_string().into_bytes()),
            expected: &[201],
            ..Parts::get("/v1/content:batch".to_owned())
        }
    }

    fn new_content(&self, arrival: &Arrival, item: u8) -> serde_json::Value {
        json!({
            "user_id": ids::user_id(self.seed, arrival.user).to_string(),
            "title": format!("Bench {}.{item}", arrival.number),
            "description": "Written by the load generator.",
            "kind": "video",
            "visibility": "public",
        })
    }
}
