//! Every endpoint and every refusal, asked without a socket and without a runtime.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use super::*;
use crate::assess::targets::TargetTable;
use crate::catalog::endpoints;
use crate::config;
use crate::store::heap::Recording;
use crate::store::looks::{Seen, ThreadRow};
use crate::store::profile::{Accounting, CPU, Function, Line, Location, Profile, SAMPLES, Sample};
use crate::store::recorder::{HeldSpan, Recorder};
use crate::store::symbols::Symbol;
use crate::store::sync::lock;
use crate::store::tuning::{Decay, DecayNow, Tuning};
use crate::store::{CpuAnswer, CpuSpan, CpuWish, NoProfile, Unavailable};

#[test]
fn threads_are_shown_by_stack_one_by_one_and_by_name() {
    let served = served();
    let page = |target: &str| {
        let reply = ask(&served.plane, "GET", target);
        assert_eq!(header(&reply, "Content-Type"), Some(TEXT));
        text(&reply).to_owned()
    };
    assert_eq!(
        page("/debug/pprof/threads?debug=1"),
        "threads profile: total 2\n2 @ 0x401000\n# worker [sleeping: futex]\n\
         #\t0x401000\tshop::wait\n\n"
    );
    let each = "\"worker\" [sleeping: futex, CPU 1.500 s]:\nshop::wait\n\n";
    assert_eq!(
        page("/debug/pprof/threads?debug=2"),
        format!("thread 7 {each}thread 8 {each}")
    );
    assert_eq!(
        page("/debug/pprof/threadcreate?debug=1"),
        "threadcreate profile: total 2\n2 @\n#\tworker\n\n"
    );
    assert_eq!(
        page("/debug/pprof/threadcreate?format=folded"),
        "worker 2\n"
    );
}

#[test]
fn bad_parameters_of_looks_get_exact_answers_and_start_nothing() {
    let plane = silent();
    let long = "x".repeat(65);
    let rows = [
        ("wall?seconds=61", "seconds must be 1..=60 (got \"61\")"),
        ("wall?hz=100", "hz must be 1..=99 (got \"100\")"),
        ("wall?idle=2", "idle must be 0|1 (got \"2\")"),
        (
            "wall?threads=",
            "threads must be a text of 1..=64 bytes (got \"\")",
        ),
        (
            &*format!("wall?threads={long}"),
            "threads must be a text of 1..=64 bytes (got \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\")",
        ),
        (
            "wall?seconds=1&debug=1",
            "seconds and debug exclude each other",
        ),
        ("threads?debug=3", "debug must be 0|1|2 (got \"3\")"),
        (
            "threads?seconds=1",
            "seconds: this profile shows one moment",
        ),
    ];
    for (target, wanted) in rows {
        let reply = ask(&plane, "GET", &format!("/debug/pprof/{target}"));
        assert_eq!(
            (reply.status(), &*detail(&reply)),
            (400, wanted),
            "{target}"
        );
        assert_eq!(plane.store.looks.waiting(), 0);
    }
}

/// Panics where a test asks for it, in the middle of any handler.
pub(super) fn failpoint(request: &Request) {
    assert!(request.query != "panic", "asked to panic");
}

