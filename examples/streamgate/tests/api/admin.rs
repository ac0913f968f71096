//! The admin plane.

use std::net::SocketAddr;

use http::{Method, StatusCode};
use streamgate::serve::start;
use streamgate::settings::{Profile, Settings};

use crate::support::{Answer, admin, content, exchange, service_with, settings, user, with_admin};

fn active(answer: &Answer) -> Vec<String> {
    let json = answer.json();
    let faults = json["faults"].as_array().unwrap().iter();
    let on = faults.filter(|fault| fault["active"] == true);
    on.map(|fault| fault["fault"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_change_without_the_token_is_refused() {
    let service = service_with(with_admin()).await;
    let on = Some(r#"{"on":["gzip_off"]}"#);
    for token in ["", "wrong"] {
        let refused = admin(&service, Some(token), on).await;
        assert_eq!(refused.problem(), (401, "unauthorized".to_owned()));
        assert_eq!(refused.header("www-authenticate"), "Bearer");
    }
    assert_eq!(active(&admin(&service, None, None).await), [""; 0]);
    assert_eq!(active(&admin(&service, None, on).await), ["gzip_off"]);
    assert!(
        service
            .metric("streamgate_fault_active", &["gzip_off"])
            .await
            > 0.5
    );
    let changed = "streamgate_fault_changed_timestamp_seconds";
    assert!(service.metric(changed, &["gzip_off"]).await > 1.7e9);
    let off = Some(r#"{"off":["gzip_off"]}"#);
    assert_eq!(active(&admin(&service, None, off).await), [""; 0]);
    assert!(service.metric("streamgate_fault_active", &[]).await < 0.5);
}

#[tokio::test]
async fn faults_of_statements_add_a_statement_for_each_row() {
    let service = service_with(with_admin()).await;
    let on = Some(r#"{"on":["nplus1","single_writes"]}"#);
    assert_eq!(admin(&service, None, on).await.status, StatusCode::OK);

    assert_eq!(service.get("/v1/content?limit=7").await.status, 200);
    let queries = ("db_queries_per_request_sum", "http_route=\"/v1/content\"");
    let queries = service.metric(queries.0, &[queries.1]).await;
    // The page, and its seven rows with the one that tells whether there is another page.
    assert!((queries - 9.0).abs() < 0.5, "{queries}");

    let item = format!(r#"{{"user_id":"{}","title":"t"}}"#, user(0));
    let batch = format!(r#"{{"items":[{item},{item},{item}]}}"#);
    let written = service.post("/v1/content:batch", &batch).await;
    assert_eq!(written.status, StatusCode::CREATED, "{}", written.text());
    let inserts = ["db_query_summary=\"INSERT content batch\""];
    let inserts = service
        .metric("db_client_response_returned_rows_count", &inserts)
        .await;
    assert!((inserts - 3.0).abs() < 0.5, "{inserts}");
}

#[tokio::test]
async fn nplus1_breaks_the_join_of_expand_up_and_answers_the_same() {
    let service = service_with(with_admin()).await;
    let path = format!("/v1/content/{}?expand=nfts", content(4));
    let mut answers = Vec::new();
    // The join; then the content, the ids of its NFTs, and its one NFT.
    for (on, wanted) in [(r#"{"on":["l1_off"]}"#, 1.0), (r#"{"on":["nplus1"]}"#, 3.0)] {
        assert_eq!(admin(&service, None, Some(on)).await.status, StatusCode::OK);
        let labels = ["http_route=\"/v1/content/{id}\""];
        let statements = || service.metric("db_queries_per_request_sum", &labels);
        let before = statements().await;
        answers.push(service.get(&path).await.json());
        let ran = statements().await - before;
        assert!((ran - wanted).abs() < 0.5, "{on}: {ran}");
    }
    assert_eq!(answers[0]["nfts"].as_array().unwrap().len(), 1);
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test]
async fn production_refuses_faults() {
    let service = service_with(Settings {
        profile: Profile::Production,
        ..with_admin()
    })
    .await;
    let refused = admin(&service, None, Some(r#"{"on":["gzip_off"]}"#)).await;
    assert_eq!(refused.problem(), (403, "forbidden".to_owned()));
    assert!(refused.text().contains("--profile"), "{}", refused.text());
    assert_eq!(active(&admin(&service, None, None).await), [""; 0]);
}

#[tokio::test]
async fn one_bad_value_changes_nothing_and_is_named_with_its_range() {
    let service = service_with(with_admin()).await;
    for (body, wanted) in [
        (
            r#"{"on":["gzip_off","pool_max=0"]}"#,
            "pool_max must be 1..=100 (got \\\"0\\\")",
        ),
        (
            r#"{"on":["gzip_off","no_such"]}"#,
            "fault must be one of nplus1",
        ),
        (
            r#"{"on":["gzip_off"],"seconds":601}"#,
            "seconds must be 1..=600 (got \\\"601\\\")",
        ),
        (
            r#"{"on":["gzip_off"],"seconds":0}"#,
            "seconds must be 1..=600",
        ),
        (
            r#"{"on":["gzip_off"],"off":["no_such"]}"#,
            "fault must be one of",
        ),
        (r#"{"on":["gzip_off"],"forever":true}"#, "forever"),
        ("[", "bad-parameter"),
    ] {
        let refused = admin(&service, None, Some(body)).await;
        assert_eq!(refused.problem(), (400, "bad-parameter".to_owned()));
        assert!(
            refused.text().contains(wanted),
            "{body}: {}",
            refused.text()
        );
        assert_eq!(
            active(&admin(&service, None, None).await),
            [""; 0],
            "{body}"
        );
    }
}

#[tokio::test]
async fn the_admin_plane_answers_no_route_of_the_service_and_the_service_none_of_its() {
    let service = service_with(with_admin()).await;
    let (address, _) = service.running.admin.clone().unwrap();
    let ask = async |path| {
        let headers = [("host", "localhost")];
        exchange(address, Method::GET, path, &headers, Default::default()).await
    };
    assert_eq!(ask("/readyz").await.status, StatusCode::OK);
    assert_eq!(ask("/v1/content").await.problem().0, 404);
    assert_eq!(service.get("/admin/faults").await.problem().0, 404);
}

#[tokio::test]
async fn an_address_that_others_reach_is_refused() {
    let refused = start(Settings {
        admin: Some(SocketAddr::from(([0, 0, 0, 0], 0))),
        ..settings()
    })
    .await;
    let text = refused.unwrap_err().to_string();
    assert!(
        text.contains("--admin") && text.contains("0.0.0.0"),
        "{text}"
    );
}
