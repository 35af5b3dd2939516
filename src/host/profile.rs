//! The kernel settings that a number of connections needs, as a file for sysctl.d.
//!
//! Only ever raises: a host that has enough of something keeps what it has, and the file says so. So the text
//! depends on the need and on the values before, and on nothing else: writing it twice changes nothing.
//! tuning/99-corecast.conf is this file for a million connections on a Debian 12 host with 12 GiB.

use super::need::Need;

/// Where the file goes.
pub const FILE_NAME: &str = "99-corecast.conf";

/// What is known of a kernel setting that the gateway depends on.
struct Known {
    key: &'static str,
    needed: fn(&Need) -> Vec<u64>,
    unit: &'static str,
    /// Why it must be so, in lines of a comment.
    why: &'static [&'static str],
    costs: &'static [&'static str],
}

/// `kernel.io_uring_disabled` is not among them: it is the one that must be low.
const KNOWN: [Known; 6] = [
    Known {
        key: "fs.nr_open",
        needed: |need| vec![need.descriptors()],
        unit: "descriptors of one process",
        why: &[
            "The most that RLIMIT_NOFILE (LimitNOFILE in the unit) can be set to. Each client takes one",
            "descriptor; the gateway keeps a hundredth for everything else.",
        ],
        costs: &[
            "nothing until used: 8 bytes for each descriptor of the process's table, which grows by doubling.",
        ],
    },
    Known {
        key: "fs.file-max",
        needed: |need| vec![need.files()],
        unit: "open files of the whole host",
        why: &[
            "Each client is one, and 65,536 are left to everybody else. systemd 240 and newer may set it to",
            "the largest number there is, as it does on Debian 12: then this is left alone.",
        ],
        costs: &[
            "nothing until used. It no longer stops a program that leaks files before its own limit does.",
        ],
    },
    Known {
        key: "net.core.somaxconn",
        needed: |need| vec![need.backlog()],
        unit: "connections that wait to be accepted, at one listener",
        why: &[
            "The gateway asks listen() for just as many, once for each shard, when it starts: restart it after a",
            "change. Enough for one second of the return that a drain spreads over timeouts.drain. Beyond it the",
            "kernel drops the SYN or the last ACK, and it is sent again a second later (ListenOverflows in nstat).",
            "It bounds the half-open connections too.",
        ],
        costs: &["one socket (about 4 KB) for each that waits, until it is accepted."],
    },
    Known {
        key: "net.ipv4.tcp_mem",
        needed: |need| need.tcp_pages().to_vec(),
        unit: "pages (4 KiB on most hosts) of all TCP buffers",
        why: &[
            "Below the first there is no memory pressure, above the second there is, the third is the most.",
            "An idle connection has none. A message of 256 bytes is charged one page for each connection that",
            "it is under way to, from send to ACK, one of 4,000 bytes two (measured, Linux 6.12). So a push to all",
            "needs a page for each. Beyond the third number messages go in pieces of 4 KB (the first of tcp_wmem),",
            "a round trip each. 3/4 of a page for each of 1,000 clients 400 ms away, against plenty: all had 16 KB",
            "after 10.0 s against 1.9 s, 999 had 60 KB after 28.6 s against 3.3 s; all had 256 bytes after 2.5 s against",
            "2.0 s. All other TCP on the host suffers the same. The default is about a sixteenth of memory.",
        ],
        costs: &[
            "no memory by itself, it is a limit. But so much may be in buffers, where nothing can reclaim it: 6 KB",
            "for each connection. limits.socket_send_bytes bounds a single one.",
        ],
    },
    Known {
        key: "net.core.wmem_max",
        needed: |need| vec![need.socket_send_bytes],
        unit: "bytes",
        why: &["The kernel cuts SO_SNDBUF, which is limits.socket_send_bytes, down to it without saying so."],
        costs: &["nothing: it only allows programs to ask for more."],
    },
    Known {
        key: "net.netfilter.nf_conntrack_max",
        needed: |need| vec![need.tracked()],
        unit: "connections that the firewall tracks",
        why: &[
            "Only where nf_conntrack is loaded. A full table drops new connections (\"nf_conntrack: table full,",
            "dropping packet\" in the kernel's log). Better than a large table: a rule with notrack for the client",
            "port. At boot it takes effect only if the module is loaded by then: name nf_conntrack in",
            "/etc/modules-load.d/corecast.conf. The hash is not resized with it: options nf_conntrack hashsize=",
            "in /etc/modprobe.d.",
        ],
        costs: &["about 300 bytes for each connection that is tracked."],
    },
];

