//! Each kind of middleware, with real requests through a whole edge.

use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use weir_lab::{
    lab::{
        SITE,
        addresses::{HTTP, STRANGER, VISITOR},
        client::{Browser, Reply, body, nothing},
        load,
        stand::{PATIENCE, Stand},
        wait, weir,
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

/// An edge whose route has this chain, and an open entrypoint besides. It comes in by a reload: the lab's own way of
/// waiting for the servers would not get through every chain.
fn edge(middleware: &str, chain: &str) -> anyhow::Result<Stand> {
    let stand = Stand::up()?;
    let toml = weir::standard(&stand.lab);
    let toml = toml.replace("service = \"app\"", &format!("service = \"app\"\nmiddleware = {chain}"));
    reconfigure(
        &stand,
        &(toml
            + &format!(
                "\n[entrypoint.http]\nbind = [\"{HTTP}\"]\n\n\
                 [service.auth]\nservers = [\"10.0.0.11:8080\"]\n\n\
                 [[route]]\nhost = \"auth.example\"\nservice = \"auth\"\n\n{middleware}\n"
            )),
    )?;
    Ok(stand)
}

/// Another configuration; it runs when this returns.
fn reconfigure(stand: &Stand, toml: &str) -> Done {
    let before = stand.weir.status()?["generation"].clone();
    stand.weir.rewrite_config(toml)?;
    let taken_over = wait::until_true("the new configuration runs", PATIENCE, || {
        Ok(stand.weir.status()?["generation"] != before)
    });
    taken_over.with_context(|| stand.weir.log_text())
}

fn get(browser: &Browser, path: &str, fields: &[(&str, &str)]) -> anyhow::Result<Reply> {
    let mut request = browser.request("GET", path);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    browser.send(request.body(nothing())?)
}

/// How often the status says that a middleware answered.
fn refused(stand: &Stand, reason: &str) -> anyhow::Result<u64> {
    let status = stand.weir.status()?;
    let counts = status["entrypoints"].as_array().context("no entrypoints")?.iter();
    Ok(counts.filter_map(|entrypoint| entrypoint["refused"][reason].as_u64()).sum())
}

/// Waits for a line of the access log that fits.
fn logged(stand: &Stand, fits: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    wait::until("the request is in the access log", PATIENCE, || {
        let log = std::fs::read_to_string(stand.lab.folder().join("access.log")).unwrap_or_default();
        Ok(log.lines().filter_map(|line| serde_json::from_str(line).ok()).find(|line| fits(line)))
    })
}

#[test]
fn headers_are_set_added_and_removed_both_ways() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = edge(
        "[middleware.h.headers.request]\nset = { X-Who = '{client_ip} asks {host} for {route}', Host = 'inner.example' }\n\
         remove = 'X-Secret'\n\
         [middleware.h.headers.response]\nset = { Strict-Transport-Security = 'max-age=1' }\nadd = { X-Id = '{request_id}' }\n\
         remove = 'X-Upstream'",
        "'h'",
    )?;
    let reply =
        get(&stand.visitor, "/headers", &[("x-secret", "1"), ("connection", "x-who"), ("x-who", "me")])?;
    let seen = reply.json()?;
    assert_eq!(seen["x-who"], json!([format!("{VISITOR} asks {SITE} for {SITE}")]), "{seen}");
    assert_eq!((&seen["host"], seen.get("x-secret")), (&json!(["inner.example"]), None));
    assert_eq!(reply.header("strict-transport-security"), Some("max-age=1"));
    assert_eq!((reply.header("x-upstream"), reply.header("x-id")), (None, reply.header("x-request-id")));
    Ok(())
}

#[test]
fn a_redirect_sends_elsewhere_and_lets_pass_what_is_there() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = edge(
        "[middleware.moved]\nredirect = { path = { regex = '/old/(.*)', to = '/new/$1' }, status = 301 }\n\
         [middleware.secure]\nredirect = { scheme = 'https' }",
        "['secure', 'moved', { headers = { response = { set = { X-Always = 'yes' } } } }]",
    )?;
    let plain = Browser::plain(&stand.lab.stranger, HTTP)?.with_host(SITE);
    let reply = plain.get("/x?y=1")?;
    assert_eq!(
        (reply.status.as_u16(), reply.header("location")),
        (308, Some(&*format!("https://{SITE}/x?y=1")))
    );
    assert_eq!(reply.header("x-always"), Some("yes"), "answers of Weir's own pass the chain too");
    let reply = stand.visitor.get("/old/a/b?c")?;
    assert_eq!(
        (reply.status.as_u16(), reply.header("location")),
        (301, Some(&*format!("https://{SITE}/new/a/b?c")))
    );
    assert_eq!(stand.visitor.get("/new/a/b")?.status, 200);
    assert_eq!(refused(&stand, "redirected")?, 2);
    Ok(())
}

