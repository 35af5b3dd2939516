//! Where a client really comes from, and whether it may.
//!
//! Without a proxy that is the socket's own word. On a listener of `network.proxy_protocol` it is what the
//! header says, and forwarded headers are not looked at: a proxy that passes octets on passes on those of the
//! client, too. On every other listener it is what the forwarded headers say, where the peer is one of
//! `network.trusted_proxies`. Everybody else could say anything, and is believed nothing. The machines are
//! `wire::proxy` and `wire::forwarded`; limits are kept by `admission`.

use std::net::{IpAddr, SocketAddr};

use super::Shard;
use super::conn::flag;
use super::ending::Answer;
use super::life::life;
use crate::ring::Socket;
use crate::stats::{CloseReason, RefusalReason};
use crate::wire::close::Refusal;
use crate::wire::request::Request;
use crate::wire::{forwarded, proxy};

impl Shard {
    /// Judges who connects before anything is heard of it. Errors: why it is closed, without a word.
    ///
    /// Where only proxies may speak, nobody else is listened to: whoever could reach that listener could
    /// otherwise be anybody, by a header of its own.
    pub(super) fn judge_peer(&mut self, listener: u16, socket: &Socket) -> Result<(), CloseReason> {
        let speaks_proxy = self.listeners[usize::from(listener)].speaks_proxy;
        if !speaks_proxy && !self.settings.judges() {
            return Ok(());
        }
        // Unless it has reset already.
        let peer = peer_of(socket).ok_or(CloseReason::PeerGone)?.ip();
        let reason = if self.settings.proxies.contains(peer) {
            // A proxy is judged by whom it speaks for.
            return Ok(());
        } else if speaks_proxy {
            CloseReason::ProxyHeader
        } else if self.settings.permits(peer) {
            return Ok(());
        } else {
            CloseReason::ForbiddenAddress
        };
        life!(DEBUG, self, remote = %peer, reason = reason.name(), "closed at accept");
        Err(reason)
    }

    /// Takes octets of a PROXY header, perhaps the last, and of what is behind it.
    pub(super) fn hear_proxy(&mut self, index: u32, input: &[u8]) {
        let kept = self.table[index].rare.as_mut().map(|rare| std::mem::take(&mut rare.head));
        let mut octets = kept.unwrap_or_default();
        octets.extend_from_slice(input);
        let (client, length) = match proxy::parse(&octets) {
            Ok(Some(header)) => header,
            Ok(None) => {
                self.table[index].rare().head = octets;
                return;
            }
            Err(why) => {
                life!(DEBUG, self, connection = %self.id(index), remote = self.remote(index), ?why, "no PROXY header");
                let code = CloseReason::ProxyHeader.name();
                self.tell_refused(None, code, None, |shard| shard.remote(index));
                return self.finish(index, CloseReason::ProxyHeader, Answer::Nothing);
            }
        };
        let slot = &mut self.table[index];
        slot.clear(flag::PROXY_DUE);
        slot.set(flag::PROXIED);
        slot.tidy();
        if let proxy::Client::Address(address) = client {
            self.addresses.keep(index, address);
        }
        if let Err(refusal) = self.judge_client(index) {
            return self.refuse(index, &refusal);
        }
        if length < octets.len() {
            self.hear_head(index, &mut octets[length..]);
        }
    }

    /// Takes over what a trusted proxy says about the client of this request, and judges it. Gives whether
    /// that is another one than before on this connection: proxies send the requests of many over one.
    ///
    /// Errors: 400 for a malformed header of a trusted proxy, 403 for an address that may not connect.
    pub(super) fn learn_client(&mut self, index: u32, request: &Request<'_>) -> Result<bool, Refusal> {
        let proxies = &self.settings.proxies;
        let mut another = false;
        // A proxy that was trusted when it spoke before may not be any more.
        if (!proxies.is_empty() || self.addresses.of(index).is_some())
            && !self.table[index].is(flag::PROXIED)
            // Its end will be heard soon enough.
            && let Some(peer) = self.peer(index)
        {
            let told = forwarded::client(request, peer.ip(), |address| proxies.contains(address))?;
            let before = self.addresses.of(index).map_or(peer.ip(), |address| address.ip());
            another = before != told.map_or(peer.ip(), |address| address.ip());
            if another {
                self.uncount(index);
                self.addresses.forget(index);
            }
            if let Some(address) = told {
                self.addresses.keep(index, address);
            }
        }
        self.judge_client(index)?;
        Ok(another)
    }

    fn judge_client(&self, index: u32) -> Result<(), Refusal> {
        if !self.settings.judges() {
            return Ok(());
        }
        match self.client_address(index) {
            Some(address) if !self.settings.permits(address) => {
                Err(Refusal::new(RefusalReason::ForbiddenAddress, format!("{address} may not connect here")))
            }
            _ => Ok(()),
        }
    }

    /// The client's address. `None` when it has gone and nothing was kept.
    pub(super) fn client_address(&self, index: u32) -> Option<IpAddr> {
        self.addresses.of(index).or_else(|| self.peer(index)).map(|client| client.ip())
    }

