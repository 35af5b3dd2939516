//! What the cgroups of a process allow it: version 2, or 1 where a controller is mounted by itself.
//!
//! A limit of any ancestor counts as much as the own one, so the least of them is taken. A container sees its
//! own cgroup as the root; a path that is not there is that of a namespace outside.

use std::fs;
use std::path::{Path, PathBuf};

use super::marks::Reading;

/// Where cgroups are mounted.
pub const MOUNT: &str = "/sys/fs/cgroup";

/// Limits of a process's cgroups; `u64::MAX` where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgroupLimits {
    /// `memory.max`, or `memory.limit_in_bytes` of version 1: beyond it the process is killed.
    pub memory_max_bytes: u64,
    /// `memory.high`: beyond it the process is slowed down. Version 1 has none.
    pub memory_high_bytes: u64,
    /// `pids.max`: processes and threads.
    pub pids_max: u64,
}

impl CgroupLimits {
    /// No limits: not in a cgroup that has any.
    pub const NONE: Self =
        Self { memory_max_bytes: u64::MAX, memory_high_bytes: u64::MAX, pids_max: u64::MAX };

    /// Reads the limits below `mount` (`/sys/fs/cgroup`) for a process whose `/proc/PID/cgroup` is `text`.
    pub fn read(mount: &Path, text: &str) -> Self {
        let memberships = text.lines().filter_map(Membership::parse);
        memberships.fold(Self::NONE, |limits, membership| limits.and(&membership.limits(mount)))
    }

    fn and(self, other: &Self) -> Self {
        Self {
            memory_max_bytes: self.memory_max_bytes.min(other.memory_max_bytes),
            memory_high_bytes: self.memory_high_bytes.min(other.memory_high_bytes),
            pids_max: self.pids_max.min(other.pids_max),
        }
    }
}

/// The memory of a process whose `/proc/PID/cgroup` is `text`, in the cgroup that leaves it the least: its own or
/// one above. `None` where no cgroup has a limit.
pub fn memory(mount: &Path, text: &str) -> Option<Reading> {
    let memberships = text.lines().filter_map(Membership::parse);
    let readings = memberships.flat_map(|membership| {
        let Some((mount, files)) = membership.memory_files(mount) else { return Vec::new() };
        let directories = membership.directories(&mount);
        directories.filter_map(|directory| files.reading(&directory)).collect()
    });
    readings.max_by_key(|reading| reading.percent())
}

/// What a cgroup uses that only this process is in, whatever its limit: `None` where others are in it, too.
pub fn own_memory(mount: &Path, text: &str, pid: u32) -> Option<u64> {
    let mut memberships = text.lines().filter_map(Membership::parse);
    memberships.find_map(|membership| {
        let (mount, files) = membership.memory_files(mount)?;
        let own = membership.directories(&mount).next()?;
        let processes = fs::read_to_string(own.join("cgroup.procs")).ok()?;
        let alone = processes.lines().eq([pid.to_string()]);
        alone.then(|| files.used(&own)).flatten()
    })
}

/// How a version names what it tells of memory.
struct MemoryFiles {
    limit: &'static str,
    usage: &'static str,
    /// In `memory.stat`, the pages of files that can be taken back, its own and of all below.
    file_pages: [&'static str; 2],
}

impl MemoryFiles {
    const V1: Self = Self {
        limit: "memory.limit_in_bytes",
        usage: "memory.usage_in_bytes",
        file_pages: ["total_inactive_file", "total_active_file"],
    };
    const V2: Self =
        Self { limit: "memory.max", usage: "memory.current", file_pages: ["inactive_file", "active_file"] };

    fn reading(&self, directory: &Path) -> Option<Reading> {
        let limit_bytes = limit(&fs::read_to_string(directory.join(self.limit)).ok()?)?;
        let used_bytes = (limit_bytes < u64::MAX).then(|| self.used(directory))??;
        Some(Reading { used_bytes, limit_bytes })
    }

