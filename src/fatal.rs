//! What can go wrong with the machine at start, each with its own exit status.
//!
//! Messages have three parts: what happened, with the numbers; the likely cause; what to type.
//! The decisions are functions of what was read, so that they are tested without such a machine;
//! `check_host` does the reading. Never used for a client's or a caller's fault. Next: `gateway`.
//!
//! | status | name | what happened |
//! |---|---|---|
//! | 10 | `KernelTooOld` | the kernel is older than 6.1, or built without io_uring |
//! | 11 | `IoUringDisabled` | io_uring is switched off by `kernel.io_uring_disabled` |
//! | 12 | `IoUringFiltered` | io_uring is refused by seccomp or a security module |
//! | 13 | `MemlockTooLow` | less than 512 KiB of memory may be locked |
//! | 14 | `PortTaken` | another process listens on a client address |
//! | 15 | `Address` | a client address cannot be listened on: not of this host, or a low port |
//! | 16 | `SocketLive` | another gateway answers on the control socket |
//! | 17 | `SocketForeign` | something that is not ours stands at the control socket's path |
//! | 18 | `SocketPath` | the control socket or its directory cannot be made |
//! | 19 | `Descriptors` | too few file descriptors |
//! | 20 | `ThreadStart` | a shard's or the control thread did not start |

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use rustix::io::Errno;

/// The oldest kernel that has all that the ring asks for (`IORING_SETUP_DEFER_TASKRUN`).
pub const KERNEL_MIN: (u32, u32) = (6, 1);

/// What glommio demands of `RLIMIT_MEMLOCK` for one executor (glommio 0.9 `sys/uring.rs`). Kernels from
/// 5.12 on do not charge rings to it, so it does not grow with the number of shards.
pub const MEMLOCK_BYTES_MIN: u64 = 512 * 1024;

/// Why the gateway could not start; ends the process with `status`.
#[derive(Debug)]
pub enum Fatal {
    /// The kernel lacks what the ring asks for.
    KernelTooOld {
        /// As `uname -r` prints it.
        release: String,
    },
    /// `kernel.io_uring_disabled` keeps this process out.
    IoUringDisabled {
        /// Its value: 1 is "only io_uring_group and CAP_SYS_ADMIN", 2 is "nobody".
        level: u32,
        /// What `io_uring_setup` answered.
        errno: Errno,
    },
    /// seccomp or a security module refuses `io_uring_setup`.
    IoUringFiltered {
        /// What `io_uring_setup` answered.
        errno: Errno,
        /// `Seccomp:` in `/proc/self/status`; 2 is a filter.
        seccomp: u32,
    },
    /// `RLIMIT_MEMLOCK` is below `MEMLOCK_BYTES_MIN`, or the kernel refused to lock memory.
    MemlockTooLow {
        /// The soft limit, in bytes.
        limit_bytes: u64,
    },
    /// Another process listens there (EADDRINUSE).
    PortTaken {
        /// Where.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    Address {
        /// Which.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// A gateway answers on the control socket.
    SocketLive {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is not a socket of ours is in its place; it is left alone.
    SocketForeign {
        /// The place.
        path: PathBuf,
        /// What stands there: `a symbolic link`, `a regular file`, `a socket of uid 1000`.
        what: String,
    },
    /// The socket, its directory or its mode could not be made.
    SocketPath {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// `RLIMIT_NOFILE` is used up, or leaves no room for what was asked.
    Descriptors {
        /// The limit.
        limit: u64,
        /// How many are needed at least.
        needed: u64,
    },
    /// A thread did not start, for a reason that none of the others names.
    ThreadStart {
        /// `shard 0`, `control`.
        thread: String,
        /// Why.
        error: io::Error,
    },
}

/// A `Fatal` in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What happened, with the numbers.
    pub what: String,
    /// Why, probably.
    pub cause: String,
    /// What to type.
    pub hint: String,
}

impl Fatal {
    /// The process's exit status: see the table above.
    pub fn status(&self) -> u8 {
        match self {
            Self::KernelTooOld { .. } => 10,
            Self::IoUringDisabled { .. } => 11,
            Self::IoUringFiltered { .. } => 12,
            Self::MemlockTooLow { .. } => 13,
            Self::PortTaken { .. } => 14,
            Self::Address { .. } => 15,
            Self::SocketLive { .. } => 16,
            Self::SocketForeign { .. } => 17,
            Self::SocketPath { .. } => 18,
            Self::Descriptors { .. } => 19,
            Self::ThreadStart { .. } => 20,
        }
    }

    /// Why `address` could not be bound or listened on.
    pub fn listen(address: SocketAddr, error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(Errno::ADDRINUSE) => Self::PortTaken { address },
            Some(Errno::MFILE | Errno::NFILE) => Self::descriptors_used_up(),
            _ => Self::Address { address, error },
        }
    }

    /// Why `thread` (`shard 0`, `control`) did not start, after `check_host` found nothing.
    pub fn thread_start(thread: impl Into<String>, error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(Errno::MFILE | Errno::NFILE) => Self::descriptors_used_up(),
            _ => Self::ThreadStart { thread: thread.into(), error },
        }
    }

