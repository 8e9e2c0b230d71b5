//! The way of a request: who is served, what passes with it, and what doesn't.

use std::{net::SocketAddr, process::Command};

use anyhow::Context;
use serde_json::json;
use weir_lab::{
    lab::{
        SITE,
        addresses::{EDGE, HTTP, HTTPS, HTTPS_V6, STRANGER, VISITOR},
        client::{Browser, body, nothing},
        stand::{PATIENCE, Stand},
        wait, weir,
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

#[test]
fn a_listed_visitor_is_served() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up()?;
    for to in [HTTPS, HTTPS_V6] {
        for (alpn, version) in [("h2", hyper::Version::HTTP_2), ("http/1.1", hyper::Version::HTTP_11)] {
            let browser = Browser::new(&stand.lab, &stand.lab.visitor, to, &[alpn])?;
            let reply = browser.get("/")?;
            assert_eq!((reply.status.as_u16(), reply.version), (200, version), "{to} {alpn}");
            assert_eq!(reply.text(), format!("hello from {}\n", reply.upstream().unwrap_or_default()));
        }
    }
    Ok(())
}

#[test]
fn http2_and_http1_are_served_by_curl() -> Done {
    needs!(Need::Root, Need::Weir, Need::Program("curl"));
    let stand = Stand::up()?;
    for (flag, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let mut curl = stand.lab.visitor.command("curl")?;
        curl.args(["-sS", "-m", "5", flag, "-o", "/dev/null", "-w", "%{http_version} %{http_code}"])
            .arg("--cacert")
            .arg(stand.lab.ca())
            .args(["--resolve", &format!("{SITE}:443:{EDGE}"), &format!("https://{SITE}/")]);
        let ran = weir::finish(curl)?;
        assert_eq!((ran.stdout.as_str(), ran.code), (format!("{version} 200").as_str(), 0), "{}", ran.stderr);
    }
    Ok(())
}

#[test]
fn hop_by_hop_headers_do_not_pass() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up()?;
    let request = stand
        .visitor
        .request("GET", "/headers")
        .header("connection", "close, x-secret")
        .header("x-secret", "for the edge alone")
        .header("keep-alive", "timeout=5")
        .header("te", "gzip")
        .header("proxy-authorization", "Basic YTpi")
        .header("x-public", "for the server");
    let seen = stand.visitor.send(request.body(nothing())?)?.json()?;
    for gone in ["connection", "x-secret", "keep-alive", "te", "proxy-authorization"] {
        assert_eq!(seen.get(gone), None, "{gone} went through: {seen}");
    }
    assert_eq!(seen["x-public"], json!(["for the server"]));
    assert_eq!(seen["host"], json!([SITE]));

    let reply = stand.visitor.get("/hop")?;
    for gone in ["x-private", "keep-alive", "proxy-authenticate"] {
        assert_eq!(reply.header(gone), None, "{gone} came back");
    }
    assert_eq!(reply.header("x-public"), Some("for everybody"));
    Ok(())
}

#[test]
fn client_address_is_taken_only_from_trusted_peers() -> Done {
    needs!(Need::Root, Need::Weir);
    // A second entrypoint, open to anybody, that trusts the same peers.
    let stand = Stand::up_with(|_, toml| {
        toml + &format!(
            "\n[entrypoint.http]\nbind = [\"{HTTP}\"]\n\
             client_ip = {{ header = \"CF-Connecting-IP\", trust = [\"cloudflare\"] }}\n"
        )
    })?;
    let claimed = "198.51.100.77";
    let client_seen = |browser: &Browser| -> anyhow::Result<serde_json::Value> {
        let request = browser
            .request("GET", "/headers")
            .header("CF-Connecting-IP", claimed)
            .header("X-Forwarded-For", "10.9.9.9")
            .body(nothing())?;
        browser.send(request)?.json()
    };
    let seen = client_seen(&stand.visitor)?;
    assert_eq!(seen["x-real-ip"], json!([claimed]));
    assert_eq!(seen["x-forwarded-for"], json!([format!("10.9.9.9, {VISITOR}")]));

    let seen = client_seen(&Browser::plain(&stand.lab.stranger, HTTP)?)?;
    assert_eq!(seen["x-real-ip"], json!([STRANGER.to_string()]));
    assert_eq!(seen["x-forwarded-for"], json!([STRANGER.to_string()]));
    assert_eq!(seen.get("cf-connecting-ip"), None);

    let log = wait::until("both requests are in the access log", PATIENCE, || {
        let log = std::fs::read_to_string(stand.lab.folder().join("access.log")).unwrap_or_default();
        Ok((log.matches("/headers").count() == 2).then_some(log))
    })?;
    for client in [claimed, &STRANGER.to_string()] {
        assert!(log.contains(&format!("\"client_ip\":\"{client}\"")), "{client} isn't in the log:\n{log}");
    }
    Ok(())
}

#[test]
fn the_request_id_is_the_same_everywhere() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up()?;
    let reply = stand.visitor.get("/headers")?;
    let id = reply.header("x-request-id").context("no request id")?.to_owned();
    assert_eq!(reply.json()?["x-request-id"], json!([id]));
    wait::until_true("the id is in the access log", PATIENCE, || {
        Ok(std::fs::read_to_string(stand.lab.folder().join("access.log")).unwrap_or_default().contains(&id))
    })?;
    let theirs = stand.visitor.request("GET", "/headers").header("x-request-id", "made-by-the-cdn");
    let reply = stand.visitor.send(theirs.body(nothing())?)?;
    assert_eq!(reply.header("x-request-id"), Some("made-by-the-cdn"), "a trusted peer's id is kept");
    Ok(())
}

