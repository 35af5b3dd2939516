//! What this client host must have before the first connect: descriptors, ports, memory.
//!
//! `Host::read` reads limits and /proc; `findings` is arithmetic on what was read. A host whose files cannot
//! be read is not complained about: the run itself will tell.

use std::fs;

use rustix::process::{Resource, getrlimit};

use super::text::{bytes, grouped};

/// What the tool keeps for one held connection: the budget that `worker` asserts.
const TOOL_BYTES: u64 = 200;

/// What the kernel keeps for one idle TCP socket: about 3.7 KB, and epoll's 210 B (Linux 6.18, loopback).
const KERNEL_BYTES: u64 = 4096;

/// Descriptors of a process that are no connections: standard streams, epoll, sockets of the coordinator.
const DESCRIPTORS_RESERVED: u64 = 64;

/// Processes that the tool starts by itself, at most (`--processes 0`).
const PROCESSES_MAX: u64 = 256;

/// What a run asks of the host.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// Connections in all.
    pub connections: u64,
    /// `--processes`; 0 is as many as are needed.
    pub processes: u64,
    /// Local addresses of `--sources`; 0 leaves it to the tool on a loopback target, else to the kernel.
    pub sources: u64,
    /// Different server addresses with ports.
    pub targets: u64,
    /// The server is on this host: its end of each connection costs memory and a descriptor here too.
    pub target_is_loopback: bool,
}

/// What the host has. `None` where it could not be read or is without limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Host {
    /// `RLIMIT_NOFILE`, soft.
    pub descriptors: Option<u64>,
    /// `RLIMIT_NOFILE`, hard.
    pub descriptors_hard: Option<u64>,
    /// Descriptors that the whole system still has (`fs.file-nr`).
    pub system_descriptors: Option<u64>,
    /// First and last of `net.ipv4.ip_local_port_range`.
    pub ports: Option<(u64, u64)>,
    /// `MemAvailable`.
    pub memory_bytes: Option<u64>,
}

/// One thing the host has enough of, or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is counted: `open files of a process`.
    pub what: &'static str,
    /// How much there is.
    pub value: u64,
    /// How much is needed.
    pub needed: u64,
    /// Whether the numbers are bytes.
    pub in_bytes: bool,
    /// What to type where it is too little.
    pub hint: String,
}

impl Finding {
    /// Whether there is as much as is needed.
    pub fn is_enough(&self) -> bool {
        self.value >= self.needed
    }

    /// One line, and a second with what to type where it is too little.
    pub fn text(&self) -> String {
        let amount = |count: u64| if self.in_bytes { bytes(count as f64) } else { grouped(count) };
        let (what, value, needed) = (self.what, amount(self.value), amount(self.needed));
        if self.is_enough() {
            format!("{what}: {value}, {needed} needed")
        } else {
            format!("{what}: only {value}, {needed} needed\n  try: {}", self.hint)
        }
    }
}

/// What this host has and what a run of `need` takes of it; all of it, short or not.
pub fn host_check(need: &Need) -> Vec<Finding> {
    findings(need, &Host::read())
}

impl Host {
    /// Reads the limits of this process and what /proc says.
    pub fn read() -> Self {
        let files = getrlimit(Resource::Nofile);
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        Self {
            descriptors: files.current,
            descriptors_hard: files.maximum,
            system_descriptors: system_descriptors(&text("/proc/sys/fs/file-nr")),
            ports: ports(&text("/proc/sys/net/ipv4/ip_local_port_range")),
            memory_bytes: memory_bytes(&text("/proc/meminfo")),
        }
    }
}

/// `635 0 2466183`: allocated, 0, limit (proc(5)).
fn system_descriptors(file_nr: &str) -> Option<u64> {
    let mut numbers = file_nr.split_whitespace().map(str::parse::<u64>);
    let allocated = numbers.next()?.ok()?;
    let limit = numbers.nth(1)?.ok()?;
    Some(limit.saturating_sub(allocated))
}

