//! What a number of connections takes of a host: arithmetic only, on measured costs.

use std::time::Duration;

/// Descriptors kept for everything that is not a client: at least this many, or a hundredth.
const DESCRIPTORS_RESERVED_MIN: u64 = 256;
/// Files that the rest of the host may have open, and connections of others that it may track.
const ELSEWHERE: u64 = 65_536;

/// User memory of one idle connection, in bytes: the limit that `bench/run --check` keeps (README,
/// "Figures").
pub const USER_BYTES: u64 = 160;
/// Kernel memory of one idle connection, in bytes: socket, inode, dentry, descriptor and poll, with the slack
/// of half-empty slabs. `corecast check --prove` measures it on this very host.
pub const KERNEL_BYTES: u64 = 4_300;
/// The gateway without clients, in bytes: measured 16 MB for two shards.
const PROGRAM_BYTES: u64 = 32 << 20;

/// What is to be held, and by a gateway that is configured how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// Clients at once.
    pub connections: u64,
    /// Shards, each with a thread of its own.
    pub shards: u64,
    /// `history.bytes`: what each shard may keep of messages.
    pub history_bytes: u64,
    /// `limits.socket_send_bytes`: what is asked of the kernel as SO_SNDBUF.
    pub socket_send_bytes: u64,
    /// `timeouts.drain`: over how long a restart spreads the clients' return.
    pub drain: Duration,
}

impl Need {
    /// The same for another number of connections.
    pub fn with_connections(self, connections: u64) -> Self {
        Self { connections, ..self }
    }

    /// RLIMIT_NOFILE that leaves room for the clients after the reserve.
    pub fn descriptors(&self) -> u64 {
        descriptors(self.connections)
    }

    /// Files that the whole host may have open.
    pub fn files(&self) -> u64 {
        self.descriptors() + ELSEWHERE
    }

    /// Connections that may wait to be accepted: one second of the return that a drain spreads, all at one
    /// listener. SO_REUSEPORT divides them over the shards, but by chance.
    pub fn backlog(&self) -> u64 {
        self.connections.div_ceil(self.drain_s())
    }

    /// As many clients as `backlog` would be right for.
    pub fn clients_of_backlog(&self, backlog: u64) -> u64 {
        backlog.saturating_mul(self.drain_s())
    }

    fn drain_s(&self) -> u64 {
        self.drain.as_secs().max(1)
    }

    /// Pages that TCP may have in buffers: below, above and beyond pressure. One page for each connection
    /// while a small message to all is under way (measured; see tuning/99-corecast.conf), and the kernel's
    /// own ratio of the three (net/ipv4/tcp.c `tcp_init_mem`).
    pub fn tcp_pages(&self) -> [u64; 3] {
        let pressure = self.connections;
        [(pressure * 3).div_ceil(4), pressure, (pressure * 3).div_ceil(2)]
    }

    /// Connections that the firewall must be able to track.
    pub fn tracked(&self) -> u64 {
        self.connections + ELSEWHERE
    }

    /// Memory of kernel and gateway with all clients idle and the history full.
    pub fn memory_bytes(&self) -> u64 {
        self.fixed_bytes() + self.connections * (USER_BYTES + KERNEL_BYTES)
    }

    /// As many clients as fit into `bytes`.
    pub fn clients_of_memory(&self, bytes: u64) -> u64 {
        bytes.saturating_sub(self.fixed_bytes()) / (USER_BYTES + KERNEL_BYTES)
    }

    fn fixed_bytes(&self) -> u64 {
        PROGRAM_BYTES + self.shards.saturating_mul(self.history_bytes)
    }

    /// Threads: two for each executor (shards and control), main, signals and memory. Counted in /proc.
    pub fn threads(&self) -> u64 {
        2 * (self.shards + 1) + 3
    }
}

/// Descriptors that a gateway with this limit keeps for everything that is not a client.
pub fn descriptors_reserved(limit: u64) -> u64 {
    DESCRIPTORS_RESERVED_MIN.max(limit / 100)
}

