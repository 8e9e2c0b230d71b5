//! The running daemon's side of an upgrade: looks at the new binary, starts it, and speaks with it until it serves or has failed. It
//! waits a lot, so it has a thread of its own; the control loop is told what it has to do.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};

use super::{
    Confined, Downwards, SPEAKS, TAKES_OVER, Upwards, candidate, estate::Estate, image::Image, wire::Line,
};

/// What the service manager says to one process alone.
const FOR_ONE_PROCESS: [&str; 4] = ["WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// What is to be done.
#[derive(Debug)]
pub struct Plan {
    pub image: Image,
    /// Who asked for it named the binary: it is looked at whose it is.
    pub named: bool,
    /// What the new one is going to read; `None`: a default of its own.
    pub config: Option<PathBuf>,
    /// So long may it take until it serves.
    pub ready: Duration,
    pub confined: Confined,
    /// Starts a program; not every thread may do everything.
    pub start: fn(Command) -> io::Result<Child>,
}

/// For the control loop.
#[derive(Debug)]
pub enum News {
    /// The new one is ready for the estate. From here on nothing may change until it is over.
    Asks(oneshot::Sender<Gift>),
    Over(Result<Successor, Failed>),
}

/// An estate, with what its descriptors name.
#[derive(Debug)]
pub struct Gift {
    pub estate: Estate,
    pub beside: Vec<OwnedFd>,
}

/// A daemon that serves.
#[derive(Debug)]
pub struct Successor {
    pub version: String,
    pub line: Line,
    pub child: Child,
    pub took: Duration,
}

/// Why none does.
#[derive(Debug, PartialEq, Eq)]
pub struct Failed {
    pub why: String,
    /// It had got the estate, and may have begun to write to the kernel.
    pub had_estate: bool,
}

/// Sees an upgrade through. Returns when it is over, and tells so.
pub fn see_through(plan: Plan, tell: &mpsc::UnboundedSender<News>) {
    let outcome = attempt(plan, tell);
    // The daemon ends, and its successor finds that out.
    let _ = tell.send(News::Over(outcome));
}

fn attempt(plan: Plan, tell: &mpsc::UnboundedSender<News>) -> Result<Successor, Failed> {
    let early = |why: String| Failed { why, had_estate: false };
    if plan.named {
        candidate::trusted(&plan.image.program).map_err(early)?;
    }
    let version = candidate::check(&plan.image.program, plan.config.as_deref()).map_err(early)?;
    let failed =
        |error: io::Error| early(format!("{} can't be started: {error}", plan.image.program.display()));
    let (line, theirs) = Line::pair().map_err(failed)?;
    let mut command = Command::new(&plan.image.program);
    command.args(&plan.image.arguments).env(TAKES_OVER, "1").stdin(Stdio::from(OwnedFd::from(theirs)));
    for variable in FOR_ONE_PROCESS {
        command.env_remove(variable);
    }
    let begun = Instant::now();
    let mut child = (plan.start)(command).map_err(failed)?;
    let mut had_estate = false;
    match speak(&line, begun + plan.ready, plan.confined, tell, &mut had_estate) {
        Ok(()) => Ok(Successor { version, line, child, took: begun.elapsed() }),
        Err(stopped) => {
            // It may be about to end by itself, with a status that says more.
            let ended = matches!(stopped, Stopped::Gone).then(|| child.wait().ok()).flatten();
            let _ = child.kill();
            let _ = child.wait();
            let why = match stopped {
                Stopped::Said(why) => why,
                Stopped::Late => format!("it did not serve within {} s", plan.ready.as_secs_f64()),
                Stopped::Odd(error) => format!("what it says is not understood: {error}"),
                Stopped::Gone => format!(
                    "it ended before it served ({}); its words are in this daemon's log",
                    ended.map_or_else(|| "of what, nobody knows".to_owned(), |status| status.to_string())
                ),
            };
            Err(Failed { why: format!("weir {version} did not take over: {why}"), had_estate })
        }
    }
}

enum Stopped {
    /// It says why itself.
    Said(String),
    Late,
    Gone,
    Odd(io::Error),
}

fn speak(
    line: &Line,
    until: Instant,
    confined: Confined,
    tell: &mpsc::UnboundedSender<News>,
    had_estate: &mut bool,
) -> Result<(), Stopped> {
    // 1. Who is it?
    let protocol = loop {
        match hear(line, until)? {
            Upwards::Hello { speaks, .. } => match SPEAKS.agree(speaks) {
                Some(protocol) => break protocol,
                None => {
                    let why = "the two versions are too far apart: restart the daemon instead".to_owned();
                    let _ = line.say(&Downwards::Refuses { why: why.clone() }, &[]);
                    return Err(Stopped::Said(why));
                }
            },
            Upwards::Fails { why } => return Err(Stopped::Said(why)),
            Upwards::Asks | Upwards::Serves | Upwards::ReopenLogs | Upwards::Unknown => {}
        }
    };
    let version = env!("CARGO_PKG_VERSION").to_owned();
    say(line, &Downwards::Welcome { protocol, version, confined })?;

    // 2. It reads its configuration.
    wait_for(line, until, |word| matches!(word, Upwards::Asks))?;

    // 3. It gets the estate.
    let (give, given) = oneshot::channel();
    let gone = || Stopped::Said("this daemon is ending".to_owned());
    tell.send(News::Asks(give)).map_err(|_| gone())?;
    let Gift { estate, beside } = given.blocking_recv().map_err(|_| gone())?;
    *had_estate = true;
    let descriptors: Vec<_> = beside.iter().map(AsFd::as_fd).collect();
    line.say(&Downwards::Gives { estate: Box::new(estate) }, &descriptors).map_err(|_| Stopped::Gone)?;

    // 4. It begins.
    wait_for(line, until, |word| matches!(word, Upwards::Serves))
}

fn wait_for(line: &Line, until: Instant, is_it: impl Fn(&Upwards) -> bool) -> Result<(), Stopped> {
    loop {
        match hear(line, until)? {
            Upwards::Fails { why } => return Err(Stopped::Said(why)),
            word if is_it(&word) => return Ok(()),
            _ => {}
        }
    }
}

fn say(line: &Line, word: &Downwards) -> Result<(), Stopped> {
    line.say(word, &[]).map_err(|_| Stopped::Gone)
}

fn hear<W: DeserializeOwned>(line: &Line, until: Instant) -> Result<W, Stopped> {
    match line.hear(Some(until)) {
        Ok(Some((word, _))) => Ok(word),
        Ok(None) => Err(Stopped::Gone),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(Stopped::Late),
        Err(error) => Err(Stopped::Odd(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handoff::Protocols;

    /// What a successor says, one after the other, and what comes of it.
    fn outcome(words: &[Upwards], stays: bool) -> (Result<(), String>, bool) {
        let (line, theirs) = Line::pair().unwrap();
        let theirs = Line::of(theirs);
        for word in words {
            theirs.say(word, &[]).unwrap();
        }
        let theirs = stays.then_some(theirs);
        let (tell, mut told) = mpsc::unbounded_channel();
        let giving = std::thread::spawn(move || {
            while let Some(news) = told.blocking_recv() {
                if let News::Asks(give) = news {
                    give.send(Gift { estate: Estate::default(), beside: Vec::new() }).unwrap();
                }
            }
        });
        let mut had_estate = false;
        let until = Instant::now() + Duration::from_millis(if stays { 100 } else { 5_000 });
        let spoken = speak(&line, until, Confined::default(), &tell, &mut had_estate);
        drop((tell, theirs));
        giving.join().unwrap();
        let spoken = spoken.map_err(|stopped| match stopped {
            Stopped::Said(why) => why,
            Stopped::Late => "late".to_owned(),
            Stopped::Gone => "gone".to_owned(),
            Stopped::Odd(error) => error.to_string(),
        });
        (spoken, had_estate)
    }

    fn hello(oldest: u32, newest: u32) -> Upwards {
        Upwards::Hello { speaks: Protocols { oldest, newest }, version: "9.9.9".to_owned() }
    }

    #[test]
    fn a_successor_takes_over_or_it_is_known_why_not_and_what_it_had_by_then() {
        use Upwards::{Asks, Fails, Serves, Unknown};
        let fails = || Fails { why: "no cake".to_owned() };
        let err = |why: &str| Err(why.to_owned());
        assert_eq!(outcome(&[hello(1, 1), Unknown, Asks, Unknown, Serves], true), (Ok(()), true));
        assert_eq!(outcome(&[hello(1, 1), Asks], true), (err("late"), true));
        assert_eq!(outcome(&[hello(1, 1), Asks, fails()], true), (err("no cake"), true));
        assert_eq!(outcome(&[hello(1, 1), fails()], true), (err("no cake"), false));
        assert_eq!(outcome(&[hello(1, 1)], true), (err("late"), false));
        let (why, had) = outcome(&[hello(8, 9)], true);
        assert!(why.unwrap_err().contains("too far apart") && !had);
    }
}
