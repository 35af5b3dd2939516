//! The command line: one file per family of commands.
//!
//! Data goes to standard output, messages to standard error. Every command but `serve`, `check`,
//! `tune`, `token`, `config` and `version` asks a running gateway through `client::Client`, over the control socket.
//! Never decides what a command means: that is the gateway's. Next: `failure` for exit statuses.

mod act;
mod ask;
mod check;
mod connections;
mod events;
mod failure;
mod flame;
mod journal;
mod levels;
mod log;
mod log_lines;
mod profile;
mod prove;
mod push;
mod serve;
mod span;
mod stats;
mod table;
mod token;
mod top;
mod trace;
mod tune;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::auth::KeyRing;
use crate::client::Client;
use crate::config::{Config, Source};
use crate::control::command::{Answer, Command};
use crate::control::default_path;
use crate::fatal::Fatal;

use failure::Failure;

/// Starts the gateway and returns when it has ended: `gateway::serve`. The keys are those that the configuration
/// names, the source is for reloads. Given from outside, so that nothing here depends on the gateway's rooms.
pub type Serve = fn(Config, KeyRing, Source) -> Result<(), Fatal>;

/// A push gateway for Linux: clients connect over TCP, pushes come from a Unix socket.
///
/// Exit status: 0 done, 1 it failed, 2 wrong usage or configuration, 3 no gateway answers on the socket;
/// `serve` has one of its own for each thing that can keep it from starting, from 10 up (see the README).
#[derive(Debug, Parser)]
#[command(name = "corecast", disable_help_subcommand = true)]
struct Arguments {
    /// The control socket, instead of CORECAST_SOCKET or the default: /run/corecast/control.sock for root,
    /// else $XDG_RUNTIME_DIR/corecast/control.sock, else /tmp/corecast-<uid>/control.sock
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the gateway
    Serve(serve::ServeFlags),
    /// Push a message to a user, a topic, a connection or all
    Push(push::PushFlags),
    /// List a user's connections
    Who(ask::WhoFlags),
    /// List connections, or show one: who, from where, how long, how far behind
    Connections(connections::ConnectionsFlags),
    /// Show who is furthest behind, why, and what to do
    Slow(connections::SlowFlags),
    /// Print every connection, one JSON object a line
    Sessions(connections::SessionsFlags),
    /// List topics, how many connections each has and how often it was pushed to
    Topics(ask::TopicsFlags),
    /// Close a user's connections, or one connection
    Kick(act::KickFlags),
    /// Subscribe all of a user's connections to a topic
    Bind(act::BindFlags),
    /// Unsubscribe all of a user's connections from a topic
    Unbind(act::BindFlags),
    /// Make a ticket for one connection of a user (auth.mode "ticket")
    Ticket(act::TicketFlags),
    /// Mint a token for tests (auth.mode "jwt")
    Token(token::TokenFlags),
    /// Print what happens, one JSON object a line, until interrupted
    Events(events::EventsFlags),
    /// Print what one user or connection does and has done to it: frame headers and decisions
    Trace(trace::TraceFlags),
    /// Show the gateway's counters
    Stats(stats::StatsFlags),
    /// Show what the gateway does, live, on one screen
    Top(top::TopFlags),
    /// Show what a running gateway logs, or change it for a while
    Log(levels::LogFlags),
    /// Draw where a running gateway spends its CPU time, as a flame graph (needs perf)
    Profile(profile::ProfileFlags),
    /// Refuse new clients, send the present ones away over a while, and stop the gateway
    Drain(act::DrainFlags),
    /// Look at this host: is there enough of everything for a number of connections
    Check(check::CheckFlags),
    /// Show the kernel settings for a number of connections, apply or undo them
    Tune(tune::TuneFlags),
    /// Print the effective configuration as TOML that can be used as the file
    Config(serve::PrintFlags),
    /// Print the version of this program
    Version(serve::VersionFlags),
}

/// The command line as clap knows it, for the manual pages and completions (`package/pages`).
pub fn definition() -> clap::Command {
    Arguments::command()
}

