//! Every test of the workspace, and an honest account of those that could not run.
//!
//! A test that lacks what it needs (root, a kernel that takes eBPF) passes with a line
//! `SKIPPED <name>: <reason>` on stderr. These lines are gathered here and said at the end; where `CI=true`
//! each of them is a failure.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::process::{Command, ExitCode, Stdio};
use std::thread;

use anyhow::{Context as _, Result};

use crate::build::{self, Built, Profile};
use crate::workspace::{Workspace, output_of};
use crate::{python, root, setup};

#[derive(clap::Args)]
pub struct Arguments {
    /// Only tests whose name contains this
    filter: Option<OsString>,
    /// Handed to the test runner
    #[arg(last = true)]
    runner: Vec<OsString>,
}

pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure(workspace)?;
    if let Err(why) = python::ensure(workspace) {
        eprintln!("no Python packages, so what needs them is skipped: {why:#}");
    }
    let built = build::all(workspace, Profile::Dev)?;
    let has_nextest = output_of(workspace.cargo().args(["nextest", "--version"])).is_ok();
    let outcome = if has_nextest {
        by_nextest(workspace, &built, arguments)?
    } else {
        by_libtest(workspace, &built, arguments)?
    };

    for skip in &outcome.skips {
        eprintln!("{skip}");
    }
    let skips_fail = env::var("CI").is_ok_and(|value| value == "true");
    if skips_fail && !outcome.skips.is_empty() {
        eprintln!("tests FAILED: {} skipped, and CI=true lets none be", outcome.skips.len());
        return Ok(ExitCode::FAILURE);
    }
    let verdict = if outcome.passed { "passed" } else { "FAILED" };
    if !has_nextest || !outcome.skips.is_empty() {
        eprintln!("tests {verdict}, {} skipped", outcome.skips.len());
    }
    Ok(if outcome.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Outcome {
    passed: bool,
    skips: Vec<String>,
}

/// cargo-nextest runs every test in a process of its own; `.config/nextest.toml` keeps the labs apart and
/// has it write down what passing tests said.
fn by_nextest(workspace: &Workspace, built: &Built, arguments: &Arguments) -> Result<Outcome> {
    let report = workspace.target.join("nextest/default/junit.xml");
    // A run that breaks off must not be judged by the report of an older one.
    if report.exists() {
        fs::remove_file(&report)?;
    }
    let mut cargo = workspace.cargo();
    cargo.args(["nextest", "run", "--workspace"]).args(&arguments.runner).args(&arguments.filter);
    let status = in_our_environment(&mut cargo, workspace, built)?.status()?;
    let skips = fs::read_to_string(&report).map(|report| skips_in(report.lines())).unwrap_or_default();
    Ok(Outcome { passed: status.success(), skips })
}

fn by_libtest(workspace: &Workspace, built: &Built, arguments: &Arguments) -> Result<Outcome> {
    let mut cargo = workspace.cargo();
    cargo.args(["test", "--workspace", "--no-fail-fast"]).args(&arguments.filter);
    cargo.args(["--", "--show-output"]).args(&arguments.runner).stdout(Stdio::piped()).stderr(Stdio::piped());
    if env::var_os("RUST_TEST_THREADS").is_none() {
        // Labs that share two cores spoil each other's timing.
        cargo.env("RUST_TEST_THREADS", "1");
    }
    let mut child = in_our_environment(&mut cargo, workspace, built)?.spawn()?;
    let errors = child.stderr.take().context("a piped stderr")?;
    let errors = thread::spawn(move || repeat(errors, |line| eprintln!("{line}")));
    let mut said = repeat(child.stdout.take().context("a piped stdout")?, |line| println!("{line}"));
    said.extend(errors.join().unwrap_or_default());
    let status = child.wait()?;
    Ok(Outcome { passed: status.success(), skips: skips_in(said.iter().map(String::as_str)) })
}

/// Shows a stream line by line while it comes, and keeps it.
fn repeat(stream: impl Read, show: impl Fn(&str)) -> Vec<String> {
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    lines.inspect(|line| show(line)).collect()
}

/// Says where the daemon and the kernel programs are, and has the tests run by root if that can be had.
fn in_our_environment<'a>(
    cargo: &'a mut Command,
    workspace: &Workspace,
    built: &Built,
) -> Result<&'a mut Command> {
    cargo.env("WEIR_BIN", &built.weir).env("WEIR_EBPF_OBJECT", &built.ebpf_object);
    if python::is_ready(workspace) {
        cargo.env("WEIR_PYTHON", python::interpreter(workspace));
    }
    if !root::is_root() && root::sudo_is_free() {
        let host = host_triple()?.to_uppercase().replace(['-', '.'], "_");
        cargo.env(format!("CARGO_TARGET_{host}_RUNNER"), "sudo -n -E");
    }
    Ok(cargo)
}

pub fn host_triple() -> Result<String> {
    let version = output_of(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc names no host")?.to_owned())
}

/// The `SKIPPED` lines, each once, as they were before XML escaped them.
fn skips_in<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut skips: Vec<String> = lines
        .filter_map(|line| Some(&line[line.find("SKIPPED ")?..]))
        .map(|line| line.split("</system-").next().unwrap_or(line))
        .map(|line| {
            line.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
        })
        .collect();
    skips.sort();
    skips.dedup();
    skips
}

#[cfg(test)]
mod tests {
    use super::skips_in;

    #[test]
    fn skips_are_found_in_a_report_and_said_once() {
        let report = "<testsuite>\n<system-err>SKIPPED gate::drops: needs root &amp; eBPF</system-err>\n\
                      <system-out>SKIPPED gate::drops: needs root &amp; eBPF\nall is well</system-out>";
        assert_eq!(skips_in(report.lines()), ["SKIPPED gate::drops: needs root & eBPF"]);
    }

    #[test]
    fn a_report_without_skips_has_none() {
        assert!(skips_in("<testsuite>\n<system-err>fine</system-err>".lines()).is_empty());
    }
}
