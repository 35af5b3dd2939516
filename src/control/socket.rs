//! The control socket in the file system: where it lies, who may bind it, who may speak through it.
//!
//! Mode 0660 in a 0750 directory. Only a socket that nobody listens on is ever replaced; anything else
//! in its place refuses the start. Whether a peer may command is decided here, by SO_PEERCRED; what
//! it says is read elsewhere (`peer`).

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::sockopt::PeerCredentials;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::config::{self, Config};

/// Directories are made with this mode.
const DIRECTORY_MODE: u32 = 0o750;
/// The socket has this mode.
const SOCKET_MODE: u32 = 0o660;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;
/// How long another start may hold the directory while it binds.
const LOCK_WAIT: Duration = Duration::from_secs(1);

/// The socket's path for this process (contract section 3): `configured` unless empty, else by uid and
/// `XDG_RUNTIME_DIR`.
pub fn default_path(configured: &Path) -> PathBuf {
    let uid = rustix::process::geteuid().as_raw();
    socket_path(configured, uid, std::env::var_os("XDG_RUNTIME_DIR").as_deref())
}

/// Where the socket lies: `configured` unless empty; `/run/corecast` for root; else below
/// `xdg_runtime_dir` where that is absolute; else `/tmp/corecast-<uid>`.
pub fn socket_path(configured: &Path, uid: u32, xdg_runtime_dir: Option<&OsStr>) -> PathBuf {
    if !configured.as_os_str().is_empty() {
        return configured.to_owned();
    }
    if uid == 0 {
        return PathBuf::from("/run/corecast/control.sock");
    }
    match xdg_runtime_dir.map(Path::new) {
        Some(dir) if dir.is_absolute() => dir.join("corecast/control.sock"),
        _ => PathBuf::from(format!("/tmp/corecast-{uid}/control.sock")),
    }
}

/// Why the socket cannot be bound: the machine's fault at start.
#[derive(Debug)]
pub enum SocketError {
    /// A gateway answers there.
    Live(PathBuf),
    /// Something that is not a dead control socket lies there.
    Foreign {
        /// Where.
        path: PathBuf,
        /// What: "a symbolic link", "a regular file", ...
        what: &'static str,
    },
    /// The file system does not let us.
    Permission {
        /// What was touched.
        path: PathBuf,
        /// What was tried: "make the directory", ...
        doing: &'static str,
        /// What came of it.
        error: io::Error,
    },
    /// Anything else.
    Io {
        /// What was touched.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What came of it.
        error: io::Error,
    },
}

impl SocketError {
    fn new(path: &Path, doing: &'static str, error: impl Into<io::Error>) -> Self {
        let (path, error) = (path.to_owned(), error.into());
        match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::Permission { path, doing, error }
            }
            _ => Self::Io { path, doing, error },
        }
    }
}

impl fmt::Display for SocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Live(path) => {
                let path = path.display();
                writeln!(f, "the control socket {path} is in use: a gateway answers there")?;
                write!(
                    f,
                    "try: corecast stats --socket {path}, or --socket with another path for a second one"
                )
            }
            Self::Foreign { path, what } => {
                let path = path.display();
                writeln!(
                    f,
                    "cannot make the control socket: {path} is {what}, not a socket that a gateway left"
                )?;
                write!(f, "try: ls -l {path}, then remove it or choose another path with --socket")
            }
            Self::Permission { path, doing, error } => {
                let path = path.display();
                writeln!(f, "cannot {doing} for the control socket: {path}: {error}")?;
                writeln!(f, "likely cause: this user may not write there")?;
                write!(
                    f,
                    "try: --socket /tmp/corecast-$(id -u)/control.sock, or give the directory to this user"
                )
            }
            Self::Io { path, doing, error } => {
                let path = path.display();
                writeln!(f, "cannot {doing} for the control socket: {path}: {error}")?;
                write!(f, "try: another path with --socket (at most 107 bytes, on a local file system)")
            }
        }
    }
}

