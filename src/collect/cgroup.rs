//! The container around the process: quotas, throttling, memory and pressure of its cgroup.
//!
//! A process lies in one cgroup per hierarchy, and every cgroup above it may hold a tighter limit,
//! so each limit is the smallest on the way up to the mount. Version 1 has a hierarchy per
//! controller, version 2 one for all; a hybrid machine has both.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::process::{number, smaller};
use super::{Source, or_absent};
use crate::catalog::families;
use crate::error::Error;
use crate::store::metrics::{Gauge, Metrics, ObservedCounter};

/// `memory.stat` makes the kernel add up the counts of all CPUs, so not every second.
const INTERVAL: Duration = Duration::from_secs(5);

/// Version 1 says "no limit" by a number near 2^63.
const NO_LIMIT: f64 = (1_u64 << 62) as f64;

/// Cgroups above the process that are looked at. Deeper trees are not built by any manager.
const DEPTH: usize = 32;

const MICROS: f64 = 1e6;
const NANOS: f64 = 1e9;

/// What the process may use at most; `None` where nothing limits it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Limits {
    pub(crate) cpu_cores: Option<f64>,
    pub(crate) memory_bytes: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Where one controller's files stand: the process's cgroup, then the ones above it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Branch {
    version: Version,
    levels: Vec<PathBuf>,
}

/// The cgroups of the process. Found once: managers place a process before it runs.
#[derive(Debug, Clone)]
pub(crate) struct Cgroup {
    cpu: Option<Branch>,
    memory: Option<Branch>,
    /// The version 2 hierarchy, which alone counts pressure.
    unified: Option<Branch>,
    root: PathBuf,
}

impl Cgroup {
    /// Finds the cgroups below `root`, which is `/` but in tests.
    pub(crate) fn of_process(root: &Path) -> Self {
        let text = |file: &str| std::fs::read_to_string(root.join(file)).unwrap_or_default();
        let (own, mounts) = (text("proc/self/cgroup"), text("proc/self/mountinfo"));
        let unified = branch(root, &own, &mounts, None);
        let branch = |controller, file: &str| {
            branch(root, &own, &mounts, Some(controller)).or_else(|| {
                // On a hybrid machine the unified hierarchy exists but controls nothing.
                let found = unified.clone()?;
                let mut levels = found.levels.iter();
                levels
                    .any(|level| level.join(file).exists())
                    .then_some(found)
            })
        };
        Self {
            cpu: branch("cpu", "cpu.max"),
            memory: branch("memory", "memory.max"),
            unified,
            root: root.to_owned(),
        }
    }

