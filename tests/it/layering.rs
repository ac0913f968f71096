//! The arrows between rooms, read from the sources, and the rules that go with them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A room and the rooms whose names it may use; `agent` may use all.
const EDGES: &[(&str, &[&str])] = &[
    ("catalog", &[]),
    ("error", &[]),
    ("config", &["error", "catalog"]),
    ("store", &["catalog", "config", "error"]),
    ("instrument", &["store", "catalog", "error"]),
    ("collect", &["store", "catalog", "config", "error"]),
    ("assess", &["store", "catalog", "config", "error"]),
    ("export", &["store", "assess", "catalog", "config", "error"]),
];

struct Source {
    /// Path below `src/`, such as `store/demand.rs`.
    path: String,
    code: String,
}

impl Source {
    fn room(&self) -> &str {
        self.path.split(['/', '.']).next().unwrap()
    }

    /// Where connections or files are the point: answers, pushes, and what outlives the process.
    fn reaches_out(&self) -> bool {
        ["export/serve/", "export/push/", "export/delivery/spool.rs"]
            .iter()
            .any(|place| self.path.starts_with(place))
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    let read = |path: PathBuf| {
        let name = path
            .strip_prefix(&root)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        Source {
            path: name,
            code: strip(&fs::read_to_string(&path).unwrap()),
        }
    };
    let sources: Vec<Source> = files.into_iter().map(read).collect();
    assert!(
        sources.len() > 20,
        "the scan found only {} files",
        sources.len()
    );
    sources
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !is_test(&path) {
            walk(&path, files);
        } else if path.extension().is_some_and(|end| end == "rs") && !is_test(&path) {
            files.push(path);
        }
    }
}

/// Test modules in files of their own are named `tests` or `.._tests`.
fn is_test(path: &Path) -> bool {
    let stem = path.file_stem().unwrap().to_str().unwrap();
    stem == "tests" || stem.ends_with("_tests")
}

/// Drops comments and what follows `#[cfg(test)]` on a module: tests stand at the end of a file.
fn strip(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let inline = |next: &&str| next.starts_with("mod ") && next.contains('{');
        if line.trim() == "#[cfg(test)]" && lines.peek().is_some_and(inline) {
            break;
        }
        let comment = line.trim_start().starts_with("//");
        if !comment {
            code.push_str(line.split(" // ").next().unwrap());
        }
        code.push('\n');
    }
    code
}

fn rooms_used(code: &str) -> BTreeSet<String> {
    let word = |text: &str| -> String {
        text.chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect()
    };
    let mut used = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(list) => {
                let list = list.split_once('}').map_or(list, |(inside, _)| inside);
                used.extend(list.split(',').map(|item| word(item.trim())));
            }
            None => {
                used.insert(word(rest));
            }
        }
    }
    used
}

fn wrong_edges(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources {
        let Some((room, allowed)) = EDGES.iter().find(|(room, _)| *room == source.room()) else {
            continue;
        };
        for used in rooms_used(&source.code) {
            let known = EDGES.iter().any(|(name, _)| *name == used) || used == "agent";
            if known && used != *room && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{}: {room} uses {used}", source.path));
            }
        }
    }
    wrong
}

fn lines_with<'a>(
    sources: &'a [Source],
    rooms: &'a [&str],
    words: &'a [&str],
) -> impl Iterator<Item = String> + 'a {
    let chosen = sources
        .iter()
        .filter(|source| rooms.contains(&source.room()));
    chosen.flat_map(move |source| {
        let hit = move |line: &&str| words.iter().any(|word| line.contains(word));
        source
            .code
            .lines()
            .filter(hit)
            .map(move |line| format!("{}: {}", source.path, line.trim()))
    })
}

#[test]
fn rooms_use_only_the_rooms_before_them() {
    assert_eq!(wrong_edges(&sources()), [""; 0]);
}

#[test]
fn a_planted_edge_is_caught() {
    let planted = |path: &str, code: &str| Source {
        path: path.into(),
        code: strip(code),
    };
    let bad = [
        planted("store/x.rs", "use crate::export::text;"),
        planted("export/y.rs", "use crate::{store::Store, collect::cpu};"),
        planted(
            "assess/z.rs",
            "// crate::export\nfn ok() {}\n#[cfg(test)]\nmod tests { use crate::export; }",
        ),
    ];
    assert_eq!(
        wrong_edges(&bad),
        [
            "store/x.rs: store uses export",
            "export/y.rs: export uses collect"
        ]
    );
}

#[test]
fn unsafe_stands_only_in_collect_sys() {
    let sources = sources();
    let rest: Vec<Source> = sources
        .into_iter()
        .filter(|source| !source.path.starts_with("collect/sys/"))
        .collect();
    let rooms: Vec<&str> = rest.iter().map(Source::room).collect();
    let found: Vec<String> = lines_with(&rest, &rooms, &["unsafe "]).collect();
    assert_eq!(found, [""; 0]);
}

