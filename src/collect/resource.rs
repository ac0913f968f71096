//! What is measured, found out once at the start: the process, its container, its machine.
//!
//! Source: OpenTelemetry's semantic conventions for resources. Left out: `process.command_args` and
//! `process.command_line`, which may hold passwords, and what the conventions leave to the host to ask for.

use std::path::Path;

use super::process::{host_name, start_unix_seconds};

/// Letters of the id that Docker, containerd, CRI-O and Podman give a container.
const CONTAINER_ID: usize = 64;

/// Attributes that were found out below `root`, which is `/` but in tests; empty ones are unknown.
///
/// # Cost
/// Reads about ten small files.
pub(crate) fn detected(root: &Path) -> Vec<(&'static str, String)> {
    let text = |file: &str| std::fs::read_to_string(root.join(file)).unwrap_or_default();
    let container = container_id(&text("proc/self/cgroup"), &text("proc/self/mountinfo"));
    let machine = text("etc/machine-id");
    let release = text("etc/os-release");
    let status = text("proc/self/status");
    let of_status = |name: &str| after(&status, name, ':').unwrap_or_default();
    let program = std::env::current_exe().unwrap_or_default();
    let name = program.file_name().unwrap_or_default();
    let command = text("proc/self/cmdline");
    let command = command.split('\0').next().unwrap_or_default();
    let uid = of_status("Uid").split_whitespace().next();
    let began = start_unix_seconds(root).map(utc);
    // A container's file is its image's, and the same in all that were made of it.
    let host_id = if container.is_some() {
        ""
    } else {
        machine.trim()
    };
    vec![
        ("process.pid", std::process::id().to_string()),
        ("process.parent_pid", of_status("PPid").to_owned()),
        ("process.executable.name", name.to_string_lossy().into()),
        ("process.executable.path", program.to_string_lossy().into()),
        ("process.command", command.to_owned()),
        (
            "process.owner",
            uid.and_then(|uid| owner(&text("etc/passwd"), uid))
                .unwrap_or_default(),
        ),
        ("process.creation.time", began.unwrap_or_default()),
        ("container.id", container.unwrap_or_default()),
        ("host.name", host_name().unwrap_or_default()),
        ("host.id", host_id.to_owned()),
        ("host.arch", arch(std::env::consts::ARCH).to_owned()),
        ("os.type", os(std::env::consts::OS).to_owned()),
        ("os.name", quoted(after(&release, "NAME", '='))),
        ("os.version", quoted(after(&release, "VERSION_ID", '='))),
        (
            "os.description",
            quoted(after(&release, "PRETTY_NAME", '=')),
        ),
    ]
}

/// The id of the container around the process, by its cgroup (version 1, and 2 without a namespace), or by the
/// files that every container has mounted from where its manager keeps them.
fn container_id(cgroup: &str, mounts: &str) -> Option<String> {
    let of_cgroup = |line: &str| id_of(line.rsplit('/').next()?);
    let of_mount = |line: &str| {
        let mounted = line.split(' ').nth(3)?;
        let (_, below) = mounted.rsplit_once("containers/")?;
        id_of(below.split('/').next()?)
    };
    // A namespace hides the path above it from the first file, but not from the second.
    let of_hierarchy = |line: &str| {
        let is_cgroup = line.contains(" - cgroup");
        id_of(line.split(' ').nth(3)?.rsplit('/').next()?).filter(|_| is_cgroup)
    };
    let found = cgroup.lines().find_map(of_cgroup);
    let found = found.or_else(|| mounts.lines().find_map(of_mount));
    found.or_else(|| mounts.lines().find_map(of_hierarchy))
}

/// The id in `docker-<id>.scope`, `cri-containerd-<id>.scope`, `crio-<id>` or `<id>`; on ECS `<task>-<number>`
/// is one too.
fn id_of(part: &str) -> Option<String> {
    let part = part.strip_suffix(".scope").unwrap_or(part);
    let is_hex = |text: &str| {
        text.bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let last = part.rsplit(['-', ':']).next()?;
    if last.len() == CONTAINER_ID && is_hex(last) {
        return Some(last.to_owned());
    }
    let (task, number) = part.split_once('-')?;
    let is_task = task.len() == CONTAINER_ID / 2 && is_hex(task);
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    (is_task && is_number).then(|| part.to_owned())
}

/// What stands behind a name at the beginning of a line.
fn after<'a>(text: &'a str, name: &str, separator: char) -> Option<&'a str> {
    let pairs = text.lines().filter_map(|line| line.split_once(separator));
    let mut of_name = pairs.filter(|(key, _)| *key == name);
    of_name.next().map(|(_, value)| value.trim())
}

fn quoted(value: Option<&str>) -> String {
    value
        .unwrap_or_default()
        .trim_matches(['"', '\''])
        .to_owned()
}

/// The name of a user in `/etc/passwd`.
fn owner(users: &str, uid: &str) -> Option<String> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    })
}

/// Rust's word for an architecture as the conventions have it.
fn arch(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "arm" => "arm32",
        "powerpc" => "ppc32",
        "powerpc64" => "ppc64",
        other => other,
    }
}

fn os(rust: &str) -> &str {
    match rust {
        "macos" => "darwin",
        "dragonfly" => "dragonflybsd",
        other => other,
    }
}

