//! A dashboard around its panels: rows, variables, links, annotations.

use serde_json::{Value, json};

use super::panel::{Panel, SELECTED, prometheus};
use crate::alerts::TargetFile;

/// The last version of Grafana's classic format; later ones are of another kind and migrated to.
const SCHEMA_VERSION: u32 = 42;

/// Columns of Grafana's grid.
const COLUMNS: u32 = 24;

#[derive(Debug)]
pub(super) struct Board {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) about: &'static str,
    pub(super) rows: Vec<Row>,
    /// Whether it asks a source of profiles.
    pub(super) profiles: bool,
}

/// Panels under a heading. All but the first are closed at first, which costs no query.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) title: &'static str,
    pub(super) panels: Vec<Panel>,
}

pub(super) fn row(title: &'static str, panels: Vec<Panel>) -> Row {
    Row { title, panels }
}

impl Board {
    pub(super) fn uid(&self) -> String {
        format!("streamgate-{}", self.name)
    }

    pub(super) fn panels(&self) -> impl Iterator<Item = &Panel> {
        self.rows.iter().flat_map(|row| &row.panels)
    }

    pub(super) fn json(&self, file: &TargetFile) -> Value {
        json!({
            "uid": self.uid(),
            "title": format!("StreamGate / {}", self.title),
            "description": self.about,
            "tags": ["streamgate"],
            "schemaVersion": SCHEMA_VERSION,
            "version": 1,
            "editable": false,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": { "from": "now-1h", "to": "now" },
            "timezone": "browser",
            "links": [{
                "type": "dashboards",
                "tags": ["streamgate"],
                "title": "StreamGate",
                "icon": "",
                "tooltip": "",
                "asDropdown": true,
                "targetBlank": false,
                "includeVars": true,
                "keepTime": true,
            }],
            "templating": { "list": self.variables(file) },
            "annotations": { "list": annotations() },
            "panels": self.laid_out(&file.runbooks),
        })
    }

    fn laid_out(&self, runbooks: &str) -> Vec<Value> {
        let mut out = Vec::new();
        let (mut id, mut y) = (0, 0);
        for (place, row) in self.rows.iter().enumerate() {
            id += 1;
            let row_id = id;
            let row_y = y;
            y += 1;
            let (mut x, mut tallest) = (0, 0);
            let mut panels = Vec::new();
            for panel in &row.panels {
                if x + panel.width > COLUMNS {
                    (x, y, tallest) = (0, y + tallest, 0);
                }
                id += 1;
                panels.push(panel.json(id, (x, y), runbooks));
                x += panel.width;
                tallest = tallest.max(panel.height());
            }
            y += tallest;
            let open = place == 0;
            let inside = if open {
                Vec::new()
            } else {
                std::mem::take(&mut panels)
            };
            out.push(json!({
                "id": row_id,
                "type": "row",
                "title": row.title,
                "collapsed": !open,
                "gridPos": { "h": 1, "w": COLUMNS, "x": 0, "y": row_y },
                "panels": inside,
            }));
            out.extend(panels);
        }
        out
    }

    fn variables(&self, file: &TargetFile) -> Vec<Value> {
        let labels = |name: &str, label: &str, query: &str, current: Value| {
            json!({
                "name": name,
                "label": label,
                "type": "query",
                "datasource": prometheus(),
                "query": query,
                "refresh": 2,
                "sort": 1,
                "multi": true,
                "includeAll": true,
                "allValue": ".+",
                "current": current,
            })
        };
        let source = |name: &str, label: &str, query: &str| {
            json!({
                "name": name,
                "label": label,
                "type": "datasource",
                "query": query,
                "refresh": 1,
            })
        };
        let job = &file.job;
        let all = json!({ "text": ["All"], "value": ["$__all"] });
        let mut list = vec![
            source("datasource", "Data source", "prometheus"),
            labels(
                "job",
                "Job",
                "label_values(agent_build_info, job)",
                json!({ "text": [job], "value": [job] }),
            ),
            labels(
                "instance",
                "Instance",
                "label_values(agent_build_info{job=~\"$job\"}, instance)",
                all,
            ),
            json!({
                "name": "agent_url",
                "label": "Agent",
                "type": "textbox",
                "query": "http://127.0.0.1:6060",
                "current": { "text": "http://127.0.0.1:6060", "value": "http://127.0.0.1:6060" },
            }),
        ];
        if self.profiles {
            list.push(source(
                "profiles",
                "Profiles",
                "grafana-pyroscope-datasource",
            ));
        }
        list
    }
}

/// What happened meanwhile: restarts, faults that were switched on, and what fires for dashboards only.
fn annotations() -> Vec<Value> {
    let note = |name: &str, colour: &str, expr: String, text: &str| {
        json!({
            "name": name,
            "enable": true,
            "datasource": prometheus(),
            "iconColor": colour,
            "target": { "refId": "Anno", "expr": expr },
            // Where older ones look for it.
            "expr": expr,
            "titleFormat": name,
            "textFormat": text,
            "step": "60s",
        })
    };
    vec![
        note(
            "Restarts",
            "purple",
            format!("changes(process_start_time_seconds{{{SELECTED}}}[2m]) > 0"),
            "{{instance}} has started again",
        ),
        note(
            "Faults",
            "orange",
            format!("streamgate_fault_active{{{SELECTED}}} > 0"),
            "{{fault}} is switched on at {{instance}}",
        ),
        note(
            "Info alerts",
            "blue",
            "ALERTS{alertstate=\"firing\",severity=\"info\",job=~\"$job\"}".to_owned(),
            "{{alertname}}",
        ),
    ]
}
