//! The rows: every family that the agent itself fills.
//!
//! Names follow OpenTelemetry's semantic conventions where they exist, with Prometheus's unit
//! suffixes; the rest is ours because no convention speaks of caches, worker pools or tokio.

use super::bounds::Bounds;
use super::{Metric, Signal, Unit};

pub(crate) static HTTP_SERVER_REQUEST_DURATION: Metric = Metric::histogram(
    "http_server_request_duration_seconds",
    "Duration of requests served, from the head received to the last byte of the body.",
    Unit::Seconds,
    Bounds::Request,
)
.labels(&[
    "http_request_method",
    "http_route",
    "http_response_status_code",
    "url_scheme",
    "error_type",
])
.otel("http.server.request.duration")
.exemplars()
.signal(Signal::Request);
pub(crate) static HTTP_SERVER_ACTIVE_REQUESTS: Metric =
    Metric::up_down("http_server_active_requests", "Requests being served now.")
        .labels(&["http_request_method", "url_scheme"])
        .otel("http.server.active_requests")
        .signal(Signal::Request);
pub(crate) static HTTP_SERVER_REQUEST_BODY_SIZE: Metric = Metric::histogram(
    "http_server_request_body_size_bytes",
    "Size of request bodies as announced by Content-Length.",
    Unit::Bytes,
    Bounds::Size,
)
.labels(&[
    "http_request_method",
    "http_route",
    "http_response_status_code",
])
.otel("http.server.request.body.size")
.signal(Signal::Request);
pub(crate) static HTTP_SERVER_RESPONSE_BODY_SIZE: Metric = Metric::histogram(
    "http_server_response_body_size_bytes",
    "Size of response bodies as sent, after compression.",
    Unit::Bytes,
    Bounds::Size,
)
.labels(&[
    "http_request_method",
    "http_route",
    "http_response_status_code",
])
.otel("http.server.response.body.size")
.signal(Signal::Request);
pub(crate) static HTTP_SERVER_TIME_TO_FIRST_BYTE: Metric = Metric::histogram(
    "http_server_time_to_first_byte_seconds",
    "Time from the request head to the response head.",
    Unit::Seconds,
    Bounds::Request,
)
.labels(&["http_request_method", "http_route"])
.signal(Signal::Request);
pub(crate) static HTTP_SERVER_CPU_TIME: Metric = Metric::observed_counter(
    "http_server_cpu_seconds_total",
    "CPU time by route, from the CPU samples; <none> is work that served no labelled request.",
)
.unit(Unit::Seconds)
.labels(&["http_route"])
.signal(Signal::Cpu);
pub(crate) static HTTP_SERVER_ALLOCATED: Metric = Metric::observed_counter(
    "http_server_allocated_bytes_total",
    "Bytes allocated by route, estimated from heap samples; <none> is work that served no labelled request.",
)
.unit(Unit::Bytes)
.labels(&["http_route"])
.signal(Signal::Heap);
pub(crate) static HTTP_SERVER_RESPONSE_ABORTED: Metric = Metric::counter(
    "http_server_response_aborted_total",
    "Responses that ended before their last byte.",
)
.labels(&["http_route", "reason"])
.signal(Signal::Request);
pub(crate) static HTTP_SERVER_REQUESTS_SHED: Metric = Metric::counter(
    "http_server_requests_shed_total",
    "Requests refused because a part was full: queue, pool, rate or drain.",
)
.labels(&["reason"])
.signal(Signal::Request);
pub(crate) static HTTP_SERVER_OPEN_CONNECTIONS: Metric = Metric::up_down(
    "http_server_open_connections",
    "Client connections open now.",
)
.labels(&["network_protocol_version"])
.signal(Signal::Request);
pub(crate) static HTTP_SERVER_CONNECTIONS: Metric = Metric::counter(
    "http_server_connections_total",
    "Client connections accepted.",
)
.labels(&["network_protocol_version"])
.signal(Signal::Request);
pub(crate) static HTTP_SERVER_CONNECTION_REJECTED: Metric = Metric::counter(
    "http_server_connection_rejected_total",
    "Client connections refused or cut by a limit.",
)
.labels(&["reason"])
.signal(Signal::Request);
pub(crate) static HTTP_SERVER_REQUESTS_PER_CONNECTION: Metric = Metric::histogram(
    "http_server_requests_per_connection",
    "Requests that a client connection carried before it closed.",
    Unit::Count,
    Bounds::Rows,
)
.labels(&["network_protocol_version"])
.signal(Signal::Request);
pub(crate) static CACHE_REQUESTS: Metric = Metric::counter(
    "cache_requests_total",
    "Cache lookups by level and result; hit ratio = (hit + stale) / (hit + stale + miss + error).",
)
.labels(&["cache_name", "cache_level", "cache_result", "cache_class"])
.signal(Signal::Cache);
pub(crate) static CACHE_OPERATION_DURATION: Metric = Metric::histogram(
    "cache_operation_duration_seconds",
    "Duration of cache operations.",
    Unit::Seconds,
    Bounds::Cache,
)
.labels(&["cache_name", "cache_level", "operation", "cache_result"])
.signal(Signal::Cache);
pub(crate) static CACHE_ENTRIES: Metric = Metric::gauge("cache_entries", "Entries held.")
    .labels(&["cache_name", "cache_level"])
    .signal(Signal::Cache);
pub(crate) static CACHE_SIZE: Metric = Metric::gauge(
    "cache_size_bytes",
    "Weight of the entries held, as the cache counts it.",
)
.unit(Unit::Bytes)
.labels(&["cache_name", "cache_level"])
.signal(Signal::Cache);
pub(crate) static CACHE_CAPACITY: Metric =
    Metric::gauge("cache_capacity_bytes", "Weight at which the cache evicts.")
        .unit(Unit::Bytes)
        .labels(&["cache_name", "cache_level"])
        .signal(Signal::Cache);
pub(crate) static CACHE_EVICTIONS: Metric =
    Metric::counter("cache_evictions_total", "Entries that left the cache.")
        .labels(&["cache_name", "cache_level", "cause"])
        .signal(Signal::Cache);
