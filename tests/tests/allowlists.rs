//! Lists that keep themselves current, and what they do not believe.

use std::{
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::Value;
use weir_lab::{
    lab::{
        Lab,
        addresses::{HTTPS, STRANGER},
        client::Browser,
        knock::{knock, until_connected, until_silent},
        lists::{ListServer, Says},
        load,
        process::Process,
        stand::{PATIENCE, Stand},
        wait,
        weir::{self, Ran, Weir},
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

/// Shorter than the second after which a SYN would be sent again.
const KNOCK: Duration = Duration::from_millis(400);

const OTHERS: &str = "192.0.2.0/24\n198.18.0.0/15\n2001:db8:1::/48\n";

fn with_the_stranger() -> String {
    format!("{OTHERS}{STRANGER}/32\n")
}

/// The standard configuration, and a list `cdn` from the lab's list server.
fn fetching(lab: &Lab, toml: &str, keys: &str) -> String {
    let ca = lab.ca();
    toml.replace("allow = [\"cloudflare\"]", "allow = [\"cloudflare\", \"cdn\"]")
        + &format!(
            "\n[allowlist.cdn]\nurl = \"https://198.51.100.254:8443/list\"\nca = \"{}\"\n{keys}\n",
            ca.display()
        )
}

/// With a list server that says this from the start. (It must live as long as the lab.)
fn stand(says: Says, keys: &str) -> anyhow::Result<(Stand, ListServer)> {
    let mut server = None;
    let stand = Stand::up_with(|lab, toml| {
        server = ListServer::start(lab, says).ok();
        fetching(lab, &toml, keys)
    })?;
    let server = server.ok_or_else(|| anyhow::anyhow!("the list server did not start"))?;
    Ok((stand, server))
}

fn list(weir: &Weir, name: &str) -> anyhow::Result<Value> {
    let lists = weir.admin().get("/api/v1/allowlists")?.json()?;
    let list = lists["allowlists"].as_array().and_then(|all| all.iter().find(|list| list["name"] == name));
    Ok(list.cloned().unwrap_or_default())
}

fn until_in_force(weir: &Weir, what: &str) -> Done {
    wait::until_true(&format!("the list is {what}"), PATIENCE, || {
        Ok(list(weir, "cdn")?["fetched"]["in_force"] == what)
    })
}

fn refresh(stand: &Stand, arguments: &[&str]) -> anyhow::Result<Ran> {
    weir::run(&stand.lab, &[&["allowlist", "refresh", "cdn"], arguments].concat())
}

fn stranger_is_out(lab: &Lab) -> anyhow::Result<bool> {
    Ok(knock(&lab.stranger, HTTPS, 5, KNOCK)?.silent == 5)
}

#[test]
fn a_refreshed_list_lets_a_new_source_in_and_shuts_a_removed_one_out() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let (stand, server) = stand(Says::List(OTHERS.to_owned()), "refresh = \"1s\"")?;
    let load = stand.load("/", 200)?;
    until_in_force(&stand.weir, "fetched")?;
    assert!(stranger_is_out(&stand.lab)?);

    server.now_says(Says::List(with_the_stranger()));
    until_connected(&stand.lab.stranger, HTTPS, PATIENCE)?;
    let stranger = Browser::of_site(&stand.lab, &stand.lab.stranger)?;
    assert_eq!(stranger.get("/")?.status, 200);

    server.now_says(Says::List(OTHERS.to_owned()));
    until_silent(&stand.lab.stranger, HTTPS, PATIENCE)?;
    load::all_served(&load.stop()?)?;
    wait::until_true("the log tells the last change", PATIENCE, || {
        Ok(stand.weir.log_text().contains("0 added, 1 removed, 3 now -203.0.113.9/32"))
    })?;
    assert!(stand.weir.log_text().contains("1 added, 0 removed, 4 now +203.0.113.9/32"));
    // The first configuration, and three changes.
    assert_eq!(stand.weir.status()?["generation"], 4);
    Ok(())
}

#[test]
fn at_accept_a_refreshed_list_holds_as_it_does_in_the_kernel() -> Done {
    needs!(Need::Root, Need::Weir);
    let mut server = None;
    let stand = Stand::up_with(|lab, toml| {
        server = ListServer::start(lab, Says::List(with_the_stranger())).ok();
        fetching(lab, &toml, "refresh = \"1s\"").replace("[kernel]", "[kernel]\nmode = \"off\"")
    })?;
    let stranger = Browser::of_site(&stand.lab, &stand.lab.stranger)?.with_patience(Duration::from_secs(2));
    wait::until_true("the stranger is served", PATIENCE, || {
        Ok(stranger.get("/").is_ok_and(|reply| reply.status == 200))
    })?;
    if let Some(server) = &server {
        server.now_says(Says::List(OTHERS.to_owned()));
    }
    wait::until_true("the stranger is turned away", PATIENCE, || Ok(stranger.get("/").is_err()))?;
    assert_eq!(stand.visitor.get("/")?.status, 200);
    Ok(())
}

#[test]
fn a_list_that_is_the_same_is_not_sent_again_and_changes_nothing() -> Done {
    needs!(Need::Root, Need::Weir);
    let (stand, server) = stand(Says::List(OTHERS.to_owned()), "refresh = \"1s\"")?;
    until_in_force(&stand.weir, "fetched")?;
    let generation = stand.weir.status()?["generation"].clone();
    let conditional = || server.requests().iter().filter(|head| head.contains("if-none-match:")).count();
    wait::until_true("it is asked for twice more", PATIENCE, || Ok(conditional() >= 2))?;
    let list = list(&stand.weir, "cdn")?;
    assert_eq!(
        (&list["fetched"]["last_error"], &list["fetched"]["failures"]),
        (&Value::Null, &Value::from(0))
    );
    assert_eq!((&list["prefixes_v4"], &list["prefixes_v6"]), (&Value::from(2), &Value::from(1)));
    assert!(list["fetched"]["age_seconds"].as_u64().is_some_and(|age| age <= 5), "{list}");
    assert!(list["fetched"]["etags"][0].is_string(), "{list}");
    assert_eq!(list["entrypoints"][0], "https");
    assert_eq!(stand.weir.status()?["generation"], generation);

    // What was fetched is no difference between the file and what runs.
    let ran = weir::run(&stand.lab, &["diff", &stand.weir.config().to_string_lossy()])?;
    assert_eq!(ran.stdout, "no change to what runs\n", "{ran:?}");
    Ok(())
}

#[test]
fn what_is_doubtful_changes_nothing_and_is_told() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let (stand, server) = stand(Says::List(with_the_stranger()), "refresh = \"1h\"\ntimeout = \"700ms\"")?;
    until_connected(&stand.lab.stranger, HTTPS, PATIENCE)?;
    until_in_force(&stand.weir, "fetched")?;
    let generation = stand.weir.status()?["generation"].clone();
    let answer = |head: &str, body: &str| Says::Bytes(format!("HTTP/1.1 {head}\r\n\r\n{body}"));
    let whole = with_the_stranger();
    for (what, says, told) in [
        ("a bad line", Says::List(format!("{OTHERS}nonsense\n")), "line 4: `nonsense` is not a prefix"),
        ("a page of HTML", Says::List("<!doctype html>".into()), "line 1: `<!doctype html>` is not a prefix"),
        ("an empty list", Says::List("# nothing\n".into()), "it is empty"),
        ("a shrunken list", Says::List("192.0.2.0/24\n".into()), "it has 1 IPv4 prefixes, fewer than 50 %"),
        ("one without IPv6", Says::List("192.0.2.0/24\n10.0.0.0/8\n".into()), "it has 0 IPv6 prefixes"),
        ("a list of all", Says::List(format!("{whole}0.0.0.0/0\n")), "it holds 0.0.0.0/0"),
        ("an error", answer("500 Oops\r\nContent-Length: 0", ""), "the server answered 500"),
        ("half a list", answer("200 OK\r\nContent-Length: 900", &whole), "the server broke off"),
        ("a list without an end", answer("200 OK", &whole), "neither a length nor chunks"),
        (
            "a downgrade",
            answer("302 Found\r\nLocation: http://198.51.100.254/\r\nContent-Length: 0", ""),
            "http://",
        ),
        ("silence", Says::Nothing, "took longer than 700ms"),
    ] {
        server.now_says(says);
        let ran = refresh(&stand, &[])?;
        assert_eq!(ran.code, 1, "{what}: {ran:?}");
        assert!(ran.stderr.contains(told), "{what}: {ran:?}");
        let error = list(&stand.weir, "cdn")?["fetched"]["last_error"].clone();
        assert!(error.as_str().is_some_and(|error| error.contains(told)), "{what}: {error}");
        assert_eq!(knock(&stand.lab.stranger, HTTPS, 3, KNOCK)?.connected, 3, "after {what}");
        assert_eq!(stand.weir.status()?["generation"], generation, "after {what}");
    }
    let shown = weir::run(&stand.lab, &["allowlist", "show", "cdn"])?.stdout;
    assert!(shown.contains("LAST ERROR") && shown.contains("took longer than 700ms"), "{shown}");

    server.now_says(Says::List(whole));
    let ran = refresh(&stand, &[])?;
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "cdn: unchanged\n"), "{ran:?}");
    assert_eq!(list(&stand.weir, "cdn")?["fetched"]["last_error"], Value::Null);
    Ok(())
}

