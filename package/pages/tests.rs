//! Nothing that can be typed is missing from the pages, and the shells understand theirs.

use std::process::Command;

use corecast::config::Config;
use toml::{Table, Value};

use crate::{pages, programs};

#[track_caller]
fn text(path: &str) -> String {
    let page = pages().into_iter().find(|page| page.path == path);
    page.unwrap_or_else(|| panic!("there is no {path}")).text
}

/// A page without what roff needs and nobody reads: `\-` is a hyphen, `\fB` a change of font.
fn plain(roff: &str) -> String {
    ["\\fB", "\\fI", "\\fR"].iter().fold(roff.replace("\\-", "-"), |text, font| text.replace(font, ""))
}

#[test]
fn issue_5_every_command_has_a_page_that_names_each_of_its_arguments() {
    for mut program in programs() {
        program.build();
        let own = plain(&text(&format!("man1/{}.1", program.get_name())));
        let shown = program.get_subcommands().filter(|command| !command.is_hide_set());
        let shown: Vec<_> = shown.filter(|command| command.get_name() != "help").collect();
        assert!(shown.len() >= 11, "{}", program.get_name());
        for command in shown {
            let name = format!("{}-{}", program.get_name(), command.get_name());
            assert!(own.contains(&format!("{name}(1)")), "{}(1) does not name {name}", program.get_name());
            let page = plain(&text(&format!("man1/{name}.1")));
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                let typed = match argument.get_long() {
                    Some(long) => format!("--{long}"),
                    None => argument.get_id().as_str().to_uppercase(),
                };
                // `--users` does not stand in for `--user`.
                let mut words = page.split(|c: char| c.is_whitespace() || "<>[],|".contains(c));
                assert!(words.any(|word| word == typed), "{name}(1) does not name {typed}");
            }
        }
    }
}

#[test]
fn issue_5_what_is_hidden_stands_nowhere() {
    for page in pages() {
        assert!(!page.path.contains("worker") && !page.path.contains("-help"), "{}", page.path);
        let text = plain(&page.text);
        let of_the_worker = text.contains("started by the tool itself") || text.contains("-bench,worker");
        assert!(!of_the_worker && !text.contains("with-parent"), "{} offers it", page.path);
    }
}

#[test]
fn issue_5_the_gateways_page_has_every_exit_status_and_the_files() {
    let page = plain(&text("man1/corecast.1"));
    for status in (0..=3).chain(10..=20) {
        assert!(page.contains(&format!("\n.TP\n{status}\n")), "no status {status}:\n{page}");
    }
    for part in ["/etc/corecast/corecast.toml", "SIGHUP", "CORECAST_SOCKET", "corecast.toml(5)"] {
        assert!(page.contains(part), "no {part}");
    }
}

#[test]
fn issue_5_the_page_of_the_configuration_has_every_key_with_its_default_in_its_section() {
    let page = plain(&text("man5/corecast.toml.5"));
    let (_, keys) = page.split_once(".SH KEYS\n").unwrap();
    let within = |section: &str| {
        let from = keys.split_once(&format!(".SH [{section}]\n")).map_or("", |(_, rest)| rest);
        from.split(".SH ").next().unwrap()
    };
    let shown = |text: &str, key: &str, value: &Value| {
        let line = format!("\n{key} = ");
        let default = text.split_once(&line).and_then(|(_, rest)| rest.lines().next());
        let default: Table = format!("{key} = {}", default.unwrap_or("\"missing\"")).parse().unwrap();
        assert!(same(&default[key], value), "{key} is {value}, and the page says {}", default[key]);
    };
    let defaults: Table = toml::from_str(&Config::default().to_toml()).unwrap();
    for (name, value) in &defaults {
        match value {
            Value::Table(section) => {
                section.iter().for_each(|(key, value)| shown(within(name), key, value));
            }
            value => shown(keys, name, value),
        }
    }
    shown(within("auth"), "mode", &Value::from("open"));
}

/// `"1m"` and `"60s"` are the same length of time, but the page must show what the file does.
fn same(shown: &Value, effective: &Value) -> bool {
    let duration = |value: &Value| value.as_str().and_then(|text| humantime::parse_duration(text).ok());
    shown == effective || (duration(shown).is_some() && duration(shown) == duration(effective))
}

/// What bash offers for the last of `words`.
#[track_caller]
fn offered_by_bash(program: &str, words: &[&str]) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(program);
    std::fs::write(&file, text(&format!("bash/{program}"))).unwrap();
    // As bash itself calls it: the function, with the program, the word and the one before it.
    let ask = r#"
        source "$1"; shift
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        function=$(complete -p "$1" | sed 's/.*-F \([^ ]*\).*/\1/')
        "$function" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-uc", ask, "bash"]).arg(&file).arg(program).args(words);
    let output = bash.output().expect("bash runs");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn issue_5_bash_completes_commands_and_flags_of_both_programs() {
    assert_eq!(offered_by_bash("corecast", &["pu"]), ["push"]);
    assert_eq!(offered_by_bash("corecast", &["push", "--us"]), ["--user", "--users"]);
    assert_eq!(offered_by_bash("corecast-bench", &["fan"]), ["fanout"]);
    assert_eq!(offered_by_bash("corecast-bench", &["fanout", "--publish", "cor"]), ["corecast"]);
}

#[test]
fn issue_5_each_shell_offers_every_command() {
    for program in programs() {
        let name = program.get_name();
        let variable = name.replace('-', "__");
        let [bash, zsh, fish] = [format!("bash/{name}"), format!("zsh/_{name}"), format!("fish/{name}.fish")]
            .map(|path| text(&path));
        for command in program.get_subcommands().filter(|command| !command.is_hide_set()) {
            let command = command.get_name();
            assert!(bash.contains(&format!("\n            {variable},{command})\n")), "bash: {command}");
            assert!(zsh.contains(&format!("({command})\n")), "zsh: {command}");
            assert!(fish.contains(&format!(" -a \"{command}\"")), "fish: {command}");
        }
    }
}