    fn descriptors_used_up() -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
        Self::Descriptors { limit, needed: limit.saturating_add(1) }
    }

    /// What happened, why probably, what to type.
    pub fn explanation(&self) -> Explanation {
        match self {
            Self::KernelTooOld { .. }
            | Self::IoUringDisabled { .. }
            | Self::IoUringFiltered { .. }
            | Self::MemlockTooLow { .. } => self.kernel_message(),
            Self::PortTaken { .. } | Self::Address { .. } => self.address_message(),
            Self::SocketLive { .. } | Self::SocketForeign { .. } | Self::SocketPath { .. } => {
                self.socket_message()
            }
            Self::Descriptors { limit, needed } => Explanation {
                what: format!("file descriptors: the limit is {limit}, at least {needed} are needed"),
                cause: "one connection takes one descriptor, and the limit of this session is low".to_owned(),
                hint: "ulimit -n 1048576, or LimitNOFILE=1048576 in the systemd unit".to_owned(),
            },
            Self::ThreadStart { thread, error } => Explanation {
                what: format!("{thread} did not start: {error}"),
                cause: "the host is short of memory or threads, or a CPU that it was to run on is gone"
                    .to_owned(),
                hint: "corecast serve --shards 1; then free -m, ulimit -u and nproc".to_owned(),
            },
        }
    }

    fn kernel_message(&self) -> Explanation {
        let (major, minor) = KERNEL_MIN;
        let (what, cause, hint) = match self {
            Self::KernelTooOld { release } if kernel_at_least(release, KERNEL_MIN) => (
                format!("the kernel, {release}, has no io_uring (ENOSYS)"),
                "it was built without CONFIG_IO_URING, or a sandbox stands in for it".to_owned(),
                "grep IO_URING /boot/config-$(uname -r), and a kernel or sandbox that has it".to_owned(),
            ),
            Self::KernelTooOld { release } => (
                format!("the kernel is {release}, corecast needs {major}.{minor} or newer"),
                "batched io_uring (DEFER_TASKRUN) came with 6.1".to_owned(),
                "uname -r, then boot a newer kernel: Debian 12, Ubuntu 24.04 and RHEL 10 have one".to_owned(),
            ),
            Self::IoUringDisabled { level, errno } => (
                format!("io_uring_setup was refused ({})", errno_name(*errno)),
                format!("kernel.io_uring_disabled is {level} on this host"),
                "sysctl -w kernel.io_uring_disabled=0, then systemctl restart corecast".to_owned(),
            ),
            Self::IoUringFiltered { errno, seccomp } => (
                format!("io_uring_setup was refused ({})", errno_name(*errno)),
                match seccomp {
                    0 => "a security module (SELinux, AppArmor) forbids it".to_owned(),
                    mode => {
                        format!("a seccomp filter (mode {mode}) forbids it, as containers' default ones do")
                    }
                },
                match seccomp {
                    0 => "journalctl -k | grep -iE 'avc|apparmor', and allow io_uring there".to_owned(),
                    _ => "docker run --security-opt seccomp=FILE, in Kubernetes seccompProfile, with a profile that \
                          allows io_uring_setup, io_uring_enter and io_uring_register (README, \"In a \
                          container\"); under systemd, SystemCallFilter="
                        .to_owned(),
                },
            ),
            Self::MemlockTooLow { limit_bytes } => (
                format!(
                    "{limit_bytes} bytes of memory may be locked, at least {MEMLOCK_BYTES_MIN} are needed"
                ),
                "RLIMIT_MEMLOCK of this session or unit is low".to_owned(),
                "ulimit -l 8192, or LimitMEMLOCK=8M in the systemd unit".to_owned(),
            ),
            _ => unreachable!("`explanation` sends only these four here"),
        };
        Explanation { what, cause, hint }
    }

    fn address_message(&self) -> Explanation {
        let (what, cause, hint) = match self {
            Self::PortTaken { address } => (
                format!("cannot listen on {address}: the port is taken (EADDRINUSE)"),
                "another gateway or another server listens there".to_owned(),
                format!(
                    "ss -ltnp 'sport = :{}' to see which, or corecast serve --listen with another port",
                    address.port()
                ),
            ),
            Self::Address { address, error } => {
                let what = format!("cannot listen on {address}: {error}");
                match Errno::from_io_error(error) {
                    Some(Errno::ACCESS | Errno::PERM) => (
                        what,
                        format!("port {} is below net.ipv4.ip_unprivileged_port_start", address.port()),
                        "AmbientCapabilities=CAP_NET_BIND_SERVICE in the systemd unit, or a port from 1024 up"
                            .to_owned(),
                    ),
                    Some(Errno::AFNOSUPPORT) => (
                        what,
                        "IPv6 is switched off on this host".to_owned(),
                        "listen on an IPv4 address such as 127.0.0.1:8080".to_owned(),
                    ),
                    _ => (
                        what,
                        format!("{} is not an address of this host", address.ip()),
                        "ip -brief address, then set listen to one of those".to_owned(),
                    ),
                }
            }
            _ => unreachable!("`explanation` sends only these two here"),
        };
        Explanation { what, cause, hint }
    }

    fn socket_message(&self) -> Explanation {
        let (what, cause, hint) = match self {
            Self::SocketLive { path } => (
                format!("the control socket {} is in use: a gateway answers there", path.display()),
                "another corecast runs as this user".to_owned(),
                format!(
                    "corecast stats --socket {0} to see it, or serve --socket with another path",
                    path.display()
                ),
            ),
            Self::SocketForeign { path, what } => (
                format!("{} stands at the control socket's path {}", what, path.display()),
                "control.socket names a file of something else, which is left alone".to_owned(),
                format!("ls -l {}, then move it away or set --socket", path.display()),
            ),
            Self::SocketPath { path, error } => (
                format!("the control socket's path {} cannot be made: {error}", path.display()),
                "the directory above it does not exist or belongs to another user".to_owned(),
                "RuntimeDirectory=corecast in the systemd unit, or --socket with a path that you may write"
                    .to_owned(),
            ),
            _ => unreachable!("`explanation` sends only these three here"),
        };
        Explanation { what, cause, hint }
    }
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Explanation { what, cause, hint } = self.explanation();
        write!(f, "cannot start: {what}\nlikely cause: {cause}\ntry: {hint}")
    }
}

