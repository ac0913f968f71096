//! Messages, selectors, trees and series by themselves, against another protobuf library where bytes count.

use std::time::Duration;

use proptest::prelude::*;
use prost::Message as _;

use super::fields::Fields;
use super::flame::Tree;
use super::schema::{
    DIFF_REQUEST, FLAME_GRAPH_RESPONSE, SELECT_MERGE_STACKTRACES_REQUEST, SELECT_SERIES_REQUEST,
};
use super::selector::Selector;
use super::series::Steps;
use super::{flame, json};
use crate::config;

/// The request as its authors publish it, without the fields that nobody here reads.
#[derive(Clone, PartialEq, prost::Message)]
struct Stacktraces {
    #[prost(string, tag = "1")]
    profile_type_id: String,
    #[prost(string, tag = "2")]
    label_selector: String,
    #[prost(int64, tag = "3")]
    start: i64,
    #[prost(int64, tag = "4")]
    end: i64,
    #[prost(int64, optional, tag = "5")]
    max_nodes: Option<i64>,
    #[prost(string, repeated, tag = "11")]
    span_selector: Vec<String>,
    #[prost(string, tag = "99")]
    from_the_future: String,
}

fn refusal(result: Result<Fields, crate::export::guard::Refusal>) -> String {
    let refusal = result.unwrap_err();
    assert_eq!(refusal.status, 400);
    refusal.text.into_owned()
}

#[test]
fn both_encodings_of_a_request_say_the_same_and_what_is_not_known_says_nothing() {
    let request = Stacktraces {
        profile_type_id: "process_cpu:cpu:nanoseconds:cpu:nanoseconds".to_owned(),
        label_selector: "{a=\"ö\"}".to_owned(),
        start: 1_700_000_000_000,
        end: -1,
        max_nodes: Some(7),
        span_selector: vec!["00f067aa0ba902b7".to_owned(), "a".to_owned()],
        from_the_future: "x".to_owned(),
    };
    let schema = SELECT_MERGE_STACKTRACES_REQUEST;
    let proto = Fields::of_proto(&request.encode_to_vec(), schema).unwrap();
    let json = r#"{"profileTypeID":"process_cpu:cpu:nanoseconds:cpu:nanoseconds",
        "labelSelector":"{a=\"\u00f6\"}","start":"1700000000000","end":-1,"max_nodes":7.0,
        "format":null,"spanSelector":["00f067aa0ba902b7","a"],"fromTheFuture":{"x":[]}}"#;
    let json = Fields::of_json(json.as_bytes(), schema).unwrap();
    for fields in [proto, json] {
        assert_eq!(fields.text(1), request.profile_type_id);
        assert_eq!(fields.text(2), request.label_selector);
        assert_eq!(
            (fields.whole(3), fields.whole(4)),
            (Some(request.start), Some(-1))
        );
        assert_eq!(fields.whole(5), Some(7));
        assert!(fields.texts(11).eq(["00f067aa0ba902b7", "a"]));
    }
}

#[test]
fn wrong_fields_are_refused_by_name_and_value() {
    let rows: [(&[u8], &str); 9] = [
        (b"", "body must be a JSON object (got \"\")"),
        (b"[]", "body must be a JSON object (got \"[]\")"),
        (
            b"{\"start\":\"x\"}",
            "start must be a whole number of 64 bits (got \"x\")",
        ),
        (
            b"{\"start\":1.5}",
            "start must be a whole number of 64 bits (got \"1.5\")",
        ),
        (
            b"{\"start\":1e300}",
            "start must be a whole number of 64 bits (got \"1e+300\")",
        ),
        (
            b"{\"group_by\":\"a\"}",
            "group_by must be a JSON array (got \"\\\"a\\\"\")",
        ),
        (
            b"{\"groupBy\":[1]}",
            "group_by must be text in UTF-8 (got \"1\")",
        ),
        (b"{\"step\":[]}", "step must be a number (got \"[]\")"),
        (
            b"{\"aggregation\":\"MAX\"}",
            "aggregation must be a number or name of the enum (got \"MAX\")",
        ),
    ];
    for (body, wanted) in rows {
        let seen = refusal(Fields::of_json(body, SELECT_SERIES_REQUEST));
        assert_eq!(seen, wanted);
    }
    let rows: [(&[u8], &str); 7] = [
        (
            &[0x0a, 9, 1],
            "body must be a protobuf message: it ends within a field",
        ),
        (
            &[0xff; 11],
            "body must be a protobuf message: a number has more than ten bytes",
        ),
        (
            &[0x00, 1],
            "body must be a protobuf message: a field's number is out of range",
        ),
        (
            &[0x0b, 0x0c],
            "body must be a protobuf message: a field has no type of proto3",
        ),
        (
            &[0x0a, 1, 0xff],
            "profile_typeID must be text in UTF-8 (got \"\u{fffd}\")",
        ),
        (
            &[0x1a, 1, 0],
            "start must be a whole number of 64 bits (got \"bytes\")",
        ),
        (&[0x30, 1], "step must be a number (got \"a varint\")"),
    ];
    for (body, wanted) in rows {
        let seen = refusal(Fields::of_proto(body, SELECT_SERIES_REQUEST));
        assert_eq!(seen, wanted);
    }
}

