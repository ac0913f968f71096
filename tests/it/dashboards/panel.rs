//! One panel: what it shows, against which lines, and where it leads.

use serde_json::{Value, json};

use crate::alerts::{Op, Threshold};

/// The data source that panels of metrics ask.
pub(super) fn prometheus() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

/// The chosen instances of the chosen jobs.
pub(super) const SELECTED: &str = "job=~\"$job\",instance=~\"$instance\"";

/// How a panel draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The last value, large.
    Stat,
    Lines,
    /// Buckets of a histogram.
    Heatmap,
    Table,
    /// What Grafana's Pyroscope source answers.
    FlameGraph,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Stat => "stat",
            Self::Lines => "timeseries",
            Self::Heatmap => "heatmap",
            Self::Table => "table",
            Self::FlameGraph => "flamegraph",
        }
    }
}

/// A line at which the colour changes.
#[derive(Debug, Clone, Copy)]
struct Lines {
    op: Op,
    must: f64,
    stretch: Option<f64>,
}

/// What a panel asks.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) expr: String,
    pub(super) legend: String,
}

#[derive(Debug)]
pub(super) struct Panel {
    pub(super) kind: Kind,
    pub(super) title: String,
    /// What it shows, what is good, what to do otherwise.
    pub(super) description: String,
    pub(super) unit: &'static str,
    pub(super) queries: Vec<Query>,
    lines: Option<Lines>,
    /// The dashboard it leads to.
    pub(super) onward: &'static str,
    /// The runbook's section, an alert's name.
    pub(super) runbook: Option<&'static str>,
    /// Flame graphs: the type of profile.
    pub(super) profile: Option<&'static str>,
    pub(super) width: u32,
}

/// A panel with one query.
pub(super) fn panel(kind: Kind, title: impl Into<String>, unit: &'static str) -> Panel {
    Panel {
        kind,
        title: title.into(),
        description: String::new(),
        unit,
        queries: Vec::new(),
        lines: None,
        onward: "overview",
        runbook: None,
        profile: None,
        width: 8,
    }
}

/// A panel of lines.
pub(super) fn lines(title: impl Into<String>, unit: &'static str) -> Panel {
    panel(Kind::Lines, title, unit)
}

/// A target for a title, in the unit that people say it in.
pub(super) fn against(threshold: &Threshold) -> String {
    let (op, must) = (threshold.op.sign(), threshold.must);
    match threshold.unit.as_str() {
        "ratio" => format!("target {op} {} %", must * 100.0),
        "s" => format!("target {op} {} ms", must * 1000.0),
        unit => {
            assert_eq!(unit, "1/s");
            format!("target {op} {must}/s")
        }
    }
}

fn quantile_of(quantile: f64, by: &str, histogram: &str) -> String {
    format!("histogram_quantile({quantile}, sum by ({by}) (rate({histogram}_bucket{{$S}}[$W])))")
}

impl Panel {
    /// What it shows · what is good · what to do if it is not.
    pub(super) fn says(mut self, shows: &str, good: &str, otherwise: &str) -> Self {
        self.description = format!("{shows} · Good: {good} · If not: {otherwise}");
        self
    }

    /// Asks; `$S` stands for the selectors of job and instance, `$J` for that of the job alone.
    pub(super) fn asks(mut self, expr: &str, legend: &str) -> Self {
        let expr = expr
            .replace("$S", SELECTED)
            .replace("$J", "job=~\"$job\"")
            .replace("$W", "$__rate_interval");
        self.queries.push(Query {
            expr,
            legend: legend.to_owned(),
        });
        self
    }

    /// The three quantiles of a histogram; with `by` P95 of the ten highest, as a legend of fifty tells nothing.
    pub(super) fn quantiles(mut self, histogram: &str, by: Option<&str>) -> Self {
        let Some(by) = by else {
            for quantile in [0.5, 0.95, 0.99] {
                let expr = quantile_of(quantile, "le", histogram);
                self = self.asks(&expr, &format!("P{:.0}", quantile * 100.0));
            }
            return self;
        };
        let expr = quantile_of(0.95, &format!("{by}, le"), histogram);
        self.asks(&format!("topk(10, {expr})"), &format!("{{{{{by}}}}}"))
    }

    /// Draws a target's two lines.
    pub(super) fn target(mut self, threshold: &Threshold) -> Self {
        self.lines = Some(Lines {
            op: threshold.op,
            must: threshold.must,
            stretch: Some(threshold.stretch),
        });
        self
    }

    /// Draws one line above which it is bad.
    pub(super) fn limit(mut self, above: f64) -> Self {
        self.lines = Some(Lines {
            op: Op::Below,
            must: above,
            stretch: None,
        });
        self
    }

    pub(super) fn leads(mut self, onward: &'static str) -> Self {
        self.onward = onward;
        self
    }

    pub(super) fn runbook(mut self, alert: &'static str) -> Self {
        self.runbook = Some(alert);
        self
    }

    pub(super) fn profile(mut self, id: &'static str) -> Self {
        self.profile = Some(id);
        self
    }

    pub(super) fn wide(mut self, width: u32) -> Self {
        self.width = width;
        self
    }

    /// Whether its points stand for requests, which exemplars and the profile of their time explain.
    pub(super) fn is_latency(&self) -> bool {
        let timed = ["_seconds_bucket", "_seconds:p95"];
        let asked = |query: &Query| timed.iter().any(|name| query.expr.contains(name));
        matches!(self.kind, Kind::Lines | Kind::Heatmap) && self.queries.iter().any(asked)
    }

    pub(super) fn height(&self) -> u32 {
        match self.kind {
            Kind::Stat => 4,
            Kind::FlameGraph => 14,
            _ => 8,
        }
    }

