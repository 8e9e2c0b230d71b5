//! The configuration changes under traffic.

use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::Signal;
use weir_lab::{
    lab::{
        SITE,
        addresses::{HTTPS, STRANGER, STRANGER_V6},
        client::Browser,
        knock::{Knocking, Witness, knock, until_connected, until_silent},
        load,
        stand::{PATIENCE, Stand},
        wait, weir,
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

fn with_friends(toml: &str) -> String {
    toml.replace("allow = [\"cloudflare\"]", "allow = [\"cloudflare\", \"friends\"]")
        + &format!("\n[allowlist.friends]\nprefixes = [\"{STRANGER}/32\", \"{STRANGER_V6}/128\"]\n")
}

#[test]
fn a_reload_lets_a_new_source_in_and_fails_no_request() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let stand = Stand::up()?;
    let shut = weir::standard(&stand.lab);
    let load = stand.load("/", 200)?;
    assert_eq!(knock(&stand.lab.stranger, HTTPS, 5, Duration::from_millis(400))?.silent, 5);

    stand.weir.rewrite_config(&with_friends(&shut))?;
    until_connected(&stand.lab.stranger, HTTPS, PATIENCE)?;
    let stranger = Browser::of_site(&stand.lab, &stand.lab.stranger)?;
    assert_eq!(stranger.get("/")?.status, 200);

    stand.weir.rewrite_config(&shut)?;
    until_silent(&stand.lab.stranger, HTTPS, PATIENCE)?;
    load::all_served(&load.stop()?)
}

#[test]
fn nobody_is_misjudged_while_lists_change() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir, Need::Program("bpftool"));
    let stand = Stand::up()?;
    let witness = Witness::open(&stand.lab.edge)?;
    let load = stand.load("/", 200)?;
    let stranger = Knocking::start(&stand.lab.stranger, HTTPS)?;
    // Each of these lists is another; none of them has the stranger in it.
    let generation = || -> anyhow::Result<u64> {
        stand.weir.status()?["generation"].as_u64().context("the status has no generation")
    };
    let begun = generation()?;
    for round in 1..=12 {
        let prefixes: Vec<_> =
            (0..round * 20).map(|number| format!("\"10.{round}.{number}.0/24\"")).collect();
        let list = format!("\n[allowlist.friends]\nprefixes = [{}]\n", prefixes.join(", "));
        let toml = weir::standard(&stand.lab)
            .replace("[\"cloudflare\"]\nclient", "[\"cloudflare\", \"friends\"]\nclient");
        stand.weir.rewrite_config(&(toml + &list))?;
        wait::until_true("the next generation runs", PATIENCE, || Ok(generation()? >= begun + round))?;
    }
    load::all_served(&load.stop()?)?;
    let knocks = stranger.stop()?;
    assert_eq!((knocks.connected, knocks.refused, witness.syns_from(STRANGER)), (0, 0, 0), "{knocks:?}");
    assert!(knocks.silent > 0);
    Ok(())
}

#[test]
fn a_sighup_reloads() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up()?;
    let toml =
        weir::standard(&stand.lab).replace("service = \"app\"", "path = \"/only-here\"\nservice = \"app\"");
    stand.weir.rewrite_config(&toml)?;
    stand.weir.signal(Signal::SIGHUP)?;
    wait::until_true("the new routes hold", PATIENCE, || Ok(stand.visitor.get("/elsewhere")?.status == 404))?;
    assert_eq!(stand.visitor.get("/only-here")?.status, 200);
    Ok(())
}

#[test]
fn a_bad_reload_changes_nothing_and_says_where() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up()?;
    let load = stand.load("/", 100)?;
    let good = weir::standard(&stand.lab);
    let bad =
        good.replace("when_all_down", "when_all_donw").replace("service = \"app\"", "service = \"nowhere\"");
    let before = stand.weir.log_text().len();
    stand.weir.rewrite_config(&bad)?;
    let line = bad.lines().position(|line| line.contains("when_all_donw")).unwrap_or_default() + 1;
    let place = format!("weir.toml:{line}:");
    wait::until_true("the log names the place", PATIENCE, || {
        Ok(stand.weir.log_text()[before..].contains(&place))
    })?;
    let log = stand.weir.log_text()[before..].to_owned();
    assert!(log.contains("when_all_donw") && log.contains("nowhere"), "both faults at once:\n{log}");

    let status = stand.weir.status()?.to_string();
    assert!(status.contains(&place), "the status doesn't tell: {status}");
    let ran = weir::run(&stand.lab, &["status"])?;
    assert!(ran.stdout.contains(&place) || ran.stderr.contains(&place), "{ran:?}");

    // The next good one is taken.
    stand
        .weir
        .rewrite_config(&good.replace("service = \"app\"", "path = \"/only-here\"\nservice = \"app\""))?;
    let fixed = Instant::now();
    wait::until_true("the good one holds", PATIENCE, || Ok(stand.visitor.get("/elsewhere")?.status == 404))?;
    let records: Vec<_> = load.stop()?.into_iter().filter(|record| record.ended() < fixed).collect();
    load::all_served(&records)
}

#[test]
fn servers_keep_their_state_over_a_reload() -> Done {
    needs!(Need::Root, Need::Weir);
    let mut stand = Stand::up()?;
    stand.one.kill()?;
    let load = stand.load("/", 100)?;
    let toml = weir::standard(&stand.lab) + "\n[[route]]\nhost = \"new.example.com\"\nservice = \"app\"\n";
    stand.weir.rewrite_config(&toml)?;
    let browser = stand.visitor.clone().with_host("new.example.com");
    wait::until_true("the new route holds", PATIENCE, || Ok(browser.get("/")?.status == 200))?;
    // A reload that forgot would send to a dead server, or start with the page.
    load::all_served(&load.stop()?)
}

#[test]
fn a_renewed_certificate_is_taken_without_a_word() -> Done {
    needs!(Need::Root, Need::Weir, Need::Program("openssl"));
    let stand = Stand::up()?;
    let load = stand.load("/", 100)?;
    let fingerprint = || -> anyhow::Result<String> {
        let script = format!(
            "openssl s_client -connect {HTTPS} -servername {SITE} </dev/null 2>/dev/null \
             | openssl x509 -noout -fingerprint -sha256"
        );
        let mut shell = stand.lab.visitor.command("bash")?;
        shell.args(["-e", "-o", "pipefail", "-c", &script]);
        let ran = weir::finish(shell)?;
        anyhow::ensure!(ran.code == 0, "{ran:?}");
        Ok(ran.stdout)
    };
    let before = fingerprint()?;
    // Certificate first, key second: for a moment they don't match, and that must not do any harm.
    stand.lab.authority.issue(&[SITE])?.write(&stand.lab.certificates(), "site")?;
    wait::until_true("the new certificate is served", PATIENCE, || Ok(fingerprint()? != before))?;
    load::all_served(&load.stop()?)
}