/// `32768` and `60999`: first and last, both usable (ip-sysctl).
fn ports(range: &str) -> Option<(u64, u64)> {
    let mut numbers = range.split_whitespace().map(str::parse::<u64>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// `MemAvailable:    8123456 kB`
fn memory_bytes(meminfo: &str) -> Option<u64> {
    let rest = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// The arithmetic of `host_check`.
pub fn findings(need: &Need, host: &Host) -> Vec<Finding> {
    let checks = [process_descriptors, system_wide, local_ports, memory];
    checks.into_iter().filter_map(|check| check(need, host)).collect()
}

fn process_descriptors(need: &Need, host: &Host) -> Option<Finding> {
    let value = host.descriptors?;
    let per_process = value.saturating_sub(DESCRIPTORS_RESERVED).max(1);
    let processes_needed = need.connections.div_ceil(per_process).max(1);
    // Left to the tool, it starts as many processes as this limit asks for.
    let processes = if need.processes == 0 { processes_needed.min(PROCESSES_MAX) } else { need.processes };
    let needed = need.connections.div_ceil(processes) + DESCRIPTORS_RESERVED;
    let below_hard = host.descriptors_hard.is_none_or(|hard| hard >= needed);
    let raise =
        if below_hard { format!("ulimit -n {needed}") } else { format!("ulimit -Hn {needed} as root") };
    let spread = match processes_needed {
        count if count <= PROCESSES_MAX => format!(", or --processes {count}"),
        _ => String::new(),
    };
    let what = "open files of a process (ulimit -n)";
    Some(Finding { what, value, needed, in_bytes: false, hint: raise + &spread })
}

fn system_wide(need: &Need, host: &Host) -> Option<Finding> {
    let value = host.system_descriptors?;
    let needed = need.connections * ends(need) + DESCRIPTORS_RESERVED;
    let hint = format!("sysctl -w fs.file-max={}", needed + needed / 4 + 100_000);
    Some(Finding { what: "open files of the host (fs.file-nr)", value, needed, in_bytes: false, hint })
}

/// Each connection takes a port of its source address; the same port serves again for another target.
fn local_ports(need: &Need, host: &Host) -> Option<Finding> {
    let (first, last) = host.ports?;
    let targets = need.targets.max(1);
    let per_source = ((last + 1).saturating_sub(first) * targets).max(1);
    let sources_needed = need.connections.div_ceil(per_source).max(1);
    let sources = match need.sources {
        0 if need.target_is_loopback => sources_needed,
        0 => 1,
        given => given,
    };
    let addresses = match need.target_is_loopback {
        // 127.0.0.1 is left to the server; a /16 is more than anyone needs.
        true => format!("127.0.{}.{}", (sources_needed + 1) / 256, (sources_needed + 1) % 256),
        false => format!("(addresses of this host, {sources_needed} of them)"),
    };
    let sources_hint = if need.target_is_loopback {
        format!("--sources 127.0.0.2-{addresses}")
    } else {
        format!("--sources {addresses}")
    };
    let hint = format!("{sources_hint}, or sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\"");
    let what = "local ports (ip_local_port_range times sources times targets)";
    Some(Finding { what, value: per_source * sources, needed: need.connections, in_bytes: false, hint })
}

fn memory(need: &Need, host: &Host) -> Option<Finding> {
    let needed = need.connections * (TOOL_BYTES + KERNEL_BYTES * ends(need));
    let fits = host.memory_bytes? / (TOOL_BYTES + KERNEL_BYTES * ends(need));
    let hint = format!("-c {fits} at most, a host with more memory, or several hosts");
    let what = if need.target_is_loopback {
        "memory (MemAvailable; both ends in the kernel, without the server's own)"
    } else {
        "memory (MemAvailable)"
    };
    Some(Finding { what, value: host.memory_bytes?, needed, in_bytes: true, hint })
}

/// Sockets of one connection on this host.
fn ends(need: &Need) -> u64 {
    if need.target_is_loopback { 2 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Host = Host {
        descriptors: Some(20_000),
        descriptors_hard: Some(20_000),
        system_descriptors: Some(2_000_000),
        ports: Some((32_768, 60_999)),
        memory_bytes: Some(8 << 30),
    };

    fn need(connections: u64) -> Need {
        Need { connections, processes: 0, sources: 0, targets: 1, target_is_loopback: true }
    }

    #[track_caller]
    fn found(need: &Need, host: &Host, what: &str) -> Finding {
        let findings = findings(need, host);
        findings.into_iter().find(|finding| finding.what.starts_with(what)).expect(what)
    }

    #[test]
    fn the_tool_spreads_over_processes_and_loopback_addresses_by_itself() {
        let findings = findings(&need(100_000), &HOST);
        assert_eq!(findings.len(), 4);
        assert!(findings.iter().all(Finding::is_enough), "{findings:?}");
    }

    #[test]
    fn one_process_holds_its_descriptor_limit_less_its_own() {
        let at = |connections| {
            let need = Need { processes: 1, ..need(connections) };
            found(&need, &HOST, "open files of a process")
        };
        assert!(at(19_936).is_enough());
        let short = at(19_937);
        assert!(!short.is_enough());
        assert_eq!((short.value, short.needed), (20_000, 20_001));
        assert_eq!(short.hint, "ulimit -Hn 20001 as root, or --processes 2");
        let soft = Host { descriptors: Some(1024), ..HOST };
        let short = found(&Need { processes: 1, ..need(10_000) }, &soft, "open files of a process");
        assert_eq!(short.hint, "ulimit -n 10064, or --processes 11");
    }

    #[test]
    fn one_address_has_28_232_ports_to_one_target() {
        let remote = Need { target_is_loopback: false, ..need(28_232) };
        assert!(found(&remote, &HOST, "local ports").is_enough());
        let more = Need { connections: 28_233, ..remote };
        let short = found(&more, &HOST, "local ports");
        assert!(!short.is_enough());
        assert!(short.hint.starts_with("--sources (addresses of this host, 2 of them), or sysctl"));
        assert!(found(&Need { targets: 2, ..more }, &HOST, "local ports").is_enough());
        assert!(found(&Need { sources: 2, ..more }, &HOST, "local ports").is_enough());
    }

    #[test]
    fn too_few_loopback_addresses_are_answered_with_enough_of_them() {
        let short = found(&Need { sources: 1, ..need(1_000_000) }, &HOST, "local ports");
        assert!(short.hint.starts_with("--sources 127.0.0.2-127.0.0.37, or sysctl"), "{}", short.hint);
    }

    #[test]
    fn a_server_on_the_same_host_costs_memory_and_descriptors_here_too() {
        let local = need(1_000_000);
        let remote = Need { target_is_loopback: false, ..local };
        assert_eq!(found(&remote, &HOST, "memory").needed, 1_000_000 * (200 + 4096));
        assert_eq!(found(&local, &HOST, "memory").needed, 1_000_000 * (200 + 2 * 4096));
        assert_eq!(found(&remote, &HOST, "open files of the host").needed, 1_000_064);
        assert_eq!(found(&local, &HOST, "open files of the host").needed, 2_000_064);
        assert!(!found(&local, &HOST, "open files of the host").is_enough());
        let small = Host { memory_bytes: Some(1 << 30), ..HOST };
        assert_eq!(
            found(&remote, &small, "memory").text(),
            "memory (MemAvailable): only 1.00 GiB, 4.00 GiB needed\n  \
             try: -c 249939 at most, a host with more memory, or several hosts"
        );
    }

    #[test]
    fn what_cannot_be_read_is_not_complained_about() {
        assert_eq!(findings(&need(1_000_000), &Host::default()), []);
    }

    #[test]
    fn the_files_of_proc_are_read_as_proc_writes_them() {
        assert_eq!(system_descriptors("635\t0\t2466183\n"), Some(2_465_548));
        assert_eq!(ports("32768\t60999\n"), Some((32_768, 60_999)));
        assert_eq!(memory_bytes("MemTotal:  9 kB\nMemAvailable:    8 kB\n"), Some(8192));
        assert_eq!((system_descriptors(""), ports("x y"), memory_bytes("")), (None, None, None));
        let here = Host::read();
        assert!(here.ports.is_some() && here.memory_bytes.is_some() && here.system_descriptors.is_some());
    }
}
