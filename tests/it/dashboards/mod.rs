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

use crate::alerts::{TargetFile, is_as_made, read, target_file};
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
    let file = target_file();
    for board in boards(&file) {
        let path = format!("dashboards/{}.json", board.uid());
        is_as_made(&path, &format!("{:#}\n", board.json(&file)));
    }
}

#[test]
fn the_readme_names_every_dashboard_and_no_other() {
    let text = read("dashboards/README.md");
    let named: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    let file = target_file();
    let made: Vec<String> = boards(&file).iter().map(Board::uid).collect();
    assert_eq!(named, made);
}
