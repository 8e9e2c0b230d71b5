//! A child process that never outlives its guard.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::wait;

/// Killed and reaped on drop. What it writes to stderr goes to a file in the lab.
#[derive(Debug)]
pub struct Process {
    child: Child,
    title: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, with both of its outputs in `log`.
    pub fn start(title: &str, command: Command, log: &Path) -> anyhow::Result<Self> {
        Self::spawn(title, command, log, false)
    }

    /// Starts `command` and waits until it has written a line to stdout, as a sign that it is ready.
    pub fn start_and_wait_for_a_line(
        title: &str,
        command: Command,
        log: &Path,
        within: Duration,
    ) -> anyhow::Result<Self> {
        let mut process = Self::spawn(title, command, log, true)?;
        let stdout = process.child.stdout.take().context("its output was not piped")?;
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let read = BufReader::new(stdout).read_line(&mut line);
            // Nobody listens any more when the wait is over.
            let _ = tell.send(read.map(|_| line));
        });
        match told.recv_timeout(within) {
            Ok(Ok(line)) if !line.is_empty() => Ok(process),
            _ => bail!("{title} did not become ready within {within:?}; it said:\n{}", process.log_text()),
        }
    }

    fn spawn(title: &str, mut command: Command, log: &Path, pipe: bool) -> anyhow::Result<Self> {
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("can't write {}", log.display()))?;
        command.stdin(Stdio::null()).stderr(output.try_clone()?);
        command.stdout(if pipe { Stdio::piped() } else { output.into() });
        let child = command
            .spawn()
            .with_context(|| format!("can't start {title} ({})", command.get_program().to_string_lossy()))?;
        Ok(Self { child, title: title.to_owned(), log: log.to_owned() })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_else(|why| format!("(no log: {why})"))
    }

    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal)
            .with_context(|| format!("can't send {signal} to {}", self.title))
    }

    /// SIGKILL, and gone when this returns.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.kill_group();
        self.child.kill().with_context(|| format!("can't kill {}", self.title))?;
        self.child.wait().with_context(|| format!("can't reap {}", self.title))?;
        Ok(())
    }

    /// Whatever the process has started itself: it is the leader of a group of its own.
    fn kill_group(&mut self) {
        // Only while it isn't reaped: afterwards the number may be somebody else's.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill(Pid::from_raw(-self.child.id().cast_signed()), Signal::SIGKILL);
        }
    }

    /// `Some` once the process has ended.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("can't look after {}", self.title))
    }

    /// Waits for the end.
    pub fn wait(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        wait::until(&format!("{} ends", self.title), within, || self.ended())
    }

    /// CPU time used so far by the process and its threads.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        cpu_of(self.pid())
    }

    /// A value in bytes from `/proc/PID/status`, where it stands in kB: `VmHWM`, `VmRSS` …
    pub fn memory(&self, field: &str) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let kilobytes = status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':')?.trim().strip_suffix(" kB"))
            .with_context(|| format!("no {field} for {}", self.title))?;
        Ok(kilobytes.trim().parse::<u64>()? * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_group();
        // Both fail only for a process that has been reaped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// User and system time of a process, from `/proc/PID/stat`.
pub fn cpu_of(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may hold spaces; the fields are counted from behind it.
    let (_, fields) = stat.rsplit_once(')').context("an odd /proc/PID/stat")?;
    let ticks = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse::<u64>)
        .sum::<Result<u64, _>>()
        .context("an odd /proc/PID/stat")?;
    // USER_HZ is 100 on every architecture that Linux has left.
    Ok(Duration::from_millis(ticks * 10))
}

/// How long `work` took, beside what it made.
pub fn timed<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(T, Duration)> {
    let begun = Instant::now();
    let made = work()?;
    Ok((made, begun.elapsed()))
}