impl std::error::Error for SocketError {}

/// Who may command.
#[derive(Clone, Debug)]
struct Allowed {
    uids: Vec<u32>,
    gids: Vec<u32>,
}

impl Allowed {
    fn new(control: &config::Control) -> Self {
        Self { uids: control.allow_uids.clone(), gids: control.allow_gids.clone() }
    }

    /// Either list suffices; with both empty it is whoever may open the file. Root is not exempt: who
    /// sets a list and wants root on it names 0. Only a peer's primary group is known to SO_PEERCRED.
    fn permits(&self, uid: u32, gid: u32) -> bool {
        (self.uids.is_empty() && self.gids.is_empty()) || self.uids.contains(&uid) || self.gids.contains(&gid)
    }
}

/// The socket, listening. Its file goes when this is dropped, if it is still ours.
#[derive(Debug)]
pub struct BoundSocket {
    listener: OwnedFd,
    path: PathBuf,
    /// Device and inode of our file; `None` where it is the service manager's.
    identity: Option<(u64, u64)>,
    allowed: Allowed,
}

/// A peer that has connected.
#[derive(Debug)]
pub(super) struct Accepted {
    /// Non-blocking.
    pub socket: OwnedFd,
    /// Whether it may command.
    pub allowed: bool,
}

impl BoundSocket {
    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Judges peers that connect from now on by these lists.
    pub(super) fn allow(&mut self, control: &config::Control) {
        self.allowed = Allowed::new(control);
    }

    pub(super) fn listener(&self) -> &OwnedFd {
        &self.listener
    }

    /// The next peer that waits; `None` when none does. Errors: of `accept4`, descriptors used up among
    /// them.
    pub(super) fn accept(&self) -> io::Result<Option<Accepted>> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = match rustix::net::accept_with(&self.listener, flags) {
            Ok(socket) => socket,
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        // Taken when the peer connected: what it becomes afterwards does not matter. Not rustix's `UCred`: that
        // takes the process id for never zero, and it is zero where the peer is in another container.
        let peer = nix::sys::socket::getsockopt(&socket, PeerCredentials)?;
        Ok(Some(Accepted { socket, allowed: self.allowed.permits(peer.uid(), peer.gid()) }))
    }
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        // Only if it is still ours: after a forced second start the file belongs to the other gateway.
        let ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|found| Some((found.dev(), found.ino())) == self.identity);
        if ours {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Binds the control socket at `path` and listens; makes its directory, with parents, where missing.
///
/// Errors: `Live` when a gateway answers there; `Foreign` when anything but a dead socket lies there;
/// `Permission` and `Io` from the file system. Nothing was changed then, but for the directory.
pub fn bind(config: &Config, path: &Path) -> Result<BoundSocket, SocketError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    make_directory(directory)?;
    // Held until we listen: of two starts at once, the second finds a live socket, not a dead one.
    let _lock = lock_directory(directory)?;
    clear_place(path)?;
    let refused = |doing| move |error: Errno| SocketError::new(path, doing, error);
    let address = SocketAddrUnix::new(path).map_err(refused("use the path"))?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let listener = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(refused("make a socket"))?;
    rustix::net::bind(&listener, &address).map_err(refused("bind"))?;
    // The mode is set before anybody can connect: until `listen`, a connect is refused.
    let prepared = std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))
        .and_then(|()| std::fs::symlink_metadata(path))
        .and_then(|found| rustix::net::listen(&listener, BACKLOG).map(|()| found).map_err(Into::into));
    let found = match prepared {
        Ok(found) => found,
        Err(error) => {
            let _ = std::fs::remove_file(path);
            return Err(SocketError::new(path, "prepare the file", error));
        }
    };
    let allowed = Allowed::new(&config.control);
    Ok(BoundSocket { listener, path: path.to_owned(), identity: Some((found.dev(), found.ino())), allowed })
}

