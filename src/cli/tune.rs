//! `corecast tune`: the kernel settings for a number of connections, shown, applied, undone.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::check::need_of;
use super::failure::Failure;
use super::serve::ConfigFlags;
use super::table::{aligned, counted};
use super::{print_json, print_line};
use crate::host::facts::{Facts, sysctl_below};
use crate::host::need::Need;
use crate::host::profile::{self, Setting, written};
use crate::host::tune::{self, Done, Places};

/// `corecast tune`
#[derive(Debug, Args)]
pub(super) struct TuneFlags {
    #[command(flatten)]
    flags: ConfigFlags,
    /// For how many connections, instead of limits.connections, or where that is 0 what the descriptor limit
    /// leaves room for
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=u64::from(u32::MAX)))]
    connections: Option<u64>,
    /// Write /etc/sysctl.d/99-corecast.conf and set the values now (root)
    #[arg(long)]
    apply: bool,
    /// Put the file and the values back as they were before the first --apply (root)
    #[arg(long, conflicts_with_all = ["apply", "connections"])]
    undo: bool,
    /// Print the file instead
    #[arg(long, conflicts_with_all = ["apply", "undo", "json"])]
    print: bool,
    /// Print JSON instead
    #[arg(long)]
    json: bool,
    /// Take this directory for / (for tests)
    #[arg(long, value_name = "DIR", hide = true, default_value = "/")]
    root: PathBuf,
}

/// Shows, applies or undoes. Errors: `Failure::Tune`.
pub(super) fn tune(flags: &TuneFlags, out: &mut dyn Write) -> Result<(), Failure> {
    let places = Places::below(&flags.root);
    let is_root = flags.root != Path::new("/") || rustix::process::geteuid().is_root();
    if flags.undo {
        let done = tune::undo(&places, is_root).map_err(Failure::Tune)?;
        return tell(&done, &places, None, flags.json, out);
    }
    let config = flags.flags.load(None)?;
    let facts = Facts::read(None);
    let need = need_of(&config, flags.connections, &facts);
    let settings = tune::plan(&places, &need).map_err(Failure::Tune)?;
    if flags.print {
        return write!(out, "{}", profile::render(&need, &settings)).map_err(Failure::Output);
    }
    if !flags.json {
        let text = difference(&places, &settings) + &memory_warning(&need, &facts);
        write!(out, "{text}").map_err(Failure::Output)?;
    }
    if !flags.apply {
        return show(&need, &places, &settings, flags.json, out);
    }
    let done = tune::apply(&places, &need, is_root).map_err(Failure::Tune)?;
    tell(&done, &places, Some(&need), flags.json, out)
}

/// Every setting: its value now, the least that is enough, and what it is set to where that is another.
fn difference(places: &Places, settings: &[Setting]) -> String {
    let mut rows = vec![["KEY", "NOW", "NEEDED", "PROFILE"].map(str::to_owned).to_vec()];
    for setting in settings {
        let now = sysctl_below(&places.proc_sys, setting.key).unwrap_or_default();
        let target = setting.target();
        let profile = if target == now { "as it is".to_owned() } else { written(target) };
        rows.push(vec![setting.key.to_owned(), written(&now), written(&setting.needed), profile]);
    }
    aligned(&rows)
}

/// Settings for more than the memory holds are written as asked, but not without a word: `tcp_mem` is the
/// limit that keeps TCP from taking all of it.
fn memory_warning(need: &Need, facts: &Facts) -> String {
    let room = facts.memory_available_bytes.map_or(u64::MAX, |bytes| need.clients_of_memory(bytes));
    if room >= need.connections {
        return String::new();
    }
    format!(
        "\nthe memory of this host has room for {} only: corecast check --connections {}\n",
        counted(room, "idle connection"),
        need.connections
    )
}

/// What would be done.
fn show(
    need: &Need,
    places: &Places,
    settings: &[Setting],
    is_json: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let connections = need.connections;
    if !is_json {
        return print_line(
            out,
            &format!(
                "\nnothing is changed; corecast tune --connections {connections} --apply writes {} and sets these",
                places.file().display()
            ),
        );
    }
    let setting = |setting: &Setting| {
        json!({
            "key": setting.key,
            "now": sysctl_below(&places.proc_sys, setting.key),
            "before": setting.before,
            "needed": setting.needed,
            "profile": setting.target(),
        })
    };
    let settings: Vec<_> = settings.iter().map(setting).collect();
    print_json(out, &json!({ "connections": connections, "file": places.file(), "settings": settings }))
}

/// What was done; `need` where it was applied, none where it was undone.
fn tell(
    done: &Done,
    places: &Places,
    need: Option<&Need>,
    is_json: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    if is_json {
        let value =
            |(key, old, new): &(String, String, String)| json!({ "key": key, "old": old, "new": new });
        let values: Vec<_> = done.values.iter().map(value).collect();
        let file = json!({ "path": places.file(), "done": done.file, "edited": done.edited });
        return print_json(out, &json!({ "values": values, "file": file }));
    }
    let mut text = if need.is_some() { "\n".to_owned() } else { String::new() };
    for (key, old, new) in &done.values {
        text += &format!("{key} = {new}, was {old}\n");
    }
    text += &format!("{} {}\n", places.file().display(), done.file);
    if let Some(edited) = &done.edited {
        text += &format!("it had been edited since; that text is kept in {}\n", edited.display());
    }
    text += &match need {
        Some(_) if done.values.iter().any(|(key, ..)| key == "net.core.somaxconn") => {
            "restart the gateway: it asks for its backlog when it starts\n".to_owned()
        }
        Some(need) if done.values.is_empty() => {
            format!("the host was tuned for {} already\n", counted(need.connections, "connection"))
        }
        _ => String::new(),
    };
    write!(out, "{text}").map_err(Failure::Output)
}