pub(crate) static CACHE_INVALIDATIONS: Metric = Metric::counter(
    "cache_invalidations_total",
    "Invalidations by time, event or dependency.",
)
.labels(&["cache_name", "cache_level", "kind"])
.signal(Signal::Cache);
pub(crate) static CACHE_FLUSHES: Metric =
    Metric::counter("cache_flushes_total", "Times the whole cache was dropped.")
        .labels(&["cache_name", "cache_level", "reason"])
        .signal(Signal::Cache);
pub(crate) static CACHE_LOADS: Metric = Metric::counter(
    "cache_loads_total",
    "Loads from behind the last cache level.",
)
.labels(&["cache_name", "cache_class"])
.signal(Signal::Cache);
pub(crate) static CACHE_REFRESHES: Metric = Metric::counter(
    "cache_refreshes_total",
    "Loads in the background while a stale entry was served.",
)
.labels(&["cache_name"])
.signal(Signal::Cache);
pub(crate) static CACHE_INVALIDATION_LAG: Metric = Metric::histogram(
    "cache_invalidation_lag_seconds",
    "Time from a committed change to its invalidation here.",
    Unit::Seconds,
    Bounds::Wait,
)
.labels(&["cache_name"])
.signal(Signal::Cache);
pub(crate) static CACHE_COALESCED_REQUESTS: Metric = Metric::counter(
    "cache_coalesced_requests_total",
    "Lookups that waited for another lookup's load.",
)
.labels(&["cache_name", "outcome"])
.signal(Signal::Cache);
pub(crate) static CACHE_LOAD_INFLIGHT: Metric =
    Metric::up_down("cache_load_inflight", "Loads running now.")
        .labels(&["cache_name"])
        .signal(Signal::Cache);
pub(crate) static CACHE_COALESCE_WAIT: Metric = Metric::histogram(
    "cache_coalesce_wait_seconds",
    "Time that coalesced lookups waited.",
    Unit::Seconds,
    Bounds::Wait,
)
.labels(&["cache_name"])
.signal(Signal::Cache);
pub(crate) static DB_CLIENT_OPERATION_DURATION: Metric = Metric::histogram(
    "db_client_operation_duration_seconds",
    "Duration of database operations as the caller saw them.",
    Unit::Seconds,
    Bounds::Db,
)
.labels(&[
    "db_system_name",
    "db_namespace",
    "db_operation_name",
    "db_collection_name",
    "db_query_summary",
    "error_type",
])
.otel("db.client.operation.duration")
.series_limit(500)
.signal(Signal::Query);
pub(crate) static DB_CLIENT_SLOW_QUERIES: Metric = Metric::counter(
    "db_client_slow_queries_total",
    "Database operations slower than the threshold.",
)
.labels(&["db_system_name", "db_query_summary", "threshold"])
.series_limit(500)
.signal(Signal::Query);
pub(crate) static DB_CLIENT_RESPONSE_RETURNED_ROWS: Metric = Metric::histogram(
    "db_client_response_returned_rows",
    "Rows returned by a database operation.",
    Unit::Count,
    Bounds::Rows,
)
.labels(&["db_query_summary"])
.otel("db.client.response.returned_rows")
.series_limit(500)
.signal(Signal::Query);
pub(crate) static DB_QUERIES_PER_REQUEST: Metric = Metric::histogram(
    "db_queries_per_request",
    "Database operations made while serving one request.",
    Unit::Count,
    Bounds::Rows,
)
.labels(&["http_route"])
.signal(Signal::Query);
pub(crate) static DB_CLIENT_CONNECTION_COUNT: Metric =
    Metric::gauge("db_client_connections", "Connections of the pool by state.")
        .labels(&[
            "db_client_connection_pool_name",
            "db_client_connection_state",
        ])
        .otel("db.client.connection.count")
        .signal(Signal::Pool);
pub(crate) static DB_CLIENT_CONNECTION_MAX: Metric = Metric::gauge(
    "db_client_connection_max",
    "Connections that the pool may open.",
)
.labels(&["db_client_connection_pool_name"])
.otel("db.client.connection.max")
.signal(Signal::Pool);
pub(crate) static DB_CLIENT_CONNECTION_IDLE_MAX: Metric = Metric::gauge(
    "db_client_connection_idle_max",
    "Idle connections that the pool may keep.",
)
.labels(&["db_client_connection_pool_name"])
.otel("db.client.connection.idle.max")
.signal(Signal::Pool);
pub(crate) static DB_CLIENT_CONNECTION_IDLE_MIN: Metric = Metric::gauge(
    "db_client_connection_idle_min",
    "Idle connections that the pool keeps at least.",
)
.labels(&["db_client_connection_pool_name"])
.otel("db.client.connection.idle.min")
.signal(Signal::Pool);
pub(crate) static DB_CLIENT_CONNECTION_PENDING_REQUESTS: Metric = Metric::up_down(
    "db_client_connection_pending_requests",
    "Callers waiting for a connection now.",
)
.labels(&["db_client_connection_pool_name"])
.otel("db.client.connection.pending_requests")
.signal(Signal::Pool);
pub(crate) static DB_CLIENT_CONNECTION_WAIT_TIME: Metric = Metric::histogram(
    "db_client_connection_wait_time_seconds",
    "Time that callers waited for a connection.",
    Unit::Seconds,
    Bounds::Wait,
)
.labels(&["db_client_connection_pool_name"])
.otel("db.client.connection.wait_time")
.signal(Signal::Pool);
pub(crate) static DB_CLIENT_CONNECTION_USE_TIME: Metric = Metric::histogram(
    "db_client_connection_use_time_seconds",
    "Time from borrowing a connection to giving it back.",
    Unit::Seconds,
    Bounds::Wait,
)
.labels(&["db_client_connection_pool_name"])
.otel("db.client.connection.use_time")
.signal(Signal::Pool);
pub(crate) static DB_CLIENT_CONNECTION_CREATE_TIME: Metric = Metric::histogram(
    "db_client_connection_create_time_seconds",
    "Time to open a connection.",
    Unit::Seconds,
    Bounds::Wait,
)
.labels(&["db_client_connection_pool_name"])
.otel("db.client.connection.create_time")
.signal(Signal::Pool);
pub(crate) static DB_CLIENT_CONNECTION_TIMEOUTS: Metric = Metric::counter(
    "db_client_connection_timeouts_total",
    "Callers that gave up waiting for a connection.",
)
.labels(&["db_client_connection_pool_name"])
.otel("db.client.connection.timeouts")
.signal(Signal::Pool);
pub(crate) static DB_CLIENT_CONNECTION_CLOSED: Metric = Metric::counter(
    "db_client_connection_closed_total",
    "Connections closed by the pool.",
)
.labels(&["db_client_connection_pool_name", "reason"])
.signal(Signal::Pool);
pub(crate) static WORKER_POOL_WORKERS: Metric =
    Metric::up_down("worker_pool_workers", "Workers by state.")
        .labels(&["pool", "state"])
        .signal(Signal::Pool);
