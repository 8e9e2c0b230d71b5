//! Handing over to `weir-lab`, the program that makes network namespaces and runs things in them.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::build::{self, Profile};
use crate::workspace::Workspace;
use crate::{packages, root, setup};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Demo,
    Lab,
    Bench,
}

/// Sets up, builds, and becomes `weir-lab`. Returns only if that fails, or if just help was asked for.
pub fn hand_over(workspace: &Workspace, part: Part, arguments: &[OsString]) -> Result<ExitCode> {
    let asks_for_help = arguments.iter().any(|argument| argument == "--help" || argument == "-h");
    if !asks_for_help {
        setup::ensure(workspace)?;
        let benches = |what: &str| part == Part::Bench && arguments.iter().any(|argument| argument == what);
        if benches("http") || benches("failover") {
            packages::ensure(packages::FOR_HTTP_BENCH)?;
        }
        if benches("tls") || benches("memory") {
            packages::ensure(packages::FOR_TLS_BENCH)?;
        }
        if benches("passthrough") {
            packages::ensure(packages::FOR_PASSTHROUGH_BENCH)?;
        }
        if benches("fleet") {
            packages::ensure(packages::FOR_FLEET_BENCH)?;
        }
        if benches("gate") || benches("flood") {
            packages::ensure(packages::FOR_GATE_BENCH)?;
        }
    }
    let built = match part {
        Part::Demo | Part::Lab => build::all(workspace, Profile::Dev)?,
        Part::Bench => build::for_benches(workspace)?,
    };
    let environment: [(&str, &OsStr); 2] =
        [("WEIR_BIN", built.weir.as_os_str()), ("WEIR_EBPF_OBJECT", built.ebpf_object.as_os_str())];
    let mut command = if asks_for_help {
        std::process::Command::new(&built.lab)
    } else {
        root::command(&built.lab, &environment, "make network namespaces and load eBPF programs")?
    };
    command.arg(part.name()).args(arguments);
    Err(command.exec()).with_context(|| format!("cannot run {}", workspace.shown(&built.lab)))
}

// === impl Part ===

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Demo => "demo",
            Self::Lab => "lab",
            Self::Bench => "bench",
        }
    }
}
