//! How work is spread over the servers of a service.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use anyhow::{Context, ensure};
use http_body_util::BodyExt;
use nix::sys::signal::Signal;
use weir_lab::{
    Lab,
    lab::{
        SITE,
        addresses::{HTTPS, ONE, SERVER_PORT, TWO},
        client::{Browser, Connection, Reply, nothing},
        load::{self, Load},
        process::Process,
        stand::{PATIENCE, Stand},
        wait,
        weir::Weir,
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

/// Requests that the servers of the first service have under way.
fn under_way(stand: &Stand) -> anyhow::Result<u64> {
    let status = stand.weir.status()?;
    let servers = status["services"][0]["servers"].as_array().context("no servers")?;
    Ok(servers.iter().filter_map(|server| server["active"].as_u64()).sum())
}

fn becomes(stand: &Stand, count: u64, when: &str) -> Done {
    wait::until_true(&format!("{count} under way {when}"), PATIENCE, || Ok(under_way(stand)? == count))
}

#[test]
fn what_a_server_has_under_way_is_counted_however_it_ends() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up()?;
    let target = stand.visitor.target.clone();
    becomes(&stand, 0, "at first")?;

    // An answer that comes in pieces counts until its end, or until the client has left.
    let request = hyper::Request::get("/drip?n=1000&ms=100").body(nothing())?;
    let open = stand.visitor.station().run(async move {
        let mut connection = Connection::open(&target).await?;
        let mut response = connection.begin(request).await?;
        response.body_mut().frame().await.context("no body")??;
        anyhow::Ok((connection, response))
    })??;
    becomes(&stand, 1, "while an answer goes on")?;
    drop(open);
    becomes(&stand, 0, "after the client left in the middle")?;

    // So does one that never begins. Over HTTP/2, since a client of HTTP/1 may end its side and still want its answer.
    let hasty = Browser::new(&stand.lab, &stand.lab.visitor, HTTPS, &["h2"])?;
    assert!(hasty.with_patience(Duration::from_millis(500)).get("/slow?ms=60000").is_err());
    becomes(&stand, 0, "after the client left before the answer")?;

    // Attempts that fail end with their failure.
    assert!(stand.visitor.get("/reset")?.is_maintenance());
    becomes(&stand, 0, "after the servers broke off")
}

/// Services beside the standard one, each below its own path. Their probes are patient: nobody shall seem to be down on a
/// busy machine.
fn services() -> String {
    let (one, two) = (format!("{ONE}:{SERVER_PORT}"), format!("{TWO}:{SERVER_PORT}"));
    format!(
        r#"
[service.weighted]
servers = [{{ address = "{one}", weight = 3 }}, "{two}"]

[service.tiered]
servers = [{{ address = "{one}", tier = 2 }}, "{two}"]
health = {{ path = "/health", every = "1s", timeout = "1s" }}

[service.quick]
servers = ["{one}", "{two}"]
balance = "latency"

[service.hashed]
servers = ["{one}", "{two}"]
balance = "hash"
hash_by = "query:user"

[service.sticky]
servers = ["{one}", "{two}"]
sticky = {{ name = "lb" }}
health = {{ path = "/health", every = "1s", timeout = "1s" }}

[[route]]
host = "{SITE}"
path = "/weighted"
service = "weighted"

[[route]]
host = "{SITE}"
path = "/tiered"
service = "tiered"

[[route]]
host = "{SITE}"
path = "/slow"
service = "quick"

[[route]]
host = "{SITE}"
path = "/hashed"
service = "hashed"

[[route]]
host = "{SITE}"
path = "/sticky"
service = "sticky"
"#
    )
}

/// Who answered so many requests, and how often.
fn answers(visitor: &Browser, path: &str, count: usize) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut by = BTreeMap::new();
    for _ in 0..count {
        *by.entry(server(&visitor.get(path)?)?).or_default() += 1;
    }
    Ok(by)
}

fn server(reply: &Reply) -> anyhow::Result<String> {
    Ok(reply.upstream().with_context(|| format!("no server answered: {}", reply.status))?.to_owned())
}

fn with_cookie(visitor: &Browser, cookie: &str) -> anyhow::Result<Reply> {
    visitor.send(visitor.request("GET", "/sticky").header("cookie", cookie).body(nothing())?)
}

/// The pair that a browser would send back.
fn given(reply: &Reply) -> anyhow::Result<String> {
    let field = reply.header("set-cookie").context("no cookie")?;
    ensure!(field.ends_with("; Path=/; SameSite=Lax; HttpOnly; Secure"), "{field}");
    Ok(field.split(';').next().unwrap_or_default().to_owned())
}

