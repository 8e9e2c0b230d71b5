//! Protection beyond lists: limits for each source and blocks, in namespaces, with real connections.

use std::time::Duration;

use weir_lab::{
    lab::{
        addresses::{EDGE, HTTPS, HTTPS_V6, STRANGER, STRANGER_V6},
        knock::{knock, until_connected, until_silent},
        stand::{PATIENCE, Stand},
        wait,
        weir::{self, Weir},
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

/// Shorter than the second after which a SYN would be sent again.
const KNOCK: Duration = Duration::from_millis(400);

/// The stranger may come in too, by a list that is no CDN's.
fn with_stranger(standard: &str, more: &str) -> String {
    let list = format!(
        "[allowlist.strangers]\nprefixes = [\"{STRANGER}\", \"{STRANGER_V6}\"]\n\n[entrypoint.https]"
    );
    let allow = format!("allow = [\"cloudflare\", \"strangers\"]\n{more}");
    standard.replace("[entrypoint.https]", &list).replace("allow = [\"cloudflare\"]", &allow)
}

fn stand(more: &str) -> anyhow::Result<Stand> {
    let stand = Stand::up()?;
    let generation = stand.weir.status()?["generation"].as_u64();
    stand.weir.rewrite_config(&with_stranger(&weir::standard(&stand.lab), more))?;
    wait::until_true("the configuration is taken over", PATIENCE, || {
        Ok(stand.weir.status()?["generation"].as_u64() > generation)
    })?;
    Ok(stand)
}

#[test]
fn a_source_is_held_at_its_rate_and_a_cdns_is_not() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let stand = stand("source_limit = { connections = \"5/m\", connection_burst = 5 }")?;
    let knocks = knock(&stand.lab.stranger, HTTPS, 20, KNOCK)?;
    // One token may have dropped in meanwhile, on a machine that starves.
    assert!(knocks.connected == 5 || knocks.connected == 6, "{knocks:?}");
    assert_eq!(knocks.connected + knocks.silent, 20, "what is too much is dropped in silence");
    for _ in 0..3 {
        assert_eq!(knock(&stand.lab.visitor, HTTPS, 40, Duration::from_secs(5))?.connected, 40);
    }
    Ok(())
}

#[test]
fn a_block_ends_what_comes_and_ends_by_itself_without_the_daemon() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let mut stand = stand("")?;
    until_connected(&stand.lab.stranger, HTTPS, PATIENCE)?;
    let stranger = STRANGER.to_string();
    let added = weir::run(&stand.lab, &["block", "add", &stranger, "--for", "4s", "--why", "scans"])?;
    assert_eq!(added.code, 0, "{added:?}");
    until_silent(&stand.lab.stranger, HTTPS, PATIENCE)?;
    assert_eq!(stand.visitor.get("/")?.status, 200);
    stand.weir.kill()?;
    // The port is closed now: a reset says that the packet came through.
    wait::until_true("the block ends without the daemon", Duration::from_secs(20), || {
        Ok(knock(&stand.lab.stranger, HTTPS, 1, KNOCK)?.refused == 1)
    })?;
    Ok(())
}

#[test]
fn a_block_survives_a_restart_is_explained_and_can_be_taken_back() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let mut stand = stand("")?;
    let stranger = STRANGER.to_string();
    let added = weir::run(&stand.lab, &["block", "add", &stranger, "--for", "1h", "--why", "scans"])?;
    assert_eq!(added.code, 0, "{added:?}");
    stand.weir.kill()?;
    assert_eq!(
        knock(&stand.lab.stranger, HTTPS, 5, KNOCK)?.silent,
        5,
        "it holds while nobody looks after it"
    );
    stand.weir = Weir::start(&stand.lab, &with_stranger(&weir::standard(&stand.lab), ""))?;
    assert_eq!(knock(&stand.lab.stranger, HTTPS, 5, KNOCK)?.silent, 5);

    let list = weir::run(&stand.lab, &["block", "list"])?;
    let row = list.stdout.lines().find(|line| line.starts_with(&stranger)).unwrap_or_default().to_owned();
    assert!(row.ends_with("scans"), "{list:?}");
    let packets: u64 = row.split_whitespace().nth(2).unwrap_or_default().parse()?;
    assert!(packets >= 10, "{row}");
    let explained = weir::run(&stand.lab, &["explain", &stranger, "--bpffs", &bpffs(&stand)])?;
    assert!(explained.stdout.contains("dropped, blocked"), "{explained:?}");
    assert!(explained.stdout.contains("scans"), "{explained:?}");

    let removed = weir::run(&stand.lab, &["block", "remove", &stranger])?;
    assert_eq!(removed.code, 0, "{removed:?}");
    until_connected(&stand.lab.stranger, HTTPS, PATIENCE)?;
    Ok(())
}