#[test]
fn a_route_that_only_redirects_needs_no_service() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = edge(
        &format!(
            "[[route]]\nhost = 'old.example'\nmiddleware = [{{ redirect = {{ host = '{SITE}', status = 302 }} }}]"
        ),
        "[]",
    )?;
    let reply = Browser::plain(&stand.lab.stranger, HTTP)?.with_host("old.example").get("/a?b")?;
    // The certificate of the HTTPS entrypoint has no such name; the plain one needs none.
    assert_eq!(
        (reply.status.as_u16(), reply.header("location")),
        (302, Some(&*format!("http://{SITE}/a?b")))
    );
    Ok(())
}

#[test]
fn the_path_is_rewritten_before_the_server_sees_it() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = edge(
        "[middleware.rename]\nreplace_path = { regex = '/v1/(status)/([0-9]+)', to = '/$1/$2' }",
        "[{ strip_path = ['/api', '/web'] }, { add_path = '/v1' }, 'rename']",
    )?;
    assert_eq!(stand.visitor.get("/api/status/418?q=1")?.status, 418);
    assert_eq!(stand.visitor.get("/web/status/410")?.status, 410);
    assert_eq!(stand.visitor.get("/status/409")?.status, 409);
    // Named in another form, it is the same path.
    assert_eq!(stand.visitor.get("/%61pi/status/417")?.status, 417);
    let line = logged(&stand, |line| line["status"] == 418)?;
    assert_eq!(line["path"], "/api/status/418?q=1", "the log has what was asked for");
    Ok(())
}

#[test]
fn clients_are_let_in_by_their_address() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = edge(
        &format!(
            "[middleware.known]\nclients = {{ allow = ['cloudflare', '{STRANGER}'], deny = ['{VISITOR}'] }}"
        ),
        "'known'",
    )?;
    let reply = stand.visitor.get("/")?;
    assert_eq!((reply.status.as_u16(), reply.upstream()), (403, None));
    assert_eq!(Browser::plain(&stand.lab.stranger, HTTP)?.with_host(SITE).get("/")?.status, 200);
    let line = logged(&stand, |line| line["status"] == 403)?;
    assert_eq!((&line["refused"], &line["flags"]), (&json!("client_denied"), &json!(["refused"])));
    assert_eq!(refused(&stand, "client_denied")?, 1);
    Ok(())
}

#[test]
fn users_need_their_password() -> Done {
    needs!(Need::Root, Need::Weir);
    let line = |user: &str, password: &str| -> anyhow::Result<String> {
        use std::io::Write as _;
        let mut hashing = std::process::Command::new(weir::program()?)
            .arg("hash-password")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()?;
        hashing.stdin.take().context("no stdin")?.write_all(format!("{password}\n").as_bytes())?;
        let output = hashing.wait_with_output()?;
        anyhow::ensure!(output.status.success(), "{output:?}");
        Ok(format!("{user}:{}", String::from_utf8(output.stdout)?.trim()))
    };
    let (alice, bob) = (line("alice", "open sesame")?, line("bob", "s3cret")?);
    let stand = edge(
        &format!(
            "[middleware.users]\nbasic_auth = {{ users = ['{alice}', '{bob}'], realm = 'the lab', user_header = 'X-User' }}"
        ),
        "'users'",
    )?;
    let reply = stand.visitor.get("/")?;
    assert_eq!(reply.status, 401);
    assert_eq!(reply.header("www-authenticate"), Some("Basic realm=\"the lab\", charset=\"UTF-8\""));
    // alice:open sesame, twice: once checked, once remembered.
    for _ in 0..2 {
        let given = [("authorization", "Basic YWxpY2U6b3BlbiBzZXNhbWU="), ("x-user", "root")];
        let seen = get(&stand.visitor, "/headers", &given)?.json()?;
        assert_eq!((&seen["x-user"], seen.get("authorization")), (&json!(["alice"]), None));
    }
    // alice:s3cret, bob:open sesame, nobody:x
    for wrong in ["Basic YWxpY2U6czNjcmV0", "Basic Ym9iOm9wZW4gc2VzYW1l", "Basic bm9ib2R5Ong=", "Bearer x"] {
        assert_eq!(get(&stand.visitor, "/", &[("authorization", wrong)])?.status, 401, "{wrong}");
    }
    assert_eq!(refused(&stand, "unauthorized")?, 5);
    Ok(())
}

