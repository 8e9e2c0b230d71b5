//! Who comes in at all: the gate in the kernel, and the second lock behind it.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use aya::{TestRun as _, TestRunOptions, programs::SchedClassifier};
use proxy_common::names;
use weir_lab::{
    lab::{
        addresses::{EDGE, HTTP, HTTPS, HTTPS_V6, STRANGER, STRANGER_V6},
        client::Browser,
        ip,
        knock::{Knocking, Knocks, Witness, knock, until_connected, until_silent},
        load,
        namespace::As,
        pinned,
        stand::{PATIENCE, Stand, wait_for_both},
        wait,
        weir::{self, Weir},
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

/// Shorter than the second after which a SYN would be sent again.
const KNOCK: Duration = Duration::from_millis(400);

#[test]
fn a_stranger_never_reaches_the_daemon() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir, Need::Program("bpftool"));
    let stand = Stand::up()?;
    let witness = Witness::open(&stand.lab.edge)?;
    let before = pinned::packets(&stand.lab, "https", "not_listed")?;
    for to in [HTTPS, HTTPS_V6] {
        let knocks = knock(&stand.lab.stranger, to, 20, KNOCK)?;
        assert_eq!(knocks, Knocks { silent: 20, ..Knocks::default() }, "{to}");
    }
    assert_eq!((witness.syns_from(STRANGER), witness.syns_from(STRANGER_V6)), (0, 0));
    assert_eq!(pinned::packets(&stand.lab, "https", "not_listed")? - before, 40);
    assert_eq!(stand.visitor.get("/")?.status, 200);
    Ok(())
}

#[test]
fn what_is_not_guarded_passes_untouched() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let stand = Stand::up()?;
    for port in [22, 80, 444, 8443] {
        let knocks = knock(&stand.lab.stranger, (EDGE, port).into(), 3, Duration::from_secs(2))?;
        assert_eq!(knocks.refused, 3, "port {port} is closed, but not guarded");
    }
    Ok(())
}

#[test]
fn the_gate_stands_when_the_daemon_is_killed_and_is_adopted_on_restart() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir, Need::Program("bpftool"));
    let mut stand = Stand::up()?;
    let witness = Witness::open(&stand.lab.edge)?;
    let stranger = Knocking::start(&stand.lab.stranger, HTTPS)?;
    stand.weir.kill()?;
    let killed = pinned::packets(&stand.lab, "https", "not_listed")?;
    assert_eq!(knock(&stand.lab.stranger, HTTPS, 20, KNOCK)?.silent, 20);
    assert_eq!(
        knock(&stand.lab.visitor, HTTPS, 20, KNOCK)?.refused,
        20,
        "listed packets reach the closed port"
    );
    let counted = pinned::packets(&stand.lab, "https", "not_listed")?;
    assert!(counted >= killed + 20);

    stand.weir = Weir::start(&stand.lab, &weir::standard(&stand.lab))?;
    wait_for_both(&stand.visitor)?;
    assert!(pinned::packets(&stand.lab, "https", "not_listed")? >= counted, "the counters were thrown away");
    let knocks = stranger.stop()?;
    assert_eq!((knocks.connected, knocks.refused), (0, 0), "{knocks:?}");
    the_gate_tells_what_it_does_where_it_is_asked_to(&stand)?;
    assert_eq!(witness.syns_from(STRANGER), 0);
    Ok(())
}

/// Other programs take the place of those that judge, and give it back, while strangers knock and visitors are served.
fn the_gate_tells_what_it_does_where_it_is_asked_to(stand: &Stand) -> Done {
    const FLOOD: u32 = 100_000;
    let load = stand.load("/", 50)?;
    let generation = || Ok::<_, anyhow::Error>(stand.weir.status()?["generation"].as_u64());
    let takes_over = |toml: &str| {
        let before = generation()?;
        stand.weir.rewrite_config(toml)?;
        wait::until_true("the configuration is taken over", PATIENCE, || Ok(generation()? > before))
    };
    let quiet = weir::standard(&stand.lab);
    takes_over(&quiet.replace("[log]\n", "[log]\nkernel = \"debug\"\n"))?;
    let tells = |parts: &[&str]| {
        wait::until_true(&format!("the log tells {parts:?}"), PATIENCE, || {
            Ok(stand.weir.log_text().lines().any(|line| parts.iter().all(|part| line.contains(part))))
        })
        .map_err(|why| why.context(stand.weir.log_text()))
    };
    assert_eq!(knock(&stand.lab.stranger, HTTPS, 1, KNOCK)?.silent, 1);
    let (source, to) = (format!("source=\"{STRANGER}:"), format!("destination=\"{HTTPS}\""));
    tells(&[
        "DEBUG the gate dropped a packet",
        "not_listed",
        "entrypoint=\"https\"",
        &source,
        &to,
        "\"public\"",
    ])?;
    assert_eq!(knock(&stand.lab.visitor, HTTPS, 1, KNOCK)?.connected, 1);
    tells(&["the gate let a connection in", "source=\"173.245.48."])?;

    // A flood is told by a few lines, and counted.
    let frame = proxy_user::packet::syn(STRANGER.into(), HTTPS).map_err(anyhow::Error::msg)?;
    let pin = stand.lab.bpffs().join("weir").join(names::LAYOUT).join(names::PROGRAMS).join(names::GATE_TC);
    let options = || TestRunOptions { data_in: Some(&frame), repeat: FLOOD, ..TestRunOptions::default() };
    SchedClassifier::from_pin(pin)?.test_run(options())?;
    let left_out = || -> u64 {
        let log = stand.weir.log_text();
        let told = log.lines().filter_map(|line| line.split("than it writes lines=").nth(1));
        told.filter_map(|lines| lines.trim().parse::<u64>().ok()).sum()
    };
    wait::until_true("the log says how many lines were left out", PATIENCE, || {
        Ok(left_out() > u64::from(FLOOD) * 9 / 10)
    })?;
    assert!(stand.weir.log_text().len() < 4 << 20, "the flood is in the log");

    // And back.
    takes_over(&quiet)?;
    let lines = || stand.weir.log_text().matches("the gate dropped a packet").count();
    let told = lines();
    assert_eq!(knock(&stand.lab.stranger, HTTPS, 3, KNOCK)?.silent, 3);
    assert_eq!(lines(), told);
    load::all_served(&load.stop()?)
}

