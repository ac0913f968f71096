//! The endpoints: path, plane, help, and what they answer with.

use serde::Serialize;

use super::Signal;

/// Which switch, scope and limits govern an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Plane {
    /// Numbers and health: cheap, asked for all the time.
    Scrape,
    /// Profiles and what they show of the program.
    Profile,
    /// Changes of the running program; off unless the host says otherwise.
    Control,
}

/// One path that the agent answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Endpoint {
    pub(crate) path: &'static str,
    pub(crate) plane: Plane,
    pub(crate) signal: &'static str,
    pub(crate) help: &'static str,
    pub(crate) parameters: &'static str,
    pub(crate) content_type: &'static str,
    /// A command to copy; `{host}` stands for host and port.
    pub(crate) command: &'static str,
    /// What POST is for, beside GET and HEAD; `None`: it is not taken.
    pub(crate) post: Option<Plane>,
}

impl Endpoint {
    /// The methods as the `Allow` header lists them.
    pub(crate) const fn allow(&self) -> &'static str {
        if self.post.is_some() {
            "GET, HEAD, POST"
        } else {
            "GET, HEAD"
        }
    }
}

/// A profile of Go's that this agent does not have: its path stays, with the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Absent {
    pub(crate) path: &'static str,
    pub(crate) reason: &'static str,
}

/// Where Pyroscope's servers answer queries of profiles, each method at a path of its own below.
pub(crate) const QUERIER: &str = "/querier.v1.QuerierService/";

/// One of these methods, asked by POST.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Method {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    /// A request as JSON, for a command to copy.
    pub(crate) request: &'static str,
}

/// A form in which a profile can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Form {
    /// The value of the parameter `format`.
    pub(crate) word: &'static str,
    pub(crate) title: &'static str,
    /// What a person opens it with.
    pub(crate) opens: &'static str,
}

/// Every form of a profile, the one that needs no tool first.
pub(crate) static FORMS: [Form; 5] = [
    Form {
        word: "svg",
        title: "flame graph",
        opens: "Any browser: click to zoom, Ctrl-F to search.",
    },
    Form {
        word: "pprof",
        title: "pprof",
        opens: "go tool pprof FILE; Pyroscope, Parca and Polar Signals take it too.",
    },
    Form {
        word: "speedscope",
        title: "speedscope",
        opens: "speedscope.app: drop the file on the page; it stays in the browser. Time Order is true to a second.",
    },
    Form {
        word: "firefox",
        title: "Firefox profile",
        opens: "profiler.firefox.com: drop the file on the page; it stays in the browser. Tracks are true to a second.",
    },
    Form {
        word: "folded",
        title: "folded stacks",
        opens: "A pager, grep, inferno-flamegraph, flamegraph.pl: one line per stack.",
    },
];

/// Parts that a build may lack; their paths stay and answer 501.
pub(crate) const PROFILING: bool = cfg!(feature = "profiling");
/// See [`PROFILING`].
pub(crate) const FLAMEGRAPH: bool = cfg!(feature = "flamegraph");

