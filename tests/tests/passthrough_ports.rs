//! Passthrough by port: clients, the edge and servers in namespaces of their own, and every byte checked.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use weir_lab::{
    lab::{
        Lab, PUBLIC,
        addresses::{EDGE, EDGE_INSIDE, EDGE_V6, ONE, TWO, VISITOR},
        exchange::{Exchange, echo, exchange, exchange_over},
        ip,
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
const ONE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0x11);
const TWO_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 0x12);
const SIZES: [(u64, u64); 7] =
    [(0, 0), (1, 1), (1447, 1449), (0, 65_537), (65_537, 0), (300_000, 1_000_000), (1_000_000, 3)];

fn at(ip: impl Into<IpAddr>) -> SocketAddr {
    SocketAddr::new(ip.into(), PORT)
}

struct Scene {
    weir: Weir,
    servers: Vec<Exchange>,
    _datagrams: Vec<Exchange>,
    lab: Lab,
}

/// The interfaces that packets take: the edge's to the clients and to server two, and server two's own.
struct Wires {
    public: &'static str,
    two: &'static str,
    in_two: &'static str,
}

const PLAIN: Wires = Wires { public: PUBLIC, two: "two", in_two: "edge" };

impl Scene {
    fn up(service: &str) -> anyhow::Result<Self> {
        Self::up_in(Lab::build()?, &PLAIN, service)
    }

    fn up_in(lab: Lab, wires: &Wires, service: &str) -> anyhow::Result<Self> {
        for (namespace, script) in [
            (
                &lab.edge,
                format!(
                    "address add fd00:1::1/64 dev one nodad
                     address add fd00:2::1/64 dev {} nodad",
                    wires.two
                ),
            ),
            (&lab.one, "address add fd00:1::11/64 dev edge nodad".to_owned()),
            (&lab.two, format!("address add fd00:2::12/64 dev {} nodad", wires.in_two)),
        ] {
            ip(&["-n", namespace.name(), "-batch", "-"], &script)?;
        }
        let (mut servers, mut datagrams) = (Vec::new(), Vec::new());
        for (namespace, v4, v6) in [(&lab.one, ONE, ONE_V6), (&lab.two, TWO, TWO_V6)] {
            for server in [IpAddr::from(v4), IpAddr::from(v6)] {
                let server = SocketAddr::new(server, SERVER);
                servers.push(Exchange::serve(namespace, server)?);
                datagrams.push(Exchange::serve_datagrams(namespace, server)?);
            }
        }
        let interfaces = format!("interfaces = [\"{}\"]", wires.public);
        let toml = toml(&lab, service).replace(&format!("interfaces = [\"{PUBLIC}\"]"), &interfaces);
        let weir = Weir::start(&lab, &toml)?;
        let scene = Self { weir, servers, _datagrams: datagrams, lab };
        scene.wait_until_carried()?;
        Ok(scene)
    }

    fn forwarding(&self) -> anyhow::Result<Value> {
        Ok(self.weir.status()?["forwarding"].take())
    }

    fn wait_until_carried(&self) -> Done {
        wait::until_true("the kernel carries both entrypoints, and all servers are up", PATIENCE, || {
            let status = self.weir.status()?;
            let forwarding = &status["forwarding"];
            let entrypoints = forwarding["entrypoints"].as_array().context("no list of entrypoints")?;
            let carried = |one: &&Value| one.get("why_not").is_none();
            let services = status["services"].as_array().context("no services")?;
            let mut servers = services.iter().flat_map(|one| one["servers"].as_array().into_iter().flatten());
            Ok(entrypoints.iter().filter(carried).count() == 2
                && entrypoints.len() == 2
                && servers.all(|one| one["status"] != "starting" && one["status"] != "down"))
        })
        .with_context(|| format!("{:#}", self.forwarding().unwrap_or_default()))
    }

    /// Every size, by IPv4 and IPv6; each exchange is checked by both of its ends.
    fn exchange_all(&self, seed: u64) -> Done {
        self.lab.visitor.run(|| {
            for (nth, (up, down)) in (seed..).zip(SIZES) {
                for to in [at(EDGE), at(EDGE_V6)] {
                    let seen = exchange(to, nth, up, down)
                        .with_context(|| format!("{up} bytes up and {down} down by {to}"))?;
                    ensure!(!seen.client.ip().is_loopback(), "{seen:?}");
                }
            }
            Ok(())
        })?
    }

    fn flows(&self) -> anyhow::Result<Value> {
        let ran = weir::run(&self.lab, &["flows", "--json"])?;
        ensure!(ran.code == 0, "{}", ran.stderr);
        Ok(serde_json::from_str(&ran.stdout)?)
    }

