//! The process as the kernel sees it: CPU, memory, disk, descriptors, faults, its limits.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::cgroup::Cgroup;
use super::kept_file::KeptFile;
use super::sys::usage::{self, Usage};
use super::{Source, or_absent};
use crate::catalog::families;
use crate::config;
use crate::error::Error;
use crate::store::metrics::{Gauge, Metrics, ObservedCounter, unix_nanos_now};

/// Limits change rarely, and where the kernel cannot count descriptors (before Linux 6.2) listing
/// them costs about 0.1 ms per thousand.
const SLOW: Duration = Duration::from_secs(5);

/// Reads `/proc/self` and sets every row of the process.
///
/// # Cost
/// Each second one system call and two kept-open files, about 20 µs; each fifth second the limits.
#[derive(Debug)]
pub(crate) struct ProcessSource {
    status: KeptFile,
    io: KeptFile,
    limits: KeptFile,
    buffer: Vec<u8>,
    root: PathBuf,
    cgroup: Cgroup,
    handles: Handles,
    started: Option<Started>,
    slow_due: Option<Instant>,
    cores: Option<f64>,
    memory_limit: Option<f64>,
    last_cpu: Option<(Instant, Duration)>,
}

#[derive(Debug)]
struct Handles {
    cpu_user: ObservedCounter,
    cpu_system: ObservedCounter,
    cpu_seconds: ObservedCounter,
    cpu_utilization: Gauge,
    cpu_limit: Gauge,
    memory_usage: [Gauge; 2],
    memory_virtual: [Gauge; 2],
    memory_utilization: Gauge,
    memory_limit: Gauge,
    disk_bytes: [ObservedCounter; 2],
    disk_operations: [ObservedCounter; 2],
    threads: Gauge,
    fds: [Gauge; 2],
    fd_limit: [Gauge; 2],
    switches: [ObservedCounter; 2],
    faults: [ObservedCounter; 2],
    uptime: Gauge,
    start_time: Gauge,
}

impl Handles {
    fn new(metrics: &Metrics) -> Result<Self, Error> {
        let gauge = |metric| metrics.gauge(metric, &[]);
        let counter = |metric, label: &str| metrics.observed_counter(metric, &[label]);
        Ok(Self {
            cpu_user: counter(&families::PROCESS_CPU_TIME, "user")?,
            cpu_system: counter(&families::PROCESS_CPU_TIME, "system")?,
            cpu_seconds: metrics.observed_counter(&families::PROCESS_CPU_SECONDS, &[])?,
            cpu_utilization: gauge(&families::PROCESS_CPU_UTILIZATION)?,
            cpu_limit: gauge(&families::PROCESS_CPU_LIMIT)?,
            memory_usage: [
                gauge(&families::PROCESS_MEMORY_USAGE)?,
                gauge(&families::PROCESS_RESIDENT_MEMORY)?,
            ],
            memory_virtual: [
                gauge(&families::PROCESS_MEMORY_VIRTUAL)?,
                gauge(&families::PROCESS_VIRTUAL_MEMORY)?,
            ],
            memory_utilization: gauge(&families::PROCESS_MEMORY_UTILIZATION)?,
            memory_limit: gauge(&families::PROCESS_MEMORY_LIMIT)?,
            disk_bytes: [
                counter(&families::PROCESS_DISK_IO, "read")?,
                counter(&families::PROCESS_DISK_IO, "write")?,
            ],
            disk_operations: [
                counter(&families::PROCESS_DISK_OPERATIONS, "read")?,
                counter(&families::PROCESS_DISK_OPERATIONS, "write")?,
            ],
            threads: gauge(&families::PROCESS_THREAD_COUNT)?,
            fds: [
                gauge(&families::PROCESS_FD_COUNT)?,
                gauge(&families::PROCESS_OPEN_FDS)?,
            ],
            fd_limit: [
                gauge(&families::PROCESS_FD_LIMIT)?,
                gauge(&families::PROCESS_MAX_FDS)?,
            ],
            switches: [
                counter(&families::PROCESS_CONTEXT_SWITCHES, "voluntary")?,
                counter(&families::PROCESS_CONTEXT_SWITCHES, "involuntary")?,
            ],
            faults: [
                counter(&families::PROCESS_PAGING_FAULTS, "minor")?,
                counter(&families::PROCESS_PAGING_FAULTS, "major")?,
            ],
            uptime: gauge(&families::PROCESS_UPTIME)?,
            start_time: gauge(&families::PROCESS_START_TIME)?,
        })
    }
}

