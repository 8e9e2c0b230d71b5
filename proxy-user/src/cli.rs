//! The command line. Nothing else imports it.
//!
//! Exit codes: 0 fine, 1 failed, 2 bad usage or configuration.

mod admin;
mod allowlist;
mod apply;
mod block;
mod check;
mod docs;
mod doctor;
mod drain;
mod explain;
#[cfg(feature = "etcd")]
mod fleet;
mod flows;
mod generate;
mod hand_over;
mod hash_password;
mod import;
mod init;
mod kernel;
mod maintenance;
mod reload;
mod roll;
mod run;
mod split;
mod status;
mod table;
mod top;
mod upgrade;
mod watch;

use std::{io::Write as _, process::ExitCode};

use clap::{Args, Parser, Subcommand};

/// Weir, an eBPF-accelerated edge proxy: lets in only who may come in, carries requests to servers that are well,
/// and answers itself when none is.
#[derive(Debug, Parser)]
#[command(name = "weir", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon
    Run(run::RunArgs),
    /// Check a configuration without running it
    Check(check::CheckArgs),
    /// Make a configuration the one that the daemon runs, on trial if you like
    Apply(apply::ApplyArgs),
    /// Keep the configuration that is on trial
    Confirm(apply::TrialArgs),
    /// Take the configuration that is on trial back at once
    Revert(apply::TrialArgs),
    /// Show what a configuration would change against what runs
    Diff(apply::DiffArgs),
    /// Have the running daemon read its configuration anew
    Reload(reload::ReloadArgs),
    /// Have the running daemon give way to another binary, without losing a request
    Upgrade(upgrade::UpgradeArgs),
    /// Show what the running daemon does
    Status(status::StatusArgs),
    /// Send no new work to servers, or to this host, and let the old work end
    Drain(drain::DrainArgs),
    /// Send work again to servers, or to this host
    Undrain(drain::UndrainArgs),
    /// Take the servers of a service out one by one, run a command for each, and put it back when it is well
    Roll(roll::RollArgs),
    /// Check a folder of documents, and give it to the hosts of a fleet as their next configuration
    #[cfg(feature = "etcd")]
    Push(fleet::PushArgs),
    /// Show the generations in a fleet's store
    #[cfg(feature = "etcd")]
    History(fleet::HistoryArgs),
    /// Give the hosts of a fleet an earlier generation again
    #[cfg(feature = "etcd")]
    Rollback(fleet::RollbackArgs),
    /// Look at the hosts of a fleet, and decide on what they try
    #[command(subcommand)]
    #[cfg(feature = "etcd")]
    Fleet(fleet::FleetCommand),
    /// Show the connections that the kernel carries (passthrough by port)
    Flows(flows::FlowsArgs),
    /// Show allowlists and how current they are, or fetch them now
    #[command(subcommand)]
    Allowlist(allowlist::AllowlistCommand),
    /// Block addresses for a while, show who is blocked, let them go
    #[command(subcommand)]
    Block(block::BlockCommand),
    /// Show how requests are shared out between services and what became of them, share them out otherwise, or have a
    /// judge do it
    Split(split::SplitArgs),
    /// Put a page in the servers' place for a while, take it away, or show where one is
    Maintenance(maintenance::MaintenanceArgs),
    /// Say why the gate passes or drops an address or a packet, which way a URL takes, or more about a code like W012
    Explain(explain::ExplainArgs),
    /// Make of a password what `basic_auth` keeps of it
    HashPassword(hash_password::HashPasswordArgs),
    /// Show packets that the gate drops, as it drops them
    Watch(watch::WatchArgs),
    /// Show per second what passes, what is dropped and where that comes from, and how the servers are
    Top(top::TopArgs),
    /// Look at, or remove, what Weir keeps in the kernel
    #[command(subcommand)]
    Kernel(kernel::KernelCommand),
    /// Exit 0 while the daemon takes traffic, 1 otherwise (for container health checks)
    Ping(status::PingArgs),
    /// Print the version, and whether the kernel programs are inside
    Version(VersionArgs),
    /// Look at this host as the daemon will find it, and say what to mend
    Doctor(doctor::DoctorArgs),
    /// Write a first configuration for this host
    Init(init::InitArgs),
    /// Make a configuration for Weir of one for nginx, HAProxy or Traefik
    Import(import::ImportArgs),
    /// Give Weir's own folders, and its pins, to the user that the daemon is going to run as
    HandOver(hand_over::HandOverArgs),
    /// Print a script that completes commands in your shell
    Completions(generate::CompletionsArgs),
    /// Take a configuration on trial back where no daemon does; `weir apply --confirm` starts it
    #[command(hide = true)]
    Watchdog(apply::WatchdogArgs),
    /// Write the generated documentation into a folder
    #[command(hide = true)]
    Docs(docs::DocsArgs),
    /// Write the manual pages into a folder
    #[command(hide = true)]
    Manual(generate::ManualArgs),
}

