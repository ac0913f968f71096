//! Work that a request does not wait for.

use http::StatusCode;

use crate::support::{content, eventually, service};

fn transcode(segments: u32) -> String {
    format!(r#"{{"content_id":"{}","segments":{segments}}}"#, content(0))
}

#[tokio::test]
async fn a_job_is_accepted_and_ends() {
    let service = service().await;
    let accepted = service.post("/v1/jobs/transcode", &transcode(20)).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED);
    assert_eq!(accepted.json()["state"], "queued");
    let job = accepted.header("location").to_owned();
    eventually("the job ends", || async {
        service.get(&job).await.json()["state"] == "done"
    })
    .await;
    // Two of the twenty show the same picture.
    assert_eq!(service.get(&job).await.json()["repeated"], 1);
    let ended = ["pool=\"jobs\"", "result=\"ok\""];
    assert!(service.metric("worker_pool_jobs_total", &ended).await > 0.5);
}

#[tokio::test]
async fn a_job_that_nobody_could_run_is_refused() {
    let service = service().await;
    for (body, wanted) in [
        (transcode(0), "segments must be 1..=2400"),
        (transcode(2_401), "segments must be 1..=2400"),
        ("{}".to_owned(), "content_id"),
    ] {
        let refused = service.post("/v1/jobs/transcode", &body).await;
        assert_eq!(refused.problem().0, 400, "{body}");
        assert!(refused.text().contains(wanted), "{}", refused.text());
    }
    let id = uuid::Uuid::nil();
    assert_eq!(
        service.get(&format!("/v1/jobs/{id}")).await.problem().0,
        404
    );
    assert_eq!(service.get("/v1/jobs/x").await.problem().0, 400);
}