impl std::error::Error for Fatal {}

/// The symbol where operators search for it, the system's text otherwise.
fn errno_name(errno: Errno) -> String {
    match errno {
        Errno::PERM => "EPERM".to_owned(),
        Errno::NOSYS => "ENOSYS".to_owned(),
        Errno::ACCESS => "EACCES".to_owned(),
        other => io::Error::from(other).to_string(),
    }
}

/// Whether a kernel that calls itself `release` (`6.18.44-generic`) is `least` or newer. A release that
/// does not begin with two numbers is not.
pub fn kernel_at_least(release: &str, least: (u32, u32)) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= least,
        _ => false,
    }
}

/// What is known about a refused `io_uring_setup`.
#[derive(Clone, Debug)]
pub struct Host {
    /// As `uname -r` prints it.
    pub release: String,
    /// `kernel.io_uring_disabled`; `None` on kernels before 6.6, which have no such switch.
    pub io_uring_disabled: Option<u32>,
    /// `Seccomp:` in `/proc/self/status`: 0 none, 1 strict, 2 filter; `None` where it cannot be read.
    pub seccomp: Option<u32>,
    /// The soft limit of `RLIMIT_MEMLOCK` in bytes, `u64::MAX` where there is none.
    pub memlock_bytes: u64,
}

/// Why `io_uring_setup` answered `errno` on this host.
///
/// Source: io_uring_setup(2); Documentation/admin-guide/sysctl/kernel.rst for the switch.
pub fn explain_io_uring(errno: Errno, host: &Host) -> Fatal {
    let level = host.io_uring_disabled.unwrap_or(0);
    let seccomp = host.seccomp.unwrap_or(0);
    match errno {
        Errno::PERM if level > 0 => Fatal::IoUringDisabled { level, errno },
        // ENOSYS too: filters may answer with it, to make programs fall back quietly.
        Errno::PERM | Errno::ACCESS | Errno::NOSYS if seccomp > 0 => {
            Fatal::IoUringFiltered { errno, seccomp }
        }
        Errno::PERM | Errno::ACCESS => Fatal::IoUringFiltered { errno, seccomp },
        // EINVAL: a flag that this kernel does not know; the probe asks for nothing else unusual.
        Errno::NOSYS | Errno::INVAL => Fatal::KernelTooOld { release: host.release.clone() },
        Errno::NOMEM if host.memlock_bytes < MEMLOCK_BYTES_MIN => {
            Fatal::MemlockTooLow { limit_bytes: host.memlock_bytes }
        }
        other => Fatal::thread_start("the first ring", other.into()),
    }
}