/// See [`PROFILING`].
pub(crate) const JEMALLOC: bool = cfg!(feature = "jemalloc");

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Served(&'static Endpoint),
    Absent(&'static Absent),
    Query(&'static Method),
}

/// What stands at a path, `None` for an unknown one.
pub(crate) fn find(path: &str) -> Option<Place> {
    let served = ALL.iter().find(|row| row.path == path).map(Place::Served);
    let absent = || {
        ABSENT
            .iter()
            .find(|row| row.path == path)
            .map(Place::Absent)
    };
    let method = || {
        let name = path.strip_prefix(QUERIER)?;
        METHODS
            .iter()
            .find(|row| row.name == name)
            .map(Place::Query)
    };
    served.or_else(absent).or_else(method)
}

const fn row(
    path: &'static str,
    plane: Plane,
    signal: Signal,
    content_type: &'static str,
    parameters: &'static str,
    help: &'static str,
    command: &'static str,
) -> Endpoint {
    let signal = signal.word();
    Endpoint {
        path,
        plane,
        signal,
        help,
        parameters,
        content_type,
        command,
        post: None,
    }
}

pub(crate) const HTML: &str = "text/html; charset=utf-8";
pub(crate) const JSON: &str = "application/json";
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";
pub(crate) const PPROF: &str = "application/octet-stream";
pub(crate) const SVG: &str = "image/svg+xml";
/// Prometheus text format 0.0.4.
pub(crate) const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Both heap profiles take the same.
const HEAP_PARAMETERS: &str = "seconds=1..=60 (what changes in that time), debug=1, gc=1 (no effect), \
     sample_index=inuse_space|inuse_objects|alloc_space|alloc_objects, \
     format=pprof|folded|svg|speedscope|firefox, labels=route|age, route=/path, diff_route=/path, \
     normalize=0|1, frames=all|own, symbolize=none; kept ones at=peak|limit|0..=3, diff_at=peak|limit|0..=3";

/// Every path, in the order of the index page.
pub(crate) static ALL: &[Endpoint] = &[
    row(
        "/",
        Plane::Scrape,
        Signal::Agent,
        HTML,
        "",
        "This page: what the agent answers.",
        "curl -s http://{host}/",
    ),
    row(
        "/metrics",
        Plane::Scrape,
        Signal::Agent,
        METRICS,
        "",
        "All metrics as Prometheus text 0.0.4 or, by Accept, OpenMetrics 1.0 with exemplars.",
        "curl -s http://{host}/metrics",
    ),
    row(
        "/targets",
        Plane::Scrape,
        Signal::Agent,
        JSON,
        "",
        "The target table: what is measured, against what, with which verdict.",
        "curl -s http://{host}/targets",
    ),
    row(
        "/healthz",
        Plane::Scrape,
        Signal::Agent,
        TEXT,
        "",
        "200 while the agent's threads run.",
        "curl -i http://{host}/healthz",
    ),
    row(
        "/readyz",
        Plane::Scrape,
        Signal::Agent,
        TEXT,
        "",
        "200 while the service wants traffic, else 503.",
        "curl -i http://{host}/readyz",
    ),
    row(
        "/debug/flamegraph",
        Plane::Profile,
        Signal::Cpu,
        SVG,
        "type=cpu|wall|await|heap|allocs, and the parameters of profile, wall, block, heap or allocs",
        "Flame graph of CPU time, wall-clock time, waits of requests or memory.",
        "curl -o flame.svg 'http://{host}/debug/flamegraph?seconds=5'",
    ),
    row(
        "/debug/pprof/",
        Plane::Profile,
        Signal::Cpu,
        HTML,
        "",
        "The profiles that Go's tools find at this path.",
        "curl -s http://{host}/debug/pprof/",
    ),
    row(
        "/debug/pprof/profile",
        Plane::Profile,
        Signal::Cpu,
        PPROF,
        "seconds=1..=60 (30), hz=1..=250 (99), format=pprof|folded|svg|speedscope|firefox, \
         labels=route|thread|span, route=/path, diff_ago=seconds..=900, diff_route=/path, normalize=0|1, \
         frames=all|own (of svg and folded), symbolize=none; of the past ago=seconds..=900, seconds=1..=900 (30), or from and to in Unix ms, \
         1..=900 s apart",
        "CPU profile of the next seconds, or at once of past ones, for go tool pprof.",
        "go tool pprof -top 'http://{host}/debug/pprof/profile?seconds=5'",
    ),
    row(
        "/debug/pprof/heap",
        Plane::Profile,
        Signal::Heap,
        PPROF,
        HEAP_PARAMETERS,
        "Heap profile: where the memory in use was allocated, for go tool pprof.",
        "go tool pprof -top http://{host}/debug/pprof/heap",
    ),
    row(
        "/debug/pprof/allocs",
        Plane::Profile,
        Signal::Heap,
        PPROF,
        HEAP_PARAMETERS,
        "The same profile, showing first what was allocated since the start, freed or not.",
        "go tool pprof -top 'http://{host}/debug/pprof/allocs?seconds=5'",
    ),
    row(
        "/debug/heap/stats",
        Plane::Profile,
        Signal::Heap,
        JSON,
        "",
        "The heap in numbers: in use, allocated, by route, lost, and the peaks that were kept.",
        "curl -s http://{host}/debug/heap/stats",
    ),
    row(
        "/debug/heap/leaks",
        Plane::Profile,
        Signal::Heap,
        JSON,
        "limit=1..=512 (20), debug=1 (text, as browsers get)",
        "Places that hold more and more memory: leaking, growing, plateau or unknown, and why.",
        "curl -s 'http://{host}/debug/heap/leaks?debug=1'",
    ),
    row(
        "/debug/pprof/wall",
        Plane::Profile,
        Signal::Runtime,
        PPROF,
        "seconds=1..=60 (10), hz=1..=99 (19), threads=all|<prefix> (runtime workers), idle=1, \
         format=pprof|folded|svg|speedscope|firefox",
        "Wall-clock profile of the next seconds: where threads are, running or blocked.",
        "go tool pprof -top 'http://{host}/debug/pprof/wall?seconds=5'",
    ),
    row(
        "/debug/pprof/block",
        Plane::Profile,
        Signal::Request,
        PPROF,
        "seconds=1..=60 (all since the start), debug=1, format=pprof|folded|svg|speedscope|firefox",
        "Where requests waited, by route and by what they had open: contentions and delay.",
        "go tool pprof -top http://{host}/debug/pprof/block",
    ),
    row(
        "/debug/pprof/goroutine",
        Plane::Profile,
        Signal::Request,
        PPROF,
        "debug=1 (by stack) or 2 (each request), route=/path, labels=route|span, \
         format=pprof|folded|svg|speedscope|firefox",
        "The requests that are open now: how long, and what they wait for.",
        "curl -s 'http://{host}/debug/pprof/goroutine?debug=2'",
    ),
    row(
        "/debug/pprof/threads",
        Plane::Profile,
        Signal::Runtime,
        PPROF,
        "debug=1 (by stack) or 2 (each thread), format=pprof|folded|svg|speedscope|firefox",
        "All threads of this moment: state, system call, CPU time, stack.",
        "curl -s 'http://{host}/debug/pprof/threads?debug=2'",
    ),
    row(
        "/debug/pprof/threadcreate",
        Plane::Profile,
        Signal::Runtime,
        PPROF,
        "debug=1, format=pprof|folded|svg|speedscope|firefox",
        "How many threads there are of each name.",
        "curl -s 'http://{host}/debug/pprof/threadcreate?debug=1'",
    ),
    row(
        "/debug/pprof/cmdline",
        Plane::Profile,
        Signal::Process,
        TEXT,
        "",
        "The program's name; arguments may hold secrets and are left out.",
        "curl -s http://{host}/debug/pprof/cmdline",
    ),
    Endpoint {
        post: Some(Plane::Profile),
        ..row(
            "/debug/pprof/symbol",
            Plane::Profile,
            Signal::Cpu,
            TEXT,
            "0x1234+0x5678 in the query or the body, at most 4096",
            "Function names of addresses, also of those that no profile has met.",
            "curl -d 0x401000 http://{host}/debug/pprof/symbol",
        )
    },
    Endpoint {
        post: Some(Plane::Control),
        ..row(
            "/debug/heap/tuning",
            Plane::Profile,
            Signal::Heap,
            JSON,
            "by POST on the control plane, as JSON: dirty_decay_ms=-1..=3600000, \
             muzzy_decay_ms=-1..=3600000, background_thread=true|false, purge=true",
            "How long jemalloc keeps free memory before it goes back to the system.",
            "curl -s http://{host}/debug/heap/tuning",
        )
    },
    row(
        "/debug/agent",
        Plane::Scrape,
        Signal::Agent,
        JSON,
        "",
        "The agent itself: flight recorder, limits, losses, recent profile requests.",
        "curl -s http://{host}/debug/agent",
    ),
];

/// Go's profiles without a counterpart here; an empty profile would say that nothing happened.
pub(crate) static ABSENT: &[Absent] = &[
    Absent {
        path: "/debug/pprof/mutex",
        reason: "locks in Rust keep no record of contention",
    },
    Absent {
        path: "/debug/pprof/trace",
        reason: "execution traces are a record of Go's scheduler",
    },
];

/// A selection, but for the profile's type.
const SELECTION: &str = r#"{"profile_typeID":"process_cpu:cpu:nanoseconds:cpu:nanoseconds"}"#;

/// Grafana's methods, as its data source of type Pyroscope asks them.
pub(crate) static METHODS: [Method; 9] = [
    Method {
        name: "ProfileTypes",
        help: "The types of profiles that there are.",
        request: "{}",
    },
    Method {
        name: "LabelNames",
        help: "The labels that samples have.",
        request: "{}",
    },
    Method {
        name: "LabelValues",
        help: "The values of one of them.",
        request: r#"{"name":"http_route"}"#,
    },
    Method {
        name: "Series",
        help: "The sets of values that some labels have together.",
        request: r#"{"label_names":["http_route"]}"#,
    },
    Method {
        name: "SelectMergeStacktraces",
        help: "A flame graph of the samples that a label selector chooses.",
        request: SELECTION,
    },
    Method {
        name: "SelectMergeSpanProfile",
        help: "The same of the requests whose spans are given.",
        request: r#"{"profile_typeID":"process_cpu:cpu:nanoseconds:cpu:nanoseconds","span_selector":["00f067aa0ba902b7"]}"#,
    },
    Method {
        name: "SelectSeries",
        help: "Their values over time, by the labels of group_by, one sum for each step.",
        request: r#"{"profile_typeID":"process_cpu:cpu:nanoseconds:cpu:nanoseconds","group_by":["http_route"],"step":15}"#,
    },
    Method {
        name: "SelectMergeProfile",
        help: "The samples as pprof's message.",
        request: SELECTION,
    },
    Method {
        name: "Diff",
        help: "Two selections, left and right, as one flame graph.",
        request: r#"{"left":{"profile_typeID":"process_cpu:cpu:nanoseconds:cpu:nanoseconds"},"right":{"profile_typeID":"process_cpu:cpu:nanoseconds:cpu:nanoseconds"}}"#,
    },
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_path_stands_once_with_help_and_a_command_that_names_it() {
        let mut seen = HashSet::new();
        for row in ALL {
            assert!(seen.insert(row.path), "{} stands twice", row.path);
            assert!(row.help.ends_with('.'), "{} has no sentence", row.path);
            let named = row.command.contains(&format!("{{host}}{}", row.path));
            assert!(named, "{}: {}", row.path, row.command);
        }
        for row in ABSENT {
            assert!(seen.insert(row.path), "{} stands twice", row.path);
            assert!(!row.reason.contains('\n'), "{}", row.path);
        }
        assert_eq!(find("/debug/pprof/nope"), None);
    }
}