    fn wait_until_empty(&self) -> Done {
        wait::until_true("no TCP flow is left", PATIENCE, || {
            let flows = self.flows()?;
            let left = flows["flows"].as_array().context("no list")?;
            Ok(left.iter().all(|flow| flow["protocol"] == "udp"))
        })
        .with_context(|| format!("{:#}", self.flows().unwrap_or_default()))
    }

    fn offload(&self, on: bool) -> Done {
        let state = if on { "on" } else { "off" };
        let lab = &self.lab;
        let ends = [
            (&lab.visitor, vec!["net"]),
            (&lab.internet, vec!["visitor", "edge"]),
            (&lab.edge, vec![PUBLIC, "one", "two"]),
            (&lab.one, vec!["edge"]),
            (&lab.two, vec!["edge"]),
        ];
        for (namespace, interfaces) in ends {
            for interface in interfaces {
                let mut command = namespace.command("ethtool")?;
                command.args(["-K", interface, "tx", state]);
                let ran = weir::finish(command)?;
                ensure!(ran.code == 0, "ethtool at {interface}: {}", ran.stderr);
            }
        }
        Ok(())
    }
}

fn toml(lab: &Lab, service: &str) -> String {
    let settings = weir::settings_of(lab, "nat_ports = \"20000-29999\"");
    format!(
        r#"{settings}
[entrypoint.bytes]
bind = ["{EDGE}:{PORT}", "[{EDGE_V6}]:{PORT}"]
protocol = "tcp"
allow = ["cloudflare"]
[entrypoint.datagrams]
bind = ["{EDGE}:{PORT}", "[{EDGE_V6}]:{PORT}"]
protocol = "udp"
allow = ["cloudflare"]
[service.pool]
servers = ["{ONE}:{SERVER}", "{TWO}:{SERVER}", "[{ONE_V6}]:{SERVER}", "[{TWO_V6}]:{SERVER}"]
health = {{ tcp = true, every = "200ms", timeout = "150ms" }}
{service}
[[route]]
entrypoint = ["bytes", "datagrams"]
passthrough = "pool"
"#
    )
}

#[test]
fn every_byte_arrives_by_tcp_and_udp_whatever_happens_to_the_daemon() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir, Need::Program("ethtool"), Need::Program("nft"));
    let mut scene = Scene::up("")?;

    // 1. All sizes; the servers see the edge, at one of its own ports.
    scene.exchange_all(1)?;
    let seen = scene.lab.visitor.run(|| exchange(at(EDGE), 7, 10, 10))??;
    ensure!(seen.client.ip() == IpAddr::V4(EDGE_INSIDE), "{seen:?}");
    ensure!((20_000..30_000).contains(&seen.client.port()), "{seen:?}");
    // 2. Datagrams of many sizes, some of them in turn over one flow.
    scene.lab.visitor.run(|| -> Done {
        for (any, to) in [("0.0.0.0:0", at(EDGE)), ("[::]:0", at(EDGE_V6))] {
            let socket = UdpSocket::bind(any)?;
            socket.connect(to)?;
            let mut froms = Vec::new();
            for length in [0, 1, 2, 511, 1200, 1400] {
                froms.push(
                    echo(&socket, length as u64 + 1, length).with_context(|| format!("{length} by {to}"))?,
                );
            }
            froms.dedup();
            ensure!(froms.len() == 1, "one flow has one source: {froms:?}");
        }
        Ok(())
    })??;
    // 3. Where no hardware hides a wrong checksum.
    scene.offload(false)?;
    scene.exchange_all(100)?;
    scene.offload(true)?;

    // 4. Under loss, while the daemon is killed, started again, and reads another configuration.
    let mut nft = scene.lab.internet.command("nft")?;
    nft.arg("table inet loss { chain forward { type filter hook forward priority 0; numgen random mod 1000 < 5 drop; }; }");
    let ran = weir::finish(nft)?;
    ensure!(ran.code == 0, "{}", ran.stderr);
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let visitor = scene.lab.visitor.path();
    ensure!(visitor.exists());
    thread::scope(|scope| -> Done {
        let lab = &scene.lab;
        let mut clients = Vec::new();
        for nth in 0..4_u64 {
            let (stop, done) = (&stop, &done);
            clients.push(scope.spawn(move || {
                lab.visitor.run(|| -> Done {
                    let mut seed = nth * 1000 + 1;
                    while !stop.load(Ordering::Relaxed) {
                        let to = if nth % 2 == 0 { at(EDGE) } else { at(EDGE_V6) };
                        exchange(to, seed, 400_000, 900_000)?;
                        seed += 1;
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })?
            }));
        }
        let more = |what: &str, count: u64| {
            let before = done.load(Ordering::Relaxed);
            wait::until_true(what, 3 * PATIENCE, || Ok(done.load(Ordering::Relaxed) >= before + count))
        };
        let happened = (|| -> Done {
            more("exchanges go on", 4)?;
            scene.weir.kill()?;
            more("exchanges go on without the daemon", 8)?;
            let flows = serde_json::from_str::<Value>(
                &weir::run(lab, &["flows", "--json", "--bpffs", &lab.bpffs().display().to_string()])?.stdout,
            )?;
            ensure!(flows["all"].as_u64() > Some(0), "flows are told of without a daemon: {flows}");
            scene.weir = Weir::start(lab, &toml(lab, ""))?;
            more("exchanges go on with the next daemon", 8)?;
            scene.weir.rewrite_config(&toml(lab, "timeouts = { idle = \"2h\" }"))?;
            wait::until_true("the configuration is taken over", 3 * PATIENCE, || {
                Ok(scene.weir.status()?["generation"] == 2)
            })?;
            more("exchanges go on with another configuration", 8)
        })();
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client
                .join()
                .unwrap_or_else(|_| anyhow::bail!("a client panicked"))
                .context("an exchange broke")?;
        }
        happened
    })?;

    // 5. What is counted, and what is left. The next daemon knows when its programs are verified.
    scene.wait_until_carried()?;
    let forwarding = scene.forwarding()?;
    let service = &forwarding["services"][0];
    ensure!(service["service"] == "pool" && service["opened"].as_u64() > Some(30), "{service}");
    ensure!(scene.servers.iter().all(|server| server.served() > 0), "all servers get their share");
    scene.wait_until_empty()
}

