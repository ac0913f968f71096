//! Compression, entity tags, HEAD, protocol versions.

use std::io::Read as _;

use flate2::read::GzDecoder;
use http::Method;

use crate::support::{Service, content, http2_get, service};

const LIST: &str = "/v1/content?limit=50";

async fn encoded(service: &Service, path: &str, accept: &str) -> (String, String) {
    let answer = service.get_with(path, &[("accept-encoding", accept)]).await;
    assert_eq!(answer.status, 200, "{accept}: {answer:?}");
    assert!(answer.header("vary").contains("Accept-Encoding"));
    (
        answer.header("content-encoding").to_owned(),
        answer.header("etag").to_owned(),
    )
}

#[tokio::test]
async fn the_encoding_is_what_the_client_ranks_first() {
    let service = service().await;
    for (accept, encoding) in [
        ("gzip", "gzip"),
        ("br", "br"),
        ("zstd", "zstd"),
        ("gzip;q=1, br;q=0.5", "gzip"),
        ("gzip;q=0", ""),
        ("gzip;q=0, br", "br"),
        ("*;q=0", ""),
        ("identity", ""),
        ("identity;q=0, gzip;q=0", ""),
        ("nonsense", ""),
        ("", ""),
    ] {
        assert_eq!(
            encoded(&service, LIST, accept).await.0,
            encoding,
            "{accept:?}"
        );
    }
    let plain = service.get(LIST).await;
    let gzip = service.get_with(LIST, &[("accept-encoding", "gzip")]).await;
    let mut text = String::new();
    GzDecoder::new(&gzip.body[..])
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text.as_bytes(), plain.body);
    assert!(gzip.body.len() * 2 < plain.body.len());
}

#[tokio::test]
async fn an_answer_is_compressed_once_for_each_encoding() {
    let service = service().await;
    let saved = async || {
        service
            .metric("streamgate_compressions_saved_total", &[])
            .await
    };
    for path in [LIST.to_owned(), format!("/v1/content/{}", content(0))] {
        let before = saved().await;
        let plain = service.get(&path).await;
        let mut first = None;
        for accept in ["gzip", "gzip", "gzip", "br", "br", "identity"] {
            let answer = service
                .get_with(&path, &[("accept-encoding", accept)])
                .await;
            if accept == "gzip" {
                let mut text = Vec::new();
                GzDecoder::new(&answer.body[..])
                    .read_to_end(&mut text)
                    .unwrap();
                assert_eq!(text, plain.body, "{path}");
                let first = first.get_or_insert_with(|| answer.body.clone());
                assert_eq!(*first, answer.body);
            } else if accept == "identity" {
                assert_eq!(answer.body, plain.body);
            }
        }
        let saved = saved().await - before;
        assert!(
            (saved - 3.0).abs() < 0.5,
            "{path}: {saved}, not two of gzip and one of br"
        );
    }
}

#[tokio::test]
async fn a_changed_content_is_not_served_in_an_old_encoding() {
    let service = service().await;
    let path = format!("/v1/content/{}", content(3));
    let gzip = [("accept-encoding", "gzip")];
    let text = async || {
        let answer = service.get_with(&path, &gzip).await;
        let mut text = String::new();
        GzDecoder::new(&answer.body[..])
            .read_to_string(&mut text)
            .unwrap();
        (text, answer.header("etag").to_owned())
    };
    text().await;
    let (_, tag) = text().await;
    let changed = service
        .send(
            Method::PATCH,
            &path,
            &[("content-type", "application/json"), ("if-match", &tag)],
            r#"{"title":"another title"}"#.to_owned(),
        )
        .await;
    assert_eq!(changed.status, 200, "{changed:?}");
    assert!(text().await.0.contains("another title"));
}

#[tokio::test]
async fn small_answers_are_not_compressed() {
    let service = service().await;
    let path = format!("/v1/content/{}?fields=id", content(0));
    assert_eq!(encoded(&service, &path, "gzip, br").await.0, "");
}