/// Settings that hosts are told to change and should not, as the end of the file says.
const LEFT_OUT: &str = "\
# Left out on purpose. What is named in many lists and does nothing here, or harm:
#
# net.ipv4.tcp_tw_recycle      gone since Linux 4.12. It refused clients behind one NAT.
# net.ipv4.tcp_tw_reuse        is about connections that this host opens. A gateway opens none.
# net.ipv4.ip_local_port_range the same. One port serves any number of clients; a load generator needs ports.
# net.ipv4.tcp_fin_timeout, tcp_max_tw_buckets, tcp_max_orphans
#                              bound what is left of closed connections. The defaults grow with memory, and
#                              beyond them the kernel only forgets or resets them sooner.
# net.ipv4.tcp_max_syn_backlog is read only where net.ipv4.tcp_syncookies is 0 (net/ipv4/tcp_input.c
#                              tcp_conn_request). With the default, 1, the backlog above bounds the queue.
# net.ipv4.tcp_syncookies = 0  takes away what keeps the port open in a SYN flood.
# net.core.netdev_max_backlog  is for RPS, loopback and virtual interfaces. Raise it when the second column of
#                              /proc/net/softnet_stat grows, not before.
# net.ipv4.tcp_rmem, tcp_wmem  bound one connection each and reserve nothing. The gateway sets SO_SNDBUF,
#                              which replaces tcp_wmem, and reads all that comes.
# net.core.rmem_max            bounds SO_RCVBUF, which the gateway does not set.
# net.ipv4.tcp_mem in the billions
#                              is no tuning but no limit: TCP may then take all memory of the host.
# net.ipv4.tcp_keepalive_*     the gateway has heartbeats of its own, and TCP_USER_TIMEOUT.
# net.ipv4.tcp_slow_start_after_idle
#                              the first 10 segments (14 KB) go at once either way.
# net.ipv4.tcp_timestamps, tcp_sack = 0
#                              save bytes and lose throughput on every path that loses packets.
# fs.epoll.max_user_watches    no connection is in an epoll set; io_uring has no such limit.
# vm.max_map_count, kernel.pid_max, kernel.threads-max
#                              a connection has no mapping, no process and no thread.
# vm.swappiness, vm.overcommit_memory
#                              sockets cannot be swapped out, and the gateway does not fork.
# /etc/security/limits.conf    is for logins (pam_limits). A service has LimitNOFILE in its unit.
# RLIMIT_MEMLOCK               is a limit of the process: LimitMEMLOCK in the unit. There is no sysctl.
";

/// One setting: what it was, and what is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// `net.core.somaxconn`
    pub key: &'static str,
    /// The value before anything was changed.
    pub before: Vec<u64>,
    /// The least that is enough; the most for `kernel.io_uring_disabled`.
    pub needed: Vec<u64>,
    /// The value to set; `None` where what it was is enough.
    pub change: Option<Vec<u64>>,
}

impl Setting {
    /// The value that the host has with the profile.
    pub fn target(&self) -> &[u64] {
        self.change.as_ref().unwrap_or(&self.before)
    }
}

/// The switch of io_uring: 0 allows it.
const IO_URING: &str = "kernel.io_uring_disabled";

/// Settings for `need` on a host where `before` gives the values of keys; those that the host does not have
/// are not among them.
pub fn settings(need: &Need, before: &dyn Fn(&str) -> Option<Vec<u64>>) -> Vec<Setting> {
    let mut settings = Vec::new();
    if let Some(before) = before(IO_URING) {
        let change = (before != [0]).then(|| vec![0]);
        settings.push(Setting { key: IO_URING, before, needed: vec![0], change });
    }
    for known in &KNOWN {
        let Some(before) = before(known.key) else { continue };
        let needed = (known.needed)(need);
        if before.len() != needed.len() {
            continue;
        }
        let raised: Vec<u64> = before.iter().zip(&needed).map(|(&have, &need)| have.max(need)).collect();
        let change = (raised != before).then_some(raised);
        settings.push(Setting { key: known.key, before, needed, change });
    }
    settings
}

/// As the kernel and sysctl.d write a value: numbers with spaces between.
pub fn written(value: &[u64]) -> String {
    let numbers: Vec<String> = value.iter().map(u64::to_string).collect();
    numbers.join(" ")
}

/// The file for `settings`, made for `need`.
pub fn render(need: &Need, settings: &[Setting]) -> String {
    let connections = need.connections;
    let mut text = format!(
        "# Kernel settings for a corecast gateway with {connections} connections.\n\
         #\n\
         # Made by `corecast tune --connections {connections}`; `corecast tune --undo` puts back what was before.\n\
         # `corecast check --connections {connections}` says what else is needed: LimitNOFILE, memory.\n\
         # Only what is too small is raised. A file that sorts after this one wins (/etc/sysctl.conf is\n\
         # 99-sysctl.conf on Debian).\n"
    );
    for setting in settings {
        text.push('\n');
        if setting.key == IO_URING {
            text += &io_uring(setting);
            continue;
        }
        let known = KNOWN.iter().find(|known| known.key == setting.key);
        text += &known.map_or_else(String::new, |known| explained(known, setting));
    }
    text + "\n" + LEFT_OUT
}

fn explained(known: &Known, setting: &Setting) -> String {
    let mut text = format!("# {}: {}.\n", known.key, known.unit);
    for line in known.why {
        text += &format!("# {line}\n");
    }
    for (index, line) in known.costs.iter().enumerate() {
        text += &format!("# {}{line}\n", if index == 0 { "Costs: " } else { "" });
    }
    text + &assignment(setting)
}

