//! What the daemon tells of itself: on stderr, in the journal or in the host's syslog.
//!
//! Workers tell things too, so nothing here waits: what the journal or the syslog doesn't take at once goes to stderr.

mod outward;

use std::{io, sync::OnceLock};

use clap::ValueEnum;
use tracing_subscriber::{
    EnvFilter, Layer, Registry, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

use crate::config::model::Log;
use outward::Outward;

/// How a line on stderr looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people; with colours on a terminal
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum To {
    Stderr,
    /// systemd's journal, with severities
    Journald,
    /// The host's syslog, at /dev/log
    Syslog,
}

/// The filter that may be changed. Not there while `RUST_LOG` decides, or before [`begin`].
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// What holds until a configuration says something else.
const LEVEL: &str = "info";

/// The libraries of protocols warn of whatever clients send, with the names that they send: a stranger must not fill the log.
/// They are heard from `debug` on.
const LIBRARIES: &str = "h2=error,h3=error,hyper=error,quinn_proto=error,rustls=error";

/// Where the gate's lines come from, which whoever asks for them sees.
const GATE: &str = "proxy_user::kernel::log";

/// Begins to log. Once per process.
///
/// # Errors
/// When the system gives no socket.
pub fn begin(to: To, format: Format, colours: bool) -> io::Result<()> {
    let of_environment = EnvFilter::try_from_default_env().ok();
    let is_fixed = of_environment.is_some();
    let (filter, handle) =
        reload::Layer::new(of_environment.unwrap_or_else(|| EnvFilter::new(format!("{LEVEL},{LIBRARIES}"))));
    let stderr = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(colours && format == Format::Text)
        .with_target(false);
    let layer: Box<dyn Layer<_> + Send + Sync> = match (to, format) {
        (To::Stderr, Format::Text) => Box::new(stderr),
        (To::Stderr, Format::Json) => Box::new(stderr.json()),
        (To::Journald, _) => Box::new(Outward::to_journald()?),
        (To::Syslog, _) => Box::new(Outward::to_syslog()?),
    };
    tracing_subscriber::registry().with(filter).with(layer).init();
    if !is_fixed {
        let _ = FILTER.set(handle);
    }
    Ok(())
}

/// From here on as much is told, unless `RUST_LOG` says how much.
pub fn follow(log: &Log) {
    if let Some(handle) = FILTER.get()
        && handle.with_current(|known| known.to_string() != filter(log).to_string()).unwrap_or(false)
    {
        // Fails only when the subscriber is gone.
        let _ = handle.reload(filter(log));
    }
}

fn filter(log: &Log) -> EnvFilter {
    let mut directives = match log.level {
        "debug" | "trace" => log.level.to_owned(),
        level => format!("{level},{LIBRARIES}"),
    };
    if log.kernel {
        directives = format!("{directives},{GATE}=debug");
    }
    EnvFilter::new(directives)
}
