//! A daemon that hands TLS connections to the kernel after it has read their name: they go on when it is killed, and the next
//! one knows them.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use anyhow::{Context, ensure};
use proxy_common::names::TRANSLATE_FLOWS;
use rustls::{ClientConnection, StreamOwned};
use serde_json::Value;
use weir_lab::{
    lab::{
        addresses::{HTTPS, ONE, SERVER_TLS_PORT},
        ip, pinned,
        raw::Raw,
        stand::{PATIENCE, Stand},
        wait,
        weir::{self, Weir},
    },
    needs,
    needs::Need,
};

const NAME: &str = "app.internal";

fn configuration() -> String {
    format!(
        r#"
[service.joined]
servers = ["{ONE}:{SERVER_TLS_PORT}"]
offload = "splice-kernel"
health = {{ tls = true, host = "{NAME}", every = "500ms", timeout = "500ms" }}
[[route]]
name = "joined"
sni = "{NAME}"
passthrough = "joined"
"#
    )
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

fn connect(stand: &Stand) -> anyhow::Result<Tls> {
    let config = stand.lab.authority.client_config(&["http/1.1"])?;
    let tls = ClientConnection::new(config, NAME.try_into()?)?;
    let stream = Raw::connect(&stand.lab.visitor, HTTPS)?.stream;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(StreamOwned::new(tls, stream))
}

/// One request of many over a connection; gives the answer's head.
fn ask(tls: &mut Tls) -> anyhow::Result<String> {
    tls.write_all(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n").as_bytes())?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        tls.read_exact(&mut byte).context("the head ends early")?;
        head.extend(byte);
    }
    let head = String::from_utf8(head)?.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.context("no length")?.parse()?;
    tls.read_exact(&mut vec![0; length]).context("the body ends early")?;
    Ok(head)
}

fn flows(stand: &Stand) -> usize {
    let dump = pinned::dump_json(&stand.lab, TRANSLATE_FLOWS);
    dump.ok().and_then(|dump| Some(dump.as_array()?.len())).unwrap_or(0)
}

fn logged(stand: &Stand) -> Vec<Value> {
    all_logged(stand).into_iter().filter(|line| line["route"] == "joined").collect()
}

fn all_logged(stand: &Stand) -> Vec<Value> {
    let text = std::fs::read_to_string(stand.lab.folder().join("access.log")).unwrap_or_default();
    let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
    lines.filter(|line: &Value| line["kind"] == "connection").collect()
}

#[test]
fn a_connection_is_handed_over_and_outlives_the_daemon() -> anyhow::Result<()> {
    needs!(Need::Root, Need::Ebpf, Need::Weir, Need::Program("bpftool"));
    let mut stand = Stand::up_with(|_, toml| toml + &configuration())?;
    wait::until_true("the server is up", PATIENCE, || {
        let status = stand.weir.status()?;
        let all = status["services"].as_array().context("no services")?;
        Ok(all.iter().any(|one| one["name"] == "joined" && one["servers"][0]["status"] == "up"))
    })?;
    wait::until_true("connections can be handed over", PATIENCE, || {
        Ok(stand.weir.log_text().contains("are handed to the kernel"))
    })?;

    // 1. It is the kernel's, and ends in order.
    let mut first = connect(&stand)?;
    ensure!(ask(&mut first)?.starts_with("http/1.1 200"));
    ensure!(flows(&stand) == 2, "it was not handed over: {}", stand.weir.log_text());
    let standing = stand.weir.status()?["forwarding"]["handed_over"].take();
    ensure!(standing["carried"] == 1 && standing["handed_over"] == 1, "{standing}");
    let told = weir::run(&stand.lab, &["flows", "--service", "joined", "--json"])?.stdout;
    let told: Value = serde_json::from_str(&told)?;
    ensure!(told["all"] == 1 && told["flows"][0]["handed_over"] == true, "{told}");
    first.conn.send_close_notify();
    first.flush()?;
    drop(first);
    // Its line comes when the kernel has nothing more to do for it.
    wait::until_true("it is in the log", PATIENCE * 3, || {
        Ok(logged(&stand).iter().any(|line| {
            let ended = line["end"] == "closed" || line["end"] == "reset";
            line["sni"] == NAME && ended && line["bytes_out"].as_u64() > Some(100)
        }))
    })
    .with_context(|| format!("{:#?}", logged(&stand)))?;

    // 2. One that stays open doesn't notice that the daemon is killed, nor that another one comes.
    let mut second = connect(&stand)?;
    ask(&mut second)?;
    stand.weir.kill()?;
    // The way to the server is narrower from now on, which clients that come are told.
    for (namespace, interface) in [(&stand.lab.edge, "one"), (&stand.lab.one, "edge")] {
        ip(&["-n", namespace.name(), "-batch", "-"], &format!("link set {interface} mtu 1400"))?;
    }
    ensure!(ask(&mut second)?.starts_with("http/1.1 200"), "it broke with the daemon");
    let toml = std::fs::read_to_string(stand.weir.config())?;
    stand.weir = Weir::start(&stand.lab, &toml)?;
    wait::until_true("the next daemon hands over too", PATIENCE, || {
        // Both write into one file.
        Ok(stand.weir.log_text().matches("are handed to the kernel").count() == 2)
    })?;
    ensure!(ask(&mut second)?.starts_with("http/1.1 200"), "it broke with the next daemon");
    let standing = stand.weir.status()?["forwarding"]["handed_over"].take();
    ensure!(standing["carried"] == 1 && standing["handed_over"] == 0, "taken over: {standing}");
    let mut third = connect(&stand)?;
    ask(&mut third)?;
    ensure!(flows(&stand) == 4, "the third is not handed over: {}", stand.weir.status()?["forwarding"]);
    drop((second, third));

    // 3. Nothing is left of them. Who has taken one over tells of its end.
    wait::until_true("the end of the second is in the log", PATIENCE * 3, || {
        Ok(all_logged(&stand).iter().any(|line| {
            let named = line["service"] == "joined" && line["entrypoint"] == "https";
            named && line.get("route").is_none() && line["bytes_out"].as_u64() > Some(100)
        }))
    })
    .with_context(|| format!("{:#?}", all_logged(&stand)))?;
    wait::until_true("the table is empty", PATIENCE * 3, || Ok(flows(&stand) == 0))
}