#[test]
fn the_deepest_message_and_json_end_in_a_refusal() {
    // As deep as 64 KiB can be: a message within a message within ..
    let mut deep = Vec::new();
    while deep.len() < config::BODY_BYTES - 8 {
        let mut outer = vec![0x0a];
        let mut length = deep.len();
        while length >= 0x80 {
            outer.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
            length >>= 7;
        }
        outer.push(u8::try_from(length).unwrap());
        outer.extend(&deep);
        deep = outer;
    }
    // Only what is known is looked into, and what stands two messages deep is a text.
    let text = refusal(Fields::of_proto(&deep, DIFF_REQUEST));
    assert!(
        text.starts_with("profile_typeID must be text in UTF-8"),
        "{text}"
    );
    let json = "[".repeat(config::BODY_BYTES);
    refusal(Fields::of_json(json.as_bytes(), DIFF_REQUEST));
    let json = "{\"left\":".repeat(1000) + "1" + &"}".repeat(1000);
    refusal(Fields::of_json(json.as_bytes(), DIFF_REQUEST));
}

fn matching<'a>(selector: &str, labels: &'a [(&'a str, &'a str)]) -> bool {
    let selector = Selector::parse("label_selector", selector).unwrap();
    let value = |name: &str| {
        labels
            .iter()
            .find(|(label, _)| *label == name)
            .map(|pair| pair.1)
    };
    let once = selector.matches(value);
    let mut remembering = selector.remembering();
    assert_eq!(
        (remembering.matches(value), remembering.matches(value)),
        (once, once)
    );
    once
}

#[test]
fn selectors_choose_as_prometheus_does() {
    let labels = [
        ("service_name", "shop"),
        ("http_route", "/v1/content/{id}"),
        ("k8s.pod", "a\"b"),
    ];
    let rows = [
        ("", true),
        ("{}", true),
        (" { } ", true),
        ("{service_name=\"shop\"}", true),
        ("{service_name=\"sho\"}", false),
        ("{service_name!=\"shop\"}", false),
        ("{ service_name = 'shop' , http_route =~ `/v1/.*` , }", true),
        ("{http_route=~\"/v1\"}", false),
        ("{http_route=~\"/v1/(content|nft)/.+\"}", true),
        ("{http_route!~\"/v1/.*\"}", false),
        ("{absent=\"\"}", true),
        ("{absent!=\"\"}", false),
        ("{absent=~\".*\"}", true),
        ("{\"k8s.pod\"=\"a\\\"b\"}", true),
        ("{k8s.pod=~\"a.b\"}", true),
        ("{service_name=\"\\u0073hop\"}", true),
        ("{service_name=~\"a|shop\", http_route=\"\"}", false),
        (
            "process_cpu:cpu:nanoseconds:cpu:nanoseconds{service_name=\"shop\"}",
            false,
        ),
    ];
    for (selector, wanted) in rows {
        assert_eq!(matching(selector, &labels), wanted, "{selector}");
    }
    let typed = [(
        "__profile_type__",
        "process_cpu:cpu:nanoseconds:cpu:nanoseconds",
    )];
    assert!(matching(
        "process_cpu:cpu:nanoseconds:cpu:nanoseconds{}",
        &typed
    ));
}