    /// All that is charged, sockets and the kernel's part included, but the pages of files: the kernel takes
    /// those back before it kills anybody. Active ones, too, which Kubernetes leaves in its working set:
    /// clients are not to be refused because a neighbour in the container has read a large file twice.
    /// tmpfs stays in, and so do the inodes of sockets, which slab calls reclaimable.
    fn used(&self, directory: &Path) -> Option<u64> {
        let usage: u64 = fs::read_to_string(directory.join(self.usage)).ok()?.trim().parse().ok()?;
        let stat = fs::read_to_string(directory.join("memory.stat")).ok()?;
        let bytes = |line: &str| {
            let (name, bytes) = line.split_once(' ')?;
            self.file_pages.contains(&name).then(|| bytes.parse::<u64>().ok())?
        };
        Some(usage.saturating_sub(stat.lines().filter_map(bytes).sum()))
    }
}

/// One line of `/proc/PID/cgroup`, `hierarchy:controllers:path`; no controllers is version 2 (cgroups(7)).
struct Membership<'a> {
    controllers: &'a str,
    path: &'a str,
}

impl<'a> Membership<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut parts = line.splitn(3, ':').skip(1);
        Some(Self { controllers: parts.next()?, path: parts.next()? })
    }

    fn limits(&self, mount: &Path) -> CgroupLimits {
        if self.controllers.is_empty() {
            let mount = unified(mount);
            return CgroupLimits {
                memory_max_bytes: self.least(&mount, "memory.max"),
                memory_high_bytes: self.least(&mount, "memory.high"),
                pids_max: self.least(&mount, "pids.max"),
            };
        }
        let (mut memory_max_bytes, mut pids_max) = (u64::MAX, u64::MAX);
        if self.has("memory") {
            memory_max_bytes = self.least(&mount.join("memory"), "memory.limit_in_bytes");
        }
        if self.has("pids") {
            pids_max = self.least(&mount.join("pids"), "pids.max");
        }
        CgroupLimits { memory_max_bytes, memory_high_bytes: u64::MAX, pids_max }
    }

    fn has(&self, name: &str) -> bool {
        self.controllers.split(',').any(|controller| controller == name)
    }

    /// Where the memory of this membership is told, and how; `None` where it is told elsewhere.
    fn memory_files(&self, mount: &Path) -> Option<(PathBuf, MemoryFiles)> {
        if self.controllers.is_empty() {
            return Some((unified(mount), MemoryFiles::V2));
        }
        self.has("memory").then(|| (mount.join("memory"), MemoryFiles::V1))
    }

    /// The own cgroup and those above, up to the root.
    fn directories(&self, mount: &Path) -> impl Iterator<Item = PathBuf> + use<> {
        let own: PathBuf = mount.join(self.path.trim_start_matches('/'));
        let above: Vec<PathBuf> = own.ancestors().map(Path::to_path_buf).collect();
        let mount = mount.to_path_buf();
        above.into_iter().take_while(move |directory| directory.starts_with(&mount))
    }

    /// The least of `file` from the own cgroup up to the root.
    fn least(&self, mount: &Path, file: &str) -> u64 {
        let limits = self
            .directories(mount)
            .filter_map(|directory| limit(&fs::read_to_string(directory.join(file)).ok()?));
        limits.min().unwrap_or(u64::MAX)
    }
}

/// A host with both versions has version 2 one level down.
fn unified(mount: &Path) -> PathBuf {
    let unified = mount.join("unified");
    if unified.is_dir() { unified } else { mount.to_path_buf() }
}