#[test]
fn a_server_without_a_trusted_certificate_is_not_asked() -> Done {
    needs!(Need::Root, Need::Weir);
    let mut server = None;
    let stand = Stand::up_with(|lab, toml| {
        server = ListServer::start(lab, Says::List(with_the_stranger())).ok();
        let ca = format!("ca = \"{}\"\n", lab.ca().display());
        fetching(lab, &toml, "refresh = \"1h\"").replace(&ca, "")
    })?;
    wait::until_true("the fetch has failed", PATIENCE, || {
        let error = list(&stand.weir, "cdn")?["fetched"]["last_error"].clone();
        Ok(error.as_str().is_some_and(|error| error.contains("no TLS")))
    })?;
    assert!(server.is_some_and(|server| server.requests().is_empty()));
    assert_eq!(list(&stand.weir, "cdn")?["fetched"]["in_force"], "nothing");
    Ok(())
}

#[test]
fn an_operator_may_take_a_shrunken_list() -> Done {
    needs!(Need::Root, Need::Weir);
    let (stand, server) = stand(Says::List(with_the_stranger()), "refresh = \"1h\"")?;
    until_in_force(&stand.weir, "fetched")?;
    server.now_says(Says::List("192.0.2.0/24\n".to_owned()));
    assert_eq!(refresh(&stand, &[])?.code, 1);
    let ran = refresh(&stand, &["--accept-shrunken"])?;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.starts_with("cdn: 0 added, 3 removed, 1 now"), "{ran:?}");
    let shown = weir::run(&stand.lab, &["allowlist", "show", "cdn", "--prefixes"])?;
    assert_eq!(shown.stdout, "192.0.2.0/24\n");
    server.now_says(Says::List(String::new()));
    assert_eq!(refresh(&stand, &["--accept-shrunken"])?.code, 1, "an empty list is never taken");
    Ok(())
}