    /// What the cgroups allow now.
    ///
    /// # Cost
    /// Opens and reads two or three small files per level.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            cpu_cores: self.quota().map(|(cores, _)| cores),
            memory_bytes: self.memory_limit(),
        }
    }

    /// The tightest CPU quota and the cgroup that holds it.
    fn quota(&self) -> Option<(f64, &Path)> {
        let branch = self.cpu.as_ref()?;
        let quotas = branch.levels.iter().filter_map(|level| {
            let cores = match branch.version {
                Version::Two => quota_v2(&read(level, "cpu.max")?),
                Version::One => quota_v1(
                    &read(level, "cpu.cfs_quota_us")?,
                    &read(level, "cpu.cfs_period_us")?,
                ),
            };
            Some((cores?, level.as_path()))
        });
        quotas.min_by(|(one, _), (other, _)| one.total_cmp(other))
    }

    fn memory_limit(&self) -> Option<f64> {
        let branch = self.memory.as_ref()?;
        let file = match branch.version {
            Version::Two => "memory.max",
            Version::One => "memory.limit_in_bytes",
        };
        let limits = branch.levels.iter().map(|level| {
            // Version 2 says "max", which is no number.
            let limit = number(read(level, file)?.trim())?;
            (limit < NO_LIMIT).then_some(limit)
        });
        limits.fold(None, smaller)
    }

    /// Use without the file cache that the kernel would drop first.
    fn working_set(&self) -> Option<f64> {
        let branch = self.memory.as_ref()?;
        let own = branch.levels.first()?;
        let (usage, inactive) = match branch.version {
            Version::Two => ("memory.current", "inactive_file"),
            Version::One => ("memory.usage_in_bytes", "total_inactive_file"),
        };
        let usage = number(read(own, usage)?.trim())?;
        let inactive = keyed(&read(own, "memory.stat")?, inactive)?;
        Some((usage - inactive).max(0.0))
    }

    fn oom_kills(&self) -> Option<f64> {
        let branch = self.memory.as_ref()?;
        let file = match branch.version {
            Version::Two => "memory.events",
            Version::One => "memory.oom_control",
        };
        keyed(&read(branch.levels.first()?, file)?, "oom_kill")
    }

    /// Seconds held back, periods with and without throttling, of the cgroup with the tightest
    /// quota. Without a quota nothing can be held back, and nothing is counted.
    fn throttling(&self) -> Option<Throttling> {
        let (_, level) = self.quota()?;
        let stat = read(level, "cpu.stat")?;
        let seconds = match self.cpu.as_ref()?.version {
            Version::Two => keyed(&stat, "throttled_usec")? / MICROS,
            Version::One => keyed(&stat, "throttled_time")? / NANOS,
        };
        let throttled = keyed(&stat, "nr_throttled")?;
        let free = keyed(&stat, "nr_periods")? - throttled;
        Some(Throttling {
            seconds,
            throttled,
            free: free.max(0.0),
        })
    }

    /// Stall times of a resource, `some` and `full`: the cgroup's own, else the machine's.
    fn pressure(&self, resource: &str) -> [Option<f64>; 2] {
        let own = self.unified.as_ref().and_then(|branch| {
            let level = branch.levels.first()?;
            read(level, &format!("{resource}.pressure"))
        });
        if let Some(text) = own {
            return ["some", "full"].map(|kind| stalled(&text, kind));
        }
        let text = read(&self.root.join("proc/pressure"), resource).unwrap_or_default();
        // For the CPU of a whole machine `full` means nothing and is always printed as 0.
        let full = (resource != "cpu").then(|| stalled(&text, "full"));
        [stalled(&text, "some"), full.flatten()]
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Throttling {
    seconds: f64,
    throttled: f64,
    free: f64,
}

/// Shows the container and the pressure on it.
///
/// # Cost
/// Each five seconds about ten small files, opened and read.
#[derive(Debug)]
pub(crate) struct ContainerSource {
    cgroup: Cgroup,
    cpu_limit: Gauge,
    memory_limit: Gauge,
    working_set: Gauge,
    throttled: ObservedCounter,
    periods: [ObservedCounter; 2],
    oom_events: ObservedCounter,
    pressure: Vec<(&'static str, [ObservedCounter; 2])>,
}

impl ContainerSource {
    /// # Errors
    /// Out of range if a family was declared with another shape before.
    pub(crate) fn new(metrics: &Metrics) -> Result<Self, Error> {
        Self::below(Path::new("/"), metrics)
    }

    fn below(root: &Path, metrics: &Metrics) -> Result<Self, Error> {
        let gauge = |metric| metrics.gauge(metric, &[]);
        let periods =
            |throttled| metrics.observed_counter(&families::CONTAINER_CPU_PERIODS, &[throttled]);
        let stall = |resource: &'static str| {
            let kind =
                |kind| metrics.observed_counter(&families::PRESSURE_STALL, &[resource, kind]);
            Ok((resource, [kind("some")?, kind("full")?]))
        };
        let resources = ["cpu", "memory", "io"];
        Ok(Self {
            cgroup: Cgroup::of_process(root),
            cpu_limit: gauge(&families::CONTAINER_CPU_LIMIT)?,
            memory_limit: gauge(&families::CONTAINER_MEMORY_LIMIT)?,
            working_set: gauge(&families::CONTAINER_MEMORY_WORKING_SET)?,
            throttled: metrics.observed_counter(&families::CONTAINER_CPU_THROTTLED, &[])?,
            periods: [periods("true")?, periods("false")?],
            oom_events: metrics.observed_counter(&families::CONTAINER_OOM_EVENTS, &[])?,
            pressure: resources
                .into_iter()
                .map(stall)
                .collect::<Result<_, Error>>()?,
        })
    }
}

impl Source for ContainerSource {
    fn component(&self) -> &'static str {
        "cgroup"
    }

    fn interval(&self) -> Duration {
        INTERVAL
    }

    fn collect(&mut self) {
        let limits = self.cgroup.limits();
        self.cpu_limit.set(or_absent(limits.cpu_cores));
        self.memory_limit.set(or_absent(limits.memory_bytes));
        self.working_set.set(or_absent(self.cgroup.working_set()));
        self.oom_events.set(or_absent(self.cgroup.oom_kills()));
        let throttling = self.cgroup.throttling();
        self.throttled
            .set(or_absent(throttling.map(|counts| counts.seconds)));
        let [throttled, free] = &self.periods;
        throttled.set(or_absent(throttling.map(|counts| counts.throttled)));
        free.set(or_absent(throttling.map(|counts| counts.free)));
        for (resource, counters) in &self.pressure {
            let stalled = self.cgroup.pressure(resource);
            for (counter, seconds) in counters.iter().zip(stalled) {
                counter.set(or_absent(seconds));
            }
        }
    }
}

