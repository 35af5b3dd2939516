//! What the host gives against what is needed: one finding a limit, and the first that is hit.
//!
//! Arithmetic on `Facts` and `Need`; reads nothing. A fact that could not be read is `Unknown`, which is said
//! and is no failure.

use serde::{Serialize, Serializer};

use super::facts::{Conntrack, Facts};
use super::need::{self, Need};
use crate::fatal::{KERNEL_MIN, MEMLOCK_BYTES_MIN, kernel_at_least};

/// Whether there is as much as is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// There is.
    Enough,
    /// There is not.
    TooLittle,
    /// The value could not be read.
    Unknown,
}

/// How much of something. Serialized as a number, three numbers or a text; no limit and unknown as null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Amount {
    /// Counted: descriptors, connections, pages, threads. `u64::MAX` is no limit.
    Count(u64),
    /// Bytes. `u64::MAX` is no limit.
    Bytes(u64),
    /// The three numbers of `tcp_mem` (pages).
    Three([u64; 3]),
    /// What is no number.
    Text(String),
    /// Could not be read, or nothing is needed.
    None,
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(u64::MAX) | Self::Bytes(u64::MAX) | Self::None => serializer.serialize_none(),
            Self::Count(count) | Self::Bytes(count) => serializer.serialize_u64(*count),
            Self::Three(numbers) => numbers.serialize(serializer),
            Self::Text(text) => serializer.serialize_str(text),
        }
    }
}

/// One limit, looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its name, as operators search for it: `fs.nr_open`.
    pub name: &'static str,
    /// What the host has.
    pub value: Amount,
    /// The least that is enough.
    pub needed: Amount,
    /// Whether it is.
    pub verdict: Verdict,
    /// As many connections as it lets in; null where that does not depend on it, or is unknown.
    #[serde(serialize_with = "unless_unlimited")]
    pub connections_max: Option<u64>,
    /// What it limits, and what more there is to know.
    pub note: String,
    /// What to type where it is too little.
    pub fix: String,
}

fn unless_unlimited<S: Serializer>(value: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    value.filter(|&connections| connections < u64::MAX).serialize(serializer)
}

/// All limits, in the order in which a gateway meets them: start, descriptors, network, memory, threads.
pub fn findings(need: &Need, facts: &Facts) -> Vec<Finding> {
    let mut findings = start(facts);
    findings.extend(descriptors(need, facts));
    findings.extend(network(need, facts));
    findings.extend(memory(need, facts));
    findings.extend(processors(need, facts));
    for finding in &mut findings {
        finding.verdict = match finding.connections_max {
            None => Verdict::Unknown,
            Some(fits) if fits >= need.connections => Verdict::Enough,
            Some(_) => Verdict::TooLittle,
        };
        if finding.verdict != Verdict::TooLittle {
            finding.fix.clear();
        }
    }
    findings
}

/// The limit that the fewest connections hit, of those that depend on their number or keep all out.
pub fn first_limit(findings: &[Finding]) -> Option<&Finding> {
    let limited =
        findings.iter().filter(|finding| finding.connections_max.is_some_and(|fits| fits < u64::MAX));
    limited.min_by_key(|finding| finding.connections_max)
}

/// `fits` is how many connections the value lets in; `None` where there is no value.
fn finding(name: &'static str, value: Amount, needed: Amount, fits: Option<u64>) -> Finding {
    Finding {
        name,
        value,
        needed,
        verdict: Verdict::Unknown,
        connections_max: fits,
        note: String::new(),
        fix: String::new(),
    }
}

