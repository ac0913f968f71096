//! Grafana's dashboards: made from `targets.toml`, committed under `dashboards/`, compared here.
//!
//! `STREAMGATE_WRITE=1 cargo test --test it dashboards` writes the files anew.

mod agent;
mod api;
mod board;
mod cache;
mod database;
mod overview;
mod panel;
mod profiles;
mod rules;
mod runtime;
mod slo;

use crate::alerts::{TargetFile, root, target_file};
use board::Board;

fn boards(file: &TargetFile) -> Vec<Board> {
    vec![
        overview::board(file),
        api::board(file),
        cache::board(file),
        database::board(file),
        runtime::board(file),
        slo::board(file),
        profiles::board(file),
        agent::board(file),
    ]
}

#[test]
fn dashboards_are_as_generated() {
    let write = std::env::var_os("STREAMGATE_WRITE").is_some();
    let file = target_file();
    for board in boards(&file) {
        let path = root().join(format!("dashboards/{}.json", board.uid()));
        let text = format!("{:#}\n", board.json(&file));
        if write {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == text,
            "{}: not as made from targets.toml; STREAMGATE_WRITE=1 writes it",
            path.display()
        );
    }
}

#[test]
fn the_readme_names_every_dashboard_and_no_other() {
    let text = std::fs::read_to_string(root().join("dashboards/README.md")).unwrap();
    let named: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    let file = target_file();
    let made: Vec<String> = boards(&file).iter().map(Board::uid).collect();
    assert_eq!(named, made);
}