/// A number, or `max` for none.
fn limit(text: &str) -> Option<u64> {
    match text.trim() {
        "max" => Some(u64::MAX),
        // Version 1 writes the largest number of whole pages for no limit.
        number => number.parse().ok().map(|limit| if limit > 1 << 62 { u64::MAX } else { limit }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with these files in it.
    fn mount(files: &[(&str, &str)]) -> PathBuf {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("corecast-cgroup-{}-{number}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn read(files: &[(&str, &str)], cgroup: &str) -> CgroupLimits {
        let mount = mount(files);
        let limits = CgroupLimits::read(&mount, cgroup);
        fs::remove_dir_all(mount).unwrap();
        limits
    }

    #[test]
    fn the_least_limit_from_the_own_cgroup_to_the_root_counts() {
        let files = [
            ("system.slice/corecast.service/memory.max", "8589934592\n"),
            ("system.slice/corecast.service/memory.high", "max\n"),
            ("system.slice/corecast.service/pids.max", "64\n"),
            ("system.slice/memory.max", "4294967296\n"),
            ("system.slice/memory.high", "4000000000\n"),
            ("cgroup.procs", ""),
        ];
        let limits = read(&files, "0::/system.slice/corecast.service\n");
        let expected =
            CgroupLimits { memory_max_bytes: 4 << 30, memory_high_bytes: 4_000_000_000, pids_max: 64 };
        assert_eq!(limits, expected);
    }

    #[test]
    fn a_container_sees_its_own_cgroup_as_the_root_whatever_its_path_outside() {
        let files = [("memory.max", "1073741824\n"), ("pids.max", "max\n")];
        for path in ["0::/\n", "0::/../../kubepods.slice/pod1\n", "0::/docker/0123\n"] {
            let limits = read(&files, path);
            assert_eq!((limits.memory_max_bytes, limits.pids_max), (1 << 30, u64::MAX), "{path}");
        }
    }

    #[test]
    fn version_1_has_a_mount_for_each_controller_and_a_large_number_for_no_limit() {
        let files = [
            ("memory/docker/x/memory.limit_in_bytes", "536870912\n"),
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("pids/docker/x/pids.max", "100\n"),
            ("unified/cgroup.procs", ""),
        ];
        let text = "9:name=systemd:/docker/x\n8:pids:/docker/x\n4:memory:/docker/x\n2:cpu,cpuacct:/\n0::/\n";
        let limits = read(&files, text);
        assert_eq!((limits.memory_max_bytes, limits.pids_max), (512 << 20, 100));
        assert_eq!(read(&files[1..2], "4:memory:/docker/x\n"), CgroupLimits::NONE);
    }

    /// What `look` finds among these files.
    fn with<T>(files: &[(&str, &str)], look: impl FnOnce(&Path) -> T) -> T {
        let mount = mount(files);
        let found = look(&mount);
        fs::remove_dir_all(mount).unwrap();
        found
    }

    const STAT: &str = "anon 600\nfile 300\nsock 50\ninactive_file 200\nactive_file 100\n";

    #[test]
    fn issue_6_the_memory_of_the_cgroup_that_leaves_the_least_counts_without_pages_of_files() {
        let files = [
            ("a/b/memory.max", "max\n"),
            ("a/b/memory.current", "500\n"),
            ("a/b/memory.stat", STAT),
            ("a/memory.max", "1000\n"),
            ("a/memory.current", "1100\n"),
            ("a/memory.stat", STAT),
        ];
        let read = |text: &str| with(&files, |mount| memory(mount, text));
        assert_eq!(read("0::/a/b\n"), Some(Reading { used_bytes: 800, limit_bytes: 1000 }));
        assert_eq!(read("0::/\n"), None, "nothing is limited there");
        assert_eq!(with(&files[..3], |mount| memory(mount, "0::/a/b\n")), None);
    }

    #[test]
    fn issue_6_version_1_tells_the_same_under_other_names() {
        let files = [
            ("memory/x/memory.limit_in_bytes", "1000\n"),
            ("memory/x/memory.usage_in_bytes", "700\n"),
            ("memory/x/memory.stat", "inactive_file 1\ntotal_inactive_file 200\ntotal_active_file 100\n"),
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/memory.usage_in_bytes", "70000\n"),
            ("unified/cgroup.procs", ""),
        ];
        let text = "8:pids:/\n4:memory:/x\n0::/\n";
        let reading = with(&files, |mount| memory(mount, text));
        assert_eq!(reading, Some(Reading { used_bytes: 400, limit_bytes: 1000 }));
    }

    #[test]
    fn issue_6_a_cgroup_that_others_are_in_too_says_nothing_about_this_process() {
        let files = |processes| {
            [
                ("a/cgroup.procs", processes),
                ("a/memory.max", "max\n"),
                ("a/memory.current", "500\n"),
                ("a/memory.stat", STAT),
            ]
        };
        let own = |processes| with(&files(processes), |mount| own_memory(mount, "0::/a\n", 17));
        assert_eq!([own("17\n"), own("17\n18\n"), own("")], [Some(200), None, None]);
    }

    #[test]
    fn without_files_there_are_no_limits() {
        assert_eq!(CgroupLimits::read(Path::new("/nonexistent"), "0::/x\n"), CgroupLimits::NONE);
    }
}
