//! The variables of each connection: a CSV file (RFC 4180) with their names in its first line.
//!
//! Kept as one text and the ends of its cells, 4 bytes each: a million rows of a user and a token cost
//! little more than the file.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use csv::{ErrorKind, ReaderBuilder, StringRecord, Trim};

use super::template::{BUILTINS, is_name};

/// The rows of a file.
#[derive(Debug)]
pub struct Variables {
    names: Vec<String>,
    /// Cell after cell, row after row.
    text: String,
    /// Where each cell ends in `text`.
    ends: Vec<u32>,
}

/// A file that cannot be used, and where.
#[derive(Debug)]
pub struct BadVariables {
    /// The file, as it was given.
    pub file: String,
    /// The line, where one is to blame, from 1 up.
    pub line: Option<u64>,
    /// What is wrong, for people.
    pub why: String,
}

impl fmt::Display for BadVariables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        write!(f, ": {}", self.why)
    }
}

impl Variables {
    /// Reads a file. Errors: as `read`.
    pub fn open(path: &Path) -> Result<Self, BadVariables> {
        let name = path.display().to_string();
        match File::open(path) {
            Ok(file) => Self::read(&name, file),
            Err(error) => Err(BadVariables { file: name, line: None, why: error.to_string() }),
        }
    }

    /// Reads all of `input`; `file` is its name in errors.
    ///
    /// Errors: it cannot be read, is not UTF-8, has no rows, rows of different lengths, or a name that is
    /// empty, there twice, or a builtin's.
    pub fn read(file: &str, input: impl Read) -> Result<Self, BadVariables> {
        let bad = |line, why| BadVariables { file: file.to_owned(), line, why };
        let mut reader = ReaderBuilder::new().trim(Trim::Headers).from_reader(input);
        let header = reader.headers().map_err(|error| of_csv(file, &error))?;
        let names = names(header).map_err(|why| bad(Some(1), why))?;
        let (mut text, mut ends) = (String::new(), Vec::new());
        let mut row = StringRecord::new();
        while reader.read_record(&mut row).map_err(|error| of_csv(file, &error))? {
            for cell in &row {
                text.push_str(cell);
                let end = u32::try_from(text.len());
                ends.push(end.map_err(|_| bad(None, "it holds more than 4 GiB".to_owned()))?);
            }
        }
        if ends.is_empty() {
            return Err(bad(None, "it has no rows: one line per connection follows the names".to_owned()));
        }
        // Growth by doubling would cost up to as much again, for as long as the worker lives.
        text.shrink_to_fit();
        ends.shrink_to_fit();
        Ok(Self { names, text, ends })
    }

    /// The columns' names, in order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The value of `name` for connection `number`: the rows are used in turn. `None` for no such column.
    pub fn value(&self, number: u32, name: &str) -> Option<&str> {
        let column = self.names.iter().position(|known| known == name)?;
        let rows = self.ends.len() / self.names.len();
        let cell = (number as usize % rows) * self.names.len() + column;
        let begin = if cell == 0 { 0 } else { self.ends[cell - 1] };
        Some(&self.text[begin as usize..self.ends[cell] as usize])
    }
}

fn names(header: &StringRecord) -> Result<Vec<String>, String> {
    let mut names: Vec<String> = Vec::new();
    if header.is_empty() {
        return Err("it is empty: the first line names the variables".to_owned());
    }
    for name in header {
        if !is_name(name) {
            return Err(format!("{name:?} is no name: letters, digits, '_', '-' and '.'"));
        }
        if BUILTINS.contains(&name) {
            return Err(format!("{{{{{name}}}}} is the tool's own: name the column otherwise"));
        }
        if names.iter().any(|known| known == name) {
            return Err(format!("two columns are named {name:?}"));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

fn of_csv(file: &str, error: &csv::Error) -> BadVariables {
    let why = match error.kind() {
        ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("{} where the first line has {}", fields(*len), fields(*expected_len))
        }
        ErrorKind::Utf8 { .. } => "not UTF-8".to_owned(),
        ErrorKind::Io(error) => error.to_string(),
        _ => error.to_string(),
    };
    let line = error.position().map(csv::Position::line);
    BadVariables { file: file.to_owned(), line, why }
}

fn fields(count: u64) -> String {
    if count == 1 { "1 field".to_owned() } else { format!("{count} fields") }
}
