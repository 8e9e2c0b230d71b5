//! What it costs to know what happens: Weir with nothing but its counters, and with all that an operator may want.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use super::peers;
use crate::lab::{Island, client::Browser};

/// What is told of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telemetry {
    /// Nothing but what is counted.
    Off,
    /// An access log: the line that nginx and HAProxy write, with as much in it.
    Combined,
    /// An access log with Weir's own fields.
    Json,
    /// That, a scrape of the metrics every second, and spans of one request in a hundred.
    All,
}

/// The two that are compared, and how they are called.
pub const PAIR: [(&str, Telemetry); 2] =
    [("telemetry_off", Telemetry::Off), ("telemetry_on", Telemetry::All)];

/// Prometheus asks every 15 s or so; this is the cost of fifteen of them.
const SCRAPE: Duration = Duration::from_secs(1);

/// The part of Weir's configuration that is about it.
pub fn written(telemetry: Telemetry, log: &str) -> String {
    let access = |format: &str| format!("[log]\naccess = \"{log}\"\nformat = \"{format}\"\n");
    match telemetry {
        Telemetry::Off => "[log]\naccess = \"off\"\n".to_owned(),
        Telemetry::Combined => access("combined"),
        Telemetry::Json => access("json"),
        Telemetry::All => {
            let collector = format!("http://127.0.0.1:{}", peers::SERVER_PORT);
            let tracing =
                format!("[tracing]\nendpoint = \"{collector}\"\nprotocol = \"http\"\nsample = \"1%\"\n");
            format!("{}\n{tracing}", access("json"))
        }
    }
}

/// Runs `work` while somebody scrapes.
pub fn while_scraped<T>(
    island: &Island,
    admin: u16,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let browser = Browser::plain(&island.namespace, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), admin))?;
    anyhow::ensure!(browser.get("/metrics")?.status == 200, "there are no metrics");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let scraper = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let _ = browser.get("/metrics");
                std::thread::park_timeout(SCRAPE);
            }
        });
        let done = work();
        over.store(true, Ordering::Relaxed);
        scraper.thread().unpark();
        done
    })
}
