//! CPU as the kernel has booked it, and which core a process may use.
//!
//! Reads other processes; never measures by wall clock. Next: `memory`, its counterpart.

use std::fs;

use rustix::thread::{CpuSet, sched_setaffinity};

use super::Outcome;

/// Keeps this thread, and every thread that it starts later, on one core.
pub fn pin(core: usize) -> Outcome<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    Ok(sched_setaffinity(None, &cores)?)
}

/// CPU that all threads of a process have used so far, user and system, in nanoseconds.
///
/// From `/proc/PID/task/*/schedstat`, because the ticks of `/proc/PID/stat` are 10 ms. Includes the
/// network's softirq work done while the process was running, loopback's delivery among it: the same
/// on both sides of a comparison. A thread that has ended is no longer counted, so compare only
/// stretches in which none ends.
pub fn used_ns(pid: u32) -> Outcome<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = task?.path().join("schedstat");
        let text = fs::read_to_string(&path)?;
        let on_cpu = text.split_whitespace().next().ok_or("schedstat is empty: CONFIG_SCHED_INFO?")?;
        sum += on_cpu.parse::<u64>()?;
    }
    Ok(sum)
}

/// How often the process's first thread has gone to sleep so far.
pub fn sleeps(pid: u32) -> Outcome<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    Ok(line.ok_or("no voluntary_ctxt_switches")?.trim().parse()?)
}

/// Nanoseconds on the clock that all processes of this machine share (CLOCK_MONOTONIC).
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
