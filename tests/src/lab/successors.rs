//! Daemons that have taken over from the one that a lab has started. They are nobody's children here, so they are looked after by their
//! process ids.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::{
    Lab,
    stand::PATIENCE,
    wait,
    weir::{self, Ran, Weir},
};

/// Killed on drop.
#[derive(Debug)]
pub struct Successors {
    config: PathBuf,
    pids: Vec<u32>,
}

impl Successors {
    /// Of this daemon.
    pub fn of(weir: &Weir) -> Self {
        Self { config: weir.config().to_owned(), pids: Vec::new() }
    }

    /// Of one that runs with this configuration.
    pub fn with(config: &Path) -> Self {
        Self { config: config.to_owned(), pids: Vec::new() }
    }

    /// `weir upgrade`, which must go well.
    pub fn upgrade(&mut self, lab: &Lab) -> anyhow::Result<Value> {
        let ran = ordered(lab, &[])?;
        ensure!(ran.code == 0, "`weir upgrade`: {}", ran.stderr);
        self.note(&ran)
    }

    /// Looks after the one that `weir upgrade --json` has told of.
    pub fn note(&mut self, upgraded: &Ran) -> anyhow::Result<Value> {
        let answer: Value = serde_json::from_str(&upgraded.stdout)?;
        self.pids.push(pid_in(&answer)?);
        Ok(answer)
    }

    /// Notes who answers at the admin socket, until that is another one than `before`.
    pub fn wait_for_another(&mut self, lab: &Lab, before: u32) -> anyhow::Result<u32> {
        let pid = wait::until("another daemon answers", PATIENCE * 4, || {
            let ran = weir::run(lab, &["status", "--json"])?;
            let status: Option<Value> = serde_json::from_str(&ran.stdout).ok();
            let pid = status.and_then(|status| pid_in(&status).ok());
            Ok(pid.filter(|pid| *pid != before))
        })?;
        self.pids.push(pid);
        Ok(pid)
    }

    /// Who has taken over last.
    pub fn latest(&self) -> Option<u32> {
        self.pids.last().copied()
    }

    pub fn signal(&self, pid: u32, signal: Signal) -> anyhow::Result<()> {
        ensure!(self.is_ours(pid), "process {pid} is none of this lab's daemons");
        kill(Pid::from_raw(pid.cast_signed()), signal)
            .with_context(|| format!("can't send {signal} to {pid}"))
    }

    /// Waits until a daemon has ended.
    pub fn wait_for_end(&self, pid: u32, within: Duration) -> anyhow::Result<()> {
        wait::until_true(&format!("process {pid} ends"), within, || Ok(!self.is_ours(pid)))
    }

    /// Whether it is still the daemon that it was, and alive: its number may be somebody else's by now.
    fn is_ours(&self, pid: u32) -> bool {
        let told = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let config = self.config.as_os_str().as_encoded_bytes();
        told.split(|byte| *byte == 0).any(|argument| argument == config)
    }
}

impl Drop for Successors {
    fn drop(&mut self) {
        for pid in &self.pids {
            let _ = self.signal(*pid, Signal::SIGKILL);
        }
        for pid in &self.pids {
            let _ = self.wait_for_end(*pid, Duration::from_secs(5));
        }
    }
}

/// `weir upgrade` with these arguments. The verifier takes its time where many share a core.
pub fn ordered(lab: &Lab, arguments: &[&str]) -> anyhow::Result<Ran> {
    let mut command = lab.edge.command(weir::program()?)?;
    command.args(["upgrade", "--json"]).args(arguments).env("NO_COLOR", "1");
    command.env("WEIR_ADMIN", format!("unix:{}", weir::admin_socket(lab).display()));
    weir::finish_within(command, Duration::from_secs(60))
}

fn pid_in(answer: &Value) -> anyhow::Result<u32> {
    let pid = answer["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
    pid.with_context(|| format!("no process id in {answer}"))
}
