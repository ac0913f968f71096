//! What Prometheus would have scraped: made series, sample by sample.

/// Series over one time, a sample a minute.
#[derive(Debug, Default, Clone)]
pub(crate) struct World {
    /// Names with labels, and values in promtool's notation.
    pub(crate) series: Vec<(String, String)>,
}

/// Requests per second by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Mix {
    /// Served well below the latency target.
    pub(crate) fast: f64,
    /// Served just below it.
    pub(crate) near: f64,
    /// Served just above it.
    pub(crate) slow: f64,
    /// Answered with 500, fast.
    pub(crate) failed: f64,
    /// Turned away with 503, fast.
    pub(crate) refused: f64,
    /// Turned away with 429, fast: the client's own limit.
    pub(crate) limited: f64,
}

impl Mix {
    /// This many a second, all of them fast.
    pub(crate) fn fast(per_second: f64) -> Self {
        Self {
            fast: per_second,
            ..Self::default()
        }
    }

    /// This many a second, of which these shares fail and are slow.
    pub(crate) fn bad(per_second: f64, failed: f64, slow: f64) -> Self {
        Self {
            fast: per_second * (1.0 - failed - slow),
            failed: per_second * failed,
            slow: per_second * slow,
            ..Self::default()
        }
    }
}

/// How long, in minutes, and what: by second for flows, as it is for levels.
pub(crate) type Phase<T> = (u32, T);

pub(crate) const A: &str = "instance=\"a:6060\"";
pub(crate) const B: &str = "instance=\"b:6060\"";

impl World {
    /// One instance that has been up for a day.
    pub(crate) fn one(minutes: u32) -> Self {
        Self::default().instance(A, -1440, minutes)
    }

    /// An instance that started at this minute and is up.
    pub(crate) fn instance(self, instance: &str, started: i32, minutes: u32) -> Self {
        let start = f64::from(started * 60);
        self.level("up", instance, &[(minutes, 1.0)]).level(
            "process_start_time_seconds",
            instance,
            &[(minutes, start)],
        )
    }

    /// A gauge of our job.
    pub(crate) fn level(self, name: &str, labels: &str, phases: &[Phase<f64>]) -> Self {
        let mut values = Vec::new();
        for (minutes, value) in phases {
            values.push(format!("{}+0x{}", number(*value), minutes - 1));
        }
        self.with(ours(name, labels), values.join(" "))
    }

    /// A gauge that begins at the first value and grows by the second each minute.
    pub(crate) fn slope(
        self,
        name: &str,
        labels: &str,
        minutes: u32,
        (from, by): (f64, f64),
    ) -> Self {
        self.with(
            ours(name, labels),
            format!("{}+{}x{minutes}", number(from), number(by)),
        )
    }

    /// A counter of our job that grows by this much per second.
    pub(crate) fn flow(self, name: &str, labels: &str, phases: &[Phase<f64>]) -> Self {
        self.raw_flow(ours(name, labels), phases)
    }

    /// A counter as it is named.
    pub(crate) fn raw_flow(self, series: String, phases: &[Phase<f64>]) -> Self {
        let mut values = vec!["0".to_owned()];
        let mut at = 0.0;
        for (minutes, per_second) in phases {
            let step = per_second * 60.0;
            values.push(format!(
                "{}+{}x{}",
                number(at + step),
                number(step),
                minutes - 1
            ));
            at += step * f64::from(*minutes);
        }
        self.with(series, values.join(" "))
    }

    /// The histogram of requests of instance a.
    pub(crate) fn requests(self, phases: &[Phase<Mix>]) -> Self {
        self.requests_of("job=\"streamgate\"", A, phases)
    }

    /// The histogram of requests of any job and instance.
    pub(crate) fn requests_of(mut self, job: &str, instance: &str, phases: &[Phase<Mix>]) -> Self {
        type Part = fn(Mix) -> f64;
        // By status: what is below 0.1 s, below 0.2 s, and above.
        let statuses: [(&str, [Part; 3]); 4] = [
            ("200", [|mix| mix.fast, |mix| mix.near, |mix| mix.slow]),
            ("500", [|mix| mix.failed, |_| 0.0, |_| 0.0]),
            ("503", [|mix| mix.refused, |_| 0.0, |_| 0.0]),
            ("429", [|mix| mix.limited, |_| 0.0, |_| 0.0]),
        ];
        for (status, parts) in statuses {
            let summed = |upto: usize| -> Vec<Phase<f64>> {
                let sum = |mix: Mix| parts[..upto].iter().map(|part| part(mix)).sum();
                phases
                    .iter()
                    .map(|(minutes, mix)| (*minutes, sum(*mix)))
                    .collect()
            };
            let all = summed(3);
            if status != "200" && all.iter().all(|(_, flow)| *flow == 0.0) {
                continue;
            }
            let labels = format!("{job},{instance},http_response_status_code=\"{status}\"");
            let name = super::names::DURATION;
            self = self.raw_flow(format!("{name}_count{{{labels}}}"), &all);
            for (le, upto) in [
                ("0.1", 1),
                ("0.175", 1),
                ("0.2", 2),
                ("0.225", 3),
                ("+Inf", 3),
            ] {
                let bucket = format!("{name}_bucket{{{labels},le=\"{le}\"}}");
                self = self.raw_flow(bucket, &summed(upto));
            }
        }
        self
    }

    /// Lookups per second of one level and class, by result.
    pub(crate) fn lookups(
        self,
        level: &str,
        class: &str,
        result: &str,
        phases: &[Phase<f64>],
    ) -> Self {
        let labels = format!(
            "{A},cache_name=\"content\",cache_level=\"{level}\",cache_result=\"{result}\",cache_class=\"{class}\""
        );
        self.flow("cache_requests_total", &labels, phases)
    }

    /// Loads per second from behind all levels.
    pub(crate) fn loads(self, class: &str, phases: &[Phase<f64>]) -> Self {
        let labels = format!("{A},cache_name=\"content\",cache_class=\"{class}\"");
        self.flow("cache_loads_total", &labels, phases)
    }

    /// A histogram of which all lies between two bounds.
    pub(crate) fn between(
        self,
        name: &str,
        labels: &str,
        [below, upto]: [&str; 2],
        minutes: u32,
    ) -> Self {
        let bucket = |le: &str| format!("{labels},le=\"{le}\"");
        let name = format!("{name}_bucket");
        self.flow(&name, &bucket(below), &[(minutes, 0.0)])
            .flow(&name, &bucket(upto), &[(minutes, 10.0)])
            .flow(&name, &bucket("+Inf"), &[(minutes, 10.0)])
    }

    fn with(mut self, series: String, values: String) -> Self {
        self.series.push((series, values));
        self
    }
}

fn ours(name: &str, labels: &str) -> String {
    match labels {
        "" => format!("{name}{{job=\"streamgate\"}}"),
        _ => format!("{name}{{job=\"streamgate\",{labels}}}"),
    }
}

/// Without the dust of binary fractions.
fn number(value: f64) -> String {
    ((value * 1e6).round() / 1e6).to_string()
}
