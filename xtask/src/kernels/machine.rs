//! One run of the emulator, and what its init had to say.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::Kernel;

/// A VM that has not powered off by then hangs. Alone on a machine it needs a quarter of that.
const PATIENCE: Duration = Duration::from_secs(40 * 60);

/// How often the emulator is looked after.
const GLANCE: Duration = Duration::from_millis(200);

pub struct Report {
    /// What the kernel calls itself; `?` if it never came so far.
    pub release: String,
    pub checks: Vec<Check>,
    /// Why this is not all, if it isn't.
    pub broken: Option<String>,
}

pub struct Check {
    pub name: String,
    pub outcome: Outcome,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    Skipped(String),
    Failed(String),
}

/// Boots, waits for the power to go off, and reads what was written.
pub fn boot(kernel: &Kernel, vmlinuz: &Path, initrd: &Path, folder: &Path) -> Result<Report> {
    let (console, results) = (folder.join("console"), folder.join("results"));
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048"])
        .args(["-nographic", "-no-reboot", "-nodefaults", "-kernel"])
        .arg(vmlinuz)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off"])
        .args(["-serial", &format!("file:{}", console.display())])
        .args(["-serial", &format!("file:{}", results.display())]);
    // Two NICs on one wire.
    for nic in ["a", "b"] {
        qemu.args(["-netdev", &format!("hubport,id={nic},hubid=0")]);
        qemu.args(["-device", &format!("virtio-net-pci,netdev={nic},romfile=")]);
    }
    let said = File::create(folder.join("qemu"))?;
    qemu.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
    eprintln!("  Linux {} in a VM ...", kernel.line);
    let started = Instant::now();
    let mut machine = Machine(qemu.spawn().context("cannot run qemu-system-x86_64")?);
    let mut told = 0;
    let in_time = loop {
        let ended = machine.0.try_wait()?.is_some();
        told = tell(&text(&results), told);
        if ended || started.elapsed() > PATIENCE {
            break ended;
        }
        thread::sleep(GLANCE);
    };
    drop(machine);

    let mut report = read(&text(&results));
    let console = text(&console);
    if !in_time {
        report.broken =
            Some(format!("the VM had no end after {} s; its console:\n{console}", PATIENCE.as_secs()));
    } else if report.broken.is_some() {
        let qemu = text(&folder.join("qemu"));
        report.broken = Some(format!("the VM ended early; its console:\n{console}\n{qemu}"));
    }
    eprintln!("  Linux {} in a VM: done in {:.0} s", kernel.line, started.elapsed().as_secs_f32());
    Ok(report)
}

/// Says what has been finished since the last look.
fn tell(results: &str, told: usize) -> usize {
    let checks = read(results).checks;
    let finished = checks.len();
    for check in checks.iter().skip(told) {
        let outcome = match &check.outcome {
            Outcome::Ok => "ok",
            Outcome::Skipped(_) => "skipped",
            Outcome::Failed(_) => "FAILED",
        };
        eprintln!("  | {}: {outcome}", check.name);
    }
    finished
}

/// Reads the lines of the init, in whatever the serial line made of them.
fn read(results: &str) -> Report {
    let mut report = Report { release: "?".into(), checks: Vec::new(), broken: Some("no end".into()) };
    let mut running: Option<(String, String)> = None;
    for line in results.lines().map(|line| line.trim_end_matches('\r')) {
        let Some((word, rest)) =
            line.strip_prefix('@').map(|line| line.split_once(' ').unwrap_or((line, "")))
        else {
            if let Some((_, log)) = &mut running {
                log.push_str(line);
                log.push('\n');
            }
            continue;
        };
        let outcome = match word {
            "kernel" => {
                report.release = rest.to_owned();
                continue;
            }
            "begin" => {
                running = Some((rest.to_owned(), String::new()));
                continue;
            }
            "end" => {
                report.broken = None;
                continue;
            }
            "ok" => Outcome::Ok,
            "skipped" => Outcome::Skipped(rest.to_owned()),
            "failed" => Outcome::Failed(String::new()),
            _ => continue,
        };
        let Some((name, log)) = running.take() else { continue };
        let outcome = if let Outcome::Failed(_) = outcome { Outcome::Failed(log) } else { outcome };
        report.checks.push(Check { name, outcome });
    }
    report
}

fn text(file: &Path) -> String {
    fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// Never outlives the run.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail only for one that has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_test_has_its_outcome_and_a_failed_one_its_log() {
        let report = read(
            "@kernel 6.1.0\r\n@begin a::one\r\n@ok\r\n@begin a::two\r\nthread panicked\r\n@failed 101\r\n\
             @begin b::three\n@skipped no bonding here\n@end\n",
        );
        assert_eq!(report.release, "6.1.0");
        let outcomes: Vec<_> = report.checks.into_iter().map(|check| (check.name, check.outcome)).collect();
        assert_eq!(
            outcomes,
            [
                ("a::one".to_owned(), Outcome::Ok),
                ("a::two".to_owned(), Outcome::Failed("thread panicked\n".into())),
                ("b::three".to_owned(), Outcome::Skipped("no bonding here".into())),
            ]
        );
        assert!(report.broken.is_none());
    }

    #[test]
    fn a_run_without_its_last_line_is_broken() {
        let report = read("@kernel 6.1.0\n@begin a::one\n");
        assert!(report.broken.is_some());
        assert!(report.checks.is_empty());
    }
}
