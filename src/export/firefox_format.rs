//! The tables of a processed profile as <https://profiler.firefox.com> reads them.
//!
//! Columns of equal length that refer to each other by index. What this agent never has is an empty
//! array of nothing.

use serde::Serialize;

#[derive(Serialize)]
pub(super) struct File<'a> {
    pub(super) meta: Meta<'a>,
    pub(super) libs: Vec<Lib<'a>>,
    pub(super) shared: Shared<'a>,
    pub(super) threads: Vec<Thread<'a>>,
    pub(super) pages: [(); 0],
    pub(super) counters: [(); 0],
    #[serde(rename = "profilerOverhead")]
    pub(super) overhead: [(); 0],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Meta<'a> {
    pub(super) preprocessed_profile_version: u32,
    /// Of the format before processing; nobody reads it beside the one above.
    pub(super) version: u32,
    pub(super) interval: f64,
    pub(super) start_time: f64,
    pub(super) profiling_start_time: f64,
    pub(super) profiling_end_time: f64,
    pub(super) process_type: u32,
    pub(super) stackwalk: u32,
    pub(super) debug: bool,
    pub(super) product: &'a str,
    pub(super) imported_from: &'static str,
    pub(super) categories: [Category; 3],
    pub(super) marker_schema: [(); 0],
    pub(super) extensions: Extensions,
    pub(super) sample_units: SampleUnits,
    pub(super) symbolicated: bool,
    pub(super) uses_only_one_stack_type: bool,
    pub(super) source_code_is_not_on_searchfox: bool,
    pub(super) keep_profile_thread_order: bool,
    pub(super) extra: [Extra<'a>; 1],
}

#[derive(Serialize)]
pub(super) struct Category {
    pub(super) name: &'static str,
    pub(super) color: &'static str,
    subcategories: [&'static str; 1],
}

impl Category {
    pub(super) const fn new(name: &'static str, color: &'static str) -> Self {
        Self {
            name,
            color,
            subcategories: ["Other"],
        }
    }
}

#[derive(Serialize, Default)]
pub(super) struct Extensions {
    pub(super) length: usize,
    #[serde(rename = "baseURL")]
    pub(super) base_url: [(); 0],
    pub(super) id: [(); 0],
    pub(super) name: [(); 0],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SampleUnits {
    pub(super) time: &'static str,
    pub(super) event_delay: &'static str,
    #[serde(rename = "threadCPUDelta")]
    pub(super) thread_cpu_delta: &'static str,
}

/// What the viewer lists under "more info".
#[derive(Serialize)]
pub(super) struct Extra<'a> {
    pub(super) label: &'static str,
    pub(super) entries: Vec<ExtraEntry<'a>>,
}

#[derive(Serialize)]
pub(super) struct ExtraEntry<'a> {
    pub(super) label: &'static str,
    pub(super) format: &'static str,
    pub(super) value: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Lib<'a> {
    pub(super) arch: Option<&'static str>,
    pub(super) name: &'a str,
    pub(super) path: &'a str,
    pub(super) debug_name: &'a str,
    pub(super) debug_path: &'a str,
    pub(super) breakpad_id: String,
    pub(super) code_id: Option<&'a str>,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shared<'a> {
    pub(super) string_array: Vec<&'a str>,
    pub(super) stack_table: StackTable,
    pub(super) frame_table: FrameTable,
    pub(super) func_table: FuncTable,
    pub(super) resource_table: ResourceTable,
    pub(super) native_symbols: NativeSymbols,
    pub(super) sources: Sources,
    pub(super) source_location_table: SourceLocations,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct StackTable {
    pub(super) frame: Vec<u32>,
    /// How far before a stack its callers' stack stands; 0 for a root.
    pub(super) prefix_offset: Vec<u32>,
    pub(super) length: usize,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct FrameTable {
    /// -1, for none: the viewer counts from the start of a file's image, which a mapping does not
    /// tell, and would look up other code.
    pub(super) address: Vec<i64>,
    /// 0 for the function that holds the code, from there inwards.
    pub(super) inline_depth: Vec<u8>,
    pub(super) category: Vec<u32>,
    pub(super) subcategory: Vec<u32>,
    pub(super) func: Vec<u32>,
    pub(super) native_symbol: Vec<Option<u32>>,
    #[serde(rename = "innerWindowID")]
    pub(super) inner_window_id: Vec<u32>,
    pub(super) line: Vec<Option<u32>>,
    pub(super) column: Vec<Option<u32>>,
    pub(super) original_location: Vec<Option<u32>>,
    pub(super) length: usize,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct FuncTable {
    pub(super) name: Vec<u32>,
    #[serde(rename = "isJS")]
    pub(super) is_js: Vec<bool>,
    #[serde(rename = "relevantForJS")]
    pub(super) relevant_for_js: Vec<bool>,
    pub(super) resource: Vec<i64>,
    pub(super) source: Vec<Option<u32>>,
    pub(super) line_number: Vec<Option<u32>>,
    pub(super) column_number: Vec<Option<u32>>,
    pub(super) original_location: Vec<Option<u32>>,
    pub(super) length: usize,
}

#[derive(Serialize, Default)]
pub(super) struct ResourceTable {
    pub(super) lib: Vec<u32>,
    pub(super) name: Vec<u32>,
    pub(super) host: Vec<Option<u32>>,
    pub(super) r#type: Vec<u32>,
    pub(super) length: usize,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct NativeSymbols {
    pub(super) lib_index: [(); 0],
    pub(super) address: [(); 0],
    pub(super) name: [(); 0],
    pub(super) function_size: [(); 0],
    pub(super) length: usize,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sources {
    pub(super) id: Vec<Option<u32>>,
    pub(super) filename: Vec<u32>,
    pub(super) start_line: Vec<u32>,
    pub(super) start_column: Vec<u32>,
    #[serde(rename = "sourceMapURL")]
    pub(super) source_map_url: Vec<Option<u32>>,
    pub(super) content: Vec<Option<u32>>,
    pub(super) length: usize,
}

#[derive(Serialize, Default)]
pub(super) struct SourceLocations {
    pub(super) source: [(); 0],
    pub(super) line: [(); 0],
    pub(super) column: [(); 0],
    pub(super) length: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Thread<'a> {
    pub(super) name: &'a str,
    pub(super) process_name: &'a str,
    pub(super) process_type: &'static str,
    pub(super) process_startup_time: f64,
    pub(super) process_shutdown_time: Option<f64>,
    pub(super) register_time: f64,
    pub(super) unregister_time: Option<f64>,
    pub(super) paused_ranges: [(); 0],
    pub(super) show_markers_in_timeline: bool,
    pub(super) is_main_thread: bool,
    pub(super) pid: String,
    pub(super) tid: usize,
    pub(super) samples: Samples,
    pub(super) markers: Markers,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct Samples {
    pub(super) stack: Vec<Option<u32>>,
    /// Milliseconds since the profile's start.
    pub(super) time: Vec<f64>,
    pub(super) weight: Vec<f64>,
    pub(super) weight_type: &'static str,
    /// CPU time used since the sample before.
    #[serde(rename = "threadCPUDelta")]
    pub(super) thread_cpu_delta: Vec<i64>,
    pub(super) length: usize,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct Markers {
    pub(super) data: [(); 0],
    pub(super) name: [(); 0],
    pub(super) start_time: [(); 0],
    pub(super) end_time: [(); 0],
    pub(super) phase: [(); 0],
    pub(super) category: [(); 0],
    pub(super) length: usize,
}
