//! Streams: manifest, segments in parts, and the gate before gated ones.

use http::Method;
use serde_json::json;
use streamgate::gate::mock::ChainSettings;
use streamgate::seed::ids;
use streamgate::settings::Settings;

use crate::support::{CONTENTS, SEED, Service, USERS, content, service, service_with, settings};

/// A content that is ready, of this visibility: its index.
async fn ready(service: &Service, visibility: &str) -> u64 {
    for index in 0..u64::from(CONTENTS) {
        let path = format!("/v1/content/{}?fields=status,visibility", content(index));
        let body = service.get(&path).await.json();
        if body["status"] == "ready" && body["visibility"] == visibility {
            return index;
        }
    }
    panic!("no content is ready and {visibility}");
}

/// The wallet of whoever holds the NFT of a content.
fn owner(index: u64) -> String {
    ids::wallet_address(SEED, ids::nft_holder(SEED, index, USERS.into()))
}

async fn verify(service: &Service, index: u64, wallet: &str) -> crate::support::Answer {
    let body = json!({"content_id": content(index), "wallet_address": wallet});
    service.post("/v1/nft/verify", &body.to_string()).await
}

#[tokio::test]
async fn a_stream_plays_from_its_manifest() {
    let service = service().await;
    let base = format!("/v1/streams/{}/", content(ready(&service, "public").await));
    let manifest = service.get(&format!("{base}manifest.m3u8")).await;
    assert_eq!(manifest.status, 200);
    assert_eq!(
        manifest.header("content-type"),
        "application/vnd.apple.mpegurl"
    );
    assert!(manifest.header("cache-control").starts_with("public"));
    let lines: Vec<&str> = manifest.text().lines().collect();
    assert_eq!(
        (lines[0], lines[lines.len() - 1]),
        ("#EXTM3U", "#EXT-X-ENDLIST")
    );
    let segments: Vec<&&str> = lines.iter().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(segments.len(), 10);
    let mut bodies = Vec::new();
    for segment in segments {
        let answer = service.get(&format!("{base}{segment}")).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), "video/mp2t");
        assert_eq!(answer.body.len() % 188, 0);
        assert!(answer.body.iter().step_by(188).all(|byte| *byte == 0x47));
        let again = service.get(&format!("{base}{segment}")).await;
        assert_eq!(again.body, answer.body, "the same each time");
        bodies.push(answer.body);
    }
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 10, "each segment is another");
}

#[tokio::test]
async fn a_segment_is_answered_in_parts() {
    let service = service().await;
    let id = content(ready(&service, "public").await);
    let path = format!("/v1/streams/{id}/segments/3");
    let whole = service
        .get_with(&path, &[("accept-encoding", "gzip, br")])
        .await;
    assert_eq!(whole.header("accept-ranges"), "bytes");
    assert_eq!(
        whole.header("content-encoding"),
        "",
        "video is packed already"
    );
    let (tag, length) = (whole.header("etag"), whole.body.len());
    for (range, start, end) in [
        ("bytes=0-0", 0, 1),
        ("bytes=188-375", 188, 376),
        ("bytes=-188", length - 188, length),
        ("bytes=96000-", 96_000, length),
        ("bytes=96000-999999", 96_000, length),
    ] {
        let headers = [
            ("range", range),
            ("accept-encoding", "gzip"),
            ("if-range", tag),
        ];
        let part = service.get_with(&path, &headers).await;
        assert_eq!(part.status, 206, "{range}");
        assert_eq!(part.body, whole.body[start..end]);
        let named = format!("bytes {start}-{}/{length}", end - 1);
        assert_eq!(part.header("content-range"), named);
        assert_eq!(part.header("etag"), tag, "parts of the same representation");
    }
    for range in ["bytes=96256-", "bytes=-0"] {
        let none = service.get_with(&path, &[("range", range)]).await;
        assert_eq!(none.problem(), (416, "range".to_owned()));
        assert_eq!(none.header("content-range"), format!("bytes */{length}"));
    }
    for range in ["bytes=5-2", "items=0-1", "bytes=0-1,4-5"] {
        let ignored = service.get_with(&path, &[("range", range)]).await;
        assert_eq!((ignored.status.as_u16(), ignored.body.len()), (200, length));
    }
    let stale = [("range", "bytes=0-1"), ("if-range", "\"other\"")];
    assert_eq!(service.get_with(&path, &stale).await.status, 200);
    let known = [("range", "bytes=0-1"), ("if-none-match", tag)];
    assert_eq!(service.get_with(&path, &known).await.status, 304);
    let head = service
        .send(Method::HEAD, &path, &[("range", "bytes=0-1")], "")
        .await;
    assert_eq!(head.status, 200, "a range is defined for GET alone");
    assert_eq!(head.header("content-length"), length.to_string());
}

