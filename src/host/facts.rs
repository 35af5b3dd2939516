//! What this host gives, read from it: limits, kernel settings, memory, cgroups, processors.
//!
//! Reads only. What cannot be read is `None` and no error: `findings` says that it is unknown.

use std::fs;
use std::path::Path;

use super::cgroup::{self, CgroupLimits};
use super::marks::Reading;
use super::need::KERNEL_BYTES;
use crate::fatal::{self, Explanation};

/// Where the kernel shows its settings.
pub const PROC_SYS: &str = "/proc/sys";

/// A resource limit; `u64::MAX` where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceLimit {
    /// What is in force.
    pub soft: u64,
    /// What the process itself may raise it to.
    pub hard: u64,
}

/// Connection tracking of the firewall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conntrack {
    /// The module is not there: nothing is tracked.
    NotLoaded,
    /// It is.
    Loaded {
        /// `net.netfilter.nf_conntrack_max`; `None` where it cannot be read.
        max: Option<u64>,
        /// `net.netfilter.nf_conntrack_count`.
        count: Option<u64>,
    },
}

/// Everything that is looked at. `None` is what could not be read.
#[derive(Clone, Debug)]
pub struct Facts {
    /// As `uname -r` prints it.
    pub kernel: Option<String>,
    /// Whether a ring like those of the shards could be made, else why not.
    pub io_uring: Result<(), Explanation>,
    /// `RLIMIT_MEMLOCK`, bytes.
    pub memlock_bytes: Option<ResourceLimit>,
    /// `RLIMIT_NOFILE`.
    pub nofile: Option<ResourceLimit>,
    /// `fs.nr_open`: the most that `RLIMIT_NOFILE` can be.
    pub nr_open: Option<u64>,
    /// `fs.file-max`: files of the whole host.
    pub file_max: Option<u64>,
    /// Files that it has open (`fs.file-nr`).
    pub files_open: Option<u64>,
    /// `net.core.somaxconn`.
    pub somaxconn: Option<u64>,
    /// `net.ipv4.tcp_mem`, pages.
    pub tcp_mem_pages: Option<[u64; 3]>,
    /// Pages that TCP has in buffers now (`/proc/net/sockstat`).
    pub tcp_pages_now: Option<u64>,
    /// `net.ipv4.tcp_rmem`, bytes.
    pub tcp_rmem_bytes: Option<[u64; 3]>,
    /// `net.ipv4.tcp_wmem`, bytes.
    pub tcp_wmem_bytes: Option<[u64; 3]>,
    /// `net.core.wmem_max`, bytes.
    pub wmem_max_bytes: Option<u64>,
    /// Connection tracking.
    pub conntrack: Conntrack,
    /// Memory that programs can still get (`MemAvailable`), and what the process looked at holds already.
    pub memory_available_bytes: Option<u64>,
    /// Limits of the process's cgroups.
    pub cgroup: Option<CgroupLimits>,
    /// Processors that the process may use.
    pub cpus: Option<u64>,
    /// Cores of the host; fewer than processors where siblings share one.
    pub cores: Option<u64>,
    /// Processors of the host.
    pub cpus_online: Option<u64>,
    /// What kind of container this is.
    pub container: Option<&'static str>,
}