impl ProcessSource {
    /// # Errors
    /// Out of range if a family was declared with another shape before.
    pub(crate) fn new(metrics: &Metrics) -> Result<Self, Error> {
        Self::below(Path::new("/"), metrics)
    }

    fn below(root: &Path, metrics: &Metrics) -> Result<Self, Error> {
        let own = root.join("proc/self");
        Ok(Self {
            status: KeptFile::new(own.join("status")),
            io: KeptFile::new(own.join("io")),
            limits: KeptFile::new(own.join("limits")),
            buffer: Vec::new(),
            root: root.to_owned(),
            cgroup: Cgroup::of_process(root),
            handles: Handles::new(metrics)?,
            started: Started::read(root),
            slow_due: None,
            cores: None,
            memory_limit: None,
            last_cpu: None,
        })
    }

    fn read_limits(&mut self) {
        let status = self.status.read(&mut self.buffer);
        let usable = status.and_then(|text| usable_cpus(&text, &self.root));
        let limits = self.cgroup.limits();
        self.cores = smaller(usable, limits.cpu_cores);
        let meminfo = std::fs::read_to_string(self.root.join("proc/meminfo"));
        let total = meminfo
            .ok()
            .and_then(|text| kibibytes(field(&text, "MemTotal")?));
        self.memory_limit = smaller(total, limits.memory_bytes);
        let fd_limit = self
            .limits
            .read(&mut self.buffer)
            .and_then(|text| fd_limit(&text));
        self.handles.cpu_limit.set(or_absent(self.cores));
        self.handles.memory_limit.set(or_absent(self.memory_limit));
        for gauge in &self.handles.fd_limit {
            gauge.set(or_absent(fd_limit));
        }
    }

    fn read_fds(&self, slow: bool) {
        let fds = self.root.join("proc/self/fd");
        // Since Linux 6.2 the directory's size is the number of descriptors.
        let size = std::fs::metadata(&fds).map_or(0, |metadata| metadata.len());
        let count = match size {
            0 if !slow => return,
            // The listing itself holds one.
            0 => std::fs::read_dir(&fds)
                .ok()
                .map(|entries| entries.count().saturating_sub(1) as f64),
            size => Some(size as f64),
        };
        for gauge in &self.handles.fds {
            gauge.set(or_absent(count));
        }
    }

    fn read_usage(&mut self, now: Instant, usage: Option<Usage>) {
        let handles = &self.handles;
        let seconds = |part: fn(&Usage) -> Duration| {
            or_absent(usage.as_ref().map(|usage| part(usage).as_secs_f64()))
        };
        handles.cpu_user.set(seconds(|usage| usage.user));
        handles.cpu_system.set(seconds(|usage| usage.system));
        handles
            .cpu_seconds
            .set(seconds(|usage| usage.user + usage.system));
        let count =
            |part: fn(&Usage) -> u64| or_absent(usage.as_ref().map(|usage| part(usage) as f64));
        let [minor, major] = &handles.faults;
        minor.set(count(|usage| usage.minor_faults));
        major.set(count(|usage| usage.major_faults));
        let [voluntary, involuntary] = &handles.switches;
        voluntary.set(count(|usage| usage.voluntary_switches));
        involuntary.set(count(|usage| usage.involuntary_switches));

        let cpu = usage.map(|usage| (now, usage.user + usage.system));
        // Ticks of the kernel's accounting make a share over a few milliseconds meaningless, as
        // when a scrape asks for fresh readings right after the last ones.
        if let (Some((then, before)), Some((_, used))) = (self.last_cpu, cpu) {
            let elapsed = now.saturating_duration_since(then);
            if elapsed < config::COLLECT_INTERVAL / 2 {
                return;
            }
            let share = used.saturating_sub(before).as_secs_f64() / elapsed.as_secs_f64();
            let ratio = self.cores.map(|cores| share / cores);
            handles.cpu_utilization.set(or_absent(ratio));
        } else {
            handles.cpu_utilization.clear();
        }
        self.last_cpu = cpu;
    }