pub(crate) static WORKER_POOL_QUEUE_DEPTH: Metric =
    Metric::gauge("worker_pool_queue_depth", "Jobs waiting in the queue.")
        .labels(&["pool"])
        .signal(Signal::Pool);
pub(crate) static WORKER_POOL_QUEUE_CAPACITY: Metric = Metric::gauge(
    "worker_pool_queue_capacity",
    "Jobs that the queue may hold.",
)
.labels(&["pool"])
.signal(Signal::Pool);
pub(crate) static WORKER_POOL_JOB_WAIT: Metric = Metric::histogram(
    "worker_pool_job_wait_seconds",
    "Time that a job waited in the queue.",
    Unit::Seconds,
    Bounds::Wait,
)
.labels(&["pool"])
.signal(Signal::Pool);
pub(crate) static WORKER_POOL_JOB_DURATION: Metric = Metric::histogram(
    "worker_pool_job_duration_seconds",
    "Time that a job ran.",
    Unit::Seconds,
    Bounds::Wait,
)
.labels(&["pool"])
.signal(Signal::Pool);
pub(crate) static WORKER_POOL_JOBS: Metric =
    Metric::counter("worker_pool_jobs_total", "Jobs finished.")
        .labels(&["pool", "result"])
        .signal(Signal::Pool);
pub(crate) static WORKER_POOL_REJECTED: Metric =
    Metric::counter("worker_pool_rejected_total", "Jobs refused.")
        .labels(&["pool", "reason"])
        .signal(Signal::Pool);
pub(crate) static BUFFER_POOL_GETS: Metric = Metric::counter(
    "buffer_pool_gets_total",
    "Buffers taken, reused or newly allocated.",
)
.labels(&["pool", "result"])
.signal(Signal::Pool);
pub(crate) static BUFFER_POOL_RETURNS: Metric = Metric::counter(
    "buffer_pool_returns_total",
    "Buffers given back, kept or discarded.",
)
.labels(&["pool", "result"])
.signal(Signal::Pool);
pub(crate) static BUFFER_POOL_BUFFERS: Metric =
    Metric::up_down("buffer_pool_buffers", "Buffers kept for reuse.")
        .labels(&["pool"])
        .signal(Signal::Pool);
pub(crate) static BUFFER_POOL_BYTES: Metric =
    Metric::up_down("buffer_pool_bytes", "Bytes kept for reuse.")
        .unit(Unit::Bytes)
        .labels(&["pool"])
        .signal(Signal::Pool);
