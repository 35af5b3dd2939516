//! What idle connections really cost here: the kernel's own objects, and the pages of a process.
//!
//! Reads only. `/proc/slabinfo` counts objects, and is for root; `Slab:` of `/proc/meminfo` counts whole
//! pages, half-empty ones too, and is for everybody. Not `MemAvailable`: it takes half of the sockets' inodes
//! and dentries, which the kernel calls reclaimable, for free memory.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Caches that files and processes fill, by the beginnings of their names: what else the host does must not
/// show.
const NOT_OF_CONNECTIONS: [&str; 26] = [
    "anon_vma",
    "btrfs_",
    "buffer_head",
    "cred_jar",
    "ext4_",
    "extent_status",
    "files_cache",
    "fs_cache",
    "inode_cache",
    "jbd2_",
    "kernfs_",
    "maple_node",
    "mm_struct",
    "ovl_inode",
    "pid",
    "proc_inode_cache",
    "radix_tree_node",
    "shmem_inode_cache",
    "sighand_cache",
    "signal_cache",
    "task_struct",
    "vm_area_struct",
    "vma_lock",
    "vmap_area",
    "xarray",
    "xfs_",
];

/// Caches of which a socket has one object, as every open file has: more than that is of files.
const ONE_PER_SOCKET: [&str; 3] = ["dentry", "filp", "lsm_inode_cache"];

/// Live objects of one cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cache {
    objects: u64,
    object_bytes: u64,
}

/// The kernel's own objects, in bytes.
#[derive(Clone, Debug)]
pub enum KernelMemory {
    /// By cache, from `/proc/slabinfo`.
    Objects(Caches),
    /// All pages of all caches, from `/proc/meminfo`.
    Pages(u64),
}

/// Live objects by the name of their cache.
#[derive(Clone, Debug)]
pub struct Caches(BTreeMap<String, Cache>);

impl KernelMemory {
    /// Reads it now. Errors: `/proc` cannot be read.
    pub fn read() -> io::Result<Self> {
        if let Ok(text) = fs::read_to_string("/proc/slabinfo") {
            return Ok(Self::Objects(Caches::parse(&text)));
        }
        let text = fs::read_to_string("/proc/meminfo")?;
        Ok(Self::Pages(field_bytes(&text, "Slab:").ok_or(io::ErrorKind::InvalidData)?))
    }

    /// Where it was read.
    pub fn source(&self) -> &'static str {
        match self {
            Self::Objects(_) => "/proc/slabinfo",
            Self::Pages(_) => "Slab of /proc/meminfo; root would count objects",
        }
    }

    /// Bytes that `sockets` new sockets, both ends of a connection counted, have added since `before`.
    pub fn growth_since(&self, before: &Self, sockets: u64) -> i64 {
        match (self, before) {
            (Self::Objects(now), Self::Objects(before)) => now.growth_since(before, sockets),
            _ => self.total() as i64 - before.total() as i64,
        }
    }

    fn total(&self) -> u64 {
        match self {
            Self::Objects(caches) => caches.0.values().map(|cache| cache.objects * cache.object_bytes).sum(),
            Self::Pages(bytes) => *bytes,
        }
    }
}

impl Caches {
    /// `name active_objs num_objs objsize …` after two lines of heads (slabinfo(5)).
    fn parse(slabinfo: &str) -> Self {
        let cache = |line: &str| {
            let mut columns = line.split_whitespace();
            let (name, objects, _, object_bytes) = (
                columns.next()?,
                columns.next()?.parse().ok()?,
                columns.next()?,
                columns.next()?.parse().ok()?,
            );
            let counts = !NOT_OF_CONNECTIONS.iter().any(|beginning| name.starts_with(beginning));
            counts.then(|| (name.to_owned(), Cache { objects, object_bytes }))
        };
        Self(slabinfo.lines().skip(2).filter_map(cache).collect())
    }

    fn growth_since(&self, before: &Self, sockets: u64) -> i64 {
        let growth = |(name, now): (&String, &Cache)| {
            let past = before.0.get(name).copied().unwrap_or_default();
            let objects = now.objects as i64 - past.objects as i64;
            let of_sockets =
                if ONE_PER_SOCKET.contains(&name.as_str()) { objects.min(sockets as i64) } else { objects };
            of_sockets * now.object_bytes as i64
        };
        self.0.iter().map(growth).sum()
    }
}

