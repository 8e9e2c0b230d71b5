//! What the daemon gives up when it starts: root, capabilities, system calls, places to write.
//!
//! All of it happens in [`give_up`], between reading the configuration and everything else, while the process has one
//! thread: users, capabilities and filters are a thread's, and threads that are made later inherit them. The
//! capabilities that stay are enough to bind low ports and to attach programs whenever a reload asks for it, so there is
//! no privileged half that stays behind.

mod account;
mod capabilities;
mod hand_over;
mod places;
mod report;
mod system_calls;

use std::{
    fs, io,
    path::PathBuf,
    process::{Child, Command},
};

use nix::unistd::{geteuid, getuid};

pub use hand_over::{HandedOver, hand_over};
pub use report::PrivilegeReport;

use crate::{
    config::model::{Config, Process},
    control::{
        guard::host::{outside, stay_outside},
        state::Source,
    },
    handoff::Confined,
};
use account::Account;
use places::Places;

/// Why privileges could not be given up. The daemon doesn't start then: it would run with more than it was told to.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeFault {
    #[error("process.{key}: this host has no {key} `{name}`: `adduser --system --group {name}` makes one")]
    NoSuchAccount { key: &'static str, name: String },
    #[error(
        "process.user is `{wanted}`, but weir was started as user {is}: start it as root or as `{wanted}`, or take the key out"
    )]
    NotRoot { wanted: String, is: String },
    #[error("{} can't be given to user `{user}`: {error}", path.display())]
    HandOver { path: PathBuf, user: String, error: io::Error },
    #[error(
        "the configuration has weir write below {}, which the running daemon has given up, and a daemon that it starts can't have \
         it back: restart weir instead, or have it write to one of: {folders}", folder.display()
    )]
    NotBefore { folder: PathBuf, folders: String },
    #[error("can't {doing}: {why}")]
    System { doing: &'static str, why: String },
}

/// Starts a program that is to have no less than this process had.
pub type Start = fn(Command) -> io::Result<Child>;

fn start_outside(mut command: Command) -> io::Result<Child> {
    outside(move || command.spawn()).unwrap_or_else(|| Err(io::Error::other("a thread is gone")))
}

/// What is given up.
#[derive(Debug, Default)]
pub struct InForce {
    /// The user that it became, if it became another one.
    pub became: Option<String>,
    places: Option<Places>,
    confined: Confined,
    /// There is a thread that may write anywhere, and starts programs.
    outside: bool,
}

/// Gives up what the configuration says, and what is never needed. `before`: what holds for this process since it was started, by
/// a daemon that it is to take over from.
///
/// # Errors
/// When it can't be done as it was asked for.
pub fn give_up(config: &Config, source: &Source, before: &Confined) -> Result<InForce, PrivilegeFault> {
    let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads != 1 {
        let why = format!("{threads} threads run already, and some of them would keep them");
        return Err(PrivilegeFault::System { doing: "give up privileges", why });
    }
    let became = become_user(config)?;
    capabilities::keep_what_is_needed(geteuid().is_root())?;
    if !config.process.sandbox {
        let confined = before.clone();
        return Ok(InForce { became, places: None, confined, outside: false });
    }
    let outside = geteuid().is_root();
    let known = before.filters.clone();
    if outside {
        let known = known.clone();
        stay_outside(move || system_calls::refuse(&known))
            .map_err(|error| PrivilegeFault::System { doing: "begin a thread", why: error.to_string() })?;
    }
    let places = places::confine(config, source, before.folders.as_deref())?;
    // Last: what comes before makes system calls that are refused from here on.
    let filters = system_calls::refuse(&known)?;
    // Who is started from outside writes where root may, until it confines itself.
    let folders = places.as_ref().filter(|_| !outside).map(|places| places.folders.clone());
    Ok(InForce { became, places, confined: Confined { folders, filters }, outside })
}

fn become_user(config: &Config) -> Result<Option<String>, PrivilegeFault> {
    let Some(name) = &config.process.user else { return Ok(None) };
    let account = Account::find(name, config.process.group.as_deref())?;
    if !geteuid().is_root() {
        return if account.uid == getuid() {
            Ok(None)
        } else {
            Err(PrivilegeFault::NotRoot { wanted: name.clone(), is: getuid().to_string() })
        };
    }
    if account.uid.is_root() {
        return Ok(None);
    }
    hand_over::of(config, &account)?;
    capabilities::over_a_change_of_user(|| account.enter())?;
    Ok(Some(account.name))
}

// === impl InForce ===

impl InForce {
    /// Whether a configuration can take the place of the running one, for all that was given up.
    ///
    /// # Errors
    /// A sentence, when only a restart can.
    pub fn allows(&self, next: &Config) -> Result<(), String> {
        self.places.as_ref().map_or(Ok(()), |places| places.allow(next))
    }

    /// What holds for a successor from its start on, if [`Self::start`] starts it.
    #[must_use]
    pub fn passed_on(&self) -> (Confined, Start) {
        let start: Start = if self.outside { start_outside } else { |mut command| command.spawn() };
        (self.confined.clone(), start)
    }

    /// What is in force, as the kernel tells it.
    #[must_use]
    pub fn report(&self) -> PrivilegeReport {
        report::read(self.places.as_ref())
    }
}

/// Whether this host has a user of that name.
#[must_use]
pub fn host_has_user(name: &str) -> bool {
    account::Tables::read().knows(name)
}

/// Whether the daemon, as whoever it goes on, may read and write what is described so. None: nobody can tell, since it stays
/// who starts it.
#[must_use]
pub fn daemon_may_use(process: &Process, about: &std::fs::Metadata) -> Option<bool> {
    use std::os::unix::fs::MetadataExt;
    let account = Account::find(process.user.as_deref()?, process.group.as_deref()).ok()?;
    Some(account.may_use(about.mode(), about.uid(), about.gid()))
}

/// Of what is read at start alone, what a reload has changed.
#[must_use]
pub fn waits_for_a_restart(running: &Config, next: &Config) -> bool {
    running.process != next.process
}