#[test]
fn another_service_decides_and_without_it_nobody_passes() -> Done {
    needs!(Need::Root, Need::Weir);
    let mut stand = edge(
        "[middleware.ask]\nforward_auth = { service = 'auth', path = '/auth', copy = ['X-User', 'X-Asked', 'X-Role'] }",
        "'ask'",
    )?;
    let reply =
        get(&stand.visitor, "/headers?a=1", &[("x-pass", "yes"), ("x-role", "admin"), ("x-user", "root")])?;
    let seen = reply.json()?;
    assert_eq!((&seen["x-user"], &seen["x-asked"]), (&json!(["alice"]), &json!(["/headers?a=1"])));
    assert_eq!(seen.get("x-role"), None, "what the service doesn't say isn't true");
    let reply = stand.visitor.get("/headers")?;
    assert_eq!((reply.status.as_u16(), reply.header("location")), (302, Some("/login")));
    let echo = stand.visitor.request("POST", "/echo").header("x-pass", "yes").body(body("kept"))?;
    assert_eq!(stand.visitor.send(echo)?.text(), "kept", "the body goes to the server, not to the service");

    stand.one.kill()?;
    assert_eq!(get(&stand.visitor, "/", &[("x-pass", "yes")])?.status, 503);
    assert_eq!((refused(&stand, "auth_denied")?, refused(&stand, "auth_unavailable")?), (1, 1));
    Ok(())
}

#[test]
fn a_rate_is_kept_over_a_reload_and_by_client() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = edge("[middleware.slow]\nrate_limit = { rate = '2/h', burst = 3 }", "'slow'")?;
    let statuses = |browser: &Browser, requests: usize| -> anyhow::Result<Vec<u16>> {
        (0..requests).map(|_| Ok(browser.get("/")?.status.as_u16())).collect()
    };
    assert_eq!(statuses(&stand.visitor, 4)?, [200, 200, 200, 429]);
    let reply = stand.visitor.get("/")?;
    let wait: u64 = reply.header("retry-after").context("no Retry-After")?.parse()?;
    assert!((1700..=1800).contains(&wait), "{wait}");
    let other = Browser::plain(&stand.lab.stranger, HTTP)?.with_host(SITE);
    assert_eq!(statuses(&other, 1)?, [200], "others have a rate of their own");

    let config = std::fs::read_to_string(stand.lab.folder().join("weir.toml"))?;
    reconfigure(&stand, &format!("{config}\n[shutdown]\ngrace = '7s'\n"))?;
    assert_eq!(statuses(&stand.visitor, 1)?, [429], "a reload gives nobody a new burst");
    assert_eq!(refused(&stand, "rate_limited")?, 3);
    Ok(())
}

#[test]
fn so_many_at_once_and_no_more() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = edge("[middleware.few]\nconcurrency = 1", "'few'")?;
    let slow = Browser::of_site(&stand.lab, &stand.lab.visitor)?;
    // The requests that look whether there is a place take one too: where this one is sent away, it comes again.
    let first = std::thread::spawn(move || {
        let mut replies = (0..100).map(|_| slow.get("/slow?ms=3000"));
        replies
            .find(|reply| reply.as_ref().map_or(true, |reply| reply.status != 503))
            .context("no place in 100 tries")?
    });
    wait::until_true("there is no place left", PATIENCE, || {
        let reply = stand.visitor.get("/")?;
        Ok(reply.status == 503 && reply.header("retry-after") == Some("1"))
    })?;
    let first = first.join().map_err(|_| anyhow::anyhow!("the first request panicked"))??;
    assert_eq!(first.status, 200);
    wait::until_true("the place is free again", PATIENCE, || Ok(stand.visitor.get("/")?.status == 200))?;
    assert!(refused(&stand, "busy")? >= 1);
    Ok(())
}

#[test]
fn a_body_that_is_too_large_is_refused_however_it_comes() -> Done {
    needs!(Need::Root, Need::Weir);
    for chain in ["[{ body_limit = '10KiB' }]", "[{ buffer = '10KiB' }]"] {
        let stand = edge("", chain)?;
        let post = |bytes: usize| -> anyhow::Result<Reply> {
            stand.visitor.send(stand.visitor.request("POST", "/count").body(body(vec![b'x'; bytes]))?)
        };
        assert_eq!((post(10 << 10)?.text(), post(0)?.text()), ("10240".into(), "0".into()), "{chain}");
        assert_eq!(post((10 << 10) + 1)?.status, 413, "{chain}");
        // Without a length, with curl, which reads the answer also while it sends.
        let mut curl = stand.lab.visitor.command("curl")?;
        let data = stand.lab.folder().join("data");
        std::fs::write(&data, vec![b'x'; 300 << 10])?;
        curl.args(["-sS", "-m", "10", "--http1.1", "-o", "/dev/null", "-w", "%{http_code}"])
            .args(["-H", "Transfer-Encoding: chunked", "-H", "Expect:", "--data-binary"])
            .arg(format!("@{}", data.display()))
            .arg("--cacert")
            .arg(stand.lab.ca())
            .args(["--resolve", &format!("{SITE}:443:198.51.100.1"), &format!("https://{SITE}/count")]);
        let ran = weir::finish(curl)?;
        assert_eq!(ran.stdout, "413", "{chain}: {}", ran.stderr);
        assert_eq!(refused(&stand, "too_large")?, 2, "{chain}");
    }
    Ok(())
}