fn io_uring(setting: &Setting) -> String {
    let mut text = format!("# {IO_URING}: who may not use io_uring; 2 is nobody may.\n");
    text += "# The gateway does all its input and output with it, and does not start without.\n";
    text += "# Costs: opens a part of the kernel, in which holes were found, to all programs. Narrower: 1, and the\n";
    text += "# gateway's group in kernel.io_uring_group.\n";
    if setting.change.is_none() {
        return text + "# Left as it is: 0, allowed.\n";
    }
    text + &assignment(setting)
}

fn assignment(setting: &Setting) -> String {
    let before = written(&setting.before);
    match &setting.change {
        // The module may not be loaded yet at boot: `-` has that pass (sysctl.d(5)).
        Some(change) => {
            let dash = if setting.key.starts_with("net.netfilter.") { "-" } else { "" };
            format!("# Before: {before}.\n{dash}{} = {}\n", setting.key, written(change))
        }
        None => format!("# Left as it is: {before}, enough for {}.\n", written(&setting.needed)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const MILLION: Need = Need {
        connections: 1_000_000,
        shards: 2,
        history_bytes: 64 << 20,
        socket_send_bytes: 32 << 10,
        drain: Duration::from_secs(30),
    };

    /// A Debian 12 host with 12 GiB without a firewall (Linux 6.12, read in the guest).
    fn debian(key: &str) -> Option<Vec<u64>> {
        Some(match key {
            "kernel.io_uring_disabled" => vec![0],
            "fs.nr_open" => vec![1 << 20],
            "fs.file-max" => vec![i64::MAX as u64],
            "net.core.somaxconn" => vec![4096],
            "net.ipv4.tcp_mem" => vec![142_326, 189_768, 284_652],
            "net.core.wmem_max" => vec![212_992],
            _ => return None,
        })
    }

    fn changed(settings: &[Setting]) -> Vec<&str> {
        settings.iter().filter(|setting| setting.change.is_some()).map(|setting| setting.key).collect()
    }

    #[test]
    fn the_file_of_the_repository_is_that_for_a_million_on_debian_12_with_12_gib() {
        let text = render(&MILLION, &settings(&MILLION, &debian));
        let shipped = include_str!("../../tuning/99-corecast.conf");
        assert!(text == shipped, "tuning/99-corecast.conf must be:\n{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 110), "lines are 110 characters at most");
    }

    #[test]
    fn only_what_is_too_small_is_raised() {
        assert_eq!(changed(&settings(&MILLION, &debian)), ["net.core.somaxconn", "net.ipv4.tcp_mem"]);
        let small = MILLION.with_connections(1000);
        assert_eq!(changed(&settings(&small, &debian)), Vec::<&str>::new());
        let five = settings(&MILLION.with_connections(5_000_000), &debian);
        assert_eq!(changed(&five), ["fs.nr_open", "net.core.somaxconn", "net.ipv4.tcp_mem"]);
    }

    #[test]
    fn nothing_is_ever_lowered_not_even_one_number_of_three() {
        let before = |key: &str| match key {
            "net.ipv4.tcp_mem" => Some(vec![900_000, 900_000, 9_000_000]),
            _ => debian(key),
        };
        let settings = settings(&MILLION, &before);
        let tcp_mem = settings.iter().find(|setting| setting.key == "net.ipv4.tcp_mem").unwrap();
        assert_eq!(tcp_mem.change, Some(vec![900_000, 1_000_000, 9_000_000]));
    }

    #[test]
    fn io_uring_is_allowed_where_it_is_not_and_its_price_is_named() {
        let before = |key: &str| if key == IO_URING { Some(vec![2]) } else { debian(key) };
        let settings = settings(&MILLION, &before);
        assert!(changed(&settings).contains(&IO_URING));
        let text = render(&MILLION, &settings);
        assert!(text.contains("\n# Before: 2.\nkernel.io_uring_disabled = 0\n"), "{text}");
        assert!(text.contains("opens a part of the kernel"), "{text}");
    }

    #[test]
    fn conntrack_is_set_only_where_it_is_loaded_and_may_fail_at_boot() {
        let text = render(&MILLION, &settings(&MILLION, &debian));
        assert!(!text.contains("nf_conntrack_max ="), "{text}");
        let before = |key: &str| match key {
            "net.netfilter.nf_conntrack_max" => Some(vec![262_144]),
            _ => debian(key),
        };
        let text = render(&MILLION, &settings(&MILLION, &before));
        assert!(text.contains("\n-net.netfilter.nf_conntrack_max = 1065536\n"), "{text}");
    }

    #[test]
    fn a_key_that_the_host_does_not_have_or_has_otherwise_is_left_out() {
        assert_eq!(settings(&MILLION, &|_| None), []);
        let strange = |key: &str| (key == "net.ipv4.tcp_mem").then(|| vec![1]);
        assert_eq!(settings(&MILLION, &strange), []);
    }

    #[test]
    fn every_setting_says_its_unit_why_and_what_it_costs() {
        for known in &KNOWN {
            assert!(
                !known.unit.is_empty() && !known.why.is_empty() && !known.costs.is_empty(),
                "{}",
                known.key
            );
        }
    }
}