/// Goes on with a socket that the service manager listens on. Its file and mode are the manager's.
///
/// Errors: `Foreign` when it does not lie at `path`, where clients look for it.
pub fn inherit(config: &Config, path: &Path, listener: UnixListener) -> Result<BoundSocket, SocketError> {
    let lies_at = listener.local_addr().ok().and_then(|address| address.as_pathname().map(Path::to_owned));
    if lies_at.as_deref() != Some(path) {
        let what = "another socket than that of the socket unit (ListenStream=)";
        return Err(SocketError::Foreign { path: path.to_owned(), what });
    }
    // systemd hands it over blocking.
    let prepared = listener.set_nonblocking(true);
    prepared.map_err(|error| SocketError::new(path, "use the service manager's socket", error))?;
    let allowed = Allowed::new(&config.control);
    Ok(BoundSocket { listener: listener.into(), path: path.to_owned(), identity: None, allowed })
}

/// Makes `directory` with mode 0750 where it is missing; leaves the mode of one that is there alone.
fn make_directory(directory: &Path) -> Result<(), SocketError> {
    let refused = |error| SocketError::new(directory, "make the directory", error);
    match std::fs::metadata(directory) {
        Ok(found) if !found.is_dir() => {
            Err(SocketError::Foreign { path: directory.to_owned(), what: "not a directory" })
        }
        Ok(found) => {
            // Below /tmp anybody could have made it first, and would own what we put into it.
            let us = rustix::process::geteuid().as_raw();
            if us != 0 && found.uid() != 0 && found.uid() != us {
                let error = io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to another user");
                return Err(SocketError::new(directory, "use the directory", error));
            }
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(DIRECTORY_MODE)
                .create(directory)
                .map_err(refused)?;
            // Whatever the umask took away.
            std::fs::set_permissions(directory, std::fs::Permissions::from_mode(DIRECTORY_MODE))
                .map_err(refused)
        }
        Err(error) => Err(refused(error)),
    }
}

fn lock_directory(directory: &Path) -> Result<OwnedFd, SocketError> {
    let refused = |error: Errno| SocketError::new(directory, "lock the directory", error);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let lock = rustix::fs::open(directory, flags, Mode::empty()).map_err(refused)?;
    let step = Duration::from_millis(10);
    let mut waited = Duration::ZERO;
    loop {
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(lock),
            Err(Errno::WOULDBLOCK) if waited < LOCK_WAIT => {
                std::thread::sleep(step);
                waited += step;
            }
            Err(errno) => return Err(refused(errno)),
        }
    }
}

/// Leaves `path` free, or says why it cannot be: only a socket that nobody listens on is removed.
fn clear_place(path: &Path) -> Result<(), SocketError> {
    let kind = match std::fs::symlink_metadata(path) {
        Ok(found) => found.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(SocketError::new(path, "look at the path", error)),
    };
    let foreign = |what| Err(SocketError::Foreign { path: path.to_owned(), what });
    if kind.is_symlink() {
        return foreign("a symbolic link");
    } else if kind.is_dir() {
        return foreign("a directory");
    } else if kind.is_file() {
        return foreign("a regular file");
    } else if !kind.is_socket() {
        return foreign("a device or a pipe");
    }
    match probe(path) {
        // Its backlog may be full: that is somebody, too.
        Ok(()) | Err(Errno::AGAIN) => Err(SocketError::Live(path.to_owned())),
        Err(Errno::CONNREFUSED) => std::fs::remove_file(path)
            .map_err(|error| SocketError::new(path, "remove the dead socket", error)),
        Err(Errno::NOENT) => Ok(()),
        Err(Errno::PROTOTYPE) => foreign("a socket of another type"),
        Err(errno) => Err(SocketError::new(path, "look who listens", errno)),
    }
}