#[test]
fn health_and_drain_decide_who_gets_new_flows_and_a_dead_servers_clients_are_reset() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let scene = Scene::up("")?;
    // As the kernel counts them: a server itself sees the probes as well.
    let opened = |server: &str| -> anyhow::Result<u64> {
        let forwarding = scene.forwarding()?;
        let servers = forwarding["servers"].as_array().context("no servers")?;
        let server = servers.iter().find(|one| one["server"] == server).context("no such server")?;
        server["opened"].as_u64().context("no count")
    };
    // Connections that stay: some at each server.
    let connect = || {
        scene.lab.visitor.run(|| TcpStream::connect_timeout(&at(EDGE), PATIENCE))?.context("no connection")
    };
    let held = (0..8).map(|_| connect()).collect::<anyhow::Result<Vec<_>>>()?;
    let flows = wait::until("all are told of", PATIENCE, || {
        let flows = scene.flows()?;
        let open =
            flows["flows"].as_array().context("no list")?.iter().filter(|flow| flow["state"] == "open");
        let open: Vec<Value> = open.cloned().collect();
        Ok((open.len() == held.len()).then_some(open))
    })?;
    let server_of = |stream: &TcpStream| -> anyhow::Result<String> {
        let client = stream.local_addr()?.to_string();
        let flow = flows.iter().find(|flow| flow["client"] == client.as_str()).context("an unknown flow")?;
        Ok(flow["server"].as_str().context("no server")?.to_owned())
    };
    let one = format!("{ONE}:{SERVER}");
    let at_one = |stream: &&TcpStream| server_of(stream).is_ok_and(|server| server == one);
    ensure!(held.iter().filter(at_one).count() > 0, "nobody is at {one}: {flows:?}");

    // 1. Drained, it gets nothing new, and keeps what it has.
    let drained = weir::run(&scene.lab, &["drain", &format!("pool/{one}"), "--why", "test"])?;
    ensure!(drained.code == 0, "{}", drained.stderr);
    wait::until_true("the kernel knows of the drain", PATIENCE, || {
        let before = opened(&one)?;
        scene
            .lab
            .visitor
            .run(|| (0..8).try_for_each(|seed| exchange(at(EDGE), seed + 1, 10, 10).map(drop)))??;
        Ok(opened(&one)? == before)
    })?;
    let stays = held.iter().find(at_one).context("nobody is at one")?;
    let seen = scene.lab.visitor.run(|| exchange_over(stays, 5, 1000, 1000))??;
    ensure!(seen.client.ip() == IpAddr::V4(EDGE_INSIDE), "{seen:?}");
    let undrained = weir::run(&scene.lab, &["undrain", &format!("pool/{one}")])?;
    ensure!(undrained.code == 0, "{}", undrained.stderr);

    // 2. Gone from the network, its clients are reset at once, and new ones go elsewhere.
    ip(&["-n", scene.lab.one.name(), "-batch", "-"], "link set edge down")?;
    wait::until_true("the server is known to be dead", PATIENCE, || {
        let servers = scene.forwarding()?["servers"].take();
        let servers = servers.as_array().context("no servers")?.clone();
        Ok(servers.iter().any(|server| server["server"] == one.as_str() && server["dead"] == true))
    })?;
    let left = held.iter().filter(at_one).filter(|stream| !std::ptr::eq(*stream, stays));
    for stream in left {
        let told = scene.lab.visitor.run(|| {
            use std::io::{Read, Write};
            stream.set_read_timeout(Some(PATIENCE))?;
            // It says nothing: it waits for its server.
            let mut stream = stream;
            match stream.read(&mut [0]) {
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(()),
                other => {
                    stream.write_all(b"x").and_then(|()| Err(std::io::Error::other(format!("{other:?}"))))
                }
            }
        })?;
        told.context("a client of the dead server is not reset")?;
    }
    scene
        .lab
        .visitor
        .run(|| (0..20).try_for_each(|seed| exchange(at(EDGE), seed + 1, 10, 10).map(drop)))??;
    Ok(())
}