/// A plane whose wishes are answered at once by a thread of its own.
pub(crate) struct Served {
    pub(crate) plane: Arc<Plane>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// A plane whose wishes nobody answers.
pub(crate) fn silent() -> Arc<Plane> {
    let mut config = Config::new("shop");
    config.profile_raises = *config::PROFILE_RAISES.end();
    silent_with(config)
}

pub(super) fn silent_with(config: Config) -> Arc<Plane> {
    let store = Arc::new(Store::new(config.series));
    Arc::new(Plane::new(store, Arc::new(config), Arc::default()))
}

pub(crate) fn served() -> Served {
    served_by(silent(), |_| Ok(Arc::new(profile("shop::work"))))
}

pub(crate) fn served_by(
    plane: Arc<Plane>,
    engine: impl Fn(CpuWish) -> CpuAnswer + Send + 'static,
) -> Served {
    let stop = Arc::new(AtomicBool::new(false));
    let (profiling, collecting) = (Arc::clone(&plane), Arc::clone(&plane));
    let (stop_profiling, stop_collecting) = (Arc::clone(&stop), Arc::clone(&stop));
    let (looking, stop_looking) = (Arc::clone(&plane), Arc::clone(&stop));
    let (recording, stop_recording) = (Arc::clone(&plane), Arc::clone(&stop));
    plane.store.heap.recording.set(Recording::On).unwrap();
    let threads = vec![
        thread::spawn(move || {
            let wishes = &recording.store.heap.wishes;
            while !stop_recording.load(Ordering::Relaxed) {
                for (id, wish) in wishes.open() {
                    wishes.answer(id, super::heap::tests::answer(wish));
                }
                wishes.wait(Duration::from_millis(5));
            }
        }),
        thread::spawn(move || {
            while !stop_looking.load(Ordering::Relaxed) {
                for (id, _) in looking.store.looks.open() {
                    looking.store.looks.answer(id, Ok(Arc::new(seen())));
                }
                looking.store.looks.wait(Duration::from_millis(5));
            }
        }),
        thread::spawn(move || {
            while !stop_profiling.load(Ordering::Relaxed) {
                for (id, addresses) in profiling.store.names.open() {
                    let names = addresses.iter();
                    let names = names.map(|address| (*address == 7).then(|| "shop::seven".into()));
                    profiling.store.names.answer(id, names.collect());
                }
                for (id, wish) in profiling.store.cpu.open() {
                    profiling.store.cpu.answer(id, engine(wish));
                }
                profiling.store.cpu.wait(Duration::from_millis(5));
            }
        }),
        thread::spawn(move || {
            while !stop_collecting.load(Ordering::Relaxed) {
                for (id, ()) in collecting.store.refresh.open() {
                    collecting.store.refresh.answer(id, ());
                }
                collecting.store.pauses.expire(Instant::now());
                for (id, _) in collecting.store.tuning.open() {
                    collecting.store.tuning.answer(id, Ok(tuning()));
                }
                collecting.store.refresh.wait(Duration::from_millis(5));
            }
        }),
    ];
    Served {
        plane,
        stop,
        threads,
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

pub(crate) fn profile(function: &str) -> Profile {
    Profile {
        start_unix_nanos: 1_700_000_000_000_000_000,
        duration: Duration::from_secs(1),
        period_type: CPU,
        period: 10_101_010,
        sample_types: vec![SAMPLES, CPU],
        default_type: CPU.name,
        samples: vec![Sample {
            stack: [0].into(),
            values: vec![3, 30_303_030],
            labels: Vec::new(),
            times: Vec::new(),
        }],
        slices: Vec::new(),
        locations: vec![Location {
            address: 0x401_000,
            mapping: None,
            lines: vec![Line {
                function: 0,
                line: 7,
            }],
        }],
        functions: vec![Function::named(function)],
        mappings: Vec::new(),
        accounting: Accounting {
            recorded: 3,
            ..Accounting::default()
        },
        comments: Vec::new(),
    }
}

/// Two threads with one stack between them.
fn seen() -> Seen {
    let profile = profile("shop::wait");
    let row = |tid, stack: &[u32]| ThreadRow {
        tid,
        name: "worker".into(),
        state: "sleeping",
        call: Some("futex".into()),
        cpu: Some(Duration::from_millis(1500)),
        stack: stack.into(),
    };
    Seen {
        profile,
        threads: vec![row(7, &[0]), row(8, &[0])],
    }
}

/// Longer than any answer takes on a machine with much else to do.
const ANSWER_WAIT: Duration = Duration::from_secs(120);

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread, without any runtime. One that nobody answers fails, so that it cannot
/// hold up all other tests.
pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    let start = Instant::now();
    while start.elapsed() < ANSWER_WAIT {
        if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return done;
        }
        thread::park_timeout(ANSWER_WAIT);
    }
    panic!("nobody answered within {ANSWER_WAIT:?}");
}

pub(super) fn ask(plane: &Plane, method: &str, target: &str) -> Reply {
    let request = Request::new(method, target).header("host", "localhost:6060");
    block_on(respond(plane, request))
}

pub(super) fn header<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
    let mut lines = reply.headers();
    lines.find(|line| line.0 == name).map(|line| line.1)
}

pub(super) fn text(reply: &Reply) -> &str {
    std::str::from_utf8(reply.body()).unwrap()
}

/// The `detail` of a problem or the text for Go's tool, whichever the path's clients read.
pub(super) fn detail(reply: &Reply) -> String {
    if header(reply, "X-Go-Pprof").is_some() {
        assert_eq!(header(reply, "Content-Type"), Some(TEXT));
        return text(reply).trim_end_matches('\n').to_owned();
    }
    let kind = header(reply, "Content-Type");
    assert_eq!(kind, Some("application/problem+json"), "{reply:?}");
    let problem: serde_json::Value = serde_json::from_slice(reply.body()).unwrap();
    assert_eq!(problem["status"], reply.status());
    problem["detail"].as_str().unwrap().to_owned()
}

fn denied(plane: &Plane, reason: Reason) -> u64 {
    let reply = ask(plane, "GET", "/debug/agent");
    let about: serde_json::Value = serde_json::from_slice(reply.body()).unwrap();
    about["denied"][reason.word()].as_u64().unwrap_or(0)
}

fn tuning() -> Tuning {
    let decay = DecayNow {
        new_arenas: Decay::Never,
        arenas: vec![Decay::After(Duration::from_secs(10))],
    };
    Tuning {
        dirty: decay.clone(),
        muzzy: decay,
        background_thread: false,
        arenas_limit: 8,
        arenas: 1,
    }
}

