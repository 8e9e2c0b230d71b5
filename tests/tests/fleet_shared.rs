//! What the hosts of a fleet tell each other: two daemons and a real etcd. What is switched at one holds at the other, a client that
//! comes to the other is known there, and when the store is away, nothing of that ends.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use proxy_user::{
    fleet::seal,
    store::{address::StoreAddress, etcd::Session},
};
use rustls::{ClientConfig, ClientConnection, HandshakeKind};
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use weir_lab::{
    lab::{
        certificates::Authority,
        fleet::{FleetHost, FleetLab, PATIENCE, get},
        wait,
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

/// What all hosts get: a sticky service of two servers, and a split.
const SITES: &str = r#"
[service.pair]
servers = ["ONE", "TWO"]
sticky = "cookie"

[service.new]
servers = ["ONE"]

[service.old]
servers = ["TWO"]

[service.moving]
split = { new = 0, old = 1 }

[[route]]
host = "pair.example.com"
service = "pair"

[[route]]
host = "moving.example.com"
service = "moving"
"#;

/// Says its name to everybody, unless it is down: then it hangs up.
struct Named {
    addr: SocketAddr,
    down: Arc<AtomicBool>,
}

impl Named {
    fn start(name: &'static str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (addr, down) = (listener.local_addr()?, Arc::<AtomicBool>::default());
        let is_down = down.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                if is_down.load(Ordering::Relaxed) {
                    continue;
                }
                std::thread::spawn(move || {
                    let mut head = [0; 4096];
                    let _ = stream.read(&mut head);
                    let length = name.len();
                    let _ = write!(
                        stream,
                        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{name}"
                    );
                });
            }
        });
        Ok(Self { addr, down })
    }
}

/// What a host of its own has: the fleet's key, TLS, and a server that the first looks at all the time and the others hardly ever.
fn own(host: &FleetHost, folder: &Path, watched: SocketAddr, key: &str) -> anyhow::Result<String> {
    let path = folder.join("fleet.key");
    if !path.exists() {
        fs::write(&path, key)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    }
    let every = if host.name == "edge-1" { "100ms" } else { "1h" };
    let (tls, folder) = (tls(host), folder.display());
    Ok(format!(
        r#"key_file = "{folder}/fleet.key"

[entrypoint.https]
bind = ["{tls}"]
tls = {{ certificates = "{folder}/certs" }}

[service.watched]
servers = ["{watched}"]
health = {{ path = "/", every = "{every}", fast = "100ms", fall = 2 }}

[[route]]
host = "watched.example.com"
service = "watched"
"#
    ))
}

/// Where a host takes TLS: beside its plain address.
fn tls(host: &FleetHost) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(127, 0, 0, 3).into(), host.addr.port())
}

fn order(host: &FleetHost, arguments: &[&str]) -> anyhow::Result<String> {
    let ran = host.weir(arguments)?;
    anyhow::ensure!(ran.code == 0, "{ran:?}\n{}", host.log());
    Ok(ran.stdout)
}

fn asked(host: &FleetHost, arguments: &[&str]) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&order(host, &[arguments, &["--json"]].concat())?)?)
}

/// Waits until a look at a host finds something.
fn until(what: &str, host: &FleetHost, look: impl FnMut() -> anyhow::Result<bool>) -> Done {
    wait::until_true(what, PATIENCE, look).with_context(|| host.log())
}

fn prefixes(host: &FleetHost) -> anyhow::Result<Vec<(String, Option<String>)>> {
    let document = asked(host, &["block", "list"])?;
    let one = |block: &Value| {
        (block["prefix"].as_str().unwrap_or_default().to_owned(), block["from"].as_str().map(str::to_owned))
    };
    Ok(document["blocks"].as_array().into_iter().flatten().map(one).collect())
}

/// Whether somebody at this address is let in.
fn lets_in(host: &FleetHost, from: Ipv4Addr) -> anyhow::Result<bool> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.bind(&SocketAddr::new(from.into(), 0).into())?;
    if socket.connect(&host.addr.into()).is_err() {
        return Ok(false);
    }
    let mut stream = TcpStream::from(socket);
    let mut reply = String::new();
    let sent = write!(stream, "GET / HTTP/1.1\r\nHost: pair.example.com\r\nConnection: close\r\n\r\n");
    Ok(sent.is_ok() && stream.read_to_string(&mut reply).is_ok() && reply.starts_with("HTTP/1.1 200"))
}

