//! Texts with variables: `{{name}}`, compiled once, rendered for every connection or message.
//!
//! `{{number:6}}` is padded with zeros to six digits, `{{user|url}}` percent-encoded for a URL. Braces that
//! do not open with `{{` are text, as in JSON. Who `name` is, the caller says.

use std::borrow::Cow;
use std::fmt;

/// What every template may name; other names are columns of `--csv`.
///
/// `number` is the connection's, `group` its group, `to` and `payload` are of a message, `next` is where a
/// long poll goes on, `random` 16 hex digits.
pub const BUILTINS: [&str; 6] = ["number", "group", "to", "payload", "next", "random"];
/// Those that `:6` pads.
const NUMBERS: [&str; 2] = ["number", "group"];
/// More digits than a u64 has are a slip of the hand.
const DIGITS_MAX: usize = 20;
/// How much of a text an error shows, in characters.
const SHOWN_CHARS: usize = 24;

/// A compiled text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Text(String),
    Variable(Variable),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Variable {
    name: String,
    /// Pad with zeros to so many digits.
    digits: usize,
    percent_encoded: bool,
}

/// A text that is no template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadTemplate {
    /// Where the braces open, in bytes from the front.
    pub at: usize,
    /// The text from there, cut short.
    pub shown: String,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a `{{...}}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No `}}`.
    Unclosed,
    /// No name that a column could have.
    Name,
    /// Something else than digits behind the colon, or too many.
    Digits,
    /// Digits for what is no number.
    NoNumber,
    /// Something else than `url` behind the bar.
    Encoding,
}

impl fmt::Display for BadTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, shown, fault } = self;
        let why = match fault {
            Fault::Unclosed => "no }} closes it",
            Fault::Name => "a name is letters, digits, '_', '-' and '.'",
            Fault::Digits => "the digits to pad to are 1 to 20, as in {{number:6}}",
            Fault::NoNumber => "only {{number}} and {{group}} can be padded",
            Fault::Encoding => "the one encoding is url, as in {{name|url}}",
        };
        write!(f, "{shown} (at byte {at}): {why}")
    }
}

impl Template {
    /// Compiles a text. Whether its names exist is for the caller to see (`names`).
    pub fn parse(text: &str) -> Result<Self, BadTemplate> {
        let mut segments = Vec::new();
        let mut at = 0;
        while let Some(open) = text[at..].find("{{").map(|found| at + found) {
            let bad = |fault| BadTemplate { at: open, shown: shown(&text[open..]), fault };
            let inside = &text[open + 2..];
            let close = inside.find("}}").ok_or_else(|| bad(Fault::Unclosed))?;
            push_text(&mut segments, &text[at..open]);
            segments.push(Segment::Variable(variable(&inside[..close]).map_err(bad)?));
            at = open + 2 + close + 2;
        }
        push_text(&mut segments, &text[at..]);
        Ok(Self { segments })
    }

    /// The names of its variables, in order, as often as they stand there.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Variable(variable) => Some(&*variable.name),
            Segment::Text(_) => None,
        })
    }

    /// Appends the text to `out`. `value` knows the variables; one that has no value now, as `next` before the
    /// first answer, is left out.
    pub fn render<'v>(&self, value: &dyn Fn(&str) -> Option<Cow<'v, str>>, out: &mut Vec<u8>) {
        for segment in &self.segments {
            match segment {
                Segment::Text(text) => out.extend_from_slice(text.as_bytes()),
                Segment::Variable(variable) => {
                    if let Some(value) = value(&variable.name) {
                        variable.write(&value, out);
                    }
                }
            }
        }
    }
}

impl Variable {
    fn write(&self, value: &str, out: &mut Vec<u8>) {
        out.extend(std::iter::repeat_n(b'0', self.digits.saturating_sub(value.len())));
        if self.percent_encoded {
            percent_encode(value.as_bytes(), out);
        } else {
            out.extend_from_slice(value.as_bytes());
        }
    }
}

/// Whether a template could name it.
pub fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

/// Appends `text`, everything but RFC 3986's unreserved characters (2.3) as `%XX`.
pub fn percent_encode(text: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            out.push(*byte);
        } else {
            let digit = |nibble: u8| b"0123456789ABCDEF"[usize::from(nibble)];
            out.extend([b'%', digit(byte >> 4), digit(byte & 0xf)]);
        }
    }
}

fn push_text(segments: &mut Vec<Segment>, text: &str) {
    if !text.is_empty() {
        segments.push(Segment::Text(text.to_owned()));
    }
}

/// What stands between the braces: `name`, `name:6`, `name|url`, with spaces around each.
fn variable(inside: &str) -> Result<Variable, Fault> {
    let (rest, encoding) = match inside.split_once('|') {
        Some((rest, encoding)) => (rest, Some(encoding.trim())),
        None => (inside, None),
    };
    let (name, digits) = match rest.split_once(':') {
        Some((name, digits)) => (name.trim(), Some(digits.trim())),
        None => (rest.trim(), None),
    };
    if !is_name(name) {
        return Err(Fault::Name);
    }
    if digits.is_some() && !NUMBERS.contains(&name) {
        return Err(Fault::NoNumber);
    }
    if encoding.is_some_and(|encoding| encoding != "url") {
        return Err(Fault::Encoding);
    }
    // `parse` would take a sign.
    let digits = match digits {
        Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            let digits = text.parse().ok().filter(|digits| (1..=DIGITS_MAX).contains(digits));
            digits.ok_or(Fault::Digits)?
        }
        Some(_) => return Err(Fault::Digits),
        None => 0,
    };
    Ok(Variable { name: name.to_owned(), digits, percent_encoded: encoding.is_some() })
}

fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_CHARS).collect();
    if shown.len() < text.len() {
        shown.push_str("...");
    }
    shown
}
