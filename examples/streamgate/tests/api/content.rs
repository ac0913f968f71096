//! One content: fields, expansion, tags, refusals.

use http::Method;
use streamgate::seed::ids;

use crate::support::{CONTENTS, SEED, USERS, content, service, user};

#[tokio::test]
async fn a_content_is_answered_as_seeded() {
    let service = service().await;
    let answer = service.get(&format!("/v1/content/{}", content(3))).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/json");
    let body = answer.json();
    assert_eq!(body["id"], content(3));
    assert_eq!(
        body["user_id"],
        user(ids::content_owner(SEED, 3, USERS.into()))
    );
    assert_eq!(body["version"], 1);
    assert_eq!(body["body"].as_str().unwrap().len(), body["body_bytes"]);
    assert!(body["metadata"]["bitrate"].is_u64());
    assert!(body.get("archive_state").is_none() && body.get("lease_owner").is_none());
}

#[tokio::test]
async fn gated_content_is_private_and_public_content_is_for_shared_caches() {
    let service = service().await;
    let (mut gated, mut public) = (0, 0);
    for index in 0..20 {
        let answer = service
            .get(&format!("/v1/content/{}", content(index)))
            .await;
        let caching = answer.header("cache-control");
        if answer.json()["visibility"] == "gated" {
            gated += 1;
            assert_eq!(caching, "private, no-store");
        } else {
            public += 1;
            assert!(
                caching.starts_with("public, max-age=60, s-maxage=3600"),
                "{caching}"
            );
        }
        assert_eq!(answer.header("vary"), "Accept-Encoding, Accept");
    }
    assert!(gated > 0 && public > 0);
}

#[tokio::test]
async fn fields_are_selected_and_unknown_or_internal_ones_refused() {
    let service = service().await;
    let path = format!("/v1/content/{}", content(0));
    let answer = service.get(&format!("{path}?fields=title,id")).await;
    assert_eq!(answer.json().as_object().unwrap().len(), 2);
    for fields in ["lease_owner", "archive_state", "", "id,", "titel"] {
        let answer = service.get(&format!("{path}?fields={fields}")).await;
        assert_eq!(
            answer.problem(),
            (400, "unknown-field".to_owned()),
            "{fields}"
        );
    }
}

#[tokio::test]
async fn expand_joins_the_nfts_in_one_statement() {
    let service = service().await;
    let path = format!("/v1/content/{}?expand=nfts", content(4));
    let answer = service.get(&path).await;
    let nfts = answer.json()["nfts"].as_array().unwrap().clone();
    assert_eq!(nfts.len(), 1);
    assert_eq!(nfts[0]["content_id"], content(4));
    assert_eq!(nfts[0]["contract_address"], ids::contract_address(SEED, 4));
    let statements = service.metric(
        "db_client_operation_duration_seconds_count",
        &[
            "db_collection_name=\"content\"",
            "db_query_summary=\"SELECT content with nfts by id\"",
        ],
    );
    assert!((statements.await - 1.0).abs() < f64::EPSILON);
    assert_eq!(service.get(&format!("{path}s")).await.problem().0, 400);
}

#[tokio::test]
async fn ids_are_parsed_before_anything_is_looked_up() {
    let service = service().await;
    for id in [
        "x",
        "..%2f..%2fetc%2fpasswd",
        "%00",
        "019cdc7a-79a0-74ed-9a09-5a23fa76a00",
    ] {
        let answer = service.get(&format!("/v1/content/{id}")).await;
        assert!(matches!(answer.problem().0, 400 | 404), "{id}");
    }
    let unknown = service
        .get("/v1/content/00000000-0000-7000-8000-000000000000")
        .await;
    assert_eq!(unknown.problem(), (404, "not-found".to_owned()));
    let after_the_last = service
        .get(&format!("/v1/content/{}", content(CONTENTS.into())))
        .await;
    assert_eq!(after_the_last.status, 404);
}

#[tokio::test]
async fn a_user_carries_the_sums_over_his_contents() {
    let service = service().await;
    let body = service.get(&format!("/v1/users/{}", user(5))).await.json();
    assert_eq!(body["wallet_address"], ids::wallet_address(SEED, 5));
    let owned = (0..u64::from(CONTENTS))
        .filter(|index| ids::content_owner(SEED, *index, USERS.into()) == 5)
        .count();
    let counts = body["content_by_status"].as_object().unwrap();
    let counted: u64 = counts.values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(counted, owned as u64);
    assert!(body["content_bytes"].as_u64().unwrap() >= 400 * counted);
    let missing = service.get(&format!("/v1/users/{}", content(0))).await;
    assert_eq!(missing.problem().0, 404);
}

#[tokio::test]
async fn an_unknown_route_and_a_wrong_method_are_problems() {
    let service = service().await;
    for path in ["/", "/v1", "/v1/contents", "/v1/content/a/b", "/metrics"] {
        assert_eq!(
            service.get(path).await.problem(),
            (404, "not-found".to_owned()),
            "{path}"
        );
    }
    let item = format!("/v1/content/{}", content(0));
    for (method, path, allow) in [
        (Method::PUT, "/v1/content", "GET, HEAD, POST"),
        (Method::POST, item.as_str(), "GET, HEAD, PATCH, DELETE"),
        (Method::GET, "/v1/content:batch", "POST"),
        (Method::POST, "/v1/nft", "GET, HEAD"),
        (Method::DELETE, "/v1/transactions", "GET, HEAD"),
        (Method::OPTIONS, "/v1/users/x", "GET, HEAD"),
    ] {
        let answer = service.send(method, path, &[], "").await;
        assert_eq!(
            answer.problem(),
            (405, "method-not-allowed".to_owned()),
            "{path}"
        );
        assert_eq!(answer.header("allow"), allow);
    }
}

#[tokio::test]
async fn a_problem_carries_the_callers_trace_id() {
    let service = service().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let answer = service
        .get_with("/nowhere", &[("traceparent", &parent)])
        .await;
    assert_eq!(answer.json()["trace_id"], trace);
}
