//! The admin API as its document says it is, who gets in where, and what docs/api.md tells an operator to type.

#[path = "support/schema.rs"]
mod schema;

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
};

use anyhow::{Context, ensure};
use schema::Schemas;
use serde_json::{Value, json};
use weir_lab::{
    Lab,
    lab::{
        addresses::{EDGE, ONE, SERVER_PORT},
        client::{Browser, Reply, body, nothing},
        stand::{PATIENCE, Stand},
        wait, weir,
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

const TOKEN: &str = "a-token-that-nobody-guesses-0123456789";

/// Where others reach the API.
const OUTSIDE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(EDGE), 9191);

/// With an address for others, behind TLS and a token or a certificate of the lab's authority.
fn opened(lab: &Lab, toml: &str) -> String {
    let folder = lab.folder().display();
    let write =
        |name: &str, text: String| std::fs::write(lab.folder().join(name), text).expect("the lab's folder");
    let own = lab.authority.issue(&[&EDGE.to_string()]).expect("a certificate");
    write("admin.pem", own.certificate + &own.key);
    write("admin.token", format!("{TOKEN}\n"));
    toml.replace(
        "[admin]\nbind = [",
        &format!(
            "[admin]\ntoken_file = \"{folder}/admin.token\"\n\
             tls = {{ certificates = \"{folder}/admin.pem\", client_ca = \"{folder}/ca.pem\" }}\n\
             bind = [\"{OUTSIDE}\", "
        ),
    )
}

fn get(browser: &Browser, path: &str, token: Option<&str>) -> anyhow::Result<Reply> {
    let mut request = browser.request("GET", path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    browser.send(request.body(nothing())?)
}

fn drain(browser: &Browser, token: Option<&str>) -> anyhow::Result<Reply> {
    let mut request = browser.request("POST", "/api/v1/drain").header("content-type", "application/json");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let order = json!({ "servers": [format!("app/{ONE}:{SERVER_PORT}")], "why": "a test" });
    browser.send(request.body(body(order.to_string()))?)
}

#[test]
fn every_answer_is_as_the_document_says() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let stand = Stand::up_with(|lab, toml| opened(lab, &toml))?;
    let admin = stand.weir.admin();
    // So that there is something to tell of everything.
    ensure!(weir::run(&stand.lab, &["drain", &format!("app/{ONE}:{SERVER_PORT}")])?.code == 0);
    ensure!(
        weir::run(&stand.lab, &["block", "add", "192.0.2.99", "--for", "1h", "--why", "test"])?.code == 0
    );
    ensure!(weir::run(&stand.lab, &["maintenance", "on", "--host", "other.example"])?.code == 0);

    let document = admin.get("/api/v1/openapi.json")?.json()?;
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let kept: Value = serde_json::from_slice(&std::fs::read(kept)?)?;
    assert!(document == kept, "docs/openapi.json is not the daemon's: `cargo xtask docs` renews it");
    let schemas = Schemas { document: &document };
    let mut asked = 0;
    for (path, methods) in document["paths"].as_object().context("no paths")? {
        let Some(operation) = methods.get("get") else { continue };
        let query = if path.ends_with("/explain") {
            "?question=%7B%22url%22:%22http://127.0.0.1/%22%7D"
        } else if path.ends_with("/allowlists") {
            "?prefixes=true"
        } else {
            ""
        };
        let reply = admin.get(&format!("{path}{query}"))?;
        if path.ends_with("/fleet") {
            // tests/fleet.rs has hosts of one.
            assert_eq!(reply.status, 404, "{path}: {}", reply.text());
            continue;
        }
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        let content = operation["responses"]["200"]["content"].as_object().context("no content")?;
        let media = reply.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default();
        let declared = content.get(media).with_context(|| format!("{path} is {media}, not {content:?}"))?;
        if media == "application/json" {
            let faults = schemas.faults(&declared["schema"], &reply.json()?, path);
            assert!(faults.is_empty(), "{faults:#?}");
        }
        let short = path.replacen("/api/v1/", "/api/", 1);
        assert_eq!(admin.get(&format!("{short}{query}"))?.status, 200, "{short}");
        asked += 1;
    }
    assert!(asked > 20, "only {asked} paths were asked");

    let kernel = admin.get("/api/v1/kernel")?.json()?;
    assert_eq!(kernel["readable"], json!(true));
    assert!(kernel["passed"]["packets"].as_u64() > Some(0), "{kernel}");
    let servers = admin.get("/api/v1/servers")?.json()?;
    assert_eq!(servers["servers"].as_array().map(Vec::len), Some(2));
    let routes = admin.get("/api/v1/routes")?.json()?;
    assert!(routes["routes"][0]["requests"].as_u64() > Some(0), "{routes}");
    let configuration = admin.get("/api/v1/configuration")?.text();
    assert!(configuration.contains("a secret") && !configuration.contains(TOKEN), "{configuration}");

    for (path, status) in
        [("/api/v1/nothing", 404), ("/nothing", 404), ("/api/v1/drain", 405), ("/api/v1/explain", 400)]
    {
        let reply = admin.get(path)?;
        assert_eq!(reply.status, status, "{path}");
        assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{path}");
        let faults = schemas.faults(&json!({ "$ref": "#/components/schemas/Problem" }), &reply.json()?, path);
        assert!(faults.is_empty(), "{faults:#?}");
    }
    Ok(())
}

#[test]
fn others_get_in_by_token_or_certificate_alone() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up_with(|lab, toml| opened(lab, &toml))?;
    let from_outside = |own: Option<&weir_lab::lab::certificates::Identity>| -> anyhow::Result<Browser> {
        let tls = match own {
            None => stand.lab.authority.client_config(&["http/1.1"])?,
            Some(own) => stand.lab.authority.client_config_as(&["http/1.1"], own)?,
        };
        Browser::with_tls(&stand.lab.visitor, OUTSIDE, tls)
            .map(|browser| browser.with_host(&EDGE.to_string()))
    };
    let nobody = from_outside(None)?;
    for path in ["/api/v1/status", "/api/status", "/metrics", "/api/v1/openapi.json", "/api/v1/events", "/x"]
    {
        for (token, status) in [(None, 401), (Some("wrong"), 401)] {
            assert_eq!(get(&nobody, path, token)?.status, status, "{path} with {token:?}");
        }
    }
    assert_eq!(get(&nobody, "/ping", None)?.status, 200);
    assert_eq!(get(&nobody, "/ready", None)?.status, 200);
    assert_eq!(get(&nobody, "/api/v1/status", Some(TOKEN))?.status, 200);
    assert_eq!(drain(&nobody, None)?.status, 401);
    assert_eq!(drain(&nobody, Some(TOKEN))?.status, 200);

    let operator = stand.lab.authority.issue(&["operator.example"])?;
    let operator = from_outside(Some(&operator))?;
    assert_eq!(get(&operator, "/api/v1/status", None)?.status, 200);
    assert_eq!(drain(&operator, None)?.status, 200);

    // On loopback: reading by its own names, orders with the token.
    let admin = stand.weir.admin();
    assert_eq!(drain(admin, None)?.status, 403);
    assert_eq!(drain(admin, Some(TOKEN))?.status, 200);
    let elsewhere = Browser::plain(&stand.lab.edge, weir::ADMIN)?.with_host("evil.example:9190");
    let refused = get(&elsewhere, "/api/v1/status", None)?;
    assert_eq!(refused.status, 403, "{}", refused.text());

    // Nobody's order is so long, and who has no token isn't even heard to its end.
    let huge = |token: Option<&str>| -> anyhow::Result<Reply> {
        let mut request = nobody.request("POST", "/api/v1/drain").header("content-type", "application/json");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        nobody.send(request.body(body("x".repeat(5 << 20)))?)
    };
    assert_eq!(huge(Some(TOKEN))?.status, 413);
    assert!(huge(None).map_or(true, |reply| reply.status == 401), "without the token");

    // A token that is taken away opens nothing from then on, and nor does another address that is left open.
    std::fs::write(stand.lab.folder().join("admin.token"), "another-token-that-nobody-guesses-0123")?;
    wait::until_true("the old token is refused", PATIENCE, || {
        Ok(get(&nobody, "/api/v1/status", Some(TOKEN))?.status == 401)
    })
}

