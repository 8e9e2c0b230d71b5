//! The peers: where they are, how they are set up, and on which core they run.
//!
//! Their settings are what a careful operator would write: kept connections to the server, an access log (nginx's
//! buffered, as Weir's is), and to server and client the fields that Weir sends them without being told to.

use std::{
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context, bail, ensure};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use super::PATIENCE;
use crate::{
    lab::{Island, client::Browser, process::Process, wait},
    needs,
};

/// Where the server behind the proxies listens.
pub const SERVER_PORT: u16 = 9001;

/// One core for the proxies, another for all the rest.
#[derive(Debug, Clone, Copy)]
pub struct Cores {
    pub proxy: usize,
    pub aside: usize,
}

impl Cores {
    pub fn of_this_machine() -> anyhow::Result<Self> {
        let ours = sched_getaffinity(Pid::from_raw(0)).context("can't tell which cores there are")?;
        let mut cores = (0..CpuSet::count()).filter(|&core| ours.is_set(core).unwrap_or(false));
        let proxy = cores.next().context("no core at all")?;
        Ok(Self { proxy, aside: cores.next().context("the benchmark needs two cores")? })
    }
}

/// A program, and the folders of libraries that it needs beside the system's.
#[derive(Debug)]
pub struct Peer {
    pub program: PathBuf,
    pub libraries: Vec<PathBuf>,
}

impl Peer {
    /// In `WEIR_PEERS`, a folder of unpacked packages, or installed.
    pub fn find(name: &str) -> anyhow::Result<Self> {
        if let Some(root) = std::env::var_os("WEIR_PEERS").map(PathBuf::from) {
            let program = ["usr/sbin", "usr/bin"].map(|folder| root.join(folder).join(name));
            if let Some(program) = program.into_iter().find(|program| program.is_file()) {
                return Ok(Self { program, libraries: libraries(&root) });
            }
        }
        let program = needs::find_program(name).with_context(|| {
            format!(
                "`{name}` isn't there: install Debian's package, or let `cargo xtask bench http` fetch it"
            )
        })?;
        Ok(Self { program, libraries: Vec::new() })
    }

    /// Inside of the island, on this core.
    pub fn command(&self, island: &Island, core: usize) -> anyhow::Result<Command> {
        let mut only = CpuSet::new();
        only.set(core)?;
        let mut command = island.namespace.command(&self.program)?;
        self.with_libraries(&mut command)?;
        // SAFETY: between fork and exec the closure makes one system call, and allocates nothing.
        unsafe {
            command.pre_exec(move || Ok(sched_setaffinity(Pid::from_raw(0), &only)?));
        }
        Ok(command)
    }

    /// The first line of what it says about itself.
    pub fn version(&self) -> String {
        let mut command = Command::new(&self.program);
        let said = self.with_libraries(&mut command).and_then(|()| Ok(command.arg("-v").output()?));
        let said = said.map(|Output { stdout, stderr, .. }| [stdout, stderr].concat()).unwrap_or_default();
        String::from_utf8_lossy(&said).lines().next().unwrap_or("unknown").to_owned()
    }

    fn with_libraries(&self, command: &mut Command) -> anyhow::Result<()> {
        if !self.libraries.is_empty() {
            command.env("LD_LIBRARY_PATH", std::env::join_paths(&self.libraries)?);
        }
        Ok(())
    }
}

/// `lib/<machine>-linux-gnu` and the like below `root`.
fn libraries(root: &Path) -> Vec<PathBuf> {
    ["usr/lib", "lib"]
        .iter()
        .filter_map(|folder| std::fs::read_dir(root.join(folder)).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.to_string_lossy().ends_with("-linux-gnu"))
        .collect()
}

/// What the proxies stand in front of: an nginx that answers from memory.
pub fn server(island: &Island, cores: &Cores) -> anyhow::Result<Process> {
    let www = island.folder().join("www");
    std::fs::create_dir_all(&www)?;
    std::fs::write(www.join("small"), "hello from the server\n")?;
    std::fs::write(www.join("64k"), vec![b'x'; 64 * 1024])?;
    let http = format!(
        "access_log off;
         sendfile on;
         open_file_cache max=10;
         server {{ listen 127.0.0.1:{SERVER_PORT} backlog=1024; root {}; }}",
        www.display()
    );
    let process = start_nginx(island, "server", cores.aside, &http)?;
    wait_until_it_serves(island, SERVER_PORT)
        .with_context(|| format!("the server doesn't serve:\n{}", process.log_text()))?;
    Ok(process)
}

