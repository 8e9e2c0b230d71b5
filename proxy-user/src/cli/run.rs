//! `weir run`

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::runtime::{Builder, LocalOptions};
use tracing_subscriber::EnvFilter;

use crate::{
    allocator,
    cli::{Failure, colour_on_stderr, print},
    config::DEFAULT_PATH,
    control::{self, Options, StartFault},
};

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Configuration file or folder. Without it: /etc/weir/weir.toml, or a built-in default that always starts
    #[arg(env = "WEIR_CONFIG")]
    file: Option<PathBuf>,
    /// Print the built-in default configuration, as a model to copy, and do nothing else
    #[arg(long)]
    print_default: bool,
    /// Worker threads [default: one per core]
    #[arg(long, env = "WEIR_WORKERS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// Without the lock-out guard, which refuses a configuration that would cut the operator off
    #[arg(long, env = "WEIR_FORCE", value_parser = clap::builder::FalseyValueParser::new())]
    force: bool,
    /// How the daemon's own log (on stderr) is written; RUST_LOG filters it
    #[arg(long, env = "WEIR_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

pub fn run(args: RunArgs) -> Result<(), Failure> {
    if args.print_default {
        return print(crate::config::EMBEDDED);
    }
    allocator::tune();
    raise_open_files();
    log_to_stderr(args.log_format);
    let path =
        args.file.or_else(|| Some(PathBuf::from(DEFAULT_PATH)).filter(|path| Path::new(path).exists()));
    let options = Options { path, workers: args.workers.map(usize::from), force: args.force };
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(|error| Failure::Failed(format!("the system gives no runtime: {error}")))?;
    let ended = runtime.block_on(control::run(options));
    // A name that is being resolved for a list may take its time: nobody waits for it any more.
    runtime.shutdown_background();
    ended.map_err(|fault| match fault {
        StartFault::Config(report) => Failure::BadConfig(report.render(colour_on_stderr())),
        other => Failure::Failed(other.to_string()),
    })
}

/// Two descriptors for each client: the soft limit of 1,024 that shells hand down is for programs that use select(2).
fn raise_open_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Refused only where the limit may not be changed at all: then the one that was given has to do.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// What is logged unless RUST_LOG says otherwise. The libraries of protocols warn of whatever clients send, with the names that
/// they send: a stranger must not fill the log.
const LOGGED: &str = "info,h2=error,h3=error,hyper=error,quinn_proto=error,rustls=error";

fn log_to_stderr(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOGGED));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour_on_stderr())
        .with_target(false);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Alone {
        #[command(flatten)]
        run: RunArgs,
    }

    #[test]
    fn force_takes_no_value_that_could_be_the_file() {
        let run = Alone::parse_from(["weir", "--force", "/tmp/weir.toml"]).run;
        assert!(run.force);
        assert_eq!(run.file.as_deref(), Some(Path::new("/tmp/weir.toml")));
        assert!(!Alone::parse_from(["weir", "/tmp/weir.toml"]).run.force);
    }
}