#[tokio::test]
async fn refusing_every_encoding_does_not_undo_a_write() {
    let service = service().await;
    let path = format!("/v1/content/{}", content(0));
    let headers = [
        ("content-type", "application/json"),
        ("if-match", "*"),
        ("accept-encoding", "*;q=0"),
    ];
    let answer = service
        .send(Method::PATCH, &path, &headers, r#"{"title":"t"}"#)
        .await;
    assert_eq!(
        answer.status, 200,
        "the change is made, so 406 would be a lie"
    );
}

#[tokio::test]
async fn each_encoding_has_its_own_strong_tag() {
    let service = service().await;
    // Large enough to be compressed in every encoding.
    let mut path = String::new();
    for index in 0..50 {
        path = format!("/v1/content/{}", content(index));
        if service.get(&path).await.body.len() > 1_024 {
            break;
        }
    }
    let mut tags = Vec::new();
    for accept in ["identity", "gzip", "br", "zstd"] {
        let (_, tag) = encoded(&service, &path, accept).await;
        assert!(
            tag.starts_with("\"1-") && tag.ends_with(&format!("-{accept}\"")),
            "{tag}"
        );
        tags.push(tag);
    }
    tags.push(
        encoded(&service, &format!("{path}?fields=id"), "identity")
            .await
            .1,
    );
    tags.push(
        encoded(&service, &format!("{path}?expand=nfts"), "identity")
            .await
            .1,
    );
    let count = tags.len();
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), count, "{tags:?}");
}

#[tokio::test]
async fn a_known_tag_is_answered_304_without_body() {
    let service = service().await;
    let path = format!("/v1/content/{}", content(0));
    let (_, gzip) = encoded(&service, &path, "gzip").await;
    let (_, identity) = encoded(&service, &path, "identity").await;
    let loads = service
        .metric("cache_loads_total", &["cache_name=\"content\""])
        .await;
    for (tag, accept, status) in [
        (gzip.as_str(), "gzip", 304),
        (&format!("W/{gzip}"), "gzip", 304),
        (&format!("\"x\", {identity}"), "identity", 304),
        ("*", "identity", 304),
        ("\"2-ffffffffj-identity\"", "identity", 200),
        ("", "identity", 200),
    ] {
        let headers = [("if-none-match", tag), ("accept-encoding", accept)];
        let answer = service.get_with(&path, &headers).await;
        assert_eq!(answer.status, status, "{tag} {accept}");
        if status == 304 {
            assert!(answer.body.is_empty());
            assert!(
                !answer.header("etag").is_empty() && !answer.header("cache-control").is_empty()
            );
            assert_eq!(answer.header("content-encoding"), "");
        }
    }
    let after = service
        .metric("cache_loads_total", &["cache_name=\"content\""])
        .await;
    assert!(
        (after - loads).abs() < f64::EPSILON,
        "no 304 asked the database"
    );
}

#[tokio::test]
async fn head_has_the_headers_of_get_and_no_body() {
    let service = service().await;
    for path in [
        LIST.to_owned(),
        format!("/v1/content/{}", content(0)),
        "/nowhere".to_owned(),
    ] {
        for accept in ["identity", "gzip"] {
            let headers = [("accept-encoding", accept)];
            // The first is compressed while it is sent, and its length is not known before.
            service.get_with(&path, &headers).await;
            let get = service.get_with(&path, &headers).await;
            let head = service.send(Method::HEAD, &path, &headers, "").await;
            assert!(head.body.is_empty());
            assert_eq!(head.status, get.status);
            for name in [
                "content-type",
                "content-encoding",
                "content-length",
                "etag",
                "vary",
            ] {
                assert_eq!(
                    head.header(name),
                    get.header(name),
                    "{path} {accept} {name}"
                );
            }
        }
    }
}

#[tokio::test]
async fn h2c_is_served() {
    let service = service().await;
    let detail = format!("/v1/content/{}", content(0));
    let answers = http2_get(service.running.public, &[&detail, LIST, "/nowhere"]).await;
    let statuses: Vec<u16> = answers
        .iter()
        .map(|answer| answer.status.as_u16())
        .collect();
    assert_eq!(statuses, [200, 200, 404]);
    assert_eq!(answers[0].json()["id"], content(0));
    let version = ["network_protocol_version=\"2\""];
    assert!(
        (service
            .metric("http_server_connections_total", &version)
            .await
            - 1.0)
            .abs()
            < 0.5
    );
}
