//! Passthrough by port, from the relay to the kernel and back: reloads that move it, what is open meanwhile, datagrams by the relay,
//! and the lines in the log of both.

use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};

use anyhow::{Context, ensure};
use serde_json::Value;
use weir_lab::{
    lab::{
        Lab,
        addresses::{EDGE, EDGE_INSIDE, EDGE_V6, ONE, TWO, VISITOR},
        exchange::{Exchange, Seen, echo, exchange_over},
        stand::PATIENCE,
        wait,
        weir::{self, Weir},
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

const PORT: u16 = 7000;
const SERVER: u16 = 9000;
/// Where this host's own server is reached, at all addresses of the host.
const OWN_PORT: u16 = 7100;
const OWN_SERVER: u16 = 9100;

struct Scene {
    weir: Weir,
    connections: [Exchange; 2],
    datagrams: [Exchange; 2],
    own: Exchange,
    lab: Lab,
}

impl Scene {
    /// In the relay.
    fn up() -> anyhow::Result<Self> {
        let lab = Lab::build()?;
        let at = |ip: std::net::Ipv4Addr| SocketAddr::new(ip.into(), SERVER);
        let connections = [Exchange::serve(&lab.one, at(ONE))?, Exchange::serve(&lab.two, at(TWO))?];
        let datagrams =
            [Exchange::serve_datagrams(&lab.one, at(ONE))?, Exchange::serve_datagrams(&lab.two, at(TWO))?];
        let own = Exchange::serve_datagrams(&lab.edge, SocketAddr::new(EDGE_INSIDE.into(), OWN_SERVER))?;
        let weir = Weir::start(&lab, &toml(&lab, "off"))?;
        let scene = Self { weir, connections, datagrams, own, lab };
        scene.wait_for("`offload` of service `pool` is `off`")?;
        Ok(scene)
    }

    /// Both entrypoints of the pool are where they are meant to be; "": in the kernel.
    fn wait_for(&self, why_not: &str) -> Done {
        wait::until_true("the entrypoints have moved", PATIENCE, || {
            let status = self.weir.status()?;
            let all = status["forwarding"]["entrypoints"].as_array().context("no list")?.clone();
            let mut of_pool = all.iter().filter(|one| one["service"] == "pool");
            let is = |one: &Value| one["why_not"].as_str().unwrap_or_default() == why_not;
            Ok(of_pool.clone().count() == 2 && of_pool.all(is))
        })
        .with_context(|| format!("{:#}", self.weir.status().unwrap_or_default()["forwarding"]))
    }

    fn moves_to(&self, offload: &str, why_not: &str) -> Done {
        self.weir.rewrite_config(&toml(&self.lab, offload))?;
        self.wait_for(why_not)
    }

    fn connected(&self) -> anyhow::Result<TcpStream> {
        let to = SocketAddr::new(EDGE.into(), PORT);
        let served = || self.connections.iter().map(Exchange::served).sum::<u64>();
        let before = served();
        let stream = self.lab.visitor.run(|| TcpStream::connect_timeout(&to, PATIENCE))??;
        // The relay connects only then.
        wait::until_true("a server has the connection", PATIENCE, || Ok(served() > before))?;
        Ok(stream)
    }

    fn exchanged(&self, stream: &TcpStream, seed: u64) -> anyhow::Result<Seen> {
        self.lab.visitor.run(|| exchange_over(stream, seed, 300_000, 200_000))?
    }

    /// From whom the server saw it, and which server that was.
    fn echoed(&self, socket: &UdpSocket, seed: u64, length: usize) -> anyhow::Result<(SocketAddr, usize)> {
        let before = self.datagrams.each_ref().map(Exchange::served);
        let seen = self.lab.visitor.run(|| echo(socket, seed, length))??;
        let server = (0..2).find(|index| self.datagrams[*index].served() > before[*index]);
        Ok((seen, server.context("no server got it")?))
    }

    /// The first line of the log that has all of this.
    fn line(&self, wanted: &[(&str, Value)]) -> anyhow::Result<Value> {
        let path = self.lab.folder().join("access.log");
        let find = || {
            let text = std::fs::read_to_string(&path)?;
            let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            Ok(lines.into_iter().find(|line| wanted.iter().all(|(key, value)| line[key] == *value)))
        };
        wait::until(&format!("the log has {wanted:?}"), PATIENCE, find)
            .with_context(|| std::fs::read_to_string(&path).unwrap_or_default())
    }
}

/// One of the ports that the kernel takes for flows.
fn is_of_kernel(seen: SocketAddr) -> bool {
    (20_000..30_000).contains(&seen.port())
}

fn toml(lab: &Lab, offload: &str) -> String {
    let settings = weir::settings_of(lab, "nat_ports = \"20000-29999\"");
    format!(
        r#"{settings}
[entrypoint.bytes]
bind = "{EDGE}:{PORT}"
protocol = "tcp"
allow = ["cloudflare"]
[entrypoint.datagrams]
bind = "{EDGE}:{PORT}"
protocol = "udp"
allow = ["cloudflare"]
[entrypoint.own]
bind = ["0.0.0.0:{OWN_PORT}", "[::]:{OWN_PORT}"]
protocol = "udp"
[service.pool]
servers = ["{ONE}:{SERVER}", "{TWO}:{SERVER}"]
offload = "{offload}"
[service.own]
servers = ["{EDGE_INSIDE}:{OWN_SERVER}"]
timeouts = {{ idle = "1s" }}
[[route]]
name = "pool"
entrypoint = ["bytes", "datagrams"]
passthrough = "pool"
[[route]]
name = "own"
entrypoint = "own"
passthrough = "own"
"#
    )
}

#[test]
fn what_is_open_goes_on_when_the_kernel_takes_over_from_the_relay_and_gives_back() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let scene = Scene::up()?;
    let socket = |any: &str, to: IpAddr, port: u16| {
        scene.lab.visitor.run(|| -> anyhow::Result<UdpSocket> {
            let socket = UdpSocket::bind(any)?;
            socket.connect((to, port))?;
            Ok(socket)
        })?
    };

    // 1. In the relay: datagrams of all sizes, also some that come in pieces, over one session.
    let relayed = scene.connected()?;
    let client = socket("0.0.0.0:0", EDGE.into(), PORT)?;
    let (first, server) = scene.echoed(&client, 1, 1)?;
    ensure!(first.ip() == IpAddr::from(EDGE_INSIDE) && !is_of_kernel(first), "{first}");
    for length in [0, 2, 512, 1400, 5000, 60_000] {
        let seen =
            scene.echoed(&client, length as u64 + 2, length).with_context(|| format!("{length} bytes"))?;
        ensure!(seen == (first, server), "one session has one source and one server: {seen:?}");
    }

    // 2. A server on this host, at addresses of the host that the client chose: its answers come from there.
    for (any, to) in [("0.0.0.0:0", IpAddr::from(EDGE)), ("[::]:0", EDGE_V6.into())] {
        let client = socket(any, to, OWN_PORT)?;
        scene.lab.visitor.run(|| echo(&client, 9, 700))?.with_context(|| format!("by {to}"))?;
    }
    ensure!(scene.own.served() == 2);

    // 3. The kernel takes over: connections stay in the relay, and a client's datagrams with their server.
    scene.moves_to("auto", "")?;
    let carried = scene.connected()?;
    let seen = scene.exchanged(&relayed, 3)?;
    ensure!(!is_of_kernel(seen.client), "it stays in the relay: {seen:?}");
    let (source, same) = scene.echoed(&client, 4, 800)?;
    ensure!(is_of_kernel(source) && same == server, "{source}, {same} after {server}");

    // 4. And gives back: its connections go on there.
    scene.moves_to("off", "`offload` of service `pool` is `off`")?;
    let seen = scene.exchanged(&carried, 5)?;
    ensure!(is_of_kernel(seen.client), "it stays in the kernel: {seen:?}");
    scene.echoed(&client, 6, 800)?;
    let (seen, _) = scene.echoed(&socket("0.0.0.0:0", EDGE.into(), PORT)?, 7, 800)?;
    ensure!(!is_of_kernel(seen), "who is new is relayed: {seen}");

    // 5. Both are told in the log.
    let pool = |in_kernel: Value| {
        let own = [("service", "pool"), ("route", "pool"), ("entrypoint", "bytes"), ("protocol", "tcp")];
        let ended = [("kind", "connection"), ("end", "closed"), ("ended_by", "client")];
        let mut wanted: Vec<_> =
            own.into_iter().chain(ended).map(|(key, value)| (key, Value::from(value))).collect();
        wanted.push(("in_kernel", in_kernel));
        wanted.push(("client_ip", VISITOR.to_string().into()));
        wanted
    };
    let by_relay = scene.line(&pool(Value::Null))?;
    ensure!(by_relay["bytes_in"].as_u64() > Some(300_000) && by_relay["bytes_out"].as_u64() > Some(200_000));
    let by_kernel = scene.line(&pool(true.into()))?;
    ensure!(by_kernel["bytes_in"].as_u64() > Some(300_000), "{by_kernel}");
    ensure!(
        by_kernel["bytes_out"].as_u64() > Some(200_000) && by_kernel["duration_us"].as_u64() > Some(0),
        "{by_kernel}"
    );
    ensure!(by_kernel["client_port"] == carried.local_addr()?.port(), "{by_kernel}");
    let own = scene.line(&[("service", "own".into()), ("protocol", "udp".into()), ("end", "idle".into())])?;
    ensure!(own["bytes_in"] == 700 && own["bytes_out"].as_u64() > Some(700), "{own}");
    Ok(())
}