/// Looks at what every shard will need, before any is started: kernel, locked memory, and `try_io_uring`.
///
/// Errors: `KernelTooOld`, `MemlockTooLow`, and those of `try_io_uring`.
pub fn check_host() -> Result<(), Fatal> {
    let host = Host::read();
    if !kernel_at_least(&host.release, KERNEL_MIN) {
        return Err(Fatal::KernelTooOld { release: host.release });
    }
    if host.memlock_bytes < MEMLOCK_BYTES_MIN {
        return Err(Fatal::MemlockTooLow { limit_bytes: host.memlock_bytes });
    }
    try_io_uring()
}

/// Makes one small ring with the flags that the shards use, and drops it.
///
/// Errors: `IoUringDisabled`, `IoUringFiltered`, `KernelTooOld`, `MemlockTooLow`, `Descriptors`.
pub fn try_io_uring() -> Result<(), Fatal> {
    let mut probe = io_uring::IoUring::builder();
    let probe: io::Result<io_uring::IoUring> = probe.setup_single_issuer().setup_defer_taskrun().build(2);
    match probe {
        Ok(_) => Ok(()),
        Err(error) => {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            Err(explain_io_uring(errno, &Host::read()))
        }
    }
}

impl Host {
    /// Reads it from this machine.
    pub fn read() -> Self {
        let number = |text: &str| text.trim().parse().ok();
        let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let seccomp = status.lines().find_map(|line| line.strip_prefix("Seccomp:"));
        let memlock = rustix::process::getrlimit(rustix::process::Resource::Memlock);
        Self {
            release: sysinfo::System::kernel_version().unwrap_or_default(),
            io_uring_disabled: disabled.as_deref().and_then(number),
            seccomp: seccomp.and_then(number),
            memlock_bytes: memlock.current.unwrap_or(u64::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        Host {
            release: "6.8.0-45".to_owned(),
            io_uring_disabled: Some(0),
            seccomp: Some(0),
            memlock_bytes: 8 << 20,
        }
    }

    #[test]
    fn a_kernel_from_6_1_up_will_do_and_an_older_or_unnamed_one_will_not() {
        for release in ["6.1.0-28-amd64", "6.1", "6.18.44-fc-v595", "7.0.1", "10.0-rc1"] {
            assert!(kernel_at_least(release, KERNEL_MIN), "{release}");
        }
        for release in ["6.0.19", "5.15.90.1-microsoft-standard-WSL2", "4.18.0-553.el8", "", "6", "six.one"] {
            assert!(!kernel_at_least(release, KERNEL_MIN), "{release}");
        }
    }

    #[test]
    fn a_refusal_while_the_switch_is_set_is_the_switchs() {
        for level in [1, 2] {
            let host = Host { io_uring_disabled: Some(level), seccomp: Some(2), ..host() };
            let fatal = explain_io_uring(Errno::PERM, &host);
            assert_eq!(fatal.status(), 11);
            let text = fatal.to_string();
            assert!(text.contains("io_uring_setup was refused (EPERM)"), "{text}");
            assert!(text.contains(&format!("likely cause: kernel.io_uring_disabled is {level}")), "{text}");
            assert!(text.contains("try: sysctl -w kernel.io_uring_disabled=0"), "{text}");
        }
    }

    #[test]
    fn a_refusal_under_a_filter_is_seccomps_whichever_errno_it_answers() {
        let host = Host { io_uring_disabled: None, seccomp: Some(2), ..host() };
        for errno in [Errno::PERM, Errno::NOSYS, Errno::ACCESS] {
            let fatal = explain_io_uring(errno, &host);
            assert_eq!(fatal.status(), 12, "{errno:?}");
            assert!(fatal.to_string().contains("seccomp filter (mode 2)"), "{fatal}");
        }
    }

    #[test]
    fn a_refusal_with_neither_is_a_security_modules() {
        let fatal = explain_io_uring(Errno::PERM, &host());
        assert_eq!(fatal.status(), 12);
        assert!(fatal.to_string().contains("security module"), "{fatal}");
    }

    #[test]
    fn enosys_without_a_filter_is_a_kernel_without_io_uring() {
        let fatal = explain_io_uring(Errno::NOSYS, &host());
        assert_eq!(fatal.status(), 10);
        assert!(fatal.to_string().contains("6.8.0-45, has no io_uring"), "{fatal}");
    }

    #[test]
    fn enomem_is_blamed_on_memlock_only_where_that_is_low() {
        let low = Host { memlock_bytes: MEMLOCK_BYTES_MIN - 1, ..host() };
        assert_eq!(explain_io_uring(Errno::NOMEM, &low).status(), 13);
        let enough = Host { memlock_bytes: MEMLOCK_BYTES_MIN, ..host() };
        assert_eq!(explain_io_uring(Errno::NOMEM, &enough).status(), 20);
    }

    #[test]
    fn a_listener_that_fails_is_a_taken_port_or_an_impossible_address() {
        let address = SocketAddr::from(([10, 0, 0, 1], 80));
        let of = |errno: Errno| Fatal::listen(address, errno.into());
        assert_eq!(of(Errno::ADDRINUSE).status(), 14);
        assert!(of(Errno::ADDRINUSE).to_string().contains("ss -ltnp 'sport = :80'"));
        assert_eq!(of(Errno::ACCESS).status(), 15);
        assert!(of(Errno::ACCESS).to_string().contains("port 80 is below"));
        assert_eq!(of(Errno::ADDRNOTAVAIL).status(), 15);
        assert!(of(Errno::ADDRNOTAVAIL).to_string().contains("10.0.0.1 is not an address of this host"));
        assert_eq!(of(Errno::MFILE).status(), 19);
    }

    #[test]
    fn a_thread_that_does_not_start_is_blamed_on_descriptors_where_they_are_used_up() {
        assert_eq!(Fatal::thread_start("shard 0", Errno::MFILE.into()).status(), 19);
        assert_eq!(explain_io_uring(Errno::NFILE, &host()).status(), 19);
        let fatal = Fatal::thread_start("shard 0", Errno::AGAIN.into());
        assert_eq!(fatal.status(), 20);
        assert!(fatal.to_string().starts_with("cannot start: shard 0 did not start: "), "{fatal}");
    }

    /// One of each, in the order of their statuses.
    fn every() -> Vec<Fatal> {
        let (path, address) = (PathBuf::from("/run/x.sock"), SocketAddr::from(([127, 0, 0, 1], 80)));
        let error = || io::Error::from(Errno::ACCESS);
        vec![
            Fatal::KernelTooOld { release: "5.15.0".to_owned() },
            Fatal::IoUringDisabled { level: 2, errno: Errno::PERM },
            Fatal::IoUringFiltered { errno: Errno::PERM, seccomp: 2 },
            Fatal::MemlockTooLow { limit_bytes: 65_536 },
            Fatal::PortTaken { address },
            Fatal::Address { address, error: error() },
            Fatal::SocketLive { path: path.clone() },
            Fatal::SocketForeign { path: path.clone(), what: "a regular file".to_owned() },
            Fatal::SocketPath { path, error: error() },
            Fatal::Descriptors { limit: 64, needed: 300 },
            Fatal::ThreadStart { thread: "shard 0".to_owned(), error: error() },
        ]
    }

    #[test]
    fn each_has_its_own_status_as_the_table_above_says() {
        let table: Vec<String> = include_str!("fatal.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("//! | "))
            .filter(|line| line.starts_with(|c: char| c.is_ascii_digit()))
            .map(|line| {
                line.split('|')
                    .take(2)
                    .map(|cell| cell.trim().trim_matches('`'))
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect();
        let names = every().into_iter().map(|fatal| {
            let debug = format!("{fatal:?}");
            let name = debug.split(' ').next().unwrap_or_default().to_owned();
            format!("{} {name}", fatal.status())
        });
        assert_eq!(table, names.collect::<Vec<_>>());
    }

    #[test]
    fn each_says_what_happened_the_likely_cause_and_what_to_type() {
        for fatal in every() {
            let text = fatal.to_string();
            let lines: Vec<&str> = text.lines().collect();
            assert_eq!(lines.len(), 3, "{text}");
            assert!(lines[0].starts_with("cannot start: "), "{text}");
            assert!(lines[1].starts_with("likely cause: ") && lines[2].starts_with("try: "), "{text}");
        }
    }

    #[test]
    fn this_machine_will_do() {
        check_host().unwrap_or_else(|fatal| panic!("{fatal}"));
    }
}