#[test]
fn every_endpoint_answers_get_with_its_type_and_head_with_the_same_head() {
    let served = served();
    for row in endpoints::ALL {
        if row.path == "/debug/heap/tuning" && !endpoints::JEMALLOC {
            continue;
        }
        let get = ask(&served.plane, "GET", row.path);
        assert_eq!(get.status(), 200, "{}: {get:?}", row.path);
        assert_eq!(header(&get, "Content-Type"), Some(row.content_type));
        assert_eq!(header(&get, "X-Content-Type-Options"), Some("nosniff"));
        assert_eq!(header(&get, "X-Frame-Options"), Some("DENY"));
        assert_eq!(header(&get, "Cache-Control"), Some("no-store"));
        let length = get.body().len().to_string();
        assert_eq!(header(&get, "Content-Length"), Some(&*length));
        let foreign = ["Server", "Access-Control-Allow-Origin", "X-Go-Pprof"];
        assert!(foreign.iter().all(|name| header(&get, name).is_none()));

        let head = ask(&served.plane, "HEAD", row.path);
        assert_eq!(head.status(), 200, "{}", row.path);
        assert!(head.body().is_empty(), "{}", row.path);
        assert_eq!(header(&head, "Content-Type"), Some(row.content_type));
        // What is measured anew may differ in length; a page that says the same may not.
        if matches!(row.path, "/targets" | "/healthz" | "/debug/pprof/") {
            assert_eq!(header(&head, "Content-Length"), Some(&*length));
        }
    }
}

#[test]
fn head_of_a_profile_checks_its_parameters_and_starts_nothing() {
    let plane = silent();
    let head = ask(&plane, "HEAD", "/debug/pprof/profile?seconds=60");
    assert_eq!((head.status(), head.body().len()), (200, 0));
    assert_eq!(header(&head, "Content-Length"), None);
    assert_eq!(plane.store.cpu.waiting(), 0);
    let bad = ask(&plane, "HEAD", "/debug/pprof/profile?seconds=0");
    assert_eq!((bad.status(), bad.body().len()), (400, 0));
}

#[test]
fn a_profile_is_shown_in_each_format_with_the_headers_of_go() {
    let served = served();
    let path = "/debug/pprof/profile?seconds=1&hz=250";
    let pprof = ask(&served.plane, "GET", path);
    assert_eq!(&pprof.body()[..2], b"\x1f\x8b", "gzip in the file");
    assert_eq!(header(&pprof, "Content-Encoding"), None);
    let disposition = header(&pprof, "Content-Disposition");
    assert_eq!(disposition, Some("attachment; filename=\"profile\""));

    for (format, name) in [
        ("speedscope", "profile.speedscope.json"),
        ("firefox", "profile.firefox.json"),
    ] {
        let reply = ask(&served.plane, "GET", &format!("{path}&format={format}"));
        assert_eq!(header(&reply, "Content-Type"), Some("application/json"));
        let disposition = format!("attachment; filename=\"{name}\"");
        assert_eq!(header(&reply, "Content-Disposition"), Some(&*disposition));
        let file: serde_json::Value = serde_json::from_slice(reply.body()).unwrap();
        assert!(file.is_object(), "{format}");
    }

    let folded = ask(&served.plane, "GET", &format!("{path}&format=folded"));
    assert_eq!(text(&folded), "shop::work 30303030\n");
    assert_eq!(header(&folded, "Content-Disposition"), None);

    let about = ask(&served.plane, "GET", "/debug/agent");
    let about: serde_json::Value = serde_json::from_slice(about.body()).unwrap();
    let action = &about["profile_requests"][3];
    assert_eq!(action["format"], "folded");
    assert_eq!(
        (&action["status"], &action["hz"]),
        (&200.into(), &250.into())
    );
    assert_eq!(action["bytes"], folded.body().len());

    let past = ask(&served.plane, "GET", "/debug/pprof/profile?ago=90");
    assert_eq!(past.status(), 200);
    let about = ask(&served.plane, "GET", "/debug/agent");
    let about: serde_json::Value = serde_json::from_slice(about.body()).unwrap();
    let action = &about["profile_requests"][4];
    assert_eq!(
        (&action["seconds"], &action["hz"]),
        (&30.into(), &serde_json::Value::Null)
    );
}

#[cfg(feature = "flamegraph")]
#[test]
fn only_the_scripts_of_the_picture_itself_carry_the_nonce_of_its_policy() {
    let evil = "shop::work</text><script>alert(1)</script>]]>";
    let served = served_by(silent(), |_| Ok(Arc::new(profile(evil))));
    let svg = ask(&served.plane, "GET", "/debug/flamegraph?seconds=1");
    let policy = header(&svg, "Content-Security-Policy").unwrap();
    let (_, rest) = policy.split_once("script-src 'nonce-").unwrap();
    let (nonce, _) = rest.split_once('\'').unwrap();
    assert_eq!(nonce.len(), 32);
    let page = text(&svg);
    let marked = page.matches(&format!("<script nonce=\"{nonce}\"")).count();
    assert_eq!(page.matches("<script").count(), marked);
    assert!(marked > 0);
    assert!(!page.contains(" onload="), "a handler that no nonce covers");
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    assert!(!page.contains("alert(1)</script>"));

    let again = ask(&served.plane, "GET", "/debug/flamegraph?seconds=1");
    assert!(!text(&again).contains(nonce), "a nonce used twice");
}

