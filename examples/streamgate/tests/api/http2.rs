//! HTTP/2 clients that mean no good, frame by frame: RFC 9113.

use std::net::SocketAddr;
use std::time::Duration;

use streamgate::settings::Settings;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{content, http2_get, service, service_with, settings};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A field block of nothing but the static table and literals, RFC 7541.
fn fields(method: u8, path: &str) -> Vec<u8> {
    let mut block = vec![method, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    block.extend(path.as_bytes());
    // ":authority: a" and "content-type: application/json".
    block.extend([0x01, 1, b'a', 0x0f, 0x10, 16]);
    block.extend(b"application/json");
    block
}

const GET: u8 = 0x82;
const POST: u8 = 0x83;

/// Sends bytes on a connection of its own and reads frames until one ends it, or `enough` is seen.
async fn frames(
    to: SocketAddr,
    bytes: &[u8],
    enough: impl Fn(&[(u8, u32)]) -> bool,
) -> Vec<(u8, u32)> {
    let stream = TcpStream::connect(to).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[]), bytes].concat();
    // The server may have closed before all is written.
    let write = tokio::spawn(async move {
        drop(writing.write_all(&bytes).await);
        writing
    });
    let mut seen = Vec::new();
    let read = async {
        let mut head = [0; 9];
        while !enough(&seen) && reading.read_exact(&mut head).await.is_ok() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            if reading.read_exact(&mut payload).await.is_err() {
                break;
            }
            let code = match head[3] {
                RST_STREAM => &payload[..4],
                GOAWAY => &payload[4..8],
                _ => &[0; 4],
            };
            seen.push((head[3], u32::from_be_bytes(code.try_into().unwrap())));
        }
    };
    tokio::time::timeout(Duration::from_secs(60), read)
        .await
        .expect("the server says what it thinks of it");
    drop(write.await);
    seen
}

async fn assert_others_are_served(to: SocketAddr) {
    let detail = format!("/v1/content/{}", content(0));
    let answers = http2_get(to, &[&detail, "/v1/content?limit=2"]).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
}

#[tokio::test]
async fn a_rapid_reset_ends_its_connection_and_no_other() {
    let service = service().await;
    let to = service.running.public;
    let path = format!("/v1/content/{}", content(0));
    let mut bytes = Vec::new();
    for n in 0..10_000 {
        let stream = 2 * n + 1;
        let flags = END_STREAM | END_HEADERS;
        bytes.extend(frame(HEADERS, flags, stream, &fields(GET, &path)));
        bytes.extend(frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
    }
    let flood = frames(to, &bytes, |seen| {
        seen.iter().any(|frame| frame.0 == GOAWAY)
    });
    let (seen, ()) = tokio::join!(flood, assert_others_are_served(to));
    assert!(seen.contains(&(GOAWAY, ENHANCE_YOUR_CALM)), "{seen:?}");
    assert_others_are_served(to).await;
}

#[tokio::test]
async fn streams_over_the_limit_are_refused_and_other_clients_served() {
    // Nothing is answered while the test looks: the bodies never end.
    let service = service_with(Settings {
        request_deadline: Duration::from_secs(300),
        ..settings()
    })
    .await;
    let to = service.running.public;
    let mut bytes = Vec::new();
    for n in 0..300 {
        let block = fields(POST, "/v1/content");
        bytes.extend(frame(HEADERS, END_HEADERS, 2 * n + 1, &block));
    }
    let refused = |seen: &[(u8, u32)]| {
        seen.iter()
            .filter(|frame| **frame == (RST_STREAM, REFUSED_STREAM))
            .count()
    };
    let flood = frames(to, &bytes, |seen| refused(seen) == 300 - 128);
    let (seen, ()) = tokio::join!(flood, assert_others_are_served(to));
    assert_eq!(refused(&seen), 300 - 128, "{seen:?}");
    assert!(!seen.iter().any(|frame| frame.0 == GOAWAY), "{seen:?}");
}
