//! Two edge hosts that share an address by keepalived, configured as the example in `packaging/keepalived` has it.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt,
};
use weir_lab::{
    lab::{
        addresses::{EDGE, ONE, TWO},
        client::Browser,
        exchange::{Exchange, exchange, exchange_over},
        load::{Load, Record},
        pair::{self, Pair, SECOND},
        server::{Server, Which},
        stand::PATIENCE,
        wait,
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

/// Carried by port, in the kernel, at every address of a host.
const PORT: u16 = 7000;
const SERVER: u16 = 9000;

/// A visitor gives up after so long.
const GIVES_UP: Duration = Duration::from_secs(2);

struct Scene {
    pair: Pair,
    servers: [Exchange; 2],
    _web: [Server; 2],
}

impl Scene {
    fn up() -> anyhow::Result<Self> {
        let mut pair = Pair::build()?;
        let web = [Server::start(&pair.lab, Which::One)?, Server::start(&pair.lab, Which::Two)?];
        let servers = [
            Exchange::serve(&pair.lab.one, SocketAddr::new(ONE.into(), SERVER))?,
            Exchange::serve(&pair.lab.two, SocketAddr::new(TWO.into(), SERVER))?,
        ];
        let site = pair::site(&pair.lab);
        let bytes = format!(
            "[entrypoint.bytes]\nbind = '0.0.0.0:{PORT}'\nprotocol = 'tcp'\nallow = ['cloudflare']\n\
             [service.pool]\nservers = ['{ONE}:{SERVER}', '{TWO}:{SERVER}']\n\
             [[route]]\nentrypoint = 'bytes'\npassthrough = 'pool'\n"
        );
        pair.start(|host| format!("{}{site}{bytes}", host.settings()))?;
        let scene = Self { pair, servers, _web: web };
        for host in &scene.pair.hosts {
            wait::until_true("the kernel carries connections", PATIENCE, || {
                let status = host.weir()?.status()?;
                let entrypoints = status["forwarding"]["entrypoints"].as_array().context("no list")?.clone();
                Ok(!entrypoints.is_empty() && entrypoints.iter().all(|one| one.get("why_not").is_none()))
            })?;
        }
        Ok(scene)
    }

    /// Whoever has the address when somebody has it alone.
    fn moves_to(&self, host: usize) -> Done {
        wait::until_true("the address has moved", PATIENCE, || self.pair.hosts[host].has_address())
            .with_context(|| self.pair.told())
    }

    fn browser(&self, to: SocketAddr) -> anyhow::Result<Browser> {
        let browser = Browser::new(&self.pair.lab, &self.pair.lab.visitor, to, &["http/1.1"])?;
        Ok(browser.with_patience(GIVES_UP))
    }

    fn served_since(&self, load: &Load, moment: Instant) -> Done {
        load.wait_for("visitors are served", moment, PATIENCE, Record::is_served)
            .map(drop)
            .with_context(|| self.pair.told())
    }

    /// The server that a connection from this port gets at a host.
    fn server_of(&self, port: u16, host: IpAddr) -> anyhow::Result<usize> {
        let before = self.servers.each_ref().map(Exchange::served);
        self.pair.lab.visitor.run(|| -> Done {
            let stream = from_port(port, SocketAddr::new(host, PORT))?;
            exchange_over(&stream, 1, 1, 1).map(drop)
        })??;
        let after = self.servers.each_ref().map(Exchange::served);
        (0..2).find(|index| after[*index] > before[*index]).context("no server got it")
    }

    /// A connection at the shared address, which is open.
    fn held(&self) -> anyhow::Result<TcpStream> {
        let stream =
            self.pair.lab.visitor.run(|| TcpStream::connect_timeout(&pair::at(PORT), PATIENCE))??;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

/// A connection from a port of choice, also if another from there has just ended.
fn from_port(port: u16, to: SocketAddr) -> anyhow::Result<TcpStream> {
    let SocketAddr::V4(to) = to else { anyhow::bail!("IPv4 only") };
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    bind(socket.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, port))?;
    connect(socket.as_raw_fd(), &SockaddrIn::from(to))
        .with_context(|| format!("from port {port} to {to}"))?;
    Ok(socket.into())
}

fn is_reset(mut stream: &TcpStream) -> Done {
    let told = stream.write_all(b"still there?").and_then(|()| stream.read(&mut [0]));
    match told {
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => Ok(()),
        other => anyhow::bail!("the client isn't told that its connection is gone: {other:?}"),
    }
}

#[test]
fn the_other_host_serves_when_one_is_killed_drained_or_cut_off() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir, Need::Program("keepalived"));
    let mut scene = Scene::up()?;
    let browser = scene.browser(pair::at(443))?;
    let load = Load::start(&scene.pair.lab.visitor, &browser, "/", 50)?;
    scene.served_since(&load, Instant::now())?;

    // 1. Both choose alike: a client's connection gets the same server wherever it arrives.
    let mut seen = [0; 2];
    for port in 41_000..41_012 {
        let server = scene.server_of(port, EDGE.into())?;
        ensure!(
            server == scene.server_of(port, SECOND.into())?,
            "port {port} gets another server at the other host"
        );
        seen[server] += 1;
    }
    ensure!(seen.iter().all(|count| *count > 0), "both servers are used: {seen:?}");

    // 2. weir dies; the host with its connections in the kernel stays. Theirs are not followed to the other host.
    let held = scene.held()?;
    let lost = Instant::now();
    scene.pair.hosts[0].kill_weir()?;
    scene.moves_to(1)?;
    scene.served_since(&load, lost)?;
    ensure!(scene.browser(pair::at_v6(443))?.get("/")?.status == 200, "IPv6 has moved with IPv4");
    is_reset(&held)?;
    scene.pair.lab.visitor.run(|| exchange(pair::at(PORT), 5, 1000, 1000))??;

    // 3. It comes back, and takes nothing away.
    scene.pair.hosts[0].start_weir()?;
    wait::until_true("keepalived has noticed", PATIENCE, || {
        let log = scene.pair.hosts[0].keepalived.as_ref().context("no keepalived")?.log_text();
        Ok(log.matches("VRRP_Script(weir) succeeded").count() == 2)
    })?;
    ensure!(scene.pair.holder()? == Some(1), "the address stays\n{}", scene.pair.told());

    // 4. Drained, a host gives the address away, and clients end their connections with it.
    let drained = Instant::now();
    let ran = scene.pair.hosts[1].run(&["drain", "--host", "--why", "a new kernel"])?;
    ensure!(ran.code == 0, "{}", ran.stderr);
    let ping = scene.pair.hosts[1].run(&["ping"])?;
    ensure!(ping.code == 1 && ping.stderr.contains("draining"), "{ping:?}");
    scene.moves_to(0)?;
    scene.served_since(&load, drained)?;
    wait::until_true("nobody is left on the drained host", PATIENCE, || {
        Ok(scene.pair.hosts[1].weir()?.status()?["entrypoints"][0]["connections"] == 0)
    })?;
    let ran = scene.pair.hosts[1].run(&["undrain", "--host"])?;
    ensure!(ran.code == 0, "{}", ran.stderr);
    wait::until_true("it is fit again", PATIENCE, || {
        let log = scene.pair.hosts[1].keepalived.as_ref().context("no keepalived")?.log_text();
        Ok(log.matches("VRRP_Script(weir) succeeded").count() == 2)
    })?;

    // 5. The whole host is cut off, and still thinks that it has the address.
    let lost = Instant::now();
    scene.pair.cut(0)?;
    scene.moves_to(1)?;
    scene.served_since(&load, lost)?;

    // 6. Back on the wire, only one of them keeps it, and is found.
    scene.pair.mend(0)?;
    wait::until_true("one has the address", PATIENCE, || Ok(scene.pair.holder()?.is_some()))
        .with_context(|| scene.pair.told())?;
    scene.served_since(&load, Instant::now())?;
    load.stop().map(drop)
}
