//! The messages that are read and written, by which both encodings are.

/// A message.
pub(crate) type Schema = &'static [Field];

/// A field of a message.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) number: u32,
    /// As the proto names it.
    pub(crate) name: &'static str,
    pub(super) kind: Kind,
    pub(super) is_list: bool,
}

/// What a field holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Text,
    Signed,
    Unsigned,
    Double,
    Flag,
    /// A number with names, from 0.
    Choice(&'static [&'static str]),
    Message(Schema),
}

const fn one(number: u32, name: &'static str, kind: Kind) -> Field {
    Field {
        number,
        name,
        kind,
        is_list: false,
    }
}

const fn list(number: u32, name: &'static str, kind: Kind) -> Field {
    Field {
        number,
        name,
        kind,
        is_list: true,
    }
}

/// A name as JSON has it: `max_self` is `maxSelf`.
pub(super) fn camel(name: &str) -> impl Iterator<Item = char> {
    let mut raise = false;
    name.chars().filter_map(move |letter| {
        if letter == '_' {
            raise = true;
            return None;
        }
        let raised = if raise {
            letter.to_ascii_uppercase()
        } else {
            letter
        };
        raise = false;
        Some(raised)
    })
}

const PROFILE_TYPE: Schema = &[
    one(1, "ID", Kind::Text),
    one(2, "name", Kind::Text),
    one(4, "sample_type", Kind::Text),
    one(5, "sample_unit", Kind::Text),
    one(6, "period_type", Kind::Text),
    one(7, "period_unit", Kind::Text),
];

pub(crate) const PROFILE_TYPES_REQUEST: Schema =
    &[one(1, "start", Kind::Signed), one(2, "end", Kind::Signed)];

pub(crate) const PROFILE_TYPES_RESPONSE: Schema =
    &[list(1, "profile_types", Kind::Message(PROFILE_TYPE))];

pub(crate) const LABEL_NAMES_REQUEST: Schema = &[
    list(1, "matchers", Kind::Text),
    one(2, "start", Kind::Signed),
    one(3, "end", Kind::Signed),
];

pub(crate) const LABEL_VALUES_REQUEST: Schema = &[
    one(1, "name", Kind::Text),
    list(2, "matchers", Kind::Text),
    one(3, "start", Kind::Signed),
    one(4, "end", Kind::Signed),
];

pub(crate) const NAMES_RESPONSE: Schema = &[list(1, "names", Kind::Text)];

pub(crate) const SERIES_REQUEST: Schema = &[
    list(1, "matchers", Kind::Text),
    list(2, "label_names", Kind::Text),
    one(3, "start", Kind::Signed),
    one(4, "end", Kind::Signed),
];

pub(crate) const SERIES_RESPONSE: Schema = &[list(
    2,
    "labels_set",
    Kind::Message(&[list(1, "labels", Kind::Message(LABEL_PAIR))]),
)];

const PROFILE_FORMATS: &[&str] = &[
    "PROFILE_FORMAT_UNSPECIFIED",
    "PROFILE_FORMAT_FLAMEGRAPH",
    "PROFILE_FORMAT_TREE",
    "PROFILE_FORMAT_DOT",
];

const STACK_TRACE_SELECTOR: Schema = &[
    list(1, "call_site", Kind::Message(&[one(1, "name", Kind::Text)])),
    one(2, "go_pgo", Kind::Message(&[])),
];

pub(crate) const SELECT_MERGE_STACKTRACES_REQUEST: Schema = &[
    one(1, "profile_typeID", Kind::Text),
    one(2, "label_selector", Kind::Text),
    one(3, "start", Kind::Signed),
    one(4, "end", Kind::Signed),
    one(5, "max_nodes", Kind::Signed),
    one(6, "format", Kind::Choice(PROFILE_FORMATS)),
    one(
        7,
        "stack_trace_selector",
        Kind::Message(STACK_TRACE_SELECTOR),
    ),
    list(8, "profile_id_selector", Kind::Text),
    list(11, "span_selector", Kind::Text),
];

const LEVEL: Schema = &[list(1, "values", Kind::Signed)];

const FLAME_GRAPH: Schema = &[
    list(1, "names", Kind::Text),
    list(2, "levels", Kind::Message(LEVEL)),
    one(3, "total", Kind::Signed),
    one(4, "max_self", Kind::Signed),
    // The last two are a difference's.
    one(5, "leftTicks", Kind::Signed),
    one(6, "rightTicks", Kind::Signed),
];

pub(crate) const FLAME_GRAPH_RESPONSE: Schema = &[one(1, "flamegraph", Kind::Message(FLAME_GRAPH))];

