//! `corecast profile`: where a running gateway spends its CPU time, as a flame graph.
//!
//! By perf(1), from outside: the gateway has no profiler in it, costs nothing while nobody looks, and gets no signals
//! when somebody does. And the kernel's part of a push, which is most of it, is on the stacks too; a profiler inside
//! the process would see it end at `io_uring_enter`.

use std::fmt;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::failure::Failure;
use super::flame::{Called, Flame};
use super::table::{aligned, counted};
use super::{Gateway, print_json, print_line};
use crate::control::command::{Answer, Command as Ask};

const TIME_MAX: Duration = Duration::from_secs(600);
/// Bytes of each stack that are copied to be unwound: release builds have no frame pointers.
const STACK_BYTES: &str = "dwarf,16384";
/// Functions that are listed.
const LISTED: usize = 10;

/// `corecast profile`
#[derive(Debug, Args)]
pub(super) struct ProfileFlags {
    /// For how long, at most 10 minutes
    #[arg(default_value = "10s", value_parser = time)]
    time: Duration,
    /// The file to be written; - is standard output
    #[arg(short, long, value_name = "FILE", default_value = "corecast-profile.svg")]
    output: PathBuf,
    /// Samples a second of each busy CPU
    #[arg(long, value_name = "HERTZ", default_value_t = 99, value_parser = clap::value_parser!(u32).range(1..=999))]
    frequency: u32,
    /// The process, instead of the gateway that answers on the socket
    #[arg(long)]
    pid: Option<u32>,
    /// Print JSON instead
    #[arg(long)]
    json: bool,
}

fn time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let fits = time >= Duration::from_millis(100) && time <= TIME_MAX;
    if fits { Ok(time) } else { Err("must be 100ms to 10min".to_owned()) }
}

/// Why there is no profile.
#[derive(Debug)]
pub(super) enum ProfileError {
    /// perf(1) is not installed.
    NoPerf,
    /// perf(1) could not sample, with what it said.
    Perf { pid: u32, said: String },
    /// Nothing ran.
    Idle { time: Duration },
    /// The pipe to or from perf(1) broke.
    Pipe(io::Error),
    /// The file cannot be written.
    File { path: PathBuf, error: io::Error },
}

impl fmt::Display for ProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPerf => f.write_str(
                "there is no perf on this host, which does the sampling\n\
                 try: apt install linux-perf (Debian), or apt install linux-tools-$(uname -r) (Ubuntu)",
            ),
            Self::Perf { pid, said } => write!(
                f,
                "perf cannot sample process {pid}: {said}\n\
                 likely cause: kernel.perf_event_paranoid keeps others than root from it, or it is no process of \
                 this host (a container has numbers of its own)\n\
                 try: as root, or --pid with the number that this host knows it by"
            ),
            Self::Idle { time } => write!(
                f,
                "no samples: the gateway used no CPU in {}\n\
                 try: a longer time, or while it has something to do",
                humantime::format_duration(*time)
            ),
            Self::Pipe(error) => write!(f, "perf broke off: {error}"),
            Self::File { path, error } => write!(f, "cannot write {}: {error}", path.display()),
        }
    }
}

/// Samples, writes the picture, and lists where the time went.
pub(super) fn profile(flags: &ProfileFlags, gateway: &Gateway, out: &mut dyn Write) -> Result<(), Failure> {
    let pid = match flags.pid {
        Some(pid) => pid,
        None => match gateway.ask(&Ask::Process)? {
            Answer::Process { pid } => pid,
            _ => return Err(Failure::Answer),
        },
    };
    let flame = sample(pid, flags).map_err(Failure::Profile)?;
    let samples = flame.samples();
    let time = humantime::format_duration(flags.time).to_string();
    let svg = flame.svg(&format!("corecast, process {pid}: {samples} samples in {time}"));
    if flags.output.as_os_str() == "-" {
        return write!(out, "{svg}").map_err(Failure::Output);
    }
    let path = flags.output.clone();
    fs::write(&path, svg).map_err(|error| Failure::Profile(ProfileError::File { path, error }))?;
    let percent = |count: u64| (1000.0 * count as f64 / samples as f64).round() / 10.0;
    let own = flame.own();
    if flags.json {
        let functions: Vec<_> =
            own.iter().map(|(name, count)| json!({ "name": name, "percent": percent(*count) })).collect();
        return print_json(out, &json!({ "file": flags.output, "samples": samples, "functions": functions }));
    }
    let what = counted(samples, "sample");
    print_line(out, &format!("{}: {what} in {time}", flags.output.display()))?;
    let mut rows = vec![vec!["ITSELF".to_owned(), "FUNCTION".to_owned()]];
    rows.extend(
        own.into_iter().take(LISTED).map(|(name, count)| vec![format!("{:.1} %", percent(count)), name]),
    );
    write!(out, "{}", aligned(&rows)).map_err(Failure::Output)
}

