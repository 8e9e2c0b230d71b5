//! `weir doctor`: looks at the host as the daemon will find it, changes nothing, and says what to do.

mod host;
mod passthrough;
mod providers;
mod setup;

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::{
    cli::{Failure, print},
    config::DEFAULT_PATH,
    providers::asked,
};

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Configuration file or folder that is to run here
    #[arg(default_value = DEFAULT_PATH)]
    file: PathBuf,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    subject: String,
    #[serde(flatten)]
    state: State,
}

/// How it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum State {
    Well {
        found: String,
    },
    /// Weir runs, but not as well as it could.
    Poor {
        found: String,
        remedy: String,
    },
    /// Weir doesn't run, or doesn't do what the configuration says.
    Ill {
        found: String,
        remedy: String,
    },
}

pub fn run(args: &DoctorArgs) -> Result<(), Failure> {
    let loaded = asked::offline(&args.file);
    let config = loaded.as_ref().ok().map(|loaded| &loaded.config);
    let mut findings = host::look(config);
    findings.push(setup::configuration(&args.file, &loaded));
    if let Some(config) = config {
        findings.extend(setup::look(config));
        findings.extend(passthrough::look(config));
        findings.extend(providers::look(config));
    }
    let ill = findings.iter().filter(|finding| finding.is_ill()).count();
    if args.json {
        let document = serde_json::json!({ "well": ill == 0, "findings": findings });
        print(&format!("{document}\n"))?;
    } else {
        print(&text(&findings))?;
    }
    match ill {
        0 => Ok(()),
        1 => Err(Failure::Failed("one thing has to be mended before Weir does its work here".into())),
        ill => Err(Failure::Failed(format!("{ill} things have to be mended before Weir does its work here"))),
    }
}

impl Finding {
    fn well(subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self { subject: subject.into(), state: State::Well { found: found.into() } }
    }

    fn poor(subject: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        let (found, remedy) = (found.into(), remedy.into());
        Self { subject: subject.into(), state: State::Poor { found, remedy } }
    }

    fn ill(subject: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        let (found, remedy) = (found.into(), remedy.into());
        Self { subject: subject.into(), state: State::Ill { found, remedy } }
    }

    fn is_ill(&self) -> bool {
        matches!(self.state, State::Ill { .. })
    }
}

fn text(findings: &[Finding]) -> String {
    use std::fmt::Write as _;
    let width = findings.iter().map(|finding| finding.subject.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { subject, state } in findings {
        let (mark, found, remedy) = match state {
            State::Well { found } => ("\x1b[32mok  \x1b[0m", found, None),
            State::Poor { found, remedy } => ("\x1b[33mpoor\x1b[0m", found, Some(remedy)),
            State::Ill { found, remedy } => ("\x1b[31mILL \x1b[0m", found, Some(remedy)),
        };
        // Writing to a String can't fail.
        let _ = writeln!(text, "{mark}  {subject:width$}  {found}");
        if let Some(remedy) = remedy {
            let _ = writeln!(text, "      {:width$}  → {remedy}", "");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_stands_below_what_it_is_for() {
        let findings = [
            Finding::well("kernel", "Linux 6.12"),
            Finding::ill("bpffs", "not mounted at /sys/fs/bpf", "mount -t bpf bpf /sys/fs/bpf"),
        ];
        let plain = anstream::adapter::strip_str(&text(&findings)).to_string();
        assert_eq!(
            plain,
            "ok    kernel  Linux 6.12\nILL   bpffs   not mounted at /sys/fs/bpf\n              → mount -t bpf bpf /sys/fs/bpf\n"
        );
    }
}