    /// `ip:port` of the client; port 0 where a proxy did not tell it, empty when it has gone.
    pub(super) fn remote(&self, index: u32) -> String {
        self.client(index).map(|client| client.to_string()).unwrap_or_default()
    }

    /// The client's address and port; port 0 where a proxy did not tell it. `None` when it has gone.
    pub(super) fn client(&self, index: u32) -> Option<SocketAddr> {
        match self.addresses.of(index) {
            Some(kept) if kept.port() != 0 => Some(kept),
            // One that is kept because it is counted: its socket knows the port.
            Some(kept) => self.peer(index).filter(|peer| peer.ip() == kept.ip()).or(Some(kept)),
            None => self.peer(index),
        }
    }

    /// Who is at the other end of the socket.
    fn peer(&self, index: u32) -> Option<SocketAddr> {
        peer_of(self.table[index].socket())
    }
}

/// `ip:port` of who is at the other end of `socket`; empty when it has gone.
pub(super) fn remote_of(socket: &Socket) -> String {
    peer_of(socket).map(|peer| peer.to_string()).unwrap_or_default()
}

/// In its canonical form: IPv4 is IPv4 on a listener for both, too.
fn peer_of(socket: &Socket) -> Option<SocketAddr> {
    let peer = socket.peer()?;
    Some(SocketAddr::new(peer.ip().to_canonical(), peer.port()))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpStream};
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::config::Config;
    use crate::shard::conn::State;
    use crate::shard::listener::{Listener, SocketOptions};
    use crate::shard::mailbox::{Gate, Owner, mailbox};
    use crate::shard::{Parts, Room, Settings};

    /// A shard with one listener, for the PROXY protocol or not, and where that is.
    fn shard(config: &Config, speaks_proxy: bool) -> (Shard, SocketAddr) {
        let options = SocketOptions { send_bytes: 32 * 1024, backlog: 16 };
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into(), options).unwrap();
        let address = listener.address().unwrap();
        let (mailbox, inbox) = mailbox(16, 1 << 20).unwrap();
        let shard = Shard::new(Parts {
            number: 0,
            epoch: 1,
            settings: Settings::new(config, Room { clients_max: 16, sockets_max: 16 }),
            listeners: vec![listener.speaking_proxy(speaks_proxy)],
            inbox,
            peers: vec![mailbox],
            owner: Owner::new(1),
            gate: Arc::new(Gate::default()),
            // Nobody listens to it.
            reports: flume::unbounded().0,
        });
        (shard.unwrap(), address)
    }

    /// A WebSocket that is open and has read its 101, and its slot.
    fn open(shard: &mut Shard, address: SocketAddr, before: &str) -> (TcpStream, u32) {
        let mut stream = TcpStream::connect(address).unwrap();
        let request = "GET /ws?topics=t HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(format!("{before}{request}").as_bytes()).unwrap();
        stream.set_nonblocking(true).unwrap();
        let by = Instant::now() + Duration::from_secs(10);
        while stream.read(&mut [0; 1024]).is_err() {
            assert!(Instant::now() < by, "no answer");
            shard.turn(Instant::now());
        }
        shard.turn(Instant::now());
        let index = (0..shard.table.slots()).rfind(|&index| shard.table[index].state == State::Open);
        (stream, index.expect("it is open"))
    }

    #[test]
    fn issue_6_who_is_counted_or_comes_by_a_proxy_is_sent_to_as_fast_as_others() {
        let mut config = Config::default();
        config.limits.connections_per_address = 2;
        config.network.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
        for (speaks_proxy, before) in [(false, ""), (true, "PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\n")] {
            let (mut shard, address) = shard(&config, speaks_proxy);
            let (stream, index) = open(&mut shard, address, before);
            let slot = &mut shard.table[index];
            assert!(slot.is(flag::COUNTED) && slot.rare.is_none(), "nothing of it is boxed");
            slot.set(flag::BEHIND);
            assert!(shard.outlook().is_plain(&shard.table[index]));
            assert_eq!((shard.gate.counted_addresses(), shard.addresses.count()), (1, 1));
            // Reset: the socket does not know its peer any more.
            rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
            drop(stream);
            let by = Instant::now() + Duration::from_secs(10);
            while shard.table.used() > 0 {
                assert!(Instant::now() < by, "it has not gone");
                shard.turn(Instant::now());
            }
            assert_eq!((shard.gate.counted_addresses(), shard.addresses.count()), (0, 0));
        }
    }

    #[test]
    fn issue_6_without_a_limit_or_a_proxy_nothing_is_kept_of_an_address() {
        let (mut shard, address) = shard(&Config::default(), false);
        let (_stream, index) = open(&mut shard, address, "");
        assert_eq!((shard.addresses.of(index), shard.gate.counted_addresses()), (None, 0));
        assert!(shard.remote(index).starts_with("127.0.0.1:"));
    }
}