/// What an nginx passes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fields {
    /// As many as Weir does: five to the server, and the request's number to the client as well.
    Same,
    /// Three to the server.
    Few,
}

pub fn nginx(island: &Island, cores: &Cores, port: u16, fields: Fields) -> anyhow::Result<Process> {
    let more = match fields {
        Fields::Same => {
            "proxy_set_header X-Forwarded-Host $host;
                 proxy_set_header X-Real-IP $remote_addr;
                 add_header X-Request-Id $request_id always;"
        }
        Fields::Few => "",
    };
    let title = format!("nginx-{port}");
    let http = format!(
        "access_log {folder}/{title}-access.log combined buffer=64k flush=1s;
         proxy_buffers 16 16k;
         upstream app {{ server 127.0.0.1:{SERVER_PORT}; keepalive 64; keepalive_requests 100000000; }}
         server {{
             listen 127.0.0.1:{port} backlog=1024;
             location / {{
                 proxy_pass http://app;
                 proxy_http_version 1.1;
                 proxy_set_header Connection '';
                 proxy_set_header Host $host;
                 proxy_set_header X-Forwarded-For $remote_addr;
                 proxy_set_header X-Forwarded-Proto $scheme;
                 proxy_set_header X-Request-Id $request_id;
                 {more}
             }}
         }}",
        folder = island.folder().display()
    );
    start_nginx(island, &title, cores.proxy, &http)
}

pub fn start_nginx(island: &Island, title: &str, core: usize, http: &str) -> anyhow::Result<Process> {
    let folder = island.folder().join(title);
    std::fs::create_dir_all(&folder)?;
    let config = folder.join("nginx.conf");
    let places: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|module| format!("{module}_temp_path {}/{module};\n", folder.display()))
        .concat();
    // A single process: what is measured is one worker, not one and its master.
    let text = format!(
        "daemon off;
         master_process off;
         worker_processes 1;
         pid {folder}/nginx.pid;
         error_log stderr warn;
         events {{ worker_connections 32768; }}
         http {{
             {places}
             keepalive_requests 100000000;
             keepalive_timeout 300s;
             {http}
         }}\n",
        folder = folder.display()
    );
    std::fs::write(&config, text)?;
    let mut command = Peer::find("nginx")?.command(island, core)?;
    command.arg("-p").arg(&folder).arg("-c").arg(&config).args(["-e", "stderr"]);
    Process::start(title, command, &folder.join("stderr.log"))
}

pub fn haproxy(island: &Island, cores: &Cores, port: u16) -> anyhow::Result<Process> {
    let config = island.folder().join("haproxy.cfg");
    let text = format!(
        "global
    log stdout format raw local0
    nbthread 1
    maxconn 4096
defaults
    mode http
    log global
    option httplog
    option forwardfor
    http-reuse always
    timeout connect 5s
    timeout client 300s
    timeout server 300s
frontend edge
    bind 127.0.0.1:{port} backlog 1024
    unique-id-format %[uuid()]
    unique-id-header X-Request-Id
    http-request set-header X-Forwarded-Proto http
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-header X-Real-IP %[src]
    http-after-response set-header X-Request-Id %[unique-id]
    default_backend app
backend app
    server one 127.0.0.1:{SERVER_PORT} pool-max-conn 64
"
    );
    std::fs::write(&config, text)?;
    let mut command = Peer::find("haproxy")?.command(island, cores.proxy)?;
    command.arg("-db").arg("-f").arg(&config);
    // Its access log is what it writes to stdout: a file, without a detour.
    Process::start("haproxy", command, &island.folder().join("haproxy-access.log"))
}

pub fn wait_until_it_serves(island: &Island, port: u16) -> anyhow::Result<()> {
    let browser = Browser::plain(&island.namespace, ([127, 0, 0, 1], port).into())?.with_host("localhost");
    let reply = wait::until(&format!("port {port} answers"), PATIENCE, || Ok(browser.get("/small").ok()))?;
    ensure!(reply.status == 200, "it answers {}: {}", reply.status, reply.text());
    let reply = browser.get("/64k")?;
    if reply.body.len() != 64 * 1024 {
        bail!("it answers {} with {} bytes", reply.status, reply.body.len());
    }
    Ok(())
}