#[derive(Debug, Args)]
struct VersionArgs {
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

/// How a command ended, where it did not go well.
#[derive(Debug)]
enum Failure {
    /// Exit code 1.
    Failed(String),
    /// Exit code 2: the configuration or the usage is at fault. The text is rendered already.
    BadConfig(String),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(args) => run::run(args),
        Command::Check(args) => check::run(&args),
        Command::Apply(args) => apply::run(&args),
        Command::Confirm(args) => apply::confirm(&args),
        Command::Revert(args) => apply::revert(&args),
        Command::Diff(args) => apply::diff(&args),
        Command::Watchdog(args) => apply::watchdog(args),
        Command::Reload(args) => reload::run(&args),
        Command::Upgrade(args) => upgrade::run(&args),
        Command::Status(args) => status::run(&args),
        #[cfg(feature = "etcd")]
        Command::Push(args) => fleet::push(&args),
        #[cfg(feature = "etcd")]
        Command::History(args) => fleet::history(&args),
        #[cfg(feature = "etcd")]
        Command::Rollback(args) => fleet::rollback(&args),
        #[cfg(feature = "etcd")]
        Command::Fleet(command) => fleet::run(&command),
        Command::Flows(args) => flows::run(&args),
        Command::Drain(args) => drain::drain(&args),
        Command::Undrain(args) => drain::undrain(&args),
        Command::Roll(args) => roll::run(&args),
        Command::Allowlist(command) => allowlist::run(&command),
        Command::Block(command) => block::run(&command),
        Command::Split(args) => split::run(&args),
        Command::Maintenance(args) => maintenance::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::HashPassword(args) => hash_password::run(&args),
        Command::Watch(args) => watch::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Kernel(command) => kernel::run(&command),
        Command::Ping(args) => status::ping(&args),
        Command::Version(args) => version(&args),
        Command::Docs(args) => docs::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Init(args) => init::run(&args),
        Command::Import(args) => import::run(&args),
        Command::HandOver(args) => hand_over::run(&args),
        Command::Completions(args) => generate::completions(&args),
        Command::Manual(args) => generate::manual(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Failed(sentence)) => {
            complain(&format!("error: {sentence}"));
            ExitCode::from(1)
        }
        Err(Failure::BadConfig(report)) => {
            complain(&report);
            ExitCode::from(2)
        }
    }
}

fn version(args: &VersionArgs) -> Result<(), Failure> {
    let ebpf = crate::kernel::object_built_in().is_some();
    if args.json {
        let version = serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "ebpf": ebpf,
            "take_over": crate::handoff::SPEAKS,
        });
        return print(&format!("{version}\n"));
    }
    let inside = if ebpf {
        "with its kernel programs"
    } else {
        "without kernel programs: built without the eBPF toolchain"
    };
    print(&format!("weir {} ({inside})\n", env!("CARGO_PKG_VERSION")))
}

/// To stdout; a reader that has gone away (`weir status | head -1`) is no failure.
fn print(text: &str) -> Result<(), Failure> {
    match anstream::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::Failed(format!("can't write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// To stderr. When that fails there is nobody left to tell.
fn complain(text: &str) {
    let _ = writeln!(anstream::stderr(), "{}", text.trim_end());
}

/// Whether messages on stderr may be coloured (NO_COLOR, CLICOLOR_FORCE and the terminal decide).
fn colour_on_stderr() -> bool {
    anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never
}

/// A small runtime for commands that ask the daemon.
fn block_on<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime
        .map(|runtime| runtime.block_on(work))
        .map_err(|error| Failure::Failed(format!("the system gives no runtime: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