#[test]
fn a_start_without_a_network_uses_what_was_kept() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let (mut stand, server) = stand(Says::List(with_the_stranger()), "refresh = \"1h\"\ntimeout = \"60s\"")?;
    let kept = stand.lab.folder().join("state/allowlists/cdn.json");
    wait::until_true("the list is kept", PATIENCE, || Ok(kept.is_file()))?;
    assert!(stand.weir.terminate()?.success());
    // What the gate still holds must not be what lets the stranger in.
    assert_eq!(
        weir::run(&stand.lab, &["kernel", "unload", "--bpffs", &stand.lab.bpffs().display().to_string()])?
            .code,
        0
    );

    server.now_says(Says::Nothing);
    let toml = fetching(&stand.lab, &weir::standard(&stand.lab), "refresh = \"1h\"\ntimeout = \"60s\"");
    let begun = Instant::now();
    stand.weir = Weir::start(&stand.lab, &toml)?;
    assert!(begun.elapsed() < Duration::from_secs(5), "the start waited for the list's server");
    until_connected(&stand.lab.stranger, HTTPS, PATIENCE)?;
    let list = list(&stand.weir, "cdn")?;
    assert_eq!(
        (&list["fetched"]["in_force"], &list["prefixes_v4"]),
        (&"kept".into(), &Value::from(3)),
        "{list}"
    );
    Ok(())
}