pub(crate) static ALLOCATOR_ALLOCATIONS: Metric = Metric::observed_counter(
    "allocator_allocations_total",
    "Blocks allocated by Rust code, estimated from heap samples.",
)
.signal(Signal::Heap);
pub(crate) static ALLOCATOR_ALLOCATED: Metric = Metric::observed_counter(
    "allocator_allocated_bytes_total",
    "Bytes allocated by Rust code, estimated from heap samples.",
)
.unit(Unit::Bytes)
.signal(Signal::Heap);
pub(crate) static HEAP_PROFILE_LIVE: Metric = Metric::gauge(
    "heap_profile_live_bytes",
    "Bytes allocated by Rust code and in use, estimated from heap samples.",
)
.unit(Unit::Bytes)
.signal(Signal::Heap);
pub(crate) static ALLOCATOR_BYTES: Metric = Metric::gauge(
    "allocator_bytes",
    "Memory as the allocator sees it: allocated by the program, then what pages come on top.",
)
.unit(Unit::Bytes)
.labels(&["allocator", "kind"])
.signal(Signal::Heap);
pub(crate) static PROCESS_CPU_TIME: Metric = Metric::observed_counter(
    "process_cpu_time_seconds_total",
    "CPU time of the process by mode.",
)
.unit(Unit::Seconds)
.labels(&["cpu_mode"])
.otel("process.cpu.time")
.signal(Signal::Process);
pub(crate) static PROCESS_CPU_UTILIZATION: Metric = Metric::gauge(
    "process_cpu_utilization_ratio",
    "CPU time of the process as a share of its limit, over the last collection interval.",
)
.unit(Unit::Ratio)
.otel("process.cpu.utilization")
.signal(Signal::Process);
pub(crate) static PROCESS_MEMORY_UTILIZATION: Metric = Metric::gauge(
    "process_memory_utilization_ratio",
    "Resident memory of the process as a share of its limit.",
)
.unit(Unit::Ratio)
.otel("process.memory.utilization")
.signal(Signal::Process);
pub(crate) static PROCESS_CPU_LIMIT: Metric = Metric::gauge(
    "process_cpu_limit_cores",
    "Cores that the process may use: the smaller of usable CPUs and cgroup quota.",
)
.signal(Signal::Process);
pub(crate) static PROCESS_MEMORY_LIMIT: Metric = Metric::gauge(
    "process_memory_limit_bytes",
    "Memory that the process may use: the smaller of the machine's and the cgroup's.",
)
.unit(Unit::Bytes)
.signal(Signal::Process);
pub(crate) static PROCESS_MEMORY_SOFT_LIMIT: Metric = Metric::gauge(
    "process_memory_soft_limit_bytes",
    "Memory above which the host's caches are told to give some back.",
)
.unit(Unit::Bytes)
.signal(Signal::Process);
pub(crate) static PROCESS_MEMORY_PRESSURE: Metric = Metric::gauge(
    "process_memory_pressure",
    "1 while resident memory is above the soft limit, until it is below 15/16 of it; else 0.",
)
.signal(Signal::Process);
pub(crate) static PROCESS_MEMORY_PRESSURE_CHANGES: Metric = Metric::counter(
    "process_memory_pressure_changes_total",
    "Changes of the memory pressure by the level that began.",
)
.labels(&["level"])
.signal(Signal::Process);
pub(crate) static PROCESS_MEMORY_USAGE: Metric = Metric::gauge(
    "process_memory_usage_bytes",
    "Resident memory of the process.",
)
.unit(Unit::Bytes)
.otel("process.memory.usage")
.signal(Signal::Process);
pub(crate) static PROCESS_MEMORY_VIRTUAL: Metric = Metric::gauge(
    "process_memory_virtual_bytes",
    "Virtual memory of the process.",
)
.unit(Unit::Bytes)
.otel("process.memory.virtual")
.signal(Signal::Process);
pub(crate) static PROCESS_DISK_IO: Metric = Metric::observed_counter(
    "process_disk_io_bytes_total",
    "Bytes that the process caused to be moved to and from storage.",
)
.unit(Unit::Bytes)
.labels(&["disk_io_direction"])
.otel("process.disk.io")
.signal(Signal::Process);
pub(crate) static PROCESS_DISK_OPERATIONS: Metric = Metric::observed_counter(
    "process_disk_operations_total",
    "Read and write system calls of the process.",
)
.labels(&["disk_io_direction"])
.otel("process.disk.operations")
.signal(Signal::Process);
pub(crate) static PROCESS_NETWORK_IO: Metric = Metric::counter(
    "process_network_io_bytes_total",
    "Bytes moved on the sockets that this agent's layers can see.",
)
.unit(Unit::Bytes)
.labels(&["network_io_direction"])
.otel("process.network.io")
.signal(Signal::Process);
pub(crate) static PROCESS_THREAD_COUNT: Metric =
    Metric::gauge("process_threads", "Threads of the process.")
        .otel("process.thread.count")
        .signal(Signal::Process);
pub(crate) static PROCESS_FD_COUNT: Metric = Metric::gauge(
    "process_unix_file_descriptors",
    "Open file descriptors of the process.",
)
.otel("process.unix.file_descriptor.count")
.signal(Signal::Process);
pub(crate) static PROCESS_FD_LIMIT: Metric = Metric::gauge(
    "process_unix_file_descriptor_limit",
    "File descriptors that the process may open.",
)
.signal(Signal::Process);
pub(crate) static PROCESS_CONTEXT_SWITCHES: Metric = Metric::observed_counter(
    "process_context_switches_total",
    "Context switches of the process.",
)
.labels(&["process_context_switch_type"])
.otel("process.context_switches")
.signal(Signal::Process);
pub(crate) static PROCESS_PAGING_FAULTS: Metric =
    Metric::observed_counter("process_paging_faults_total", "Page faults of the process.")
        .labels(&["system_paging_fault_type"])
        .otel("process.paging.faults")
        .signal(Signal::Process);
pub(crate) static PROCESS_UPTIME: Metric =
    Metric::gauge("process_uptime_seconds", "Time since the process started.")
        .unit(Unit::Seconds)
        .otel("process.uptime")
        .signal(Signal::Process);