#[test]
fn bad_parameters_get_exact_answers_and_start_nothing() {
    let plane = silent();
    let seconds = |seen: &str| format!("seconds must be 1..=60 (got \"{seen}\")");
    let hz = |seen: &str| format!("hz must be 1..=250 (got \"{seen}\")");
    let max = u64::MAX.to_string();
    let rows = [
        ("seconds=0", seconds("0")),
        ("seconds=-1", seconds("-1")),
        ("seconds=61", seconds("61")),
        ("seconds=1e9", seconds("1e9")),
        (&*format!("seconds={max}"), seconds(&max)),
        ("seconds=5s", seconds("5s")),
        ("seconds=1&seconds=2", seconds("1,2")),
        ("hz=0", hz("0")),
        ("hz=-5", hz("-5")),
        ("hz=1000", hz("1000")),
        ("hz=1e7", hz("1e7")),
        ("hz=4294967297", hz("4294967297")),
        (
            "format=xml",
            "format must be pprof|folded|svg|speedscope|firefox (got \"xml\")".to_owned(),
        ),
        (
            "route=",
            "route must be a text of 1..=128 bytes (got \"\")".to_owned(),
        ),
        (
            "diff_ago=29",
            "diff_ago must be 30..=900 (got \"29\")".to_owned(),
        ),
        (
            "ago=60&diff_ago=841",
            "diff_ago must be 30..=840 (got \"841\")".to_owned(),
        ),
        (
            "diff_route=/a",
            "diff_route needs the route that it is subtracted from".to_owned(),
        ),
        (
            "route=/b&diff_route=/a&diff_ago=60",
            "diff_ago and diff_route exclude each other".to_owned(),
        ),
        (
            "normalize=1",
            "normalize needs something to subtract: diff_ago, diff_route or diff_at".to_owned(),
        ),
        (
            "frames=own&format=pprof",
            "frames=own needs format=svg or folded".to_owned(),
        ),
        (
            "frames=some&format=svg",
            "frames must be all|own (got \"some\")".to_owned(),
        ),
        (
            "diff_ago=60&format=speedscope",
            "format=speedscope cannot show a difference, which has values below zero; \
             pprof, folded, svg and firefox can"
                .to_owned(),
        ),
        (
            "symbolize=none&format=folded",
            "symbolize=none needs format=pprof, whose readers find names themselves".to_owned(),
        ),
        (
            "symbolize=all",
            "symbolize must be none (got \"all\")".to_owned(),
        ),
        (
            "labels=x",
            "labels must be route|thread|span (got \"x\")".to_owned(),
        ),
        (
            "seconds=1&debug=1",
            "seconds and debug exclude each other".to_owned(),
        ),
    ];
    for path in ["/debug/pprof/profile", "/debug/flamegraph"] {
        for (query, wanted) in &rows {
            // The rate limit is not what is asked about.
            let plane = silent();
            let reply = ask(&plane, "GET", &format!("{path}?{query}"));
            assert_eq!((reply.status(), &detail(&reply)), (400, wanted), "{query}");
            assert_eq!(plane.store.cpu.waiting(), 0);
            assert_eq!(denied(&plane, Reason::Parameter), 1);
        }
    }
    let mut config = Config::new("shop");
    config.high_rate = true;
    let high = silent_with(config);
    let reply = ask(&high, "GET", "/debug/pprof/profile?hz=1000");
    assert_eq!(detail(&reply), "hz must be 1..=999 (got \"1000\")");
    let reply = ask(&plane, "HEAD", "/debug/pprof/profile?unknown=1");
    assert_eq!(reply.status(), 200);
}

#[test]
fn refusals_are_text_for_go_under_its_paths_and_problems_elsewhere() {
    let plane = silent();
    let unknown = ask(&plane, "GET", "/debug/pprof/nope");
    assert_eq!(text(&unknown), "Unknown profile\n");
    assert_eq!(header(&unknown, "X-Go-Pprof"), Some("1"));
    let post = ask(&plane, "POST", "/metrics");
    assert_eq!(
        (post.status(), header(&post, "Allow")),
        (405, Some("GET, HEAD"))
    );
    assert_eq!(detail(&post), "method GET required");
    let delete = ask(&plane, "DELETE", "/debug/pprof/symbol");
    assert_eq!(header(&delete, "Allow"), Some("GET, HEAD, POST"));
    for absent in endpoints::ABSENT {
        let reply = ask(&plane, "GET", absent.path);
        assert_eq!(
            (reply.status(), detail(&reply)),
            (501, absent.reason.to_owned())
        );
    }
}

