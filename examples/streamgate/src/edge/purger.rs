//! The service's side of a purge.
//!
//! Guide 2.3. Metric: `streamgate_edge_purges_total{outcome}`. Breaking test:
//! `a_write_is_seen_through_the_edge`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use streamgate_agent::{AgentHandle, Counter, Error, Metric};

use crate::api::reply::SURROGATE_KEY;
use crate::cache::Tag;

/// Keys of one request: 200 of up to 45 bytes stay under the 16 KiB of a head.
const KEYS: usize = 200;

/// How long a writer waits, and how often and how long an edge that does not answer is told in all.
const WAIT: Duration = Duration::from_millis(100);
const TRIES: u32 = 5;
const EACH: Duration = Duration::from_secs(1);

static PURGES: Metric = Metric::counter(
    "streamgate_edge_purges_total",
    "Purges that the edge took, or that it was told in vain.",
)
.labels(&["outcome"]);

/// Tells the edge what writes have voided; cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Purger(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: Client<HttpConnector, Full<Bytes>>,
    uri: Uri,
    token: HeaderValue,
    taken: Counter,
    lost: Counter,
}

impl Purger {
    /// `None` when the token is no value of a header.
    ///
    /// # Errors
    /// The agent refuses the family.
    pub(crate) fn new(
        edge: SocketAddr,
        token: &str,
        agent: &AgentHandle,
    ) -> Result<Option<Self>, Error> {
        let uri = format!("http://{edge}/purge").parse();
        let token = HeaderValue::from_str(&format!("Bearer {token}"));
        let (Ok(uri), Ok(token)) = (uri, token) else {
            return Ok(None);
        };
        Ok(Some(Self(Arc::new(Inner {
            client: Client::builder(TokioExecutor::new()).build_http(),
            uri,
            token,
            taken: agent.counter(&PURGES, &["taken"])?,
            lost: agent.counter(&PURGES, &["lost"])?,
        }))))
    }

    /// Returns when the edge has purged, or after 100 ms; it is told to the end nevertheless.
    pub(crate) async fn purge(&self, tags: &[Tag]) {
        let names: Vec<String> = tags.iter().map(ToString::to_string).collect();
        let lines: Vec<String> = names.chunks(KEYS).map(|keys| keys.join(" ")).collect();
        let inner = Arc::clone(&self.0);
        let told = tokio::spawn(async move {
            for line in lines {
                inner.tell(&line).await;
            }
        });
        drop(tokio::time::timeout(WAIT, told).await);
    }
}

impl Inner {
    async fn tell(&self, keys: &str) {
        for n in 0..TRIES {
            if let Ok(true) = tokio::time::timeout(EACH, self.ask(keys)).await {
                self.taken.inc();
                return;
            }
            tokio::time::sleep(WAIT * 2_u32.pow(n)).await;
        }
        // What it holds lives on for an hour at most.
        self.lost.inc();
        tracing::warn!("the edge takes no purges");
    }

    async fn ask(&self, keys: &str) -> bool {
        let Ok(keys) = HeaderValue::from_str(keys) else {
            return false;
        };
        let mut request = Request::new(Full::default());
        *request.method_mut() = Method::POST;
        request.uri_mut().clone_from(&self.uri);
        request
            .headers_mut()
            .insert(AUTHORIZATION, self.token.clone());
        request.headers_mut().insert(SURROGATE_KEY, keys);
        let answer = self.client.request(request).await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }
}