#[test]
fn servers_may_see_the_client_itself_over_narrow_links() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let scene = Scene::up("source = \"keep\"")?;
    for (namespace, edge) in [(&scene.lab.one, "fd00:1::1"), (&scene.lab.two, "fd00:2::1")] {
        ip(
            &["-n", namespace.name(), "-batch", "-"],
            &format!("route add default via 10.0.0.1 dev edge onlink\nroute add default via {edge} dev edge"),
        )?;
    }
    let seen = scene.lab.visitor.run(|| exchange(at(EDGE), 3, 200_000, 200_000))??;
    ensure!(seen.client.ip() == IpAddr::V4(VISITOR), "{seen:?}");
    scene.exchange_all(1)?;
    // A narrower way to the servers than to the client.
    for (namespace, interfaces) in [
        (&scene.lab.edge, ["one", "two"]),
        (&scene.lab.one, ["edge", "edge"]),
        (&scene.lab.two, ["edge", "edge"]),
    ] {
        let script = interfaces.map(|name| format!("link set {name} mtu 1300")).join("\n");
        ip(&["-n", namespace.name(), "-batch", "-"], &script)?;
    }
    scene.exchange_all(50)?;
    scene.weir.signal(Signal::SIGHUP)?;
    scene.exchange_all(90)
}

/// The clients' side and one server's behind the tags of VLANs.
#[test]
#[ignore = "wants VLANs, which not every kernel has: `cargo xtask test-kernels`"]
fn vlans_are_carried_to_and_from() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let lab = Lab::build()?;
    let vlan = |of: &str, id: u16| {
        format!("link add link {of} name {of}.{id} type vlan id {id}\nlink set {of}.{id} up\n")
    };
    let moved = |from: &str, to: &str, addresses: [&str; 2]| -> String {
        let script = addresses.map(|address| {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            format!("address del {address} dev {from}\naddress add {address} dev {to} {nodad}\n")
        });
        script.concat()
    };
    let edge = [
        vlan(PUBLIC, 5),
        moved(PUBLIC, "public.5", ["198.51.100.1/24", "2001:db8:ed9e::1/64"]),
        "route replace default via 198.51.100.254 dev public.5\n\
         route replace default via 2001:db8:ed9e::fe dev public.5\n"
            .to_owned(),
        vlan("two", 7),
        format!("route replace {TWO} dev two.7 src {EDGE_INSIDE}\n"),
    ];
    let internet = [vlan("edge", 5), moved("edge", "edge.5", ["198.51.100.254/24", "2001:db8:ed9e::fe/64"])];
    let two = [vlan("edge", 7), format!("route replace {EDGE_INSIDE} dev edge.7\n")];
    for (namespace, script) in
        [(&lab.edge, edge.concat()), (&lab.internet, internet.concat()), (&lab.two, two.concat())]
    {
        ip(&["-n", namespace.name(), "-batch", "-"], &script)?;
    }
    let wires = Wires { public: "public.5", two: "two.7", in_two: "edge.7" };
    let scene = Scene::up_in(lab, &wires, "")?;
    scene.exchange_all(1)?;
    ensure!(scene.servers.iter().all(|server| server.served() > 0), "all servers get their share");
    let interfaces = scene.forwarding()?["interfaces"].to_string();
    ensure!(interfaces.contains("public.5") && interfaces.contains("two.7"), "{interfaces}");
    scene.wait_until_empty()
}