#[test]
fn selectors_that_are_none_and_ones_that_cost_too_much_are_refused() {
    let long = format!("{{a=~\"{}\"}}", "x".repeat(1025));
    let many = format!("{{{}}}", "a=\"b\",".repeat(65));
    for selector in [
        "{",
        "}",
        "{a}",
        "{a=}",
        "{a=b}",
        "{a=\"b}",
        "{a=\"b\" c=\"d\"}",
        "{=\"b\"}",
        "{1a=\"b\"}",
        "{a=\"b\"} or",
        "{a=\"\\q\"}",
        "{a=\"\\xff\"}",
        "{a=\"\\ud800\"}",
        "{a!\"b\"}",
        "{,}",
        "{a=~\"(\"}",
        "{a=~\"(.{999}){999}\"}",
        "{a=~\"\\\\p{Greek}\"}",
        &long,
        &many,
    ] {
        let refusal = Selector::parse("label_selector", selector).unwrap_err();
        assert_eq!(refusal.status, 400, "{selector}");
        assert!(
            refusal.text.starts_with("label_selector must be "),
            "{}",
            refusal.text
        );
        assert!(refusal.text.len() < 400, "{}", refusal.text);
    }
}

/// Stacks, root first.
type Stacks = Vec<(Vec<&'static str>, i64)>;

fn tree(stacks: &Stacks) -> Tree<'static, 1> {
    let mut tree = Tree::new();
    for (stack, value) in stacks {
        tree.add(stack.iter().copied(), [*value]);
    }
    tree
}

#[test]
fn bars_stand_below_their_parents_and_the_lightest_are_one() {
    let stacks = vec![
        (vec!["main", "b", "y"], 6),
        (vec!["main", "a", "x"], 3),
        (vec!["main", "a"], 1),
        (vec!["main", "b", "x"], 1),
        (vec!["main", "c"], 1),
        (vec!["idle"], 1),
    ];
    let flame = tree(&stacks).flame(flame::NODES);
    assert_eq!(
        flame.names,
        ["total", "idle", "main", "a", "b", "c", "x", "y"]
    );
    assert_eq!(
        flame.levels,
        [
            vec![0, 13, 0, 0],
            vec![0, 1, 1, 1, 0, 12, 0, 2],
            vec![1, 4, 1, 3, 0, 7, 0, 4, 0, 1, 1, 5],
            vec![1, 3, 3, 6, 1, 1, 1, 6, 0, 6, 6, 7],
        ]
    );
    assert_eq!((flame.totals, flame.most_own), ([13], 6));
    let few = tree(&stacks).flame(4);
    assert_eq!(few.names, ["total", "main", "other", "b", "y"]);
    assert_eq!(
        few.levels,
        [
            vec![0, 13, 0, 0],
            vec![0, 12, 0, 1, 0, 1, 1, 2],
            vec![0, 7, 0, 3, 0, 5, 5, 2],
            vec![0, 1, 1, 2, 0, 6, 6, 4],
        ]
    );
}

#[test]
fn nothing_has_no_flame_graph_and_a_tree_that_is_full_goes_on_counting() {
    assert!(tree(&Vec::new()).flame(9).message().as_bytes().is_empty());
    let mut tree: Tree<'_, 1> = Tree::within(3);
    tree.add(["a", "b"].into_iter(), [5]);
    tree.add(["c", "d"].into_iter(), [3]);
    tree.add(["a", "b", "c"].into_iter(), [2]);
    let flame = tree.flame(9);
    assert_eq!(flame.totals, [10]);
    assert_eq!(flame.names, ["total", "a", "other", "b"]);
    assert_eq!(flame.levels[1], [0, 7, 0, 1, 0, 3, 3, 2]);
    assert_eq!(flame.levels[3], [0, 2, 2, 2]);
}

#[test]
fn json_of_an_answer_is_protobufs_own() {
    let flame = tree(&vec![(vec!["a\"b"], i64::MAX)]).flame(9);
    let seen = json::of_proto(flame.message().as_bytes(), FLAME_GRAPH_RESPONSE);
    let wanted = r#"{"flamegraph":{"names":["total","a\"b"],"levels":[{"values":["0","9223372036854775807","0","0"]},{"values":["0","9223372036854775807","9223372036854775807","1"]}],"total":"9223372036854775807","maxSelf":"9223372036854775807"}}"#;
    assert_eq!(String::from_utf8(seen).unwrap(), wanted);
    assert_eq!(json::of_proto(&[], FLAME_GRAPH_RESPONSE), b"{}");
}