/// Runs perf(1) over the process. It ends by itself, and leaves no file.
fn sample(pid: u32, flags: &ProfileFlags) -> Result<Flame, ProfileError> {
    let started = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => ProfileError::NoPerf,
        _ => ProfileError::Pipe(error),
    };
    let mut record = Command::new("perf")
        .args(["record", "--output", "-", "--call-graph", STACK_BYTES])
        .args(["--freq", &flags.frequency.to_string(), "--pid", &pid.to_string()])
        .args(["--", "sleep", &flags.time.as_secs_f64().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(started)?;
    let samples = record.stdout.take().expect("its standard output is a pipe");
    let mut script = Command::new("perf")
        .args(["script", "--no-inline", "--input", "-", "--fields", "comm,ip,sym,dso"])
        .stdin(samples)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(started)?;
    let flame = script.stdout.take().map(|stacks: ChildStdout| fold(BufReader::new(stacks)));
    let mut said = String::new();
    if let Some(mut errors) = record.stderr.take() {
        // What it says of itself is of use only where it failed.
        let _ = errors.read_to_string(&mut said);
    }
    let recorded = record.wait().map_err(ProfileError::Pipe)?;
    script.wait().map_err(ProfileError::Pipe)?;
    let flame = flame.expect("its standard output is a pipe").map_err(ProfileError::Pipe)?;
    match flame.samples() {
        0 if !recorded.success() => {
            let lines = said.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('['));
            let said: Vec<&str> = lines.take(2).collect();
            Err(ProfileError::Perf { pid, said: said.join(" ") })
        }
        0 => Err(ProfileError::Idle { time: flags.time }),
        _ => Ok(flame),
    }
}

/// Puts together what `perf script` prints: for each sample the thread, its frames from the innermost on, and an
/// empty line.
fn fold(stacks: impl BufRead) -> io::Result<Flame> {
    let mut flame = Flame::default();
    let (mut thread, mut stack) = (String::new(), Vec::new());
    // A name may be cut in the middle of a character.
    for line in stacks.split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        if line.trim().is_empty() {
            if !thread.is_empty() {
                flame.add(&thread, &stack);
            }
            thread.clear();
            stack.clear();
        } else if thread.is_empty() {
            line.trim().clone_into(&mut thread);
        } else {
            stack.extend(called(&line));
        }
    }
    if !thread.is_empty() {
        flame.add(&thread, &stack);
    }
    Ok(flame)
}

/// `ffffffff8200de03 tcp_sendmsg_locked ([kernel.kallsyms])`. `None` where nothing is known of it: beyond what was
/// copied of the stack.
fn called(line: &str) -> Option<Called> {
    let (address, rest) = line.trim().split_once(' ')?;
    let (name, object) = rest.rsplit_once(" (")?;
    let object = object.trim_end_matches(')');
    // The upper half of the addresses is the kernel's, its modules' too.
    let is_kernel = address.len() == 16 && address.starts_with("ffff");
    if name != "[unknown]" {
        return Some(Called { name: name.to_owned(), is_kernel });
    }
    if object == "[unknown]" {
        return None;
    }
    // Without symbols: the program or library is all there is to say.
    let file = object.rsplit('/').next().unwrap_or(object).trim_matches(['[', ']']);
    Some(Called { name: format!("[{file}]"), is_kernel })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "\
shard-0-1 \n\tffffffff8200de03 tcp_sendmsg_locked ([kernel.kallsyms])\n\
\t          101829 syscall (/usr/lib/libc.so.6)\n\
\t          5fa55d corecast::shard::sending::<impl corecast::shard::Shard>::send (/usr/bin/corecast)\n\
\tffffffffffffffff [unknown] ([unknown])\n\n\
shard-0-1 \n\t  5fa55d [unknown] (/usr/bin/corecast)\n\t  5fa560 f(u8) (/usr/bin/corecast)\n\n\
my thread \n\tffffffff8200de03 [unknown] ([nf_conntrack])\n";

    #[test]
    fn issue_7_what_perf_prints_becomes_stacks_by_thread() {
        let flame = fold(PRINTED.as_bytes()).unwrap();
        let svg = flame.svg("x");
        for title in [
            "all: 3 samples",
            "shard-0-1: 2 samples",
            "corecast::shard::sending::&lt;impl corecast::shard::Shard&gt;::send: 1 samples",
            "f(u8): 1 samples",
            "my thread: 1 samples",
        ] {
            assert!(svg.contains(&format!("<title>{title}, ")), "{title}: {svg}");
        }
        let mut own = flame.own();
        own.sort();
        let own: Vec<&str> = own.iter().map(|(name, _)| &name[..]).collect();
        assert_eq!(own, ["[corecast]", "[nf_conntrack]", "tcp_sendmsg_locked"]);
    }

    #[test]
    fn issue_7_the_kernels_frames_are_told_from_the_programs() {
        let called = |line: &str| called(line).map(|called| (called.name, called.is_kernel));
        let named = |name: &str, is_kernel| Some((name.to_owned(), is_kernel));
        assert_eq!(called("\tffffffffc0a1 f (/lib/x.so)"), named("f", false));
        assert_eq!(called("\tffffffffc0a1de03 nf_hook ([nf_conntrack])"), named("nf_hook", true));
        assert_eq!(called("\t    7ffd1234 clock_gettime ([vdso])"), named("clock_gettime", false));
        assert_eq!(called("\tffffffffffffffff [unknown] ([unknown])"), None);
    }

    #[test]
    fn issue_7_a_time_is_at_least_100_ms_and_at_most_10_minutes() {
        assert_eq!(time("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(time("10min"), Ok(TIME_MAX));
        assert!(time("99ms").is_err() && time("601s").is_err() && time("10").is_err());
    }
}
