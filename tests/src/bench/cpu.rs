//! The processor time and memory that contenders take: unlike their speed they hardly depend on what else the machine does.

use std::{fs, time::Duration};

/// Ticks a second in `/proc/PID/stat`; Linux shows programs 100 on every machine of today.
const TICKS: u64 = 100;

/// What some servers and the programs that ran to their end have taken so far.
#[derive(Debug)]
pub struct Cpu {
    servers: Vec<u64>,
    programs: u64,
}

impl Cpu {
    /// Reads the clocks of these processes, and of the children of this one that have ended.
    pub fn read(servers: &[u32]) -> Self {
        let all = |pid: &u32| ticks(&pid.to_string(), 4);
        Self { servers: servers.iter().map(all).collect(), programs: ticks("self", 2) }
    }

    /// Returns what was taken since `before`: by each server, then by the programs.
    pub fn since(&self, before: &Self) -> Vec<Duration> {
        let now = self.servers.iter().chain([&self.programs]);
        let then = before.servers.iter().chain([&before.programs]);
        let taken = now.zip(then).map(|(now, then)| now.saturating_sub(*then));
        taken.map(|ticks| Duration::from_millis(ticks * 1000 / TICKS)).collect()
    }
}

/// Returns the most memory that a process has had so far, in bytes; nothing when it has ended.
pub fn peak_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

/// Adds up the last `fields` of: user and system time of a process, then of its children that have ended.
fn ticks(pid: &str, fields: usize) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A program's name may have blanks and brackets of its own.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let times: Vec<u64> =
        after_name.split_whitespace().skip(11).take(4).filter_map(|field| field.parse().ok()).collect();
    times.iter().rev().take(fields).sum()
}
