//! The demonstration is a promise too: it tells its story, and the figures at its end are what was promised.

use std::process::Command;

use anyhow::Context;
use serde_json::Value;
use weir_lab::{needs, needs::Need};

type Done = anyhow::Result<()>;

#[test]
fn the_story_comes_true() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir, Need::Program("bpftool"));
    let output = Command::new(env!("CARGO_BIN_EXE_weir-lab")).args(["demo", "--once", "--json"]).output()?;
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(!told.contains('\x1b'), "no colours where nobody looks");
    let widest = told.lines().rev().skip(1).max_by_key(|line| line.chars().count()).unwrap_or_default();
    assert!(widest.chars().count() <= 80, "too wide: {widest}");

    let figures: Value = serde_json::from_str(told.lines().last().context("it said nothing")?)?;
    assert_eq!(figures["visitor_ok"], true);
    assert_eq!(figures["stranger_passed"], 0);
    assert_eq!(figures["failed_requests"], 0);
    assert!(figures["stranger_dropped"].as_u64().context("stranger_dropped")? > 0);
    for (figure, most) in [
        ("refused_failover_ms", 250.0),
        ("hang_failover_ms", 2000.0),
        ("recovery_ms", 2000.0),
        ("reload_ms", 2000.0),
    ] {
        let took = figures[figure].as_f64().with_context(|| format!("no {figure}: {figures}"))?;
        assert!(took < most, "{figure} is {took}, of {most} at most");
    }
    Ok(())
}

#[test]
fn what_is_missing_is_said() -> Done {
    needs!(Need::Root);
    let output = Command::new(env!("CARGO_BIN_EXE_weir-lab"))
        .args(["demo", "--once"])
        .env("WEIR_BIN", "/nowhere/weir")
        .output()?;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("/nowhere/weir"), "{said}");
    Ok(())
}