#[test]
fn what_makes_no_sense_or_hits_a_cdn_is_refused_in_a_sentence() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let stand = stand("")?;
    let add = |prefix: &str, more: &[&str]| {
        let arguments = [&["block", "add", prefix, "--why", "x"], more].concat();
        weir::run(&stand.lab, &arguments)
    };
    for (prefix, more, code, sentence) in [
        ("192.0.2.300", ["--for", "1h"], 2, "`192.0.2.300` is not a prefix"),
        ("192.0.2.1/24", ["--for", "1h"], 2, "has bits set behind its length"),
        ("192.0.2.1", ["--for", "0s"], 2, "a block takes from 1s to ten years"),
        ("192.0.2.1", ["--for", "soon"], 2, "is not a duration"),
        ("192.0.2.1", ["--for", "11y"], 2, "a block takes from 1s to ten years"),
        ("192.0.2.1", ["--for", "99999999h"], 2, "a block takes from 1s to ten years"),
        ("2001:db8::1/64", ["--for", "1h"], 2, "has bits set behind its length"),
        ("example.com", ["--for", "1h"], 2, "`example.com` is not a prefix"),
        ("2606:4700::/48", ["--for", "forever"], 1, "a ban there hits the CDN, not the visitor"),
        ("104.16.1.1", ["--for", "1h"], 1, "a ban there hits the CDN, not the visitor"),
        ("0.0.0.0/0", ["--for", "1h"], 1, "a ban there hits the CDN, not the visitor"),
    ] {
        let ran = add(prefix, &more)?;
        assert!(ran.code == code && ran.stderr.contains(sentence), "{prefix} {more:?}: {ran:?}");
    }
    assert_eq!(add("192.0.2.1", &[])?.code, 2, "for how long has to be said");
    assert_eq!(add("192.0.2.1", &["--for=-1h"])?.code, 2, "not into the past");
    assert_eq!(
        weir::run(&stand.lab, &["block", "add", "192.0.2.1", "--for", "1h"])?.code,
        2,
        "nor without a reason"
    );
    assert_eq!(weir::run(&stand.lab, &["block", "list"])?.stdout, "nobody is blocked\n");
    let removed = weir::run(&stand.lab, &["block", "remove", "192.0.2.1"])?;
    assert!(removed.code == 1 && removed.stderr.contains("is not blocked"), "{removed:?}");
    Ok(())
}

#[test]
fn a_source_is_held_at_its_packets_and_asking_about_it_costs_it_nothing() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let stand = stand("source_limit = { packets = \"1/m\", packet_burst = 12 }")?;
    let stranger = STRANGER.to_string();
    for _ in 0..20 {
        let explained = weir::run(&stand.lab, &["explain", &stranger, "--bpffs", &bpffs(&stand)])?;
        assert!(explained.stdout.contains("passes"), "{explained:?}");
    }
    // A SYN, and the acknowledgement of its answer, at the least.
    assert_eq!(
        knock(&stand.lab.stranger, HTTPS, 1, KNOCK)?.connected,
        1,
        "all that was asked was given back"
    );
    until_silent(&stand.lab.stranger, HTTPS, PATIENCE)?;
    let explained = weir::run(&stand.lab, &["explain", &stranger, "--bpffs", &bpffs(&stand)])?;
    assert!(explained.stdout.contains("packet_rate"), "{explained:?}");
    assert_eq!(knock(&stand.lab.visitor, HTTPS, 40, Duration::from_secs(5))?.connected, 40);
    Ok(())
}

#[test]
fn a_block_holds_for_ipv6() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let stand = stand("")?;
    until_connected(&stand.lab.stranger, HTTPS_V6, PATIENCE)?;
    let added =
        weir::run(&stand.lab, &["block", "add", "2001:db8:bad::/64", "--for", "1h", "--why", "scans"])?;
    assert_eq!(added.code, 0, "{added:?}");
    until_silent(&stand.lab.stranger, HTTPS_V6, PATIENCE)?;
    assert_eq!(knock(&stand.lab.stranger, HTTPS, 3, KNOCK)?.connected, 3, "the other family is not meant");
    Ok(())
}

#[test]
fn without_a_gate_a_block_holds_at_accept_and_is_counted_there() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let stand = stand("")?;
    let off = with_stranger(&weir::standard(&stand.lab), "").replace("[kernel]", "[kernel]\nmode = \"off\"");
    stand.weir.rewrite_config(&off)?;
    wait::until_true("the gate is let go", PATIENCE, || {
        Ok(stand.weir.status()?["gate"]["state"] == "not_wanted")
    })?;
    until_connected(&stand.lab.stranger, HTTPS, PATIENCE)?;
    let added =
        weir::run(&stand.lab, &["block", "add", &STRANGER.to_string(), "--for", "1h", "--why", "scans"])?;
    assert_eq!(added.code, 0, "{added:?}");
    knock(&stand.lab.stranger, HTTPS, 7, Duration::from_secs(5))?;
    let https = || -> anyhow::Result<_> {
        let status = stand.weir.status()?;
        let entrypoints = status["entrypoints"].as_array().cloned().unwrap_or_default();
        Ok(entrypoints.into_iter().find(|one| one["name"] == "https").unwrap_or_default())
    };
    wait::until_true("all of them are counted", PATIENCE, || Ok(https()?["blocked"] == 7))?;
    assert_eq!(https()?["not_listed"], 0);
    assert_eq!(stand.visitor.get("/")?.status, 200);
    let status = weir::run(&stand.lab, &["status"])?;
    let header =
        status.stdout.lines().find(|line| line.contains("turned away")).unwrap_or_default().to_owned();
    assert!(header.contains("blocked"), "{status:?}");
    let list = weir::run(&stand.lab, &["block", "list", "--json"])?;
    let list: serde_json::Value = serde_json::from_str(&list.stdout)?;
    assert_eq!(list["turned_away"], 7);
    let block = &list["blocks"][0];
    assert_eq!(
        (&block["prefix"], &block["why"], &block["cdn"]),
        (&"203.0.113.9/32".into(), &"scans".into(), &false.into())
    );
    assert!(block["until"].is_string() && block["since"].is_string(), "{list}");
    Ok(())
}

