//! Writing one content: validation, preconditions, and what readers see afterwards.

use http::Method;

use crate::support::{Answer, Service, content, service, user};

const JSON: (&str, &str) = ("content-type", "application/json");

async fn patch(service: &Service, id: &str, if_match: Option<&str>, body: &str) -> Answer {
    let mut headers = vec![JSON];
    headers.extend(if_match.map(|tag| ("if-match", tag)));
    service
        .send(
            Method::PATCH,
            &format!("/v1/content/{id}"),
            &headers,
            body.to_owned(),
        )
        .await
}

#[tokio::test]
async fn a_created_content_is_answered_as_it_is_read_back() {
    let service = service().await;
    let body = format!(
        r#"{{"user_id":"{}","title":"é","body":"é","metadata":{{"a":[1]}},"visibility":"public"}}"#,
        user(1)
    );
    let created = service.post("/v1/content", &body).await;
    assert_eq!(created.status, 201, "{created:?}");
    let read = service.get(created.header("location")).await;
    assert_eq!(read.status, 200);
    assert_eq!(read.json(), created.json());
    assert_eq!(read.header("etag"), created.header("etag"));
    assert_eq!(created.header("cache-control"), "no-store");
    assert_eq!(read.json()["body_bytes"], 2);
    assert_eq!(read.json()["status"], "draft");
}

