//! Puts a profile into effect, and back: the file in sysctl.d, the values in /proc/sys, and a record of both
//! as they were before.
//!
//! Nothing is changed before the record is on the disk, and what fails in between is put back. `Places` says
//! where all this lies, so that tests stay off the host that they run on.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::facts;
use super::need::Need;
use super::profile::{self, FILE_NAME, Setting, written};

/// Where the kernel's settings, their files and the record lie.
#[derive(Clone, Debug)]
pub struct Places {
    /// `/proc/sys`
    pub proc_sys: PathBuf,
    /// `/etc/sysctl.d`
    pub sysctl_d: PathBuf,
    /// `/var/lib/corecast`
    pub state: PathBuf,
}

impl Places {
    /// Below `root`, which is `/` for the host itself.
    pub fn below(root: &Path) -> Self {
        Self {
            proc_sys: root.join("proc/sys"),
            sysctl_d: root.join("etc/sysctl.d"),
            state: root.join("var/lib/corecast"),
        }
    }

    /// The file that is written.
    pub fn file(&self) -> PathBuf {
        self.sysctl_d.join(FILE_NAME)
    }

    fn record(&self) -> PathBuf {
        self.state.join("tune.json")
    }

    /// Where a file goes that somebody has edited since.
    fn edited(&self) -> PathBuf {
        self.state.join("99-corecast.conf.edited")
    }
}

/// Why the settings were not changed; everything is as it was before, except after `Stuck`.
#[derive(Debug)]
pub enum TuneError {
    /// Another user than root.
    NotRoot,
    /// `/proc/sys` cannot be written: a container.
    ReadOnly {
        /// The first key that was tried.
        key: String,
        /// Why not.
        error: io::Error,
    },
    /// There is no record: nothing was applied.
    NothingToUndo {
        /// Where it was looked for.
        record: PathBuf,
    },
    /// The kernel refused a value.
    Refused {
        /// Which key.
        key: String,
        /// The value.
        value: String,
        /// Why.
        error: io::Error,
    },
    /// A file could not be read or written.
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Something failed, and so did putting it back.
    Stuck {
        /// What failed first.
        first: Box<TuneError>,
        /// What is not as it was before.
        keys: Vec<String>,
    },
}

impl fmt::Display for TuneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRoot => write!(
                f,
                "only root may change kernel settings\ntry: sudo corecast tune, or without --apply to see them"
            ),
            Self::ReadOnly { key, error } => write!(
                f,
                "{key} cannot be written: {error}\n\
                 likely cause: this is a container, which has /proc/sys read-only\n\
                 try: corecast tune --apply on the host; docker run --sysctl for net.* keys of the container"
            ),
            Self::NothingToUndo { record } => write!(
                f,
                "nothing to undo: there is no {}\n\
                 likely cause: corecast tune --apply was never run here, or is undone already",
                record.display()
            ),
            Self::Refused { key, value, error } => write!(
                f,
                "the kernel refused {key} = {value}: {error}; everything is as it was before\n\
                 try: sysctl -w '{key}={value}' to see it again; fewer --connections"
            ),
            Self::File { path, error } => {
                write!(f, "{}: {error}; everything is as it was before", path.display())
            }
            Self::Stuck { first, keys } => {
                write!(f, "{first}\nbut not put back: {}\ntry: corecast tune --undo", keys.join(", "))
            }
        }
    }
}

impl std::error::Error for TuneError {}

/// What was there before, and what was written: enough to go back.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    /// The file's text before; none where there was no file.
    file: Option<String>,
    /// Values before, of all keys that are set here.
    values: BTreeMap<String, Vec<u64>>,
    /// Values as set here. Another one in force is somebody else's, and counts as the one before next time.
    set: BTreeMap<String, Vec<u64>>,
    /// The file's text as written here.
    written: String,
    /// Whether the state's directory was made for this record.
    directory_made: bool,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Keys that were set, with their old and new values.
    pub values: Vec<(String, String, String)>,
    /// What became of the file: `written`, `removed`, `put back`, `unchanged`.
    pub file: &'static str,
    /// Where a file went that had been edited since.
    pub edited: Option<PathBuf>,
}

/// The settings for `need` here. Where a value in force is one that an earlier `apply` set, the one before
/// that counts, so that the same need gives the same file again.
///
/// Errors: `File` where the record cannot be read.
pub fn plan(places: &Places, need: &Need) -> Result<Vec<Setting>, TuneError> {
    Ok(plan_after(places, need, read_record(places)?.as_ref()))
}

fn plan_after(places: &Places, need: &Need, record: Option<&Record>) -> Vec<Setting> {
    let before = |key: &str| {
        let live = facts::sysctl_below(&places.proc_sys, key)?;
        let is_ours = |record: &&Record| record.set.get(key) == Some(&live);
        Some(record.filter(is_ours).and_then(|record| record.values.get(key).cloned()).unwrap_or(live))
    };
    profile::settings(need, &before)
}

