//! What servers are asked, what requests that fail make of them, and what the kernel tells of them.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use weir_lab::{
    lab::{
        addresses::HTTP,
        ip,
        server::Which,
        stand::{PATIENCE, Stand},
        wait, weir,
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

/// A service's part of the status.
fn service(stand: &Stand, name: &str) -> anyhow::Result<Value> {
    let status = stand.weir.status()?;
    let services = status["services"].as_array().context("no services in the status")?;
    let found = services.iter().find(|service| service["name"] == name);
    found.cloned().with_context(|| format!("no service {name} in {status}"))
}

/// The status of a service's first server.
fn first(stand: &Stand, name: &str) -> anyhow::Result<Value> {
    Ok(service(stand, name)?["servers"][0].clone())
}

fn route(service: &str) -> String {
    format!("\n[[route]]\nhost = \"{service}.example.com\"\nservice = \"{service}\"\n")
}

#[test]
fn each_kind_of_probe_tells_who_is_well() -> Done {
    needs!(Need::Root, Need::Weir);
    let (plain, tls) = ("10.0.0.11:8080", "10.0.0.11:8443");
    let script = "script = [{ send = 'GET /status/204 HTTP/1.0\\r\\n\\r\\n' }, { expect = '204 ' }";
    let cases = [
        ("tcp-well", plain, "tcp = true".to_owned(), "up", ""),
        ("tcp-ill", "10.0.0.11:9", "tcp = true".to_owned(), "down", "refused"),
        ("tls-well", tls, "tls = true, host = 'app.internal'".to_owned(), "up", ""),
        ("tls-ill", plain, "tls = true, host = 'app.internal'".to_owned(), "down", "TLS"),
        ("script-well", plain, format!("{script}]"), "up", ""),
        ("script-over-tls", tls, format!("{script}], tls = true, host = 'app.internal'"), "up", ""),
        ("script-ill", plain, format!("{script}, {{ expect = '+PONG' }}]"), "down", "+PONG"),
        ("grpc-well", plain, "grpc = 'shop.Cart'".to_owned(), "up", ""),
        ("grpc-ill", plain, "grpc = 'ill'".to_owned(), "down", "doesn't serve"),
        ("status-well", plain, "path = '/status/404', status = '404'".to_owned(), "up", ""),
        (
            "header-ill",
            plain,
            "path = '/', expect_header = { x-upstream = 'two' }".to_owned(),
            "down",
            "field",
        ),
        ("body-well", plain, "path = '/', expect_body = 'hello from one'".to_owned(), "up", ""),
        (
            "body-ill",
            plain,
            "path = '/', expect_body_regex = 'hello from (two|three)'".to_owned(),
            "down",
            "body",
        ),
        ("port-well", "10.0.0.11:9", "path = '/', port = 8080".to_owned(), "up", ""),
    ];
    let stand = Stand::up_with(|_, toml| {
        cases.iter().fold(toml, |toml, (name, server, health, ..)| {
            toml + &format!(
                "\n[service.{name}]\nservers = \"{server}\"\nhealth = {{ {health}, timeout = '1s' }}\n{}",
                route(name)
            )
        })
    })?;
    for (name, _, health, status, why) in cases {
        let what = format!("`{health}` says {status}");
        let server = wait::until(&what, PATIENCE, || {
            Ok(Some(first(&stand, name)?).filter(|server| server["status"] != "starting"))
        })?;
        ensure!(server["status"] == status, "{name} ({health}): {server}");
        ensure!(server["why"].as_str().is_some_and(|said| said.contains(why)), "{name} ({health}): {server}");
        ensure!(server["probe_ms"].is_number() == (status == "up"), "{name}: {server}");
    }
    Ok(())
}

#[test]
fn failing_servers_are_ejected_and_failing_services_cut_off_until_they_are_well() -> Done {
    needs!(Need::Root, Need::Weir);
    let mut stand = Stand::up_with(|_, toml| {
        let servers = "servers = [\"10.0.0.11:8080\", \"10.0.0.12:8080\"]";
        toml + &format!(
            "\n[service.bare]\n{servers}\neject = {{ after = 2, for = '500ms', longest = '500ms' }}\n{}\
             \n[service.fragile]\n{servers}\nbreaker = {{ errors = '50%', at_least = 5, open = '500ms', recover = '200ms' }}\n{}",
            route("bare"),
            route("fragile")
        )
    })?;

    // 1. Without a health check, a dead server is left out after two failures; no request is lost to it.
    let bare = stand.visitor.clone().with_host("bare.example.com");
    stand.one.kill()?;
    let ejected = |stand: &Stand| Ok(first(stand, "bare")?["status"] == "ejected");
    wait::until_true("server one is ejected", PATIENCE, || {
        let reply = bare.get("/")?;
        ensure!(reply.upstream() == Some("two"), "{reply:?}");
        ejected(&stand)
    })?;
    let shown = first(&stand, "bare")?;
    ensure!(shown["ejected_for"].as_f64().is_some_and(|left| left <= 0.5), "{shown}");
    ensure!(shown["why"].as_str().is_some_and(|why| why.contains("connect")), "{shown}");

    // 2. A reload doesn't forget it; it comes back for trial, and stays when it is well.
    let text = fs::read_to_string(stand.weir.config())?;
    stand.one.start_again(&stand.lab)?;
    stand.weir.rewrite_config(&text.replace("after = 2", "after = 3"))?;
    wait::until_true("server one serves again", PATIENCE, || Ok(bare.get("/")?.upstream() == Some("one")))?;
    ensure!(first(&stand, "bare")?["status"] == "unchecked");

    // 3. The breaker: errors open it, and nobody waits for the service then.
    let fragile = stand.visitor.clone().with_host("fragile.example.com");
    let state = |stand: &Stand| -> anyhow::Result<String> {
        let service = service(stand, "fragile")?;
        Ok(service["breaker"]["state"].as_str().unwrap_or_default().to_owned())
    };
    ensure!(state(&stand)? == "closed");
    for _ in 0..5 {
        ensure!(fragile.get("/status/500")?.status == 500);
    }
    ensure!(fragile.get("/")?.is_maintenance(), "the breaker is open");
    let shown = service(&stand, "fragile")?;
    ensure!(shown["breaker"]["why"] == "5 of 5 requests failed within 10s", "{shown}");
    let said = weir::run(&stand.lab, &["status"])?;
    ensure!(said.stdout.contains("BREAKER of `fragile`"), "{}", said.stdout);
    wait::until_true("the breaker closes again", PATIENCE, || {
        let _ = fragile.get("/")?;
        Ok(state(&stand)? == "closed")
    })?;
    ensure!(fragile.get("/")?.status == 200);
    Ok(())
}

/// Where control groups of version 2 are mounted.
fn cgroups() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        after.starts_with("cgroup2 ").then(|| before.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// Removes a control group that a daemon which was killed left behind.
struct Group(PathBuf);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Switches one connection to a protocol that echoes.
fn switch(mut stream: TcpStream) -> std::io::Result<()> {
    read_head(&mut stream)?;
    stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")?;
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 {
        stream.write_all(&byte)?;
    }
    Ok(())
}

fn read_head(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

#[test]
fn a_host_that_vanishes_is_found_out_by_what_it_does_not_acknowledge() -> Done {
    needs!(Need::Root, Need::Weir, Need::Ebpf);
    let Some(mounted) = cgroups() else {
        let name = "a_host_that_vanishes_is_found_out_by_what_it_does_not_acknowledge";
        weir_lab::needs::skipped(name, "no control groups of version 2 are mounted");
        return Ok(());
    };
    let group = Group(mounted.join(format!("weir-lab-{}", process::id())));
    let at = "10.0.0.11:7000";
    // Nobody asks this server anything while it carries a WebSocket: no request waits, and the next probe is far away.
    let mut stand = Stand::up_with(|lab, toml| {
        let listener = lab.one.run(|| TcpListener::bind(at));
        if let Ok(Ok(listener)) = listener {
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    // A probe closes at once.
                    thread::spawn(move || switch(stream));
                }
            });
        }
        toml.replace("cgroup = \"off\"", &format!("cgroup = \"{}\"", group.0.display()))
            + &format!(
                "\n[entrypoint.http]\nbind = [\"{HTTP}\"]\n\n[service.chat]\nservers = \"{at}\"\n\
                 health = {{ tcp = true, every = '10m', timeout = '200ms' }}\n\
                 \n[[route]]\nentrypoint = \"http\"\nservice = \"chat\"\n"
            )
    })?;
    let status = stand.weir.status()?;
    ensure!(status["server_watch"]["state"] == "on", "{status}");
    let told = weir::run(&stand.lab, &["kernel", "status", "--bpffs", &stand.lab.bpffs().to_string_lossy()])?;
    ensure!(told.stdout.contains("has its connections to servers watched"), "{told:?}");
    wait::until_true("the server is up", PATIENCE, || Ok(first(&stand, "chat")?["status"] == "up"))?;

    let mut stream = stand.lab.visitor.run(|| TcpStream::connect(HTTP))??;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(
        b"GET /chat HTTP/1.1\r\nHost: chat.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    )?;
    ensure!(read_head(&mut stream)?.starts_with("HTTP/1.1 101 "));
    stream.write_all(b"x")?;
    stream.read_exact(&mut [0])?;
    ensure!(first(&stand, "chat")?["kernel_reports"] == 0);

    // The host is gone: it takes everything, and nothing comes back.
    ip(&["-n", stand.lab.one.name(), "-batch", "-"], "route replace blackhole 10.0.0.1/32")?;
    stream.write_all(b"y")?;
    let gone = Instant::now();
    let server = wait::until("the server is down", PATIENCE, || {
        Ok(Some(first(&stand, "chat")?).filter(|server| server["status"] == "down"))
    })?;
    // A retransmission after 0.2 s, two probes of 0.2 s, and what the machine adds.
    ensure!(gone.elapsed() < Duration::from_secs(3), "it took {:?}", gone.elapsed());
    ensure!(server["kernel_reports"].as_u64() > Some(0), "{server}");
    ensure!(
        server["why"].as_str().is_some_and(|why| why.contains("doesn't acknowledge")),
        "the status tells why: {server}"
    );
    let other = stand.weir.status()?["services"][0]["servers"][1]["kernel_reports"].clone();
    ensure!(other == 0, "{} has nothing to do with it: {other}", Which::Two.name());

    println!("down {:?} after the host was gone", gone.elapsed());

    // An end in order leaves no group behind.
    stand.weir.signal(Signal::SIGINT)?;
    stand.weir.wait(PATIENCE)?;
    ensure!(!Path::new(&group.0).exists(), "{} is still there", group.0.display());
    Ok(())
}
