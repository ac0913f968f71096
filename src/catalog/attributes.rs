//! What OpenTelemetry calls a label: the pages write its dots as `_`, which cannot be read back.

/// The attribute's name by the semantic conventions; a label that they do not know keeps its own.
///
/// Collectors and the Prometheus translation make each into its label again, so that pushed and scraped
/// series are the same.
pub(crate) fn of(label: &str) -> &str {
    match label {
        "cpu_mode" => "cpu.mode",
        "db_client_connection_pool_name" => "db.client.connection.pool.name",
        "db_client_connection_state" => "db.client.connection.state",
        "db_collection_name" => "db.collection.name",
        "db_namespace" => "db.namespace",
        "db_operation_name" => "db.operation.name",
        "db_query_summary" => "db.query.summary",
        "db_system_name" => "db.system.name",
        "disk_io_direction" => "disk.io.direction",
        "error_type" => "error.type",
        "http_request_method" => "http.request.method",
        "http_response_status_code" => "http.response.status_code",
        "http_route" => "http.route",
        "network_interface_name" => "network.interface.name",
        "network_io_direction" => "network.io.direction",
        "network_protocol_version" => "network.protocol.version",
        "otel_component_type" => "otel.component.type",
        "otel_metric_overflow" => "otel.metric.overflow",
        "process_context_switch_type" => "process.context_switch.type",
        "system_device" => "system.device",
        "system_filesystem_mountpoint" => "system.filesystem.mountpoint",
        "system_memory_state" => "system.memory.state",
        "system_paging_fault_type" => "system.paging.fault.type",
        "url_scheme" => "url.scheme",
        own => own,
    }
}