#[test]
fn the_ninth_waiting_reader_is_refused_and_a_reader_that_leaves_makes_room() {
    let plane = silent();
    let request =
        || Request::new("GET", "/debug/pprof/profile?seconds=60").header("host", "localhost");
    let mut waiting: Vec<_> = (0..config::PROFILE_READERS)
        .map(|_| Box::pin(respond(&plane, request())))
        .collect();
    for reader in &mut waiting {
        let poll = reader
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        assert!(poll.is_pending());
    }
    let ninth = block_on(respond(&plane, request()));
    assert_eq!(
        (ninth.status(), &*detail(&ninth)),
        (429, "profile readers at limit 8")
    );
    assert_eq!(header(&ninth, "Retry-After"), Some("1"));
    drop(waiting.pop());
    assert_eq!(plane.store.cpu.waiting(), 7);
    let mut again = pin!(respond(&plane, request()));
    let poll = again.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(poll.is_pending());
    let left = plane.actions.all();
    assert_eq!(left.last().map(|action| action.status), Some(None));
    assert_eq!(left.first().map(|action| action.status), Some(Some(429)));
}

#[test]
fn raising_the_rate_is_refused_past_its_limit_and_what_raises_nothing_never_is() {
    let plane = silent_with(Config::new("shop"));
    let asked = |target: &str| {
        let request = Request::new("GET", target).header("host", "localhost");
        let mut reply = Box::pin(respond(&plane, request));
        match reply.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => Ok(reply),
            Poll::Ready(reply) => Err(reply),
        }
    };
    let path = "/debug/pprof/profile?seconds=1";
    let first = asked(path).unwrap();
    // At the rate of the one that waits, or below it: as many as like.
    let same: Vec<_> = (0..5).map(|_| asked(path).unwrap()).collect();
    drop(asked(&format!("{path}&hz=50")).unwrap());
    drop(asked(&format!("{path}&hz=100")).unwrap());
    let refused = asked(&format!("{path}&hz=100")).err().unwrap();
    let wait = header(&refused, "Retry-After").unwrap().to_owned();
    let wanted = format!(
        "profiles that raise the sampling rate at limit 6 a minute, burst 2: wait {wait} s, \
         or ask for hz=99 or less, or for the past by ago=30&seconds=30"
    );
    assert_eq!((refused.status(), detail(&refused)), (429, wanted));
    assert!((1..=10).contains(&wait.parse::<u32>().unwrap()), "{wait}");
    drop((first, same));
    // Only the flight recorder runs now.
    let refused = asked(path).err().unwrap();
    assert!(detail(&refused).contains(" or ask for hz=19 or less, "));
    for target in [
        "/debug/pprof/profile?seconds=1&hz=19",
        "/debug/pprof/profile?ago=30&seconds=5",
        "/debug/flamegraph?ago=30",
    ] {
        assert!(asked(target).is_ok(), "{target}");
    }
    let head = Request::new("HEAD", path).header("host", "localhost");
    assert_eq!(block_on(respond(&plane, head)).status(), 200);
    let about = ask(&plane, "GET", "/debug/agent");
    let about: serde_json::Value = serde_json::from_slice(about.body()).unwrap();
    assert_eq!(about["limits"]["profile_raises_per_minute"], 6);
    assert_eq!(about["limits"]["profile_raises_burst"], 2);
    assert_eq!(about["denied"]["raises"], 2);
}

#[test]
fn an_engine_that_cannot_and_one_that_is_late_are_503_with_a_reason() {
    let plane = silent();
    let engine = |_| Err(Unavailable("no timers left".to_owned()).into());
    let served = served_by(plane, engine);
    let reply = ask(&served.plane, "GET", "/debug/pprof/profile");
    assert_eq!((reply.status(), &*detail(&reply)), (503, "no timers left"));
    assert_eq!(header(&reply, "Retry-After"), Some("1"));

    let plane = silent();
    let request = Request::new("GET", "/debug/pprof/profile?seconds=3").header("host", "localhost");
    let mut late = pin!(respond(&plane, request));
    let mut poll = || late.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(poll().is_pending());
    plane.expire(Instant::now() + Duration::from_secs(12));
    assert!(poll().is_pending(), "symbols may take 10 s more");
    plane.expire(Instant::now() + Duration::from_secs(14));
    let Poll::Ready(reply) = poll() else {
        panic!("still waiting");
    };
    assert_eq!(detail(&reply), "no profile after 13 s");
}

