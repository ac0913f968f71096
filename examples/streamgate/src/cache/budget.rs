//! How much memory the cache may take: min(1 GiB, a quarter of the memory limit).
//!
//! The limit is the smallest of the host's memory and the limits of the process's cgroups.

use std::fs;
use std::path::Path;

/// The guide's size, section 2.1.
const GUIDE_BYTES: u64 = 1 << 30;

/// The size where no limit can be read: a quarter of a small machine with 1 GiB.
const UNKNOWN_BYTES: u64 = 256 << 20;

/// Bytes for all caches of the process together.
pub(crate) fn bytes() -> u64 {
    let limits = [
        host_memory(),
        cgroup_v2(Path::new("/sys/fs/cgroup")),
        cgroup_v1(),
    ];
    let limit = limits.into_iter().flatten().min();
    limit.map_or(UNKNOWN_BYTES, |limit| GUIDE_BYTES.min(limit / 4))
}

fn host_memory() -> Option<u64> {
    mem_total(&fs::read_to_string("/proc/meminfo").ok()?)
}

fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1_024)
}

/// The smallest `memory.max` from the process's own group up to the root: each of them binds.
fn cgroup_v2(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let own = root.join(own);
    let limits = own
        .ancestors()
        .take_while(|group| group.starts_with(root))
        .filter_map(|group| {
            // The word "max" means no limit and does not parse.
            fs::read_to_string(group.join("memory.max"))
                .ok()?
                .trim()
                .parse()
                .ok()
        });
    limits.min()
}

fn cgroup_v1() -> Option<u64> {
    let text = fs::read_to_string("/sys/fs/cgroup/memory/memory.limit_in_bytes").ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_never_exceeds_the_guide() {
        assert!((1..=GUIDE_BYTES).contains(&bytes()));
    }

    #[test]
    fn meminfo_is_read_in_bytes_and_garbage_is_no_limit() {
        assert_eq!(
            mem_total("MemFree: 1 kB\nMemTotal:       2048 kB\n"),
            Some(2 << 20)
        );
        assert_eq!(mem_total("MemTotal: lots\n"), None);
        assert_eq!(mem_total(""), None);
    }
}
