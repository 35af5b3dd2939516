//! CPU as the kernel has booked it, and which core a process may use.
//!
//! Reads other processes; never measures by wall clock. Next: `memory`, its counterpart.

use std::fs;
use std::num::NonZeroU64;

use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity, set_current_timer_slack};

use crate::Failure;

/// Keeps this thread, and every thread that it starts later, on one core.
pub fn pin(core: usize) -> Result<(), Failure> {
    let mut cores = CpuSet::new();
    cores.set(core);
    Ok(sched_setaffinity(None, &cores)?)
}

/// Has this thread's timers end when they are due, and not up to 50 µs later, the kernel's default slack
/// (prctl(2), PR_SET_TIMERSLACK).
pub fn wake_on_time() -> Result<(), Failure> {
    Ok(set_current_timer_slack(NonZeroU64::new(1))?)
}

/// CPU that all threads of a process have used so far, user and system, in nanoseconds.
///
/// From `/proc/PID/task/*/schedstat`, because the ticks of `/proc/PID/stat` are 10 ms. Includes the
/// network's softirq work done while the process was running, loopback's delivery among it: the same
/// on both sides of a comparison. A thread that has ended is no longer counted, so compare only
/// stretches in which none ends.
pub fn used_ns(pid: u32) -> Result<u64, Failure> {
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
pub fn sleeps(pid: u32) -> Result<u64, Failure> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    Ok(line.ok_or("no voluntary_ctxt_switches")?.trim().parse()?)
}

/// Nanoseconds on the clock that all processes of this machine share (CLOCK_MONOTONIC).
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// CPU that this thread has used so far, in nanoseconds.
pub fn thread_used_ns() -> u64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    used.tv_sec as u64 * 1_000_000_000 + used.tv_nsec as u64
}

/// Raises the descriptor limit as far as it goes; children inherit it.
pub fn raise_descriptor_limit() -> Result<(), Failure> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// Descriptors that a process may have, once the limit is raised.
pub fn descriptor_limit() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

/// Nanoseconds of the Unix epoch (CLOCK_REALTIME).
pub fn unix_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