fn probe(path: &Path) -> Result<(), Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("run/corecast/control.sock");
        (dir, path)
    }

    fn mode(path: &Path) -> u32 {
        std::fs::symlink_metadata(path).expect("is there").mode() & 0o7777
    }

    #[test]
    fn contract_3_the_path_is_configured_else_run_else_xdg_else_tmp() {
        let path = |configured: &str, uid, xdg: Option<&str>| {
            socket_path(Path::new(configured), uid, xdg.map(OsStr::new)).to_str().map(str::to_owned)
        };
        assert_eq!(path("/a/b", 0, None).as_deref(), Some("/a/b"));
        assert_eq!(path("", 0, Some("/run/user/0")).as_deref(), Some("/run/corecast/control.sock"));
        assert_eq!(path("", 7, Some("/run/user/7")).as_deref(), Some("/run/user/7/corecast/control.sock"));
        assert_eq!(path("", 7, Some("relative")).as_deref(), Some("/tmp/corecast-7/control.sock"));
        assert_eq!(path("", 7, None).as_deref(), Some("/tmp/corecast-7/control.sock"));
    }

    #[test]
    fn contract_3_the_socket_has_mode_0660_in_a_0750_directory_and_goes_at_the_end() {
        let (_dir, path) = place();
        let socket = bind(&Config::default(), &path).expect("binds");
        assert_eq!(mode(&path), 0o660);
        assert_eq!(mode(path.parent().expect("has one")), 0o750);
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn contract_3_a_live_gateway_refuses_the_start() {
        let (_dir, path) = place();
        let _live = bind(&Config::default(), &path).expect("binds");
        assert!(matches!(bind(&Config::default(), &path), Err(SocketError::Live(_))));
        assert!(path.exists());
    }

    #[test]
    fn contract_3_a_stale_socket_is_replaced() {
        let (_dir, path) = place();
        std::fs::create_dir_all(path.parent().expect("has one")).expect("made");
        // std leaves the file behind.
        drop(UnixListener::bind(&path).expect("binds"));
        assert!(path.exists());
        let _socket = bind(&Config::default(), &path).expect("replaces it");
    }

    #[test]
    fn contract_3_a_symlink_a_file_or_a_directory_in_its_place_refuses_the_start_and_stays() {
        let (_dir, path) = place();
        std::fs::create_dir_all(path.parent().expect("has one")).expect("made");
        let stale = path.with_file_name("other.sock");
        drop(UnixListener::bind(&stale).expect("binds"));
        std::os::unix::fs::symlink(&stale, &path).expect("linked");
        assert!(matches!(bind(&Config::default(), &path), Err(SocketError::Foreign { .. })));
        std::fs::remove_file(&path).expect("removed");
        std::fs::write(&path, "precious").expect("written");
        assert!(matches!(bind(&Config::default(), &path), Err(SocketError::Foreign { .. })));
        assert_eq!(std::fs::read(&path).expect("still there"), b"precious");
        std::fs::remove_file(&path).expect("removed");
        std::fs::create_dir(&path).expect("made");
        assert!(matches!(bind(&Config::default(), &path), Err(SocketError::Foreign { .. })));
    }

    #[test]
    fn a_file_that_is_no_longer_ours_is_left_alone_at_the_end() {
        let (_dir, path) = place();
        let socket = bind(&Config::default(), &path).expect("binds");
        std::fs::remove_file(&path).expect("removed");
        std::fs::write(&path, "another's").expect("written");
        drop(socket);
        assert!(path.exists());
    }

    #[test]
    fn contract_3_either_list_suffices_and_root_is_not_exempt() {
        let allowed = |uids: &[u32], gids: &[u32]| Allowed { uids: uids.to_vec(), gids: gids.to_vec() };
        assert!(allowed(&[], &[]).permits(5, 5));
        assert!(allowed(&[5], &[9]).permits(5, 1) && allowed(&[5], &[9]).permits(1, 9));
        assert!(!allowed(&[5], &[9]).permits(0, 0) && !allowed(&[], &[9]).permits(9, 5));
    }
}
