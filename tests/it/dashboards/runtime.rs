//! What the process uses of its limits, and whether its runtime keeps up.

use super::board::{Board, row};
use super::panel::{Kind, against, lines, panel};
use crate::alerts::TargetFile;

pub(super) fn board(file: &TargetFile) -> Board {
    let target = &file.target;
    let cpu = vec![
        lines(
            format!("CPU of the limit, {}", against(&target.cpu)),
            "percentunit",
        )
        .says(
            "Processor time of the cores the process may use",
            "under the line",
            "open the CPU profile",
        )
        .asks("instance:process_cpu:ratio_rate5m{$S}", "{{instance}}")
        .target(&target.cpu)
        .runbook("StreamGateCPUHigh")
        .leads("profiles"),
        lines(
            "Stalled for want of a processor, disk or memory",
            "percentunit",
        )
        .says(
            "Share of time in which some task waited, by resource",
            "under a few percent",
            "cpu: too few cores; io: a slow disk; memory: swapping",
        )
        .asks(
            "sum by (instance, resource, kind) (rate(pressure_stall_seconds_total{$S}[$W]))",
            "{{instance}} {{resource}} {{kind}}",
        ),
        lines("Throttled by the container's quota", "percentunit")
            .says(
                "Share of time in which the quota stopped the process; no line without a quota",
                "none",
                "raise the quota, or use less",
            )
            .asks(
                "sum by (instance) (rate(container_cpu_throttled_seconds_total{$S}[$W]))",
                "{{instance}}",
            ),
    ];
    let memory = vec![
        lines(
            format!("Memory of the limit, {}", against(&target.memory)),
            "percentunit",
        )
        .says(
            "Resident memory of what the process may use",
            "under the line and level",
            "open the heap profile",
        )
        .asks("instance:process_memory:ratio{$S}", "{{instance}}")
        .target(&target.memory)
        .runbook("StreamGateMemoryHigh")
        .leads("profiles"),
        lines("Allocated beside resident", "bytes")
            .says(
                "What the program holds, and what the allocator holds for it",
                "both level, resident a little above",
                "allocated grows: a leak; only resident: fragmentation",
            )
            .asks(
                "sum by (instance, kind) (allocator_bytes{$S,kind=~\"allocated|resident\"})",
                "{{instance}} {{kind}}",
            )
            .runbook("StreamGateMemoryExhaustionPredicted")
            .leads("profiles"),
        lines("Allocated by route", "Bps")
            .says(
                "Bytes a second that requests of a route allocate, from samples",
                "what its traffic explains",
                "open the heap profile with its route",
            )
            .asks(
                "sum by (http_route) (rate(http_server_allocated_bytes_total{$S}[$W]))",
                "{{http_route}}",
            )
            .leads("profiles"),
    ];
    let disk = vec![
        lines(format!("Disk busy, {}", against(&target.disk_busy)), "percentunit")
            .says("Share of time with a request in flight, by device; a fast disk may do more while it is busy", "under the line", "see the stalls above")
            .asks("instance_device:system_disk_io:ratio_rate5m{$S}", "{{instance}} {{system_device}}")
            .target(&target.disk_busy)
            .runbook("StreamGateDiskIOHigh"),
        lines("Bytes of the disks", "Bps")
            .says("Read and written, by device", "what the database explains", "see its statements")
            .asks("sum by (system_device, disk_io_direction) (rate(system_disk_io_bytes_total{$S}[$W]))", "{{system_device}} {{disk_io_direction}}")
            .leads("database"),
        lines("Network by interface", "Bps")
            .says("Received and sent", "what the load explains", "see the bytes by route")
            .asks("sum by (network_interface_name, network_io_direction) (rate(system_network_io_bytes_total{$S}[$W]))", "{{network_interface_name}} {{network_io_direction}}")
            .leads("api"),
    ];
    let tokio = vec![
        lines("Workers busy", "percentunit")
            .says(
                "Share of time in which a worker of the runtime ran tasks",
                "under 90 %",
                "open the CPU profile",
            )
            .asks(
                "avg by (instance, runtime) (rate(tokio_worker_busy_seconds_total{$S}[$W]))",
                "{{instance}} {{runtime}}",
            )
            .leads("profiles"),
        lines("Tasks that wait for a worker", "short")
            .says(
                "Tasks in the runtime's shared queue",
                "near zero",
                "workers are busy or blocked",
            )
            .asks(
                "sum by (instance, runtime) (tokio_global_queue_depth{$S})",
                "{{instance}} {{runtime}}",
            )
            .runbook("StreamGateRuntimeStall")
            .leads("profiles"),
        panel(Kind::Heatmap, "How late a task is run", "s")
            .says(
                "Time from ready to run, by probes",
                "under a millisecond",
                "something blocks a worker: see the wall-clock profile",
            )
            .asks(
                "sum by (le) (rate(tokio_schedule_delay_seconds_bucket{$S}[$W]))",
                "{{le}}",
            )
            .runbook("StreamGateRuntimeStall")
            .leads("profiles"),
    ];
    let pools = vec![
        lines("Jobs of worker pools", "ops")
            .says("Jobs that ended, by result", "none failed", "see the log")
            .asks("sum by (pool, result) (rate(worker_pool_jobs_total{$S}[$W]))", "{{pool}} {{result}}")
            .leads("api"),
        lines("Queue of worker pools", "percentunit")
            .says("Jobs that wait, of those that may", "near zero", "full: jobs are refused with 503")
            .asks("sum by (pool) (worker_pool_queue_depth{$S}) / (sum by (pool) (worker_pool_queue_capacity{$S}) > 0)", "{{pool}}")
            .leads("api"),
        lines("Buffers taken again", "percentunit")
            .says("Share of buffers that came from the pool", "nearly all", "too few are kept, or too large ones wanted")
            .asks("sum by (pool) (rate(buffer_pool_gets_total{$S,result=\"reused\"}[$W])) / (sum by (pool) (rate(buffer_pool_gets_total{$S}[$W])) > 0)", "{{pool}}")
            .leads("profiles"),
    ];
    Board {
        name: "runtime",
        title: "Runtime",
        about: "What the process uses of its limits, and whether something holds it up.",
        rows: vec![
            row("Processor", cpu),
            row("Memory", memory),
            row("Disk and network", disk),
            row("Tokio", tokio),
            row("Pools", pools),
        ],
        profiles: false,
    }
}