    fn read_status(&mut self) {
        let handles = &self.handles;
        let text = self.status.read(&mut self.buffer).unwrap_or_default();
        let bytes = |name| field(&text, name).and_then(kibibytes);
        let resident = bytes("VmRSS");
        for gauge in &handles.memory_usage {
            gauge.set(or_absent(resident));
        }
        for gauge in &handles.memory_virtual {
            gauge.set(or_absent(bytes("VmSize")));
        }
        let ratio = resident
            .zip(self.memory_limit)
            .map(|(used, all)| used / all);
        handles.memory_utilization.set(or_absent(ratio));
        let threads = field(&text, "Threads").and_then(number);
        handles.threads.set(or_absent(threads));
    }

    fn read_io(&mut self) {
        let text = self.io.read(&mut self.buffer).unwrap_or_default();
        let total = |name| or_absent(field(&text, name).and_then(number));
        let [read, write] = &self.handles.disk_bytes;
        read.set(total("read_bytes"));
        write.set(total("write_bytes"));
        let [read, write] = &self.handles.disk_operations;
        read.set(total("syscr"));
        write.set(total("syscw"));
    }
}

impl Source for ProcessSource {
    fn component(&self) -> &'static str {
        "process"
    }

    fn interval(&self) -> Duration {
        config::COLLECT_INTERVAL
    }

    fn collect(&mut self) {
        let now = Instant::now();
        let slow = self.slow_due.is_none_or(|due| now >= due);
        if slow {
            self.slow_due = Some(now + SLOW);
            self.read_limits();
        }
        self.read_fds(slow);
        self.read_usage(now, usage::of_process());
        self.read_status();
        self.read_io();
        let uptime = self.started.map(|started| started.uptime(now));
        self.handles.uptime.set(or_absent(uptime));
        let unix = self.started.map(|started| started.unix_seconds);
        self.handles.start_time.set(or_absent(unix));
    }
}

/// When the process started. Found once: a start that moves with the clock looks like a restart.
#[derive(Debug, Clone, Copy)]
struct Started {
    unix_seconds: f64,
    read_at: Instant,
    uptime_then: f64,
}

impl Started {
    fn read(root: &Path) -> Option<Self> {
        let text = |file: &str| std::fs::read(root.join(file)).ok();
        let stat = text("proc/self/stat")?;
        let since_boot = start_ticks(&String::from_utf8_lossy(&stat))? / ticks_per_second(root);
        let uptime = String::from_utf8(text("proc/uptime")?).ok()?;
        let machine = number(uptime.split_whitespace().next()?)?;
        let uptime_then = machine - since_boot;
        // A container's own `/proc/uptime` (LXCFS) does not fit the machine's `/proc/self/stat`.
        (uptime_then >= 0.0).then(|| Self {
            unix_seconds: unix_nanos_now() as f64 / 1e9 - uptime_then,
            read_at: Instant::now(),
            uptime_then,
        })
    }

    fn uptime(&self, now: Instant) -> f64 {
        self.uptime_then + now.saturating_duration_since(self.read_at).as_secs_f64()
    }
}

/// When the process began, in seconds since 1970; `None` if `/proc` does not say.
#[cfg_attr(
    not(feature = "otlp"),
    expect(dead_code, reason = "only a resource that is pushed says so")
)]
pub(crate) fn start_unix_seconds(root: &Path) -> Option<f64> {
    Some(Started::read(root)?.unix_seconds)
}