#[test]
fn store_assess_and_export_know_no_sockets_files_or_tokio() {
    let sources: Vec<Source> = sources()
        .into_iter()
        .filter(|source| !source.reaches_out())
        .collect();
    let words = [
        "tokio::",
        "std::fs",
        "std::net::Tcp",
        "std::net::Udp",
        "TcpStream",
        "File::open",
        "ureq::",
    ];
    let found: Vec<String> = lines_with(&sources, &["store", "assess", "export"], &words).collect();
    assert_eq!(found, [""; 0]);
}

#[test]
fn only_config_reads_the_environment() {
    let sources = sources();
    let rooms = [
        "store",
        "assess",
        "export",
        "collect",
        "instrument",
        "agent",
        "catalog",
        "error",
    ];
    let found: Vec<String> = lines_with(&sources, &rooms, &["env::var", "env::vars"]).collect();
    assert_eq!(found, [""; 0]);
}

#[test]
fn the_door_defines_nothing_and_opens_what_the_list_says() {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let code: Vec<&str> = lib
        .lines()
        .filter(|line| !line.trim_start().starts_with("//") && !line.trim().is_empty())
        .collect();
    let joined = code.join(" ");
    let items: Vec<String> = joined
        .split_inclusive(';')
        .map(|item| item.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|item| !item.is_empty())
        .collect();
    for item in &items {
        let plain = item.split(']').next_back().unwrap().trim();
        let bench = plain == "pub mod bench_door;";
        let door = plain.starts_with("mod ") || plain.starts_with("pub use ");
        assert!(door || bench, "lib.rs defines: {item}");
    }
    let doors: Vec<String> = items
        .into_iter()
        .filter(|item| item.contains("pub use "))
        .collect();
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/doors.txt");
    if std::env::var_os("BLESS").is_some() {
        fs::write(&list, doors.join("\n") + "\n").unwrap();
    }
    let listed = fs::read_to_string(&list).unwrap();
    assert_eq!(
        doors,
        listed.lines().collect::<Vec<_>>(),
        "run with BLESS=1 if this is wanted"
    );
}

/// Puts each attribute on one line.
fn joined(code: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut depth = 0;
    for line in code.lines() {
        let line = line.trim();
        match lines.last_mut() {
            Some(open) if depth > 0 => open.push_str(line),
            _ => lines.push(line.to_owned()),
        }
        let inside = depth > 0 || line.starts_with("#[") || line.starts_with("#![");
        if inside {
            depth += line.matches('[').count();
            depth = depth.saturating_sub(line.matches(']').count());
        }
    }
    lines
}

/// Attributes with `feature =` that stand on anything but a `mod` or `pub use`.
fn misplaced_cfgs(code: &str) -> (usize, Vec<String>) {
    let lines = joined(code);
    let mut count = 0;
    let mut misplaced = Vec::new();
    for (place, line) in lines.iter().enumerate() {
        // The crate's own attribute says which lints hold where.
        if !(line.starts_with("#[cfg") && line.contains("feature =")) {
            continue;
        }
        count += 1;
        let item = lines[place..].iter().find(|next| !next.starts_with("#["));
        let item = item.map_or("", String::as_str);
        let fits = ["mod ", "pub(crate) mod ", "pub use ", "pub(crate) use "];
        if !line.contains("expect(") && !fits.iter().any(|start| item.starts_with(start)) {
            misplaced.push(item.to_owned());
        }
    }
    (count, misplaced)
}

#[test]
fn features_switch_modules_and_doors_only() {
    let mut total = 0;
    // Joining the rooms is where a part's absence has to show.
    for source in sources().iter().filter(|source| source.room() != "agent") {
        let (count, misplaced) = misplaced_cfgs(&source.code);
        total += count;
        assert_eq!(misplaced, [""; 0], "{}", source.path);
    }
    assert!(total <= 81, "{total} lines with cfg(feature)");
    assert_eq!(
        misplaced_cfgs("#[cfg(feature = \"x\")]\nfn f() {}\n").1,
        ["fn f() {}"]
    );
}

/// The names of the agent's threads, and the file that each stands in.
fn thread_names(sources: &[Source]) -> Vec<(&str, String)> {
    let mut names = Vec::new();
    for Source { path, code } in sources {
        for rest in code.split("\"sg-").skip(1) {
            let (name, _) = rest.split_once('"').unwrap();
            names.push((path.as_str(), format!("sg-{name}")));
        }
    }
    names
}

#[test]
fn thread_names_fit_the_kernels_fifteen_bytes() {
    for (path, name) in thread_names(&sources()) {
        assert!(name.len() <= 15, "{path}: {name}");
    }
}

#[test]
fn every_thread_of_the_agents_is_left_out_of_profiles() {
    let sources = sources();
    let names = thread_names(&sources);
    let (left_out, started): (Vec<_>, Vec<_>) = names
        .into_iter()
        .partition(|(path, _)| path.ends_with("sampling/records.rs"));
    let only = |names: Vec<(&str, String)>| -> BTreeSet<String> {
        names.into_iter().map(|(_, name)| name).collect()
    };
    assert_eq!(only(left_out), only(started));
}
