//! `weir hash-password`: what `basic_auth` keeps in the place of a password.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    os::fd::AsFd as _,
};

use clap::Args;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

use crate::{
    cli::{Failure, print},
    middleware::basic_auth,
};

#[derive(Debug, Args)]
pub struct HashPasswordArgs {
    /// Print a whole line for this user, `NAME:HASH`
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

pub fn run(args: &HashPasswordArgs) -> Result<(), Failure> {
    if let Some(name) = args.user.as_deref().filter(|name| name.is_empty() || name.contains(':')) {
        return Err(Failure::BadConfig(format!(
            "error: `{name}` is no user's name: it must not hold a colon"
        )));
    }
    let password = read().map_err(|error| Failure::Failed(format!("no password could be read: {error}")))?;
    if password.is_empty() {
        return Err(Failure::BadConfig("error: the password is empty".into()));
    }
    let hash = basic_auth::hash_password(password.as_bytes()).map_err(Failure::Failed)?;
    print(&match &args.user {
        Some(name) => format!("{name}:{hash}\n"),
        None => format!("{hash}\n"),
    })
}

/// A line from standard input; from a terminal it is asked for, twice, and not shown. Never an argument: those are
/// for everybody to see.
fn read() -> io::Result<String> {
    if !io::stdin().is_terminal() {
        return line();
    }
    let first = hidden("Password: ")?;
    if hidden("Once more: ")? != first {
        return Err(io::Error::other("the two are not the same"));
    }
    Ok(first)
}

fn hidden(prompt: &str) -> io::Result<String> {
    let _silence = Silence::begin()?;
    write!(io::stderr(), "{prompt}")?;
    io::stderr().flush()?;
    let line = line();
    // The line end that was typed wasn't shown either.
    writeln!(io::stderr())?;
    line
}

fn line() -> io::Result<String> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// A terminal that doesn't show what is typed, until dropped.
struct Silence(Termios);

impl Silence {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin().as_fd())?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(io::stdin().as_fd(), SetArg::TCSAFLUSH, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // When that fails the terminal is gone.
        let _ = tcsetattr(io::stdin().as_fd(), SetArg::TCSAFLUSH, &self.0);
    }
}
