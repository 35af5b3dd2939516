//! The commands that change something: `kick`, `bind`, `unbind`, `ticket`, `drain`.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::failure::Failure;
use super::table::{age, counted};
use super::{Gateway, print_json, print_line};
use crate::client::ClientError;
use crate::control::command::{Answer, Command, TicketRequest};
use crate::message::{ConnId, Topic, UserId};

/// Longest reason of a WebSocket close frame: 125 bytes less the code (RFC 6455 5.5.1).
const REASON_BYTES_MAX: usize = 123;

/// `corecast kick`
#[derive(Debug, Args)]
pub(super) struct KickFlags {
    #[command(flatten)]
    whom: Kicked,
    /// The WebSocket close code: 1000, or 4000 to 4999; 4500 and up mean "do not come back"
    #[arg(long, value_name = "N", default_value_t = 4500, value_parser = close_code)]
    code: u16,
    /// Told to the client, at most 123 bytes
    #[arg(long, value_name = "TEXT", value_parser = close_reason)]
    reason: Option<String>,
    /// Print JSON instead
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Kicked {
    /// All connections of this user
    #[arg(long, value_name = "ID")]
    user: Option<UserId>,
    /// This connection, as `corecast who` shows it
    #[arg(long, value_name = "C")]
    connection: Option<ConnId>,
}

/// `corecast bind`, `corecast unbind`
#[derive(Debug, Args)]
pub(super) struct BindFlags {
    user: UserId,
    topic: Topic,
    /// Print JSON instead
    #[arg(long)]
    json: bool,
}

/// `corecast ticket`
#[derive(Debug, Args)]
pub(super) struct TicketFlags {
    user: UserId,
    /// How long it waits to be used, instead of `auth.ticket_ttl`
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    ttl: Option<Duration>,
    /// How long the connection may last; without it there is no end
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    connection_ttl: Option<Duration>,
    /// Patterns of topics that the connection may subscribe to; without it any
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    topics: Option<Vec<Topic>>,
    /// The connection replaces the user's others
    #[arg(long)]
    single: bool,
    /// Most connections of the user
    #[arg(long, value_name = "N")]
    max_connections: Option<u32>,
    /// Print JSON instead
    #[arg(long)]
    json: bool,
}

/// `corecast drain`
#[derive(Debug, Args)]
pub(super) struct DrainFlags {
    /// Spread the clients' return over this long, instead of `timeouts.drain`
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    within: Option<Duration>,
    /// Print JSON instead, one object a line
    #[arg(long)]
    json: bool,
}

fn close_code(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(code) if code == 1000 || (4000..=4999).contains(&code) => Ok(code),
        _ => Err("must be 1000, or 4000 to 4999".to_owned()),
    }
}

fn close_reason(text: &str) -> Result<String, String> {
    if text.len() > REASON_BYTES_MAX {
        return Err(format!("is {} bytes long, must be at most {REASON_BYTES_MAX}", text.len()));
    }
    Ok(text.to_owned())
}

/// Closes connections.
pub(super) fn kick(flags: KickFlags, gateway: &Gateway, out: &mut dyn Write) -> Result<(), Failure> {
    let (code, reason) = (Some(flags.code), flags.reason);
    let command = match (flags.whom.user, flags.whom.connection) {
        (Some(user), _) => Command::KickUser { user, code, reason },
        (None, Some(connection)) => Command::KickConnection { connection, code, reason },
        (None, None) => return Err(Failure::Usage("give --user ID or --connection C".to_owned())),
    };
    let Answer::Closed(closed) = gateway.ask(&command)? else { return Err(Failure::Answer) };
    if flags.json {
        return print_json(out, &json!({ "closed": closed }));
    }
    print_line(out, &format!("closed {}", counted(closed, "connection")))
}

/// Subscribes a user's connections.
pub(super) fn bind(flags: BindFlags, gateway: &Gateway, out: &mut dyn Write) -> Result<(), Failure> {
    bound(Command::Bind { user: flags.user, topic: flags.topic }, "bound", flags.json, gateway, out)
}

/// Unsubscribes a user's connections.
pub(super) fn unbind(flags: BindFlags, gateway: &Gateway, out: &mut dyn Write) -> Result<(), Failure> {
    bound(Command::Unbind { user: flags.user, topic: flags.topic }, "unbound", flags.json, gateway, out)
}

fn bound(
    command: Command,
    done: &str,
    json: bool,
    gateway: &Gateway,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let Answer::Bound(connections) = gateway.ask(&command)? else { return Err(Failure::Answer) };
    if json {
        return print_json(out, &json!({ "connections": connections }));
    }
    print_line(out, &format!("{done} {}", counted(connections, "connection")))
}

/// Prints a ticket.
pub(super) fn ticket(flags: TicketFlags, gateway: &Gateway, out: &mut dyn Write) -> Result<(), Failure> {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let request = TicketRequest {
        user: flags.user,
        topics: flags.topics,
        ttl_ms: flags.ttl.map(ms),
        connection_ttl_ms: flags.connection_ttl.map(ms),
        max_connections: flags.max_connections,
        single: flags.single,
    };
    let Answer::Ticket(ticket) = gateway.ask(&Command::Ticket(request))? else { return Err(Failure::Answer) };
    if flags.json {
        return print_json(out, &ticket);
    }
    print_line(out, ticket.ticket.reveal())
}

/// Drains the gateway and shows how it goes, until it has ended.
pub(super) fn drain(flags: &DrainFlags, gateway: &Gateway, out: &mut dyn Write) -> Result<(), Failure> {
    let within_ms = flags.within.map(|within| u64::try_from(within.as_millis()).unwrap_or(u64::MAX));
    let mut client = gateway.connect()?;
    let sent = client.send(&Command::Drain { within_ms }).and_then(|_| client.flush());
    sent.map_err(|error| gateway.failed(error))?;
    let mut begun = false;
    loop {
        match client.receive() {
            Ok((_, Ok(Answer::Drain(progress)))) => {
                begun = true;
                if flags.json {
                    print_json(out, &progress)?;
                    continue;
                }
                let left = counted(progress.connections, "connection");
                print_line(
                    out,
                    &format!("{left} left after {}", age(Duration::from_millis(progress.elapsed_ms))),
                )?;
            }
            Ok((_, Ok(_))) => return Err(Failure::Answer),
            Ok((_, Err(refused))) => return Err(Failure::Refused(refused)),
            // The end of the gateway is the end of its socket: that is what was asked for.
            Err(ClientError::Broken(_)) if begun => return Ok(()),
            Err(error) => return Err(gateway.failed(error)),
        }
    }
}