    pub(super) fn json(&self, id: usize, (x, y): (u32, u32), runbooks: &str) -> Value {
        let mut description = self.description.clone();
        if let Some(alert) = self.runbook {
            let anchor = alert.to_ascii_lowercase();
            description.push_str(&format!(" · [Runbook]({runbooks}#{anchor})"));
        }
        let mut panel = json!({
            "id": id,
            "type": self.kind.name(),
            "title": self.title,
            "description": description,
            "datasource": self.source(),
            "gridPos": { "h": self.height(), "w": self.width, "x": x, "y": y },
            "links": self.links(),
            "targets": self.targets(),
            "fieldConfig": self.field_config(),
            "options": self.options(),
        });
        if self.kind == Kind::Table {
            // One row per series, without the time of the sample.
            panel["transformations"] = json!([{ "id": "organize", "options": {
                "excludeByName": { "Time": true, "__name__": true },
            }}]);
        }
        panel
    }

    fn source(&self) -> Value {
        match self.profile {
            Some(_) => json!({ "type": "grafana-pyroscope-datasource", "uid": "${profiles}" }),
            None => prometheus(),
        }
    }

    fn links(&self) -> Value {
        let place =
            "${__url_time_range}&${datasource:queryparam}&${job:queryparam}&${instance:queryparam}";
        // All that the schema wants of a link, though Grafana fills in what is not there.
        json!([{
            "type": "link",
            "title": format!("More: {}", self.onward),
            "url": format!("/d/streamgate-{}?{place}", self.onward),
            "icon": "",
            "tooltip": "",
            "tags": [],
            "asDropdown": false,
            "targetBlank": false,
            "includeVars": false,
            "keepTime": false,
        }])
    }

    fn targets(&self) -> Value {
        if let Some(id) = self.profile {
            return json!([{
                "refId": "A",
                "datasource": self.source(),
                "queryType": "profile",
                "profileTypeId": id,
                "labelSelector": "{}",
                "groupBy": [],
            }]);
        }
        let names = 'A'..='Z';
        let query = |(name, query): (char, &Query)| {
            let instant = matches!(self.kind, Kind::Stat | Kind::Table);
            let format = match self.kind {
                Kind::Heatmap => "heatmap",
                Kind::Table => "table",
                _ => "time_series",
            };
            json!({
                "refId": name.to_string(),
                "datasource": self.source(),
                "expr": query.expr,
                "legendFormat": query.legend,
                "format": format,
                "instant": instant,
                "range": !instant,
                "exemplar": self.is_latency(),
            })
        };
        names.zip(&self.queries).map(query).collect()
    }

    fn steps(&self) -> Value {
        let Some(Lines { op, must, stretch }) = self.lines else {
            return json!([{ "color": "blue", "value": null }]);
        };
        let step = |color: &str, value: Option<f64>| json!({ "color": color, "value": value });
        let mut steps = Vec::new();
        match op {
            Op::Below => {
                steps.push(step("green", None));
                steps.extend(stretch.map(|stretch| step("yellow", Some(stretch))));
                steps.push(step("red", Some(must)));
            }
            Op::Above => {
                steps.push(step("red", None));
                steps.push(step("yellow", Some(must)));
                steps.extend(stretch.map(|stretch| step("green", Some(stretch))));
            }
        }
        Value::Array(steps)
    }

    fn field_config(&self) -> Value {
        let mut defaults = json!({
            "unit": self.unit,
            // No samples are told apart from a zero.
            "noValue": "no data",
            "thresholds": { "mode": "absolute", "steps": self.steps() },
        });
        if self.kind == Kind::Stat && self.lines.is_none() {
            defaults["color"] = json!({ "mode": "fixed", "fixedColor": "text" });
        }
        if self.kind == Kind::Lines {
            let style = if self.lines.is_some() {
                "dashed"
            } else {
                "off"
            };
            defaults["custom"] = json!({
                "drawStyle": "line",
                "lineWidth": 1,
                "fillOpacity": 8,
                "showPoints": "never",
                "spanNulls": false,
                "thresholdsStyle": { "mode": style },
            });
        }
        if self.is_latency() {
            let profile = "debug/pprof/profile?format=svg&from=${__from}&to=${__to}";
            defaults["links"] = json!([
                {
                    "title": "CPU profile of this time, of this instance",
                    "url": format!("http://${{__field.labels.instance}}/{profile}"),
                    "targetBlank": true,
                },
                {
                    "title": "CPU profile of this time, by agent_url",
                    "url": format!("${{agent_url}}/{profile}"),
                    "targetBlank": true,
                },
                { "title": "Profiles", "url": "/d/streamgate-profiles?${__url_time_range}" },
            ]);
        }
        json!({ "defaults": defaults, "overrides": [] })
    }

    fn options(&self) -> Value {
        match self.kind {
            Kind::Stat => json!({
                "reduceOptions": { "calcs": ["lastNotNull"], "fields": "", "values": false },
                "textMode": "value_and_name",
                "colorMode": "value",
                "graphMode": "none",
            }),
            Kind::Lines => json!({
                "legend": {
                    "showLegend": true,
                    "displayMode": "table",
                    "placement": "bottom",
                    "calcs": ["mean", "max", "lastNotNull"],
                },
                "tooltip": { "mode": "multi", "sort": "desc" },
            }),
            Kind::Heatmap => json!({
                "calculate": false,
                "yAxis": { "unit": self.unit },
                "color": { "mode": "scheme", "exponent": 0.5, "fill": "orange", "reverse": false, "scheme": "Viridis", "steps": 64 },
                "exemplars": { "color": "orange" },
            }),
            Kind::Table => json!({ "showHeader": true, "cellHeight": "sm" }),
            Kind::FlameGraph => json!({}),
        }
    }
}