#[test]
fn work_is_spread_as_the_service_says() -> Done {
    needs!(Need::Root, Need::Weir);
    let mut toml = String::new();
    let mut stand = Stand::up_with(|_, standard| {
        toml = standard + &services();
        toml.clone()
    })?;

    // By weight, exactly.
    let by = answers(&stand.visitor, "/weighted", 40)?;
    assert_eq!((by["one"], by["two"]), (30, 10));
    // A server that takes a hundred times as long gets next to nothing.
    let by = answers(&stand.visitor, "/slow?ms=100&at=two", 200)?;
    assert!(by.get("two").is_none_or(|slow| *slow < 10), "{by:?}");
    // The same server for the same user, and not the same one for all users.
    let mut all = BTreeMap::new();
    for user in 0..16 {
        let by = answers(&stand.visitor, &format!("/hashed?user={user}"), 3)?;
        assert_eq!(by.len(), 1, "user {user}: {by:?}");
        all.extend(by);
    }
    assert_eq!(all.len(), 2);
    let told = weir_lab::lab::weir::run(&stand.lab, &["explain", &format!("https://{SITE}/hashed?user=3")])?;
    let whose = &answers(&stand.visitor, "/hashed?user=3", 1)?;
    let address = if whose.contains_key("one") { ONE } else { TWO };
    let line = format!("hash by query:user: {address}:{SERVER_PORT}, as long as it takes work");
    assert!(told.stdout.contains(&line), "{}", told.stdout);

    // A visitor stays with his server, also when the daemon starts anew, and gets no second cookie.
    let first = stand.visitor.get("/sticky")?;
    let (mine, cookie) = (server(&first)?, given(&first)?);
    for _ in 0..6 {
        let again = with_cookie(&stand.visitor, &cookie)?;
        assert_eq!((server(&again)?, again.header("set-cookie")), (mine.clone(), None));
    }
    assert!(with_cookie(&stand.visitor, "lb=made-up")?.header("set-cookie").is_some());
    stand.weir.terminate()?;
    stand.weir = Weir::start(&stand.lab, &toml)?;
    for _ in 0..4 {
        assert_eq!(server(&with_cookie(&stand.visitor, &cookie)?)?, mine);
    }

    // The second tier gets nothing, until nobody of the first is left.
    let by = answers(&stand.visitor, "/tiered", 10)?;
    assert_eq!(by.get("one"), None);
    // A server that is gone loses its visitors: they get another one, with its cookie.
    if mine == "one" {
        stand.one.kill()?;
    } else {
        stand.two.kill()?;
    }
    let other = if mine == "one" { "two" } else { "one" };
    let moved = with_cookie(&stand.visitor, &cookie)?;
    assert_eq!(server(&moved)?, other);
    assert_ne!(given(&moved)?, cookie);
    assert_eq!(server(&with_cookie(&stand.visitor, &given(&moved)?)?)?, other);
    if mine == "two" {
        assert_eq!(answers(&stand.visitor, "/tiered", 5)?.get("one"), Some(&5));
    }
    Ok(())
}

/// A real DNS server in the edge, with names in a file of its own.
struct Dns {
    process: Process,
    hosts: PathBuf,
}

const DNS: &str = "127.0.0.1:5353";

impl Dns {
    fn start(lab: &Lab) -> anyhow::Result<Self> {
        let hosts = lab.folder().join("names");
        fs::write(&hosts, "")?;
        let mut command = lab.edge.command("dnsmasq")?;
        command
            .args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"])
            .args(["--port=5353", "--listen-address=127.0.0.1", "--bind-interfaces", "--local=/test/"])
            .args(["--local-ttl=1", "--user=root", "--pid-file=", "--log-facility=-", "--no-daemon"])
            .arg(format!("--addn-hosts={}", hosts.display()))
            .arg(format!("--host-record=one.test,{ONE}"))
            .arg(format!("--host-record=two.test,{TWO}"))
            .arg(format!("--srv-host=_http._tcp.app.test,one.test,{SERVER_PORT},10,60"))
            .arg(format!("--srv-host=_http._tcp.app.test,two.test,{SERVER_PORT},20,5"));
        let process = Process::start("dnsmasq", command, &lab.folder().join("dnsmasq.log"))?;
        wait::until_true("dnsmasq has started", PATIENCE, || Ok(process.log_text().contains("started")))
            .with_context(|| process.log_text())?;
        Ok(Self { process, hosts })
    }

