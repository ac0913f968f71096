//! Each example starts, answers as its comment says, and is stopped.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::client::get;

/// An example under way; killed when dropped.
struct Example {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Example {
    fn start(name: &str, arguments: &[&str]) -> Self {
        // Cargo puts examples beside the folder of the test binaries.
        let deps = std::env::current_exe().unwrap();
        let path: PathBuf = deps
            .parent()
            .unwrap()
            .parent()
            .unwrap()
            .join("examples")
            .join(name);
        let mut child = Command::new(&path)
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The authority of the next URL that the example prints.
    fn address(&mut self) -> String {
        let line = self.lines.next().unwrap().unwrap();
        line.trim_start_matches("http://")
            .trim_end_matches('/')
            .to_owned()
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

const ANY: &str = "127.0.0.1:0";

#[test]
fn minimal_serves_metrics_and_a_profile_that_names_its_busy_function() {
    let mut example = Example::start("minimal", &[ANY]);
    let agent = example.address();
    assert!(
        get(&agent, "/metrics")
            .body
            .contains("\nprocess_cpu_seconds_total ")
    );
    let folded = get(&agent, "/debug/pprof/profile?seconds=1&format=folded");
    assert_eq!(folded.status, 200);
    assert!(folded.body.contains("minimal::busy"), "{}", folded.body);
}

#[test]
fn axum_labels_requests_by_matched_path_and_mounts_the_endpoints() {
    let mut example = Example::start("axum", &[ANY, ANY]);
    let (public, agent) = (example.address(), example.address());
    assert_eq!(get(&public, "/hello/you").body, "hello you\n");
    let page = get(&agent, "/metrics").body;
    let count = r#"http_server_request_duration_seconds_count{http_request_method="GET",http_route="/hello/{name}",http_response_status_code="200",url_scheme="http"} 1"#;
    assert!(page.contains(count), "{page}");
    assert!(page.contains(r#"cache_requests_total{cache_name="greetings",cache_level="l1",cache_result="miss",cache_class="public"} 1"#));
    assert!(get(&public, "/targets").body.contains("latency_p95"));
}

#[test]
fn warp_labels_requests_by_the_route_filter() {
    let mut example = Example::start("warp", &[ANY, ANY]);
    let (public, agent) = (example.address(), example.address());
    assert_eq!(get(&public, "/hello/you").body, "hello you\n");
    assert_eq!(get(&public, "/slow").body, "done\n");
    assert_eq!(get(&public, "/no/such/path").status, 404);
    let page = get(&agent, "/metrics").body;
    for (route, status) in [("/hello/{name}", 200), ("/slow", 200), ("<unmatched>", 404)] {
        let count = format!(
            r#"_count{{http_request_method="GET",http_route="{route}",http_response_status_code="{status}",url_scheme="http"}} 1"#
        );
        assert!(page.contains(&count), "{route}: {page}");
    }
}
