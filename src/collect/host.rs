//! The machine around the process: processors, memory, disks, file systems, networks.
//!
//! What `/proc` tells cheaply is read each second, among it the disks' busy time that a target
//! rests on. `sysinfo` lists file systems and networks, which takes 0.3 ms and more, each 15 s.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sysinfo::{DiskRefreshKind, Disks, Networks};

use super::kept_file::KeptFile;
use super::process::{field, kibibytes};
use super::sys::space::used_share;
use super::{Source, or_absent};
use crate::catalog::families;
use crate::config;
use crate::error::Error;
use crate::store::Store;
use crate::store::metrics::{Counter, Gauge, Metrics, ObservedCounter};

/// Devices, interfaces and mounts that are shown, of each. A machine of containers makes new
/// interfaces all day; those seen first stay, the others are counted.
const NAMES: usize = 64;

/// The unit of `/proc/diskstats`, whatever the disk's own sectors are.
const SECTOR_BYTES: f64 = 512.0;

/// Everything that is read of the machine.
///
/// # Errors
/// Out of range if a family was declared with another shape before.
pub(crate) fn sources(store: &Arc<Store>) -> Result<Vec<Box<dyn Source>>, Error> {
    let machine = MachineSource::below(Path::new("/"), Arc::clone(store))?;
    let mounts = MountSource::new(Arc::clone(store))?;
    Ok(vec![Box::new(machine), Box::new(mounts)])
}

/// Things with a name, admitted up to a bound.
#[derive(Debug)]
struct Named<T> {
    held: BTreeMap<String, T>,
    most_left_out: usize,
    dropped: Counter,
}

impl<T> Named<T> {
    fn new(metrics: &Metrics, reason: &str) -> Result<Self, Error> {
        Ok(Self {
            held: BTreeMap::new(),
            most_left_out: 0,
            dropped: metrics.counter(&families::AGENT_DROPPED, &["host", reason])?,
        })
    }

    /// Admits what is new in `readings` and sets everything held; what was not read gets `None`.
    fn update<R>(
        &mut self,
        readings: &BTreeMap<String, R>,
        make: impl Fn(&str, &R) -> Result<T, Error>,
        set: impl Fn(&T, Option<&R>),
    ) {
        let mut left_out = 0_usize;
        for (name, reading) in readings {
            if self.held.contains_key(name) {
                continue;
            }
            match make(name, reading) {
                Ok(fresh) if self.held.len() < NAMES => {
                    self.held.insert(name.clone(), fresh);
                }
                _ => left_out += 1,
            }
        }
        // Not at each reading: one interface too many is one loss, not four a minute.
        let more = left_out.saturating_sub(self.most_left_out);
        self.dropped.add(u64::try_from(more).unwrap_or(u64::MAX));
        self.most_left_out = self.most_left_out.max(left_out);
        for (name, held) in &self.held {
            set(held, readings.get(name));
        }
    }
}

const MODES: [&str; 7] = [
    "user",
    "nice",
    "system",
    "idle",
    "iowait",
    "interrupt",
    "steal",
];
const STATES: [&str; 4] = ["used", "free", "buffers", "cached"];

/// Processors, memory and disks, from `/proc`.
///
/// # Cost
/// Three kept-open files each second, of which the kernel writes all lines: tens of µs.
#[derive(Debug)]
struct MachineSource {
    store: Arc<Store>,
    stat: KeptFile,
    meminfo: KeptFile,
    diskstats: KeptFile,
    buffer: Vec<u8>,
    blocks: PathBuf,
    cpu: Vec<Gauge>,
    last_cpu: Option<[f64; MODES.len()]>,
    memory: Vec<Gauge>,
    disks: Named<Disk>,
}

#[derive(Debug)]
struct Disk {
    read: ObservedCounter,
    written: ObservedCounter,
    busy: ObservedCounter,
}

