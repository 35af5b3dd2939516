//! `corecast check`: what this host gives, what a number of connections needs, and what to type.

use std::io::Write;

use clap::Args;
use serde::Serialize;

use super::failure::Failure;
use super::prove::{Proof, prove};
use super::serve::ConfigFlags;
use super::table::{aligned, bytes_text, counted, grouped};
use super::{print_json, print_line};
use crate::config::Config;
use crate::host::facts::Facts;
use crate::host::findings::{Amount, Finding, Verdict, findings, first_limit};
use crate::host::need::{self, Need};

/// `corecast check`
#[derive(Debug, Args)]
pub(super) struct CheckFlags {
    #[command(flatten)]
    flags: ConfigFlags,
    /// For how many connections, instead of limits.connections, or where that is 0 what the descriptor limit
    /// leaves room for
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=u64::from(u32::MAX)))]
    connections: Option<u64>,
    /// Take descriptor limit, locked memory, cgroup and processors from this process, such as the running
    /// gateway, instead of from this session
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// Open this many loopback connections to a gateway started for it, and report what each costs
    #[arg(long, value_name = "N", conflicts_with_all = ["connections", "pid"])]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=u64::from(u32::MAX)))]
    prove: Option<u64>,
    /// Print JSON instead
    #[arg(long)]
    json: bool,
}

/// Everything that was found.
#[derive(Debug, Serialize)]
struct Report<'a> {
    connections: u64,
    enough: bool,
    first_limit: Option<FirstLimit>,
    findings: &'a [Finding],
}

/// The limit that is hit first, whether for this number of connections or for more.
#[derive(Debug, Serialize)]
struct FirstLimit {
    name: &'static str,
    connections_max: u64,
}

/// Looks at the host, or measures it. Errors: `Failure::TooLittle`, `Failure::Prove`.
pub(super) fn check(flags: &CheckFlags, out: &mut dyn Write) -> Result<(), Failure> {
    if let Some(connections) = flags.prove {
        let proof = prove(connections).map_err(Failure::Prove)?;
        return if flags.json { print_json(out, &proof) } else { print_line(out, &proof_text(&proof)) };
    }
    let config = flags.flags.load(None)?;
    if let Some(pid) = flags.pid {
        std::fs::metadata(format!("/proc/{pid}"))
            .map_err(|_| Failure::Usage(format!("--pid {pid}: there is no such process")))?;
    }
    let facts = Facts::read(flags.pid);
    let need = need_of(&config, flags.connections, &facts);
    let findings = findings(&need, &facts);
    let enough = findings.iter().all(|finding| finding.verdict != Verdict::TooLittle);
    let first = first_limit(&findings).map(|finding| FirstLimit {
        name: finding.name,
        connections_max: finding.connections_max.unwrap_or_default(),
    });
    let report = Report { connections: need.connections, enough, first_limit: first, findings: &findings };
    if flags.json {
        print_json(out, &report)?;
    } else {
        write!(out, "{}", report.text()).map_err(Failure::Output)?;
    }
    match report.first_limit {
        Some(first) if !enough => Err(Failure::TooLittle {
            connections: need.connections,
            limit: first.name,
            connections_max: first.connections_max,
        }),
        _ => Ok(()),
    }
}

/// What `connections` needs, or the number that the configuration or else the descriptor limit gives.
pub(super) fn need_of(config: &Config, connections: Option<u64>, facts: &Facts) -> Need {
    let configured = Some(u64::from(config.limits.connections)).filter(|&connections| connections > 0);
    let by_descriptors = || need::clients_of(facts.nofile.map_or(0, |limit| limit.hard)).max(1);
    let shards = u64::from(config.shards);
    Need {
        connections: connections.or(configured).unwrap_or_else(by_descriptors).min(u64::from(u32::MAX)),
        shards: if shards == 0 { facts.cpus.unwrap_or(1) } else { shards },
        history_bytes: config.history.bytes.bytes() as u64,
        socket_send_bytes: config.limits.socket_send_bytes.bytes() as u64,
        drain: config.timeouts.drain,
    }
}