impl Finding {
    fn because(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    fn mended_by(mut self, fix: impl Into<String>) -> Self {
        self.fix = fix.into();
        self
    }
}

/// How many connections `value` lets in, by `of`; any number where it is no limit.
fn fits(value: Option<u64>, of: impl Fn(u64) -> u64) -> Option<u64> {
    // systemd writes the largest signed number for none.
    value.map(|limit| if limit >= i64::MAX as u64 { u64::MAX } else { of(limit) })
}

/// Any number of connections, or none at all.
fn all_or_none(is_enough: bool) -> u64 {
    if is_enough { u64::MAX } else { 0 }
}

fn count(value: Option<u64>) -> Amount {
    value.map_or(Amount::None, Amount::Count)
}

fn bytes(value: Option<u64>) -> Amount {
    value.map_or(Amount::None, Amount::Bytes)
}

fn three(value: Option<[u64; 3]>) -> Amount {
    value.map_or(Amount::None, Amount::Three)
}

fn text(value: Option<&str>) -> Amount {
    value.map_or(Amount::None, |value| Amount::Text(value.to_owned()))
}

/// What keeps a gateway from starting at all, whatever the number of connections.
fn start(facts: &Facts) -> Vec<Finding> {
    let (major, minor) = KERNEL_MIN;
    let release = facts.kernel.as_deref();
    let kernel = finding(
        "kernel",
        text(release),
        Amount::Text(format!("{major}.{minor}")),
        release.map(|release| all_or_none(kernel_at_least(release, KERNEL_MIN))),
    );
    let (answer, note, hint) = match &facts.io_uring {
        Ok(()) => ("allowed", "a ring was made".to_owned(), String::new()),
        Err(refusal) => ("refused", format!("{}; {}", refusal.what, refusal.cause), refusal.hint.clone()),
    };
    let io_uring = finding(
        "io_uring",
        text(Some(answer)),
        text(Some("allowed")),
        Some(all_or_none(facts.io_uring.is_ok())),
    );
    let memlock = facts.memlock_bytes.map(|limit| limit.soft);
    let memlock = finding(
        "RLIMIT_MEMLOCK",
        bytes(memlock),
        Amount::Bytes(MEMLOCK_BYTES_MIN),
        memlock.map(|soft| all_or_none(soft >= MEMLOCK_BYTES_MIN)),
    );
    vec![
        kernel
            .because("batched io_uring (DEFER_TASKRUN) came with 6.1")
            .mended_by("boot a newer kernel: Debian 12, Ubuntu 24.04 and RHEL 10 have one"),
        io_uring.because(note).mended_by(hint),
        memlock
            .because("of the process, not of the host; it does not grow with the connections")
            .mended_by("LimitMEMLOCK=8M in the systemd unit, or ulimit -l 8192"),
    ]
}

fn descriptors(need: &Need, facts: &Facts) -> Vec<Finding> {
    let needed = need.descriptors();
    let hard = facts.nofile.map(|limit| limit.hard);
    let nofile_note = match facts.nofile {
        Some(limit) if limit.soft < limit.hard => {
            format!("the hard limit; the gateway raises its soft one, {}, by itself", limit.soft)
        }
        _ => "one for each client, and a reserve of 256 or a hundredth".to_owned(),
    };
    let nofile = finding("RLIMIT_NOFILE", count(hard), Amount::Count(needed), fits(hard, need::clients_of));
    let nr_open = finding(
        "fs.nr_open",
        count(facts.nr_open),
        Amount::Count(needed),
        fits(facts.nr_open, need::clients_of),
    );
    let file_max = finding(
        "fs.file-max",
        count(facts.file_max),
        Amount::Count(need.files()),
        fits(facts.file_max, need::clients_of_files),
    );
    let open = facts.files_open.map_or("an unknown number".to_owned(), |open| open.to_string());
    vec![
        nofile
            .because(nofile_note)
            .mended_by(format!("LimitNOFILE={needed} in the systemd unit, or ulimit -n {needed} as root")),
        nr_open.because("the most that RLIMIT_NOFILE can be").mended_by(tune(
            need,
            "fs.nr_open",
            &needed.to_string(),
        )),
        file_max.because(format!("of the whole host; {open} are open now")).mended_by(tune(
            need,
            "fs.file-max",
            &need.files().to_string(),
        )),
    ]
}

/// What to type for a kernel setting.
fn tune(need: &Need, key: &str, value: &str) -> String {
    format!("corecast tune --connections {} --apply, or sysctl -w '{key}={value}'", need.connections)
}

fn network(need: &Need, facts: &Facts) -> Vec<Finding> {
    let backlog = need.backlog();
    let somaxconn = finding(
        "net.core.somaxconn",
        count(facts.somaxconn),
        Amount::Count(backlog),
        fits(facts.somaxconn, |somaxconn| need.clients_of_backlog(somaxconn)),
    );
    let pages = need.tcp_pages();
    let [low, pressure, high] = pages;
    let tcp_mem = finding(
        "net.ipv4.tcp_mem",
        three(facts.tcp_mem_pages),
        Amount::Three(pages),
        facts.tcp_mem_pages.map(need::clients_of_tcp_pages),
    );
    let now = facts.tcp_pages_now.map_or("an unknown number".to_owned(), |pages| pages.to_string());
    let mut findings = vec![
        somaxconn
            .because("the backlog that each shard asks for at start: one second of the return after a drain")
            .mended_by(tune(need, "net.core.somaxconn", &backlog.to_string()) + "; then restart the gateway"),
        tcp_mem
            .because(format!(
                "pages of all TCP buffers, one a connection while a push to all is under way; {now} now"
            ))
            .mended_by(tune(need, "net.ipv4.tcp_mem", &format!("{low} {pressure} {high}"))),
        least_buffer("net.ipv4.tcp_rmem", "receive", facts.tcp_rmem_bytes),
        least_buffer("net.ipv4.tcp_wmem", "send", facts.tcp_wmem_bytes),
    ];
    let wmem_max = finding(
        "net.core.wmem_max",
        bytes(facts.wmem_max_bytes),
        Amount::Bytes(need.socket_send_bytes),
        facts.wmem_max_bytes.map(|most| all_or_none(most >= need.socket_send_bytes)),
    );
    findings.push(wmem_max.because("the kernel cuts limits.socket_send_bytes down to it").mended_by(tune(
        need,
        "net.core.wmem_max",
        &need.socket_send_bytes.to_string(),
    )));
    findings.push(conntrack(need, facts.conntrack));
    findings
}

/// The first of the three is what a connection is granted even under memory pressure; the others bound single
/// connections and are no matter of how many there are. `limits.socket_send_bytes` replaces the second of
/// `tcp_wmem`.
fn least_buffer(name: &'static str, direction: &str, value: Option<[u64; 3]>) -> Finding {
    const LEAST_BYTES: u64 = 4096;
    finding(
        name,
        three(value),
        Amount::Text(format!("{LEAST_BYTES} first")),
        value.map(|[least, ..]| all_or_none(least >= LEAST_BYTES)),
    )
    .because(format!("bytes; the first is what each may {direction} even under memory pressure"))
    .mended_by(match value {
        Some([_, default, most]) => format!("sysctl -w '{name}={LEAST_BYTES} {default} {most}'"),
        None => String::new(),
    })
}

fn conntrack(need: &Need, conntrack: Conntrack) -> Finding {
    const NAME: &str = "nf_conntrack_max";
    let (max, count_now) = match conntrack {
        Conntrack::NotLoaded => {
            return finding(NAME, text(Some("not loaded")), Amount::None, Some(u64::MAX))
                .because("the firewall tracks no connections");
        }
        Conntrack::Loaded { max, count } => (max, count),
    };
    let now = count_now.map_or("an unknown number".to_owned(), |count| count.to_string());
    finding(NAME, count(max), Amount::Count(need.tracked()), fits(max, need::clients_of_tracked))
        .because(format!("the firewall drops new connections beyond it; {now} are tracked now"))
        .mended_by(
            tune(need, "net.netfilter.nf_conntrack_max", &need.tracked().to_string())
                + "; or notrack for the client port",
        )
}

fn memory(need: &Need, facts: &Facts) -> Vec<Finding> {
    let needed = need.memory_bytes();
    let each = need::USER_BYTES + need::KERNEL_BYTES;
    let available = facts.memory_available_bytes;
    let room = |name, value: Option<u64>| {
        finding(name, bytes(value), Amount::Bytes(needed), fits(value, |bytes| need.clients_of_memory(bytes)))
    };
    let cgroup = |limit: fn(&super::cgroup::CgroupLimits) -> u64| facts.cgroup.as_ref().map(limit);
    let mebibytes = needed.div_ceil(1 << 20);
    let fewer = available.map_or(0, |bytes| need.clients_of_memory(bytes));
    vec![
        room("memory", available)
            .because(format!("available now; {each} bytes for each idle connection, and the history"))
            .mended_by(format!("a host with more memory, or limits.connections={fewer}")),
        room("cgroup memory.max", cgroup(|limits| limits.memory_max_bytes))
            .because("beyond it the gateway is killed; sockets and buffers in the kernel count too")
            .mended_by(format!(
                "MemoryMax={mebibytes}M in the systemd unit, docker run --memory {mebibytes}m, or \
                 resources.limits.memory {mebibytes}Mi in Kubernetes"
            )),
        room("cgroup memory.high", cgroup(|limits| limits.memory_high_bytes))
            .because("beyond it the gateway is slowed down")
            .mended_by(format!("MemoryHigh={mebibytes}M in the systemd unit")),
    ]
}

fn processors(need: &Need, facts: &Facts) -> Vec<Finding> {
    let pids = facts.cgroup.as_ref().map(|limits| limits.pids_max);
    let threads = need.threads();
    let siblings = match (facts.cores, facts.cpus_online) {
        (Some(cores), Some(cpus)) if cores < cpus => {
            format!("{cpus} processors on {cores} cores: siblings share one")
        }
        (Some(_), Some(cpus)) => format!("of {cpus}, each a core of its own"),
        _ => "cores and siblings are unknown".to_owned(),
    };
    let container = match facts.container {
        Some("kubernetes") => {
            "sysctls and nofile come from outside: the pod's sysctls, the runtime's LimitNOFILE"
        }
        Some(_) => "sysctls and nofile come from outside: docker run --sysctl, --ulimit nofile=N",
        None => "sysctls are this host's own",
    };
    vec![
        finding(
            "cgroup pids.max",
            count(pids),
            Amount::Count(threads),
            pids.map(|most| all_or_none(most >= threads)),
        )
        .because("threads: two for each shard, four more")
        .mended_by(format!(
            "TasksMax={threads} in the systemd unit, docker run --pids-limit {threads}, or podPidsLimit of the \
             kubelet"
        )),
        finding(
            "processors",
            count(facts.cpus),
            Amount::Count(1),
            facts.cpus.map(|cpus| all_or_none(cpus > 0)),
        )
        .because(format!("one shard on each; {siblings}")),
        finding("container", text(Some(facts.container.unwrap_or("none"))), Amount::None, Some(u64::MAX))
            .because(container),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fatal::Explanation;
    use crate::host::cgroup::CgroupLimits;
    use crate::host::facts::ResourceLimit;
    use std::time::Duration;

    const NEED: Need = Need {
        connections: 100_000,
        shards: 4,
        history_bytes: 64 << 20,
        socket_send_bytes: 32 << 10,
        drain: Duration::from_secs(30),
    };

    /// A host that has just what `NEED` needs.
    fn just_enough() -> Facts {
        let limit = |limit| Some(ResourceLimit { soft: limit, hard: limit });
        Facts {
            kernel: Some("6.1.0-28-amd64".to_owned()),
            io_uring: Ok(()),
            memlock_bytes: limit(MEMLOCK_BYTES_MIN),
            nofile: limit(NEED.descriptors()),
            nr_open: Some(NEED.descriptors()),
            file_max: Some(NEED.files()),
            files_open: Some(1000),
            somaxconn: Some(NEED.backlog()),
            tcp_mem_pages: Some(NEED.tcp_pages()),
            tcp_pages_now: Some(3),
            tcp_rmem_bytes: Some([4096, 131_072, 6 << 20]),
            tcp_wmem_bytes: Some([4096, 16_384, 4 << 20]),
            wmem_max_bytes: Some(NEED.socket_send_bytes),
            conntrack: Conntrack::Loaded { max: Some(NEED.tracked()), count: Some(7) },
            memory_available_bytes: Some(NEED.memory_bytes()),
            cgroup: Some(CgroupLimits {
                memory_max_bytes: NEED.memory_bytes(),
                memory_high_bytes: NEED.memory_bytes(),
                pids_max: NEED.threads(),
            }),
            cpus: Some(4),
            cores: Some(2),
            cpus_online: Some(4),
            container: None,
        }
    }

    /// Names of findings with this verdict, on `just_enough` after `change`.
    fn with(verdict: Verdict, change: impl FnOnce(&mut Facts)) -> Vec<&'static str> {
        let mut facts = just_enough();
        change(&mut facts);
        let findings = findings(&NEED, &facts);
        findings.iter().filter(|finding| finding.verdict == verdict).map(|finding| finding.name).collect()
    }

    fn too_little(change: impl FnOnce(&mut Facts)) -> Vec<&'static str> {
        with(Verdict::TooLittle, change)
    }

