//! How series are named and selected in the rules.

use super::target_file::TargetFile;

/// The series of requests, recorded per job.
pub(crate) const REQUESTS: &str = "job:http_server_requests";
/// Of those, the failed ones.
pub(crate) const ERRORS: &str = "job:http_server_requests_errors";
/// Of those, the ones slower than the target.
pub(crate) const SLOW: &str = "job:http_server_requests_slow";
pub(crate) const SERVED: &str = "job:http_server_requests_served:rate5m";
pub(crate) const SHED: &str = "job:http_server_requests_shed:rate5m";
pub(crate) const DURATION: &str = "http_server_request_duration_seconds";
/// The label by which pools are told apart.
pub(crate) const POOL: &str = "db_client_connection_pool_name";

/// Selectors of one job.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Select<'a> {
    pub(crate) file: &'a TargetFile,
}

impl Select<'_> {
    /// `metric{job="…",matchers}`.
    pub(crate) fn of(self, metric: &str, matchers: &str) -> String {
        let job = &self.file.job;
        match matchers {
            "" => format!("{metric}{{job=\"{job}\"}}"),
            _ => format!("{metric}{{job=\"{job}\",{matchers}}}"),
        }
    }

    /// The rate of a counter, summed by labels.
    pub(crate) fn rate(self, metric: &str, matchers: &str, by: &str, window: &str) -> String {
        let selected = self.of(metric, matchers);
        format!("sum by ({by}) (rate({selected}[{window}]))")
    }

    /// The increase of a counter, summed by labels.
    pub(crate) fn increase(self, metric: &str, matchers: &str, by: &str, window: &str) -> String {
        let selected = self.of(metric, matchers);
        format!("sum by ({by}) (increase({selected}[{window}]))")
    }

    /// A quantile of a histogram over five minutes.
    pub(crate) fn quantile(self, quantile: f64, by: &str, histogram: &str) -> String {
        let rate = self.rate(
            &format!("{histogram}_bucket"),
            "",
            &format!("{by}, le"),
            "5m",
        );
        format!("histogram_quantile({quantile}, {rate})")
    }

    /// The bucket of requests that meet the latency target.
    pub(crate) fn fast(self) -> String {
        let bucket = format!("{DURATION}_bucket");
        let bound = self.file.target.latency_p95.must;
        self.of(&bucket, &format!("le=\"{}\"", le(bound)))
    }

    /// What a limit of `targets.toml` compares with, as `> 5`.
    pub(crate) fn limit(self, name: &str) -> String {
        let limit = &self.file.limit[name];
        match (limit.above, limit.below) {
            (Some(above), _) => format!("> {above}"),
            (_, below) => format!("< {}", below.unwrap()),
        }
    }
}

/// A bound as the page writes it: with a point.
fn le(bound: f64) -> String {
    let shown = bound.to_string();
    if shown.contains('.') {
        shown
    } else {
        format!("{shown}.0")
    }
}