pub(crate) static PROCESS_CPU_SECONDS: Metric = Metric::observed_counter(
    "process_cpu_seconds_total",
    "Total user and system CPU time of the process (the name that Prometheus clients use).",
)
.unit(Unit::Seconds)
.signal(Signal::Process);
pub(crate) static PROCESS_RESIDENT_MEMORY: Metric = Metric::gauge(
    "process_resident_memory_bytes",
    "Resident memory of the process (the name that Prometheus clients use).",
)
.unit(Unit::Bytes)
.signal(Signal::Process);
pub(crate) static PROCESS_VIRTUAL_MEMORY: Metric = Metric::gauge(
    "process_virtual_memory_bytes",
    "Virtual memory of the process (the name that Prometheus clients use).",
)
.unit(Unit::Bytes)
.signal(Signal::Process);
pub(crate) static PROCESS_OPEN_FDS: Metric = Metric::gauge(
    "process_open_fds",
    "Open file descriptors (the name that Prometheus clients use).",
)
.signal(Signal::Process);
pub(crate) static PROCESS_MAX_FDS: Metric = Metric::gauge(
    "process_max_fds",
    "File descriptors that may be open (the name that Prometheus clients use).",
)
.signal(Signal::Process);
pub(crate) static PROCESS_START_TIME: Metric = Metric::gauge(
    "process_start_time_seconds",
    "Start of the process since the Unix epoch (the name that Prometheus clients use).",
)
.unit(Unit::Seconds)
.signal(Signal::Process);
pub(crate) static SYSTEM_CPU_UTILIZATION: Metric = Metric::gauge(
    "system_cpu_utilization_ratio",
    "CPU time of the machine by mode, as a share of all cores.",
)
.unit(Unit::Ratio)
.labels(&["cpu_mode"])
.otel("system.cpu.utilization")
.signal(Signal::Host);
pub(crate) static SYSTEM_MEMORY_UTILIZATION: Metric = Metric::gauge(
    "system_memory_utilization_ratio",
    "Memory of the machine by state, as a share of all memory.",
)
.unit(Unit::Ratio)
.labels(&["system_memory_state"])
.otel("system.memory.utilization")
.signal(Signal::Host);
pub(crate) static SYSTEM_DISK_IO: Metric = Metric::observed_counter(
    "system_disk_io_bytes_total",
    "Bytes moved to and from each disk.",
)
.unit(Unit::Bytes)
.labels(&["system_device", "disk_io_direction"])
.otel("system.disk.io")
.signal(Signal::Host);
pub(crate) static SYSTEM_DISK_IO_TIME: Metric = Metric::observed_counter(
    "system_disk_io_time_seconds_total",
    "Time that each disk was busy; its rate is the disk target.",
)
.unit(Unit::Seconds)
.labels(&["system_device"])
.otel("system.disk.io_time")
.signal(Signal::Host);
pub(crate) static SYSTEM_NETWORK_IO: Metric = Metric::observed_counter(
    "system_network_io_bytes_total",
    "Bytes moved on each network interface.",
)
.unit(Unit::Bytes)
.labels(&["network_interface_name", "network_io_direction"])
.otel("system.network.io")
.signal(Signal::Host);
pub(crate) static SYSTEM_FILESYSTEM_UTILIZATION: Metric = Metric::gauge(
    "system_filesystem_utilization_ratio",
    "Used share of each file system.",
)
.unit(Unit::Ratio)
.labels(&["system_device", "system_filesystem_mountpoint"])
.otel("system.filesystem.utilization")
.signal(Signal::Host);
pub(crate) static CONTAINER_CPU_LIMIT: Metric = Metric::gauge(
    "container_cpu_limit_cores",
    "CPU quota of the cgroup in cores; absent without a quota.",
)
.signal(Signal::Host);
pub(crate) static CONTAINER_MEMORY_LIMIT: Metric = Metric::gauge(
    "container_memory_limit_bytes",
    "Memory limit of the cgroup; absent without a limit.",
)
.unit(Unit::Bytes)
.signal(Signal::Host);
pub(crate) static CONTAINER_MEMORY_WORKING_SET: Metric = Metric::gauge(
    "container_memory_working_set_bytes",
    "Memory of the cgroup that cannot be reclaimed at once.",
)
.unit(Unit::Bytes)
.otel("container.memory.working_set")
.signal(Signal::Host);
pub(crate) static CONTAINER_CPU_THROTTLED: Metric = Metric::observed_counter(
    "container_cpu_throttled_seconds_total",
    "Time that the cgroup was held back by its CPU quota.",
)
.unit(Unit::Seconds)
.signal(Signal::Host);
pub(crate) static CONTAINER_CPU_PERIODS: Metric = Metric::observed_counter(
    "container_cpu_periods_total",
    "Scheduling periods of the cgroup, by whether it was throttled in them.",
)
.labels(&["throttled"])
.signal(Signal::Host);
pub(crate) static CONTAINER_OOM_EVENTS: Metric = Metric::observed_counter(
    "container_oom_events_total",
    "Processes of the cgroup killed for lack of memory.",
)
.signal(Signal::Host);
pub(crate) static PRESSURE_STALL: Metric = Metric::observed_counter(
    "pressure_stall_seconds_total",
    "Time that tasks were stalled on a resource.",
)
.unit(Unit::Seconds)
.labels(&["resource", "kind"])
.signal(Signal::Host);
pub(crate) static TOKIO_WORKERS: Metric =
    Metric::gauge("tokio_workers", "Worker threads of the runtime.")
        .labels(&["runtime"])
        .signal(Signal::Runtime);
pub(crate) static TOKIO_ALIVE_TASKS: Metric =
    Metric::gauge("tokio_alive_tasks", "Tasks that have not finished.")
        .labels(&["runtime"])
        .signal(Signal::Runtime);
pub(crate) static TOKIO_GLOBAL_QUEUE_DEPTH: Metric = Metric::gauge(
    "tokio_global_queue_depth",
    "Tasks waiting in the runtime's global queue.",
)
.labels(&["runtime"])
.signal(Signal::Runtime);
pub(crate) static TOKIO_WORKER_BUSY: Metric = Metric::observed_counter(
    "tokio_worker_busy_seconds_total",
    "Time that a worker spent polling tasks.",
)
.unit(Unit::Seconds)
.labels(&["runtime", "worker"])
.signal(Signal::Runtime);
pub(crate) static TOKIO_WORKER_PARKS: Metric =
    Metric::observed_counter("tokio_worker_parks_total", "Times that a worker parked.")
        .labels(&["runtime", "worker"])
        .signal(Signal::Runtime);
pub(crate) static TOKIO_SCHEDULE_DELAY: Metric = Metric::histogram(
    "tokio_schedule_delay_seconds",
    "Time from waking a task of the runtime to its poll; high when workers are blocked.",
    Unit::Seconds,
    Bounds::Wait,
)
.labels(&["runtime"])
.signal(Signal::Runtime);
pub(crate) static AGENT_CPU: Metric = Metric::observed_counter(
    "agent_cpu_seconds_total",
    "CPU time of the agent's own threads.",
)
.unit(Unit::Seconds)
.labels(&["component"])
.signal(Signal::Agent);
pub(crate) static AGENT_MEMORY: Metric =
    Metric::gauge("agent_memory_bytes", "Memory held by parts of the agent.")
        .unit(Unit::Bytes)
        .labels(&["component"])
        .signal(Signal::Agent);