    #[test]
    fn just_enough_of_everything_is_enough() {
        assert_eq!(too_little(|_| ()), Vec::<&str>::new());
        assert_eq!(with(Verdict::Unknown, |_| ()), Vec::<&str>::new());
    }

    fn less(limit: u64) -> Option<ResourceLimit> {
        Some(ResourceLimit { soft: limit - 1, hard: limit - 1 })
    }

    /// A finding's name, and what leaves too little for it.
    type Case = (&'static str, Box<dyn FnOnce(&mut Facts)>);

    #[test]
    fn one_less_of_anything_is_too_little_of_just_that() {
        let cases: [Case; 13] = [
            ("kernel", Box::new(|facts| facts.kernel = Some("6.0.19".to_owned()))),
            ("RLIMIT_MEMLOCK", Box::new(|facts| facts.memlock_bytes = less(MEMLOCK_BYTES_MIN))),
            ("RLIMIT_NOFILE", Box::new(|facts| facts.nofile = less(NEED.descriptors()))),
            ("fs.nr_open", Box::new(|facts| facts.nr_open = Some(NEED.descriptors() - 1))),
            ("fs.file-max", Box::new(|facts| facts.file_max = Some(NEED.files() - 1))),
            ("net.core.somaxconn", Box::new(|facts| facts.somaxconn = Some(NEED.backlog() - 1))),
            ("net.ipv4.tcp_rmem", Box::new(|facts| facts.tcp_rmem_bytes = Some([4095, 8192, 8192]))),
            ("net.ipv4.tcp_wmem", Box::new(|facts| facts.tcp_wmem_bytes = Some([4095, 8192, 8192]))),
            ("net.core.wmem_max", Box::new(|facts| facts.wmem_max_bytes = Some(NEED.socket_send_bytes - 1))),
            ("nf_conntrack_max", Box::new(|facts| facts.conntrack = tracking(Some(NEED.tracked() - 1)))),
            ("memory", Box::new(|facts| facts.memory_available_bytes = Some(NEED.memory_bytes() - 1))),
            ("cgroup pids.max", Box::new(|facts| cgroup(facts).pids_max -= 1)),
            ("cgroup memory.high", Box::new(|facts| cgroup(facts).memory_high_bytes -= 1)),
        ];
        for (name, change) in cases {
            assert_eq!(too_little(change), [name]);
        }
        assert_eq!(too_little(|facts| cgroup(facts).memory_max_bytes -= 1), ["cgroup memory.max"]);
        for index in 0..3 {
            let pages = |facts: &mut Facts| facts.tcp_mem_pages.as_mut().unwrap()[index] -= 1;
            assert_eq!(too_little(pages), ["net.ipv4.tcp_mem"], "{index}");
        }
    }

    fn cgroup(facts: &mut Facts) -> &mut CgroupLimits {
        facts.cgroup.as_mut().unwrap()
    }

    fn tracking(max: Option<u64>) -> Conntrack {
        Conntrack::Loaded { max, count: None }
    }

    #[test]
    fn what_cannot_be_read_is_unknown_and_no_failure() {
        let blind = |facts: &mut Facts| {
            *facts = Facts {
                kernel: None,
                io_uring: Ok(()),
                memlock_bytes: None,
                nofile: None,
                nr_open: None,
                file_max: None,
                files_open: None,
                somaxconn: None,
                tcp_mem_pages: None,
                tcp_pages_now: None,
                tcp_rmem_bytes: None,
                tcp_wmem_bytes: None,
                wmem_max_bytes: None,
                conntrack: tracking(None),
                memory_available_bytes: None,
                cgroup: None,
                cpus: None,
                cores: None,
                cpus_online: None,
                container: None,
            };
        };
        assert_eq!(too_little(blind), Vec::<&str>::new());
        let known = with(Verdict::Enough, blind);
        assert_eq!(known, ["io_uring", "container"]);
        assert_eq!(with(Verdict::Unknown, blind).len(), 16);
    }

    #[test]
    fn a_firewall_that_tracks_nothing_limits_nothing() {
        assert_eq!(too_little(|facts| facts.conntrack = Conntrack::NotLoaded), Vec::<&str>::new());
    }

    #[test]
    fn a_refused_io_uring_keeps_everybody_out_and_says_what_start_would_say() {
        let mut facts = just_enough();
        facts.io_uring = Err(Explanation {
            what: "io_uring_setup was refused (EPERM)".to_owned(),
            cause: "kernel.io_uring_disabled is 2 on this host".to_owned(),
            hint: "sysctl -w kernel.io_uring_disabled=0".to_owned(),
        });
        let findings = findings(&NEED, &facts);
        let first = first_limit(&findings).unwrap();
        assert_eq!((first.name, first.connections_max), ("io_uring", Some(0)));
        assert!(
            first.note.contains("io_uring_disabled is 2") && first.fix.contains("sysctl -w"),
            "{first:?}"
        );
    }

    #[test]
    fn the_first_limit_is_the_one_that_the_fewest_connections_hit() {
        let mut facts = just_enough();
        facts.somaxconn = Some(128);
        facts.nofile = Some(ResourceLimit { soft: 1024, hard: 4096 });
        let findings = findings(&NEED, &facts);
        let first = first_limit(&findings).unwrap();
        // 128 waiting are right for 3,840 clients, 4,096 descriptors for as many less 256: the first of the
        // two.
        assert_eq!((first.name, first.connections_max), ("RLIMIT_NOFILE", Some(3840)));
        assert!(first.fix.contains("LimitNOFILE=101010"), "{}", first.fix);
    }

    #[test]
    fn the_hard_limit_counts_because_the_gateway_raises_its_soft_one() {
        let hard = Some(ResourceLimit { soft: 1024, hard: NEED.descriptors() });
        assert_eq!(too_little(|facts| facts.nofile = hard), Vec::<&str>::new());
    }

    #[test]
    fn only_what_is_too_little_has_something_to_type() {
        let mut facts = just_enough();
        facts.somaxconn = Some(1);
        for finding in findings(&NEED, &facts) {
            assert_eq!(finding.fix.is_empty(), finding.verdict != Verdict::TooLittle, "{finding:?}");
            assert!(!finding.note.is_empty(), "{finding:?}");
        }
    }

    #[test]
    fn as_json_numbers_are_numbers_and_no_limit_is_null() {
        let mut facts = just_enough();
        cgroup(&mut facts).memory_max_bytes = u64::MAX;
        let value = serde_json::to_value(findings(&NEED, &facts)).unwrap();
        let of = |name: &str| {
            let mut findings = value.as_array().unwrap().iter();
            findings.find(|finding| finding["name"] == name).unwrap().clone()
        };
        assert_eq!(of("fs.nr_open")["needed"], NEED.descriptors());
        assert_eq!(of("fs.nr_open")["verdict"], "enough");
        assert_eq!(of("net.ipv4.tcp_mem")["value"], serde_json::json!([75_000, 100_000, 150_000]));
        assert!(of("cgroup memory.max")["value"].is_null());
        assert!(of("cgroup memory.max")["connections_max"].is_null());
        assert_eq!(of("memory")["connections_max"], 100_000);
    }
}
