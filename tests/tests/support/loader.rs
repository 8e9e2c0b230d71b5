//! The test binary once more, as a process that can be killed: its test `loader` is no test.

#![allow(dead_code, reason = "each test binary uses its part of it")]
#![allow(clippy::unwrap_used, reason = "this is test code, outside of a test function")]

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use proxy_user::kernel::Kernel;

use crate::{edge::desired, scratch::Scratch};

/// What the test `loader` is. Does nothing unless [`Loader`] started it.
pub fn load() {
    let Some(bpffs) = std::env::var_os(Loader::BPFFS) else { return };
    let mut kernel = Kernel::open(bpffs.as_ref()).unwrap_or_else(|fault| panic!("{fault}"));
    let applied = kernel.apply(&desired(1, &["192.0.2.0/24"])).unwrap_or_else(|fault| panic!("{fault}"));
    println!("{}: {applied:?}", Loader::READY);
    // Until it is killed; no longer than the test that forgot to.
    let end = Instant::now() + Duration::from_secs(60);
    if std::env::var_os(Loader::RELOADS).is_none() {
        // Again and again: what the threads of `apply` have left may wake it.
        while Instant::now() < end {
            std::thread::park_timeout(end.saturating_duration_since(Instant::now()));
        }
        return;
    }
    // All of them let the visitor in, and none the stranger.
    let lists: [&[&str]; 3] =
        [&["192.0.2.0/24"], &["10.0.0.0/8", "192.0.2.10/32"], &["0.0.0.0/2", "192.0.0.0/14", "224.0.0.0/3"]];
    let mut generation = 1;
    while Instant::now() < end {
        generation += 1;
        kernel.apply(&desired(generation, lists[generation as usize % lists.len()])).unwrap();
    }
}

/// A process that loads the gate and then stays.
pub struct Loader(Child);

impl Loader {
    pub const BPFFS: &str = "WEIR_TEST_LOADER_BPFFS";
    pub const READY: &str = "the gate stands";

    const RELOADS: &str = "WEIR_TEST_LOADER_RELOADS";

    /// One that takes over another configuration again and again.
    pub fn start_reloading(scratch: &Scratch) -> Self {
        let mut command = Self::command(scratch, "+all");
        command.env(Self::RELOADS, "1");
        Self::ready(command)
    }

    pub fn start(scratch: &Scratch) -> Self {
        Self::start_with(scratch, "+all")
    }

    /// With no more than these capabilities, as `setpriv` writes them.
    pub fn start_with(scratch: &Scratch, capabilities: &str) -> Self {
        Self::ready(Self::command(scratch, capabilities))
    }

    fn ready(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains(Self::READY)), "the loader did not load");
        Self(child)
    }

    pub fn command(scratch: &Scratch, capabilities: &str) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--bounding-set", capabilities])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "loader", "--nocapture"])
            .env(Self::BPFFS, &scratch.bpffs)
            .stdout(Stdio::piped());
        command
    }

    /// SIGKILL: it can't tidy up.
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.kill();
    }
}
