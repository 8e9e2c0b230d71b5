//! Weir and nginx as ends of TLS, in front of the same server with the same certificate, one worker each; and a client
//! that shakes hands.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use anyhow::{Context, ensure};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use rcgen::PKCS_ECDSA_P256_SHA256;
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, NamedGroup, RootCertStore,
    client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue},
    crypto::aws_lc_rs::{self, cipher_suite::TLS13_AES_128_GCM_SHA256},
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::http::peers::{self, Cores, Peer};
use crate::lab::{Island, certificates::Authority, process::Process, station::Station, weir};

const HOST: &str = "bench.example";

/// An end of TLS that runs, and where.
pub struct Terminator {
    pub name: &'static str,
    pub address: SocketAddr,
    pub process: Process,
}

/// The island, the server behind, and both ends.
pub struct Field {
    pub terminators: Vec<Terminator>,
    pub roots: Arc<RootCertStore>,
    /// On the other core.
    pub station: Station,
    pub cores: Cores,
    _server: Process,
    pub island: Island,
}

impl Field {
    pub fn set_up() -> anyhow::Result<Self> {
        let island = Island::build()?;
        let cores = Cores::of_this_machine()?;
        let authority = Authority::new("Bench")?;
        let certificates = island.folder().join("certs");
        authority.issue_for(&[HOST], &PKCS_ECDSA_P256_SHA256, (1, 365))?.write(&certificates, "site")?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes())?)?;

        let server = peers::server(&island, &cores)?;
        let terminators = vec![
            Terminator { name: "weir", address: at(8443), process: our_own(&island, &cores, at(8443))? },
            Terminator { name: "nginx", address: at(9443), process: nginx(&island, &cores, at(9443))? },
        ];
        let station = Station::open(&island.namespace)?;
        station.run(async move {
            let mut only = CpuSet::new();
            only.set(cores.aside)?;
            // The station is one thread, the one that this runs on.
            sched_setaffinity(Pid::from_raw(0), &only)
        })??;
        let field = Self { terminators, roots: Arc::new(roots), station, cores, _server: server, island };
        for terminator in &field.terminators {
            let config = client_config(field.roots.clone(), None)?;
            let address = terminator.address;
            let up =
                crate::lab::wait::until(&format!("{} is up", terminator.name), super::http::PATIENCE, || {
                    let config = config.clone();
                    field.station.run(async move { connect(address, &config).await.ok().map(drop) })
                });
            up.with_context(|| terminator.process.log_text())?;
        }
        Ok(field)
    }
}

fn at(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn our_own(island: &Island, cores: &Cores, at: SocketAddr) -> anyhow::Result<Process> {
    let folder = island.folder();
    let config = folder.join("weir.toml");
    let text = format!(
        r#"[kernel]
mode = "off"

[admin]
bind = "127.0.0.1:9190"

[log]
access = "{folder}/weir-access.log"

[entrypoint.https]
bind = ["{at}"]
tls = {{ certificates = "{folder}/certs" }}
limits = {{ connections_per_client = 0, keep_alive = "5m" }}

[service.app]
servers = ["127.0.0.1:{}"]

[[route]]
service = "app"
"#,
        peers::SERVER_PORT,
        folder = folder.display(),
    );
    std::fs::write(&config, text)?;
    // On one core only it makes one worker.
    let program = Peer { program: weir::program()?, libraries: Vec::new() };
    let mut command = program.command(island, cores.proxy)?;
    command.arg("run").arg(&config).env("NO_COLOR", "1");
    Process::start("weir", command, &folder.join("weir.log"))
}

fn nginx(island: &Island, cores: &Cores, at: SocketAddr) -> anyhow::Result<Process> {
    let folder = island.folder().display();
    // Tickets without a session cache are its own default, and the cheapest that it has.
    let http = format!(
        "access_log {folder}/nginx-access.log combined buffer=64k flush=1s;
         upstream app {{ server 127.0.0.1:{server}; keepalive 256; keepalive_requests 100000000; }}
         server {{
             listen {at} ssl http2 backlog=1024;
             ssl_certificate {folder}/certs/site.crt;
             ssl_certificate_key {folder}/certs/site.key;
             ssl_protocols TLSv1.2 TLSv1.3;
             location / {{
                 proxy_pass http://app;
                 proxy_http_version 1.1;
                 proxy_set_header Connection '';
                 proxy_set_header Host $host;
                 proxy_set_header X-Forwarded-For $remote_addr;
                 proxy_set_header X-Forwarded-Proto $scheme;
                 proxy_set_header X-Request-Id $request_id;
             }}
         }}",
        server = peers::SERVER_PORT
    );
    peers::start_nginx(island, "nginx", cores.proxy, &http)
}

/// TLS 1.3 with X25519 and AES-128-GCM, which both ends speak. With `tickets`, sessions are resumed with them.
pub fn client_config(
    roots: Arc<RootCertStore>,
    tickets: Option<Arc<Tickets>>,
) -> anyhow::Result<Arc<ClientConfig>> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![TLS13_AES_128_GCM_SHA256];
    provider.kx_groups.retain(|group| group.name() == NamedGroup::X25519);
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = match tickets {
        Some(tickets) => Resumption::store(tickets),
        None => Resumption::disabled(),
    };
    Ok(Arc::new(config))
}

/// A finished handshake.
pub async fn connect(to: SocketAddr, config: &Arc<ClientConfig>) -> anyhow::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(HOST)?;
    TlsConnector::from(config.clone()).connect(name, stream).await.context("the handshake failed")
}

/// Whether it was of the expected kind; any other spoils the figure.
pub fn was(connection: &ClientConnection, expected: HandshakeKind) -> anyhow::Result<()> {
    let kind = connection.handshake_kind();
    ensure!(kind == Some(expected), "a handshake was {kind:?} instead of {expected:?}");
    Ok(())
}

/// The newest tickets. Each is used once, as browsers do; every handshake brings at least one more.
#[derive(Debug, Default)]
pub struct Tickets(Mutex<Vec<Tls13ClientSessionValue>>);

const MOST_TICKETS: usize = 64;

impl Tickets {
    pub fn count(&self) -> usize {
        self.0.lock().map_or(0, |tickets| tickets.len())
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        if let Ok(mut tickets) = self.0.lock()
            && tickets.len() < MOST_TICKETS
        {
            tickets.push(value);
        }
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.lock().ok()?.pop()
    }
}