#[test]
fn routes_lead_by_host_and_path() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up_with(|_, toml| {
        toml + &format!(
            "\n[service.only-two]\nservers = [\"10.0.0.12:8080\"]\n\
             \n[[route]]\nhost = \"{SITE}\"\npath = \"/two\"\nservice = \"only-two\"\n\
             \n[[route]]\nhost = \"*.{SITE}\"\nservice = \"only-two\"\n"
        )
    })?;
    for _ in 0..4 {
        assert_eq!(stand.visitor.get("/two/and/below")?.upstream(), Some("two"));
        assert_eq!(stand.visitor.clone().with_host(&format!("www.{SITE}")).get("/")?.upstream(), Some("two"));
    }
    let both: std::collections::BTreeSet<_> = (0..8)
        .map(|_| Ok(stand.visitor.get("/twofold")?.upstream().unwrap_or_default().to_owned()))
        .collect::<anyhow::Result<_>>()?;
    assert_eq!(both.len(), 2, "a prefix is of whole segments: {both:?}");
    let mut elsewhere = stand.visitor.request("GET", "/").body(nothing())?;
    elsewhere.headers_mut().insert("host", "elsewhere.example".parse()?);
    assert_eq!(stand.visitor.send(elsewhere)?.status, 421, "the connection was made for the site");
    Ok(())
}

#[test]
fn servers_are_spoken_to_over_tls() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up_with(|lab, toml| {
        toml.replace("10.0.0.11:8080\", \"10.0.0.12:8080", "10.0.0.11:8443\", \"10.0.0.12:8443").replace(
            "[service.app]\n",
            &format!(
                "[service.app]\ntls = {{ server_name = \"app.internal\", ca = \"{}\" }}\n",
                lab.ca().display()
            ),
        )
    })?;
    let echo = stand.visitor.request("POST", "/echo").body(body("through two layers of TLS"))?;
    assert_eq!(stand.visitor.send(echo)?.text(), "through two layers of TLS");
    Ok(())
}

#[test]
fn a_status_of_the_server_is_passed_on() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up()?;
    for status in [204, 304, 404, 500, 503] {
        let reply = stand.visitor.get(&format!("/status/{status}"))?;
        assert_eq!((reply.status.as_u16(), reply.upstream().is_some()), (status, true));
    }
    Ok(())
}

#[test]
fn every_request_is_in_the_access_log_once_also_over_a_rotation() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up()?;
    let log = stand.lab.folder().join("access.log");
    let rotated = stand.lab.folder().join("access.log.1");
    let lines = || -> usize {
        let text = [&rotated, &log].map(|file| std::fs::read_to_string(file).unwrap_or_default()).concat();
        let of_ours = |line: &&str| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
            line["path"].as_str().is_some_and(|path| path.starts_with("/counted/")) && line["status"] == 200
        };
        text.lines().filter(of_ours).count()
    };
    for number in 0..40 {
        stand.visitor.get(&format!("/counted/{number}"))?;
        if number == 20 {
            std::fs::rename(&log, &rotated)?;
            stand.weir.signal(nix::sys::signal::Signal::SIGUSR1)?;
            wait::until_true("the log is opened again", PATIENCE, || Ok(log.exists()))?;
        }
    }
    wait::until_true("all requests are in the log", PATIENCE, || Ok(lines() >= 40))?;
    assert_eq!(lines(), 40);
    Ok(())
}

#[test]
fn a_head_without_end_is_refused() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up()?;
    let request = stand.visitor.request("GET", "/").header("x-long", "x".repeat(900_000));
    let refused = stand.visitor.send(request.body(nothing())?);
    assert!(refused.as_ref().map_or(true, |reply| reply.status == 431), "{refused:?}");
    assert_eq!(stand.visitor.get("/")?.status, 200);
    Ok(())
}

#[test]
fn without_a_file_it_starts_with_a_demonstration() -> Done {
    needs!(Need::Root, Need::Weir);
    if std::path::Path::new("/etc/weir/weir.toml").exists() {
        needs::skipped(
            "without_a_file_it_starts_with_a_demonstration",
            "this machine has an /etc/weir/weir.toml",
        );
        return Ok(());
    }
    let lab = weir_lab::Lab::build()?;
    // With a /run of its own: the default's admin socket is there, and the host's is not this test's.
    let mut command: Command = lab.edge.command("unshare")?;
    command.args(["--mount", "sh", "-c", "mount -t tmpfs none /run && exec \"$0\" run"]);
    command.arg(weir::program()?).env("NO_COLOR", "1");
    let process = weir_lab::lab::process::Process::start("weir", command, &lab.folder().join("weir.log"))?;
    let admin = Browser::plain(&lab.edge, weir::ADMIN)?;
    wait::until_true("it answers /ping", PATIENCE, || {
        Ok(admin.get("/ping").is_ok_and(|reply| reply.status == 200))
    })
    .context(process.log_text())?;
    // It prints what it listens on: that must be true.
    let log = process.log_text();
    assert!(log.contains("unix:/run/weir/admin.sock") && !log.contains("can't be made"), "{log}");
    let address: SocketAddr = log
        .split(|character: char| character.is_whitespace() || "\"',()".contains(character))
        .filter_map(|word| word.trim_start_matches("http://").trim_end_matches('/').parse().ok())
        .find(|address: &SocketAddr| *address != weir::ADMIN)
        .with_context(|| format!("it doesn't say where it listens:\n{log}"))?;
    let reply = Browser::plain(&lab.edge, address)?.with_host(&address.to_string()).get("/")?;
    assert_eq!(reply.status, 200);
    Ok(())
}
