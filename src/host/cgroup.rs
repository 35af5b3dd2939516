//! What the cgroups of a process allow it: version 2, or 1 where a controller is mounted by itself.
//!
//! A limit of any ancestor counts as much as the own one, so the least of them is taken. A container sees its
//! own cgroup as the root; a path that is not there is that of a namespace outside.

use std::fs;
use std::path::{Path, PathBuf};

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
        let has = |name: &str| self.controllers.split(',').any(|controller| controller == name);
        if self.controllers.is_empty() {
            // A host with both versions has version 2 one level down.
            let unified = mount.join("unified");
            let mount = if unified.is_dir() { &unified } else { mount };
            return CgroupLimits {
                memory_max_bytes: self.least(mount, "memory.max"),
                memory_high_bytes: self.least(mount, "memory.high"),
                pids_max: self.least(mount, "pids.max"),
            };
        }
        let (mut memory_max_bytes, mut pids_max) = (u64::MAX, u64::MAX);
        if has("memory") {
            memory_max_bytes = self.least(&mount.join("memory"), "memory.limit_in_bytes");
        }
        if has("pids") {
            pids_max = self.least(&mount.join("pids"), "pids.max");
        }
        CgroupLimits { memory_max_bytes, memory_high_bytes: u64::MAX, pids_max }
    }

    /// The least of `file` from the own cgroup up to the root.
    fn least(&self, mount: &Path, file: &str) -> u64 {
        let own: PathBuf = mount.join(self.path.trim_start_matches('/'));
        let directories = own.ancestors().take_while(|directory| directory.starts_with(mount));
        let limits =
            directories.filter_map(|directory| limit(&fs::read_to_string(directory.join(file)).ok()?));
        limits.min().unwrap_or(u64::MAX)
    }
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

    #[test]
    fn without_files_there_are_no_limits() {
        assert_eq!(CgroupLimits::read(Path::new("/nonexistent"), "0::/x\n"), CgroupLimits::NONE);
    }
}
