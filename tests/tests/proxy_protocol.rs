//! The PROXY protocol, in and out, also with real peers.

use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use weir_lab::{
    lab::{
        SITE,
        addresses::{EDGE, HTTP, STRANGER, VISITOR},
        client::Browser,
        process::Process,
        raw::{Raw, serve},
        stand::{PATIENCE, Stand},
        wait,
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

const BYTES: &str = "127.0.0.1:7100";

/// A port where the visitor is a proxy, and its own clients may be Cloudflare.
fn stand(service: &str) -> anyhow::Result<Stand> {
    Stand::up_with(|_, toml| {
        toml + &format!(
            "\n[allowlist.proxies]\nprefixes = [\"{VISITOR}\"]\n[allowlist.cdn]\nprefixes = [\"192.0.2.0/24\"]\n\
             [entrypoint.http]\nbind = [\"{HTTP}\"]\nproxy_protocol = {{ from = \"proxies\", timeout = \"500ms\" }}\n\
             client_ip = {{ header = \"CF-Connecting-IP\", trust = \"cdn\" }}\n\
             [service.bytes]\nservers = [\"{BYTES}\"]\n{service}\n\
             [[route]]\nhost = \"bytes.example\"\nservice = \"bytes\"\n"
        )
    })
}

fn v2(rest: &[u8]) -> Vec<u8> {
    [b"\r\n\r\n\0\r\nQUIT\n", rest].concat()
}

#[test]
fn a_proxy_says_whose_connection_it_brings() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand("")?;
    let named =
        [&[0x21, 0x11, 0, 19][..], &[198, 51, 100, 77, 198, 51, 100, 1, 1, 1, 0, 80], &[4, 0, 4, 1, 2, 3, 4]]
            .concat();
    for (header, client) in [
        (b"PROXY TCP4 198.51.100.77 198.51.100.1 4000 80\r\n".to_vec(), "198.51.100.77"),
        (b"PROXY TCP6 2001:db8::77 2001:db8::1 4000 80\r\n".to_vec(), "2001:db8::77"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "173.245.48.10"),
        (v2(&named), "198.51.100.77"),
        (v2(&[0x20, 0, 0, 0]), "173.245.48.10"),
        // It brings somebody who is trusted in turn.
        (b"PROXY TCP4 192.0.2.1 198.51.100.1 4000 80\r\n".to_vec(), "203.0.113.200"),
    ] {
        for in_pieces in [false, true] {
            let mut raw = Raw::connect(&stand.lab.visitor, HTTP)?;
            let request =
                format!("GET /headers HTTP/1.1\r\nHost: {SITE}\r\nCF-Connecting-IP: 203.0.113.200\r\n\r\n");
            let stream = [&header[..], request.as_bytes()].concat();
            if in_pieces {
                for byte in &stream {
                    raw.say([*byte])?;
                }
            } else {
                raw.say(&stream)?;
            }
            let seen: serde_json::Value = serde_json::from_str(&raw.answer()?.body)?;
            assert_eq!(seen["x-real-ip"], json!([client]), "{:?}", String::from_utf8_lossy(&header));
        }
    }
    wait::until_true("the access log has the clients", PATIENCE, || {
        let log = std::fs::read_to_string(stand.lab.folder().join("access.log")).unwrap_or_default();
        Ok(log.contains("\"client_ip\":\"198.51.100.77\"") && log.contains("\"client_ip\":\"2001:db8::77\""))
    })
}

#[test]
fn who_must_say_it_and_does_not_is_cut_off_and_nobody_else_may() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand("")?;
    let request = format!("GET /headers HTTP/1.1\r\nHost: {SITE}\r\n\r\n");
    for begin in [
        "",
        "PROXY TCP4 198.51.100.77 198.51.100.1 4000\r\n",
        "PROXY TCP4 1 2 3 4\n",
        "PROXY ",
        "\r\n\r\n\0\r\nQUIT\n\x21\x12\0\0",
    ] {
        let mut raw = Raw::connect(&stand.lab.visitor, HTTP)?;
        raw.say(format!("{begin}{request}"))?;
        assert!(raw.has_ended()?, "{begin:?}");
    }
    let mut silent = Raw::connect(&stand.lab.visitor, HTTP)?.with_patience(Duration::from_secs(5))?;
    assert!(silent.has_ended()?);
    wait::until_true("they are counted", PATIENCE, || {
        let status = stand.weir.status()?;
        let http = status["entrypoints"]
            .as_array()
            .and_then(|all| all.iter().find(|one| one["name"] == "http"))
            .context("no http")?;
        Ok(http["refused"]["proxy_header"] == 6)
    })?;
    // A stranger is believed nothing, and needs no header.
    let mut stranger = Raw::connect(&stand.lab.stranger, HTTP)?;
    stranger.say(&request)?;
    assert!(stranger.answer()?.body.contains(&STRANGER.to_string()));
    let mut liar = Raw::connect(&stand.lab.stranger, HTTP)?;
    liar.say(format!("PROXY TCP4 198.51.100.77 198.51.100.1 4000 80\r\n{request}"))?;
    assert_eq!(liar.answer()?.status, 400);
    Ok(())
}

