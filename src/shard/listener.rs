//! A shard's own listening socket: SO_REUSEPORT, with every option set that accepted sockets inherit.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::time::Instant;

use super::settings::Settings;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

/// TCP_MAXSEG, the largest there is. Only loopback (MSS 65,483) is above it: there a send buffer of 32 KiB
/// never fills two segments, so that the peer delays its ACK by 40 ms for each buffer full. Measured with
/// 20 MiB through `/echo`: 11.9 s without, 0.12 s with; a broadcast costs the same.
pub const SEGMENT_BYTES_MAX: u32 = 32 * 1024 - 1;

/// One listener of one shard.
#[derive(Debug)]
pub struct Listener {
    pub(super) socket: OwnedFd,
    /// Whether only this host can reach it.
    pub(super) loopback: bool,
    /// Whether connections begin with a PROXY header.
    pub(super) speaks_proxy: bool,
    /// When to try accepting again after an error, and how long to wait the next time.
    pub(super) retry: Option<Retry>,
}

/// Backing off after accept errors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    pub(super) at: Instant,
    pub(super) wait: std::time::Duration,
    /// Whether accepting was tried again and nothing was heard since.
    pub(super) armed: bool,
}

/// Options of client sockets, set on the listener and inherited: accepting costs no further call.
#[derive(Clone, Copy, Debug)]
pub struct SocketOptions {
    /// SO_SNDBUF, in bytes; the kernel doubles it for its own bookkeeping.
    pub send_bytes: usize,
    /// Length of the queue of connections that wait to be accepted.
    pub backlog: i32,
}

impl Listener {
    /// Binds and listens. Errors: EADDRINUSE, EADDRNOTAVAIL, EACCES (a port below 1024).
    pub fn bind(address: SocketAddr, options: SocketOptions) -> io::Result<Self> {
        let socket = open(address)?;
        sockopt::set_socket_reuseport(&socket, true)?;
        set_options(&socket, options)?;
        net::bind(&socket, &address)?;
        net::listen(&socket, options.backlog)?;
        Ok(Self { socket, loopback: address.ip().is_loopback(), speaks_proxy: false, retry: None })
    }

    /// Goes on with one that listened before this process did, its queue included. Errors: as `bind`.
    pub fn inherit(socket: TcpListener, options: SocketOptions) -> io::Result<Self> {
        // systemd hands it over blocking.
        socket.set_nonblocking(true)?;
        let loopback = socket.local_addr()?.ip().is_loopback();
        let socket = OwnedFd::from(socket);
        set_options(&socket, options)?;
        net::listen(&socket, options.backlog)?;
        Ok(Self { socket, loopback, speaks_proxy: false, retry: None })
    }

    /// The same for the PROXY protocol, or not.
    pub fn speaking_proxy(self, speaks_proxy: bool) -> Self {
        Self { speaks_proxy, ..self }
    }

    /// The same socket under another descriptor, for the service manager to keep.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }

    /// Gives sockets accepted from now on the options of these settings. Errors: ENOPROTOOPT.
    pub(super) fn adopt(&self, settings: &Settings) -> io::Result<()> {
        sockopt::set_socket_send_buffer_size(&self.socket, settings.socket_send_bytes)?;
        self.give_up_after(settings.unconfirmed_ms_max)
    }

    /// Has the kernel give up a connection whose peer confirms nothing, or takes nothing, for `ms`
    /// milliseconds (TCP_USER_TIMEOUT, tcp(7)): there the socket breaks, and the read poll tells of it. Sockets
    /// accepted from now on inherit it.
    fn give_up_after(&self, ms: u32) -> io::Result<()> {
        Ok(sockopt::set_tcp_user_timeout(&self.socket, ms)?)
    }

    /// The address bound, with the port that the kernel chose for port 0.
    pub fn address(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::try_from(net::getsockname(&self.socket)?)?)
    }
}

fn set_options(socket: &OwnedFd, options: SocketOptions) -> io::Result<()> {
    sockopt::set_tcp_nodelay(socket, true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_socket_send_buffer_size(socket, options.send_bytes)?;
    socket2::SockRef::from(socket).set_tcp_mss(SEGMENT_BYTES_MAX)
}

/// Finds out whether `address` is free: SO_REUSEPORT alone would share it silently with another
/// gateway of the same user. Errors: as `Listener::bind`.
pub fn probe(address: SocketAddr) -> io::Result<()> {
    let socket = open(address)?;
    net::bind(&socket, &address)?;
    // Listening, not binding, is what fails while another socket listens and both have SO_REUSEADDR.
    net::listen(&socket, 1)?;
    Ok(())
}

fn open(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issue_4_accepted_sockets_inherit_when_the_kernel_gives_their_peer_up() {
        let options = SocketOptions { send_bytes: 32 * 1024, backlog: 1 };
        let listener = Listener::bind(([127, 0, 0, 1], 0).into(), options).unwrap();
        listener.give_up_after(70_000).unwrap();
        let _client = std::net::TcpStream::connect(listener.address().unwrap()).unwrap();
        // Connected, so that accepting does not have to wait.
        let accepted = net::accept(&listener.socket).unwrap();
        assert_eq!(sockopt::tcp_user_timeout(&accepted).unwrap(), 70_000);
    }
}
