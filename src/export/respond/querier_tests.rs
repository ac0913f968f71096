//! Whole calls, answered from a profile that is known, and read by another protobuf library.

use prost::Message as _;
use serde_json::{Value as Json, json};

use super::*;
use crate::catalog::endpoints::{METHODS, QUERIER};
use crate::export::profile_tests::read_pprof;
use crate::export::respond::respond;
use crate::export::respond::tests::{
    Served, ask, block_on, header, profile, served, served_by, silent, text,
};
use crate::store::NoProfile;
use crate::store::label::ROUTE;
use crate::store::profile::{Function, Label, Line, Location, Slice};

const CPU_TYPE: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds";

/// The messages as their authors publish them.
mod proto {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Response {
        #[prost(message, optional, tag = "1")]
        pub(super) flamegraph: Option<FlameGraph>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct FlameGraph {
        #[prost(string, repeated, tag = "1")]
        pub(super) names: Vec<String>,
        #[prost(message, repeated, tag = "2")]
        pub(super) levels: Vec<Level>,
        #[prost(int64, tag = "3")]
        pub(super) total: i64,
        #[prost(int64, tag = "4")]
        pub(super) max_self: i64,
        #[prost(int64, tag = "5")]
        pub(super) left_ticks: i64,
        #[prost(int64, tag = "6")]
        pub(super) right_ticks: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Level {
        #[prost(int64, repeated, tag = "1")]
        pub(super) values: Vec<i64>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Stacktraces {
        #[prost(string, tag = "1")]
        pub(super) profile_type_id: String,
        #[prost(string, tag = "2")]
        pub(super) label_selector: String,
        #[prost(int64, tag = "3")]
        pub(super) start: i64,
        #[prost(int64, tag = "4")]
        pub(super) end: i64,
    }
}

/// `main` calls `read` for one route and `write` for another, where a traced request is.
fn two_routes() -> Profile {
    let mut profile = profile("shop::main");
    let names = ["shop::read", "shop::write"];
    profile.functions.extend(names.map(Function::named));
    profile.locations.extend([1, 2].map(|function| Location {
        address: 0x402_000,
        mapping: None,
        lines: vec![Line { function, line: 7 }],
    }));
    let label = |key, value: &str| Label {
        key,
        value: value.into(),
    };
    let sample = |leaf: u32, nanos: [i64; 2], labels| Sample {
        stack: [leaf, 0].into(),
        values: vec![1, nanos.iter().sum()],
        labels,
        times: vec![(0, nanos[0]), (1, nanos[1])],
    };
    profile.samples = vec![
        sample(1, [600, 100], vec![label(ROUTE, "/read")]),
        sample(
            2,
            [0, 200],
            vec![label(ROUTE, "/write"), label(SPAN_ID, "00f067aa0ba902b7")],
        ),
        sample(0, [100, 0], vec![]),
    ];
    let second = |from, to| Slice {
        from: Duration::from_secs(from),
        to: Duration::from_secs(to),
        period: Duration::from_millis(10),
    };
    profile.slices = vec![second(0, 1), second(20, 21)];
    profile
}

fn shop() -> Served {
    served_by(silent(), |_| Ok(Arc::new(two_routes())))
}

fn call(plane: &Plane, method: &str, kind: &str, body: impl Into<Vec<u8>>) -> Reply {
    let request = Request::new("POST", &format!("{QUERIER}{method}"))
        .header("host", "localhost")
        .header("content-type", kind)
        .body(body);
    block_on(respond(plane, request))
}

fn ask_json(plane: &Plane, method: &str, request: &Json) -> Json {
    let reply = call(
        plane,
        method,
        "application/json; charset=utf-8",
        request.to_string(),
    );
    assert_eq!(reply.status(), 200, "{method}: {}", text(&reply));
    assert_eq!(header(&reply, "Content-Type"), Some("application/json"));
    serde_json::from_slice(reply.body()).unwrap()
}

/// The path of each bar with its own value, as names joined by `;`.
fn selves(graph: &Json) -> Vec<(String, i64)> {
    let number = |json: &Json| json.as_str().unwrap().parse::<i64>().unwrap();
    let levels = graph["levels"].as_array().unwrap();
    let mut out = Vec::new();
    for level in levels {
        let values: Vec<i64> = level["values"]
            .as_array()
            .unwrap()
            .iter()
            .map(number)
            .collect();
        for bar in values.chunks(4).filter(|bar| bar[2] > 0) {
            let name = graph["names"][usize::try_from(bar[3]).unwrap()].as_str();
            out.push((name.unwrap().to_owned(), bar[2]));
        }
    }
    out
}

#[test]
fn bars_and_pprof_of_the_same_seconds_have_the_same_sums_in_both_encodings() {
    let shop = shop();
    let end = now();
    let start = end - 30_000;
    let target = format!("/debug/pprof/profile?from={start}&to={end}");
    let (columns, samples, _) = read_pprof(ask(&shop.plane, "GET", &target).body());
    assert_eq!((columns[1].clone(), samples), (("cpu".to_owned(), 1000), 3));

    let request = proto::Stacktraces {
        profile_type_id: CPU_TYPE.to_owned(),
        label_selector: "{}".to_owned(),
        start,
        end,
    };
    let reply = call(
        &shop.plane,
        "SelectMergeStacktraces",
        PROTO,
        request.encode_to_vec(),
    );
    assert_eq!(header(&reply, "Content-Type"), Some(PROTO));
    let response = proto::Response::decode(reply.body()).unwrap();
    let graph = response.flamegraph.unwrap();
    let own = |graph: &proto::FlameGraph| -> i64 {
        let levels = graph.levels.iter();
        let bars = levels.flat_map(|level| level.values.chunks(4));
        bars.map(|bar| bar[2]).sum()
    };
    assert_eq!(
        (graph.total, own(&graph), graph.max_self),
        (1000, 1000, 700)
    );
    assert_eq!(
        graph.names,
        ["total", "shop::main", "shop::read", "shop::write"]
    );

    let request =
        json!({"profile_typeID": CPU_TYPE, "start": start.to_string(), "end": end.to_string()});
    let graph = ask_json(&shop.plane, "SelectMergeStacktraces", &request);
    assert_eq!(graph["flamegraph"]["total"], "1000");
    let wanted = [
        ("shop::main", 100),
        ("shop::read", 700),
        ("shop::write", 200),
    ];
    assert_eq!(
        selves(&graph["flamegraph"]),
        wanted.map(|(name, own)| (name.to_owned(), own))
    );

    let merged = call(
        &shop.plane,
        "SelectMergeProfile",
        PROTO,
        proto::Stacktraces {
            profile_type_id: CPU_TYPE.to_owned(),
            label_selector: "{http_route=~\"/.*\"}".to_owned(),
            start,
            end,
        }
        .encode_to_vec(),
    );
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, merged.body()).unwrap();
    let (columns, samples, _) = read_pprof(&packed.finish().unwrap());
    assert_eq!((columns, samples), (vec![("cpu".to_owned(), 900)], 2));
    let merged = ask_json(&shop.plane, "SelectMergeProfile", &request);
    let values: Vec<&str> = merged["sample"]
        .as_array()
        .unwrap()
        .iter()
        .map(|sample| sample["value"][0].as_str().unwrap())
        .collect();
    assert_eq!(values, ["700", "200", "100"]);
}

#[test]
fn selectors_spans_and_call_sites_choose_samples() {
    let shop = shop();
    let total = |method: &str, more: Json| {
        let mut request = json!({"profileTypeID": CPU_TYPE});
        request
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        ask_json(&shop.plane, method, &request)["flamegraph"]["total"].clone()
    };
    let of = |selector: &str| total("SelectMergeStacktraces", json!({"labelSelector": selector}));
    assert_eq!(of("{service_name=\"shop\"}"), "1000");
    assert_eq!(of("{http_route=\"/read\"}"), "700");
    assert_eq!(of("{http_route!=\"/read\"}"), "300");
    assert_eq!(
        of("{http_route=~\"/(read|write)\", service_name!~\"x.*\"}"),
        "900"
    );
    assert_eq!(of("{span_id=~\"00f0.*\"}"), "200");
    assert_eq!(of("{service_name=\"other\"}"), Json::Null);
    let spans = json!({"spanSelector": ["00f067aa0ba902b7"]});
    assert_eq!(total("SelectMergeSpanProfile", spans.clone()), "200");
    assert_eq!(total("SelectMergeStacktraces", spans), "200");
    let site = |names: &[&str]| {
        let names: Vec<Json> = names.iter().map(|name| json!({"name": name})).collect();
        total(
            "SelectMergeStacktraces",
            json!({"stackTraceSelector": {"callSite": names}}),
        )
    };
    assert_eq!(site(&["shop::main", "shop::write"]), "200");
    assert_eq!(site(&["shop::write"]), Json::Null);
}

#[test]
fn types_labels_and_series_say_what_there_is() {
    let shop = shop();
    let types = ask_json(
        &shop.plane,
        "ProfileTypes",
        &json!({"start": "1000", "end": "4000"}),
    );
    let ids: Vec<&str> = types["profileTypes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|kind| kind["ID"].as_str().unwrap())
        .collect();
    assert_eq!(
        ids,
        [
            CPU_TYPE,
            "memory:inuse_space:bytes:space:bytes",
            "memory:inuse_objects:count:space:bytes",
            "memory:alloc_space:bytes:space:bytes",
            "memory:alloc_objects:count:space:bytes",
        ]
    );
    let cpu = format!("{{__profile_type__=\"{CPU_TYPE}\"}}");
    let names = ask_json(&shop.plane, "LabelNames", &json!({"matchers": [cpu]}));
    assert_eq!(names, json!({"names": [ROUTE, "service_name", "span_id"]}));
    let values = |name: &str| {
        let request = json!({"name": name, "matchers": [cpu]});
        ask_json(&shop.plane, "LabelValues", &request)
    };
    assert_eq!(values(ROUTE), json!({"names": ["/read", "/write"]}));
    assert_eq!(values("service_name"), json!({"names": ["shop"]}));
    assert_eq!(values("nope"), json!({}));
    let request = json!({"matchers": [cpu], "labelNames": ["service_name", ROUTE]});
    let series = ask_json(&shop.plane, "Series", &request);
    assert_eq!(series["labelsSet"].as_array().unwrap().len(), 3);
}

#[test]
fn values_over_time_are_sums_by_step_and_label() {
    let shop = shop();
    let second = 1_700_000_000_000_i64;
    let request = |by: &[&str], more: Json| {
        let mut request = json!({"profileTypeID": CPU_TYPE, "start": second.to_string(), "step": 15,
            "groupBy": by});
        request
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        ask_json(&shop.plane, "SelectSeries", &request)
    };
    let point = |value: f64, step: i64| json!({"value": value, "timestamp": (second + step * 15_000).to_string()});
    let all = json!({"series": [{"points": [point(700.0, 1), point(300.0, 2)]}]});
    let mut seen = request(&[], json!({}));
    for point in seen["series"][0]["points"].as_array_mut().unwrap() {
        point["value"] = json!(point["value"].as_f64().unwrap());
    }
    assert_eq!(seen, all);
    let routes = request(&[ROUTE], json!({"limit": 2}));
    let labels: Vec<&Json> = (0..2)
        .map(|place| &routes["series"][place]["labels"][0]["value"])
        .collect();
    assert_eq!(labels, [&json!("/read"), &json!("/write")]);
    assert_eq!(routes["series"].as_array().unwrap().len(), 2);
}

#[test]
fn a_difference_has_both_sides_in_one_graph() {
    let shop = shop();
    let side = |route: &str| json!({"profileTypeID": CPU_TYPE, "labelSelector": format!("{{http_route=\"{route}\"}}")});
    let request = json!({"left": side("/read"), "right": side("/write")});
    let graph = ask_json(&shop.plane, "Diff", &request)["flamegraph"].clone();
    assert_eq!(
        (&graph["leftTicks"], &graph["rightTicks"]),
        (&json!("700"), &json!("200"))
    );
    let bars = |level: usize| graph["levels"][level]["values"].clone();
    assert_eq!(bars(0), json!(["0", "700", "0", "0", "200", "0", "0"]));
    assert_eq!(
        bars(2),
        json!([
            "0", "700", "700", "0", "0", "0", "2", "0", "0", "0", "0", "200", "200", "3"
        ])
    );
}

#[test]
fn memory_is_that_of_this_moment_and_of_no_other() {
    let served = served();
    let graph = |column: &str, more: Json| {
        let mut request = json!({"profileTypeID": format!("memory:{column}:space:bytes")});
        let fields = request.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        ask_json(&served.plane, "SelectMergeStacktraces", &request)["flamegraph"].clone()
    };
    // Each look at this heap finds one block more of 100 bytes, and twice as many were allocated.
    let in_use = selves(&graph("inuse_space:bytes", json!({})));
    assert_eq!((in_use.len(), &*in_use[0].0), (1, "shop::keep"));
    assert_eq!(in_use[0].1 % 100, 0);
    let dropped = ("shop::drop".to_owned(), 500);
    assert!(selves(&graph("alloc_space:bytes", json!({}))).contains(&dropped));
    let dropped = ("shop::drop".to_owned(), 5);
    assert!(selves(&graph("alloc_objects:count", json!({}))).contains(&dropped));
    let past = json!({"start": "1000", "end": (now() - 120_000).to_string()});
    assert_eq!(graph("inuse_objects:count", past), Json::Null);
}

#[test]
fn no_range_is_wrong_and_what_is_not_held_is_no_data() {
    let served = served_by(silent(), |_| {
        Err(NoProfile {
            text: "held are others".to_owned(),
            not_held: true,
        })
    });
    for (start, end) in [
        (1000, 4000),
        (0, 0),
        (9, 1),
        (-5, -1),
        (i64::MIN, i64::MAX),
        (i64::MAX, i64::MIN),
    ] {
        let request = json!({"profileTypeID": CPU_TYPE, "start": start.to_string(), "end": end.to_string(),
            "step": 15.0});
        for method in [
            "SelectMergeStacktraces",
            "SelectSeries",
            "SelectMergeProfile",
            "SelectMergeSpanProfile",
        ] {
            assert_eq!(
                ask_json(&served.plane, method, &request),
                json!({}),
                "{method} {start}..{end}"
            );
        }
    }
}

#[test]
fn errors_are_connects_whatever_the_encoding_and_start_nothing() {
    let plane = silent();
    let seen = |method: &str, kind: &str, body: Vec<u8>| {
        let reply = call(&plane, method, kind, body);
        assert_eq!(header(&reply, "Content-Type"), Some(JSON));
        assert_eq!(plane.store.cpu.waiting(), 0);
        let failure: Json = serde_json::from_slice(reply.body()).unwrap();
        let word = |name: &str| failure[name].as_str().unwrap().to_owned();
        (reply.status(), word("code"), word("message"))
    };
    let ids: Vec<String> = kinds::ALL.iter().map(ProfileType::id).collect();
    let with = |more: &str| format!("{{\"profileTypeID\":\"{CPU_TYPE}\",{more}}}");
    let rows = [
        (
            "Nope",
            JSON,
            "{}".to_owned(),
            501,
            "unimplemented",
            "no such method, but ProfileTypes, ",
        ),
        (
            "ProfileTypes",
            "text/plain",
            String::new(),
            415,
            "invalid_argument",
            "content-type must be application/proto|application/json (got \"text/plain\")",
        ),
        (
            "ProfileTypes",
            PROTO,
            "\u{7f}".to_owned(),
            400,
            "invalid_argument",
            "body must be a protobuf message: ",
        ),
        (
            "SelectMergeStacktraces",
            JSON,
            "{}".to_owned(),
            400,
            "invalid_argument",
            &format!("profile_typeID must be {} (got \"\")", ids.join("|")),
        ),
        (
            "SelectMergeStacktraces",
            JSON,
            with("\"labelSelector\":\"{a=\""),
            400,
            "invalid_argument",
            "label_selector must be a label selector such as ",
        ),
        (
            "SelectMergeStacktraces",
            JSON,
            with("\"format\":\"PROFILE_FORMAT_TREE\""),
            501,
            "unimplemented",
            "format must be PROFILE_FORMAT_UNSPECIFIED|PROFILE_FORMAT_FLAMEGRAPH (got 2)",
        ),
        (
            "SelectMergeStacktraces",
            JSON,
            with("\"maxNodes\":\"-1\""),
            400,
            "invalid_argument",
            "max_nodes must be 0 or more (got \"-1\")",
        ),
        (
            "SelectMergeStacktraces",
            JSON,
            with("\"profileIdSelector\":[\"x\"]"),
            501,
            "unimplemented",
            "profile_id_selector must be empty",
        ),
        (
            "SelectMergeSpanProfile",
            JSON,
            with("\"spanSelector\":[\"xyz\"]"),
            400,
            "invalid_argument",
            "span_selector must be ids of 16 hexadecimal digits, 0-9 and a-f (got \"xyz\")",
        ),
        (
            "SelectSeries",
            JSON,
            with("\"start\":\"1\""),
            400,
            "invalid_argument",
            "step must be a number of seconds, 0.001..=1000000000 (got \"0\")",
        ),
        (
            "LabelValues",
            JSON,
            "{}".to_owned(),
            400,
            "invalid_argument",
            "name must be the name of a label (got \"\")",
        ),
        (
            "Diff",
            JSON,
            "{\"left\":7}".to_owned(),
            400,
            "invalid_argument",
            "left must be a JSON object (got \"7\")",
        ),
        (
            "LabelNames",
            JSON,
            "x".repeat(config::BODY_BYTES + 1),
            413,
            "resource_exhausted",
            "body over 65536 bytes",
        ),
    ];
    for (method, kind, body, status, code, message) in rows {
        let (seen_status, seen_code, seen_message) = seen(method, kind, body.into_bytes());
        assert_eq!(
            (seen_status, &*seen_code),
            (status, code),
            "{method}: {seen_message}"
        );
        assert!(seen_message.starts_with(message), "{seen_message}");
    }
    let compressed = Request::new("POST", &format!("{QUERIER}ProfileTypes"))
        .header("host", "localhost")
        .header("content-type", PROTO)
        .header("content-encoding", "br");
    assert_eq!(block_on(respond(&plane, compressed)).status(), 501);
    let foreign = Request::new("POST", &format!("{QUERIER}ProfileTypes"))
        .header("host", "evil.example")
        .header("content-type", PROTO);
    let foreign = block_on(respond(&plane, foreign));
    assert_eq!(
        (foreign.status(), text(&foreign)),
        (
            403,
            "{\"code\":\"permission_denied\",\"message\":\"host not allowed\"}"
        )
    );
}

#[test]
fn every_method_answers_its_own_example_and_leaves_a_record() {
    let shop = shop();
    for method in METHODS {
        let reply = call(&shop.plane, method.name, JSON, method.request);
        assert_eq!(reply.status(), 200, "{}: {}", method.name, text(&reply));
        let index = ask(&shop.plane, "GET", "/");
        assert!(
            text(&index).contains(&format!("{QUERIER}{}", method.name)),
            "{}",
            method.name
        );
    }
    let about = ask(&shop.plane, "GET", "/debug/agent");
    let about: Json = serde_json::from_slice(about.body()).unwrap();
    let requests = about["profile_requests"].as_array().unwrap();
    let paths: Vec<&str> = requests
        .iter()
        .map(|request| request["path"].as_str().unwrap())
        .collect();
    assert!(
        paths.contains(&"/querier.v1.QuerierService/SelectMergeStacktraces"),
        "{paths:?}"
    );
    assert!(
        requests.iter().all(|request| request["status"] == 200),
        "{requests:?}"
    );
}
