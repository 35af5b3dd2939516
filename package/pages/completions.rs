//! Completions for bash, zsh and fish, under the names by which these shells find them.

use clap::Command;
use clap_complete::{Shell, generate};

use crate::Page;

/// One file for each shell.
pub fn pages(program: &Command) -> Vec<Page> {
    let name = program.get_name();
    let page = |path, shell| Page { path, text: script(program, shell) };
    vec![
        page(format!("bash/{name}"), Shell::Bash),
        page(format!("zsh/_{name}"), Shell::Zsh),
        page(format!("fish/{name}.fish"), Shell::Fish),
    ]
}

fn script(program: &Command, shell: Shell) -> String {
    let mut text = Vec::new();
    generate(shell, &mut shown(program), program.get_name(), &mut text);
    let text = String::from_utf8(text).expect("a definition in UTF-8 gives a script in UTF-8");
    // clap-rs/clap#6421: bash finds nothing behind a subcommand of `corecast-bench`, because its name is
    // spelled so where it is looked for, and the other way where it is made.
    let (looked_for, made) =
        (program.get_name().replace('-', "__subcmd__"), program.get_name().replace('-', "__"));
    text.replace(&looked_for, &made)
}

/// A copy without what is hidden, which clap_complete would offer all the same.
fn shown(command: &Command) -> Command {
    // clap takes static names only; there are a few dozen, and this program ends at once.
    let name: &'static str = command.get_name().to_owned().leak();
    let arguments = command.get_arguments().filter(|argument| !argument.is_hide_set()).cloned();
    let subcommands = command.get_subcommands().filter(|command| !command.is_hide_set()).map(shown);
    let copy = Command::new(name).disable_help_subcommand(true).args(arguments).subcommands(subcommands);
    copy.about(command.get_about().cloned().unwrap_or_default())
}