fn body(host: &FleetHost, site: &str) -> anyhow::Result<String> {
    let reply = get(host.addr, site)?;
    Ok(reply.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

fn status(host: &FleetHost, site: &str) -> anyhow::Result<String> {
    Ok(get(host.addr, site)?.split(' ').nth(1).unwrap_or_default().to_owned())
}

/// Who answers a visitor, and the cookie that he has then.
fn visit(host: &FleetHost, cookie: Option<&str>) -> anyhow::Result<(String, Option<String>)> {
    let mut stream = TcpStream::connect(host.addr)?;
    let cookie = cookie.map(|cookie| format!("Cookie: {cookie}\r\n")).unwrap_or_default();
    write!(stream, "GET / HTTP/1.1\r\nHost: pair.example.com\r\n{cookie}Connection: close\r\n\r\n")?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    let (head, body) = reply.split_once("\r\n\r\n").context("no answer")?;
    let set = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("set-cookie")
            .then(|| value.split(';').next().unwrap_or_default().to_owned())
    });
    Ok((body.to_owned(), set))
}

/// How a handshake went.
fn shake(host: &FleetHost, config: &Arc<ClientConfig>) -> anyhow::Result<Option<HandshakeKind>> {
    let mut connection = ClientConnection::new(config.clone(), "pair.example.com".try_into()?)?;
    let mut socket = TcpStream::connect(tls(host))?;
    let mut stream = rustls::Stream::new(&mut connection, &mut socket);
    write!(stream, "GET / HTTP/1.1\r\nHost: pair.example.com\r\nConnection: close\r\n\r\n")?;
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply);
    Ok(connection.handshake_kind())
}

/// Writes something into the store that no host would.
fn scribble(lab: &FleetLab, key: &str, bytes: &[u8]) -> Done {
    let address = StoreAddress::parse(&lab.store()).map_err(anyhow::Error::msg)?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async { Ok(Session::open(&address, 0).await?.put(key, bytes.to_vec(), None).await?) })
}

