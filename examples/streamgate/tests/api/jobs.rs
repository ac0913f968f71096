//! Work that a request does not wait for.

use std::time::{Duration, Instant};

use http::StatusCode;
use streamgate::settings::Settings;

use crate::support::{content, eventually, service, service_with, settings};

/// Jobs posted at once: more than the workers and a queue of one take.
fn burst() -> usize {
    4 * std::thread::available_parallelism().unwrap().get() + 8
}

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
async fn a_job_beyond_the_queue_is_503_and_a_later_one_is_taken() {
    let service = service_with(Settings {
        job_queue: 1,
        ..settings()
    })
    .await;
    // A machine whose workers are faster than its clients refuses nobody, so it may take a few bursts.
    let deadline = Instant::now() + Duration::from_secs(60);
    let answers = loop {
        let long = transcode(1_200);
        let burst = (0..burst()).map(|_| service.post("/v1/jobs/transcode", &long));
        let answers = futures_util::future::join_all(burst).await;
        if answers
            .iter()
            .any(|answer| answer.status != StatusCode::ACCEPTED)
        {
            break answers;
        }
        assert!(Instant::now() < deadline, "no job was refused");
    };
    let (taken, refused): (Vec<_>, Vec<_>) = answers
        .iter()
        .partition(|answer| answer.status == StatusCode::ACCEPTED);
    for answer in &refused {
        assert_eq!(answer.problem(), (503, "queue-full".to_owned()));
        assert_eq!(answer.header("retry-after"), "1");
    }
    let counted = ["pool=\"jobs\"", "reason=\"queue_full\""];
    let counted = service.metric("worker_pool_rejected_total", &counted).await;
    assert_eq!(counted.to_string(), refused.len().to_string());
    for answer in taken {
        let job = answer.header("location").to_owned();
        eventually("what was taken ends", || async {
            service.get(&job).await.json()["state"] == "done"
        })
        .await;
    }
    let later = service.post("/v1/jobs/transcode", &transcode(1)).await;
    assert_eq!(later.status, StatusCode::ACCEPTED);
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
