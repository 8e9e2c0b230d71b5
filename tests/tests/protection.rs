//! Protection beyond lists: limits for each source and blocks, in namespaces, with real connections.

use std::time::Duration;

use weir_lab::{
    lab::{
        addresses::{HTTPS, STRANGER},
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
    let list = format!("[allowlist.strangers]\nprefixes = \"{STRANGER}\"\n\n[entrypoint.https]");
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
        ("104.16.1.1", ["--for", "1h"], 1, "a ban there hits the CDN, not the visitor"),
        ("0.0.0.0/0", ["--for", "1h"], 1, "a ban there hits the CDN, not the visitor"),
    ] {
        let ran = add(prefix, &more)?;
        assert!(ran.code == code && ran.stderr.contains(sentence), "{prefix} {more:?}: {ran:?}");
    }
    assert_eq!(add("192.0.2.1", &[])?.code, 2, "for how long has to be said");
    assert_eq!(weir::run(&stand.lab, &["block", "list"])?.stdout, "nobody is blocked\n");
    let removed = weir::run(&stand.lab, &["block", "remove", "192.0.2.1"])?;
    assert!(removed.code == 1 && removed.stderr.contains("is not blocked"), "{removed:?}");
    Ok(())
}

fn bpffs(stand: &Stand) -> String {
    stand.lab.folder().join("bpffs").display().to_string()
}