/// A time by ISO 8601, to milliseconds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "seconds since 1970, not below zero"
)]
fn utc(unix_seconds: f64) -> String {
    let millis = (unix_seconds.max(0.0) * 1e3) as u64;
    let (seconds, millis) = (millis / 1_000, millis % 1_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March end with the leap day; 400 of them are one round.
    let days = days + 719_468;
    let (round, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    format!(
        "{:04}-{month:02}-{date:02}T{:02}:{:02}:{:02}.{millis:03}Z",
        round * 400 + year + next,
        second / 3_600,
        second / 60 % 60,
        second % 60,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::Fixture;

    const ID: &str = "3f5a1c0de9b84f7712c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f6071829";
    const OTHER: &str = "00001c0de9b84f7712c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f6071829";

    /// The first letters of an id.
    fn part(letters: usize) -> &'static str {
        ID.split_at(letters).0
    }

    #[test]
    fn a_container_is_known_by_its_cgroup_or_by_what_it_has_mounted() {
        let here = "0::/\n";
        let mount = |root: &str| {
            format!(
                "22 1 8:1 / / rw - ext4 /dev/a rw\n719 708 8:1 {root} /etc/hostname rw - ext4 /dev/a rw\n"
            )
        };
        let rows = [
            (
                format!("12:memory:/docker/{ID}\n0::/\n"),
                String::new(),
                Some(ID),
            ),
            (
                format!("4:cpu:/kubepods/burstable/pod7d-1/{ID}\n"),
                String::new(),
                Some(ID),
            ),
            (
                format!("0::/system.slice/docker-{ID}.scope\n"),
                String::new(),
                Some(ID),
            ),
            (
                format!("0::/kubepods.slice/a.slice/cri-containerd-{ID}.scope"),
                String::new(),
                Some(ID),
            ),
            (
                format!("1:name=systemd:/kubepods.slice/crio-{ID}.scope"),
                String::new(),
                Some(ID),
            ),
            (
                format!("0::/system.slice/containerd.service/kubepods-p.slice:cri-containerd:{ID}"),
                String::new(),
                Some(ID),
            ),
            (
                here.into(),
                mount(&format!("/var/lib/docker/containers/{ID}/hostname")),
                Some(ID),
            ),
            (
                here.into(),
                mount(&format!(
                    "/containers/storage/overlay-containers/{ID}/userdata/hostname"
                )),
                Some(ID),
            ),
            // The pod's sandbox is not the container.
            (
                here.into(),
                mount(&format!(
                    "/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/{OTHER}/hostname"
                )),
                None,
            ),
            (
                here.into(),
                format!(
                    "30 22 0:27 /../cri-containerd-{ID}.scope /sys/fs/cgroup ro - cgroup2 cgroup rw\n"
                ),
                Some(ID),
            ),
            (
                "0::/user.slice/user-1000.slice/session-2.scope\n".into(),
                mount("/home"),
                None,
            ),
            (format!("0::/docker/{}\n", part(63)), String::new(), None),
            (format!("0::/docker/{}g\n", part(63)), String::new(), None),
            (String::new(), String::new(), None),
        ];
        for (cgroup, mounts, id) in rows {
            assert_eq!(
                container_id(&cgroup, &mounts).as_deref(),
                id,
                "{cgroup}{mounts}"
            );
        }
        let task = format!("{}-1234567890", part(32));
        let ecs = format!("11:cpu:/ecs/{}/{task}\n", part(32));
        assert_eq!(container_id(&ecs, ""), Some(task));
    }

    #[test]
    fn the_machine_says_what_it_is_and_a_container_hides_its_id() {
        let machine = Fixture::new();
        machine.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
        machine.write("etc/os-release", "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID='12'\n");
        machine.write(
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nshop:x:1000:1000::/:/bin/sh\n",
        );
        machine.write(
            "proc/self/status",
            "Name:\tshop\nPid:\t7\nPPid:\t5\nUid:\t1000\t1000\t1000\t1000\n",
        );
        machine.write("proc/self/cmdline", "/srv/shop\0--password\0secret\0");
        machine.write("proc/self/cgroup", "0::/\n");
        let found = detected(machine.root());
        let said = |found: &[(&str, String)], key: &str| {
            let pair = found.iter().find(|(name, _)| *name == key);
            pair.map(|(_, value)| value.clone()).unwrap()
        };
        for (key, value) in [
            ("process.parent_pid", "5"),
            ("process.command", "/srv/shop"),
            ("process.owner", "shop"),
            ("host.id", "0123456789abcdef0123456789abcdef"),
            ("os.name", "Debian GNU/Linux"),
            ("os.version", "12"),
            ("os.description", "Debian GNU/Linux 12 (bookworm)"),
            ("container.id", ""),
            ("process.creation.time", ""),
        ] {
            assert_eq!(said(&found, key), value, "{key}");
        }
        assert!(!format!("{found:?}").contains("secret"));
        machine.write("proc/self/cgroup", &format!("3:cpu:/docker/{ID}\n"));
        let found = detected(machine.root());
        assert_eq!(said(&found, "container.id"), ID);
        assert_eq!(said(&found, "host.id"), "");
        let nothing = detected(Fixture::new().root());
        assert_eq!(
            said(&nothing, "process.pid"),
            std::process::id().to_string()
        );
        assert_eq!(said(&nothing, "os.name"), "");
    }

    #[test]
    fn times_are_written_by_iso_8601() {
        for (seconds, text) in [
            (0.0, "1970-01-01T00:00:00.000Z"),
            (951_782_400.5, "2000-02-29T00:00:00.500Z"),
            (1_709_164_799.0, "2024-02-28T23:59:59.000Z"),
            (1_735_689_599.25, "2024-12-31T23:59:59.250Z"),
            (1_740_787_200.0, "2025-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(utc(seconds), text);
        }
    }
}