impl Disk {
    fn new(metrics: &Metrics, device: &str) -> Result<Self, Error> {
        let io =
            |direction| metrics.observed_counter(&families::SYSTEM_DISK_IO, &[device, direction]);
        Ok(Self {
            read: io("read")?,
            written: io("write")?,
            busy: metrics.observed_counter(&families::SYSTEM_DISK_IO_TIME, &[device])?,
        })
    }

    fn set(&self, reading: Option<&DiskReading>) {
        let value = |part: fn(&DiskReading) -> f64| or_absent(reading.map(part));
        self.read.set(value(|reading| reading.read_bytes));
        self.written.set(value(|reading| reading.written_bytes));
        self.busy.set(value(|reading| reading.busy_seconds));
    }
}

impl MachineSource {
    /// Reads below `root`, which is `/` but in tests.
    fn below(root: &Path, store: Arc<Store>) -> Result<Self, Error> {
        let gauges = |metric, labels: &[&str]| {
            let gauges = labels
                .iter()
                .map(|label| store.metrics.gauge(metric, &[label]));
            gauges.collect::<Result<Vec<_>, Error>>()
        };
        Ok(Self {
            stat: KeptFile::new(root.join("proc/stat")),
            meminfo: KeptFile::new(root.join("proc/meminfo")),
            diskstats: KeptFile::new(root.join("proc/diskstats")),
            buffer: Vec::new(),
            blocks: root.join("sys/block"),
            cpu: gauges(&families::SYSTEM_CPU_UTILIZATION, &MODES)?,
            last_cpu: None,
            memory: gauges(&families::SYSTEM_MEMORY_UTILIZATION, &STATES)?,
            disks: Named::new(&store.metrics, "disk_limit")?,
            store,
        })
    }

    fn read_cpu(&mut self) {
        let text = self.stat.read(&mut self.buffer);
        let now = text.and_then(|text| cpu_times(&text));
        let shares = now
            .zip(self.last_cpu)
            .and_then(|(now, before)| shares(&now, &before));
        match (now, shares) {
            // Two readings within one tick of the kernel say nothing new.
            (Some(_), None) if self.last_cpu.is_some() => return,
            (_, Some(shares)) => {
                for (gauge, share) in self.cpu.iter().zip(shares) {
                    gauge.set(share);
                }
            }
            _ => self.cpu.iter().for_each(Gauge::clear),
        }
        self.last_cpu = now;
    }

    fn read_memory(&mut self) {
        let text = self.meminfo.read(&mut self.buffer);
        let states = text.and_then(|text| memory_states(&text));
        for (place, gauge) in self.memory.iter().enumerate() {
            gauge.set(or_absent(
                states.and_then(|states| states.get(place).copied()),
            ));
        }
    }

    fn read_disks(&mut self) {
        let text = self.diskstats.read(&mut self.buffer).unwrap_or_default();
        let readings: BTreeMap<String, DiskReading> = text
            .lines()
            .filter_map(disk_reading)
            .filter(|(name, _)| is_whole_disk(&self.blocks, name))
            .collect();
        let metrics = &self.store.metrics;
        self.disks
            .update(&readings, |name, _| Disk::new(metrics, name), Disk::set);
    }
}

impl Source for MachineSource {
    fn component(&self) -> &'static str {
        "host"
    }

    fn interval(&self) -> Duration {
        config::COLLECT_INTERVAL
    }

    fn collect(&mut self) {
        self.read_cpu();
        self.read_memory();
        self.read_disks();
    }
}

/// Ticks of all CPUs by mode. Time of guests is part of `user` and `nice` already.
fn cpu_times(stat: &str) -> Option<[f64; MODES.len()]> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let mut fields = line
        .split_whitespace()
        .map_while(|field| field.parse::<f64>().ok());
    let mut next = || fields.next();
    let (user, nice, system, idle) = (next()?, next()?, next()?, next()?);
    let (iowait, irq, softirq) = (next()?, next()?, next()?);
    let steal = next().unwrap_or(0.0);
    Some([user, nice, system, idle, iowait, irq + softirq, steal])
}

