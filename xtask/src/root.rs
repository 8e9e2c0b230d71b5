//! Becoming root where something needs it: installing packages, and network namespaces.

use std::ffi::OsStr;
use std::io::IsTerminal as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

pub fn is_root() -> bool {
    // Our own /proc entry belongs to our effective user; this saves a dependency.
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// Whether sudo works without a question.
pub fn sudo_is_free() -> bool {
    quiet(Command::new("sudo").args(["-n", "true"]))
}

/// `program`, to be run as root. `why` completes "root is needed to …".
///
/// The variables in `environment` reach it even where sudo's policy drops the environment.
pub fn command(program: impl AsRef<OsStr>, environment: &[(&str, &OsStr)], why: &str) -> Result<Command> {
    if is_root() {
        let mut command = Command::new(program);
        command.envs(environment.iter().copied());
        return Ok(command);
    }
    // On a terminal a person may type the password once; sudo remembers it for the steps that follow.
    let may_ask = std::io::stderr().is_terminal() && std::io::stdin().is_terminal();
    if !(sudo_is_free() || may_ask && asks_for_password()) {
        bail!("root is needed to {why}: run this as root, or install sudo and allow it");
    }
    let mut command = Command::new("sudo");
    command.args(["-n", "env"]);
    for (name, value) in environment {
        let mut assignment = OsStr::new(name).to_owned();
        assignment.push("=");
        assignment.push(value);
        command.arg(assignment);
    }
    command.arg(program);
    Ok(command)
}

fn asks_for_password() -> bool {
    Command::new("sudo").arg("-v").status().is_ok_and(|status| status.success())
}

fn quiet(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