#[test]
fn seconds_that_are_not_held_are_404_with_those_that_are() {
    let held = |wish: CpuWish| match wish.span {
        CpuSpan::Ago { .. } => Err(NoProfile {
            text: "held are others".to_owned(),
            not_held: true,
        }),
        CpuSpan::Next { .. } | CpuSpan::Between { .. } => Ok(Arc::new(profile("shop::work"))),
    };
    let served = served_by(silent(), held);
    let path = "/debug/pprof/profile";
    let reply = ask(&served.plane, "GET", &format!("{path}?ago=600&seconds=5"));
    assert_eq!((reply.status(), &*detail(&reply)), (404, "held are others"));
    let reply = ask(&served.plane, "GET", &format!("{path}?from=5000&to=9000"));
    assert_eq!(reply.status(), 200);
}

#[test]
fn the_recorder_shows_what_it_holds_and_what_may_be_asked_for() {
    let plane = silent();
    let about = || -> serde_json::Value {
        serde_json::from_slice(ask(&plane, "GET", "/debug/agent").body()).unwrap()
    };
    let recorder = &about()["recorder"];
    assert_eq!(recorder["set_hz"], 19);
    assert!(recorder["hz"].is_null() && recorder["held_unix_milliseconds"].is_null());
    *lock(&plane.store.recorder) = Recorder {
        hz: Some(99),
        limit_hz: Some(49),
        held: Some(HeldSpan {
            from: 5_000_000_001,
            to: 65_000_999_999,
        }),
        ..Recorder::default()
    };
    let recorder = &about()["recorder"];
    assert_eq!(
        (&recorder["hz"], &recorder["limit_hz"]),
        (&99.into(), &49.into())
    );
    let held = serde_json::json!([5001, 65_000]);
    assert_eq!(recorder["held_unix_milliseconds"], held, "inwards");
}

#[test]
fn a_switched_off_plane_is_404_and_the_rest_still_answers() {
    let mut config = Config::new("shop");
    config.profiling = false;
    let plane = silent_with(config);
    let reply = ask(&plane, "GET", "/debug/pprof/profile");
    assert_eq!(
        (reply.status(), &*detail(&reply)),
        (404, "profile plane is off")
    );
    assert_eq!(ask(&plane, "GET", "/healthz").status(), 200);
}

#[test]
fn overlapping_scrapes_share_one_body_and_the_fifth_is_refused() {
    let plane = silent();
    let request = || Request::new("GET", "/metrics").header("host", "localhost");
    let mut scrapes: Vec<_> = (0..config::SCRAPES)
        .map(|_| Box::pin(respond(&plane, request())))
        .collect();
    for scrape in &mut scrapes {
        let poll = scrape
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        assert!(poll.is_pending());
    }
    let fifth = block_on(respond(&plane, request()));
    assert_eq!(
        (fifth.status(), &*detail(&fifth)),
        (503, "scrapes at limit 4")
    );
    assert_eq!(header(&fifth, "Retry-After"), Some("1"));
    for (id, ()) in plane.store.refresh.open() {
        plane.store.refresh.answer(id, ());
    }
    let pages: Vec<Reply> = scrapes.into_iter().map(block_on).collect();
    assert!(text(&pages[0]).contains("agent_http_denied_total{reason=\"scrapes\"} 1"));
    assert!(
        pages
            .iter()
            .all(|page| Arc::ptr_eq(&page.body, &pages[0].body))
    );

    let mut later = Box::pin(respond(&plane, request()));
    let poll = later.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(poll.is_pending());
    plane.expire(Instant::now() + config::REFRESH_WAIT);
    let later = block_on(later);
    assert_eq!(later.status(), 200, "the last readings beat none");
    assert!(
        !Arc::ptr_eq(&later.body, &pages[0].body),
        "a page of before"
    );
    let counted = "agent_scrape_duration_seconds_count{format=\"text\"} 4";
    assert!(text(&later).contains(counted), "{}", text(&later));
}

#[test]
fn the_page_is_negotiated_and_compressed() {
    let served = served();
    let scrape = |accept: &str, encoding: &str| {
        let request = Request::new("GET", "/metrics")
            .header("Host", "localhost")
            .header("Accept", accept)
            .header("Accept-Encoding", encoding);
        block_on(respond(&served.plane, request))
    };
    let open = scrape(
        "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
        "",
    );
    assert!(text(&open).ends_with("# EOF\n"));
    let kind = header(&open, "Content-Type").unwrap();
    assert!(
        kind.starts_with("application/openmetrics-text; version=1.0.0"),
        "{kind}"
    );
    let zipped = scrape("*/*", "gzip");
    assert_eq!(header(&zipped, "Content-Encoding"), Some("gzip"));
    assert_eq!(header(&zipped, "Vary"), Some("Accept, Accept-Encoding"));
    let mut plain = String::new();
    let mut decoder = flate2::read::GzDecoder::new(zipped.body());
    std::io::Read::read_to_string(&mut decoder, &mut plain).unwrap();
    assert!(
        plain.contains("# TYPE agent_http_denied_total counter"),
        "{plain}"
    );
}

