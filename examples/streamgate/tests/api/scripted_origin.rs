//! An origin that answers what a test says and remembers what it was asked.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
}

pub(crate) type Reply = Response<Full<Bytes>>;

type Script = Box<dyn Fn(&Asked) -> Reply + Send + Sync>;

pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

struct State {
    script: Mutex<Script>,
    asked: Mutex<Vec<Asked>>,
    connections: AtomicUsize,
    /// Answers wait for a permit while it is closed to them.
    gate: Semaphore,
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// 200 with a text, and this `Cache-Control`.
pub(crate) fn text(body: &str, cache_control: &str) -> Reply {
    Response::builder()
        .header("cache-control", cache_control)
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
        .unwrap()
}

pub(crate) fn with(mut reply: Reply, name: &'static str, value: &str) -> Reply {
    reply.headers_mut().append(name, value.parse().unwrap());
    reply
}

impl Origin {
    /// Answers at once.
    pub(crate) async fn new(script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::gated(Semaphore::MAX_PERMITS, script).await
    }

    /// Gives `permits` answers and then waits for [`let_through`](Self::let_through).
    pub(crate) async fn gated(
        permits: usize,
        script: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            script: Mutex::new(Box::new(script)),
            asked: Mutex::default(),
            connections: AtomicUsize::new(0),
            gate: Semaphore::new(permits),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&state)));
        Self {
            address,
            state,
            accepting,
        }
    }

    pub(crate) fn answers(&self, script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) {
        *self.state.script.lock().unwrap() = Box::new(script);
    }

    pub(crate) fn let_through(&self, answers: usize) {
        self.state.gate.add_permits(answers);
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        state.connections.fetch_add(1, Ordering::SeqCst);
        let state = Arc::clone(&state);
        let service = service_fn(move |request: Request<Incoming>| {
            let state = Arc::clone(&state);
            async move {
                let asked = Asked {
                    method: request.method().clone(),
                    target: request.uri().to_string(),
                    headers: request.headers().clone(),
                };
                state.asked.lock().unwrap().push(asked.clone());
                state.gate.acquire().await.unwrap().forget();
                let reply = (state.script.lock().unwrap())(&asked);
                Ok::<_, Infallible>(reply)
            }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}
