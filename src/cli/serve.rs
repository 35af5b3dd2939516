//! The commands that need no gateway: `serve`, `config`, `version`.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use toml::{Table, Value};

use super::failure::Failure;
use super::{Serve, log, print_json, print_line};
use crate::config::{self, Config, ConfigError, Origin, Source};

/// What the configuration is made of; `serve` and `config` take the same.
#[derive(Clone, Debug, Args)]
pub(super) struct ConfigFlags {
    /// The configuration file, instead of CORECAST_CONFIG; without either none is read
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Listen for clients here, instead of `listen`; may be given several times
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Vec<SocketAddr>,
    /// How many shards, instead of `shards`; 0 is one per available core
    #[arg(long, value_name = "N")]
    shards: Option<u16>,
    /// Set any key, as in --set limits.message_bytes=1MiB; lists are comma-separated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// `corecast serve`
#[derive(Debug, Args)]
pub(super) struct ServeFlags {
    #[command(flatten)]
    flags: ConfigFlags,
    /// Drain when the process PID, which must be the parent, has ended (for `check --prove`)
    #[arg(long, value_name = "PID", hide = true)]
    with_parent: Option<i32>,
}

/// `corecast config`
#[derive(Debug, Args)]
pub(super) struct PrintFlags {
    #[command(flatten)]
    flags: ConfigFlags,
    /// Print JSON instead
    #[arg(long)]
    json: bool,
}

/// `corecast version`
#[derive(Debug, Args)]
pub(super) struct VersionFlags {
    /// Print JSON instead
    #[arg(long)]
    json: bool,
}

impl ConfigFlags {
    /// Errors: every `ConfigError`.
    pub(super) fn load(&self, socket: Option<&Path>) -> Result<Config, ConfigError> {
        let mut overrides = Table::new();
        for assignment in &self.set {
            config::assign(&mut overrides, assignment)?;
        }
        if !self.listen.is_empty() {
            let listen = self.listen.iter().map(|address| Value::from(address.to_string()));
            overrides.insert("listen".to_owned(), Value::Array(listen.collect()));
        }
        if let Some(shards) = self.shards {
            overrides.insert("shards".to_owned(), Value::from(i64::from(shards)));
        }
        if let Some(path) = socket {
            let text = path.to_str().ok_or_else(|| ConfigError::Value {
                key: Some("control.socket".to_owned()),
                origin: Origin::CommandLine,
                message: "is not UTF-8".to_owned(),
            })?;
            config::assign(&mut overrides, &format!("control.socket={text}"))?;
        }
        config::load(self.config.as_deref(), config::environment()?.into_iter(), overrides)
    }
}

/// Runs the gateway until it is told to end.
pub(super) fn serve(flags: &ServeFlags, socket: Option<&Path>, serve: Serve) -> Result<(), Failure> {
    let mut config = flags.flags.load(socket)?;
    if let Some(parent) = flags.with_parent {
        end_with(parent)?;
    }
    let log_filter = log::start(&config.log)?;
    let keys = config::read_keys(&config.auth)?;
    let warnings = [keys.warnings, config.admin.read_token()?].concat();
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let (flags, socket) = (flags.flags.clone(), socket.map(Path::to_owned));
    let read = Box::new(move || flags.load(socket.as_deref()));
    serve(config, keys.ring, Source { read, log_filter }).map_err(Failure::Fatal)
}

/// Has the kernel send SIGTERM when the parent ends, even if it is killed (prctl(2), PR_SET_PDEATHSIG).
fn end_with(parent: i32) -> Result<(), Failure> {
    let asked = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
    // A parent that ended before the call is told of to nobody.
    let is_parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get()) == Some(parent);
    match asked {
        Ok(()) if is_parent => Ok(()),
        _ => Err(Failure::Usage(format!("--with-parent {parent}: not the parent, or it has ended"))),
    }
}

/// Prints the effective configuration, but for secrets.
pub(super) fn print(flags: &PrintFlags, socket: Option<&Path>, out: &mut dyn Write) -> Result<(), Failure> {
    let config = flags.flags.load(socket)?.without_secrets();
    if flags.json {
        return print_json(out, &config);
    }
    write!(out, "{}", config.to_toml()).map_err(Failure::Output)
}

/// Prints the version of this program, whether a gateway runs or not.
pub(super) fn version(flags: &VersionFlags, out: &mut dyn Write) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    if flags.json {
        return print_json(out, &json!({ "version": version }));
    }
    print_line(out, &format!("corecast {version}"))
}
