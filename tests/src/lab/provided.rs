//! A daemon whose configuration comes from elsewhere, on the loopback of an island.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use anyhow::Context;
use serde_json::Value;

use super::{
    Island,
    client::Browser,
    process::Process,
    stand::PATIENCE,
    wait,
    weir::{ADMIN, Ran, finish, program},
};

type Done = anyhow::Result<()>;

/// Where it listens.
pub const WEB: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8000);

/// A daemon on the loopback of an island, where its sources are too.
#[derive(Debug)]
pub struct Edge {
    pub process: Process,
    pub island: Arc<Island>,
}

pub fn config(island: &Island) -> PathBuf {
    island.folder().join("weir.toml")
}

impl Edge {
    pub fn start(island: Arc<Island>, providers: &str) -> anyhow::Result<Self> {
        let folder = island.folder().display();
        fs::write(
            config(&island),
            format!(
                "[kernel]\nmode = 'off'\n[admin]\nbind = '{ADMIN}'\n[log]\naccess = 'off'\n[state]\ndir = '{folder}/state'\n\
                 [entrypoint.http]\nbind = '{WEB}'\n{providers}"
            ),
        )?;
        let mut command = island.namespace.command(program()?)?;
        command.arg("run").arg(config(&island)).env("NO_COLOR", "1");
        let process = Process::start("weir", command, &island.folder().join("weir.log"))?;
        let edge = Self { process, island };
        let admin = edge.browser(ADMIN)?;
        wait::until_true("the daemon is up", PATIENCE, || Ok(admin.get("/ping").is_ok()))
            .with_context(|| edge.process.log_text())?;
        Ok(edge)
    }

    pub fn browser(&self, at: SocketAddr) -> anyhow::Result<Browser> {
        Browser::plain(&self.island.namespace, at)
    }

    /// Where the site sends its visitors; nothing, if there is no such site.
    pub fn leads(&self, name: &str) -> anyhow::Result<Option<String>> {
        let reply = self.browser(WEB)?.with_host(&format!("{name}.example")).get("/")?;
        let to = reply.header("location").and_then(|to| to.strip_prefix("http://"));
        Ok(to.map(|to| to.trim_end_matches('/').to_owned()))
    }

    pub fn until_leads(&self, name: &str, to: &str) -> Done {
        wait::until_true(&format!("{name} leads to {to}"), PATIENCE, || {
            Ok(self.leads(name)?.as_deref() == Some(to))
        })
        .with_context(|| self.process.log_text())
    }

    pub fn provider(&self, name: &str) -> anyhow::Result<Value> {
        let status = self.browser(ADMIN)?.get("/api/v1/status")?.json()?;
        let all = status["providers"].as_array().context("no providers")?;
        Ok(all.iter().find(|one| one["name"] == name).cloned().unwrap_or_default())
    }

    pub fn metric(&self, line: &str) -> anyhow::Result<bool> {
        Ok(self.browser(ADMIN)?.get("/metrics")?.text().lines().any(|known| known == line))
    }

    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<Ran> {
        let mut command = self.island.namespace.command(program()?)?;
        command.args(arguments).env("NO_COLOR", "1").env("WEIR_ADMIN", ADMIN.to_string());
        finish(command)
    }

    pub fn check(&self, flags: &[&str]) -> anyhow::Result<Ran> {
        let config = config(&self.island).display().to_string();
        self.run(&[&["check", &config], flags].concat())
    }

    /// SIGTERM, and a new one with the same state.
    pub fn restart(mut self, providers: &str) -> anyhow::Result<Self> {
        self.process.signal(nix::sys::signal::Signal::SIGTERM)?;
        self.process.wait(PATIENCE)?;
        Self::start(self.island.clone(), providers)
    }
}