#[test]
fn a_panic_anywhere_is_500_for_that_request_alone() {
    let served = served();
    for row in endpoints::ALL {
        let reply = ask(&served.plane, "GET", &format!("{}?panic", row.path));
        assert_eq!(
            (reply.status(), &*detail(&reply)),
            (500, "internal error"),
            "{}",
            row.path
        );
        // Not held to the rate of requests, which two for every endpoint come near.
        let next = ask(&served.plane, "GET", "/healthz");
        assert_eq!(next.status(), 200);
    }
    let about = ask(&served.plane, "GET", "/debug/agent");
    assert_eq!(about.status(), 200, "{}", text(&about));
    let about: serde_json::Value = serde_json::from_slice(about.body()).unwrap();
    assert_eq!(about["panics"]["http"], endpoints::ALL.len());
}

#[test]
fn symbols_are_bounded_and_garbage_gets_question_marks() {
    let served = served();
    let plane = &served.plane;
    let symbol = |name| Symbol {
        function: Function::named(name),
        line: 7,
    };
    let known: Arc<[Symbol]> = Arc::new([symbol("shop::inlined"), symbol("shop::work")]);
    plane.store.symbols.put(0x40_1000, &known);
    let ask = |body: &[u8]| {
        let request = Request::new("POST", "/debug/pprof/symbol").header("host", "localhost");
        block_on(respond(plane, request.body(body)))
    };
    let reply = ask(b"0x401000+0xzz+\xff<b>\n+0x1+0x7");
    let wanted = "num_symbols: 1\n0x401000 shop::work\n0xzz ??\n\u{fffd}<b> ??\n0x1 ??\n\
                  0x7 shop::seven\n";
    assert_eq!(text(&reply), wanted);
    let many = vec!["0x1"; config::SYMBOLS].join("+");
    assert_eq!(ask(many.as_bytes()).status(), 200);
    let over = ask(format!("{many}+0x1").as_bytes());
    assert_eq!(
        (over.status(), &*detail(&over)),
        (413, "at most 4096 addresses")
    );
    let huge = ask(&vec![b'+'; config::BODY_BYTES + 1]);
    assert_eq!(
        (huge.status(), &*detail(&huge)),
        (413, "body over 65536 bytes")
    );
    assert_eq!(header(&huge, "Connection"), Some("close"));
}

#[test]
fn symbols_that_nobody_looks_up_in_time_stay_unknown() {
    let plane = silent();
    let request = Request::new("GET", "/debug/pprof/symbol?0x7").header("host", "localhost");
    let mut late = pin!(respond(&plane, request));
    let mut poll = || late.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(poll().is_pending());
    plane.expire(Instant::now() + config::SYMBOLS_WAIT);
    let Poll::Ready(reply) = poll() else {
        panic!("still waiting");
    };
    assert_eq!(text(&reply), "num_symbols: 1\n0x7 ??\n");
    let probe = ask(&plane, "GET", "/debug/pprof/symbol");
    assert_eq!(
        text(&probe),
        "num_symbols: 1\n",
        "nobody is asked for nothing"
    );
}

#[test]
fn a_difference_asks_for_the_same_seconds_before() {
    let plane = silent();
    let spans = |target: &str| -> Vec<CpuSpan> {
        let request = Request::new("GET", target).header("host", "localhost");
        let mut reader = pin!(respond(&plane, request));
        let poll = reader
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        assert!(poll.is_pending(), "{target}: {poll:?}");
        let open = plane.store.cpu.open().into_iter();
        open.map(|(_, wish)| wish.span).collect()
    };
    let ago = |ago, seconds| CpuSpan::Ago {
        ago: Duration::from_secs(ago),
        duration: Duration::from_secs(seconds),
    };
    let path = "/debug/pprof/profile";
    let next = spans(&format!("{path}?seconds=5&diff_ago=600"));
    assert_eq!(next.len(), 2);
    assert_eq!(next[1], ago(600, 5));
    let past = spans(&format!("{path}?ago=60&seconds=30&diff_ago=840"));
    assert_eq!(past, [ago(60, 30), ago(900, 30)]);
    let between = spans(&format!("{path}?from=700000&to=710000&diff_ago=600"));
    let at = |from, to| CpuSpan::Between { from, to };
    assert_eq!(between, [at(700_000, 710_000), at(100_000, 110_000)]);
    assert_eq!(plane.store.cpu.waiting(), 0, "left with their readers");
}

#[test]
fn a_past_that_is_not_held_ends_a_difference_at_once() {
    let plane = silent();
    let request =
        Request::new("GET", "/debug/pprof/profile?diff_ago=600").header("host", "localhost");
    let mut reader = pin!(respond(&plane, request));
    let mut poll = || {
        reader
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
    };
    assert!(poll().is_pending());
    let open = plane.store.cpu.open();
    let (past, _) = open
        .iter()
        .find(|(_, wish)| matches!(wish.span, CpuSpan::Ago { .. }))
        .unwrap();
    let none = NoProfile {
        text: "held are others".to_owned(),
        not_held: true,
    };
    plane.store.cpu.answer(*past, Err(none));
    let Poll::Ready(reply) = poll() else {
        panic!("still waiting for the seconds to come");
    };
    assert_eq!((reply.status(), &*detail(&reply)), (404, "held are others"));
    assert_eq!(plane.store.cpu.waiting(), 0);
}