/// Writes the file for `need` and sets the values. Doing it again changes nothing; for another need, keys
/// that it leaves alone go back to their values from before.
///
/// Errors: every `TuneError` but `NothingToUndo`.
pub fn apply(places: &Places, need: &Need, is_root: bool) -> Result<Done, TuneError> {
    may_write(is_root)?;
    let old = read_record(places)?;
    let settings = plan_after(places, need, old.as_ref());
    let text = profile::render(need, &settings);
    let current = read_file(&places.file())?;
    let target: BTreeMap<String, Vec<u64>> =
        settings.iter().map(|setting| (setting.key.to_owned(), setting.target().to_vec())).collect();
    let changes = changes(places, &target);
    can_write(places, &changes)?;
    let mut record = match &old {
        Some(old) => old.clone(),
        None => Record::of(current.clone(), make_directory(&places.state)?),
    };
    let mut done = Done { file: "unchanged", ..Done::default() };
    if old.is_some() {
        done.edited = keep_edited(places, current.as_deref(), &record)?;
    }
    record.note(&settings, &text);
    let carry_out = || {
        write_record(places, &record)?;
        set_all(places, &changes)?;
        if current.as_ref() != Some(&text) {
            let put_back = |_: &TuneError| put_back(places, &changes);
            write_atomically(&places.file(), &text, 0o644).inspect_err(put_back)?;
            return Ok("written");
        }
        Ok("unchanged")
    };
    match (carry_out(), &old) {
        (Ok(file), _) => done.file = file,
        // What could not be put back now can be later: the record stays.
        (Err(stuck @ TuneError::Stuck { .. }), _) => return Err(stuck),
        (Err(error), Some(old)) => {
            write_record(places, old)?;
            return Err(error);
        }
        (Err(error), None) => {
            forget(places, &record);
            return Err(error);
        }
    }
    done.values = told(&changes);
    Ok(done)
}

impl Record {
    /// Nothing was changed yet.
    fn of(file: Option<String>, directory_made: bool) -> Self {
        let (values, set) = (BTreeMap::new(), BTreeMap::new());
        Self { file, values, set, written: String::new(), directory_made }
    }

    /// What `settings` will change, and the file.
    fn note(&mut self, settings: &[Setting], text: &str) {
        for setting in settings {
            let key = setting.key.to_owned();
            match &setting.change {
                Some(change) => {
                    self.values.insert(key.clone(), setting.before.clone());
                    self.set.insert(key, change.clone());
                }
                // It is as before, or as somebody else has set it: either way not for `undo` to touch.
                None => {
                    self.values.remove(&key);
                    self.set.remove(&key);
                }
            }
        }
        text.clone_into(&mut self.written);
    }
}

/// Puts the values and the file back as they were before the first `apply`.
///
/// Errors: every `TuneError`.
pub fn undo(places: &Places, is_root: bool) -> Result<Done, TuneError> {
    may_write(is_root)?;
    let Some(record) = read_record(places)? else {
        return Err(TuneError::NothingToUndo { record: places.record() });
    };
    let changes = changes(places, &record.values);
    can_write(places, &changes)?;
    let current = read_file(&places.file())?;
    let edited = keep_edited(places, current.as_deref(), &record)?;
    set_all(places, &changes)?;
    let file = match &record.file {
        Some(before) if current.as_ref() == Some(before) => "unchanged",
        Some(before) => {
            write_atomically(&places.file(), before, 0o644).inspect_err(|_| put_back(places, &changes))?;
            "put back"
        }
        None => remove(&places.file()).inspect_err(|_| put_back(places, &changes))?,
    };
    forget(places, &record);
    Ok(Done { values: told(&changes), file, edited })
}

fn may_write(is_root: bool) -> Result<(), TuneError> {
    if is_root { Ok(()) } else { Err(TuneError::NotRoot) }
}

/// A value to set, and what is there now.
struct Change {
    key: String,
    now: Vec<u64>,
    value: Vec<u64>,
}

/// What of `target` is not so yet. A key that is gone is left out.
fn changes(places: &Places, target: &BTreeMap<String, Vec<u64>>) -> Vec<Change> {
    let change = |(key, value): (&String, &Vec<u64>)| {
        let now = facts::sysctl_below(&places.proc_sys, key)?;
        (now != *value).then(|| Change { key: key.clone(), now, value: value.clone() })
    };
    target.iter().filter_map(change).collect()
}

fn told(changes: &[Change]) -> Vec<(String, String, String)> {
    let one = |change: &Change| (change.key.clone(), written(&change.now), written(&change.value));
    changes.iter().map(one).collect()
}