/// Finds the cgroup of the process in the hierarchy of `controller`, or in the unified one.
///
/// `own` is `/proc/self/cgroup`, lines of `id:controllers:path`; `mounts` is
/// `/proc/self/mountinfo`, where field 4 is the part of the hierarchy that is mounted, field 5 the
/// place, and the file system with its options follows ` - `.
fn branch(root: &Path, own: &str, mounts: &str, controller: Option<&str>) -> Option<Branch> {
    let path = own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let found = match controller {
            Some(controller) => controllers.split(',').any(|name| name == controller),
            None => controllers.is_empty(),
        };
        found.then_some(path)
    })?;
    let (mounted, place) = mounts.lines().find_map(|line| {
        let (mount, system) = line.split_once(" - ")?;
        let mut system = system.split(' ');
        let (kind, options) = (system.next()?, system.nth(1)?);
        let found = match controller {
            Some(controller) => {
                kind == "cgroup" && options.split(',').any(|name| name == controller)
            }
            None => kind == "cgroup2",
        };
        let mut fields = mount.split(' ').skip(3);
        found.then_some((fields.next()?, fields.next()?))
    })?;
    let version = if controller.is_some() {
        Version::One
    } else {
        Version::Two
    };
    let top = root.join(place.trim_start_matches('/'));
    // A container may see the host's path while only its own part is mounted, or a path above its
    // namespace ("/../.."); then the mount itself is its cgroup.
    let below = path
        .strip_prefix(mounted.trim_end_matches('/'))
        .filter(|below| below.is_empty() || below.starts_with('/'))
        .filter(|below| !below.split('/').any(|part| part == ".."))
        .unwrap_or_default();
    let mut leaf = top.join(below.trim_start_matches('/'));
    if !leaf.is_dir() {
        leaf.clone_from(&top);
    }
    let levels = leaf
        .ancestors()
        .take_while(|level| level.starts_with(&top))
        .take(DEPTH)
        .map(Path::to_owned)
        .collect();
    Some(Branch { version, levels })
}

fn read(level: &Path, file: &str) -> Option<String> {
    std::fs::read_to_string(level.join(file)).ok()
}

