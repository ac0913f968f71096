//! One GET from the agent's endpoints.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header::HOST};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Largest answer that is read; the agent cuts profiles at 32 MiB.
const LARGEST: usize = 64 << 20;

/// Body of a 200 answer, or a sentence why there is none.
pub(super) async fn get(address: SocketAddr, path: &str, limit: Duration) -> Result<Bytes, String> {
    match tokio::time::timeout(limit, exchange(address, path)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(why)) => Err(format!("http://{address}{path}: {why}")),
        Err(_) => Err(format!(
            "http://{address}{path}: no answer within {} s",
            limit.as_secs()
        )),
    }
}

async fn exchange(address: SocketAddr, path: &str) -> Result<Bytes, String> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| error.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let request = Request::get(path)
        .header(HOST, address.to_string())
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| error.to_string())?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST)
            .collect()
            .await
            .map_err(|error| error.to_string())?;
        let body = body.to_bytes();
        if status == http::StatusCode::OK {
            Ok(body)
        } else {
            let text = String::from_utf8_lossy(&body);
            Err(format!(
                "{status}: {}",
                text.lines().next().unwrap_or_default()
            ))
        }
    };
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        // The connection may end once the answer is complete, before the answer is looked at.
        _ = connection => answer.await,
    }
}