#[test]
fn a_list_that_was_damaged_on_disk_is_not_used() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let (mut stand, server) = stand(Says::List(OTHERS.to_owned()), "refresh = \"1h\"")?;
    let kept = stand.lab.folder().join("state/allowlists/cdn.json");
    wait::until_true("the list is kept", PATIENCE, || Ok(kept.is_file()))?;
    assert!(stand.weir.terminate()?.success());

    // As if somebody had added the stranger by hand.
    let text = std::fs::read_to_string(&kept)?;
    std::fs::write(&kept, text.replace("192.0.2.0/24", &format!("{STRANGER}/32")))?;
    server.now_says(Says::Nothing);
    let toml = fetching(&stand.lab, &weir::standard(&stand.lab), "refresh = \"1h\"\ntimeout = \"300ms\"");
    stand.weir = Weir::start(&stand.lab, &toml)?;
    assert!(stranger_is_out(&stand.lab)?);
    let log = stand.weir.log_text();
    assert!(
        log.contains("state/allowlists/cdn.json is damaged or was edited (its checksum is wrong)"),
        "{log}"
    );
    assert_eq!(list(&stand.weir, "cdn")?["fetched"]["in_force"], "nothing");
    assert_eq!(stand.visitor.get("/")?.status, 200, "the other list holds");

    server.now_says(Says::List(with_the_stranger()));
    assert_eq!(refresh(&stand, &[])?.code, 0);
    until_connected(&stand.lab.stranger, HTTPS, PATIENCE)?;
    assert!(std::fs::read_to_string(&kept)?.contains("fnv1a64"), "and is kept again");
    Ok(())
}

#[test]
fn a_state_folder_that_cannot_be_written_is_a_warning() -> Done {
    needs!(Need::Root, Need::Weir);
    let mut server = None;
    let stand = Stand::up_with(|lab, toml| {
        server = ListServer::start(lab, Says::List(with_the_stranger())).ok();
        // A file is no folder, not even for root.
        let state = format!("dir = \"{}/state\"", lab.folder().display());
        fetching(lab, &toml, "").replace(&state, &format!("dir = \"{}/ca.pem\"", lab.folder().display()))
    })?;
    until_in_force(&stand.weir, "fetched")?;
    wait::until_true("the log warns of it", PATIENCE, || {
        Ok(stand.weir.log_text().lines().any(|line| {
            line.contains("WARN") && line.contains("ca.pem/allowlists/cdn.json can't be written")
        }))
    })?;
    assert_eq!(list(&stand.weir, "cdn")?["prefixes_v4"], 3);
    Ok(())
}

#[test]
fn a_reload_keeps_what_was_fetched() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let (stand, server) = stand(Says::List(with_the_stranger()), "refresh = \"1h\"")?;
    until_connected(&stand.lab.stranger, HTTPS, PATIENCE)?;
    server.now_says(Says::Nothing);
    // Another route, and another place for the list, which doesn't answer: its last good members stay meanwhile.
    let toml = fetching(&stand.lab, &weir::standard(&stand.lab), "refresh = \"1h\"")
        .replace("8443/list", "8443/elsewhere");
    stand.weir.rewrite_config(&toml)?;
    wait::until_true("the new place is asked", PATIENCE, || {
        Ok(server.requests().iter().any(|head| head.starts_with("get /elsewhere ")))
    })?;
    let heads = server.requests();
    assert!(heads.last().is_some_and(|head| !head.contains("if-none-match")), "the tag is the old place's");
    assert_eq!(knock(&stand.lab.stranger, HTTPS, 5, KNOCK)?.connected, 5);

    // What the new place has is not measured by what the old one had.
    server.now_says(Says::List("192.0.2.0/24\n".to_owned()));
    stand.weir.rewrite_config(&toml.replace("refresh = \"1h\"", "refresh = \"2h\""))?;
    until_silent(&stand.lab.stranger, HTTPS, PATIENCE)?;
    Ok(())
}

#[test]
fn the_built_in_list_is_fetched_from_a_mirror_and_gives_way_to_it() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let document = |v4: &[&str]| {
        let v6 = ["2400:cb00::/32", "2606:4700::/32", "2803:f800::/32", "2405:b500::/32"];
        serde_json::json!({ "success": true, "result": { "ipv4_cidrs": v4, "ipv6_cidrs": v6 } }).to_string()
    };
    let without_the_visitor = [
        "103.21.244.0/22",
        "103.22.200.0/22",
        "103.31.4.0/22",
        "141.101.64.0/18",
        "108.162.192.0/18",
        "190.93.240.0/20",
        "188.114.96.0/20",
        "197.234.240.0/22",
    ];
    let mut server = None;
    let stand = Stand::up_with(|lab, toml| {
        server = ListServer::start(lab, Says::List(document(&["173.245.48.0/20"]))).ok();
        let mirror = format!(
            "url = \"https://198.51.100.254:8443/list\"\nca = \"{}\"\nrefresh = \"1h\"\n\
             json = [\"/result/ipv4_cidrs\", \"/result/ipv6_cidrs\"]",
            lab.ca().display()
        );
        toml.replace("refresh = \"off\"", &mirror)
    })?;
    // One prefix where fifteen are built in: refused, and the built-in ones stay.
    wait::until_true("the first fetch is refused", PATIENCE, || {
        let error = list(&stand.weir, "cloudflare")?["fetched"]["last_error"].clone();
        Ok(error.as_str().is_some_and(|error| error.contains("it has 1 IPv4 prefixes")))
    })?;
    assert_eq!(list(&stand.weir, "cloudflare")?["fetched"]["in_force"], "built-in");
    assert_eq!(stand.visitor.get("/")?.status, 200);

    if let Some(server) = &server {
        server.now_says(Says::List(document(&without_the_visitor)));
    }
    let ran = weir::run(&stand.lab, &["allowlist", "refresh"])?;
    assert!(ran.stdout.starts_with("cloudflare: 0 added, 10 removed, 12 now"), "{ran:?}");
    assert_eq!(knock(&stand.lab.visitor, HTTPS, 5, KNOCK)?.silent, 5, "no longer on the list");
    Ok(())
}