#[test]
fn steps_are_named_by_their_ends_and_the_last_must_be_over() {
    let steps = Steps::new(1_000, 32_000, 15.0).unwrap();
    let ends = [999, 1_000, 1_001, 16_000, 16_001, 31_000, 31_001, i64::MAX];
    assert_eq!(
        ends.map(|moment| steps.end_of(moment)),
        [
            None,
            Some(1_000),
            Some(16_000),
            Some(16_000),
            Some(31_000),
            Some(31_000),
            None,
            None
        ]
    );
    for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-9, 1e10] {
        let refusal = Steps::new(0, 1, wrong).unwrap_err();
        assert!(
            refusal.text.starts_with("step must be a number of seconds"),
            "{}",
            refusal.text
        );
    }
}

/// The number of a bar's parent in the level above, as Grafana's data source finds it.
fn parents(level: &[i64], above: &[i64]) -> Vec<usize> {
    let spans = |level: &[i64]| {
        let mut end = 0;
        let bars = level.chunks(4).map(|bar| {
            let left = end + bar[0];
            end = left + bar[1];
            (left, end)
        });
        bars.collect::<Vec<_>>()
    };
    let above = spans(above);
    let bars = spans(level).into_iter();
    let parent = |(left, right)| above.iter().position(|bar| bar.0 <= left && right <= bar.1);
    bars.map(|bar| parent(bar).unwrap()).collect()
}

proptest! {
    #[test]
    fn no_bytes_are_too_bad_to_be_read(body in prop::collection::vec(any::<u8>(), 0..300)) {
        for schema in [DIFF_REQUEST, SELECT_SERIES_REQUEST] {
            for read in [Fields::of_proto(&body, schema), Fields::of_json(&body, schema)] {
                if let Err(refusal) = read {
                    prop_assert_eq!(refusal.status, 400);
                    prop_assert!(refusal.text.len() < 400);
                }
            }
        }
        json::of_proto(&body, FLAME_GRAPH_RESPONSE);
    }

    #[test]
    fn another_reader_agrees_on_which_bytes_are_a_request(
        start: i64, selector in ".{0,20}", cut in 0_usize..60, flip in 0_usize..60, bit in 0_u8..8,
    ) {
        let request = Stacktraces { start, label_selector: selector, ..Stacktraces::default() };
        let mut bytes = request.encode_to_vec();
        bytes.truncate(cut.max(1));
        if let Some(byte) = bytes.get_mut(flip) {
            *byte ^= 1 << bit;
        }
        let ours = Fields::of_proto(&bytes, SELECT_MERGE_STACKTRACES_REQUEST);
        if let (Ok(ours), Ok(theirs)) = (ours, Stacktraces::decode(&*bytes)) {
            prop_assert_eq!(ours.whole(3).unwrap_or(0), theirs.start);
            prop_assert_eq!(ours.text(2), theirs.label_selector);
        }
    }

    #[test]
    fn no_selector_is_too_bad_to_be_read(text in "[{}a-c=!~\",.*()\\\\|' ]{0,60}") {
        if let Ok(selector) = Selector::parse("label_selector", &text) {
            selector.matches(|_| Some("a"));
        }
    }

    #[test]
    fn each_bar_has_the_sum_of_what_is_its_own_and_below_it(
        stacks in prop::collection::vec(
            (prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "other"]), 0..6), 1_i64..9),
            0..40,
        ),
        most in 1_usize..30,
    ) {
        let all: i64 = stacks.iter().map(|(_, value)| value).sum();
        let flame = tree(&stacks).flame(most);
        prop_assert_eq!(flame.levels[0][1], all);
        let mut own: i64 = 0;
        for (place, level) in flame.levels.iter().enumerate() {
            own += level.chunks(4).map(|bar| bar[2]).sum::<i64>();
            let Some(below) = flame.levels.get(place + 1) else {
                continue;
            };
            let mut sums = vec![0; level.len() / 4];
            for (parent, bar) in parents(below, level).into_iter().zip(below.chunks(4)) {
                sums[parent] += bar[1];
                prop_assert!(bar[1] > 0);
            }
            for (bar, below) in level.chunks(4).zip(sums) {
                prop_assert_eq!(bar[1], bar[2] + below);
            }
        }
        prop_assert_eq!(own, all);
        let bars: usize = flame.levels.iter().map(|level| level.len() / 4).sum();
        prop_assert!(bars <= 2 * most, "{} bars", bars);
    }
}

#[test]
fn a_pattern_made_to_take_for_ever_is_over_at_once() {
    let begun = std::time::Instant::now();
    let value = "a".repeat(config::LABEL_BYTES);
    assert!(!matching("{k=~\"(a*)*(a*)*(a|aa)+b\"}", &[("k", &value)]));
    assert!(begun.elapsed() < Duration::from_secs(60));
}
