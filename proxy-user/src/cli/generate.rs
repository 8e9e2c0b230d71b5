//! What is made from the definition of the command line itself: `weir completions`, and the manual pages that packages
//! bring.

use std::{
    io,
    path::{Path, PathBuf},
};

use clap::{Args, Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli::{Cli, Failure, print};

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell that is to complete `weir`; in bash, for instance: `source <(weir completions bash)`
    shell: Shell,
}

#[derive(Debug, Args)]
pub struct ManualArgs {
    /// The folder: `weir.1` and a page for each command are written there
    folder: PathBuf,
}

pub fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut shown(&Cli::command()), "weir", &mut script);
    print(&String::from_utf8_lossy(&script))
}

pub fn manual(args: &ManualArgs) -> Result<(), Failure> {
    let folder = &args.folder;
    let failed = |error: io::Error| {
        Failure::Failed(format!("can't write manual pages to {}: {error}", folder.display()))
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let mut command = shown(&Cli::command());
    // Gives each command the name that its page is called by.
    command.build();
    write_pages(command, folder).map_err(failed)
}

fn write_pages(command: Command, folder: &Path) -> io::Result<()> {
    // `help` repeats the others.
    for command in command.get_subcommands().filter(|command| command.get_name() != "help") {
        write_pages(command.clone(), folder)?;
    }
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let mut page = Vec::new();
    Man::new(command.name(name.clone())).render(&mut page)?;
    std::fs::write(folder.join(format!("{name}.1")), page)
}

/// Without what is hidden: nobody is to type that.
fn shown(command: &Command) -> Command {
    let subcommands: Vec<Command> =
        command.get_subcommands().filter(|command| !command.is_hide_set()).cloned().collect();
    let about = command.get_about().cloned().unwrap_or_default();
    Command::new(command.get_name().to_owned())
        .version(env!("CARGO_PKG_VERSION"))
        .propagate_version(true)
        .about(about)
        .subcommands(subcommands)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_that_is_shown_has_a_page_and_hidden_ones_have_none() {
        let folder = tempfile::tempdir().unwrap();
        manual(&ManualArgs { folder: folder.path().to_owned() }).unwrap();
        let page = |name: &str| std::fs::read_to_string(folder.path().join(name));
        assert!(page("weir-block-add.1").unwrap().contains(".SH OPTIONS"));
        assert!(page("weir.1").unwrap().contains("weir\\-status(1)"));
        assert!(page("weir-watchdog.1").is_err());
        assert!(!page("weir.1").unwrap().contains("watchdog"));
    }

    #[test]
    fn completions_know_commands_and_nothing_hidden() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut shown(&Cli::command()), "weir", &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("allowlist") && script.contains("hash-password"), "{shell}");
            assert!(!script.contains("watchdog"), "{shell}");
        }
    }
}