/// Does what `arguments` (the program's name first) ask for and gives the exit status: see `Arguments`.
pub fn run(arguments: impl Iterator<Item = OsString>, serve: Serve) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version asked for go to stdout with 0, wrong usage to stderr with 2; a reader
            // that has gone is no reason for another status.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    // Not locked: a running gateway's other threads may print too.
    let mut out = io::stdout();
    let done = obey(arguments, serve, &mut out).and_then(|()| out.flush().map_err(Failure::Output));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(message) = failure.message() {
                let _ = writeln!(io::stderr(), "corecast: {message}");
            }
            ExitCode::from(failure.status())
        }
    }
}

fn obey(arguments: Arguments, serve: Serve, out: &mut dyn Write) -> Result<(), Failure> {
    let socket = arguments.socket;
    match arguments.verb {
        Verb::Serve(flags) => serve::serve(&flags, socket.as_deref(), serve),
        Verb::Check(flags) => check::check(&flags, out),
        Verb::Tune(flags) => tune::tune(&flags, out),
        Verb::Config(flags) => serve::print(&flags, socket.as_deref(), out),
        Verb::Version(flags) => serve::version(&flags, out),
        Verb::Token(flags) => token::token(&flags, out),
        Verb::Ticket(flags) => act::ticket(flags, &Gateway::at(socket), out),
        Verb::Push(flags) => push::push(flags, &Gateway::at(socket), out),
        Verb::Log(flags) => levels::log(flags, &Gateway::at(socket), out),
        Verb::Profile(flags) => profile::profile(&flags, &Gateway::at(socket), out),
        Verb::Who(flags) => ask::who(flags, &Gateway::at(socket), out),
        Verb::Connections(flags) => connections::connections(flags, &Gateway::at(socket), out),
        Verb::Slow(flags) => connections::slow(&flags, &Gateway::at(socket), out),
        Verb::Sessions(flags) => connections::sessions(&flags, &Gateway::at(socket), out),
        Verb::Topics(flags) => ask::topics(flags, &Gateway::at(socket), out),
        Verb::Events(flags) => events::events(flags, &Gateway::at(socket), out),
        Verb::Trace(flags) => trace::trace(flags, &Gateway::at(socket), out),
        Verb::Stats(flags) => stats::stats(&flags, &Gateway::at(socket), out),
        Verb::Top(flags) => top::top(&flags, Gateway::at(socket), out),
        Verb::Kick(flags) => act::kick(flags, &Gateway::at(socket), out),
        Verb::Bind(flags) => act::bind(flags, &Gateway::at(socket), out),
        Verb::Unbind(flags) => act::unbind(flags, &Gateway::at(socket), out),
        Verb::Drain(flags) => act::drain(&flags, &Gateway::at(socket), out),
    }
}

/// Where the gateway to ask listens.
#[derive(Debug)]
struct Gateway {
    socket: PathBuf,
}

impl Gateway {
    /// `flag`, else CORECAST_SOCKET where it is set and not empty, else the default of this user.
    fn at(flag: Option<PathBuf>) -> Self {
        let variable =
            || std::env::var_os("CORECAST_SOCKET").filter(|path| !path.is_empty()).map(PathBuf::from);
        Self { socket: flag.or_else(variable).unwrap_or_else(|| default_path(Path::new(""))) }
    }

    /// Errors: `Failure::Unreachable` and the other ends of `ClientError`.
    fn connect(&self) -> Result<Client, Failure> {
        Client::connect(&self.socket).map_err(|error| self.failed(error))
    }

    /// One command on a connection of its own. Errors: as `connect`, and `Refused`.
    fn ask(&self, command: &Command) -> Result<Answer, Failure> {
        self.connect()?.call(command).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: crate::client::ClientError) -> Failure {
        Failure::client(&self.socket, error)
    }

    fn path(&self) -> &Path {
        &self.socket
    }
}

/// Prints `value` as one line of JSON.
fn print_json(out: &mut dyn Write, value: &impl serde::Serialize) -> Result<(), Failure> {
    let line = serde_json::to_string(value).map_err(io::Error::from).map_err(Failure::Output)?;
    print_line(out, &line)
}

/// Prints `line`; where it goes to a reader at once, because commands that stream are read live.
fn print_line(out: &mut dyn Write, line: &str) -> Result<(), Failure> {
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(Failure::Output)
}
