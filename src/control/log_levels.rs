//! What is logged: `log.level` of the configuration, and what is set over it, for a while or until it is reset.
//!
//! One level for everything and one for each target may be set. A reload changes what lies below: what is set stays
//! for its time, over the new `log.level`.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Deserialize;

use super::command::{Answer, CommandError, ErrorCode, LOG_TARGETS, LogAnswer, LogOverride, LogRequest};
use super::push::{is_blank, is_object};
use crate::config::{LOG_LEVELS, LogFilter};

/// Longest time that a level is set for: what is to last belongs into the configuration.
const FOR_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The levels in effect.
#[derive(Debug)]
pub struct LogLevels {
    filter: LogFilter,
    /// `log.level`
    base: String,
    /// At most one without a target, which is the first then, and one for each.
    overrides: Vec<Override>,
}

#[derive(Debug)]
struct Override {
    target: Option<&'static str>,
    level: &'static str,
    until: Option<Instant>,
    /// The same as it is shown, in milliseconds of Unix time.
    until_unix_ms: Option<u64>,
}

fn refuse<T>(message: String) -> Result<T, CommandError> {
    Err(CommandError::new(ErrorCode::BadRequest, message))
}

/// What `method` with this body asks of `/v1/log`. Errors: `bad_request`.
pub fn parse(method: &str, body: &[u8]) -> Result<LogRequest, CommandError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        level: String,
        target: Option<String>,
        for_ms: Option<u64>,
    }
    match method {
        "GET" => return Ok(LogRequest::Show),
        "DELETE" => return Ok(LogRequest::Reset),
        _ => {}
    }
    if is_blank(body) || !is_object(body) {
        return refuse("a JSON object is due, such as {\"level\":\"debug\",\"target\":\"shard\"}".to_owned());
    }
    match serde_json::from_slice(body) {
        Ok(Body { level, target, for_ms }) => Ok(LogRequest::Set { level, target, for_ms }),
        Err(error) => refuse(format!("not a request for a log level: {error}")),
    }
}

