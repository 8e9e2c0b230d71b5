//! Trying an allowlist out: everybody is served, and whoever would not have been is counted.

use std::time::Duration;

use anyhow::Context;
use serde_json::Value;
use weir_lab::{
    lab::{
        addresses::{HTTPS, HTTPS_V6, STRANGER, STRANGER_V6},
        client::Browser,
        knock::{knock, until_connected, until_silent},
        namespace::As,
        stand::{PATIENCE, Stand},
        wait, weir,
    },
    needs,
    needs::Need,
};

#[path = "support/watch.rs"]
mod watch;

use watch::Watch;

type Done = anyhow::Result<()>;

fn shadowed(toml: &str) -> String {
    toml.replace("allow = [\"cloudflare\"]", "allow = [\"cloudflare\"]\nshadow = true")
}

#[test]
fn a_stranger_is_served_and_counted_until_the_shadow_ends() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let stand = Stand::up_with(|_, toml| shadowed(&toml))?;
    let stranger = Browser::of_site(&stand.lab, &stand.lab.stranger)?;
    assert_eq!(stranger.get("/")?.status, 200);
    assert_eq!(knock(&stand.lab.stranger, HTTPS_V6, 3, Duration::from_secs(2))?.connected, 3);
    assert_eq!(stand.visitor.get("/")?.status, 200);

    let shadow = shadow_of(&stand.weir.status()?)?;
    let would_drop = shadow["would_drop"]["not_listed"].as_u64().context("no count")?;
    // A connection that carries a request has at least a SYN, an ACK and a packet with data.
    assert!(would_drop >= 6, "{shadow}");
    assert!(shadow["would_turn_away"].as_u64() >= Some(1), "{shadow}");
    let from = shadow["would_drop_from"].to_string();
    assert!(from.contains("203.0.113.0/24") && from.contains("2001:db8:bad::/48"), "{from}");
    assert!(!from.contains("173.245.48"), "a visitor is counted: {from}");

    let bpffs = stand.lab.bpffs();
    let kernel = weir::run(&stand.lab, &["kernel", "status", "--bpffs", &bpffs.to_string_lossy()])?.stdout;
    for text in [&kernel, &weir::run(&stand.lab, &["status"])?.stdout, &stand.weir.log_text()] {
        assert!(text.contains("SHADOW: nothing is dropped"), "{text}");
    }
    assert!(kernel.contains("would drop: not_listed") && kernel.contains("from 203.0.113.0/24"), "{kernel}");
    assert!(!kernel.contains("  dropped: not_listed"), "{kernel}");

    stand.weir.rewrite_config(&weir::standard(&stand.lab))?;
    until_silent(&stand.lab.stranger, HTTPS, PATIENCE)?;
    assert_eq!(knock(&stand.lab.stranger, HTTPS, 5, Duration::from_millis(400))?.silent, 5);
    assert_eq!(stand.visitor.get("/")?.status, 200);
    assert!(shadow_of(&stand.weir.status()?).is_err(), "the status still speaks of a shadow");

    // And back again.
    stand.weir.rewrite_config(&shadowed(&weir::standard(&stand.lab)))?;
    until_connected(&stand.lab.stranger, HTTPS, PATIENCE)?;
    wait::until_true("the stranger is served again", PATIENCE, || {
        Ok(stranger.get("/").is_ok_and(|reply| reply.status == 200))
    })
}

#[test]
fn what_would_be_dropped_is_watched_and_marked() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let stand = Stand::up_with(|_, toml| shadowed(&toml))?;
    for (arguments, event) in
        [(&["--json"][..], "\"event\":\"would_drop\""), (&[], "would drop: not_listed  https")]
    {
        let mut watch = Watch::start(&stand.lab, &[arguments, &["--count", "1"]].concat())?;
        assert_eq!(knock(&stand.lab.stranger, HTTPS, 1, PATIENCE)?.connected, 1, "it is served all the same");
        assert!(watch.process.wait(PATIENCE)?.success());
        let text = watch.process.log_text();
        assert!(text.contains(event) && text.contains(&STRANGER.to_string()), "{text}");
    }
    Ok(())
}

#[test]
fn explaining_adds_nothing_to_what_would_be_dropped() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let stand = Stand::up_with(|_, toml| shadowed(&toml))?;
    let lab = &stand.lab;
    let ask = |arguments: &[&str]| -> anyhow::Result<String> {
        let bpffs = lab.bpffs();
        let ran = weir::run(lab, &[arguments, &["--bpffs", &bpffs.to_string_lossy()]].concat())?;
        anyhow::ensure!(ran.code == 0, "{ran:?}");
        Ok(ran.stdout)
    };
    let https = || -> anyhow::Result<Value> {
        let status: Value = serde_json::from_str(&ask(&["kernel", "status", "--json"])?)?;
        let mut all = status["status"]["entrypoints"].as_array().context("no entrypoints")?.iter();
        Ok(all.find(|one| one["name"] == "https").context("no entrypoint `https`")?.clone())
    };
    let count = |of: &Value| of["would_drop"]["not_listed"]["packets"].as_u64().context("no count");
    for source in [STRANGER.to_string(), STRANGER_V6.to_string()] {
        for _ in 0..3 {
            let said: Value =
                serde_json::from_str(&ask(&["explain", &source, "--entrypoint", "https", "--json"])?)?;
            let packet = &said["packets"][0];
            assert_eq!(
                (&packet["verdict"], &packet["outcome"]),
                (&"pass".into(), &"shadowed".into()),
                "{said}"
            );
            assert_eq!(packet["reason"], "not_listed");
        }
    }
    let text = ask(&["explain", &STRANGER.to_string(), "--entrypoint", "https"])?;
    assert!(text.contains("passes, would be dropped, not_listed"), "{text}");
    let asked = https()?;
    assert_eq!((count(&asked)?, &asked["would_drop_from"]), (0, &serde_json::json!([])), "{asked}");
    // What really comes is counted, and nothing is taken off that.
    assert_eq!(knock(&lab.stranger, HTTPS, 1, PATIENCE)?.connected, 1);
    let real = https()?;
    let packets = count(&real)?;
    assert!(packets >= 2, "a SYN and an ACK at least: {real}");
    assert_eq!(real["would_drop_from"][0]["packets"].as_u64(), Some(packets), "{real}");
    Ok(())
}

#[test]
fn without_the_gate_a_stranger_is_served_and_counted_at_accept() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up_as(As::Nobody, |lab, toml| {
        let log = format!("access = \"{}/access.log\"", lab.folder().display());
        shadowed(&toml.replace(&log, "access = \"stdout\""))
    })?;
    let before = shadow_of(&stand.weir.status()?)?["would_turn_away"].as_u64();
    let stranger = Browser::of_site(&stand.lab, &stand.lab.stranger)?;
    assert_eq!(stranger.get("/")?.status, 200);
    let status = stand.weir.status()?;
    assert!(shadow_of(&status)?["would_turn_away"].as_u64() > before, "{status}");
    assert_eq!(entrypoint(&status)?["not_listed"].as_u64(), Some(0));
    Ok(())
}

fn entrypoint(status: &Value) -> anyhow::Result<&Value> {
    let entrypoints = status["entrypoints"].as_array().context("no entrypoints")?;
    entrypoints.iter().find(|one| one["name"] == "https").context("no entrypoint `https`")
}

fn shadow_of(status: &Value) -> anyhow::Result<Value> {
    let shadow = &entrypoint(status)?["shadow"];
    anyhow::ensure!(shadow.is_object(), "it isn't shadowed: {status}");
    Ok(shadow.clone())
}