pub(crate) static AGENT_UP: Metric = Metric::gauge(
    "agent_up",
    "1 while the part runs, 0 while it is being restarted.",
)
.labels(&["component"])
.signal(Signal::Agent);
pub(crate) static AGENT_PANICS: Metric = Metric::counter(
    "agent_panics_total",
    "Panics caught in the agent's threads and in callbacks given to it.",
)
.labels(&["component"])
.signal(Signal::Agent);
pub(crate) static AGENT_PROFILE_SAMPLES: Metric = Metric::counter(
    "agent_profile_samples_total",
    "Profile samples by what became of them.",
)
.labels(&["kind", "result"])
.signal(Signal::Agent);
pub(crate) static AGENT_PROFILE_COVERAGE: Metric = Metric::gauge(
    "agent_profile_coverage_ratio",
    "Sampled CPU time as a share of the CPU time that the host used in the last minute; absent while \
     that is too little to tell.",
)
.unit(Unit::Ratio)
.labels(&["kind"])
.signal(Signal::Agent);
pub(crate) static AGENT_PROFILE_EXPECTED: Metric = Metric::counter(
    "agent_profile_expected_samples_total",
    "Samples that the host's CPU time should have given at the rate of its moment.",
)
.labels(&["kind"])
.signal(Signal::Agent);
pub(crate) static AGENT_PROFILE_LOST: Metric = Metric::counter(
    "agent_profile_lost_samples_total",
    "Samples that were due and could not be had, by cause.",
)
.labels(&["kind", "reason"])
.signal(Signal::Agent);
pub(crate) static AGENT_PROFILE_TRUNCATED: Metric = Metric::counter(
    "agent_profile_truncated_samples_total",
    "Recorded samples whose stack was not followed to its end.",
)
.labels(&["kind"])
.signal(Signal::Agent);
pub(crate) static AGENT_PROFILE_RATE: Metric = Metric::gauge(
    "agent_profile_rate_hertz",
    "Samples that are being taken per second of CPU time; absent while none are.",
)
.labels(&["kind"])
.signal(Signal::Agent);
pub(crate) static AGENT_PROFILE_RATE_LIMIT: Metric = Metric::gauge(
    "agent_profile_rate_limit_hertz",
    "The rate above which sampling cost more than its budget; absent while any rate is allowed.",
)
.labels(&["kind"])
.signal(Signal::Agent);
pub(crate) static AGENT_PROFILE_SLOWDOWNS: Metric = Metric::counter(
    "agent_profile_slowdowns_total",
    "Times that the sampling rate was halved because it cost more than its budget.",
)
.labels(&["kind"])
.signal(Signal::Agent);
pub(crate) static AGENT_HEAP_SAMPLES: Metric = Metric::observed_counter(
    "agent_heap_samples_total",
    "Heap samples whose stacks were recorded.",
)
.signal(Signal::Agent);
pub(crate) static AGENT_HEAP_LOST: Metric = Metric::observed_counter(
    "agent_heap_lost_samples_total",
    "Heap samples of which the stack or the whole block could not be recorded.",
)
.labels(&["reason"])
.signal(Signal::Agent);
pub(crate) static AGENT_HEAP_ENTRIES: Metric = Metric::gauge(
    "agent_heap_entries",
    "What the tables of heap samples hold: blocks that live, stacks, stacks by labels.",
)
.labels(&["table"])
.signal(Signal::Agent);
pub(crate) static AGENT_HEAP_LIMIT: Metric = Metric::gauge(
    "agent_heap_entries_limit",
    "What the tables of heap samples may hold.",
)
.labels(&["table"])
.signal(Signal::Agent);
pub(crate) static AGENT_HEAP_MEMORY: Metric = Metric::gauge(
    "agent_heap_memory_bytes",
    "Memory of the tables of heap samples.",
)
.unit(Unit::Bytes)
.signal(Signal::Agent);
pub(crate) static AGENT_HEAP_PERIOD: Metric = Metric::gauge(
    "agent_heap_period_bytes",
    "Mean bytes allocated between two heap samples; 0: sampling is off.",
)
.unit(Unit::Bytes)
.signal(Signal::Agent);
pub(crate) static AGENT_SCRAPE_DURATION: Metric = Metric::histogram(
    "agent_scrape_duration_seconds",
    "Time to answer a scrape.",
    Unit::Seconds,
    Bounds::Wait,
)
.labels(&["format"])
.signal(Signal::Agent);
pub(crate) static AGENT_SCRAPE_BYTES: Metric = Metric::gauge(
    "agent_scrape_bytes",
    "Size of the last page before compression.",
)
.unit(Unit::Bytes)
.labels(&["format"])
.signal(Signal::Agent);
pub(crate) static AGENT_SCRAPE_CONFLICTS: Metric = Metric::counter(
    "agent_scrape_conflicts_total",
    "Foreign families left out of the page, by reason.",
)
.labels(&["source"])
.signal(Signal::Agent);
pub(crate) static AGENT_SERIES: Metric =
    Metric::gauge("agent_series", "Label sets held per family.")
        .labels(&["family"])
        .signal(Signal::Agent);