/// The one of `known` that `word` is. Errors: a message that names them all.
fn one_of(known: &[&'static str], word: &str, what: &str) -> Result<&'static str, CommandError> {
    match known.iter().find(|known| **known == word) {
        Some(known) => Ok(known),
        None => {
            let word: String = word.chars().take(40).collect();
            refuse(format!("{word:?} is no {what}: it is one of {}", known.join(", ")))
        }
    }
}

impl LogLevels {
    /// Begins with `log.level`, which is in effect already.
    pub fn new(filter: LogFilter, level: &str) -> Self {
        Self { filter, base: level.to_owned(), overrides: Vec::new() }
    }

    /// Does what is asked. Errors: `bad_request` for a level or a target that is not known, and for a time that is
    /// none or more than a day.
    pub fn execute(&mut self, request: LogRequest, now: Instant) -> Result<Answer, CommandError> {
        match request {
            LogRequest::Show => {}
            LogRequest::Set { level, target, for_ms } => self.set(&level, target.as_deref(), for_ms, now)?,
            LogRequest::Reset => self.keep(|_| false),
        }
        Ok(Answer::Log(self.answer()))
    }

    fn set(
        &mut self,
        level: &str,
        target: Option<&str>,
        for_ms: Option<u64>,
        now: Instant,
    ) -> Result<(), CommandError> {
        let level = one_of(&LOG_LEVELS, level, "level")?;
        let target = target.map(|target| one_of(&LOG_TARGETS, target, "target")).transpose()?;
        let lasts = for_ms.map(Duration::from_millis);
        if lasts.is_some_and(|lasts| lasts.is_zero() || lasts > FOR_MAX) {
            return refuse(format!("for_ms must be 1 to {}", FOR_MAX.as_millis()));
        }
        self.overrides.retain(|set| set.target != target);
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let until_unix_ms = lasts.map(|lasts| (unix + lasts).as_millis() as u64);
        let until = lasts.map(|lasts| now + lasts);
        self.overrides.push(Override { target, level, until, until_unix_ms });
        self.overrides.sort_by_key(|set| set.target);
        self.apply();
        let until = for_ms.map_or("until it is reset".to_owned(), |ms| format!("for {ms} ms"));
        // At the level that is least likely to be filtered by what was just set.
        tracing::warn!("log levels set {until}: {}", self.text());
        Ok(())
    }

    /// Ends those that `keep` does not keep.
    fn keep(&mut self, keep: impl Fn(&Override) -> bool) {
        let before = self.overrides.len();
        self.overrides.retain(keep);
        if self.overrides.len() < before {
            self.apply();
            tracing::warn!("log levels set back: {}", self.text());
        }
    }

    /// Another `log.level`, below what is set.
    pub fn rebase(&mut self, level: &str) {
        if self.base != level {
            level.clone_into(&mut self.base);
            self.apply();
        }
    }

    /// Ends what is over.
    pub fn handle_tick(&mut self, now: Instant) {
        self.keep(|set| set.until.is_none_or(|until| now < until));
    }

    /// How long until the next one is over.
    pub fn due_in(&self, now: Instant) -> Option<Duration> {
        let next = self.overrides.iter().filter_map(|set| set.until).min()?;
        Some(next.saturating_duration_since(now))
    }

    fn apply(&self) {
        self.filter.set(&self.text());
    }

    /// As `log.level` is written. Of two entries for one module the later one counts.
    fn text(&self) -> String {
        let all = self.overrides.iter().find(|set| set.target.is_none());
        let mut text = all.map_or(self.base.clone(), |set| set.level.to_owned());
        for Override { target, level, .. } in &self.overrides {
            if let Some(target) = target {
                text += &format!(",corecast::{target}={level}");
            }
        }
        text
    }

    fn answer(&self) -> LogAnswer {
        let shown = |set: &Override| LogOverride {
            target: set.target.map(str::to_owned),
            level: set.level.to_owned(),
            until: set.until_unix_ms,
        };
        LogAnswer {
            filter: self.text(),
            level: self.base.clone(),
            overrides: self.overrides.iter().map(shown).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Levels over `base`, and the filters that were set.
    fn levels(base: &str) -> (LogLevels, Arc<Mutex<Vec<String>>>) {
        let filters = Arc::new(Mutex::new(Vec::new()));
        let kept = filters.clone();
        let filter = LogFilter::new(move |text| kept.lock().unwrap().push(text.to_owned()));
        (LogLevels::new(filter, base), filters)
    }

    fn set(level: &str, target: Option<&str>, for_ms: Option<u64>) -> LogRequest {
        LogRequest::Set { level: level.to_owned(), target: target.map(str::to_owned), for_ms }
    }

    #[test]
    fn issue_7_a_level_ends_by_itself_and_the_configured_one_counts_again() {
        let (mut levels, filters) = levels("info");
        let now = Instant::now();
        levels.execute(set("debug", Some("shard"), Some(60_000)), now).unwrap();
        assert_eq!(levels.due_in(now), Some(Duration::from_secs(60)));
        levels.handle_tick(now + Duration::from_millis(59_999));
        levels.handle_tick(now + Duration::from_millis(60_000));
        assert_eq!(*filters.lock().unwrap(), ["info,corecast::shard=debug", "info"]);
        assert_eq!(levels.due_in(now), None);
    }

    #[test]
    fn issue_7_a_reload_changes_what_lies_below_and_leaves_what_is_set() {
        let (mut levels, filters) = levels("info");
        let now = Instant::now();
        levels.execute(set("debug", Some("shard"), Some(1000)), now).unwrap();
        levels.rebase("warn");
        levels.rebase("warn");
        levels.handle_tick(now + Duration::from_secs(1));
        let set = filters.lock().unwrap().clone();
        assert_eq!(set, ["info,corecast::shard=debug", "warn,corecast::shard=debug", "warn"]);
    }

    #[test]
    fn issue_7_there_is_one_level_for_each_target_and_one_for_the_rest() {
        let (mut levels, filters) = levels("info,corecast::shard=warn");
        let now = Instant::now();
        for (level, target) in [("debug", Some("shard")), ("error", None), ("trace", Some("shard"))] {
            levels.execute(set(level, target, None), now).unwrap();
        }
        let last = filters.lock().unwrap().last().cloned();
        assert_eq!(last.as_deref(), Some("error,corecast::shard=trace"));
        levels.execute(LogRequest::Reset, now).unwrap();
        assert_eq!(filters.lock().unwrap().last().unwrap(), "info,corecast::shard=warn");
    }

    #[test]
    fn issue_7_what_is_not_known_is_refused_with_what_is_and_changes_nothing() {
        let (mut levels, filters) = levels("info");
        let mut refused = |request| levels.execute(request, Instant::now()).unwrap_err().message;
        let message = refused(set("DEBUG", None, None));
        assert_eq!(message, "\"DEBUG\" is no level: it is one of off, error, warn, info, debug, trace");
        let message = refused(set("debug", Some("shard::tape=trace,x"), None));
        assert!(message.ends_with("it is one of cli, control, gateway, service, shard"), "{message}");
        assert_eq!(refused(set("debug", None, Some(0))), "for_ms must be 1 to 86400000");
        refused(set("debug", None, Some(86_400_001)));
        assert!(filters.lock().unwrap().is_empty());
    }
}
