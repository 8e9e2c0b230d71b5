//! Pebble, the ACME authority that Let's Encrypt tests with.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;
use serde_json::json;

use super::{certificates::Authority, process::Process, stand::PATIENCE, wait};

/// How it is to be.
#[derive(Debug)]
pub struct Pebble<'a> {
    /// Where it keeps its files.
    pub folder: PathBuf,
    /// Who signs its own certificate.
    pub authority: &'a Authority,
    /// Where its directory is, at `https://…/dir`, and where it is managed.
    pub directory: SocketAddr,
    pub management: SocketAddr,
    /// At which ports it looks at challenges.
    pub http: u16,
    pub tls: u16,
    /// So long its certificates last.
    pub seconds: u64,
    /// Lines of the file in which it looks names up, which is its alone.
    pub hosts: String,
}

impl Pebble<'_> {
    /// Starts it; `unshare` is that command, where it is to run.
    pub fn start(self, mut unshare: Command) -> anyhow::Result<Process> {
        let folder: &Path = &self.folder;
        fs::create_dir_all(folder)?;
        self.authority.issue(&["127.0.0.1", "localhost"])?.write(folder, "pebble")?;
        let config = json!({ "pebble": {
            "listenAddress": self.directory.to_string(),
            "managementListenAddress": self.management.to_string(),
            "certificate": folder.join("pebble.crt"),
            "privateKey": folder.join("pebble.key"),
            "httpPort": self.http,
            "tlsPort": self.tls,
            "certificateValidityPeriod": self.seconds,
        }});
        fs::write(folder.join("config.json"), config.to_string())?;
        fs::write(folder.join("hosts"), format!("127.0.0.1 localhost\n{}\n", self.hosts))?;
        let script = "mount --bind \"$0/hosts\" /etc/hosts && exec pebble -config \"$0/config.json\"";
        unshare.args(["--mount", "sh", "-c", script]).arg(folder).env("PEBBLE_VA_NOSLEEP", "1");
        let process = Process::start("pebble", unshare, &folder.join("log"))?;
        wait::until_true("pebble listens", PATIENCE, || {
            Ok(process.log_text().contains("ACME directory available"))
        })
        .with_context(|| process.log_text())?;
        Ok(process)
    }
}