/// The value of a `Name:   123 kB` line, in bytes.
fn field_bytes(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Pages of process `pid` that are in memory, in bytes: from `smaps_rollup`, which walks the page tables,
/// while `status` adds up per-CPU counters that may be off by hundreds of KiB. Errors: it is gone, or another
/// user's.
pub fn resident_bytes(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    field_bytes(&text, "Rss:").ok_or(io::ErrorKind::InvalidData.into())
}

/// TCP sockets of the whole host, those that are being closed included: `alloc` and `tw` of
/// `/proc/net/sockstat`. What others open or close between two readings is in the kernel's growth as well.
/// Errors: it cannot be read.
pub fn tcp_sockets() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/net/sockstat")?;
    sockets_of(&text).ok_or(io::ErrorKind::InvalidData.into())
}

/// `TCP: inuse 3 orphan 0 tw 9 alloc 4 mem 2`
fn sockets_of(sockstat: &str) -> Option<u64> {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    let after = |name| line.split_whitespace().skip_while(|word| *word != name).nth(1)?.parse::<u64>().ok();
    Some(after("alloc")? + after("tw")?)
}

/// What both say, when they have come to rest: freed sockets go a grace period late, an allocator's pages
/// too. On a host that never rests the last reading counts. Errors: as of the two.
pub fn at_rest(pid: u32) -> io::Result<(KernelMemory, u64)> {
    const SLACK_BYTES: u64 = 64 << 10;
    let deadline = Instant::now() + Duration::from_secs(3);
    let mut last = (KernelMemory::read()?, resident_bytes(pid)?);
    loop {
        sleep(Duration::from_millis(150));
        let next = (KernelMemory::read()?, resident_bytes(pid)?);
        let is_calm =
            next.0.total().abs_diff(last.0.total()) <= SLACK_BYTES && next.1.abs_diff(last.1) <= SLACK_BYTES;
        if is_calm || Instant::now() > deadline {
            return Ok(next);
        }
        last = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "slabinfo - version: 2.1\n# name <active_objs> <num_objs> <objsize> ...\n";

    fn objects(lines: &str) -> KernelMemory {
        KernelMemory::Objects(Caches::parse(&(HEAD.to_owned() + lines)))
    }

    #[test]
    fn sockets_are_counted_by_object_and_files_and_processes_are_not() {
        let before =
            objects("TCP 10 13 2368 13 8\ndentry 1000 1001 192 21 1\next4_inode_cache 5 5 1000 3 1\n");
        let now = objects(
            "TCP 30 39 2368 13 8\ndentry 1100 1101 192 21 1\next4_inode_cache 900 900 1000 3 1\nnew 20 21 256 16 1\n",
        );
        // Of 100 new dentries the 20 sockets have one each.
        assert_eq!(now.growth_since(&before, 20), 20 * 2368 + 20 * 192 + 20 * 256);
        assert_eq!(before.growth_since(&now, 20), -20 * 2368 - 100 * 192);
    }

    #[test]
    fn without_root_whole_pages_are_counted_and_named() {
        let (before, now) = (KernelMemory::Pages(4096), KernelMemory::Pages(12_288));
        assert_eq!(now.growth_since(&before, 1), 8192);
        assert!(now.source().starts_with("Slab of /proc/meminfo"));
        assert_eq!(field_bytes("MemTotal:  9 kB\nSlab:     8 kB\n", "Slab:"), Some(8192));
    }

    #[test]
    fn sockets_are_those_allocated_and_those_in_time_wait() {
        assert_eq!(sockets_of("sockets: used 6\nTCP: inuse 3 orphan 0 tw 9 alloc 4 mem 2\n"), Some(13));
        assert_eq!(sockets_of("sockets: used 6\n"), None);
    }

    #[test]
    fn this_process_has_memory_and_so_has_the_kernel() {
        let (kernel, resident) = at_rest(std::process::id()).unwrap();
        assert!(kernel.total() > 1 << 20 && resident > 1 << 20);
    }
}
