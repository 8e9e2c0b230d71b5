//! One network namespace: entering it, and starting programs in it.
//!
//! Programs are started by `setns` in the child, not by `ip netns exec`: that one also makes a mount namespace with
//! a fresh `/sys`, in which the lab's bpffs would be gone.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;
use nix::{
    sched::{CloneFlags, setns},
    sys::{prctl::set_pdeathsig, signal::Signal},
    unistd::{Gid, Uid, setgid, setgroups, setuid},
};

/// Where `ip netns` keeps its handles.
pub const HANDLES: &str = "/run/netns";

/// An open handle: the namespace stays while this lives, whatever happens to its name.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    handle: File,
}

/// As whom a program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum As {
    Root,
    /// `nobody`, without any capability.
    Nobody,
}

/// Debian's `nobody` and `nogroup`.
const NOBODY: u32 = 65534;

impl Namespace {
    /// Opens the namespace that `ip netns` knows by this name.
    pub fn open(name: &str) -> anyhow::Result<Self> {
        let path = Path::new(HANDLES).join(name);
        let handle =
            File::open(&path).with_context(|| format!("can't open the namespace {}", path.display()))?;
        Ok(Self { name: name.to_owned(), handle })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn path(&self) -> PathBuf {
        Path::new(HANDLES).join(&self.name)
    }

    /// Moves the *calling thread* into the namespace, for good. Sockets belong to where they were made.
    pub fn enter(&self) -> io::Result<()> {
        setns(&self.handle, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
    }

    /// Runs `work` on a thread of its own inside the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter().with_context(|| format!("can't enter the namespace {}", self.name))?;
                    Ok(work())
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A file below `/proc/net` as it is inside. (`/proc/net` itself would show the main thread's namespace.)
    pub fn proc_net(&self, file: &str) -> anyhow::Result<String> {
        let path = Path::new("/proc/thread-self/net").join(file);
        self.run(|| std::fs::read_to_string(&path))?.with_context(|| format!("can't read {}", path.display()))
    }

    /// A program to be started inside. It dies with the thread that starts it, so that a lab process that is
    /// killed leaves no programs behind.
    pub fn command(&self, program: impl AsRef<OsStr>) -> anyhow::Result<Command> {
        self.command_as(program, As::Root)
    }

    pub fn command_as(&self, program: impl AsRef<OsStr>, user: As) -> anyhow::Result<Command> {
        let handle = self.handle.try_clone().context("can't duplicate a namespace handle")?;
        let mut command = Command::new(program);
        command.process_group(0);
        // SAFETY: between fork and exec the closure makes plain system calls only, and allocates nothing.
        unsafe {
            command.pre_exec(move || {
                setns(&handle, CloneFlags::CLONE_NEWNET)?;
                if user == As::Nobody {
                    setgroups(&[])?;
                    setgid(Gid::from_raw(NOBODY))?;
                    setuid(Uid::from_raw(NOBODY))?;
                }
                // Last: a change of user clears it.
                set_pdeathsig(Signal::SIGKILL)?;
                Ok(())
            });
        }
        Ok(command)
    }
}
