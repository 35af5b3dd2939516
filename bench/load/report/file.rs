//! Reports on disk: written whole or not at all, read with words for what is wrong.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{FORMAT, Report};

/// Writes `report` as `--json` does: one JSON object and a line end. Replaces the file whole.
pub fn write(path: &Path, report: &Report) -> io::Result<()> {
    let mut json = serde_json::to_vec(report).map_err(io::Error::other)?;
    json.push(b'\n');
    replace(path, &json)
}

/// Puts `bytes` in the place of what stands at `path`. A reader sees the old file or the new one, never a
/// part, and an error leaves the old one as it was.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // `--json /dev/stdout` and pipes cannot be replaced, only written to.
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return fs::OpenOptions::new().write(true).open(path)?.write_all(bytes);
    }
    let draft = draft_path(path)?;
    let written = fs::File::create_new(&draft)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        // What could not be made cannot be removed either: the first error is the one to tell.
        let _ = fs::remove_file(&draft);
    }
    written
}

/// In the same folder, since a rename does not cross file systems.
fn draft_path(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no file name"))?;
    let mut draft = std::ffi::OsString::from(".");
    draft.push(name);
    draft.push(format!(".{}.part", std::process::id()));
    Ok(path.with_file_name(draft))
}

/// Reads what `write` wrote. The error is a whole message for people.
pub fn read(path: &Path) -> Result<Report, String> {
    let text =
        fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    parse(&text).map_err(|why| format!("{}: {why}", path.display()))
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

fn parse(text: &str) -> Result<Report, String> {
    const TRY: &str = "try: corecast-bench hold URL --json FILE";
    // The version first: of another one the rest need not parse.
    let Format { format } =
        serde_json::from_str(text).map_err(|error| format!("this is no report ({error})\n{TRY}"))?;
    if format != FORMAT {
        return Err(format!(
            "the report has format {format}, this corecast-bench reads format {FORMAT}\n\
             try: the version of corecast-bench that wrote it (`tool` in the file), or run it again"
        ));
    }
    serde_json::from_str(text).map_err(|error| format!("the report is damaged ({error})\n{TRY}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        let report = sample::fanout();
        write(&path, &report).unwrap();
        write(&path, &report).unwrap();
        let read = read(&path).unwrap();
        let [before, after] = [&report, &read].map(|report| serde_json::to_string(report).unwrap());
        // Not `assert_eq`: nobody reads 40 KB.
        assert!(before == after, "a figure has changed on its way");
        let left = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 1, "a draft was left behind");
    }

    #[test]
    fn a_report_that_cannot_be_written_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing").join("report.json");
        assert_eq!(write(&missing, &sample::fanout()).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_pipe_is_written_to_and_not_replaced() {
        replace(Path::new("/dev/null"), b"{}").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn a_report_of_another_format_is_refused_by_name() {
        let mut json = serde_json::to_value(sample::fanout()).unwrap();
        json["format"] = 7.into();
        let why = parse(&json.to_string()).unwrap_err();
        assert!(why.starts_with("the report has format 7, this corecast-bench reads format 1"), "{why}");
        // Another format may lack everything else.
        assert!(parse(r#"{"format":2}"#).unwrap_err().contains("format 2"));
    }

    #[test]
    fn what_is_no_report_is_said_to_be_none() {
        assert!(parse("hello").unwrap_err().starts_with("this is no report"));
        assert!(parse("{}").unwrap_err().starts_with("this is no report"));
        assert!(parse(r#"{"format":1}"#).unwrap_err().starts_with("the report is damaged"));
        let why = read(Path::new("/nonexistent/report.json")).unwrap_err();
        assert!(why.starts_with("cannot read /nonexistent/report.json: "), "{why}");
    }
}