#[test]
fn events_come_as_they_happen_and_are_not_lost_between_two_connections() -> Done {
    needs!(Need::Root, Need::Weir, Need::Program("curl"));
    let stand = Stand::up()?;
    let half = half_an_order_each(&stand)?;
    let events = |after: u64| stand.weir.admin().get(&format!("/api/v1/events?after={after}"))?.json();
    let kinds = |document: &Value| -> Vec<String> {
        let all = document["events"].as_array().into_iter().flatten();
        all.map(|event| event["kind"].as_str().unwrap_or_default().to_owned()).collect()
    };
    let first = events(0)?;
    assert!(kinds(&first).iter().any(|kind| kind == "started"), "{first}");
    assert!(kinds(&first).iter().any(|kind| kind == "server_up"), "{first}");
    let last = first["last"].as_u64().context("no number")?;

    let out = stand.lab.folder().join("events");
    let mut curl = stand.lab.edge.command("curl")?;
    curl.args(["-sN", "-H", "accept: text/event-stream", "-H", &format!("last-event-id: {last}")]);
    curl.arg(format!("http://{}/api/v1/events", weir::ADMIN));
    let listening = weir_lab::lab::process::Process::start("curl", curl, &out)?;
    ensure!(
        weir::run(&stand.lab, &["drain", &format!("app/{ONE}:{SERVER_PORT}"), "--why", "disk"])?.code == 0
    );
    ensure!(weir::run(&stand.lab, &["reload"])?.code == 0);
    wait::until_true("the events are told", PATIENCE, || {
        let told = listening.log_text();
        Ok(told.contains("event: server_drained") && told.contains("event: reloaded"))
    })?;
    let told = listening.log_text();
    assert!(told.contains("\"why\":\"disk\""), "{told}");
    assert!(told.contains(&format!("id: {}", last + 1)), "{told}");
    let since = events(last)?;
    assert_eq!(&kinds(&since)[..2], ["server_drained", "reloaded"], "{since}");

    drop(listening);
    only_so_many_may_listen(&stand)?;
    only_so_many_may_be_connected(&stand)?;
    // Orders, reloads and answers did not wait with them.
    drop(half);
    addresses_follow_the_configuration(&stand)
}