/// The machine's name, or the container's.
pub(crate) fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// Field 22 of `/proc/self/stat`, counted after the name, which may hold blanks and parentheses.
fn start_ticks(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    number(fields.split_whitespace().nth(22 - 3)?)
}

/// `AT_CLKTCK` of the auxiliary vector, which a process that may not be dumped cannot read; 100 is
/// the value on every architecture that Rust supports.
fn ticks_per_second(root: &Path) -> f64 {
    const AT_CLKTCK: u64 = 17;
    let vector = std::fs::read(root.join("proc/self/auxv")).unwrap_or_default();
    let words: Vec<u64> = vector
        .chunks_exact(size_of::<usize>())
        .filter_map(|word| Some(usize::from_ne_bytes(word.try_into().ok()?) as u64))
        .collect();
    words
        .chunks_exact(2)
        .find_map(|pair| match pair {
            [AT_CLKTCK, ticks] if *ticks > 0 => Some(*ticks as f64),
            _ => None,
        })
        .unwrap_or(100.0)
}

/// CPUs that the process is allowed and the machine has switched on.
///
/// `available_parallelism` cannot be used: it already holds the cgroup's quota, rounded down, so
/// that 1.5 cores would count as 1.
fn usable_cpus(status: &str, root: &Path) -> Option<f64> {
    let allowed = cpu_list(field(status, "Cpus_allowed_list")?)?;
    let online = std::fs::read_to_string(root.join("sys/devices/system/cpu/online")).ok()?;
    let online = cpu_list(online.trim())?;
    let both: u32 = allowed
        .iter()
        .flat_map(|one| online.iter().map(move |other| shared(*one, *other)))
        .sum();
    (both > 0).then(|| f64::from(both))
}

fn shared(one: (u32, u32), other: (u32, u32)) -> u32 {
    let (first, last) = (one.0.max(other.0), one.1.min(other.1));
    last.checked_sub(first).map_or(0, |steps| steps + 1)
}

/// Reads `0-3,8` into ranges, ends included.
fn cpu_list(text: &str) -> Option<Vec<(u32, u32)>> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some((first.parse().ok()?, last.parse().ok()?))
    };
    text.split(',').map(range).collect()
}

/// The soft limit; absent if there is none.
fn fd_limit(limits: &str) -> Option<f64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    number(line.split_whitespace().next()?)
}

/// The text after `name:` at the start of a line.
pub(super) fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

pub(super) fn kibibytes(text: &str) -> Option<f64> {
    let count = number(text.strip_suffix("kB")?.trim_end())?;
    Some(count * 1024.0)
}

pub(super) fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

