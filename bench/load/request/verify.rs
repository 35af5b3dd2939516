//! Whether a response is what it must be.

use std::fmt;

use memchr::memmem::Finder;
use serde_json::Value;
use serde_json_path::JsonPath;

use crate::plan::Check;

/// How much of what was found an error shows, in bytes.
const SHOWN_BYTES: usize = 60;

/// Compiled checks. All must hold; none hold always.
#[derive(Debug, Default)]
pub struct Checks {
    statuses: Vec<u16>,
    contained: Vec<Finder<'static>>,
    equal: Vec<Equal>,
}

#[derive(Debug)]
struct Equal {
    path: JsonPath,
    value: Value,
}

/// A check whose JSON path (RFC 9535) is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadCheck {
    /// The path.
    pub path: String,
    /// What is wrong.
    pub why: String,
}

impl fmt::Display for BadCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no JSON path: {}", self.path, self.why)
    }
}

/// The first check that does not hold, and what was found; for people, so cut short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failed {
    /// Another status; `None` where a message has none.
    Status {
        /// What it should be.
        wanted: u16,
        /// What it is.
        found: Option<u16>,
    },
    /// The text is not there.
    Contains {
        /// The text.
        wanted: String,
        /// The front of the body.
        found: String,
    },
    /// Other JSON at the path, or none.
    JsonEquals {
        /// The path.
        path: String,
        /// What should be there.
        wanted: String,
        /// What is there instead; the front of the body where that is no JSON.
        found: String,
    },
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status { wanted, found: Some(found) } => write!(f, "status is {found}, not {wanted}"),
            Self::Status { wanted, found: None } => write!(f, "there is no status, it should be {wanted}"),
            Self::Contains { wanted, found } => write!(f, "no {wanted:?} in {found}"),
            Self::JsonEquals { path, wanted, found } => write!(f, "{path} is not {wanted}: {found}"),
        }
    }
}

impl Checks {
    /// Compiles the checks of a plan.
    pub fn compile(checks: &[Check]) -> Result<Self, BadCheck> {
        let mut compiled = Self::default();
        for check in checks {
            match check {
                Check::Status(status) => compiled.statuses.push(*status),
                Check::Contains(text) => compiled.contained.push(Finder::new(text).into_owned()),
                Check::JsonEquals(path, value) => {
                    let parsed = JsonPath::parse(path);
                    let bad = |why: String| BadCheck { path: path.clone(), why };
                    let path = parsed.map_err(|error| bad(error.to_string()))?;
                    compiled.equal.push(Equal { path, value: value.clone() });
                }
            }
        }
        Ok(compiled)
    }

    /// Whether a status is named: then that one is right, whatever it says.
    pub fn names_status(&self) -> bool {
        !self.statuses.is_empty()
    }

    /// Judges a response: its status, `None` for a WebSocket message, then its body.
    ///
    /// A JSON check holds where there is something at its path and all of it is the wanted value; numbers are
    /// compared by value, so 1 is 1.0.
    pub fn judge(&self, status: Option<u16>, body: &[u8]) -> Result<(), Failed> {
        if let Some(wanted) = self.statuses.iter().copied().find(|wanted| Some(*wanted) != status) {
            return Err(Failed::Status { wanted, found: status });
        }
        if let Some(missing) = self.contained.iter().find(|text| text.find(body).is_none()) {
            let wanted = String::from_utf8_lossy(missing.needle()).into_owned();
            return Err(Failed::Contains { wanted, found: shown(body) });
        }
        if self.equal.is_empty() {
            return Ok(());
        }
        let body = serde_json::from_slice(body).map_err(|_| format!("no JSON: {}", shown(body)));
        self.equal.iter().try_for_each(|check| match &body {
            Ok(value) => check.judge(value),
            Err(found) => Err(check.failed(found.clone())),
        })
    }
}

impl Equal {
    fn judge(&self, body: &Value) -> Result<(), Failed> {
        let found = self.path.query(body);
        if found.is_empty() {
            return Err(self.failed("nothing is there".to_owned()));
        }
        match found.iter().find(|found| !is_same(found, &self.value)) {
            Some(other) => Err(self.failed(shown(other.to_string().as_bytes()))),
            None => Ok(()),
        }
    }

    fn failed(&self, found: String) -> Failed {
        Failed::JsonEquals {
            path: self.path.to_string(),
            wanted: shown(self.value.to_string().as_bytes()),
            found,
        }
    }
}

fn is_same(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        // Whole numbers are compared as such: as floats, neighbours beyond 2^53 would be the same.
        (Value::Number(found), Value::Number(wanted)) if found.is_f64() != wanted.is_f64() => {
            found.as_f64() == wanted.as_f64()
        }
        _ => found == wanted,
    }
}

/// The front of a text, in one line.
fn shown(text: &[u8]) -> String {
    if text.is_empty() {
        return "an empty body".to_owned();
    }
    let front = String::from_utf8_lossy(&text[..text.len().min(SHOWN_BYTES)]);
    let dots = if text.len() > SHOWN_BYTES { "..." } else { "" };
    let line: String = front.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("{line}{dots}")
}
