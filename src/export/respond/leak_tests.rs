//! The page of sites by hand: verdicts, names, forms, and what is answered without an allocator.

use std::time::Instant;

use super::super::respond;
use super::super::tests::{ask, block_on, detail, header, served, silent, text};
use super::*;
use crate::store::heap::Recording;
use crate::store::sites::SiteReading;

const MIB: f64 = (1_u64 << 20) as f64;

/// Twelve minutes in which site 1 grows by 1 MiB a second and site 2 does not.
fn observe(plane: &Plane) {
    let start = Instant::now();
    for second in (0..720).step_by(5) {
        let grown = MIB * f64::from(second + 1);
        let reading = |site, bytes: f64| SiteReading {
            site,
            live_bytes: bytes,
            live_objects: bytes / 4096.0,
            live_samples: 100,
            allocated_bytes: bytes,
            variance: bytes * 524_288.0,
            age_bytes: [bytes / 4.0, 0.0, bytes * 0.75, 0.0],
        };
        let sites = vec![reading(2, 900.0 * MIB), reading(1, grown)];
        let at = start + Duration::from_secs(u64::try_from(second).unwrap());
        lock(&plane.published.leaks).observe(at, sites, Vec::new());
    }
}

fn page_of(plane: &Plane, target: &str) -> serde_json::Value {
    let reply = ask(plane, "GET", target);
    assert_eq!(reply.status(), 200, "{target}: {}", detail(&reply));
    serde_json::from_slice(reply.body()).unwrap()
}

#[test]
fn the_leak_stands_first_by_name_with_its_grounds() {
    let served = served();
    observe(&served.plane);
    let page = page_of(&served.plane, "/debug/heap/leaks");
    assert_eq!(
        (&page["followed"], &page["leaking"]),
        (&2.into(), &1.into())
    );
    let leak = &page["sites"][0];
    assert_eq!(leak["verdict"], "leaking");
    assert_eq!(leak["function"], "shop::keep_1");
    assert_eq!(leak["stack"][1]["function"], "shop::main");
    assert_eq!(leak["stack"][1]["line"], 7);
    assert_eq!(leak["age_ratios"]["below_1_minute"], 0.25);
    assert_eq!(leak["routes"][0]["http_route"], "/a");
    assert_eq!(leak["routes"][0]["ratio"], 0.75);
    assert_eq!(
        leak["flamegraph"],
        "/debug/flamegraph?type=heap&s=shop::keep_1"
    );
    let evidence = leak["evidence"].as_str().unwrap();
    assert!(evidence.contains("+3600 MiB/h"), "{evidence}");
    assert_eq!(page["sites"][1]["verdict"], "plateau");
}

#[test]
fn a_browser_and_debug_get_text_and_scripts_json() {
    let served = served();
    let plane = &served.plane;
    observe(plane);
    let html = "text/html,application/xhtml+xml,*/*;q=0.8";
    let get = |target| Request::new("GET", target).header("Host", "localhost");
    let browser = block_on(respond(
        plane,
        get("/debug/heap/leaks").header("Accept", html),
    ));
    let debug = block_on(respond(plane, get("/debug/heap/leaks?debug=1")));
    assert_eq!(text(&browser), text(&debug));
    assert_eq!(header(&browser, "Content-Type"), Some(TEXT));
    assert_eq!(header(&browser, "Vary"), Some("Accept"));
    let row = text(&debug).lines().nth(3).unwrap();
    assert!(
        row.ends_with("shop::keep_1") && row.contains("leaking"),
        "{row}"
    );
    let json = block_on(respond(
        plane,
        get("/debug/heap/leaks?debug=0").header("Accept", html),
    ));
    assert_eq!(header(&json, "Content-Type"), Some(JSON));
}

#[test]
fn the_limit_cuts_the_list_and_not_the_count() {
    let served = served();
    observe(&served.plane);
    let page = page_of(&served.plane, "/debug/heap/leaks?limit=1");
    assert_eq!(page["sites"].as_array().unwrap().len(), 1);
    assert_eq!(page["followed"], 2);
    let reply = ask(&served.plane, "GET", "/debug/heap/leaks?limit=0");
    let wanted = "limit must be 1..=512 (got \"0\")";
    assert_eq!((reply.status(), &*detail(&reply)), (400, wanted));
}

#[test]
fn nothing_observed_is_an_empty_list_that_says_so() {
    let served = served();
    let page = page_of(&served.plane, "/debug/heap/leaks");
    assert_eq!(page["sites"].as_array().unwrap().len(), 0);
    let page = ask(&served.plane, "GET", "/debug/heap/leaks?debug=1");
    assert!(text(&page).contains("Nothing was sampled yet"));
}

#[test]
fn a_heap_that_is_not_recorded_has_no_verdicts() {
    let plane = silent();
    let recording = &plane.store.heap.recording;
    recording.set(Recording::NotInstalled).unwrap();
    let reply = ask(&plane, "GET", "/debug/heap/leaks");
    assert_eq!(reply.status(), 503);
    assert!(detail(&reply).contains("#[global_allocator]"));
}
