//! The proxies: Weir with what it does by itself, and the others tuned for failover as well as they can be.

use std::{net::SocketAddr, path::Path};

use anyhow::Context;

use super::super::http::{PATIENCE, peers::Peer};
use crate::lab::{
    Lab,
    addresses::{EDGE, ONE, SERVER_PORT, TWO},
    client::Browser,
    process::Process,
    wait, weir,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    TwoServers = 0,
    OneServer = 1,
}

impl Setting {
    pub fn name(self) -> &'static str {
        match self {
            Self::TwoServers => "two servers",
            Self::OneServer => "one server",
        }
    }

    fn servers(self) -> Vec<SocketAddr> {
        let two = (self == Self::TwoServers).then_some(TWO);
        [Some(ONE), two].into_iter().flatten().map(|ip| (ip, SERVER_PORT).into()).collect()
    }
}

/// A proxy at the edge, and a visitor who asks it.
pub struct Proxy {
    pub name: &'static str,
    pub version: Option<String>,
    pub browser: Browser,
    pub process: Process,
    pub at: SocketAddr,
}

/// The page that the others show; Weir has one.
const PAGE: &str = "<!doctype html><title>Maintenance</title><p>Back soon.\n";

impl Proxy {
    /// Weir, nginx, HAProxy; each serves when this returns.
    pub fn start_all(lab: &Lab, setting: Setting) -> anyhow::Result<Vec<Self>> {
        let servers = setting.servers();
        let start = |name, port, process: Process| -> anyhow::Result<Self> {
            let at = (EDGE, port).into();
            let browser = Browser::plain(&lab.visitor, at)?;
            let version = match name {
                "weir" => None,
                peer => Some(Peer::find(peer)?.version()),
            };
            Ok(Self { name, version, browser, process, at })
        };
        let proxies = vec![
            start("weir", 8001, our_own(lab, 8001, &servers)?)?,
            start("nginx", 8002, nginx(lab, 8002, &servers)?)?,
            start("haproxy", 8003, haproxy(lab, 8003, &servers)?)?,
        ];
        for proxy in &proxies {
            let served = || {
                let reply = proxy.browser.get("/").ok();
                Ok(reply.is_some_and(|reply| reply.upstream().is_some()))
            };
            wait::until_true(&format!("{} serves", proxy.name), PATIENCE, served)
                .with_context(|| proxy.process.log_text())?;
        }
        Ok(proxies)
    }
}

fn our_own(lab: &Lab, port: u16, servers: &[SocketAddr]) -> anyhow::Result<Process> {
    let folder = folder(lab, "weir")?;
    let config = folder.join("weir.toml");
    let list: Vec<_> = servers.iter().map(|server| format!("\"{server}\"")).collect();
    let toml = format!(
        r#"[kernel]
mode = "off"

[admin]
bind = "127.0.0.1:9190"

[log]
access = "{}/weir-access.log"

[entrypoint.http]
bind = ["{EDGE}:{port}"]

[service.app]
servers = [{}]
health = {{ path = "/health", every = "1s", timeout = "250ms", fall = 2, rise = 2 }}
pages = {{ "502-504" = "maintenance" }}

[[route]]
service = "app"
"#,
        lab.folder().display(),
        list.join(", ")
    );
    std::fs::write(&config, toml)?;
    let mut command = lab.edge.command(weir::program()?)?;
    command.arg("run").arg(&config).env("NO_COLOR", "1");
    Process::start("weir", command, &folder.join("stderr.log"))
}

/// A server that doesn't answer for 800 ms is left: that is as quick as it gets without hurting pages that take longer
/// than they should, and it does hurt those.
fn nginx(lab: &Lab, port: u16, servers: &[SocketAddr]) -> anyhow::Result<Process> {
    let folder = folder(lab, "nginx")?;
    std::fs::write(folder.join("page.html"), PAGE)?;
    let servers: String =
        servers.iter().map(|server| format!("server {server} max_fails=1 fail_timeout=1s;")).collect();
    let places: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|module| format!("{module}_temp_path {}/{module};\n", folder.display()))
        .concat();
    let text = format!(
        "daemon off;
         user root;
         worker_processes 1;
         pid {folder}/nginx.pid;
         error_log stderr crit;
         events {{ worker_connections 4096; }}
         http {{
             {places}
             access_log {folder}/access.log combined buffer=64k flush=1s;
             upstream app {{ {servers} keepalive 64; }}
             server {{
                 listen {EDGE}:{port};
                 location / {{
                     proxy_pass http://app;
                     proxy_http_version 1.1;
                     proxy_set_header Connection '';
                     proxy_connect_timeout 300ms;
                     proxy_read_timeout 800ms;
                     proxy_send_timeout 800ms;
                     proxy_next_upstream error timeout http_502 http_503 http_504;
                     proxy_intercept_errors on;
                     error_page 502 503 504 @page;
                 }}
                 location @page {{
                     root {folder};
                     add_header Retry-After 30 always;
                     add_header Cache-Control no-store always;
                     try_files /none =503;
                 }}
             }}
         }}\n",
        folder = folder.display()
    );
    let config = folder.join("nginx.conf");
    std::fs::write(&config, text)?;
    let mut command = lab.edge.command(Peer::find("nginx")?.program)?;
    command.arg("-p").arg(&folder).arg("-c").arg(&config).args(["-e", "stderr"]);
    Process::start("nginx", command, &folder.join("stderr.log"))
}

/// Probes every 250 ms as soon as something is odd, and every failed request is something odd. What is idempotent is
/// tried again elsewhere.
fn haproxy(lab: &Lab, port: u16, servers: &[SocketAddr]) -> anyhow::Result<Process> {
    let folder = folder(lab, "haproxy")?;
    let page = folder.join("page.http");
    let head = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 30\r\nCache-Control: no-store\r\n\
                Content-Type: text/html\r\n";
    std::fs::write(&page, format!("{head}Content-Length: {}\r\n\r\n{PAGE}", PAGE.len()))?;
    let servers: String = servers
        .iter()
        .enumerate()
        .map(|(number, server)| format!("    server s{number} {server} check\n"))
        .collect();
    let text = format!(
        "global
    log stdout format raw local0
    nbthread 2
    maxconn 4096
defaults
    mode http
    log global
    option httplog
    timeout connect 300ms
    timeout client 300s
    timeout server 60s
    option redispatch 1
    retries 3
    errorfile 503 {page}
frontend edge
    bind {EDGE}:{port}
    default_backend app
backend app
    balance roundrobin
    option httpchk GET /health
    retry-on conn-failure empty-response 502 503 504
    http-request disable-l7-retry unless METH_GET
    default-server inter 1s fastinter 250ms downinter 1s rise 2 fall 2 observe layer7 error-limit 1 \
on-error mark-down on-marked-down shutdown-sessions
{servers}",
        page = page.display()
    );
    let config = folder.join("haproxy.cfg");
    std::fs::write(&config, text)?;
    let mut command = lab.edge.command(Peer::find("haproxy")?.program)?;
    command.arg("-db").arg("-f").arg(&config);
    Process::start("haproxy", command, &folder.join("haproxy.log"))
}

fn folder(lab: &Lab, name: &str) -> anyhow::Result<std::path::PathBuf> {
    let folder = lab.folder().join(Path::new("bench")).join(name);
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}
