//! The new daemon's side: where it comes from, what it gets, and the word that it serves.

use std::{
    io,
    os::{fd::AsFd, unix::net::UnixStream},
    time::{Duration, Instant},
};

use nix::unistd::dup2_stdin;

use super::{
    Confined, Downwards, SPEAKS, TAKES_OVER, Upwards, counters::Counts, estate::Inherited, service_manager,
    wire::Line,
};

/// How long the predecessor may take for a word. It has nothing else to do then.
const PATIENCE: Duration = Duration::from_secs(15);

/// A daemon that begins.
#[derive(Debug)]
pub struct Heir {
    predecessor: Option<Predecessor>,
    /// What the service manager has kept; for one without a predecessor.
    kept: Inherited,
}

/// Who serves until now.
#[derive(Debug)]
pub struct Predecessor {
    pub line: Line,
    pub version: String,
    /// What it has counted since it gave its estate away.
    pub counted: Counts,
    confined: Confined,
}

impl Heir {
    /// Finds out where this daemon comes from.
    ///
    /// # Errors
    /// A sentence, when there should be a predecessor and isn't.
    pub fn arrive() -> Result<Self, String> {
        if std::env::var_os(TAKES_OVER).is_none() {
            let sockets = service_manager::kept();
            return Ok(Self { predecessor: None, kept: Inherited { sockets, ..Inherited::default() } });
        }
        let none = |error: io::Error| {
            format!(
                "{TAKES_OVER} is set, and no daemon that could be taken over from is at standard input: {error}"
            )
        };
        let own = io::stdin().as_fd().try_clone_to_owned().map_err(none)?;
        // Nobody else reads from there, and no program that is started gets it.
        let nothing = std::fs::File::open("/dev/null").map_err(none)?;
        dup2_stdin(nothing).map_err(|error| none(error.into()))?;
        let line = Line::of(UnixStream::from(own));
        let version = env!("CARGO_PKG_VERSION").to_owned();
        line.say(&Upwards::Hello { speaks: SPEAKS, version }, &[]).map_err(none)?;
        loop {
            match hear(&line).map_err(none)? {
                (Downwards::Welcome { version, confined, .. }, _) => {
                    let counted = Counts::new();
                    let predecessor = Some(Predecessor { line, version, counted, confined });
                    return Ok(Self { predecessor, kept: Inherited::default() });
                }
                (Downwards::Refuses { why }, _) => return Err(why),
                _ => {}
            }
        }
    }

    /// What holds for this process already, since it held for who started it.
    pub fn confined(&self) -> Confined {
        self.predecessor.as_ref().map(|predecessor| predecessor.confined.clone()).unwrap_or_default()
    }

    /// Takes what there is to take. From here on a predecessor stands still: it is waiting.
    ///
    /// # Errors
    /// When the predecessor has gone, or gives nothing.
    pub fn take(&mut self) -> Result<Inherited, String> {
        let Some(Predecessor { line, .. }) = &self.predecessor else {
            return Ok(std::mem::take(&mut self.kept));
        };
        let failed = |error: io::Error| format!("the running daemon does not hand over: {error}");
        line.say(&Upwards::Asks, &[]).map_err(failed)?;
        loop {
            if let (Downwards::Gives { estate }, beside) = hear(line).map_err(failed)? {
                return Ok(Inherited::of(*estate, beside));
            }
        }
    }

    /// This daemon serves: waits until the predecessor has let go. Who that was, for as long as it is still there.
    pub fn serves(&mut self) -> Option<Predecessor> {
        let mut predecessor = self.predecessor.take()?;
        predecessor.line.say(&Upwards::Serves, &[]).ok()?;
        loop {
            match hear(&predecessor.line) {
                Ok((Downwards::Yours, _)) => return Some(predecessor),
                Ok((Downwards::Counted { counts, .. }, _)) => predecessor.counted = counts,
                Ok(_) => {}
                Err(error) => {
                    // It writes nothing any more, whatever has become of it.
                    tracing::warn!(%error, "the daemon before went without a word");
                    return None;
                }
            }
        }
    }

    /// It came to nothing.
    pub fn fails(&mut self, why: String) {
        if let Some(predecessor) = self.predecessor.take() {
            // When it has gone there is nobody to tell.
            let _ = predecessor.line.say(&Upwards::Fails { why }, &[]);
        }
    }
}

fn hear(line: &Line) -> io::Result<(Downwards, Vec<std::os::fd::OwnedFd>)> {
    line.hear(Some(Instant::now() + PATIENCE))?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
