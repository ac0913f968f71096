//! Lists: pages, cursors, filters.

use std::collections::HashSet;

use http::Method;
use streamgate::seed::ids;

use crate::support::{
    CONTENTS, SEED, Service, USERS, content, service, service_with, settings, user,
};

/// Walks a list to its end; the ids in the order seen.
async fn walk(service: &Service, path: &str) -> Vec<String> {
    let mut ids = Vec::new();
    let mut cursor = String::new();
    loop {
        let answer = service.get(&format!("{path}{cursor}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let page = answer.json();
        let items = page["items"].as_array().unwrap();
        ids.extend(
            items
                .iter()
                .map(|item| item["id"].as_str().unwrap().to_owned()),
        );
        match page["next"].as_str() {
            Some(next) => {
                assert!(!items.is_empty());
                cursor = format!("&cursor={next}");
            }
            None => return ids,
        }
    }
}

fn once(ids: &[String]) -> HashSet<&String> {
    let set: HashSet<_> = ids.iter().collect();
    assert_eq!(set.len(), ids.len(), "a row was seen twice");
    set
}

#[tokio::test]
async fn pages_show_every_row_once() {
    let service = service().await;
    let all = walk(&service, "/v1/content?limit=7").await;
    assert_eq!(once(&all).len(), CONTENTS as usize);
    assert!(all.is_sorted_by(|a, b| a > b), "newest first");

    let of_user = walk(
        &service,
        &format!("/v1/content?limit=3&user_id={}", user(2)),
    )
    .await;
    let owned: HashSet<String> = (0..u64::from(CONTENTS))
        .filter(|index| ids::content_owner(SEED, *index, USERS.into()) == 2)
        .map(content)
        .collect();
    assert_eq!(once(&of_user), owned.iter().collect());

    let mut by_status = 0;
    for status in ["draft", "processing", "ready", "failed"] {
        by_status +=
            once(&walk(&service, &format!("/v1/content?limit=9&status={status}")).await).len();
    }
    assert_eq!(by_status, CONTENTS as usize);
    let both = format!("/v1/content?limit=2&status=ready&user_id={}", user(2));
    let both = walk(&service, &both).await;
    assert!(!both.is_empty() && once(&both).is_subset(&owned.iter().collect()));
}

#[tokio::test]
async fn pages_survive_rows_that_come_and_go() {
    let service = service().await;
    let first = service.get("/v1/content?limit=5").await.json();
    let (items, next) = (
        first["items"].as_array().unwrap(),
        first["next"].as_str().unwrap(),
    );
    let last = items.last().unwrap()["id"].as_str().unwrap();
    // The row that the cursor names goes, and a newer one comes.
    let deleted = service
        .send(
            Method::DELETE,
            &format!("/v1/content/{last}"),
            &[("if-match", "*")],
            "",
        )
        .await;
    assert_eq!(deleted.status, 204);
    let body = format!(r#"{{"user_id":"{}","title":"new"}}"#, user(0));
    assert_eq!(service.post("/v1/content", &body).await.status, 201);
    let second = service
        .get(&format!("/v1/content?limit=5&cursor={next}"))
        .await
        .json();
    let expected: Vec<String> = (0..5)
        .map(|n| content(u64::from(CONTENTS) - 6 - n))
        .collect();
    let shown: Vec<&str> = second["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["id"].as_str().unwrap())
        .collect();
    assert_eq!(shown, expected);
}

#[tokio::test]
async fn a_cursor_of_another_list_or_with_one_letter_changed_is_refused() {
    let service = service().await;
    let mine = format!("/v1/content?limit=2&user_id={}", user(1));
    let next = service.get(&mine).await.json()["next"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        service.get(&format!("{mine}&cursor={next}")).await.status,
        200
    );
    let others = [
        "/v1/content?limit=2".to_owned(),
        format!("/v1/content?limit=2&user_id={}", user(2)),
        format!("{mine}&status=ready"),
        format!("/v1/transactions?user_id={}", user(1)),
    ];
    for other in others {
        let answer = service.get(&format!("{other}&cursor={next}")).await;
        assert_eq!(answer.problem(), (400, "bad-cursor".to_owned()), "{other}");
    }
    for at in [0, 10, next.len() / 2, next.len() - 1] {
        let mut changed = next.clone();
        let letter = if changed.as_bytes()[at] == b'A' {
            "B"
        } else {
            "A"
        };
        changed.replace_range(at..=at, letter);
        let answer = service.get(&format!("{mine}&cursor={changed}")).await;
        assert_eq!(answer.problem(), (400, "bad-cursor".to_owned()), "{at}");
    }
    assert_eq!(
        service.get(&format!("{mine}&cursor=")).await.problem().0,
        400
    );
}

#[tokio::test]
async fn a_cursor_outlives_a_restart_with_the_same_key() {
    let key = |byte| [byte; 32];
    let first = service_with(streamgate::settings::Settings {
        cursor_keys: vec![key(1)],
        ..settings()
    });
    let next = first.await.get("/v1/content").await.json()["next"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/v1/content?cursor={next}");
    let rotated = streamgate::settings::Settings {
        cursor_keys: vec![key(2), key(1)],
        ..settings()
    };
    assert_eq!(service_with(rotated).await.get(&path).await.status, 200);
    assert_eq!(service().await.get(&path).await.problem().1, "bad-cursor");
}

#[tokio::test]
async fn a_limit_is_clamped_above_and_refused_below() {
    let service = service().await;
    for (limit, shown) in [
        ("1", 1),
        ("100", 100),
        ("101", 100),
        ("99999999999999999999", 100),
    ] {
        let page = service
            .get(&format!("/v1/content?limit={limit}"))
            .await
            .json();
        assert_eq!(page["items"].as_array().unwrap().len(), shown, "{limit}");
    }
    let page = service.get("/v1/content").await.json();
    assert_eq!(page["items"].as_array().unwrap().len(), 20);
    for limit in ["0", "-1", "ten", "", "1.5"] {
        let answer = service.get(&format!("/v1/content?limit={limit}")).await;
        assert_eq!(
            answer.problem(),
            (400, "bad-parameter".to_owned()),
            "{limit}"
        );
        assert!(
            answer.json()["detail"]
                .as_str()
                .unwrap()
                .contains("limit must be 1..=100 (got")
        );
    }
}

#[tokio::test]
async fn parameters_that_nobody_knows_or_given_twice_are_refused() {
    let service = service().await;
    for query in [
        "userid=1",
        "limit=1&limit=2",
        "user_id=me",
        "status=gone",
        "expand=nfts",
    ] {
        let answer = service.get(&format!("/v1/content?{query}")).await;
        assert_eq!(
            answer.problem(),
            (400, "bad-parameter".to_owned()),
            "{query}"
        );
    }
}

#[tokio::test]
async fn a_list_shows_no_body_and_selects_fields() {
    let service = service().await;
    let page = service.get("/v1/content?limit=1").await.json();
    assert!(page["items"][0].get("body").is_none());
    let page = service
        .get("/v1/content?limit=1&fields=id,version")
        .await
        .json();
    assert_eq!(page["items"][0].as_object().unwrap().len(), 2);
    assert_eq!(
        service.get("/v1/content?fields=body").await.problem().1,
        "unknown-field"
    );
}

#[tokio::test]
async fn nfts_are_listed_by_exactly_one_of_three() {
    let service = service().await;
    let holder = ids::wallet_address(SEED, ids::nft_holder(SEED, 9, USERS.into()));
    let by_owner = walk(&service, &format!("/v1/nft?limit=2&owner={holder}")).await;
    assert!(once(&by_owner).contains(&ids::nft_id(SEED, 9).to_string()));
    let contract = ids::contract_address(SEED, 9)
        .to_uppercase()
        .replace("0X", "0x");
    let by_contract = walk(&service, &format!("/v1/nft?limit=1&contract={contract}")).await;
    assert!(once(&by_contract).contains(&ids::nft_id(SEED, 9).to_string()));
    let by_token = walk(&service, "/v1/nft?token_id=9").await;
    assert_eq!(by_token, [ids::nft_id(SEED, 9).to_string()]);
    for query in ["", "owner=a&contract=b", "owner=", "token_id=%C3%A9"] {
        let answer = service.get(&format!("/v1/nft?{query}")).await;
        assert_eq!(
            answer.problem(),
            (400, "bad-parameter".to_owned()),
            "{query}"
        );
    }
}

#[tokio::test]
async fn transactions_are_listed_by_exactly_one_of_three() {
    let service = service().await;
    let mut by_user = 0;
    for index in 0..u64::from(USERS) {
        by_user += once(
            &walk(
                &service,
                &format!("/v1/transactions?limit=7&user_id={}", user(index)),
            )
            .await,
        )
        .len();
    }
    assert_eq!(by_user, CONTENTS as usize);
    let mut by_status = 0;
    for status in ["pending", "confirmed", "failed"] {
        by_status += once(
            &walk(
                &service,
                &format!("/v1/transactions?limit=50&status={status}"),
            )
            .await,
        )
        .len();
    }
    assert_eq!(by_status, CONTENTS as usize);
    let micros = |index| ids::content_millis(index) * 1_000;
    let window = format!(
        "/v1/transactions?limit=4&from={}&to={}",
        micros(10),
        micros(20)
    );
    let in_window = walk(&service, &window).await;
    let expected: Vec<String> = (10..20)
        .rev()
        .map(|index| ids::transaction_id(SEED, index).to_string())
        .collect();
    assert_eq!(in_window, expected, "the end is excluded");
    for query in [
        "",
        "from=1",
        "from=2&to=1",
        "from=-1&to=2",
        "status=ready",
        "status=failed&to=2",
    ] {
        let answer = service.get(&format!("/v1/transactions?{query}")).await;
        assert_eq!(
            answer.problem(),
            (400, "bad-parameter".to_owned()),
            "{query}"
        );
    }
}
