//! Starts the threads that push to a collector.

use super::{Shared, pushing_profiles, threads};
use crate::collect::process::host_name;
use crate::error::Error;
use crate::export::push::{MetricsPush, resource};

/// Starts those that have anything to push.
///
/// # Errors
/// The thread's error when the operating system gives none.
pub(super) fn start(shared: &Shared) -> Result<(), Error> {
    pushing_profiles::start_pyroscope(shared)?;
    let Some(otlp) = &shared.config.otlp else {
        return Ok(());
    };
    let pid = std::process::id().to_string();
    let host = host_name().unwrap_or_default();
    let program = std::env::current_exe().ok();
    let program = program.as_deref().and_then(std::path::Path::file_name);
    let program = program.unwrap_or_default().to_string_lossy();
    let own = [
        ("service.name", &*shared.config.service),
        ("service.version", &shared.config.version),
        ("host.name", &host),
        ("os.type", std::env::consts::OS),
        ("process.pid", &pid),
        ("process.executable.name", &program),
        ("telemetry.sdk.language", "rust"),
        ("telemetry.sdk.name", env!("CARGO_PKG_NAME")),
        ("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
    ];
    let resource = resource(own, otlp);
    pushing_profiles::start(shared, &resource)?;
    let Some(mut metrics) = MetricsPush::new(&shared.store, otlp, resource) else {
        return Ok(());
    };
    let inside = shared.clone();
    threads::start("sg-otlp", "otlp", shared, move || {
        while !inside.stop.is_asked() {
            let wait = metrics.turn();
            inside.stop.pause(wait);
        }
        // What was counted since the last push.
        metrics.push();
    })
}