#[tokio::test]
async fn the_writer_reads_his_own_write_in_every_view() {
    let service = service().await;
    let owner_lists = format!("/v1/content?limit=1&user_id={}", user(3));
    let profile = format!("/v1/users/{}", user(3));
    // Warm every view first, so that stale ones would be served.
    service.get("/v1/content?limit=1").await;
    service.get(&owner_lists).await;
    let bytes_before = service.get(&profile).await.json()["content_bytes"]
        .as_u64()
        .unwrap();
    let body = format!(
        r#"{{"user_id":"{}","title":"first","body":"12345"}}"#,
        user(3)
    );
    let created = service.post("/v1/content", &body).await;
    let (id, tag) = (
        created.json()["id"].as_str().unwrap().to_owned(),
        created.header("etag").to_owned(),
    );
    for list in ["/v1/content?limit=1", &owner_lists] {
        assert_eq!(
            service.get(list).await.json()["items"][0]["id"],
            id,
            "{list}"
        );
    }
    assert_eq!(
        service.get(&profile).await.json()["content_bytes"],
        bytes_before + 5
    );

    let path = format!("/v1/content/{id}");
    service.get(&path).await;
    service.get(&format!("{path}?expand=nfts")).await;
    assert_eq!(
        patch(&service, &id, Some(&tag), r#"{"title":"second"}"#)
            .await
            .status,
        200
    );
    assert_eq!(service.get(&path).await.json()["title"], "second");
    assert_eq!(
        service.get(&format!("{path}?expand=nfts")).await.json()["title"],
        "second"
    );
    assert_eq!(
        service.get(&owner_lists).await.json()["items"][0]["title"],
        "second"
    );

    let gone = service
        .send(Method::DELETE, &path, &[("if-match", "*")], "")
        .await;
    assert_eq!((gone.status.as_u16(), gone.body.len()), (204, 0));
    assert_eq!(service.get(&path).await.status, 404);
    assert_ne!(service.get(&owner_lists).await.json()["items"][0]["id"], id);
}

#[tokio::test]
async fn an_id_asked_for_before_it_exists_is_found_once_it_does() {
    let service = service().await;
    let id = "0199f000-0000-7000-8000-000000000001";
    let path = format!("/v1/content/{id}");
    assert_eq!(service.get(&path).await.status, 404);
    let body = format!(r#"{{"id":"{id}","user_id":"{}","title":"t"}}"#, user(0));
    assert_eq!(service.post("/v1/content", &body).await.status, 201);
    assert_eq!(service.get(&path).await.status, 200);
    assert_eq!(
        service.post("/v1/content", &body).await.problem(),
        (409, "exists".to_owned())
    );
}

#[tokio::test]
async fn a_change_needs_if_match_and_the_current_version() {
    let service = service().await;
    let id = content(0);
    let path = format!("/v1/content/{id}");
    let tag = service.get(&path).await.header("etag").to_owned();
    let body = r#"{"title":"changed","metadata":{"k":1}}"#;
    let without = patch(&service, &id, None, body).await;
    assert_eq!(without.problem(), (428, "precondition-required".to_owned()));
    for stale in ["\"7-ffffffffj-identity\"", &format!("W/{tag}"), "\"\"", "1"] {
        let answer = patch(&service, &id, Some(stale), body).await;
        assert_eq!(
            answer.problem(),
            (412, "precondition-failed".to_owned()),
            "{stale}"
        );
    }
    let unchanged = service.get(&path).await;
    assert_eq!(
        (
            unchanged.json()["version"].as_u64(),
            unchanged.header("etag")
        ),
        (Some(1), tag.as_str())
    );

    let changed = patch(&service, &id, Some(&tag), body).await;
    assert_eq!(changed.status, 200);
    assert_eq!(changed.json()["version"], 2);
    assert_eq!(changed.json()["metadata"]["k"], 1);
    assert_ne!(changed.header("etag"), tag);
    assert_eq!(
        patch(&service, &id, Some(&tag), body).await.status,
        412,
        "the same change again"
    );

    // A tag of any view of the version will do: here the compressed one of some fields.
    let view = service
        .get_with(&format!("{path}?fields=id"), &[("accept-encoding", "gzip")])
        .await;
    let removed = service
        .send(
            Method::DELETE,
            &path,
            &[("if-match", view.header("etag"))],
            "",
        )
        .await;
    assert_eq!(removed.status, 204);
    assert_eq!(patch(&service, &id, Some("*"), body).await.problem().0, 404);
    let without = service
        .send(
            Method::DELETE,
            &format!("/v1/content/{}", content(1)),
            &[],
            "",
        )
        .await;
    assert_eq!(without.problem().0, 428);
}

#[tokio::test]
async fn bad_bodies_are_refused_and_nothing_is_written() {
    let service = service().await;
    let long = "x".repeat(201);
    let u = user(0);
    for body in [
        String::new(),
        "{".to_owned(),
        "[]".to_owned(),
        r#"{"title":"t"}"#.to_owned(),
        format!(r#"{{"user_id":"{u}"}}"#),
        format!(r#"{{"user_id":"{u}","title":""}}"#),
        format!(r#"{{"user_id":"{u}","title":"{long}"}}"#),
        format!(r#"{{"user_id":"{u}","title":"t","status":"gone"}}"#),
        format!(r#"{{"user_id":"{u}","title":"t","lease_owner":"me"}}"#),
        format!(r#"{{"user_id":"{u}","title":"t","metadata":[]}}"#),
        format!(r#"{{"user_id":"{}","title":"t"}}"#, content(0)),
    ] {
        let answer = service.post("/v1/content", &body).await;
        assert_eq!(
            answer.problem(),
            (400, "bad-parameter".to_owned()),
            "{body}"
        );
    }
    let newest = service.get("/v1/content?limit=1").await.json();
    assert_eq!(newest["items"][0]["id"], content(299));
    let text = service
        .send(
            Method::POST,
            "/v1/content",
            &[("content-type", "text/plain")],
            "x",
        )
        .await;
    assert_eq!(text.problem(), (415, "unsupported-media-type".to_owned()));
}

#[tokio::test]
async fn no_answer_carries_sql_or_inner_text() {
    let service = service().await;
    let quote = "' OR 1=1; DROP TABLE users; --";
    let body = format!(r#"{{"user_id":"{}","title":"{quote}"}}"#, user(0));
    assert_eq!(
        service.post("/v1/content", &body).await.status,
        201,
        "text is a bind, not SQL"
    );
    for path in [
        "/v1/nft?owner=%27%20OR%201%3D1",
        "/v1/content?status=%27",
        "/v1/content/%27",
    ] {
        let text = service.get(path).await.text().to_lowercase();
        for inner in ["sqlite", "select", "syntax error", "sqlx", "src/"] {
            assert!(!text.contains(inner), "{path}: {text}");
        }
    }
    assert_eq!(service.get("/v1/content?limit=1").await.status, 200);
}