    fn says(&self, addresses: &[std::net::Ipv4Addr]) -> Done {
        let lines: String = addresses.iter().map(|ip| format!("{ip} app.test\n")).collect();
        fs::write(&self.hosts, lines)?;
        self.process.signal(Signal::SIGHUP)
    }
}

/// The addresses and statuses of the service's servers.
fn servers(stand: &Stand, service: &str) -> anyhow::Result<Vec<(String, String)>> {
    let status = stand.weir.status()?;
    let services = status["services"].as_array().context("no services")?;
    let service = services.iter().find(|one| one["name"] == service).context("no such service")?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let servers = service["servers"].as_array().context("no servers")?;
    Ok(servers.iter().map(|server| (text(&server["address"]), text(&server["status"]))).collect())
}

fn waits_for(stand: &Stand, wanted: &[(String, &str)]) -> Done {
    wait::until_true(&format!("the servers are {wanted:?}"), PATIENCE, || {
        let now = servers(stand, "named")?;
        Ok(now.iter().map(|(address, status)| (address.clone(), status.as_str())).eq(wanted.iter().cloned()))
    })
}

#[test]
fn a_name_is_followed_under_load_without_a_failed_request() -> Done {
    needs!(Need::Root, Need::Weir, Need::Program("dnsmasq"));
    let mut dns = None;
    let stand = Stand::up_with(|lab, toml| {
        dns = Some(Dns::start(lab));
        toml + &format!(
            r#"
[dns]
servers = ["{DNS}"]
min_ttl = "1s"

[service.named]
servers = ["app.test:{SERVER_PORT}"]
health = {{ path = "/health", every = "1s", timeout = "1s" }}

[[route]]
host = "{SITE}"
path = "/named"
service = "named"

[service.offered]
servers = ["srv:_http._tcp.app.test"]
health = {{ path = "/health", every = "1s", timeout = "1s" }}

[[route]]
host = "{SITE}"
path = "/offered"
service = "offered"
"#
        )
    })?;
    let dns = dns.context("no DNS server")??;
    let at = |ip: std::net::Ipv4Addr| (format!("{ip}:{SERVER_PORT}"), "up");

    // What DNS has for a service says ports, weights and which is asked first.
    assert_eq!(servers(&stand, "offered")?, [at(ONE), at(TWO)].map(|(at, up)| (at, up.to_owned())));
    let status = stand.weir.status()?;
    let offered =
        status["services"].as_array().and_then(|all| all.iter().find(|one| one["name"] == "offered"));
    let offered = &offered.context("no such service")?["servers"];
    assert_eq!((&offered[0]["weight"], &offered[0]["tier"]), (&60.into(), &1.into()));
    assert_eq!((&offered[1]["weight"], &offered[1]["tier"]), (&5.into(), &2.into()));
    assert_eq!(answers(&stand.visitor, "/offered", 5)?.get("one"), Some(&5));

    // The start didn't wait for a name that nobody knows yet.
    assert!(stand.visitor.get("/named")?.is_maintenance());
    waits_for(&stand, &[(format!("app.test:{SERVER_PORT}"), "unresolved")])?;
    dns.says(&[ONE])?;
    waits_for(&stand, &[at(ONE)])?;

    let load = Load::start(&stand.lab.visitor, &stand.visitor, "/named", 100)?;
    load.wait_for_more(20, PATIENCE)?;
    dns.says(&[TWO])?;
    waits_for(&stand, &[at(TWO)])?;
    load.wait_for_more(20, PATIENCE)?;
    dns.says(&[ONE, TWO])?;
    waits_for(&stand, &[at(ONE), at(TWO)])?;
    // What DNS can't say any more stays as it was.
    dns.says(&[])?;
    let log = || stand.weir.log_text();
    wait::until_true("the log tells of the trouble", PATIENCE, || {
        Ok(log().contains("`app.test` can't be resolved, its last addresses stay"))
    })?;
    load.wait_for_more(20, PATIENCE)?;
    let records = load.stop()?;
    load::all_served(&records)?;
    for name in ["one", "two"] {
        assert!(records.iter().any(|record| record.served_by(name)), "nothing was served by {name}");
    }
    waits_for(&stand, &[at(ONE), at(TWO)])?;
    let told = format!("servers changed by DNS: app.test: +{TWO} −{ONE}");
    assert!(log().contains(&told), "the log doesn't say {told:?}");
    Ok(())
}