/// The default: Cloudflare's own server is asked, and out of reach here.
#[test]
fn the_built_in_list_needs_no_network_to_start_to_serve_or_to_end() -> Done {
    needs!(Need::Root, Need::Weir);
    // A fetch may take 15 s; the lab waits for less until the daemon runs.
    let mut stand =
        Stand::up_with(|_, toml| toml.replace("[allowlist.cloudflare]\nrefresh = \"off\"\n", ""))?;
    assert_eq!(stand.visitor.get("/")?.status, 200);
    let list = list(&stand.weir, "cloudflare")?;
    assert_eq!((&list["prefixes_v4"], &list["prefixes_v6"]), (&Value::from(15), &Value::from(7)));
    assert_eq!(list["fetched"]["in_force"], "built-in");
    assert_eq!(list["fetched"]["urls"][0], "https://api.cloudflare.com/client/v4/ips");
    let ended = Instant::now();
    assert!(stand.weir.terminate()?.success());
    assert!(ended.elapsed() < Duration::from_secs(3), "it waited for the fetch");
    Ok(())
}

#[test]
fn a_list_that_would_lock_somebody_out_is_not_taken_unless_forced() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let (stand, server) = stand(Says::List(with_the_stranger()), "refresh = \"off\"")?;
    let lab = &stand.lab;
    assert_eq!(refresh(&stand, &[])?.code, 0);
    // Somebody works on the edge, and comes in by way of the entrypoint.
    let client = lab.stranger.run(|| TcpStream::connect_timeout(&HTTPS, PATIENCE))??;
    let session = format!("{STRANGER} {} {} {}", client.local_addr()?.port(), HTTPS.ip(), HTTPS.port());
    let mut shell = lab.edge.command("sleep")?;
    shell.arg("60").env("SSH_CONNECTION", &session);
    let mut shell = Process::start("a login shell", shell, &lab.folder().join("shell.log"))?;

    server.now_says(Says::List(OTHERS.to_owned()));
    let ran = refresh(&stand, &[])?;
    let sentence = format!("where an SSH session from {STRANGER} comes in");
    assert!(ran.code == 1 && ran.stderr.contains(&sentence), "{ran:?}");
    assert!(ran.stderr.contains("the last good list stays") && ran.stderr.contains("--force"), "{ran:?}");
    let shown = weir::run(lab, &["allowlist", "show", "cdn"])?.stdout;
    assert!(shown.contains("LAST ERROR") && shown.contains(&sentence), "{shown}");
    assert!(shown.contains("prefixes      3 IPv4"), "{shown}");
    assert!(!stranger_is_out(lab)?);

    // The shell ends, and the operator asks in that session.
    shell.kill()?;
    let mut own = lab.edge.command(weir::program()?)?;
    own.args(["allowlist", "refresh"]).env("SSH_CONNECTION", &session);
    own.env("NO_COLOR", "1").env("WEIR_ADMIN", format!("unix:{}", weir::admin_socket(lab).display()));
    let ran = weir::finish(own)?;
    assert!(ran.code == 1 && ran.stderr.contains("your own SSH session"), "{ran:?}");
    assert!(!stranger_is_out(lab)?);

    assert_eq!(refresh(&stand, &["--force"])?.code, 0);
    assert!(stranger_is_out(lab)?);
    let shown = weir::run(lab, &["allowlist", "show", "cdn"])?.stdout;
    assert!(!shown.contains("LAST ERROR"), "{shown}");
    Ok(())
}