#[test]
fn a_damaged_list_of_blocks_is_put_aside_and_told() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let mut stand = stand("")?;
    let added =
        weir::run(&stand.lab, &["block", "add", &STRANGER.to_string(), "--for", "1h", "--why", "scans"])?;
    assert_eq!(added.code, 0, "{added:?}");
    stand.weir.kill()?;
    let kept = stand.lab.folder().join("state/blocks.json");
    let text = std::fs::read_to_string(&kept)?;
    std::fs::write(&kept, &text[..text.len() / 2])?;
    stand.weir = Weir::start(&stand.lab, &with_stranger(&weir::standard(&stand.lab), ""))?;
    let log = stand.weir.log_text();
    assert!(log.contains("blocks.json is damaged or was edited"), "{log}");
    assert_eq!(std::fs::read_to_string(kept.with_extension("json.damaged"))?, text[..text.len() / 2]);
    assert_eq!(weir::run(&stand.lab, &["block", "list"])?.stdout, "nobody is blocked\n");
    until_connected(&stand.lab.stranger, HTTPS, PATIENCE)?;
    Ok(())
}

#[test]
fn a_prefix_that_a_cdn_takes_on_is_spared_from_then_on_everywhere() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let stand = stand("")?;
    let open: std::net::SocketAddr = (EDGE, 8080).into();
    let configured = |cdn: bool| {
        let toml = with_stranger(&weir::standard(&stand.lab), "");
        let more = format!("cdn = {cdn}\n\n[entrypoint.open]\nbind = [\"{open}\"]\n\n[entrypoint.https]");
        toml.replace("[entrypoint.https]", &more)
    };
    stand.weir.rewrite_config(&configured(false))?;
    until_connected(&stand.lab.stranger, open, PATIENCE)?;
    let added = weir::run(&stand.lab, &["block", "add", "203.0.113.0/24", "--for", "1h", "--why", "scans"])?;
    assert_eq!(added.code, 0, "{added:?}");
    for to in [open, HTTPS] {
        until_silent(&stand.lab.stranger, to, PATIENCE)?;
    }
    stand.weir.rewrite_config(&configured(true))?;
    for to in [open, HTTPS] {
        until_connected(&stand.lab.stranger, to, PATIENCE)?;
    }
    // The block is still there, and comes back when the CDN gives the prefix up.
    assert!(weir::run(&stand.lab, &["block", "list"])?.stdout.contains("203.0.113.0/24"));
    stand.weir.rewrite_config(&configured(false))?;
    for to in [open, HTTPS] {
        until_silent(&stand.lab.stranger, to, PATIENCE)?;
    }
    Ok(())
}

#[test]
fn a_daemon_over_the_pins_of_another_version_takes_over_and_says_so() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let mut stand = stand("")?;
    let stranger = STRANGER.to_string();
    let added = weir::run(&stand.lab, &["block", "add", &stranger, "--for", "1h", "--why", "scans"])?;
    assert_eq!(added.code, 0, "{added:?}");
    let status = weir::run(&stand.lab, &["kernel", "status", "--bpffs", &bpffs(&stand)])?;
    assert!(status.stdout.contains("kernel memory: lists "), "{status:?}");
    stand.weir.kill()?;
    let pins = stand.lab.bpffs().join("weir");
    std::fs::rename(pins.join("v2"), pins.join("v1"))?;
    let status = weir::run(&stand.lab, &["kernel", "status", "--bpffs", &bpffs(&stand)])?;
    assert!(
        status.stdout.contains("another version of Weir has pins here (layout v1; at public)"),
        "{status:?}"
    );
    assert_eq!(knock(&stand.lab.stranger, HTTPS, 5, KNOCK)?.silent, 5);
    stand.weir = Weir::start(&stand.lab, &with_stranger(&weir::standard(&stand.lab), ""))?;
    assert_eq!(knock(&stand.lab.stranger, HTTPS, 5, KNOCK)?.silent, 5);
    let log = stand.weir.log_text();
    assert!(log.contains("the gate is taken over from another version"), "{log}");
    assert!(!pins.join("v1").exists());
    assert_eq!(knock(&stand.lab.visitor, HTTPS, 5, Duration::from_secs(5))?.connected, 5);
    Ok(())
}

fn bpffs(stand: &Stand) -> String {
    stand.lab.folder().join("bpffs").display().to_string()
}
