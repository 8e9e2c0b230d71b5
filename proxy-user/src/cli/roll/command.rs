//! Runs the command for one server, in a process group of its own: Ctrl-C is meant for the roll, and must not cut off what
//! renews a server just now.

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{block_on, drain::LOOK};

/// A command that was told to end has so long before it is killed.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How often the person has asked for the end.
static INTERRUPTS: AtomicU32 = AtomicU32::new(0);

/// How a command ended.
#[derive(Debug)]
pub enum Ended {
    Well,
    Badly(ExitStatus),
    /// It took too long.
    Overdue,
    /// The person asked for it, twice.
    CutOff,
    NotFound(io::Error, String),
}

/// From now on Ctrl-C (and SIGTERM) only counts.
pub fn heed_interrupts() {
    std::thread::spawn(|| {
        // Without a runtime, or without handlers, a signal ends the process by itself.
        let _ = block_on(async {
            let Ok(mut interrupt) = signal(SignalKind::interrupt()) else { return };
            let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                INTERRUPTS.fetch_add(1, Ordering::AcqRel);
            }
        });
    });
}

pub fn interrupts() -> u32 {
    INTERRUPTS.load(Ordering::Acquire)
}

/// Runs it to its end; `waits` is called when the person has asked for the roll's end meanwhile. `aside`: its output goes to
/// stderr, all of it.
pub fn run(words: &[String], within: Duration, aside: bool, waits: impl FnOnce()) -> Ended {
    let Some((program, arguments)) = words.split_first() else {
        return Ended::NotFound(io::ErrorKind::NotFound.into(), String::new());
    };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).process_group(0);
    if aside {
        command.stdout(io::stderr());
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Ended::NotFound(error, program.clone()),
    };
    let group = Pid::from_raw(child.id().cast_signed());
    let until = Instant::now() + within;
    let mut waits = Some(waits);
    let cut_off = loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ended::Well,
            Ok(Some(status)) => return Ended::Badly(status),
            Ok(None) | Err(_) => {}
        }
        match interrupts() {
            0 => {}
            1 => {
                if let Some(waits) = waits.take() {
                    waits();
                }
            }
            _ => break Ended::CutOff,
        }
        if Instant::now() >= until {
            break Ended::Overdue;
        }
        std::thread::sleep(LOOK / 2);
    };
    // It fails only for what has ended by itself.
    let _ = killpg(group, Signal::SIGTERM);
    let killed = Instant::now() + LAST_WORDS;
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < killed {
        std::thread::sleep(LOOK / 2);
    }
    if matches!(child.try_wait(), Ok(None)) {
        let _ = killpg(group, Signal::SIGKILL);
        let _ = child.wait();
    }
    cut_off
}

impl Ended {
    pub fn sentence(&self, within: Duration) -> String {
        match self {
            Self::Well => "the command ended well".to_owned(),
            Self::Badly(status) => match status.code() {
                Some(code) => format!("the command ended with exit code {code}"),
                None => format!("the command was ended by a signal ({status})"),
            },
            Self::Overdue => format!(
                "the command took longer than {} (--command-timeout), and was ended",
                crate::config::show_duration(within)
            ),
            Self::CutOff => "it was interrupted, and the command with it".to_owned(),
            Self::NotFound(error, program) => format!("the command `{program}` can't be run: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(script: &str, within: Duration) -> String {
        let words = ["sh", "-c", script].map(ToOwned::to_owned);
        run(&words, within, true, || {}).sentence(within)
    }

    #[test]
    fn a_command_is_judged_by_its_exit_code_and_its_time() {
        let minute = Duration::from_secs(60);
        assert_eq!(ended("exit 0", minute), "the command ended well");
        assert_eq!(ended("exit 3", minute), "the command ended with exit code 3");
        assert!(ended("kill -9 $$", minute).contains("by a signal"));
        let begun = Instant::now();
        // What it started itself goes with it.
        assert!(ended("sleep 100 & wait", Duration::from_millis(10)).contains("took longer than 10ms"));
        assert!(begun.elapsed() < LAST_WORDS, "it was asked, and went");
        let nowhere = run(&["/no/such/program".into()], minute, true, || {});
        assert!(nowhere.sentence(minute).contains("`/no/such/program` can't be run"));
    }
}