/// From those who may give orders.
fn half_an_order_each(stand: &Stand) -> anyhow::Result<Vec<UnixStream>> {
    let begin = |_| {
        let mut stream = UnixStream::connect(weir::admin_socket(&stand.lab))?;
        stream.write_all(b"POST /api/v1/drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\nConnection: close\r\n\r\n{")?;
        Ok(stream)
    };
    (0..50).map(begin).collect()
}

/// Who comes when all places are taken, by whoever says nothing, is closed at once; visitors and the socket notice nothing.
fn only_so_many_may_be_connected(stand: &Stand) -> Done {
    let connect = || (0..600).map(|_| TcpStream::connect(weir::ADMIN)).collect::<Result<Vec<_>, _>>();
    let silent = stand.lab.edge.run(connect)??;
    let is_closed = |mut stream: &TcpStream| match stream.read(&mut [0]) {
        Ok(length) => length == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    };
    for stream in &silent {
        stream.set_nonblocking(true)?;
    }
    wait::until_true("those beyond the limit are closed", PATIENCE, || {
        Ok(silent.iter().filter(|stream| is_closed(stream)).count() >= 600 - 512)
    })?;
    assert_eq!(stand.visitor.get("/")?.status, 200);
    ensure!(weir::run(&stand.lab, &["status"])?.code == 0, "the socket has places of its own");
    drop(silent);
    wait::until_true("places are free again", PATIENCE, || Ok(stand.weir.admin().get("/ping").is_ok()))
}

/// And who asks otherwise gets an answer all the same.
fn only_so_many_may_listen(stand: &Stand) -> Done {
    let ask = || -> anyhow::Result<(TcpStream, String)> {
        let mut stream = stand.lab.edge.run(|| TcpStream::connect(weir::ADMIN))??;
        stream.set_read_timeout(Some(PATIENCE))?;
        let head = format!(
            "GET /api/v1/events HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n\r\n",
            weir::ADMIN
        );
        stream.write_all(head.as_bytes())?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok((stream, String::from_utf8_lossy(&status[9..]).into_owned()))
    };
    let mut held = Vec::new();
    wait::until_true("nobody else may listen", PATIENCE, || {
        let (stream, status) = ask()?;
        held.push(stream);
        Ok(status == "503")
    })?;
    assert!(held.len() > 60, "only {} could listen", held.len());
    assert_eq!(stand.weir.admin().get("/ping")?.status, 200);
    drop(held);
    wait::until_true("places are free again", PATIENCE, || Ok(ask()?.1 == "200"))
}

