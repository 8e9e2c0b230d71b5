//! What Prometheus' client libraries tell of a process, under the same names, read from `/proc/self`.

use std::fs;

use nix::unistd::{SysconfVar, sysconf};

use super::exposition::{Exposition, Kind};

/// Fields of `/proc/self/stat` behind the program's name (proc(5), which counts from 1 and has the name as the second).
const FIRST_FIELD: usize = 3;
const UTIME: usize = 14;
const STIME: usize = 15;
const NUM_THREADS: usize = 20;
const START_TIME: usize = 22;
const VSIZE: usize = 23;
const RSS: usize = 24;

pub fn tell(out: &mut Exposition) {
    let Ok(stat) = fs::read_to_string("/proc/self/stat") else { return };
    let Some(stat) = Stat::parse(&stat) else { return };
    let ticks = constant(SysconfVar::CLK_TCK).unwrap_or(100.0);
    let page = constant(SysconfVar::PAGE_SIZE).unwrap_or(4096.0);

    out.family("process_cpu_seconds_total", Kind::Counter, "User and system CPU time spent, in seconds.")
        .sample(&[], (stat.at(UTIME) + stat.at(STIME)) / ticks);
    out.family("process_threads", Kind::Gauge, "Threads of the process.").sample(&[], stat.at(NUM_THREADS));
    out.family("process_virtual_memory_bytes", Kind::Gauge, "Virtual memory size in bytes.")
        .sample(&[], stat.at(VSIZE));
    out.family("process_resident_memory_bytes", Kind::Gauge, "Resident memory size in bytes.")
        .sample(&[], stat.at(RSS) * page);
    let mut family = out.family(
        "process_start_time_seconds",
        Kind::Gauge,
        "When the process was started, in seconds since 1970.",
    );
    if let Some(booted) = booted() {
        family.sample(&[], booted + stat.at(START_TIME) / ticks);
    }
    let mut family = out.family("process_open_fds", Kind::Gauge, "Open file descriptors.");
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // The one that this reads is not there a moment later.
        family.sample(&[], open.count().saturating_sub(1) as f64);
    }
    let mut family =
        out.family("process_max_fds", Kind::Gauge, "The most file descriptors that may be open.");
    if let Ok((soft, _)) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE) {
        family.sample(&[], soft as f64);
    }
}

struct Stat(Vec<f64>);

impl Stat {
    /// The name may hold spaces and parentheses: what counts begins after the last of these.
    fn parse(text: &str) -> Option<Self> {
        let (_, fields) = text.rsplit_once(')')?;
        // The state is a letter, and nobody asks for it.
        Some(Self(fields.split_whitespace().map(|field| field.parse().unwrap_or_default()).collect()))
    }

    fn at(&self, field: usize) -> f64 {
        self.0.get(field - FIRST_FIELD).copied().unwrap_or_default()
    }
}

fn constant(name: SysconfVar) -> Option<f64> {
    sysconf(name).ok().flatten().map(|value| value as f64)
}

/// When the system was started, in seconds since 1970.
fn booted() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{super::Format, *};

    #[test]
    fn a_name_with_parentheses_moves_no_field() {
        let stat =
            Stat::parse("42 (a) b) S 1 42 42 0 -1 0 0 0 0 0 250 50 0 0 20 0 3 0 777 4096 12 0").unwrap();
        assert_eq!((stat.at(UTIME), stat.at(STIME), stat.at(NUM_THREADS)), (250.0, 50.0, 3.0));
        assert_eq!((stat.at(START_TIME), stat.at(VSIZE), stat.at(RSS)), (777.0, 4096.0, 12.0));
    }

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let mut out = Exposition::in_text(Format::Text);
        tell(&mut out);
        let text = out.text();
        for name in ["process_resident_memory_bytes", "process_open_fds", "process_start_time_seconds"] {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
            let value: f64 = line.unwrap_or_else(|| panic!("{name}: {text}")).parse().unwrap();
            assert!(value > 0.0, "{name} {value}");
        }
    }
}