pub(crate) static AGENT_SERIES_OVERFLOW: Metric = Metric::counter(
    "agent_series_overflow_total",
    "Events and handles that went to a family's overflow series.",
)
.labels(&["family"])
.signal(Signal::Agent);
pub(crate) static AGENT_DROPPED: Metric = Metric::counter(
    "agent_dropped_total",
    "Items that the agent could not keep.",
)
.labels(&["signal", "reason"])
.signal(Signal::Agent);
pub(crate) static AGENT_QUEUE_BYTES: Metric = Metric::gauge(
    "agent_queue_bytes",
    "Memory taken by what waits to be delivered to a collector.",
)
.unit(Unit::Bytes)
.labels(&["signal"])
.signal(Signal::Agent);
pub(crate) static AGENT_QUEUE_ITEMS: Metric = Metric::gauge(
    "agent_queue_items",
    "Items that wait to be delivered to a collector, in memory or on disk.",
)
.labels(&["signal"])
.signal(Signal::Agent);
pub(crate) static AGENT_SPOOL_BYTES: Metric = Metric::gauge(
    "agent_spool_bytes",
    "Disk taken by what waits to be delivered; absent while the disk cannot be used.",
)
.unit(Unit::Bytes)
.signal(Signal::Agent);
pub(crate) static AGENT_SPOOL_TORN: Metric = Metric::counter(
    "agent_spool_torn_total",
    "Records on disk that had not been written to their end, and were removed.",
)
.signal(Signal::Agent);
pub(crate) static AGENT_LAST_SUCCESS: Metric = Metric::gauge(
    "agent_last_success_timestamp_seconds",
    "When a collector last took what was pushed, in seconds since 1970.",
)
.unit(Unit::Seconds)
.labels(&["signal"])
.signal(Signal::Agent);
pub(crate) static OTEL_EXPORTED_METRIC_POINTS: Metric = Metric::counter(
    "otel_sdk_exporter_metric_data_point_exported_total",
    "Data points that were pushed, those with an error_type in vain.",
)
.otel("otel.sdk.exporter.metric_data_point.exported")
.labels(&["otel_component_type", "error_type"])
.signal(Signal::Agent);
pub(crate) static OTEL_PROCESSED_SPANS: Metric = Metric::counter(
    "otel_sdk_processor_span_processed_total",
    "Spans handed over for delivery to a collector.",
)
.otel("otel.sdk.processor.span.processed")
.labels(&["otel_component_type"])
.signal(Signal::Agent);
pub(crate) static OTEL_EXPORTED_SPANS: Metric = Metric::counter(
    "otel_sdk_exporter_span_exported_total",
    "Spans whose delivery has ended, those with an error_type in vain.",
)
.otel("otel.sdk.exporter.span.exported")
.labels(&["otel_component_type", "error_type"])
.signal(Signal::Agent);
pub(crate) static OTEL_PROCESSED_LOGS: Metric = Metric::counter(
    "otel_sdk_processor_log_processed_total",
    "Log records handed over for delivery to a collector.",
)
.otel("otel.sdk.processor.log.processed")
.labels(&["otel_component_type"])
.signal(Signal::Agent);
pub(crate) static OTEL_EXPORTED_LOGS: Metric = Metric::counter(
    "otel_sdk_exporter_log_exported_total",
    "Log records whose delivery has ended, those with an error_type in vain.",
)
.otel("otel.sdk.exporter.log.exported")
.labels(&["otel_component_type", "error_type"])
.signal(Signal::Agent);
/// The conventions have no names for profiles yet: these are their pattern.
pub(crate) static OTEL_PROCESSED_PROFILES: Metric = Metric::counter(
    "otel_sdk_processor_profile_processed_total",
    "Profiles handed over for delivery to a collector.",
)
.otel("otel.sdk.processor.profile.processed")
.labels(&["otel_component_type"])
.signal(Signal::Agent);
pub(crate) static OTEL_EXPORTED_PROFILES: Metric = Metric::counter(
    "otel_sdk_exporter_profile_exported_total",
    "Profiles whose delivery has ended, those with an error_type in vain.",
)
.otel("otel.sdk.exporter.profile.exported")
.labels(&["otel_component_type", "error_type"])
.signal(Signal::Agent);
pub(crate) static OTEL_EXPORTER_OPERATION_DURATION: Metric = Metric::wait_histogram(
    "otel_sdk_exporter_operation_duration_seconds",
    "Time that one message to a collector took.",
)
.otel("otel.sdk.exporter.operation.duration")
.labels(&["otel_component_type"])
.signal(Signal::Agent);
pub(crate) static AGENT_HTTP_DENIED: Metric = Metric::counter(
    "agent_http_denied_total",
    "Requests that the agent's own endpoints refused.",
)
.labels(&["reason"])
.signal(Signal::Agent);
pub(crate) static AGENT_INSECURE: Metric = Metric::gauge(
    "agent_insecure",
    "1 while the agent listens beyond loopback without protection.",
)
.signal(Signal::Agent);
pub(crate) static AGENT_SIGNAL_HIJACKED: Metric = Metric::gauge(
    "agent_signal_hijacked",
    "1 once another part of the program took the signal of the CPU samples; absent until any are taken.",
)
.signal(Signal::Agent);
pub(crate) static AGENT_TARGET_THRESHOLD: Metric =
    Metric::gauge("agent_target_threshold", "The target table's thresholds.")
        .labels(&["target"])
        .signal(Signal::Agent);
pub(crate) static AGENT_TARGET_VALUE: Metric = Metric::gauge(
    "agent_target_value",
    "What the agent measures for each target; absent without data.",
)
.labels(&["target"])
.signal(Signal::Agent);
pub(crate) static AGENT_BUILD_INFO: Metric =
    Metric::info("agent_build_info", "The agent's version.")
        .labels(&["version", "rustc_edition"])
        .signal(Signal::Agent);
pub(crate) static TARGET_INFO: Metric =
    Metric::info("target_info", "Resource attributes of the service.")
        .labels(&[
            "service_name",
            "service_version",
            "host_name",
            "process_pid",
        ])
        .signal(Signal::Agent);