pub(crate) const SELECT_MERGE_SPAN_PROFILE_REQUEST: Schema = &[
    one(1, "profile_typeID", Kind::Text),
    one(2, "label_selector", Kind::Text),
    list(3, "span_selector", Kind::Text),
    one(4, "start", Kind::Signed),
    one(5, "end", Kind::Signed),
    one(6, "max_nodes", Kind::Signed),
    one(7, "format", Kind::Choice(PROFILE_FORMATS)),
];

pub(crate) const DIFF_REQUEST: Schema = &[
    one(1, "left", Kind::Message(SELECT_MERGE_STACKTRACES_REQUEST)),
    one(2, "right", Kind::Message(SELECT_MERGE_STACKTRACES_REQUEST)),
];

pub(crate) const SELECT_SERIES_REQUEST: Schema = &[
    one(1, "profile_typeID", Kind::Text),
    one(2, "label_selector", Kind::Text),
    one(3, "start", Kind::Signed),
    one(4, "end", Kind::Signed),
    list(5, "group_by", Kind::Text),
    one(6, "step", Kind::Double),
    one(
        7,
        "aggregation",
        Kind::Choice(&[
            "TIME_SERIES_AGGREGATION_TYPE_SUM",
            "TIME_SERIES_AGGREGATION_TYPE_AVERAGE",
        ]),
    ),
    one(
        8,
        "stack_trace_selector",
        Kind::Message(STACK_TRACE_SELECTOR),
    ),
    one(9, "limit", Kind::Signed),
];

const LABEL_PAIR: Schema = &[one(1, "name", Kind::Text), one(2, "value", Kind::Text)];

const SERIES: Schema = &[
    list(1, "labels", Kind::Message(LABEL_PAIR)),
    list(
        2,
        "points",
        Kind::Message(&[
            one(1, "value", Kind::Double),
            one(2, "timestamp", Kind::Signed),
        ]),
    ),
];

pub(crate) const SELECT_SERIES_RESPONSE: Schema = &[list(1, "series", Kind::Message(SERIES))];

pub(crate) const SELECT_MERGE_PROFILE_REQUEST: Schema = &[
    one(1, "profile_typeID", Kind::Text),
    one(2, "label_selector", Kind::Text),
    one(3, "start", Kind::Signed),
    one(4, "end", Kind::Signed),
    one(5, "max_nodes", Kind::Signed),
    one(
        6,
        "stack_trace_selector",
        Kind::Message(STACK_TRACE_SELECTOR),
    ),
    list(7, "profile_id_selector", Kind::Text),
];

const VALUE_TYPE: Schema = &[one(1, "type", Kind::Signed), one(2, "unit", Kind::Signed)];

const SAMPLE: Schema = &[
    list(1, "location_id", Kind::Unsigned),
    list(2, "value", Kind::Signed),
    list(
        3,
        "label",
        Kind::Message(&[
            one(1, "key", Kind::Signed),
            one(2, "str", Kind::Signed),
            one(3, "num", Kind::Signed),
            one(4, "num_unit", Kind::Signed),
        ]),
    ),
];

const MAPPING: Schema = &[
    one(1, "id", Kind::Unsigned),
    one(2, "memory_start", Kind::Unsigned),
    one(3, "memory_limit", Kind::Unsigned),
    one(4, "file_offset", Kind::Unsigned),
    one(5, "filename", Kind::Signed),
    one(6, "build_id", Kind::Signed),
    one(7, "has_functions", Kind::Flag),
    one(8, "has_filenames", Kind::Flag),
    one(9, "has_line_numbers", Kind::Flag),
    one(10, "has_inline_frames", Kind::Flag),
];

const LOCATION: Schema = &[
    one(1, "id", Kind::Unsigned),
    one(2, "mapping_id", Kind::Unsigned),
    one(3, "address", Kind::Unsigned),
    list(
        4,
        "line",
        Kind::Message(&[
            one(1, "function_id", Kind::Unsigned),
            one(2, "line", Kind::Signed),
        ]),
    ),
];

const FUNCTION: Schema = &[
    one(1, "id", Kind::Unsigned),
    one(2, "name", Kind::Signed),
    one(3, "system_name", Kind::Signed),
    one(4, "filename", Kind::Signed),
];

/// What of pprof's profile the agent writes.
pub(crate) const PROFILE: Schema = &[
    list(1, "sample_type", Kind::Message(VALUE_TYPE)),
    list(2, "sample", Kind::Message(SAMPLE)),
    list(3, "mapping", Kind::Message(MAPPING)),
    list(4, "location", Kind::Message(LOCATION)),
    list(5, "function", Kind::Message(FUNCTION)),
    list(6, "string_table", Kind::Text),
    one(9, "time_nanos", Kind::Signed),
    one(10, "duration_nanos", Kind::Signed),
    one(11, "period_type", Kind::Message(VALUE_TYPE)),
    one(12, "period", Kind::Signed),
    list(13, "comment", Kind::Signed),
    one(14, "default_sample_type", Kind::Signed),
];
