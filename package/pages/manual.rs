//! Manual pages of section 1: one for each program and one for each of its commands, as git has them.
//!
//! A command's page is what its `--help` says. The program's own page has in addition what belongs to no
//! single command; the statuses come from the README, whose table is held against the code.

use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};

use crate::Page;

const README: &str = include_str!("../../README.md");

const FILES: &[(&str, &str)] = &[
    (
        "/etc/corecast/corecast.toml",
        "The configuration of the service: `corecast.toml(5)`. `--config` names it; unasked it is not read.",
    ),
    ("/run/corecast/control.sock", "The control socket of the service, and of a gateway that root starts."),
    ("/etc/sysctl.d/99-corecast.conf", "What `corecast tune --apply` writes; the package never does."),
    ("/var/lib/corecast/tune.json", "What was there before, for `corecast tune --undo`."),
];

const ENVIRONMENT: &[(&str, &str)] = &[
    ("CORECAST_SOCKET", "The control socket, instead of the default; `--socket` beats it."),
    ("CORECAST_CONFIG", "The configuration file of `corecast serve`; `--config` beats it."),
    (
        "CORECAST_<SECTION>_<KEY>",
        "Any key of the configuration, as `CORECAST_LIMITS_MESSAGE_BYTES=1MiB`. Beats the file; flags beat it.",
    ),
];

const SIGNALS: &[(&str, &str)] = &[
    (
        "SIGTERM, SIGINT",
        "Drains: every client is told when to come back, over `timeouts.drain`. A second one ends it at once.",
    ),
    ("SIGHUP", "Reads the configuration again. A bad file is refused whole, and the old one stays in force."),
];

/// The pages of `program` and of every command of it that is not hidden.
pub fn pages(program: &clap::Command) -> Vec<Page> {
    let mut program = program.clone().disable_help_subcommand(true);
    program.build();
    let name = program.get_name().to_owned();
    let shown = program.get_subcommands().filter(|command| !command.is_hide_set());
    let mut pages: Vec<Page> = shown.map(|command| page(command, see_also(&[&name]))).collect();
    let more = if name == "corecast" { about_the_gateway() } else { see_also(&["corecast"]) };
    pages.push(page(&program, more));
    pages
}

fn page(command: &clap::Command, more: Roff) -> Page {
    let source = concat!("corecast ", env!("CARGO_PKG_VERSION"));
    let manual = Man::new(command.clone()).source(source).manual("Corecast");
    let mut text = Vec::new();
    manual.render(&mut text).expect("a Vec takes all");
    text.extend(more.to_roff().bytes());
    let text = String::from_utf8(text).expect("a definition in UTF-8 gives a page in UTF-8");
    Page { path: format!("man1/{}", manual.get_filename()), text }
}

fn about_the_gateway() -> Roff {
    let mut roff = Roff::new();
    terms(&mut roff, "EXIT STATUS", exit_statuses());
    terms(&mut roff, "SIGNALS", SIGNALS.iter().copied());
    terms(&mut roff, "ENVIRONMENT", ENVIRONMENT.iter().copied());
    terms(&mut roff, "FILES", FILES.iter().copied());
    roff.extend([see_also(&["corecast-bench", "corecast.toml(5)", "systemctl"])]);
    roff
}

/// The rows of the README's table.
fn exit_statuses() -> impl Iterator<Item = (&'static str, &'static str)> {
    let (_, rest) = README.split_once("\n## Exit status\n").expect("the README has the section");
    let rows = rest.lines().take_while(|line| !line.starts_with("## "));
    rows.filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "))
        .filter(|(status, _)| status.parse::<u8>().is_ok())
}

fn terms<'a>(roff: &mut Roff, heading: &str, rows: impl Iterator<Item = (&'a str, &'a str)>) {
    roff.control("SH", [heading]);
    for (term, text) in rows {
        roff.control("TP", []);
        roff.text([bold(term)]);
        roff.text(inlines(text));
    }
}

/// `names` without a section are of section 1.
fn see_also(names: &[&str]) -> Roff {
    let name = |name: &&str| if name.ends_with(')') { (*name).to_owned() } else { format!("{name}(1)") };
    let names: Vec<String> = names.iter().map(name).collect();
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman(names.join(", "))]);
    roff
}

/// What stands in backticks is bold.
pub fn inlines(text: &str) -> Vec<Inline> {
    let part = |(number, part)| if number % 2 == 1 { bold(part) } else { roman(part) };
    text.split('`').enumerate().map(part).collect()
}
