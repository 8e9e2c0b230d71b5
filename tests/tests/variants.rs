//! Services made of services: requests are shared out, kept together, moved, copied and judged, and no visitor notices.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;
use weir_lab::{
    lab::{
        SITE,
        client::{Browser, Reply, body, nothing},
        load::{self, Load},
        stand::{PATIENCE, Stand},
        wait, weir,
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

/// Server one and server two, each as a service of its own, and what is made of them.
const SERVICES: &str = r#"
[service.one]
servers = ["10.0.0.11:8080"]
health = { path = "/health", every = "200ms", timeout = "150ms" }
[service.two]
servers = ["10.0.0.12:8080"]
health = { path = "/health", every = "200ms", timeout = "150ms" }
[service.unwatched]
servers = ["10.0.0.12:8080"]
# Nobody listens there, and nobody looks.
[service.broken]
servers = ["10.0.0.12:9"]

[service.shop]
split = { one = 20, two = 80 }
sticky = "cookie"
[service.safe]
failover = ["one", "two"]
[service.judged]
split = { broken = 0, safe = 100 }

[[route]]
host = "shop.example.com"
service = "shop"
[[route]]
host = "safe.example.com"
service = "safe"
[[route]]
host = "judged.example.com"
service = "judged"
[[route]]
name = "copied"
host = "copied.example.com"
service = "one"
mirror = { to = "unwatched", at_once = 5, timeout = "2s" }
"#;

fn stand() -> anyhow::Result<Stand> {
    Stand::up_with(|_, toml| toml + SERVICES)
}

fn browser(stand: &Stand, name: &str) -> Browser {
    stand.visitor.clone().with_host(&format!("{name}.{SITE}"))
}

fn load(stand: &Stand, name: &str, per_second: u32) -> anyhow::Result<Load> {
    let load = Load::start(&stand.lab.visitor, &browser(stand, name), "/", per_second)?;
    load.wait_for_more(20, PATIENCE)?;
    Ok(load)
}

/// Runs a command of `weir`, which must succeed.
fn ran(stand: &Stand, arguments: &[&str]) -> anyhow::Result<String> {
    let ran = weir::run(&stand.lab, arguments)?;
    ensure!(ran.code == 0, "weir {arguments:?} ended with {}: {}{}", ran.code, ran.stdout, ran.stderr);
    Ok(ran.stdout)
}

fn split(stand: &Stand, name: &str) -> anyhow::Result<Value> {
    let document: Value = serde_json::from_str(&ran(stand, &["split", name, "--json"])?)?;
    Ok(document["splits"][0].clone())
}

fn with_cookie(browser: &Browser, cookie: &str) -> anyhow::Result<Reply> {
    browser.send(browser.request("GET", "/").header("cookie", cookie).body(nothing())?)
}

/// The cookie that a reply sets, as it is sent back.
fn cookie(reply: &Reply) -> Option<String> {
    Some(reply.header("set-cookie")?.split(';').next()?.to_owned())
}

#[test]
fn requests_are_shared_out_by_weight_and_visitors_stay_and_move_without_a_failure() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand()?;
    let visitors = load(&stand, "shop", 200)?;

    // A fifth, give or take five standard deviations.
    visitors.wait_for_more(600, PATIENCE)?;
    let records = visitors.records();
    let ones = records.iter().filter(|record| record.served_by("one")).count() as f64 / records.len() as f64;
    assert!((0.12..0.28).contains(&ones), "{ones} of {}", load::summary(&records));

    // Whoever has a cookie stays; who has none, or an invented one, gets one.
    let shop = browser(&stand, "shop");
    let of_one = wait::until("somebody gets server one", PATIENCE, || {
        let reply = shop.get("/")?;
        Ok(if reply.upstream() == Some("one") { cookie(&reply) } else { None })
    })?;
    for _ in 0..15 {
        let reply = with_cookie(&shop, &format!("other=1; {of_one}"))?;
        assert_eq!((reply.upstream(), cookie(&reply)), (Some("one"), None));
    }
    let forged = with_cookie(&shop, "weir_shop=one.AAAAAAAAAAAAAAAAAAAAAA")?;
    assert!(cookie(&forged).is_some(), "{forged:?}");

    // Weights change at run time, under load; visitors of a variant without a weight move.
    let told = ran(&stand, &["split", "shop", "one=0", "two=7"])?;
    assert!(told.contains("one=0 two=7 (set at run time; configured: one=20 two=80)"), "{told}");
    let moved = Instant::now();
    visitors.wait_until_past(moved, PATIENCE)?;
    visitors.wait_for_more(100, PATIENCE)?;
    let since: Vec<_> = visitors.records().into_iter().filter(|record| record.begun > moved).collect();
    assert!(since.iter().all(|record| record.served_by("two")), "{}", load::summary(&since));
    let reply = with_cookie(&shop, &of_one)?;
    assert_eq!(reply.upstream(), Some("two"));
    let of_two = cookie(&reply).context("he gets another cookie")?;

    // They hold over a reload that changes the configured ones, which is told.
    let changed = (weir::standard(&stand.lab) + SERVICES).replace("one = 20", "one = 60");
    stand.weir.rewrite_config(&changed)?;
    let reloaded = || Ok(split(&stand, "shop")?["variants"][0]["configured"] == 60);
    wait::until_true("the configured weight has changed", PATIENCE, reloaded)?;
    assert_eq!(split(&stand, "shop")?["variants"][0]["weight"], 0);
    let log = stand.weir.log_text();
    assert!(log.contains("the configured weights of `shop` have changed"), "{log}");
    let explained = ran(&stand, &["explain", "https://shop.example.com/"])?;
    assert!(explained.contains("two: 100.0 % of requests, as set at run time"), "{explained}");
    let status = ran(&stand, &["status"])?;
    assert!(status.contains("split `shop`: one=0 two=7"), "{status}");
    let told = ran(&stand, &["split", "shop", "--reset"])?;
    assert_eq!(told, "split `shop`: one=60 two=80\n");
    assert_eq!(with_cookie(&shop, &of_two)?.upstream(), Some("two"));

    let records = visitors.stop()?;
    load::all_served(&records)?;
    let figures = &split(&stand, "shop")?["variants"][1]["all"];
    let twos = records.iter().filter(|record| record.served_by("two")).count() as u64;
    assert!(figures["requests"].as_u64() >= Some(twos), "{figures} of {twos}");
    assert!(figures["latency_p50_ms"].as_f64() > Some(0.0) && figures["errors_5xx"] == 0, "{figures}");
    let log = stand.lab.folder().join("access.log");
    let named = || Ok(std::fs::read_to_string(&log)?.contains("\"variant\":\"two\""));
    wait::until_true("the access log names the variant", PATIENCE, named)?;
    for wrong in [
        &["split", "shop", "one=1"][..],
        &["split", "shop", "one=0", "two=0"],
        &["split", "shop", "one=1", "tow=1"],
    ] {
        let ran = weir::run(&stand.lab, wrong)?;
        assert_eq!(ran.code, 2, "{wrong:?}: {}{}", ran.stdout, ran.stderr);
    }
    assert_eq!(weir::run(&stand.lab, &["split", "nowhere", "--reset"])?.code, 1);
    Ok(())
}

#[test]
fn failover_and_mirrors_and_judges_let_no_request_fail() -> Done {
    needs!(Need::Root, Need::Weir);
    let mut stand = stand()?;

    // Copies arrive whole, and as such.
    let copied = browser(&stand, "copied");
    let behind = Browser::plain(&stand.lab.edge, stand.two.address())?;
    let posted = copied.send(copied.request("POST", "/echo").body(body("x".repeat(5_000)))?)?;
    assert_eq!((posted.upstream(), posted.body.len()), (Some("one"), 5_000));
    let arrived = || Ok(behind.get("/mirrored")?.text() == "1 5000");
    wait::until_true("the copy has arrived", PATIENCE, arrived)?;

    // The first variant never answers: the judge sees it, and visitors don't.
    let judged = load(&stand, "judged", 200)?;
    let judge = ["split", "judged", "--step", "20,100", "--every", "4s", "--min-samples", "50"];
    let told = ran(&stand, &judge)?;
    assert!(told.contains("broken=20 safe=80") && told.contains("judge: step 1 of 2"), "{told}");
    assert_eq!(weir::run(&stand.lab, &judge)?.code, 1, "one judge at a time");
    wait::until_true("the judge goes back", 2 * PATIENCE, || {
        Ok(split(&stand, "judged")?["judge"]["state"] == "went_back")
    })?;
    let after = split(&stand, "judged")?;
    assert_eq!(
        (&after["variants"][0]["weight"], &after["variants"][1]["weight"]),
        (&0.into(), &100.into()),
        "{after}"
    );
    let status = ran(&stand, &["status"])?;
    assert!(status.contains("judge: WENT BACK") && status.contains("100.00 % of"), "{status}");
    load::all_served(&judged.stop()?)?;

    // Neither a hanging mirror nor a dying first service is noticed, and the first gets its work back.
    let (copies, safe) = (load(&stand, "copied", 100)?, load(&stand, "safe", 100)?);
    stand.two.hang()?;
    let hung = Instant::now();
    copies.wait_for_more(300, PATIENCE)?;
    let waits = load::longest(&copies.records_since(hung));
    assert!(waits < Duration::from_secs(1), "{}", load::slowest(&copies.records_since(hung), hung));
    load::all_served(&copies.stop()?)?;
    let document: Value = serde_json::from_str(&ran(&stand, &["split", "--json"])?)?;
    let mirror = &document["mirrors"][0];
    assert_eq!(
        (&mirror["name"], mirror["dropped"].as_u64() > Some(100)),
        (&"copied".into(), true),
        "{mirror}"
    );
    let resumed = Instant::now();
    stand.two.resume()?;
    wait::until_true("service two is up again", PATIENCE, || {
        let services = stand.weir.status()?["services"].clone();
        let two = services.as_array().and_then(|all| all.iter().find(|one| one["name"] == "two").cloned());
        Ok(two.is_some_and(|two| two["servers"][0]["status"] == "up"))
    })?;
    assert!(safe.records_since(resumed).iter().all(|record| record.served_by("one")));

    stand.one.kill()?;
    let killed = Instant::now();
    safe.wait_for("the second service answers", killed, PATIENCE, |record| record.served_by("two"))?;
    stand.one.start_again(&stand.lab)?;
    let started = Instant::now();
    safe.wait_for("the first service answers again", started, PATIENCE, |record| record.served_by("one"))?;
    let back = Instant::now();
    safe.wait_for_more(50, PATIENCE)?;
    let since: Vec<_> = safe.records().into_iter().filter(|record| record.begun > back).collect();
    assert!(since.iter().all(|record| record.served_by("one")), "{}", load::summary(&since));
    load::all_served(&safe.stop()?)
}
