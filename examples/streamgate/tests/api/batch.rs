//! `POST /v1/content:batch`.

use http::Method;
use serde_json::json;

use crate::support::{Answer, Service, content, service, user};

const PATH: &str = "/v1/content:batch";

async fn keyed(service: &Service, key: &str, body: &str) -> Answer {
    let headers = [
        ("content-type", "application/json"),
        ("idempotency-key", key),
    ];
    service
        .send(Method::POST, PATH, &headers, body.to_owned())
        .await
}

fn items(titles: impl Iterator<Item = String>) -> String {
    let items: Vec<_> = titles
        .map(|title| json!({"user_id": user(0), "title": title}))
        .collect();
    json!({ "items": items }).to_string()
}

#[tokio::test]
async fn a_batch_of_a_thousand_is_one_statement() {
    let service = service().await;
    let body = items((0..1_000).map(|n| format!("row {n}")));
    let answer = service.post(PATH, &body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let written = answer.json()["items"].as_array().unwrap().clone();
    assert_eq!(written.len(), 1_000);
    let last = written[999]["id"].as_str().unwrap();
    assert_eq!(
        service.get(&format!("/v1/content/{last}")).await.json()["title"],
        "row 999"
    );
    let statements = service
        .metric(
            "db_client_operation_duration_seconds_count",
            &["INSERT content batch"],
        )
        .await;
    assert!((statements - 1.0).abs() < f64::EPSILON);
    assert!((service.metric("streamgate_batch_rows_sum", &[]).await - 1_000.0).abs() < 0.5);
}

#[tokio::test]
async fn an_empty_and_an_overlong_batch_are_refused() {
    let service = service().await;
    for body in [
        items(std::iter::empty()),
        items((0..1_001).map(|n| n.to_string())),
    ] {
        assert_eq!(
            service.post(PATH, &body).await.problem(),
            (422, "batch-invalid".to_owned())
        );
    }
    for body in ["", "[]", r#"{"items":{}}"#, r#"{"items":[],"more":1}"#] {
        assert_eq!(
            service.post(PATH, body).await.problem(),
            (400, "bad-parameter".to_owned())
        );
    }
}

#[tokio::test]
async fn a_batch_with_one_bad_row_writes_nothing_and_all_reasons_are_listed() {
    let service = service().await;
    let id = "0199f000-0000-7000-8000-00000000000a";
    let local = json!({"items": [
        {"user_id": user(0), "title": "good"},
        {"user_id": user(0), "title": ""},
        {"user_id": "nobody", "title": "t"},
        {"id": id, "user_id": user(0), "title": "t"},
        {"id": id, "user_id": user(0), "title": "t"},
    ]});
    let stored = json!({"items": [
        {"user_id": user(0), "title": "good"},
        {"id": content(0), "user_id": user(0), "title": "t"},
        {"user_id": content(0), "title": "t"},
    ]});
    for (body, wanted) in [
        (local, vec![(1, "title"), (2, "item"), (4, "id")]),
        (stored, vec![(1, "id"), (2, "user_id")]),
    ] {
        let answer = service.post(PATH, &body.to_string()).await;
        assert_eq!(answer.problem(), (422, "batch-invalid".to_owned()));
        let problem = answer.json();
        let listed: Vec<(u64, &str)> = problem["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| {
                assert!(!row["reason"].as_str().unwrap().is_empty());
                (
                    row["index"].as_u64().unwrap(),
                    row["field"].as_str().unwrap(),
                )
            })
            .collect();
        assert_eq!(listed, wanted);
    }
    let newest = service.get("/v1/content?limit=1").await.json();
    assert_eq!(
        newest["items"][0]["id"],
        content(299),
        "the good rows are not written either"
    );
}

#[tokio::test]
async fn a_repeated_key_replays_the_first_answer() {
    let service = service().await;
    let body = items(["a".to_owned(), "b".to_owned()].into_iter());
    let first = keyed(&service, "k1", &body).await;
    assert_eq!(first.status, 201);
    let again = keyed(&service, "k1", &body).await;
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    let other = keyed(&service, "k1", &items(std::iter::once("c".to_owned()))).await;
    assert_eq!(other.problem(), (422, "key-mismatch".to_owned()));
    let fresh = keyed(&service, "k2", &body).await;
    assert_ne!(fresh.body, first.body, "another key is another batch");
    let rows = service.metric("streamgate_batch_rows_sum", &[]).await;
    assert!((rows - 4.0).abs() < 0.5, "{rows}");
    assert_eq!(keyed(&service, "", &body).await.problem().0, 400);
}

#[tokio::test]
async fn a_refused_batch_does_not_use_up_its_key() {
    let service = service().await;
    let bad = json!({"items": [{"user_id": content(0), "title": "t"}]}).to_string();
    assert_eq!(keyed(&service, "k", &bad).await.status, 422);
    assert_eq!(
        keyed(&service, "k", &items(std::iter::once("a".to_owned())))
            .await
            .status,
        201
    );
}