#[test]
fn haproxy_brings_its_clients() -> Done {
    needs!(Need::Root, Need::Weir, Need::Program("haproxy"));
    let stand = stand("")?;
    let file = stand.lab.folder().join("haproxy.cfg");
    std::fs::write(
        &file,
        format!(
            "defaults\n mode tcp\n timeout connect 2s\n timeout client 5s\n timeout server 5s\n\
             listen one\n bind {VISITOR}:8001\n server edge {EDGE}:80 send-proxy\n\
             listen two\n bind {VISITOR}:8002\n server edge {EDGE}:80 send-proxy-v2-ssl-cn\n"
        ),
    )?;
    let mut command = stand.lab.visitor.command("haproxy")?;
    command.arg("-db").arg("-f").arg(&file);
    let _haproxy = Process::start("haproxy", command, &stand.lab.folder().join("haproxy.log"))?;
    for port in [8001, 8002] {
        let browser = Browser::plain(&stand.lab.stranger, (VISITOR, port).into())?;
        let seen = wait::until("haproxy is ready", PATIENCE, || Ok(browser.get("/headers").ok()))?.json()?;
        assert_eq!(seen["x-real-ip"], json!([STRANGER.to_string()]), "port {port}");
    }
    Ok(())
}

#[test]
fn servers_are_told_who_the_client_is() -> Done {
    needs!(Need::Root, Need::Weir);
    for version in ["v1", "v2"] {
        let stand = stand(&format!("send_proxy = \"{version}\""))?;
        // It answers with what came before the head, and would serve more.
        serve(&stand.lab.edge, BYTES, |_, mut raw| {
            let before = raw.stream.peek(&mut [0; 1])?;
            anyhow::ensure!(before == 1, "nothing came");
            loop {
                let head = raw.head()?;
                let head = if head.starts_with('\r') { head + &raw.head()? } else { head };
                let mut shown = String::new();
                for character in head.chars() {
                    shown.extend(character.escape_default());
                }
                raw.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{shown}", shown.len()))?;
            }
        })?;
        let browser = Browser::plain(&stand.lab.stranger, HTTP)?.with_host("bytes.example");
        for _ in 0..2 {
            let said = browser.get("/")?.text();
            if version == "v1" {
                assert!(said.starts_with(&format!("proxy tcp4 {STRANGER} {EDGE} ")), "{said}");
                assert!(said.contains(" 80\\r\\nget / http/1.1"), "{said}");
            } else {
                assert!(said.contains("quit\\n!\\u{11}"), "{said}");
            }
        }
    }
    Ok(())
}

#[test]
fn nginx_believes_what_it_is_told() -> Done {
    needs!(Need::Root, Need::Weir, Need::Program("nginx"));
    for version in ["v1", "v2"] {
        let stand = stand(&format!(
            "send_proxy = \"{version}\"\nhealth = {{ path = \"/\", every = \"200ms\", timeout = \"150ms\" }}"
        ))?;
        let folder = stand.lab.folder();
        let file = folder.join("nginx.conf");
        std::fs::write(
            &file,
            format!(
                "daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log; events {{}}\n\
                 http {{ access_log off; server {{ listen {BYTES} proxy_protocol; return 200 $proxy_protocol_addr; }} }}\n",
                folder = folder.display()
            ),
        )?;
        let mut command = stand.lab.edge.command("nginx")?;
        command.arg("-p").arg(folder).arg("-c").arg(&file);
        let _nginx = Process::start("nginx", command, &folder.join("nginx.out"))?;
        let browser = Browser::plain(&stand.lab.stranger, HTTP)?.with_host("bytes.example");
        // The health probe, which speaks for itself, has found it well.
        let reply = wait::until("nginx is up", PATIENCE, || {
            Ok(browser.get("/").ok().filter(|reply| reply.status == 200))
        })?;
        assert_eq!(reply.text(), STRANGER.to_string(), "{version}");
    }
    Ok(())
}