/// Every row, in the order of the page.
pub(crate) static ALL: &[&Metric] = &[
    &HTTP_SERVER_REQUEST_DURATION,
    &HTTP_SERVER_ACTIVE_REQUESTS,
    &HTTP_SERVER_REQUEST_BODY_SIZE,
    &HTTP_SERVER_RESPONSE_BODY_SIZE,
    &HTTP_SERVER_TIME_TO_FIRST_BYTE,
    &HTTP_SERVER_CPU_TIME,
    &HTTP_SERVER_ALLOCATED,
    &HTTP_SERVER_RESPONSE_ABORTED,
    &HTTP_SERVER_REQUESTS_SHED,
    &HTTP_SERVER_OPEN_CONNECTIONS,
    &HTTP_SERVER_CONNECTIONS,
    &HTTP_SERVER_CONNECTION_REJECTED,
    &HTTP_SERVER_REQUESTS_PER_CONNECTION,
    &CACHE_REQUESTS,
    &CACHE_OPERATION_DURATION,
    &CACHE_ENTRIES,
    &CACHE_SIZE,
    &CACHE_CAPACITY,
    &CACHE_EVICTIONS,
    &CACHE_INVALIDATIONS,
    &CACHE_FLUSHES,
    &CACHE_LOADS,
    &CACHE_REFRESHES,
    &CACHE_INVALIDATION_LAG,
    &CACHE_COALESCED_REQUESTS,
    &CACHE_LOAD_INFLIGHT,
    &CACHE_COALESCE_WAIT,
    &DB_CLIENT_OPERATION_DURATION,
    &DB_CLIENT_SLOW_QUERIES,
    &DB_CLIENT_RESPONSE_RETURNED_ROWS,
    &DB_QUERIES_PER_REQUEST,
    &DB_CLIENT_CONNECTION_COUNT,
    &DB_CLIENT_CONNECTION_MAX,
    &DB_CLIENT_CONNECTION_IDLE_MAX,
    &DB_CLIENT_CONNECTION_IDLE_MIN,
    &DB_CLIENT_CONNECTION_PENDING_REQUESTS,
    &DB_CLIENT_CONNECTION_WAIT_TIME,
    &DB_CLIENT_CONNECTION_USE_TIME,
    &DB_CLIENT_CONNECTION_CREATE_TIME,
    &DB_CLIENT_CONNECTION_TIMEOUTS,
    &DB_CLIENT_CONNECTION_CLOSED,
    &WORKER_POOL_WORKERS,
    &WORKER_POOL_QUEUE_DEPTH,
    &WORKER_POOL_QUEUE_CAPACITY,
    &WORKER_POOL_JOB_WAIT,
    &WORKER_POOL_JOB_DURATION,
    &WORKER_POOL_JOBS,
    &WORKER_POOL_REJECTED,
    &BUFFER_POOL_GETS,
    &BUFFER_POOL_RETURNS,
    &BUFFER_POOL_BUFFERS,
    &BUFFER_POOL_BYTES,
    &ALLOCATOR_ALLOCATIONS,
    &ALLOCATOR_ALLOCATED,
    &HEAP_PROFILE_LIVE,
    &ALLOCATOR_BYTES,
    &PROCESS_CPU_TIME,
    &PROCESS_CPU_UTILIZATION,
    &PROCESS_MEMORY_UTILIZATION,
    &PROCESS_CPU_LIMIT,
    &PROCESS_MEMORY_LIMIT,
    &PROCESS_MEMORY_SOFT_LIMIT,
    &PROCESS_MEMORY_PRESSURE,
    &PROCESS_MEMORY_PRESSURE_CHANGES,
    &PROCESS_MEMORY_USAGE,
    &PROCESS_MEMORY_VIRTUAL,
    &PROCESS_DISK_IO,
    &PROCESS_DISK_OPERATIONS,
    &PROCESS_NETWORK_IO,
    &PROCESS_THREAD_COUNT,
    &PROCESS_FD_COUNT,
    &PROCESS_FD_LIMIT,
    &PROCESS_CONTEXT_SWITCHES,
    &PROCESS_PAGING_FAULTS,
    &PROCESS_UPTIME,
    &PROCESS_CPU_SECONDS,
    &PROCESS_RESIDENT_MEMORY,
    &PROCESS_VIRTUAL_MEMORY,
    &PROCESS_OPEN_FDS,
    &PROCESS_MAX_FDS,
    &PROCESS_START_TIME,
    &SYSTEM_CPU_UTILIZATION,
    &SYSTEM_MEMORY_UTILIZATION,
    &SYSTEM_DISK_IO,
    &SYSTEM_DISK_IO_TIME,
    &SYSTEM_NETWORK_IO,
    &SYSTEM_FILESYSTEM_UTILIZATION,
    &CONTAINER_CPU_LIMIT,
    &CONTAINER_MEMORY_LIMIT,
    &CONTAINER_MEMORY_WORKING_SET,
    &CONTAINER_CPU_THROTTLED,
    &CONTAINER_CPU_PERIODS,
    &CONTAINER_OOM_EVENTS,
    &PRESSURE_STALL,
    &TOKIO_WORKERS,
    &TOKIO_ALIVE_TASKS,
    &TOKIO_GLOBAL_QUEUE_DEPTH,
    &TOKIO_WORKER_BUSY,
    &TOKIO_WORKER_PARKS,
    &TOKIO_SCHEDULE_DELAY,
    &AGENT_CPU,
    &AGENT_MEMORY,
    &AGENT_UP,
    &AGENT_PANICS,
    &AGENT_PROFILE_SAMPLES,
    &AGENT_PROFILE_COVERAGE,
    &AGENT_PROFILE_EXPECTED,
    &AGENT_PROFILE_LOST,
    &AGENT_PROFILE_TRUNCATED,
    &AGENT_PROFILE_RATE,
    &AGENT_PROFILE_RATE_LIMIT,
    &AGENT_PROFILE_SLOWDOWNS,
    &AGENT_HEAP_SAMPLES,
    &AGENT_HEAP_LOST,
    &AGENT_HEAP_ENTRIES,
    &AGENT_HEAP_LIMIT,
    &AGENT_HEAP_MEMORY,
    &AGENT_HEAP_PERIOD,
    &AGENT_SCRAPE_DURATION,
    &AGENT_SCRAPE_BYTES,
    &AGENT_SCRAPE_CONFLICTS,
    &AGENT_SERIES,
    &AGENT_SERIES_OVERFLOW,
    &AGENT_DROPPED,
    &AGENT_QUEUE_BYTES,
    &AGENT_QUEUE_ITEMS,
    &AGENT_SPOOL_BYTES,
    &AGENT_SPOOL_TORN,
    &AGENT_LAST_SUCCESS,
    &OTEL_EXPORTED_METRIC_POINTS,
    &OTEL_PROCESSED_SPANS,
    &OTEL_EXPORTED_SPANS,
    &OTEL_PROCESSED_LOGS,
    &OTEL_EXPORTED_LOGS,
    &OTEL_PROCESSED_PROFILES,
    &OTEL_EXPORTED_PROFILES,
    &OTEL_EXPORTER_OPERATION_DURATION,
    &AGENT_HTTP_DENIED,
    &AGENT_INSECURE,
    &AGENT_SIGNAL_HIJACKED,
    &AGENT_TARGET_THRESHOLD,
    &AGENT_TARGET_VALUE,
    &AGENT_BUILD_INFO,
    &TARGET_INFO,
];
