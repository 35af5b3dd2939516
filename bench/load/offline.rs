//! Modes that connect to nobody: they read reports and print.

use std::io;
use std::io::Write as _;
use std::path::Path;

use crate::arguments::{Compare, Page, Size, StampMode};
use crate::failure::{Failure, Usage};
use crate::wire::stamp::{self, Stamp};
use crate::{cpu, failure, report, size};

/// `compare`
pub fn compare(asked: &Compare) -> Result<(), Failure> {
    let before = report::file::read(&asked.before).map_err(Usage)?;
    let after = report::file::read(&asked.after).map_err(Usage)?;
    let comparison = report::compare::compare(&before, &after);
    if let Some(html) = &asked.html {
        write_page(html, &[&before, &after])?;
    }
    let mut out = io::stdout().lock();
    if asked.json {
        return Ok(writeln!(out, "{}", serde_json::json!(comparison))?);
    }
    Ok(report::compare::print(&comparison, &mut out)?)
}

/// `page`
pub fn page(asked: &Page) -> Result<(), Failure> {
    let report = report::file::read(&asked.report).map_err(Usage)?;
    write_page(&asked.html, &[&report])
}

fn write_page(path: &Path, reports: &[&report::Report]) -> Result<(), Failure> {
    let written = report::file::replace(path, report::html::page(reports).as_bytes());
    written.map_err(|error| failure!("{}: {error}", path.display()))
}

/// `size`
pub fn size(asked: &Size) -> Result<(), Failure> {
    let memory = match &asked.report {
        Some(path) => {
            let report = report::file::read(path).map_err(Usage)?;
            size::Memory::of_report(&report).map_err(Usage)?
        }
        None => size::Memory::default(),
    };
    let estimate = size::estimate(asked, &memory).map_err(Usage)?;
    let mut out = io::stdout().lock();
    if asked.json {
        return Ok(writeln!(out, "{}", serde_json::json!(estimate))?);
    }
    Ok(size::print(&estimate, &mut out)?)
}

/// `stamp`
pub fn stamp(asked: &StampMode) -> Result<(), Failure> {
    let size = asked.size.0 as usize;
    if size < stamp::LENGTH {
        return Err(Usage(format!("--size must be at least {}: a stamp is that long", stamp::LENGTH)).into());
    }
    let at_ns = if asked.wall { cpu::unix_ns() } else { cpu::now_ns() };
    let stamp = Stamp { publisher: asked.publisher, seq: asked.seq, at_ns, wall: asked.wall };
    let mut out = io::stdout().lock();
    out.write_all(&stamp::payload(stamp, size))?;
    Ok(out.write_all(b"\n")?)
}