#[test]
fn a_difference_is_shown_in_every_format_that_can() {
    let earlier = |span| matches!(span, CpuSpan::Ago { .. });
    let served = served_by(silent(), move |wish| {
        let mut profile = profile("shop::work");
        if earlier(wish.span) {
            profile.samples[0].values = vec![1, 10_101_010];
        }
        Ok(Arc::new(profile))
    });
    let path = "/debug/pprof/profile?seconds=1&diff_ago=60";
    let get = |more: &str| ask(&served.plane, "GET", &format!("{path}{more}"));
    assert_eq!(
        text(&get("&format=folded")),
        "shop::work 10101010 30303030\n"
    );
    let same = get("&format=folded&normalize=1");
    assert_eq!(text(&same), "shop::work 30303030 30303030\n");
    assert_eq!(&get("").body()[..2], b"\x1f\x8b");
    let firefox: serde_json::Value = serde_json::from_slice(get("&format=firefox").body()).unwrap();
    assert_eq!(firefox["threads"][0]["samples"]["weight"][1], 20.20202);
    #[cfg(feature = "flamegraph")]
    {
        let svg = get("&format=svg");
        assert!(
            text(&svg).contains(">CPU of shop less 60 s before<"),
            "{}",
            text(&svg)
        );
    }
}

#[test]
fn readiness_and_health_say_what_the_host_and_the_supervisor_said() {
    let plane = silent();
    let status = |path| ask(&plane, "GET", path).status();
    assert_eq!((status("/readyz"), status("/healthz")), (200, 200));
    plane.published.set_ready(false);
    plane.published.set_up("profile", false);
    assert_eq!((status("/readyz"), status("/healthz")), (503, 503));
    assert_eq!(text(&ask(&plane, "GET", "/healthz")), "down: profile\n");
    plane.published.set_ready(true);
    plane.published.set_up("profile", true);
    assert_eq!((status("/readyz"), status("/healthz")), (200, 200));
}

#[test]
fn the_index_shows_every_endpoint_and_loads_nothing() {
    let plane = silent_with(Config::new("a<b>&\"c"));
    let reply = ask(&plane, "GET", "/");
    let page = text(&reply);
    for row in endpoints::ALL {
        assert!(page.contains(&format!(">{}</a>", row.path)), "{}", row.path);
    }
    let list = ask(&plane, "GET", "/debug/pprof/");
    for form in endpoints::FORMS {
        for (seconds, words) in [
            ("seconds=5", "next 5 s"),
            ("ago=60&amp;seconds=60", "last minute"),
        ] {
            let link = format!("profile?{seconds}&amp;format={}\">{words}<", form.word);
            assert!(page.contains(&format!("\"debug/pprof/{link}")), "{link}");
            assert!(text(&list).contains(&format!("\"{link}")), "{link}");
        }
    }
    assert!(page.contains("<h1>a&lt;b&gt;&amp;&quot;c</h1>"));
    assert!(page.contains("<code>curl -s http://localhost:6060/metrics</code>"));
    assert!(!page.contains("src=") && !page.contains("<script"));
    let outside = page.matches("://").count() - page.matches("http://localhost:6060/").count();
    assert_eq!(outside, 0, "an address elsewhere");
    let policy = header(&reply, "Content-Security-Policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'unsafe-inline';"));

    // What a click shows is for people: no wait of half a minute, no file for a tool.
    for link in [
        "\"debug/flamegraph?seconds=5\"",
        "\"debug/pprof/goroutine?debug=2\"",
        "\"debug/pprof/threads?debug=2\"",
    ] {
        assert!(page.contains(link), "{link}");
    }
    for row in endpoints::ABSENT {
        assert!(text(&list).contains(row.path.rsplit('/').next().unwrap()));
    }
}

#[test]
fn targets_are_the_table_that_was_published() {
    let plane = silent();
    let table = TargetTable {
        requests: 12,
        ..TargetTable::default()
    };
    plane.published.set_targets(table);
    let reply = ask(&plane, "GET", "/targets");
    let seen: serde_json::Value = serde_json::from_slice(reply.body()).unwrap();
    assert_eq!(seen["requests"], 12);
    assert!(seen["rows"].is_array());
}

#[test]
fn cmdline_is_the_name_of_the_program_without_path_and_arguments() {
    let plane = silent();
    let reply = ask(&plane, "GET", "/debug/pprof/cmdline");
    let own = std::env::current_exe().unwrap();
    assert_eq!(text(&reply), own.file_name().unwrap().to_string_lossy());
}
