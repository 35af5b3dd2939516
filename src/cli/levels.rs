//! `corecast log`: what a running gateway logs, shown and changed.

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use clap::builder::PossibleValuesParser;

use super::failure::Failure;
use super::table::{age, aligned};
use super::{Gateway, print_json};
use crate::config::LOG_LEVELS;
use crate::control::command::{Answer, Command, LOG_TARGETS, LogAnswer, LogRequest};

/// `corecast log`
#[derive(Debug, Args)]
pub(super) struct LogFlags {
    /// The level to be set; without it what is in effect is shown
    #[arg(value_parser = PossibleValuesParser::new(LOG_LEVELS))]
    level: Option<String>,
    /// Only of this part of the gateway
    #[arg(long, value_name = "PART", requires = "level", value_parser = PossibleValuesParser::new(LOG_TARGETS))]
    target: Option<String>,
    /// For how long, at most a day; otherwise until --reset or a restart
    #[arg(long = "for", value_name = "TIME", requires = "level", value_parser = humantime::parse_duration)]
    lasts: Option<Duration>,
    /// Go back to log.level of the configuration
    #[arg(long, conflicts_with = "level")]
    reset: bool,
    /// Print JSON instead
    #[arg(long)]
    json: bool,
}

/// Sets, resets or only shows the levels.
pub(super) fn log(flags: LogFlags, gateway: &Gateway, out: &mut dyn Write) -> Result<(), Failure> {
    let LogFlags { level, target, lasts, reset, json } = flags;
    let request = match level {
        Some(level) => LogRequest::Set { level, target, for_ms: lasts.map(|lasts| lasts.as_millis() as u64) },
        None if reset => LogRequest::Reset,
        None => LogRequest::Show,
    };
    let Answer::Log(answer) = gateway.ask(&Command::Log(request))? else { return Err(Failure::Answer) };
    if json {
        return print_json(out, &answer);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    write!(out, "{}", text(&answer, now)).map_err(Failure::Output)
}

/// `now` is the time since the Unix epoch.
fn text(answer: &LogAnswer, now: Duration) -> String {
    let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
    let mut rows = vec![row(["LEVEL", "OF", "UNTIL"])];
    // One for everything takes the place of what is configured.
    if answer.overrides.iter().all(|set| set.target.is_some()) {
        rows.push(row([&answer.level, "everything", "log.level"]));
    }
    for set in &answer.overrides {
        let until = set.until.map_or("reset".to_owned(), |until| {
            format!("{} from now", age(Duration::from_millis(until).saturating_sub(now)))
        });
        rows.push(row([&set.level, set.target.as_deref().unwrap_or("everything"), &until]));
    }
    aligned(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::command::LogOverride;

    #[test]
    fn issue_7_the_levels_are_listed_with_their_ends() {
        let set = |target: Option<&str>, until| LogOverride {
            target: target.map(str::to_owned),
            level: "debug".to_owned(),
            until,
        };
        let mut answer = LogAnswer {
            filter: String::new(),
            level: "info".to_owned(),
            overrides: vec![set(Some("control"), None), set(Some("shard"), Some(61_000))],
        };
        let now = Duration::from_secs(1);
        let expected = "LEVEL  OF          UNTIL\n\
                        info   everything  log.level\n\
                        debug  control     reset\n\
                        debug  shard       1m 0s from now\n";
        assert_eq!(text(&answer, now), expected);
        answer.overrides.insert(0, set(None, None));
        assert!(!text(&answer, now).contains("log.level"));
    }
}