/// A reload opens and closes admin addresses, or changes nothing.
fn addresses_follow_the_configuration(stand: &Stand) -> Done {
    let before = std::fs::read_to_string(stand.weir.config())?;
    let another: SocketAddr = ([127, 0, 0, 1], 9199).into();
    let with =
        |more: &str| before.replacen("[admin]\nbind = [", &format!("[admin]\nbind = [\"{more}\", "), 1);
    ensure!(with("x") != before, "the lab's configuration is written otherwise: {before}");
    let answers = || -> anyhow::Result<bool> {
        Ok(stand.lab.edge.run(|| std::net::TcpStream::connect(another))?.is_ok())
    };
    ensure!(!answers()?);
    stand.weir.rewrite_config(&with(&another.to_string()))?;
    wait::until_true("the new address answers", PATIENCE, answers)?;
    // Taken: nothing of it is taken over.
    let taken = stand.lab.edge.run(|| std::net::TcpListener::bind("127.0.0.1:9198"))??;
    stand.weir.rewrite_config(&with("127.0.0.1:9198"))?;
    let refused = weir::run(&stand.lab, &["reload"])?;
    ensure!(refused.code == 1 && refused.stderr.contains("127.0.0.1:9198"), "{refused:?}");
    ensure!(answers()?, "what ran before runs on");
    drop(taken);
    stand.weir.rewrite_config(&before)?;
    wait::until_true("the address is given up", PATIENCE, || Ok(!answers()?))
}

/// The commands of a page, with the lab's places in place of the host's.
#[test]
fn every_command_of_the_page_about_the_api_runs() -> Done {
    needs!(Need::Root, Need::Weir, Need::Program("curl"));
    let stand = Stand::up_with(|lab, toml| opened(lab, &toml))?;
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/api.md"))?;
    let blocks = page.split("```").filter_map(|block| block.strip_prefix("sh\n"));
    let commands: Vec<&str> = blocks.flat_map(str::lines).filter(|line| !line.trim().is_empty()).collect();
    assert!(commands.len() > 20, "the page has lost its commands: {commands:?}");
    let (folder, weir) = (stand.lab.folder().display(), weir::program()?);
    for line in commands {
        let command = line
            .replace("/etc/weir/admin-ca.pem", &stand.lab.ca().to_string_lossy())
            .replace("/etc/weir/", &format!("{folder}/"))
            .replace("/run/weir/admin.sock", &weir::admin_socket(&stand.lab).to_string_lossy())
            .replace("edge1.example.com:9191", &OUTSIDE.to_string())
            .replace("10.0.0.11:8080", &format!("{ONE}:{SERVER_PORT}"))
            // Debian 12's curl knows `--json`; what never ends is ended.
            .replace("curl -sN", "timeout 2 curl -sN");
        let mut typed: Command = stand.lab.edge.command("bash")?;
        let path =
            format!("{}:{}", weir.parent().unwrap_or(Path::new("/")).display(), std::env::var("PATH")?);
        let socket = format!("unix:{}", weir::admin_socket(&stand.lab).display());
        typed.args(["-c", &command]).env("PATH", path).env("WEIR_ADMIN", socket).env("NO_COLOR", "1");
        let ran = weir::finish(typed)?;
        let streams = line.contains("event-stream");
        let well = if streams { ran.code == 124 && ran.stdout.contains("event: ") } else { ran.code == 0 };
        assert!(well, "`{line}`, as the page has it: {ran:?}\n{}", stand.weir.log_text());
        let is_refused = ran.stdout.contains("about:blank");
        assert_eq!(is_refused, line.contains("/fleet"), "`{line}`: {}", ran.stdout);
        assert!(!ran.stdout.is_empty(), "`{line}` says nothing");
    }
    Ok(())
}