impl Facts {
    /// Reads them: limits and cgroups those of process `pid`, or of this one. io_uring is tried by this one.
    /// What `pid` holds counts as available to it.
    pub fn read(pid: Option<u32>) -> Self {
        let process = pid.map_or("/proc/self".to_owned(), |pid| format!("/proc/{pid}"));
        let limits = text(&format!("{process}/limits"));
        let status = text(&format!("{process}/status"));
        let system = sysinfo::System::new_with_specifics(
            sysinfo::RefreshKind::nothing().with_memory(sysinfo::MemoryRefreshKind::nothing().with_ram()),
        );
        let available = system.ok().map(|system| system.available_memory());
        let held = pid.map_or(0, |_| held_bytes(&process, &status));
        Self {
            kernel: sysinfo::System::kernel_version().ok(),
            io_uring: fatal::try_io_uring().map_err(|fatal| fatal.explanation()),
            memlock_bytes: resource_limit(&limits, "Max locked memory"),
            nofile: resource_limit(&limits, "Max open files"),
            nr_open: sysctl("fs.nr_open").and_then(first),
            file_max: sysctl("fs.file-max").and_then(first),
            files_open: sysctl("fs.file-nr").and_then(first),
            somaxconn: sysctl("net.core.somaxconn").and_then(first),
            tcp_mem_pages: sysctl("net.ipv4.tcp_mem").and_then(three),
            tcp_pages_now: tcp_pages(&text("/proc/net/sockstat")),
            tcp_rmem_bytes: sysctl("net.ipv4.tcp_rmem").and_then(three),
            tcp_wmem_bytes: sysctl("net.ipv4.tcp_wmem").and_then(three),
            wmem_max_bytes: sysctl("net.core.wmem_max").and_then(first),
            conntrack: conntrack(),
            memory_available_bytes: available.filter(|&bytes| bytes > 0).map(|bytes| bytes + held),
            cgroup: fs::read_to_string(format!("{process}/cgroup"))
                .ok()
                .map(|cgroups| CgroupLimits::read(Path::new(cgroup::MOUNT), &cgroups)),
            cpus: field(&status, "Cpus_allowed_list:").and_then(cpus_listed),
            cores: sysinfo::System::physical_core_count().ok().map(|cores| cores as u64),
            cpus_online: cpus_listed(&text("/sys/devices/system/cpu/online")),
            container: container(),
        }
    }
}

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The numbers of a kernel setting; `None` where it does not exist, cannot be read, or is no numbers.
pub fn sysctl(key: &str) -> Option<Vec<u64>> {
    sysctl_below(Path::new(PROC_SYS), key)
}

/// The same with another root than `/proc/sys`.
pub fn sysctl_below(root: &Path, key: &str) -> Option<Vec<u64>> {
    numbers(&fs::read_to_string(root.join(key.replace('.', "/"))).ok()?)
}

fn numbers(text: &str) -> Option<Vec<u64>> {
    let numbers: Result<Vec<u64>, _> = text.split_whitespace().map(str::parse).collect();
    numbers.ok().filter(|numbers| !numbers.is_empty())
}

fn first(numbers: Vec<u64>) -> Option<u64> {
    numbers.first().copied()
}

fn three(numbers: Vec<u64>) -> Option<[u64; 3]> {
    numbers.try_into().ok()
}

/// `Max open files            1024                 524288               files`
fn resource_limit(limits: &str, name: &str) -> Option<ResourceLimit> {
    let rest = limits.lines().find_map(|line| line.strip_prefix(name))?;
    let mut columns = rest.split_whitespace().map(|word| match word {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    });
    Some(ResourceLimit { soft: columns.next()??, hard: columns.next()?? })
}

/// The rest of the line that begins with `name`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// This process's memory beside the limit that is nearest: that of a cgroup, or `max_bytes` where that is not 0.
/// `None` where there is neither.
///
/// Against `max_bytes` counts what the process's cgroup holds, where it is alone in it as a service is; elsewhere
/// its pages, and for each of `sockets` what an idle one costs the kernel.
pub fn memory(max_bytes: u64, sockets: u64) -> Option<Reading> {
    let (mount, cgroups) = (Path::new(cgroup::MOUNT), text("/proc/self/cgroup"));
    let by_cgroup = cgroup::memory(mount, &cgroups);
    let by_configuration = (max_bytes > 0).then(|| {
        let alone = cgroup::own_memory(mount, &cgroups, std::process::id());
        let used_bytes =
            alone.unwrap_or_else(|| resident_bytes(&text("/proc/self/status")) + sockets * KERNEL_BYTES);
        Reading { used_bytes, limit_bytes: max_bytes }
    });
    by_cgroup.into_iter().chain(by_configuration).max_by_key(|reading| reading.percent())
}

/// Pages of a process, from its `/proc/PID/status`.
fn resident_bytes(status: &str) -> u64 {
    let resident = field(status, "VmRSS:").and_then(|text| text.strip_suffix("kB"));
    resident.and_then(|kib| kib.trim().parse().ok()).map_or(0, |kib: u64| kib * 1024)
}

/// What a process holds: its pages, and about as much of the kernel as its descriptors would if all were
/// clients. Another user than its own or root sees no descriptors.
fn held_bytes(process: &str, status: &str) -> u64 {
    let descriptors = fs::read_dir(format!("{process}/fd")).map_or(0, |entries| entries.count() as u64);
    resident_bytes(status) + descriptors * KERNEL_BYTES
}