fn path_of(places: &Places, key: &str) -> PathBuf {
    places.proc_sys.join(key.replace('.', "/"))
}

/// Opens every key for writing, so that a read-only /proc/sys is found out before anything is changed.
fn can_write(places: &Places, changes: &[Change]) -> Result<(), TuneError> {
    for change in changes {
        OpenOptions::new()
            .write(true)
            .open(path_of(places, &change.key))
            .map_err(|error| TuneError::ReadOnly { key: change.key.clone(), error })?;
    }
    Ok(())
}

fn set(places: &Places, key: &str, value: &[u64]) -> Result<(), TuneError> {
    let refused = |error| TuneError::Refused { key: key.to_owned(), value: written(value), error };
    // One write of the whole value: the kernel takes each write for all of it.
    let mut file =
        OpenOptions::new().write(true).truncate(true).open(path_of(places, key)).map_err(refused)?;
    file.write_all(format!("{}\n", written(value)).as_bytes()).map_err(refused)?;
    match facts::sysctl_below(&places.proc_sys, key) {
        Some(now) if now == value => Ok(()),
        // Some keys take any number and keep what they can.
        _ => Err(refused(io::Error::other("it was taken, and another value is there"))),
    }
}

/// Sets all, or none: what was set before one that fails goes back.
fn set_all(places: &Places, changes: &[Change]) -> Result<(), TuneError> {
    for (index, change) in changes.iter().enumerate() {
        let Err(first) = set(places, &change.key, &change.value) else { continue };
        let mut keys = Vec::new();
        for earlier in &changes[..=index] {
            if set(places, &earlier.key, &earlier.now).is_err() {
                keys.push(earlier.key.clone());
            }
        }
        if keys.is_empty() {
            return Err(first);
        }
        return Err(TuneError::Stuck { first: Box::new(first), keys });
    }
    Ok(())
}

/// After the file failed: the values again as they were. A refusal here could not be told any better.
fn put_back(places: &Places, changes: &[Change]) {
    for change in changes {
        let _ = set(places, &change.key, &change.now);
    }
}

fn read_file(path: &Path) -> Result<Option<String>, TuneError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(TuneError::File { path: path.to_owned(), error }),
    }
}

fn remove(path: &Path) -> Result<&'static str, TuneError> {
    match fs::remove_file(path) {
        Ok(()) => Ok("removed"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok("unchanged"),
        Err(error) => Err(TuneError::File { path: path.to_owned(), error }),
    }
}

fn read_record(places: &Places) -> Result<Option<Record>, TuneError> {
    let path = places.record();
    let Some(text) = read_file(&path)? else { return Ok(None) };
    let record = serde_json::from_str(&text);
    record.map(Some).map_err(|error| TuneError::File { path, error: error.into() })
}

fn write_record(places: &Places, record: &Record) -> Result<(), TuneError> {
    let text = serde_json::to_string_pretty(record).map_err(io::Error::from);
    let text = text.map_err(|error| TuneError::File { path: places.record(), error })?;
    write_atomically(&places.record(), &(text + "\n"), 0o600)
}

/// What is undone leaves nothing behind, but for a file that somebody edited. What cannot be removed does no
/// harm: undoing twice sets the same values.
fn forget(places: &Places, record: &Record) {
    let _ = fs::remove_file(places.record());
    if record.directory_made {
        let _ = fs::remove_dir(&places.state);
    }
}

/// Keeps `current` where it is neither what was written here nor what was there before. Gives the place.
fn keep_edited(
    places: &Places,
    current: Option<&str>,
    record: &Record,
) -> Result<Option<PathBuf>, TuneError> {
    let Some(text) = current.filter(|text| *text != record.written && Some(*text) != record.file.as_deref())
    else {
        return Ok(None);
    };
    write_atomically(&places.edited(), text, 0o644)?;
    Ok(Some(places.edited()))
}

/// Makes `path` and tells whether it was not there.
fn make_directory(path: &Path) -> Result<bool, TuneError> {
    let made = !path.exists();
    fs::create_dir_all(path).map_err(|error| TuneError::File { path: path.to_owned(), error })?;
    Ok(made)
}

/// The whole new text or the whole old one, whenever the power goes: a new file, synced, renamed over the
/// old.
fn write_atomically(path: &Path, text: &str, mode: u32) -> Result<(), TuneError> {
    let failed = |error| TuneError::File { path: path.to_owned(), error };
    let directory = path.parent().unwrap_or(Path::new("/"));
    // sysctl.d reads only names that end in .conf.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = directory.join(format!(".{name}.new"));
    let write = || {
        fs::create_dir_all(directory)?;
        let _ = fs::remove_file(&new);
        let mut options = OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
        let mut file = options.write(true).create_new(true).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&new);
        failed(error)
    })
}