/// `max 100000` or `150000 100000`.
fn quota_v2(text: &str) -> Option<f64> {
    let mut parts = text.split_whitespace();
    let (quota, period) = (number(parts.next()?)?, number(parts.next()?)?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

/// -1 means no quota.
fn quota_v1(quota: &str, period: &str) -> Option<f64> {
    let (quota, period) = (number(quota.trim())?, number(period.trim())?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

/// The number after `key` and a blank at the start of a line.
fn keyed(text: &str, key: &str) -> Option<f64> {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    number(value.trim())
}

/// `total=` microseconds of a line such as `some avg10=0.00 avg60=0.00 avg300=0.00 total=12`.
fn stalled(text: &str, kind: &str) -> Option<f64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
    let total = line
        .split(' ')
        .find_map(|part| part.strip_prefix("total="))?;
    Some(number(total)? / MICROS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::{Fixture, metrics, shown, value};

    const MIB: f64 = 1_048_576.0;
    const STAT: &str = "usage_usec 900\nnr_periods 100\nnr_throttled 30\nthrottled_usec 2500000\n";
    const PRESSURE: &str = "some avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\n\
        full avg10=0.00 avg60=0.00 avg300=0.00 total=250000\n";

    fn two(path: &str, mounted: &str) -> Fixture {
        let machine = Fixture::new();
        machine.write("proc/self/cgroup", &format!("0::{path}\n"));
        let mounts = format!(
            "22 27 0:21 / /proc rw,relatime - proc proc rw\n\
             35 31 0:32 {mounted} /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
        );
        machine.write("proc/self/mountinfo", &mounts);
        std::fs::create_dir_all(machine.path("sys/fs/cgroup")).unwrap();
        machine
    }

    fn one(path: &str, mounted: &str) -> Fixture {
        let machine = Fixture::new();
        let own =
            format!("9:name=systemd:/\n4:memory:{path}\n3:cpuset:/\n2:cpu,cpuacct:{path}\n0::/\n");
        machine.write("proc/self/cgroup", &own);
        let mounts = format!(
            "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
             32 31 0:29 {mounted} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
             35 31 0:32 {mounted} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
        );
        machine.write("proc/self/mountinfo", &mounts);
        std::fs::create_dir_all(machine.path("sys/fs/cgroup/unified")).unwrap();
        machine
    }

    fn limits(machine: &Fixture) -> Limits {
        Cgroup::of_process(machine.root()).limits()
    }

    #[test]
    fn a_namespaced_container_reads_its_limits_at_the_mount() {
        let machine = two("/", "/");
        machine.write("sys/fs/cgroup/cpu.max", "50000 100000\n");
        machine.write("sys/fs/cgroup/memory.max", "268435456\n");
        let expected = Limits {
            cpu_cores: Some(0.5),
            memory_bytes: Some(256.0 * MIB),
        };
        assert_eq!(limits(&machine), expected);
    }

    #[test]
    fn the_tightest_cgroup_on_the_way_up_counts() {
        let machine = two("/a.slice/b.slice/c.scope", "/");
        let leaf = "sys/fs/cgroup/a.slice/b.slice/c.scope";
        machine.write(&format!("{leaf}/cpu.max"), "300000 100000\n");
        machine.write("sys/fs/cgroup/a.slice/b.slice/cpu.max", "125000 50000\n");
        machine.write("sys/fs/cgroup/a.slice/cpu.max", "max 100000\n");
        machine.write(&format!("{leaf}/memory.max"), "max\n");
        machine.write("sys/fs/cgroup/a.slice/memory.max", "1048576\n");
        let expected = Limits {
            cpu_cores: Some(2.5),
            memory_bytes: Some(MIB),
        };
        assert_eq!(limits(&machine), expected);
        // Throttling is counted where the tightest quota is.
        machine.write(&format!("{leaf}/cpu.stat"), STAT);
        let cgroup = Cgroup::of_process(machine.root());
        assert_eq!(cgroup.throttling(), None);
        machine.write("sys/fs/cgroup/a.slice/b.slice/cpu.stat", STAT);
        let throttling = Throttling {
            seconds: 2.5,
            throttled: 30.0,
            free: 70.0,
        };
        assert_eq!(cgroup.throttling(), Some(throttling));
    }

    #[test]
    fn no_quota_and_no_limit_are_absent() {
        let machine = two("/", "/");
        machine.write("sys/fs/cgroup/cpu.max", "max 100000\n");
        machine.write("sys/fs/cgroup/memory.max", "max\n");
        machine.write("sys/fs/cgroup/cpu.stat", STAT);
        let cgroup = Cgroup::of_process(machine.root());
        assert_eq!(cgroup.limits(), Limits::default());
        assert_eq!(cgroup.throttling(), None);
        assert_eq!(limits(&Fixture::new()), Limits::default());
        assert_eq!(limits(&two("/", "/")), Limits::default());
    }

    #[test]
    fn version_one_has_a_tree_per_controller() {
        let machine = one("/pods/x", "/");
        let cpu = "sys/fs/cgroup/cpu,cpuacct/pods/x";
        machine.write(&format!("{cpu}/cpu.cfs_quota_us"), "-1\n");
        machine.write(&format!("{cpu}/cpu.cfs_period_us"), "100000\n");
        machine.write(
            "sys/fs/cgroup/cpu,cpuacct/pods/cpu.cfs_quota_us",
            "175000\n",
        );
        machine.write(
            "sys/fs/cgroup/cpu,cpuacct/pods/cpu.cfs_period_us",
            "100000\n",
        );
        let stat = "nr_periods 100\nnr_throttled 30\nthrottled_time 2500000000\n";
        machine.write("sys/fs/cgroup/cpu,cpuacct/pods/cpu.stat", stat);
        let memory = "sys/fs/cgroup/memory/pods/x";
        let unlimited = "9223372036854771712\n";
        machine.write(&format!("{memory}/memory.limit_in_bytes"), unlimited);
        machine.write(
            "sys/fs/cgroup/memory/pods/memory.limit_in_bytes",
            "2097152\n",
        );
        machine.write("sys/fs/cgroup/memory/memory.limit_in_bytes", unlimited);
        machine.write(&format!("{memory}/memory.usage_in_bytes"), "5242880\n");
        let stat = "cache 1\ninactive_file 7\ntotal_inactive_file 1048576\n";
        machine.write(&format!("{memory}/memory.stat"), stat);
        let oom = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        machine.write(&format!("{memory}/memory.oom_control"), oom);
        let cgroup = Cgroup::of_process(machine.root());
        let expected = Limits {
            cpu_cores: Some(1.75),
            memory_bytes: Some(2.0 * MIB),
        };
        assert_eq!(cgroup.limits(), expected);
        assert_eq!(cgroup.working_set(), Some(4.0 * MIB));
        assert_eq!(cgroup.oom_kills(), Some(3.0));
        assert_eq!(cgroup.throttling().map(|counts| counts.seconds), Some(2.5));
    }

    #[test]
    fn paths_of_the_host_are_cut_at_what_is_mounted() {
        // (path in /proc/self/cgroup, root of the mount, directory of the cgroup below the mount)
        let cases = [
            ("/docker/abc", "/docker/abc", ""),
            ("/docker/abc/sub", "/docker/abc", "sub"),
            ("/docker/abcd", "/docker/abc", ""),
            ("/../../x", "/", ""),
            ("/not/there", "/", ""),
            ("/there", "/", "there"),
        ];
        for (path, mounted, expected) in cases {
            let machine = two(path, mounted);
            let top = machine.path("sys/fs/cgroup");
            for dir in ["sub", "there", "d"] {
                std::fs::create_dir_all(top.join(dir)).unwrap();
            }
            let cgroup = Cgroup::of_process(machine.root());
            let levels = cgroup.unified.unwrap().levels;
            assert_eq!(levels[0], top.join(expected), "{path} {mounted}");
            assert_eq!(levels.last().unwrap(), &top);
        }
    }

    #[test]
    fn every_row_of_the_container_is_set() {
        let machine = two("/", "/");
        let top = "sys/fs/cgroup";
        machine.write(&format!("{top}/cpu.max"), "200000 100000\n");
        machine.write(&format!("{top}/memory.max"), "10485760\n");
        machine.write(&format!("{top}/memory.current"), "6291456\n");
        let stat = "anon 5\nfile 6\ninactive_file 2097152\n";
        machine.write(&format!("{top}/memory.stat"), stat);
        let events = "low 0\nhigh 0\nmax 8\noom 2\noom_kill 1\noom_group_kill 0\n";
        machine.write(&format!("{top}/memory.events"), events);
        machine.write(&format!("{top}/cpu.stat"), STAT);
        machine.write(&format!("{top}/cpu.pressure"), PRESSURE);
        machine.write("proc/pressure/io", PRESSURE);
        let metrics = metrics();
        let mut container = ContainerSource::below(machine.root(), &metrics).unwrap();
        container.collect();
        let expected = [
            (&families::CONTAINER_CPU_LIMIT, "", 2.0),
            (&families::CONTAINER_MEMORY_LIMIT, "", 10.0 * MIB),
            (&families::CONTAINER_MEMORY_WORKING_SET, "", 4.0 * MIB),
            (&families::CONTAINER_CPU_THROTTLED, "", 2.5),
            (&families::CONTAINER_CPU_PERIODS, "true", 30.0),
            (&families::CONTAINER_CPU_PERIODS, "false", 70.0),
            (&families::CONTAINER_OOM_EVENTS, "", 1.0),
            (&families::PRESSURE_STALL, "cpu some", 1.5),
            (&families::PRESSURE_STALL, "cpu full", 0.25),
            (&families::PRESSURE_STALL, "io some", 1.5),
            (&families::PRESSURE_STALL, "io full", 0.25),
        ];
        for (metric, labels, expected) in expected {
            let seen = value(&metrics, metric, labels);
            assert_eq!(seen, Some(expected), "{} {labels}", metric.name);
        }
        assert_eq!(shown(&metrics, &families::PRESSURE_STALL).len(), 4);
        std::fs::remove_dir_all(machine.path(top)).unwrap();
        container.collect();
        let gone = [
            &families::CONTAINER_CPU_LIMIT,
            &families::CONTAINER_MEMORY_LIMIT,
            &families::CONTAINER_MEMORY_WORKING_SET,
            &families::CONTAINER_CPU_PERIODS,
            &families::CONTAINER_OOM_EVENTS,
        ];
        for metric in gone {
            assert_eq!(shown(&metrics, metric), [], "{}", metric.name);
        }
    }

    #[test]
    fn full_cpu_pressure_of_a_machine_is_absent_for_it_means_nothing() {
        let machine = Fixture::new();
        machine.write("proc/pressure/cpu", PRESSURE);
        machine.write("proc/pressure/memory", PRESSURE);
        let cgroup = Cgroup::of_process(machine.root());
        assert_eq!(cgroup.pressure("cpu"), [Some(1.5), None]);
        assert_eq!(cgroup.pressure("memory"), [Some(1.5), Some(0.25)]);
        assert_eq!(cgroup.pressure("io"), [None, None]);
    }
}