#[test]
fn a_graceful_end_leaves_the_gate_standing() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let mut stand = Stand::up()?;
    assert!(stand.weir.terminate()?.success());
    assert_eq!(knock(&stand.lab.stranger, HTTPS, 20, KNOCK)?.silent, 20);
    assert_eq!(knock(&stand.lab.visitor, HTTPS, 5, KNOCK)?.refused, 5);
    Ok(())
}

#[test]
fn without_privileges_the_allowlist_is_enforced_at_accept() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up_as(As::Nobody, |lab, toml| {
        // What belongs to root is out of reach: the log goes to where it goes without a word about it.
        toml.replace(&format!("access = \"{}/access.log\"", lab.folder().display()), "access = \"stdout\"")
    })?;
    assert_eq!(stand.visitor.get("/")?.status, 200);
    let stranger = Browser::of_site(&stand.lab, &stand.lab.stranger)?.with_patience(Duration::from_secs(2));
    let begun = Instant::now();
    assert!(stranger.get("/").is_err(), "a stranger was served");
    assert!(begun.elapsed() < Duration::from_secs(2), "it is turned away, not left waiting");
    let log = stand.weir.log_text();
    assert!(log.lines().any(|line| line.contains("WARN")), "it isn't loud about it:\n{log}");
    Ok(())
}

#[test]
fn a_wildcard_is_guarded_on_every_address_also_on_one_that_comes_later() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let stand = Stand::up_with(|_, toml| {
        toml.replace(&format!("\"{HTTPS}\", \"{HTTPS_V6}\""), "\"0.0.0.0:443\", \"[::]:443\"")
    })?;
    for to in [HTTPS, HTTPS_V6] {
        assert_eq!(knock(&stand.lab.stranger, to, 5, KNOCK)?.silent, 5, "{to}");
        assert_eq!(knock(&stand.lab.visitor, to, 5, KNOCK)?.connected, 5, "{to}");
    }
    ip(&["-n", stand.lab.edge.name(), "address", "add", "198.51.100.2/32", "dev", "public"], "")?;
    let later = SocketAddr::new([198, 51, 100, 2].into(), 443);
    until_silent(&stand.lab.stranger, later, PATIENCE)?;
    assert_eq!(knock(&stand.lab.visitor, later, 5, KNOCK)?.connected, 5);
    Ok(())
}

#[test]
fn an_entrypoint_comes_and_goes_with_a_reload() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let stand = Stand::up()?;
    let before = weir::standard(&stand.lab);
    let load = stand.load("/", 100)?;
    let more = format!("\n[entrypoint.http]\nbind = [\"{HTTP}\"]\nallow = [\"cloudflare\"]\n");
    stand.weir.rewrite_config(&(before.clone() + &more))?;
    until_connected(&stand.lab.visitor, HTTP, PATIENCE)?;
    assert_eq!(Browser::plain(&stand.lab.visitor, HTTP)?.get("/")?.status, 200);
    assert_eq!(knock(&stand.lab.stranger, HTTP, 5, KNOCK)?.silent, 5);

    stand.weir.rewrite_config(&before)?;
    wait::until_true("the port is closed and not guarded any more", PATIENCE, || {
        Ok(knock(&stand.lab.stranger, HTTP, 1, KNOCK)?.refused == 1)
    })?;
    load::all_served(&load.stop()?)
}

#[test]
fn an_entrypoint_without_a_list_is_open_to_everybody() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let stand = Stand::up_with(|_, toml| toml + &format!("\n[entrypoint.http]\nbind = [\"{HTTP}\"]\n"))?;
    assert_eq!(Browser::plain(&stand.lab.stranger, HTTP)?.get("/")?.status, 200);
    assert_eq!(knock(&stand.lab.stranger, HTTPS, 5, KNOCK)?.silent, 5, "the other one is still guarded");
    Ok(())
}