impl Report<'_> {
    fn text(&self) -> String {
        let heads = ["LIMIT", "VALUE", "NEEDED", "VERDICT"].map(str::to_owned);
        let row = |finding: &Finding| {
            vec![
                finding.name.to_owned(),
                amount_text(&finding.value, "unknown"),
                amount_text(&finding.needed, "-"),
                verdict_text(finding.verdict).to_owned(),
            ]
        };
        let rows: Vec<Vec<String>> =
            std::iter::once(heads.to_vec()).chain(self.findings.iter().map(row)).collect();
        let mut text = aligned(&rows);
        for finding in self.findings.iter().filter(|finding| finding.verdict == Verdict::TooLittle) {
            text += &format!("\n{}: {}\n  try: {}\n", finding.name, finding.note, finding.fix);
        }
        let unknown: Vec<&str> = self.of(Verdict::Unknown).collect();
        if !unknown.is_empty() {
            text += &format!("\ncould not be read, and so not judged: {}\n", unknown.join(", "));
        }
        text += &match &self.first_limit {
            Some(first) if self.enough => format!(
                "\nenough for {}; the first limit above is {}, at {}\n",
                counted(self.connections, "connection"),
                first.name,
                grouped(first.connections_max)
            ),
            None => format!("\nenough for {}\n", counted(self.connections, "connection")),
            // Said on standard error.
            Some(_) => String::new(),
        };
        text
    }

    fn of(&self, verdict: Verdict) -> impl Iterator<Item = &str> {
        self.findings.iter().filter(move |finding| finding.verdict == verdict).map(|finding| finding.name)
    }
}

fn verdict_text(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Enough => "enough",
        Verdict::TooLittle => "too little",
        Verdict::Unknown => "unknown",
    }
}

fn amount_text(amount: &Amount, none: &str) -> String {
    match amount {
        Amount::Count(u64::MAX) | Amount::Bytes(u64::MAX) => "no limit".to_owned(),
        // What systemd sets fs.file-max to: the largest number there is.
        Amount::Count(count) if *count == i64::MAX as u64 => "no limit".to_owned(),
        Amount::Count(count) => grouped(*count),
        Amount::Bytes(bytes) => bytes_text(*bytes),
        Amount::Three(numbers) => numbers.map(|number| number.to_string()).join(" "),
        Amount::Text(text) => text.clone(),
        Amount::None => none.to_owned(),
    }
}

fn proof_text(proof: &Proof) -> String {
    let connections = counted(proof.connections, "idle WebSocket");
    let each = |bytes: i64| format!("{bytes:>6} B each");
    format!(
        "{connections} held by a gateway of its own, each with a user of 16 bytes and one topic\n\
         user    {}   resident memory of the gateway\n\
         kernel  {}   the gateway's end; both ends {} B ({})\n\
         total   {}   corecast check reckons with {} B\n\
         connected in {:.1} s",
        each(proof.user_bytes),
        each(proof.kernel_bytes),
        proof.kernel_both_ends_bytes,
        proof.kernel_source,
        each(proof.user_bytes + proof.kernel_bytes),
        proof.reckoned_bytes,
        proof.connect_ms as f64 / 1e3,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_with_three_digits() {
        let pairs = [
            (0, "0 B"),
            (1023, "1023 B"),
            (32_768, "32.0 KiB"),
            (4_718_592, "4.50 MiB"),
            (8 << 30, "8.00 GiB"),
            (200 << 30, "200 GiB"),
        ];
        for (bytes, text) in pairs {
            assert_eq!(bytes_text(bytes), text);
        }
    }

    #[test]
    fn what_has_no_limit_and_what_is_unknown_are_said_in_words() {
        assert_eq!(amount_text(&Amount::Count(u64::MAX), "-"), "no limit");
        assert_eq!(amount_text(&Amount::Count(i64::MAX as u64), "-"), "no limit");
        assert_eq!(amount_text(&Amount::None, "unknown"), "unknown");
        assert_eq!(amount_text(&Amount::Three([1, 2, 3]), "-"), "1 2 3");
    }
}
