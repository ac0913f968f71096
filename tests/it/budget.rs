//! What a host pays in crates: the agent's dependency tree against its budget.

use std::collections::BTreeMap;
use std::process::Command;

/// Crate name -> versions of the agent's normal dependencies on x86-64 Linux.
fn tree(features: &[&str]) -> BTreeMap<String, Vec<String>> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "tree",
        "-p",
        "streamgate-agent",
        "--locked",
        "--offline",
        "-e",
        "normal",
        "--target",
        "x86_64-unknown-linux-gnu",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]);
    let output = cargo
        .args(features)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    read_tree(&String::from_utf8(output.stdout).unwrap())
}

fn read_tree(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut crates: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(name), Some(version)) = (words.next(), words.next()) else {
            continue;
        };
        let versions = crates.entry(name.to_owned()).or_default();
        let version = version.trim_start_matches('v').to_owned();
        if name != "streamgate-agent" && !versions.contains(&version) {
            versions.push(version);
        }
    }
    crates.remove("streamgate-agent");
    crates
}

fn count(crates: &BTreeMap<String, Vec<String>>) -> usize {
    crates.values().map(Vec::len).sum()
}

/// Why a crate may not be in the tree, if it may not.
fn banned(name: &str, version: &str) -> Option<&'static str> {
    let below = |limit: [u64; 3]| {
        let mut parts = version
            .split('.')
            .map(|part| part.parse::<u64>().unwrap_or(0));
        let seen = [(); 3].map(|()| parts.next().unwrap_or(0));
        seen < limit
    };
    match name {
        "sqlx" | "redis" | "moka" | "object_store" => Some("belongs to the service"),
        "reqwest" | "tonic" | "openssl" | "openssl-sys" | "native-tls" => {
            Some("brings a stack of its own")
        }
        "inferno" if below([0, 12, 0]) => Some("quick-xml 0.26: RUSTSEC-2026-0194"),
        "quick-xml" if below([0, 41, 0]) => Some("RUSTSEC-2026-0194"),
        "memmap2" if below([0, 9, 11]) => Some("RUSTSEC-2026-0186"),
        "h2" => Some("the agent speaks HTTP/1.1, but for gRPC"),
        _ => None,
    }
}

fn violations(crates: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let all = crates
        .iter()
        .flat_map(|(name, versions)| versions.iter().map(move |v| (name, v)));
    all.filter_map(|(name, version)| {
        banned(name, version).map(|reason| format!("{name} {version}: {reason}"))
    })
    .collect()
}

#[test]
fn each_feature_set_stays_within_its_budget() {
    let core = tree(&["--no-default-features"]);
    let default = tree(&[]);
    let all = tree(&["--all-features"]);
    let pushed = tree(&["--features", "otlp-profiles"]);
    eprintln!(
        "crates: core {}, default {}, all {}",
        count(&core),
        count(&default),
        count(&all)
    );
    assert!(count(&core) <= 30, "core has {} crates", count(&core));
    assert!(
        count(&default) <= 112,
        "default has {} crates",
        count(&default)
    );
    assert!(count(&all) <= 172, "all has {} crates", count(&all));
    assert_eq!(violations(&pushed), [""; 0]);
    let mut broken = violations(&all);
    // What the feature `otlp-grpc` is for.
    broken.retain(|violation| !violation.starts_with("h2 "));
    assert_eq!(broken, [""; 0]);
}

#[test]
fn a_planted_ban_is_caught() {
    let planted =
        read_tree("streamgate-agent v0.1.0 (/x)\nquick-xml v0.26.0\nmoka v0.12.16\nserde v1.0.0\n");
    assert_eq!(count(&planted), 3);
    assert_eq!(violations(&planted).len(), 2);
}