#[tokio::test]
async fn a_gated_stream_needs_a_token_of_an_owner() {
    let service = service().await;
    let index = ready(&service, "gated").await;
    let (owner, base) = (owner(index), format!("/v1/streams/{}/", content(index)));
    let paths = [format!("{base}manifest.m3u8"), format!("{base}segments/0")];
    for path in &paths {
        assert_eq!(service.get(path).await.problem(), (403, "gated".to_owned()));
    }
    let stranger = format!("0x{}", "0".repeat(40));
    let refused = verify(&service, index, &stranger).await;
    assert_eq!(refused.problem(), (403, "gated".to_owned()));
    // Capitals are a checksum for the eye.
    let verified = verify(&service, index, &owner.to_uppercase().replace("0X", "0x")).await;
    assert_eq!(verified.status, 200, "{verified:?}");
    assert_eq!(verified.header("cache-control"), "no-store");
    let token = verified.json()["token"].as_str().unwrap().to_owned();

    for path in &paths {
        let answer = service.get(&format!("{path}?token={token}")).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("cache-control"), "private, no-store");
        let bearer = [("authorization", &*format!("Bearer {token}"))];
        assert_eq!(service.get_with(path, &bearer).await.status, 200);
    }
    let manifest = service.get(&format!("{}?token={token}", paths[0])).await;
    let segment = manifest
        .text()
        .lines()
        .find(|line| line.starts_with("segments/"));
    let played = service.get(&format!("{base}{}", segment.unwrap())).await;
    assert_eq!(played.status, 200, "the manifest leads to what may be seen");

    // For another content, changed, or empty: none of them opens anything.
    let mut other = index + 1;
    while service
        .get(&format!("/v1/content/{}", content(other)))
        .await
        .json()["visibility"]
        != "gated"
    {
        other += 1;
    }
    let foreign = format!("/v1/streams/{}/segments/0?token={token}", content(other));
    assert_eq!(service.get(&foreign).await.problem().0, 403);
    for bad in ["", "AAAA", token.get(1..).unwrap(), "%00", "é"] {
        let answer = service.get(&format!("{}?token={bad}", paths[0])).await;
        assert!(matches!(answer.status.as_u16(), 400 | 403), "{bad}");
    }
}

#[tokio::test]
async fn the_gate_is_asked_on_every_request_and_its_failure_is_503() {
    let service = service_with(Settings {
        chain: ChainSettings {
            latency: std::time::Duration::from_millis(1),
            fail_every: 3,
        },
        ..settings()
    })
    .await;
    let index = ready(&service, "gated").await;
    let token = verify(&service, index, &owner(index)).await;
    let token = token.json()["token"].as_str().unwrap().to_owned();
    let path = format!("/v1/streams/{}/segments/1?token={token}", content(index));
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(service.get(&path).await.status.as_u16());
    }
    // The verification was the first question.
    assert_eq!(statuses, [200, 503, 200, 200, 503, 200]);
}

#[tokio::test]
async fn a_wallet_or_a_segment_that_cannot_be_is_400() {
    let service = service().await;
    for wallet in ["", "0x", "0xzz", "0x12", &"0".repeat(42), "0x\u{0}"] {
        let answer = verify(&service, 0, wallet).await;
        assert_eq!(
            answer.problem(),
            (400, "bad-parameter".to_owned()),
            "{wallet}"
        );
    }
    let id = content(ready(&service, "public").await);
    for n in ["10", "-1", "x", "1e1", "18446744073709551616"] {
        let answer = service.get(&format!("/v1/streams/{id}/segments/{n}")).await;
        assert_eq!(answer.problem(), (400, "bad-parameter".to_owned()), "{n}");
    }
}
