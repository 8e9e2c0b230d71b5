//! Long steps, told while they run: a spinner with the time and the last line on a terminal, plain lines
//! elsewhere. A step that fails shows its whole log.

use std::io::{BufRead, BufReader, IsTerminal as _, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// Longer than any step takes; what exceeds it hangs.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

/// Runs `command` as a step called `title`.
pub fn step(title: &str, command: &mut Command) -> Result<()> {
    step_within(title, PATIENCE, command)
}

/// As [`step`], for what may hang, such as a download server that does not answer.
pub fn step_within(title: &str, patience: Duration, command: &mut Command) -> Result<()> {
    let started = Instant::now();
    let spinner = spinner(title);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().to_string_lossy()))?;

    let (sender, lines) = mpsc::channel();
    forward(child.stdout.take().context("a piped stdout")?, sender.clone());
    forward(child.stderr.take().context("a piped stderr")?, sender);

    let mut log = Vec::new();
    let mut out_of_time = false;
    loop {
        match lines.recv_timeout(patience.saturating_sub(started.elapsed())) {
            Ok(line) => {
                spinner.set_message(line.trim().to_owned());
                log.push(line);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                out_of_time = true;
                child.kill().context("cannot end a step that hangs")?;
                break;
            }
        }
    }
    let status = child.wait()?;
    spinner.finish_and_clear();

    let seconds = started.elapsed().as_secs_f32();
    if status.success() && !out_of_time {
        eprintln!("  {title}: done in {seconds:.1} s");
        return Ok(());
    }
    for line in &log {
        eprintln!("  | {line}");
    }
    if out_of_time {
        bail!("{title}: no end after {seconds:.0} s");
    }
    bail!("{title}: failed after {seconds:.0} s ({status})")
}

fn spinner(title: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        eprintln!("  {title} ...");
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("  {spinner} {prefix} ({elapsed}) {wide_msg:.dim}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    let spinner = ProgressBar::new_spinner().with_style(style).with_prefix(title.to_owned());
    spinner.enable_steady_tick(Duration::from_millis(120));
    spinner
}

fn forward(stream: impl Read + Send + 'static, lines: Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            // A receiver that is gone has given up on the step.
            if lines.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });
}