/// Descriptors that the gateway itself has open, each client of the control socket included: counted in /proc,
/// 8 for a shard with one listener and 16 for the rest, and as many again of both for what opens files for a while.
pub fn descriptors_of_gateway(shards: u64, listeners_per_shard: u64, control_clients: u64) -> u64 {
    let for_shards = shards.saturating_mul(7 + listeners_per_shard.max(1));
    for_shards + control_clients + 32
}

/// The least descriptor limit that leaves room for `clients`.
pub fn descriptors(clients: u64) -> u64 {
    // A hundredth of the limit itself, not of the clients; the division may leave it short by a few.
    let about = (clients + DESCRIPTORS_RESERVED_MIN).max(clients / 99 * 100);
    (about..).find(|&limit| clients_of(limit) >= clients).unwrap_or(u64::MAX)
}

/// Clients that a descriptor limit leaves room for.
pub fn clients_of(limit: u64) -> u64 {
    limit.saturating_sub(descriptors_reserved(limit))
}

/// Clients that the host's limit on files leaves room for.
pub fn clients_of_files(limit: u64) -> u64 {
    clients_of(limit.saturating_sub(ELSEWHERE))
}

/// Clients that these three limits of TCP's buffers are enough for.
pub fn clients_of_tcp_pages([low, pressure, high]: [u64; 3]) -> u64 {
    (low.saturating_mul(4) / 3).min(pressure).min(high.saturating_mul(2) / 3)
}

/// Clients that fit into the firewall's table.
pub fn clients_of_tracked(limit: u64) -> u64 {
    limit.saturating_sub(ELSEWHERE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEED: Need = Need {
        connections: 1_000_000,
        shards: 2,
        history_bytes: 64 << 20,
        socket_send_bytes: 32 << 10,
        drain: Duration::from_secs(30),
    };

    #[test]
    fn contract_2_the_reserve_is_256_descriptors_or_a_hundredth() {
        assert_eq!((clients_of(256), clients_of(257), clients_of(20_000)), (0, 1, 19_744));
        assert_eq!(clients_of(1 << 20), 1_038_091);
        assert_eq!(NEED.descriptors(), 1_010_101);
    }

    #[test]
    fn each_need_is_the_least_that_is_enough_for_as_many() {
        for connections in [1, 100, 19_744, 19_745, 25_344, 25_345, 1_000_000, 5_000_001] {
            let need = NEED.with_connections(connections);
            let enough = |fits: u64, just_below: u64| {
                assert!(fits >= connections, "{fits} for {connections}");
                assert!(just_below < connections, "one less is enough too: {just_below} for {connections}");
            };
            enough(clients_of(need.descriptors()), clients_of(need.descriptors() - 1));
            enough(clients_of_files(need.files()), clients_of_files(need.files() - 1));
            enough(need.clients_of_backlog(need.backlog()), need.clients_of_backlog(need.backlog() - 1));
            let pages = need.tcp_pages();
            for index in 0..3 {
                let mut less = pages;
                less[index] -= 1;
                enough(clients_of_tcp_pages(pages), clients_of_tcp_pages(less));
            }
            enough(clients_of_tracked(need.tracked()), clients_of_tracked(need.tracked() - 1));
            let bytes = need.memory_bytes();
            enough(need.clients_of_memory(bytes), need.clients_of_memory(bytes - 1));
        }
    }

    #[test]
    fn without_a_limit_there_is_room_for_any_number() {
        assert!(clients_of(u64::MAX) > 1 << 60);
        assert!(clients_of_files(i64::MAX as u64) > 1 << 60);
        assert_eq!(NEED.clients_of_backlog(u64::MAX), u64::MAX);
    }

    #[test]
    fn a_drain_of_less_than_a_second_is_one_second() {
        let need = Need { drain: Duration::from_millis(1), ..NEED };
        assert_eq!(need.backlog(), 1_000_000);
    }
}
