//! Connections that are carried untouched by the daemon: by name, by port, and what becomes of them when no server is there.
//! The peers are curl, OpenSSL and rustls.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::mpsc,
    time::Duration,
};

use anyhow::Context;
use nix::sys::signal::Signal;
use rustls::{ClientConnection, StreamOwned};
use serde_json::Value;
use weir_lab::{
    Lab,
    lab::{
        SITE,
        addresses::{EDGE, HTTPS, ONE, SERVER_TLS_PORT, TWO, VISITOR},
        raw::{Raw, serve},
        stand::{PATIENCE, Stand},
        wait,
        weir::{self, Ran},
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

/// What the servers' certificate is for.
const NAME: &str = "app.internal";
const TCP: &str = "198.51.100.1:2525";
const PROXIED: &str = "198.51.100.1:2526";
const DEAD: &str = "198.51.100.1:2527";
const NAMES_ONLY: &str = "198.51.100.1:8444";
const BYTES: &str = "127.0.0.1:7100";

/// With all servers up that are probed.
fn stand() -> anyhow::Result<Stand> {
    let stand = Stand::up_with(|_, toml| toml + &configuration())?;
    wait::until_true("the servers with TLS are up", PATIENCE, || {
        let status = stand.weir.status()?;
        let all = status["services"].as_array().context("no services")?;
        let probed = all.iter().filter(|one| one["name"] == "old" || one["name"] == "new");
        Ok(probed.filter(|one| one["servers"][0]["status"] == "up").count() == 2)
    })?;
    Ok(stand)
}

fn configuration() -> String {
    let health = "health = { tls = true, host = \"app.internal\", every = \"500ms\", timeout = \"500ms\" }";
    format!(
        r#"
[shutdown]
grace = "300ms"
[entrypoint.tcp]
bind = "{TCP}"
protocol = "tcp"
[entrypoint.proxied]
bind = "{PROXIED}"
protocol = "tcp"
[entrypoint.dead]
bind = "{DEAD}"
protocol = "tcp"
[entrypoint.names]
bind = "{NAMES_ONLY}"
protocol = "tcp"
[service.old]
servers = ["{ONE}:{SERVER_TLS_PORT}"]
offload = "off"
{health}
[service.new]
servers = ["{TWO}:{SERVER_TLS_PORT}"]
offload = "off"
{health}
[service.either]
servers = ["{ONE}:1", "{TWO}:{SERVER_TLS_PORT}"]
offload = "off"
[service.shift]
split = {{ old = 50, new = 50 }}
[service.dead]
servers = ["{ONE}:1"]
offload = "off"
[service.bytes]
servers = ["{BYTES}"]
offload = "off"
timeouts = {{ idle = "3s" }}
[service.proxied]
servers = ["{BYTES}"]
offload = "off"
send_proxy = "v2"
[[route]]
name = "exact"
sni = "{NAME}"
passthrough = "old"
[[route]]
name = "below"
sni = "*.internal"
passthrough = "new"
[[route]]
name = "either"
sni = "either.internal"
passthrough = "either"
[[route]]
name = "shifted"
sni = "shift.internal"
passthrough = "shift"
[[route]]
name = "page"
sni = "www.{SITE}"
passthrough = "dead"
on_outage = "page:maintenance"
[[route]]
name = "no page"
sni = "gone.internal"
passthrough = "dead"
on_outage = "page:maintenance"
[[route]]
entrypoint = "tcp"
passthrough = "bytes"
[[route]]
entrypoint = "proxied"
passthrough = "proxied"
[[route]]
name = "dead port"
entrypoint = "dead"
passthrough = "dead"
"#
    )
}

/// curl from the visitor's place to the edge, whatever the name; what it got, its headers and a last line with the status.
fn curl(stand: &Stand, name: &str, arguments: &[&str]) -> anyhow::Result<Ran> {
    let mut curl = stand.lab.visitor.command("curl")?;
    curl.args(["-sS", "-i", "-m", "5", "--cacert"]).arg(stand.lab.ca());
    curl.args(["--resolve", &format!("{name}:443:{EDGE}"), "-w", "\n%{http_code}"]).args(arguments);
    curl.arg(format!("https://{name}/"));
    weir::finish(curl)
}

fn s_client(stand: &Stand, to: &str, arguments: &str) -> anyhow::Result<String> {
    let mut shell = stand.lab.visitor.command("bash")?;
    shell.args(["-c", &format!("openssl s_client -connect {to} {arguments} </dev/null 2>&1")]);
    Ok(weir::finish(shell)?.stdout)
}

fn log(stand: &Stand) -> Vec<Value> {
    let text = std::fs::read_to_string(stand.lab.folder().join("access.log")).unwrap_or_default();
    let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
    lines.filter(|line: &Value| line["kind"] == "connection").collect()
}

/// The first line of the log that fits.
fn logged(stand: &Stand, what: &str, fits: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    wait::until(what, PATIENCE, || Ok(log(stand).into_iter().find(|line| fits(line))))
        .with_context(|| format!("{:#?}", log(stand)))
}

/// A client of rustls whose hello has so much to offer, and is sent in pieces of this size.
fn asks_over_tls(lab: &Lab, offers: usize, piece: usize) -> anyhow::Result<String> {
    let protocols: Vec<String> = (0..offers).map(|nth| format!("{nth:0>200}")).collect();
    let mut protocols: Vec<&str> = protocols.iter().map(String::as_str).collect();
    protocols.push("http/1.1");
    let config = lab.authority.client_config(&protocols)?;
    let tls = ClientConnection::new(config, NAME.try_into()?)?;
    let stream = InPieces { stream: Raw::connect(&lab.visitor, HTTPS)?.stream, piece };
    let mut stream = StreamOwned::new(tls, stream);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: app.internal\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    // Whether the server says goodbye to TLS is its own affair.
    let _ = stream.read_to_end(&mut answer);
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

struct InPieces {
    stream: TcpStream,
    piece: usize,
}

impl Read for InPieces {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for InPieces {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        for piece in bytes.chunks(self.piece) {
            self.stream.write_all(piece)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_name_leads_where_its_route_says_and_all_others_are_terminated() -> Done {
    needs!(Need::Root, Need::Weir, Need::Program("openssl"), Need::Program("curl"));
    let stand = stand()?;

    // The server's own certificate, and its own answer.
    let ran = curl(&stand, NAME, &[])?;
    assert!(ran.stdout.contains("x-upstream: one") && ran.stdout.ends_with("200"), "{ran:?}");
    assert!(!ran.stdout.contains("x-request-id"), "nobody was in between: {ran:?}");
    assert!(s_client(&stand, "198.51.100.1:443", "-servername app.internal")?.contains("CN = app.internal"));
    let ran = curl(&stand, "a.b.internal", &["-k"])?;
    assert!(ran.stdout.contains("x-upstream: two"), "{ran:?}");
    // A server that can't be reached is passed over.
    for _ in 0..3 {
        let ran = curl(&stand, "either.internal", &["-k"])?;
        assert!(ran.stdout.contains("x-upstream: two"), "{ran:?}");
    }
    let line = logged(&stand, "an attempt is told of", |line| line["attempts"][0]["failed"] == "refused")?;
    assert_eq!(line["upstream"], format!("{TWO}:{SERVER_TLS_PORT}"));

    // Whatever no route carries ends here, as ever: another name, none, no TLS at all.
    assert!(stand.visitor.get("/")?.header("x-request-id").is_some());
    assert!(s_client(&stand, "198.51.100.1:443", "-noservername")?.contains("CN = example.com"));
    assert!(s_client(&stand, "198.51.100.1:443", "-servername other.example")?.contains("CN = example.com"));

    // However the hello comes: over several records, byte by byte.
    for (offers, piece) in [(0, 100_000), (0, 1), (20, 7), (100, 1400), (250, 5000)] {
        let answer = asks_over_tls(&stand.lab, offers, piece)?;
        assert!(answer.contains("x-upstream: one"), "{offers} offers in pieces of {piece}: {answer}");
    }

    // Where names are all that counts, the others are told so.
    assert!(s_client(&stand, NAMES_ONLY, "-servername app.internal")?.contains("CN = app.internal"));
    for (arguments, alert) in
        [("-servername nobody.example", "unrecognized name"), ("-noservername", "unrecognized name")]
    {
        let said = s_client(&stand, NAMES_ONLY, arguments)?;
        assert!(said.contains(alert), "{arguments}: {said}");
    }
    let mut other = Raw::connect(&stand.lab.visitor, NAMES_ONLY.parse()?)?;
    other.say("SSH-2.0-x\r\n")?;
    assert!(other.has_ended()?);
    wait::until_true("they are counted", PATIENCE, || {
        let status = stand.weir.status()?;
        let names =
            status["entrypoints"].as_array().and_then(|all| all.iter().find(|one| one["name"] == "names"));
        let counted = names.map(|names| names["not_carried"].clone()).unwrap_or_default();
        Ok(counted["no_route"] == 2 && counted["not_tls"] == 1)
    })?;
    let line = logged(&stand, "a line for the exact name", |line| line["route"] == "exact")?;
    assert_eq!((&line["sni"], &line["service"]), (&NAME.into(), &"old".into()));
    assert_eq!((&line["client_ip"], &line["end"]), (&VISITOR.to_string().into(), &"closed".into()));
    assert!(line["bytes_in"].as_u64() > Some(300) && line["bytes_out"].as_u64() > Some(300), "{line}");
    let metrics = stand.weir.admin().get("/metrics")?.text();
    assert!(metrics.contains("weir_passthrough_connections_total{service=\"old\""), "{metrics}");
    Ok(())
}

/// Says how much it wants to hear and to say, then both do, and both end when they have said all.
fn talk(stream: &mut TcpStream, says: u32, hears: u32) -> Done {
    stream.write_all(&[says.to_be_bytes(), hears.to_be_bytes()].concat())?;
    exchange(stream, says, hears)
}

/// Both directions at once; each byte tells its place.
fn exchange(stream: &TcpStream, says: u32, hears: u32) -> Done {
    let mut writes = stream.try_clone()?;
    let writing = std::thread::spawn(move || -> Done {
        let bytes: Vec<u8> = (0..says).map(pattern).collect();
        writes.write_all(&bytes)?;
        writes.shutdown(std::net::Shutdown::Write)?;
        Ok(())
    });
    let mut heard = Vec::new();
    let mut reads = stream;
    reads.read_to_end(&mut heard)?;
    writing.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    anyhow::ensure!(heard.len() == hears as usize, "{} of {hears} bytes", heard.len());
    let wrong = heard.iter().zip(0..).position(|(byte, at)| *byte != pattern(at));
    anyhow::ensure!(wrong.is_none(), "the byte at {wrong:?} is another one");
    Ok(())
}

fn pattern(at: u32) -> u8 {
    (at.wrapping_mul(0x9e37_79b9) >> 24) as u8
}

/// A server that does what [`talk`] asks, after a header of the PROXY protocol if there is one, which it tells of.
fn talkative(lab: &Lab) -> anyhow::Result<mpsc::Receiver<Vec<u8>>> {
    let (tell, told) = mpsc::channel();
    serve(&lab.edge, BYTES, move |_, mut raw| {
        let mut order = [0; 8];
        raw.stream.read_exact(&mut order)?;
        if order == *b"\r\n\r\n\0\r\nQ" {
            let mut header = [0; 20];
            raw.stream.read_exact(&mut header)?;
            tell.send([&order[..], &header].concat())?;
            raw.stream.read_exact(&mut order)?;
        }
        let [a, b, c, d, e, f, g, h] = order;
        exchange(&raw.stream, u32::from_be_bytes([e, f, g, h]), u32::from_be_bytes([a, b, c, d]))
    })?;
    Ok(told)
}

#[test]
fn bytes_are_carried_whole_both_ways_until_either_side_or_time_ends_it() -> Done {
    needs!(Need::Root, Need::Weir);
    let mut stand = stand()?;
    let headers = talkative(&stand.lab)?;
    let connect = |to: &str| -> anyhow::Result<TcpStream> {
        Ok(Raw::connect(&stand.lab.visitor, to.parse::<SocketAddr>()?)?.stream)
    };
    for (says, hears) in [
        (0, 1),
        (1, 0),
        (1459, 70_000),
        (65_537, 65_535),
        (5_000_000, 3),
        (5, 6_000_000),
        (2_000_000, 2_000_000),
    ] {
        talk(&mut connect(TCP)?, says, hears).with_context(|| format!("{says} there, {hears} back"))?;
    }
    talk(&mut connect(PROXIED)?, 100, 100)?;
    let header = headers.recv_timeout(PATIENCE)?;
    assert_eq!(header[12..20], [0x21, 0x11, 0, 12, 173, 245, 48, 10], "the client, by the PROXY protocol");
    assert_eq!(header[20..24], EDGE.octets());

    // Over many at a time nothing gets mixed up.
    let crowd: Vec<_> = (0..40)
        .map(|nth: u32| {
            let mut stream = connect(TCP)?;
            Ok(std::thread::spawn(move || talk(&mut stream, nth * 7919, 300_000 - nth * 7000)))
        })
        .collect::<anyhow::Result<_>>()?;
    for one in crowd {
        one.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
    }

    // A reload that takes its route away touches no connection that is open, and silence ends it.
    let mut open = connect(TCP)?;
    open.write_all(&8_u32.to_be_bytes())?;
    let path = stand.weir.config().to_owned();
    let before = std::fs::read_to_string(&path)?;
    let generation = stand.weir.status()?["generation"].as_u64();
    let (begin, rest) = before.split_once("[entrypoint.tcp]").context("no such entrypoint")?;
    let (_, rest) = rest.split_once("[entrypoint.proxied]").context("no such entrypoint")?;
    let without = format!("{begin}[entrypoint.proxied]{rest}")
        .replace("[[route]]\nentrypoint = \"tcp\"\npassthrough = \"bytes\"\n", "");
    stand.weir.rewrite_config(&without)?;
    wait::until_true("it is taken over", PATIENCE, || {
        Ok(stand.weir.status()?["generation"].as_u64() > generation)
    })
    .with_context(|| stand.weir.log_text())?;
    open.write_all(&8_u32.to_be_bytes())?;
    exchange(&open, 8, 8).context("the connection that was open during the reload")?;
    assert!(connect(TCP).is_err(), "nobody listens there any more");
    stand.weir.rewrite_config(&before)?;
    let silent = wait::until("it listens again", PATIENCE, || Ok(connect(TCP).ok()))?;
    let mut silent = Raw { stream: silent };
    silent.say([0; 4])?;
    assert!(silent.has_ended()?);
    logged(&stand, "silence is told of", |line| line["end"] == "idle" && line["ended_by"] == "weir")?;
    let line = logged(&stand, "a large one is told of", |line| line["bytes_out"] == 6_000_000)?;
    assert_eq!((&line["bytes_in"], &line["route"]), (&13.into(), &"tcp".into()));

    // The host waits for those that are open as long as it may, and says what it cut.
    let mut open = connect(PROXIED)?;
    open.write_all(&[0; 4])?;
    wait::until_true("it is open", PATIENCE, || {
        let status = stand.weir.status()?;
        let all = status["services"].as_array().context("no services")?;
        let one = all.iter().find(|one| one["name"] == "proxied").context("no such service")?;
        Ok(one["servers"][0]["carrying"]["active"] == 1)
    })?;
    stand.weir.signal(Signal::SIGTERM)?;
    stand.weir.wait(PATIENCE)?;
    let line = logged(&stand, "the cut is told of", |line| line["end"] == "drain")?;
    assert_eq!((&line["route"], &line["ended_by"]), (&"proxied".into(), &"weir".into()));
    Ok(())
}

#[test]
fn without_a_server_there_is_a_page_or_an_end_and_splits_keep_their_clients() -> Done {
    needs!(Need::Root, Need::Weir, Need::Program("openssl"), Need::Program("curl"));
    let stand = stand()?;
    // A certificate for the name is held: the page, and then the end, so that the next connection looks for the server again.
    for version in ["--http1.1", "--http2"] {
        let ran = curl(&stand, &format!("www.{SITE}"), &[version])?;
        assert!(ran.stdout.ends_with("503") && ran.stdout.contains("retry-after"), "{ran:?}");
    }
    let line = logged(&stand, "the page is told of", |line| line["end"] == "page")?;
    assert_eq!((&line["route"], &line["sni"]), (&"page".into(), &"www.example.com".into()));
    // None is held, or there is no TLS.
    let said = s_client(&stand, "198.51.100.1:443", "-servername gone.internal")?;
    assert!(said.contains("internal error"), "{said}");
    let mut dead = Raw::connect(&stand.lab.visitor, DEAD.parse()?)?.with_patience(Duration::from_secs(5))?;
    assert!(dead.has_ended()?);
    logged(&stand, "so is that", |line| line["end"] == "unreachable" && line["route"] == "dead port")?;

    // By the client's address: always the same, until the weights send it elsewhere.
    let reached = || -> anyhow::Result<String> {
        let ran = curl(&stand, "shift.internal", &["-k"])?;
        let line = ran.stdout.lines().find(|line| line.starts_with("x-upstream: "));
        Ok(line.with_context(|| format!("{ran:?}"))?.trim().to_owned())
    };
    let first = reached()?;
    for _ in 0..5 {
        assert_eq!(reached()?, first);
    }
    for (weights, server) in [(["old=0", "new=1"], "two"), (["old=1", "new=0"], "one")] {
        let ran = weir::run(&stand.lab, &["split", "shift", weights[0], weights[1]])?;
        assert!(ran.code == 0, "{ran:?}");
        assert_eq!(reached()?, format!("x-upstream: {server}"));
    }
    // The variant is gone: its clients are served by the other one, as HTTP's are.
    let mut stand = stand;
    stand.one.kill()?;
    wait::until_true("another server answers", PATIENCE, || {
        let ran = weir::run(&stand.lab, &["split", "shift", "old=100", "new=1"])?;
        anyhow::ensure!(ran.code == 0, "{ran:?}");
        Ok(curl(&stand, "shift.internal", &["-k"])?.stdout.contains("x-upstream: two"))
    })?;
    let ran = curl(&stand, NAME, &[])?;
    assert!(!ran.stdout.ends_with("200"), "its only server is gone: {ran:?}");
    Ok(())
}