#[test]
fn a_route_has_its_own_patience() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = edge("[middleware.soon]\ntimeouts = { first_byte = '300ms', total = '1s' }", "'soon'")?;
    let reply = stand.visitor.get("/slow?ms=5000")?;
    assert!(reply.is_maintenance() && reply.took < Duration::from_secs(2), "{reply:?}");
    // It begins in time, and goes on for ten seconds.
    let broken = stand.visitor.get("/drip?n=100&ms=100");
    assert!(broken.is_err(), "{broken:?}");
    let line = logged(&stand, |line| line["path"] == "/drip?n=100&ms=100")?;
    assert_eq!(line["refused"], "timed_out");
    assert!(line["duration_us"].as_u64().is_some_and(|took| (900_000..3_000_000).contains(&took)), "{line}");
    assert_eq!(stand.visitor.get("/")?.status, 200);
    Ok(())
}

#[test]
fn responses_are_compressed_for_those_who_ask() -> Done {
    needs!(Need::Root, Need::Weir, Need::Program("curl"));
    let stand = edge("[middleware.small]\ncompress = {}", "'small'")?;
    let plain = stand.visitor.get("/text?n=50000")?;
    assert_eq!((plain.header("content-encoding"), plain.header("vary")), (None, Some("Accept-Encoding")));
    for (accepts, coding) in [("gzip", "gzip"), ("br, gzip;q=0.5", "br"), ("gzip, br, zstd", "zstd")] {
        let reply = get(&stand.visitor, "/text?n=50000", &[("accept-encoding", accepts)])?;
        assert_eq!(reply.header("content-encoding"), Some(coding));
        assert_eq!((reply.header("etag"), reply.header("content-length")), (Some("W/\"strong\""), None));
        assert!(reply.body.len() < 5000, "{coding}: {} bytes", reply.body.len());
    }
    let line =
        logged(&stand, |line| line["path"] == "/text?n=50000" && line["bytes_out"].as_u64() < Some(5000))?;
    assert_eq!((&line["status"], &line["flags"]), (&json!(200), &json!([])));
    for (path, why) in
        [("/text?n=100", "small"), ("/bytes?n=5000", "of no known type"), ("/status/204", "empty")]
    {
        let reply = get(&stand.visitor, path, &[("accept-encoding", "gzip")])?;
        assert_eq!(reply.header("content-encoding"), None, "{why}");
    }
    // Unpacked by somebody else's code.
    let mut curl = stand.lab.visitor.command("curl")?;
    curl.args(["-sS", "-m", "10", "--compressed"]).arg("--cacert").arg(stand.lab.ca()).args([
        "--resolve",
        &format!("{SITE}:443:198.51.100.1"),
        &format!("https://{SITE}/text?n=50000"),
    ]);
    assert_eq!(weir::finish(curl)?.stdout, plain.text());
    Ok(())
}

#[test]
fn events_arrive_when_they_are_sent_also_compressed() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = edge("[middleware.small]\ncompress = { min_size = '0B' }", "'small'")?;
    let request = stand.visitor.request("GET", "/events?n=40&ms=100").header("accept-encoding", "gzip");
    let first = stand.visitor.first_bytes(request.body(nothing())?)?;
    assert!(first.took < Duration::from_secs(2), "the first of four seconds of events took {:?}", first.took);
    assert_eq!(first.header("content-encoding"), Some("gzip"));
    assert!(!first.body.is_empty());
    Ok(())
}

#[test]
fn a_chain_costs_no_request_its_answer() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = edge(
        "[middleware.h]\nheaders = { response = { set = { X-A = '1' } } }\n\
         [middleware.many]\nrate_limit = { rate = '1000000/s' }\n[middleware.room]\nconcurrency = 1000\n\
         [middleware.z]\ncompress = {}\n[middleware.t]\ntimeouts = { total = '20s' }",
        "['h', 'many', 'room', 'z', 't', { body_limit = '1MiB' }]",
    )?;
    let load = stand.load("/text?n=3000", 200)?;
    let config = std::fs::read_to_string(stand.lab.folder().join("weir.toml"))?;
    for number in 0..5 {
        reconfigure(&stand, &config.replace("X-A = '1'", &format!("X-A = '{}'", number + 2)))?;
    }
    load::all_served(&load.stop()?)
}
