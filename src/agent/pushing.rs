//! Starts the thread that pushes to a collector.

use std::hash::{BuildHasher, Hasher, RandomState};

use super::Shared;
use super::threads;
use crate::collect::process::host_name;
use crate::error::Error;
use crate::export::push::{MetricsPush, resource};

/// Starts it if there is anything to push.
///
/// # Errors
/// The thread's error when the operating system gives none.
pub(super) fn start(shared: &Shared) -> Result<(), Error> {
    let Some(otlp) = &shared.config.otlp else {
        return Ok(());
    };
    let pid = std::process::id().to_string();
    let host = host_name().unwrap_or_default();
    let program = std::env::current_exe().ok();
    let program = program.as_deref().and_then(std::path::Path::file_name);
    let program = program.unwrap_or_default().to_string_lossy();
    let instance = instance_id();
    let own = [
        ("service.name", &*shared.config.service),
        ("service.instance.id", &instance),
        ("service.version", &shared.config.version),
        ("host.name", &host),
        ("os.type", std::env::consts::OS),
        ("process.pid", &pid),
        ("process.executable.name", &program),
        ("telemetry.sdk.language", "rust"),
        ("telemetry.sdk.name", env!("CARGO_PKG_NAME")),
        ("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
    ];
    let Some(mut metrics) = MetricsPush::new(&shared.store, otlp, resource(own, otlp)) else {
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

/// A random UUID of version 4, without which two processes of a service would write the same series. The
/// standard library's hash keys bring the operating system's random numbers.
fn instance_id() -> String {
    let random = || RandomState::new().build_hasher().finish();
    let (high, low) = (random(), random());
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        low >> 48 & 0x3fff | 0x8000,
        low & 0xffff_ffff_ffff,
    )
}
