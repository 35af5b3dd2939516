//! Memory as the kernel has booked it: a process's pages, and the kernel's own objects.
//!
//! Reads only; `settled` waits until a reading no longer moves. Next: `cpu`, its counterpart.

use std::collections::BTreeMap;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::Failure;

/// What a process has in memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resident {
    /// Every page mapped, shared ones whole.
    pub rss: u64,
    /// Every page mapped, shared ones divided by those who share.
    pub pss: u64,
    /// Pages that no file stands behind: heap and stacks.
    pub anonymous: u64,
}

/// A process's memory now, from `/proc/PID/smaps_rollup`: that walks the page tables, while `statm`
/// and `status` add up per-CPU counters that may be off by hundreds of KiB.
pub fn resident(pid: u32) -> Result<Resident, Failure> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    Ok(Resident {
        rss: field_bytes(&text, "Rss:")?,
        pss: field_bytes(&text, "Pss:")?,
        anonymous: field_bytes(&text, "Anonymous:")?,
    })
}

/// The value of a `Name:   123 kB` line, in bytes.
fn field_bytes(text: &str, name: &str) -> Result<u64, Failure> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or_else(|| format!("no {name}"))?;
    let kib = line.split_whitespace().next().ok_or_else(|| format!("no number after {name}"))?;
    Ok(kib.parse::<u64>()? * 1024)
}

/// Caches that files and processes fill: somebody's build must not show up in a figure. A socket has an
/// entry in `dentry` and `lsm_inode_cache` too, one each however it is waited for; a second descriptor
/// for a connection would show in `filp`.
const NOT_OF_CONNECTIONS: [&str; 26] = [
    "anon_vma",
    "btrfs_",
    "buffer_head",
    "cred_jar",
    "dentry",
    "ext4_",
    "extent_status",
    "files_cache",
    "fs_cache",
    "inode_cache",
    "jbd2_",
    "kernfs_",
    "lsm_inode_cache",
    "maple_node",
    "mm_struct",
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
    "xfs_",
];

/// The kernel's own objects.
#[derive(Clone, Debug)]
pub struct Slab {
    /// `Slab:` of `/proc/meminfo`, in bytes: whole pages, those half empty included.
    pub pages: u64,
    /// Bytes of live objects by cache, without `NOT_OF_CONNECTIONS`.
    pub live: BTreeMap<String, u64>,
    /// Bytes of one object of each.
    pub object_bytes: BTreeMap<String, u64>,
}

/// The kernel's objects now, from `/proc/slabinfo`. Errors: not root.
pub fn slab() -> Result<Slab, Failure> {
    let text = fs::read_to_string("/proc/slabinfo")
        .map_err(|error| format!("/proc/slabinfo: {error} (root only)"))?;
    let (mut live, mut object_bytes) = (BTreeMap::new(), BTreeMap::new());
    for line in text.lines().skip(2) {
        let mut columns = line.split_whitespace();
        let (Some(name), Some(active), _, Some(size)) =
            (columns.next(), columns.next(), columns.next(), columns.next())
        else {
            continue;
        };
        if !NOT_OF_CONNECTIONS.iter().any(|prefix| name.starts_with(prefix)) {
            let size: u64 = size.parse()?;
            live.insert(name.to_owned(), active.parse::<u64>()? * size);
            object_bytes.insert(name.to_owned(), size);
        }
    }
    Ok(Slab { pages: field_bytes(&fs::read_to_string("/proc/meminfo")?, "Slab:")?, live, object_bytes })
}

impl Slab {
    /// How much each cache has grown since `before`, in bytes.
    pub fn growth_since(&self, before: &Slab) -> BTreeMap<String, i64> {
        let past = |name: &str| before.live.get(name).copied().unwrap_or(0) as i64;
        self.live.iter().map(|(name, &bytes)| (name.clone(), bytes as i64 - past(name))).collect()
    }
}

/// Reads until three readings in a row, 200 ms apart, are within `slack` of each other by `size`, and
/// gives the last. Freed sockets go a grace period later, and an allocator may return pages late.
pub fn settled<T>(
    slack: u64,
    read: impl Fn() -> Result<T, Failure>,
    size: impl Fn(&T) -> u64,
) -> Result<T, Failure> {
    let deadline = Instant::now() + Duration::from_secs(15);
    let mut calm = 0;
    let mut last = read()?;
    while calm < 2 {
        if Instant::now() > deadline {
            return Err("memory does not come to rest: is something else running on this machine?".into());
        }
        sleep(Duration::from_millis(200));
        let next = read()?;
        calm = if size(&next).abs_diff(size(&last)) <= slack { calm + 1 } else { 0 };
        last = next;
    }
    Ok(last)
}

/// This process's own resident memory, in bytes.
pub fn own_resident() -> Result<u64, Failure> {
    Ok(resident(std::process::id())?.rss)
}