pub(super) fn smaller(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::{Fixture, metrics, shown, value};

    const STATUS: &str = "Name:\tVmRSS: 7\\n) x\nUmask:\t0022\nVmPeak:\t  999 kB\n\
        VmSize:\t  612340 kB\nVmRSS:\t   51200 kB\nThreads:\t12\n\
        Cpus_allowed:\tff\nCpus_allowed_list:\t0-3,6-7\nMems_allowed_list:\t0\n";
    const IO: &str = "rchar: 9\nwchar: 8\nsyscr: 70\nsyscw: 60\nread_bytes: 4096\n\
        write_bytes: 8192\ncancelled_write_bytes: 0\n";
    const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units\n\
        Max cpu time              unlimited            unlimited            seconds\n\
        Max open files            1024                 4096                 files\n";

    fn machine() -> Fixture {
        let machine = Fixture::new();
        machine.write("proc/self/status", STATUS);
        machine.write("proc/self/io", IO);
        machine.write("proc/self/limits", LIMITS);
        machine.write(
            "proc/self/stat",
            "42 (a ) 7 (b) R) S 1 42 42 0 -1 4194304 99 1 2 3 4 5 6 7 20 0 12 0 250 3133440 360",
        );
        machine.write("proc/uptime", "100.50 180.00\n");
        machine.write("proc/meminfo", "MemTotal:  204800 kB\nMemFree: 1 kB\n");
        machine.write("sys/devices/system/cpu/online", "0-6\n");
        for fd in 0..5 {
            machine.write(&format!("proc/self/fd/{fd}"), "");
        }
        machine
    }

    fn only(metrics: &Metrics, metric: &crate::catalog::Metric) -> Option<f64> {
        value(metrics, metric, "")
    }

    #[test]
    fn every_row_is_set_from_the_files_of_proc() {
        let (machine, metrics) = (machine(), metrics());
        let mut process = ProcessSource::below(machine.root(), &metrics).unwrap();
        process.collect();
        let kib = 1024.0;
        let expected = [
            (&families::PROCESS_MEMORY_USAGE, "", 51_200.0 * kib),
            (&families::PROCESS_RESIDENT_MEMORY, "", 51_200.0 * kib),
            (&families::PROCESS_MEMORY_VIRTUAL, "", 612_340.0 * kib),
            (&families::PROCESS_VIRTUAL_MEMORY, "", 612_340.0 * kib),
            (&families::PROCESS_MEMORY_LIMIT, "", 204_800.0 * kib),
            (&families::PROCESS_MEMORY_UTILIZATION, "", 0.25),
            (&families::PROCESS_CPU_LIMIT, "", 5.0),
            (&families::PROCESS_THREAD_COUNT, "", 12.0),
            (&families::PROCESS_FD_LIMIT, "", 1024.0),
            (&families::PROCESS_MAX_FDS, "", 1024.0),
            (&families::PROCESS_DISK_IO, "read", 4096.0),
            (&families::PROCESS_DISK_IO, "write", 8192.0),
            (&families::PROCESS_DISK_OPERATIONS, "read", 70.0),
            (&families::PROCESS_DISK_OPERATIONS, "write", 60.0),
        ];
        for (metric, labels, expected) in expected {
            let seen = value(&metrics, metric, labels);
            assert_eq!(seen, Some(expected), "{} {labels}", metric.name);
        }
        let uptime = only(&metrics, &families::PROCESS_UPTIME).unwrap();
        assert!((98.0..99.0).contains(&uptime), "{uptime}");
        let start = only(&metrics, &families::PROCESS_START_TIME).unwrap();
        let now = unix_nanos_now() as f64 / 1e9;
        assert!((now - start - uptime).abs() < 0.5, "{start} {now}");
        assert_eq!(shown(&metrics, &families::PROCESS_PAGING_FAULTS).len(), 2);
        assert_eq!(
            shown(&metrics, &families::PROCESS_CONTEXT_SWITCHES).len(),
            2
        );
        let cpu = shown(&metrics, &families::PROCESS_CPU_TIME);
        let modes: f64 = cpu.iter().map(|(_, seconds)| seconds).sum();
        let total = only(&metrics, &families::PROCESS_CPU_SECONDS).unwrap();
        assert_eq!(cpu.len(), 2);
        assert!((modes - total).abs() < 1e-6);
    }

    #[test]
    fn what_cannot_be_read_is_absent_again() {
        let (machine, metrics) = (machine(), metrics());
        let mut process = ProcessSource::below(machine.root(), &metrics).unwrap();
        process.collect();
        for file in ["status", "io", "limits"] {
            machine.write(&format!("proc/self/{file}"), "nothing of use\n");
        }
        std::fs::remove_dir_all(machine.path("proc/self/fd")).unwrap();
        std::fs::remove_file(machine.path("proc/meminfo")).unwrap();
        process.slow_due = None;
        process.collect();
        let gone = [
            &families::PROCESS_MEMORY_USAGE,
            &families::PROCESS_RESIDENT_MEMORY,
            &families::PROCESS_MEMORY_VIRTUAL,
            &families::PROCESS_MEMORY_LIMIT,
            &families::PROCESS_MEMORY_UTILIZATION,
            &families::PROCESS_CPU_LIMIT,
            &families::PROCESS_THREAD_COUNT,
            &families::PROCESS_FD_LIMIT,
            &families::PROCESS_FD_COUNT,
            &families::PROCESS_OPEN_FDS,
            &families::PROCESS_DISK_IO,
            &families::PROCESS_DISK_OPERATIONS,
        ];
        for metric in gone {
            assert_eq!(shown(&metrics, metric), [], "{}", metric.name);
        }
        assert!(only(&metrics, &families::PROCESS_UPTIME).is_some());
    }

    #[test]
    fn a_machine_without_proc_shows_no_row_of_files() {
        let (empty, metrics) = (Fixture::new(), metrics());
        let mut process = ProcessSource::below(empty.root(), &metrics).unwrap();
        process.collect();
        process.collect();
        assert_eq!(only(&metrics, &families::PROCESS_MEMORY_USAGE), None);
        assert_eq!(only(&metrics, &families::PROCESS_UPTIME), None);
        assert_eq!(only(&metrics, &families::PROCESS_START_TIME), None);
        assert_eq!(only(&metrics, &families::PROCESS_CPU_UTILIZATION), None);
    }

    #[test]
    fn the_tighter_of_machine_and_container_is_the_limit() {
        let (machine, metrics) = (machine(), metrics());
        machine.write("proc/self/cgroup", "0::/\n");
        let mount = "35 31 0:32 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n";
        machine.write("proc/self/mountinfo", mount);
        machine.write("sys/fs/cgroup/cpu.max", "150000 100000\n");
        machine.write("sys/fs/cgroup/memory.max", "104857600\n");
        let mut process = ProcessSource::below(machine.root(), &metrics).unwrap();
        process.collect();
        let cores = only(&metrics, &families::PROCESS_CPU_LIMIT);
        assert_eq!(cores, Some(1.5));
        let memory = only(&metrics, &families::PROCESS_MEMORY_UTILIZATION);
        assert_eq!(memory, Some(0.5));
        machine.write("sys/fs/cgroup/cpu.max", "900000 100000\n");
        machine.write("sys/fs/cgroup/memory.max", "max\n");
        process.slow_due = None;
        process.collect();
        let cores = only(&metrics, &families::PROCESS_CPU_LIMIT);
        assert_eq!(cores, Some(5.0));
        let memory = only(&metrics, &families::PROCESS_MEMORY_UTILIZATION);
        assert_eq!(memory, Some(0.25));
    }

    #[test]
    fn utilization_is_cpu_time_per_wall_time_and_core() {
        let (machine, metrics) = (machine(), metrics());
        let mut process = ProcessSource::below(machine.root(), &metrics).unwrap();
        process.cores = Some(4.0);
        let usage = |millis| {
            Some(Usage {
                user: Duration::from_millis(millis),
                system: Duration::from_millis(200),
                minor_faults: 0,
                major_faults: 0,
                voluntary_switches: 0,
                involuntary_switches: 0,
            })
        };
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let seen = || only(&metrics, &families::PROCESS_CPU_UTILIZATION);
        process.read_usage(at(0), usage(1000));
        assert_eq!(seen(), None);
        process.read_usage(at(1000), usage(3000));
        assert_eq!(seen(), Some(0.5));
        // Too soon after the last reading for a share, but the total moves.
        process.read_usage(at(1010), usage(3010));
        assert_eq!(seen(), Some(0.5));
        let total = only(&metrics, &families::PROCESS_CPU_SECONDS);
        assert_eq!(total, Some(3.21));
        process.read_usage(at(2000), usage(4000));
        assert_eq!(seen(), Some(0.25));
        process.read_usage(at(3000), None);
        assert_eq!(seen(), None);
        assert_eq!(shown(&metrics, &families::PROCESS_CPU_TIME), []);
    }

    #[test]
    fn a_name_with_parentheses_and_blanks_does_not_shift_the_fields() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        for name in ["plain", "a b", ") S 1 2", "((", "x) (y"] {
            let stat = format!("42 ({name}) {rest}");
            assert_eq!(start_ticks(&stat), Some(4711.0), "{name}");
        }
        assert_eq!(start_ticks("42 (cut) S 1 2"), None);
        assert_eq!(start_ticks("no name"), None);
    }

    #[test]
    fn a_start_after_now_is_not_shown() {
        let machine = machine();
        machine.write("proc/uptime", "1.00 1.00\n");
        assert!(Started::read(machine.root()).is_none());
    }

    #[test]
    fn lists_of_cpus_are_intersected() {
        let machine = Fixture::new();
        let cases = [
            ("0-3", "0-3", Some(4.0)),
            ("0-239", "0-3", Some(4.0)),
            ("1,3,5-6", "0-5", Some(3.0)),
            ("7", "0-3", None),
            ("0-", "0-3", None),
            ("", "0", None),
        ];
        for (allowed, online, expected) in cases {
            machine.write("sys/devices/system/cpu/online", &format!("{online}\n"));
            let status = format!("Cpus_allowed_list:\t{allowed}\n");
            assert_eq!(usable_cpus(&status, machine.root()), expected, "{allowed}");
        }
    }

    #[test]
    fn no_limit_of_descriptors_is_absent() {
        assert_eq!(fd_limit(LIMITS), Some(1024.0));
        assert_eq!(fd_limit(&LIMITS.replace("1024", "unlimited")), None);
        assert_eq!(fd_limit(""), None);
    }

    #[test]
    fn the_ticks_of_the_auxiliary_vector_are_used() {
        let machine = Fixture::new();
        assert!((ticks_per_second(machine.root()) - 100.0).abs() < 1e-9);
        let words = [6_usize, 4096, 17, 250, 0, 0];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        std::fs::write(machine.write("proc/self/auxv", ""), bytes).unwrap();
        assert!((ticks_per_second(machine.root()) - 250.0).abs() < 1e-9);
    }

    #[test]
    fn burnt_cpu_and_written_bytes_appear() {
        let metrics = metrics();
        let mut process = ProcessSource::new(&metrics).unwrap();
        process.collect();
        let cpu = || only(&metrics, &families::PROCESS_CPU_SECONDS).unwrap();
        let written = || value(&metrics, &families::PROCESS_DISK_OPERATIONS, "write");
        let (cpu_before, written_before) = (cpu(), written());
        let own = || {
            let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
            let nanos: f64 = text.split(' ').next().unwrap().parse().unwrap();
            nanos / 1e9
        };
        let start = own();
        let mut sum = 0_u64;
        while own() - start < 0.1 {
            sum = (0..100_000).fold(sum, |sum, value| std::hint::black_box(sum ^ value));
        }
        let dir = Fixture::new();
        for turn in 0..100 {
            dir.write("file", &"x".repeat(turn + 1));
        }
        let burnt = own() - start;
        process.collect();
        // Other tests run beside this one, so the process may have used more.
        assert!(cpu() - cpu_before >= burnt - 0.01, "{burnt}");
        match (written_before, written()) {
            (Some(before), Some(after)) => assert!(after - before >= 100.0),
            _ => println!("skipped: /proc/self/io cannot be read here"),
        }
        let memory = only(&metrics, &families::PROCESS_MEMORY_UTILIZATION).unwrap();
        assert!(memory > 0.0 && memory < 1.0, "{memory}");
        let uptime = only(&metrics, &families::PROCESS_UPTIME).unwrap();
        assert!(uptime >= burnt && uptime < 3600.0, "{uptime}");
    }

    #[test]
    fn open_descriptors_are_counted() {
        let metrics = metrics();
        let mut process = ProcessSource::new(&metrics).unwrap();
        let held: Vec<_> = (0..200)
            .map(|_| std::fs::File::open("/proc/self/stat").unwrap())
            .collect();
        process.collect();
        let count = only(&metrics, &families::PROCESS_FD_COUNT).unwrap();
        assert!(count >= held.len() as f64, "{count}");
        assert_eq!(only(&metrics, &families::PROCESS_OPEN_FDS), Some(count));
    }
}