/// How many there are in `0-3,8`.
fn cpus_listed(list: &str) -> Option<u64> {
    let count = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        (last + 1).checked_sub(first)
    };
    list.trim().split(',').map(count).sum()
}

/// `TCP: inuse 3 orphan 0 tw 0 alloc 4 mem 2`: the last number.
fn tcp_pages(sockstat: &str) -> Option<u64> {
    let words = field(sockstat, "TCP:")?;
    words.split_whitespace().skip_while(|word| *word != "mem").nth(1)?.parse().ok()
}

fn conntrack() -> Conntrack {
    let value = |name: &str| sysctl(name).and_then(first);
    if !Path::new(PROC_SYS).join("net/netfilter/nf_conntrack_max").exists() {
        return Conntrack::NotLoaded;
    }
    Conntrack::Loaded {
        max: value("net.netfilter.nf_conntrack_max"),
        count: value("net.netfilter.nf_conntrack_count"),
    }
}

/// By the marks that the runtimes leave: files of Docker and Podman, the variable of Kubernetes, the file
/// that systemd writes for all others (systemd's CONTAINER_INTERFACE).
fn container() -> Option<&'static str> {
    let exists = |path: &str| Path::new(path).exists();
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        return Some("kubernetes");
    }
    let marks = [("/.dockerenv", "docker"), ("/run/.containerenv", "podman")];
    let marked = marks.into_iter().find_map(|(path, name)| exists(path).then_some(name));
    marked.or_else(|| exists("/run/systemd/container").then_some("container"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_proc_are_read_as_proc_writes_them() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max open files            1024                 524288               files     \n\
                      Max locked memory         8388608              unlimited            bytes     \n";
        let nofile = resource_limit(limits, "Max open files").unwrap();
        assert_eq!((nofile.soft, nofile.hard), (1024, 524_288));
        assert_eq!(resource_limit(limits, "Max locked memory").unwrap().hard, u64::MAX);
        assert_eq!(resource_limit("", "Max open files"), None);
        assert_eq!(numbers("4096\t131072\t33554432\n"), Some(vec![4096, 131_072, 33_554_432]));
        assert_eq!((numbers(""), numbers("cubic\n")), (None, None));
        assert_eq!(tcp_pages("sockets: used 6\nTCP: inuse 3 orphan 0 tw 9 alloc 4 mem 2890\n"), Some(2890));
        assert_eq!((cpus_listed("0-3,8\n"), cpus_listed("1"), cpus_listed("")), (Some(5), Some(1), None));
    }

    #[test]
    fn this_host_shows_all_that_every_linux_has() {
        let facts = Facts::read(None);
        assert!(facts.kernel.is_some() && facts.nofile.is_some() && facts.memlock_bytes.is_some());
        assert!(facts.nr_open.is_some() && facts.file_max.is_some() && facts.files_open.is_some());
        assert!(facts.somaxconn.is_some() && facts.tcp_mem_pages.is_some() && facts.tcp_pages_now.is_some());
        assert!(facts.tcp_rmem_bytes.is_some() && facts.tcp_wmem_bytes.is_some());
        assert!(facts.memory_available_bytes.is_some() && facts.cgroup.is_some() && facts.cpus.is_some());
        assert!(facts.io_uring.is_ok(), "{:?}", facts.io_uring);
    }

    #[test]
    fn another_processs_limits_are_its_own() {
        let mut sleeper = std::process::Command::new("sh")
            .args(["-c", "ulimit -n 333; echo; exec sleep 60"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // The line comes after the limit is set.
        let mut line = [0];
        std::io::Read::read_exact(sleeper.stdout.as_mut().unwrap(), &mut line).unwrap();
        let facts = Facts::read(Some(sleeper.id()));
        let process = format!("/proc/{}", sleeper.id());
        let held = held_bytes(&process, &text(&format!("{process}/status")));
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        assert_eq!(facts.nofile, Some(ResourceLimit { soft: 333, hard: 333 }));
        // Three descriptors, and some hundred pages.
        assert!((3 * KERNEL_BYTES + 4096..64 << 20).contains(&held), "{held}");
    }
}