fn shares(now: &[f64; MODES.len()], before: &[f64; MODES.len()]) -> Option<[f64; MODES.len()]> {
    let mut grown = *now;
    for (grown, before) in grown.iter_mut().zip(before) {
        // The kernel lets idle and iowait step back a little.
        *grown = (*grown - before).max(0.0);
    }
    let all: f64 = grown.iter().sum();
    (all > 0.0).then(|| grown.map(|ticks| ticks / all))
}

/// Shares of all memory, in the order of [`STATES`]; together they are 1.
fn memory_states(meminfo: &str) -> Option<[f64; STATES.len()]> {
    let bytes = |name| kibibytes(field(meminfo, name)?);
    let total = bytes("MemTotal").filter(|total| *total > 0.0)?;
    let (free, buffers) = (bytes("MemFree")?, bytes("Buffers")?);
    let cached = bytes("Cached")? + bytes("SReclaimable").unwrap_or(0.0);
    let used = (total - free - buffers - cached).max(0.0);
    Some([used, free, buffers, cached].map(|bytes| bytes / total))
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct DiskReading {
    read_bytes: f64,
    written_bytes: f64,
    busy_seconds: f64,
}

/// A line of `/proc/diskstats`: major, minor, name, then counts; the 3rd is sectors read, the 7th
/// sectors written, the 10th milliseconds with at least one request in flight.
fn disk_reading(line: &str) -> Option<(String, DiskReading)> {
    let mut fields = line.split_whitespace().skip(2);
    let name = fields.next()?;
    let mut count = |skip| fields.nth(skip)?.parse::<f64>().ok();
    let reading = DiskReading {
        read_bytes: count(2)? * SECTOR_BYTES,
        written_bytes: count(3)? * SECTOR_BYTES,
        busy_seconds: count(2)? / 1000.0,
    };
    Some((name.to_owned(), reading))
}

/// Partitions do not stand in `/sys/block`; loop, ram, zram, device mapper and RAID have no
/// `device` there, for what they do is done by the disks below them.
fn is_whole_disk(blocks: &Path, name: &str) -> bool {
    blocks.join(name.replace('/', "!")).join("device").exists()
}

/// File systems and networks, from `sysinfo`.
///
/// # Cost
/// 0.3 ms for networks on 2 interfaces, one `statvfs` per mounted device.
struct MountSource {
    store: Arc<Store>,
    mounts: Disks,
    networks: Networks,
    filesystems: Named<Gauge>,
    interfaces: Named<[ObservedCounter; 2]>,
}

impl MountSource {
    fn new(store: Arc<Store>) -> Result<Self, Error> {
        let unavailable = |error: sysinfo::Error| Error::refused("sysinfo", error);
        Ok(Self {
            mounts: Disks::new().map_err(unavailable)?,
            networks: Networks::new().map_err(unavailable)?,
            filesystems: Named::new(&store.metrics, "filesystem_limit")?,
            interfaces: Named::new(&store.metrics, "interface_limit")?,
            store,
        })
    }

    fn read_filesystems(&mut self) {
        // Listed without their sizes first: asking a network or user-space file system for its
        // size may block for ever.
        self.mounts
            .refresh_specifics(true, DiskRefreshKind::nothing());
        let mut readings: BTreeMap<String, Mount> = BTreeMap::new();
        for mount in self.mounts.iter() {
            let device = mount.name().to_string_lossy().into_owned();
            let kind = mount.file_system().to_string_lossy().into_owned();
            if !(device.starts_with("/dev/") || kind == "overlay" || kind == "zfs") {
                continue;
            }
            // The same file system mounted at many places, as containers do, is one.
            let point = mount.mount_point().to_string_lossy().into_owned();
            let shorter = |known: &Mount| known.point.len() <= point.len();
            if readings.get(&device).is_some_and(shorter) {
                continue;
            }
            let used = used_share(mount.mount_point());
            readings.insert(device, Mount { point, used });
        }
        let metrics = &self.store.metrics;
        let make = |device: &str, mount: &Mount| {
            let labels = [device, &mount.point];
            metrics.gauge(&families::SYSTEM_FILESYSTEM_UTILIZATION, &labels)
        };
        let set = |gauge: &Gauge, mount: Option<&Mount>| {
            gauge.set(or_absent(mount.and_then(|mount| mount.used)));
        };
        self.filesystems.update(&readings, make, set);
    }

    fn read_networks(&mut self) {
        self.networks.refresh(true);
        let readings: BTreeMap<String, (u64, u64)> = self
            .networks
            .iter()
            .map(|(name, network)| {
                let totals = (network.total_received(), network.total_transmitted());
                (name.to_string_lossy().into_owned(), totals)
            })
            .collect();
        let metrics = &self.store.metrics;
        let make = |name: &str, _: &(u64, u64)| {
            let io = |direction| {
                metrics.observed_counter(&families::SYSTEM_NETWORK_IO, &[name, direction])
            };
            Ok([io("receive")?, io("transmit")?])
        };
        let set = |[receive, transmit]: &[ObservedCounter; 2], totals: Option<&(u64, u64)>| {
            receive.set(or_absent(totals.map(|(received, _)| *received as f64)));
            transmit.set(or_absent(totals.map(|(_, sent)| *sent as f64)));
        };
        self.interfaces.update(&readings, make, set);
    }
}

struct Mount {
    point: String,
    used: Option<f64>,
}

impl Source for MountSource {
    fn component(&self) -> &'static str {
        "host"
    }

    fn interval(&self) -> Duration {
        config::HOST_INTERVAL
    }

    fn collect(&mut self) {
        self.read_filesystems();
        self.read_networks();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::{Fixture, shown, value};

    const STAT: &str = "cpu  100 10 50 800 20 5 15 0 70 3\ncpu0 100 10 50 800 20 5 15 0 70 3\n";
    const MEMINFO: &str = "MemTotal:  1000 kB\nMemFree:    250 kB\nMemAvailable: 1 kB\n\
        Buffers:     50 kB\nCached:     150 kB\nSwapCached:  9 kB\nSReclaimable: 50 kB\n";
    const DISKSTATS: &str = "   7   0 loop0 1 2 3 4 5 6 7 8 9 10 11\n\
         254   0 vda 97206 10888 2000 92819 17507 78610 4000 167976 0 23868 262038 1 2 3\n\
         254   1 vda1 1 1 1 1 1 1 1 1 0 1 1\n\
         104   0 cciss/c0d0 1 1 8 1 1 1 16 1 0 500 1\n\
         253   0 dm-0 1 1 1 1 1 1 1 1 0 1 1\n";

    fn machine() -> Fixture {
        let machine = Fixture::new();
        machine.write("proc/stat", STAT);
        machine.write("proc/meminfo", MEMINFO);
        machine.write("proc/diskstats", DISKSTATS);
        for disk in [
            "vda/device/model",
            "cciss!c0d0/device/model",
            "loop0/size",
            "dm-0/size",
        ] {
            machine.write(&format!("sys/block/{disk}"), "");
        }
        machine
    }

    fn source(machine: &Fixture) -> (Arc<Store>, MachineSource) {
        let store = Arc::new(Store::new(10_000));
        let source = MachineSource::below(machine.root(), Arc::clone(&store)).unwrap();
        (store, source)
    }

    #[test]
    fn cpu_is_the_share_of_each_mode_between_two_readings() {
        let machine = machine();
        let (store, mut source) = source(&machine);
        source.collect();
        let shares = || shown(&store.metrics, &families::SYSTEM_CPU_UTILIZATION);
        assert_eq!(shares(), []);
        machine.write(
            "proc/stat",
            &STAT.replacen("100 10 50 800 20 5 15 0", "130 10 60 840 19 10 20 10", 1),
        );
        source.collect();
        let expected = [
            ("user", 0.3),
            ("nice", 0.0),
            ("system", 0.1),
            ("idle", 0.4),
            ("iowait", 0.0),
            ("interrupt", 0.1),
            ("steal", 0.1),
        ];
        for ((mode, share), (seen, value)) in expected.iter().zip(shares()) {
            assert_eq!(*mode, seen);
            assert!((share - value).abs() < 1e-9, "{mode} {value}");
        }
        // Nothing has passed: the last shares stay.
        source.collect();
        assert_eq!(shares().len(), 7);
        machine.write("proc/stat", "intr 1\n");
        source.collect();
        assert_eq!(shares(), []);
    }

    #[test]
    fn states_of_memory_add_up_to_all_of_it() {
        let machine = machine();
        let (store, mut source) = source(&machine);
        source.collect();
        let metric = &families::SYSTEM_MEMORY_UTILIZATION;
        let expected = [
            ("used", 0.5),
            ("free", 0.25),
            ("buffers", 0.05),
            ("cached", 0.2),
        ];
        for (state, share) in expected {
            assert_eq!(value(&store.metrics, metric, state), Some(share), "{state}");
        }
        machine.write("proc/meminfo", "MemTotal: 0 kB\n");
        source.collect();
        assert_eq!(shown(&store.metrics, metric), []);
    }

    #[test]
    fn whole_disks_are_shown_and_nothing_on_top_or_inside_of_them() {
        let machine = machine();
        let (store, mut source) = source(&machine);
        source.collect();
        let metrics = &store.metrics;
        let busy = || shown(metrics, &families::SYSTEM_DISK_IO_TIME);
        let disks = [("cciss/c0d0".to_owned(), 0.5), ("vda".to_owned(), 23.868)];
        assert_eq!(busy(), disks);
        let io = |labels| value(metrics, &families::SYSTEM_DISK_IO, labels);
        assert_eq!(io("vda read"), Some(2000.0 * 512.0));
        assert_eq!(io("vda write"), Some(4000.0 * 512.0));
        machine.write("proc/diskstats", "254 0 vda 1 1 2 1 1 1 4 1 0 1000 1\n");
        source.collect();
        assert_eq!(busy(), [("vda".to_owned(), 1.0)]);
        machine.write("proc/diskstats", "254 0 vda 1 1\nnonsense\n");
        source.collect();
        assert_eq!(busy(), []);
    }

    #[test]
    fn names_beyond_the_bound_are_counted_once() {
        let machine = machine();
        let (store, mut source) = source(&machine);
        let mut lines = String::new();
        for disk in 0..NAMES + 3 {
            machine.write(&format!("sys/block/sd{disk:03}/device/model"), "");
            lines += &format!("8 0 sd{disk:03} 1 1 8 1 1 1 16 1 0 500 1\n");
        }
        machine.write("proc/diskstats", &lines);
        source.collect();
        source.collect();
        let disks = shown(&store.metrics, &families::SYSTEM_DISK_IO_TIME);
        assert_eq!(disks.len(), NAMES);
        let dropped = value(&store.metrics, &families::AGENT_DROPPED, "host disk_limit");
        assert_eq!(dropped, Some(3.0));
    }

    #[test]
    fn this_machine_shows_its_file_systems_and_networks() {
        let store = Arc::new(Store::new(10_000));
        for mut source in sources(&store).unwrap() {
            source.collect();
        }
        let networks = shown(&store.metrics, &families::SYSTEM_NETWORK_IO);
        if Path::new("/sys/class/net/lo").exists() {
            let received = networks.iter().filter(|(labels, _)| labels == "lo receive");
            assert_eq!(received.count(), 1, "{networks:?}");
        } else {
            println!("skipped: no interface lo here");
        }
        let used = shown(&store.metrics, &families::SYSTEM_FILESYSTEM_UTILIZATION);
        assert!(
            used.iter().all(|(_, ratio)| (0.0..=1.0).contains(ratio)),
            "{used:?}"
        );
        let devices: std::collections::BTreeSet<_> = used
            .iter()
            .map(|(labels, _)| labels.split(' ').next())
            .collect();
        assert_eq!(devices.len(), used.len(), "{used:?}");
        println!("{used:?} {networks:?}");
    }
}
