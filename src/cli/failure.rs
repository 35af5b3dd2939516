//! Why a command did not do what was asked, what is said about it, and with which exit status.

use std::io;
use std::path::{Path, PathBuf};

use super::profile::ProfileError;
use super::prove::ProveError;
use super::table::{counted, grouped};
use crate::client::ClientError;
use crate::config::ConfigError;
use crate::control::command::{CommandError, ErrorCode};
use crate::fatal::Fatal;
use crate::host::tune::TuneError;

/// Every way in which a command ends other than well.
#[derive(Debug)]
pub(super) enum Failure {
    /// The arguments parse but make no sense together.
    Usage(String),
    /// There is no configuration to run with.
    Config(ConfigError),
    /// The gateway did not start.
    Fatal(Fatal),
    /// Nobody answers on the socket.
    Unreachable { socket: PathBuf, error: io::Error },
    /// The connection to the gateway broke.
    Broken { socket: PathBuf, error: io::Error },
    /// The gateway refused.
    Refused(CommandError),
    /// Some pushes of many were refused; each has been told already.
    SomeRefused { refused: u64, of: u64 },
    /// The gateway answered something else than what was asked.
    Answer,
    /// `check` found a limit that is too low for what was asked.
    TooLittle { connections: u64, limit: &'static str, connections_max: u64 },
    /// There is no profile.
    Profile(ProfileError),
    /// `check --prove` has no figures.
    Prove(ProveError),
    /// `tune` did not change what it was to change.
    Tune(TuneError),
    /// Standard input cannot be read.
    Input(io::Error),
    /// Standard output cannot be written.
    Output(io::Error),
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl Failure {
    /// What became of a call to the gateway at `socket`.
    pub(super) fn client(socket: &Path, error: ClientError) -> Self {
        let socket = socket.to_owned();
        match error {
            ClientError::Unreachable(error) => Self::Unreachable { socket, error },
            ClientError::Broken(error) => Self::Broken { socket, error },
            ClientError::Refused(error) => Self::Refused(error),
        }
    }

    /// Contract section 4.
    pub(super) fn status(&self) -> u8 {
        match self {
            // `corecast events | head -1` did what it was asked for.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Usage(_) | Self::Config(_) => 2,
            Self::Fatal(fatal) => fatal.status(),
            Self::Unreachable { .. } => 3,
            Self::Broken { .. }
            | Self::Refused(_)
            | Self::SomeRefused { .. }
            | Self::Answer
            | Self::TooLittle { .. }
            | Self::Profile(_)
            | Self::Prove(_)
            | Self::Tune(_)
            | Self::Input(_)
            | Self::Output(_) => 1,
        }
    }

    /// What to say on standard error; `None` where the reader has gone.
    pub(super) fn message(&self) -> Option<String> {
        Some(match self {
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return None,
            Self::Usage(message) => format!("{message}\ntry: corecast --help"),
            Self::Config(error) => error.to_string(),
            Self::Fatal(fatal) => fatal.to_string(),
            Self::Unreachable { socket, error } => unreachable_message(socket, error),
            Self::Broken { socket, error } => format!(
                "the gateway at {} broke the connection: {error}\n\
                 likely cause: it was stopped, or is of another version than this program\n\
                 try: corecast stats, corecast version",
                socket.display()
            ),
            Self::Refused(error) => format!("refused: {}: {}", code_name(error.code), error.message),
            Self::SomeRefused { refused, of } => format!("{refused} of {of} pushes were refused"),
            Self::Answer => "the gateway gave an answer to something else\n\
                             likely cause: it is of another version than this program\n\
                             try: corecast stats, corecast version"
                .to_owned(),
            Self::TooLittle { connections, limit, connections_max } => format!(
                "too little for {}: the first limit is {limit}, at {}",
                counted(*connections, "connection"),
                grouped(*connections_max)
            ),
            Self::Profile(error) => error.to_string(),
            Self::Prove(error) => error.to_string(),
            Self::Tune(error) => error.to_string(),
            Self::Input(error) => format!("cannot read standard input: {error}"),
            Self::Output(error) => format!("cannot write standard output: {error}"),
        })
    }
}

fn unreachable_message(socket: &Path, error: &io::Error) -> String {
    let cause = match error.kind() {
        io::ErrorKind::NotFound => "no gateway runs, or it has its control socket elsewhere",
        io::ErrorKind::ConnectionRefused => "the gateway that made this socket has ended",
        io::ErrorKind::PermissionDenied => "the socket belongs to another user or group",
        _ => "the path is not a gateway's control socket",
    };
    format!(
        "no gateway answers on {}: {error}\n\
         likely cause: {cause}\n\
         try: corecast serve, or --socket PATH, or set CORECAST_SOCKET",
        socket.display()
    )
}

/// As the contract writes it: `bad_target`.
pub(super) fn code_name(code: ErrorCode) -> String {
    let text = serde_json::to_string(&code).unwrap_or_default();
    text.trim_matches('"').to_owned()
}
