//! `cargo xtask`: everything that is done to Weir besides writing it.
//!
//! A fresh machine compiles this first, so it has few dependencies and does the rest itself: it finds or
//! installs the compiler for the kernel programs, builds, and hands over to `weir-lab` (the `tests` crate)
//! for whatever needs network namespaces. It writes its own progress to stderr only: stdout belongs to what
//! was asked for, so that the last line of `bench … --json` is the JSON.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::build::Profile;
use crate::workspace::Workspace;

mod build;
mod dist;
mod docs;
mod fuzz;
mod kernels;
mod lab;
mod packages;
mod progress;
mod python;
mod root;
mod setup;
mod test;
mod workspace;

#[derive(Parser)]
#[command(
    bin_name = "cargo xtask",
    about = "Build, try, test and package Weir",
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Find or install what building and testing need
    Setup(setup::Arguments),
    /// Build the kernel programs, then the daemon with them inside
    Build {
        /// How to build the daemon
        #[arg(long, default_value = "dev")]
        profile: Profile,
    },
    /// Watch Weir guard and serve in a lab of network namespaces
    #[command(disable_help_flag = true)]
    Demo(Passed),
    /// Keep a lab of network namespaces for trying things by hand
    #[command(disable_help_flag = true)]
    Lab(Passed),
    /// Measure (`gate`, `flood`, `reload`, `http`, `failover`, `tls`, `passthrough`, `fleet`, `memory`)
    #[command(disable_help_flag = true)]
    Bench(Passed),
    /// Run every test
    Test(test::Arguments),
    /// Feed the gate's logic and our parsers with strange bytes, for a while
    Fuzz(fuzz::Arguments),
    /// Run the gate's tests on Debian's kernels 6.1 and 6.12, in emulated VMs
    TestKernels(kernels::Arguments),
    /// Write the generated reference pages
    Docs {
        /// Change nothing; fail if a page is out of date
        #[arg(long)]
        check: bool,
    },
    /// Make one self-contained `weir` and its archive
    Dist(dist::Arguments),
}

/// What `weir-lab` gets to see, untouched.
#[derive(clap::Args)]
struct Passed {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    match arguments.task {
        Task::Setup(arguments) => setup::run(&workspace, &arguments),
        Task::Build { profile } => {
            let built = build::all(&workspace, profile)?;
            eprintln!("built {}", built.weir.display());
            Ok(ExitCode::SUCCESS)
        }
        Task::Demo(passed) => lab::hand_over(&workspace, lab::Part::Demo, &passed.arguments),
        Task::Lab(passed) => lab::hand_over(&workspace, lab::Part::Lab, &passed.arguments),
        Task::Bench(passed) => lab::hand_over(&workspace, lab::Part::Bench, &passed.arguments),
        Task::Test(arguments) => test::run(&workspace, &arguments),
        Task::Fuzz(arguments) => fuzz::run(&workspace, &arguments),
        Task::TestKernels(arguments) => kernels::run(&workspace, &arguments),
        Task::Docs { check } => docs::run(&workspace, check),
        Task::Dist(arguments) => dist::run(&workspace, &arguments),
    }
}