#[test]
fn what_is_switched_at_one_host_holds_at_all_and_clients_are_known_everywhere() -> Done {
    needs!(Need::Weir, Need::Program("etcd"));
    let (one, two, watched) = (Named::start("one")?, Named::start("two")?, Named::start("watched")?);
    let authority = Authority::new("fleet")?;
    let identity = authority.issue(&["pair.example.com"])?;
    let key = seal::new_key().map_err(anyhow::Error::msg)?;
    let mut lab = FleetLab::up_with(2, |host, folder| {
        identity.write(&folder.join("certs"), "site")?;
        own(host, folder, watched.addr, &key)
    })?;
    let sites = SITES.replace("ONE", &one.addr.to_string()).replace("TWO", &two.addr.to_string());
    let documents = lab.documents("1", &sites)?.display().to_string();
    let pushed = lab.weir(&["push", &documents, "--wait"])?;
    anyhow::ensure!(pushed.code == 0, "{pushed:?}");
    let client = authority.client_config(&["http/1.1"])?;

    // 1. Clients: who was at one host is known at the other, by his cookie and by his ticket.
    let [first, second] = &lab.hosts[..] else { anyhow::bail!("two hosts") };
    for host in [first, second] {
        until("keys are shared", host, || {
            let keys = asked(host, &["status"])?["shared"]["keys"].clone();
            Ok(keys == "sticky cookies shared, session tickets shared")
        })?;
    }
    let mut cookies = Vec::new();
    while cookies.len() < 2 {
        let (server, cookie) = visit(first, None)?;
        if !cookies.iter().any(|(known, _)| *known == server) {
            cookies.push((server, cookie.context("no cookie")?));
        }
    }
    for (server, cookie) in cookies.iter().cycle().take(6) {
        assert_eq!(visit(second, Some(cookie))?.0, *server);
    }
    assert_eq!(shake(first, &client)?, Some(HandshakeKind::Full));
    assert_eq!(shake(second, &client)?, Some(HandshakeKind::Resumed));

    // 2. Switches: thrown at one, they hold at the other, which says where they come from.
    let blocked = order(first, &["block", "add", "127.0.0.2", "--for", "1h", "--why", "scans"])?;
    assert!(blocked.contains("the other hosts of the fleet are told"), "{blocked}");
    until("the block holds at the second host", second, || {
        Ok(!lets_in(second, Ipv4Addr::new(127, 0, 0, 2))?)
    })?;
    assert_eq!(prefixes(second)?, [("127.0.0.2/32".to_owned(), Some("edge-1".to_owned()))]);
    order(second, &["block", "add", "198.51.100.7", "--for", "1h", "--why", "here", "--here"])?;
    order(second, &["block", "remove", "127.0.0.2"])?;
    until("the first lets in again", first, || lets_in(first, Ipv4Addr::new(127, 0, 0, 2)))?;
    assert_eq!(prefixes(first)?, [], "what is for the second alone stays there");

    order(second, &["split", "moving", "new=1", "old=0"])?;
    until("the weights hold at the first host", first, || Ok(body(first, "moving.example.com")? == "one"))?;
    order(first, &["split", "moving", "--reset"])?;
    until("the configured weights are back", second, || Ok(body(second, "moving.example.com")? == "two"))?;

    let drained = format!("pair/{}", one.addr);
    order(first, &["drain", &drained, "--why", "disk"])?;
    until("the drain holds at the second host", second, || {
        Ok(order(second, &["status"])?.contains("at edge-1: disk"))
    })?;
    for _ in 0..4 {
        assert_eq!(visit(second, None)?.0, "two");
    }
    order(second, &["undrain", &drained])?;
    until("the first host sends work there again", first, || Ok(visit(first, None)?.0 == "one"))?;

    // 3. A server that fails as seen from one host is probed at once by the other, which would have done so in an hour.
    for host in [first, second] {
        until("the server is up", host, || Ok(status(host, "watched.example.com")? == "200"))?;
    }
    watched.down.store(true, Ordering::Relaxed);
    until("the second host knows", second, || {
        Ok(asked(second, &["status"])?["shared"]["hints_taken"].as_u64() > Some(0)
            && asked(second, &["status"])?["services"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|service| service["name"] == "watched" && service["servers"][0]["status"] == "down"))
    })?;

    // 4. The store is away: what was switched stays, also over a restart, and what is switched is told when it is back. Where two
    //    have said something about the same, the first that the store hears is the one.
    order(first, &["maintenance", "on", "--host", "pair.example.com", "--why", "move"])?;
    until("maintenance at the second host", second, || Ok(status(second, "pair.example.com")? == "503"))?;
    lab.etcd.stop()?;
    lab.hosts[1].kill()?;
    lab.hosts[1].begin()?;
    let [first, second] = &lab.hosts[..] else { anyhow::bail!("two hosts") };
    until("the second host holds it still", second, || {
        Ok(status(second, "pair.example.com").is_ok_and(|status| status == "503"))
    })?;
    until("the hosts know that it is away", first, || {
        Ok(asked(first, &["status"])?["shared"]["away"].is_string())
    })?;
    let later = order(first, &["maintenance", "off"])?;
    assert!(later.contains("are told when it is back"), "{later}");
    order(second, &["block", "add", "192.0.2.1", "--for", "1h", "--why", "alone"])?;
    for (host, why) in [(first, "first"), (second, "second")] {
        order(host, &["block", "add", "192.0.2.2", "--for", "1h", "--why", why])?;
    }
    lab.etcd.go_on()?;
    let [first, second] = &lab.hosts[..] else { anyhow::bail!("two hosts") };
    until("maintenance is over at the second host", second, || {
        Ok(status(second, "pair.example.com")? == "200")
    })?;
    until("both agree", first, || {
        let (one, other) = (asked(first, &["block", "list"])?, asked(second, &["block", "list"])?);
        let shared = |document: &Value| -> Vec<(Value, Value)> {
            let all = document["blocks"].as_array().into_iter().flatten();
            all.filter(|block| !block["from"].is_null())
                .map(|block| (block["prefix"].clone(), block["why"].clone()))
                .collect()
        };
        Ok(shared(&one).len() == 2 && shared(&one) == shared(&other))
    })?;

    // 5. Garbage is passed over, and told once; what comes after it is heard.
    scribble(&lab, "shared/switches/blocks/203.0.113.0/24", b"{\"nonsense\":")?;
    scribble(&lab, "shared/hints/edge-9", &[0xff; 100])?;
    scribble(&lab, "shared/keys/tickets", b"weir-seal:1:0000000000000000:AAAA")?;
    let begun = Instant::now();
    order(first, &["block", "add", "203.0.113.9", "--for", "1h", "--why", "after"])?;
    until("what comes after garbage is heard", second, || {
        Ok(prefixes(second)?.iter().any(|(prefix, _)| prefix == "203.0.113.9/32"))
    })?;
    assert!(begun.elapsed() < Duration::from_secs(10));
    let told = asked(second, &["status"])?["shared"].clone();
    assert!(told["passed_over"].as_u64() >= Some(2), "{told}");
    assert!(
        told["keys"].as_str().is_some_and(|keys| keys.contains("sticky cookies shared, session tickets not")),
        "{told}"
    );
    assert_eq!(shake(second, &client)?, Some(HandshakeKind::Resumed), "what was known stays");
    Ok(())
}
