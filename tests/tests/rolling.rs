//! Servers are taken out, renewed and put back, and visitors don't notice.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use hyper::Request;
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::sync::Mutex;
use weir_lab::{
    lab::{
        addresses::HTTPS,
        client::{Browser, Connection, nothing},
        load,
        process::Process,
        stand::{PATIENCE, Stand, wait_for_both},
        station::Station,
        wait,
        weir::{self, Ran, Weir},
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

const ONE: &str = "app/10.0.0.11:8080";
const TWO: &str = "app/10.0.0.12:8080";

/// A roll takes its time where the machine is busy.
const ROLL: Duration = Duration::from_secs(60);

/// What `GET /api/v1/drains` says of a server.
fn server(stand: &Stand, name: &str) -> anyhow::Result<Value> {
    let document = stand.weir.admin().get("/api/v1/drains")?.json()?;
    let named = |one: &&Value| format!("{}/{}", text(&one["service"]), text(&one["server"])) == name;
    document["servers"].as_array().into_iter().flatten().find(named).cloned().context("it is not there")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn drained(stand: &Stand) -> anyhow::Result<Vec<String>> {
    let mut drained = Vec::new();
    for name in [ONE, TWO] {
        if !server(stand, name)?["drain"].is_null() {
            drained.push(name.to_owned());
        }
    }
    Ok(drained)
}

fn fine(stand: &Stand, arguments: &[&str]) -> anyhow::Result<Ran> {
    let ran = weir::run(&stand.lab, arguments)?;
    anyhow::ensure!(ran.code == 0, "{arguments:?}: {ran:?}");
    Ok(ran)
}

fn refused(stand: &Stand, code: i32, arguments: &[&str], sentences: &[&str]) -> Done {
    let ran = weir::run(&stand.lab, arguments)?;
    anyhow::ensure!(ran.code == code, "{arguments:?}: {ran:?}");
    for sentence in sentences {
        anyhow::ensure!(ran.stderr.contains(sentence), "{arguments:?} without `{sentence}`: {ran:?}");
    }
    Ok(())
}

/// Everybody is served by this server alone.
fn only(stand: &Stand, name: &str) -> Done {
    for _ in 0..20 {
        let reply = stand.visitor.get("/")?;
        anyhow::ensure!(reply.upstream() == Some(name), "not from {name}: {reply:?}");
    }
    Ok(())
}

/// A roll that goes on beside the test, with its output in a file.
fn roll(stand: &Stand, arguments: &[&str]) -> anyhow::Result<Process> {
    let mut command = stand.lab.edge.command(weir::program()?)?;
    let admin = format!("unix:{}", weir::admin_socket(&stand.lab).display());
    command.arg("roll").args(arguments).env("NO_COLOR", "1").env("WEIR_ADMIN", admin);
    Process::start("weir roll", command, &stand.lab.folder().join("roll.log"))
}

/// The command of a roll: asks the test to restart a server, and waits until that is done.
fn restart_script(stand: &Stand) -> anyhow::Result<(String, PathBuf)> {
    let asked = stand.lab.folder().join("restart");
    std::fs::create_dir_all(&asked)?;
    let file = asked.display();
    let script = format!("touch {file}/$1; while [ -e {file}/$1 ]; do sleep 0.02; done; echo $1 is new");
    Ok((script, asked))
}

#[test]
fn two_servers_are_restarted_under_load_and_no_request_fails() -> Done {
    needs!(Need::Root, Need::Weir);
    let mut stand = Stand::up()?;
    let (script, asked) = restart_script(&stand)?;
    let load = stand.load("/", 100)?;
    let mut rolling = roll(&stand, &["app", "--json", "--", "sh", "-c", &script, "sh", "{host}"])?;
    for host in ["10.0.0.11", "10.0.0.12"] {
        wait::until_true(&format!("{host} is to be restarted"), PATIENCE, || Ok(asked.join(host).exists()))
            .context(rolling.log_text())?;
        let (restarted, name) = match host {
            "10.0.0.11" => (&mut stand.one, "one"),
            _ => (&mut stand.two, "two"),
        };
        restarted.kill()?;
        // For a while it is really away.
        let away = Instant::now();
        load.wait_for_more(30, PATIENCE)?;
        anyhow::ensure!(
            !load.records_since(away).iter().any(|record| record.begun > away && record.served_by(name))
        );
        restarted.start_again(&stand.lab)?;
        std::fs::remove_file(asked.join(host))?;
    }
    let status = rolling.wait(ROLL)?;
    assert!(status.success(), "{}", rolling.log_text());
    let done = Instant::now();
    for name in ["one", "two"] {
        load.wait_for(&format!("{name} serves again"), done, PATIENCE, |record| record.served_by(name))?;
    }
    load::all_served(&load.stop()?)?;
    assert_eq!(drained(&stand)?, Vec::<String>::new());
    let log = rolling.log_text();
    let events: Vec<_> = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .map(|line| text(&line["event"]).to_owned())
        .filter(|event| event != "waiting")
        .collect();
    let each = ["drained", "idle", "command", "ended", "healthy", "undrained"];
    assert_eq!(events, [&each[..], &each[..], &["done"]].concat(), "{log}");
    assert!(log.contains("10.0.0.12 is new"), "the command's own output is passed on: {log}");
    Ok(())
}

#[test]
fn a_roll_stops_for_a_person_and_goes_on_where_it_is_told_to() -> Done {
    needs!(Need::Root, Need::Weir);
    let mut stand = Stand::up()?;
    let none = Vec::<String>::new();

    // A plan changes nothing.
    let planned = fine(&stand, &["roll", "app", "--dry-run", "--", "renew", "{server}"])?;
    assert!(
        planned.stdout.contains("2. app/10.0.0.12:8080: drain, run `renew 10.0.0.12:8080`"),
        "{planned:?}"
    );
    assert_eq!(drained(&stand)?, none);

    // A command that fails: its server stays out, the next is never begun.
    let failing = ["roll", "app", "--", "sh", "-c", "exit 3"];
    refused(
        &stand,
        1,
        &failing,
        &["stopped at app/10.0.0.11:8080", "exit code 3", "stays drained", "--from 10.0.0.12:8080"],
    )?;
    assert_eq!(drained(&stand)?, [ONE]);
    only(&stand, "two")?;

    // Nothing more is begun while the others aren't well enough.
    refused(
        &stand,
        1,
        &["roll", "app", "--from", "10.0.0.12", "--", "true"],
        &["nothing was begun", "drained by weir roll"],
    )?;
    assert_eq!(drained(&stand)?, [ONE]);

    // On with it; who was drained by an operator stays so.
    fine(&stand, &["roll", "app", "--skip", "10.0.0.12:8080", "--", "true"])?;
    assert_eq!(drained(&stand)?, none);
    fine(&stand, &["drain", TWO, "--why", "a new disk"])?;
    fine(&stand, &["roll", "app", "--from", "10.0.0.12", "--", "true"])?;
    assert_eq!(drained(&stand)?, [TWO]);
    fine(&stand, &["undrain", TWO])?;

    // A server that doesn't come back.
    stand.one.kill()?;
    wait::until_true("one is down", PATIENCE, || Ok(server(&stand, ONE)?["status"] == "down"))?;
    refused(
        &stand,
        1,
        &["roll", "app", "--skip", "10.0.0.12", "--healthy-timeout", "1s", "--", "true"],
        &["did not get well within 1s: it is down", "stays drained", "it was the last one"],
    )?;
    assert_eq!(drained(&stand)?, [ONE]);
    Ok(())
}

#[test]
fn an_interrupted_roll_lets_the_command_end_and_says_where_it_stands() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up()?;
    let (script, asked) = restart_script(&stand)?;
    let mut rolling = roll(&stand, &["app", "--", "sh", "-c", &script, "sh", "{host}"])?;
    let first = asked.join("10.0.0.11");
    wait::until_true("the command runs", PATIENCE, || Ok(first.exists())).context(rolling.log_text())?;
    rolling.signal(Signal::SIGINT)?;
    wait::until_true("it says that it waits", PATIENCE, || {
        Ok(rolling.log_text().contains("waiting for the command to end"))
    })?;
    std::fs::remove_file(&first)?;
    assert_eq!(rolling.wait(ROLL)?.code(), Some(1));
    let log = rolling.log_text();
    assert!(log.contains("10.0.0.11 is new") && log.contains("after the command had ended well"), "{log}");
    assert!(
        log.contains("stays drained") && log.contains("not done: 10.0.0.11:8080, 10.0.0.12:8080"),
        "{log}"
    );
    assert_eq!(drained(&stand)?, [ONE]);
    assert_eq!(server(&stand, ONE)?["drain"]["by"], "roll");
    fine(&stand, &["drain", ONE])?;
    assert_eq!(server(&stand, ONE)?["drain"]["by"], "operator", "no roll undoes that");

    // Before the command is begun nothing has happened yet: the server is put back.
    fine(&stand, &["undrain", "app/*"])?;
    let slow = std::thread::spawn({
        let visitor = stand.visitor.clone();
        move || {
            [visitor.get("/slow?ms=3000"), visitor.get("/slow?ms=1")]
                .map(|reply| reply.map(|reply| reply.status))
        }
    });
    let busy = busy(&stand)?;
    let other = if busy == ONE { "10.0.0.12" } else { "10.0.0.11" };
    let mut rolling = roll(&stand, &["app", "--skip", other, "--", "touch", "{host}"])?;
    wait::until_true("it waits", PATIENCE, || {
        Ok(rolling.log_text().contains(&format!("{busy}: 1 under way")))
    })?;
    rolling.signal(Signal::SIGTERM)?;
    assert_eq!(rolling.wait(ROLL)?.code(), Some(1));
    let log = rolling.log_text();
    assert!(
        log.contains("before the command was begun") && log.contains("not drained by this roll"),
        "{log}"
    );
    assert_eq!(drained(&stand)?, Vec::<String>::new());
    for status in slow.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
        assert_eq!(status?, 200);
    }
    Ok(())
}

/// The server that has a request under way.
fn busy(stand: &Stand) -> anyhow::Result<&'static str> {
    wait::until("a server has a request under way", PATIENCE, || {
        for name in [ONE, TWO] {
            if server(stand, name)?["active"] == 1 {
                return Ok(Some(name));
            }
        }
        Ok(None)
    })
}

#[test]
fn a_drain_waits_for_what_is_under_way_and_holds_until_it_is_undone() -> Done {
    needs!(Need::Root, Need::Weir);
    let mut stand = Stand::up()?;
    let slow = std::thread::spawn({
        let visitor = stand.visitor.clone();
        move || visitor.get("/slow?ms=2000")
    });
    let busy = busy(&stand)?;
    let (name, other, other_name) = if busy == ONE { ("one", TWO, "two") } else { ("two", ONE, "one") };

    // 1. No new work, at once; the old work ends, and is waited for.
    refused(&stand, 1, &["drain", busy, "--wait", "--timeout", "100ms"], &["1 under way", "stays drained"])?;
    only(&stand, other_name)?;
    let waited = fine(&stand, &["drain", busy, "--wait", "--why", "a new disk"])?;
    assert!(
        waited.stdout.contains("is drained already") && waited.stdout.contains("nobody is left"),
        "{waited:?}"
    );
    assert_eq!(server(&stand, busy)?["active"], 0);
    let reply = slow.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    assert_eq!((reply.status.as_u16(), reply.upstream()), (200, Some(name)));

    // 2. What would leave nobody is refused, and so is what doesn't exist.
    refused(&stand, 1, &["drain", other], &["without a server that gets work", "--force"])?;
    refused(&stand, 1, &["drain", "app/*"], &["without a server that gets work"])?;
    refused(&stand, 2, &["drain", "ap/*"], &["did you mean `app`?"])?;
    refused(&stand, 2, &["drain", "app/10.0.0.19:8080"], &["did you mean `app/10.0.0.1"])?;
    only(&stand, other_name)?;

    // 3. It holds over a reload, over a configuration without the server, and over a restart.
    let toml = std::fs::read_to_string(stand.weir.config())?;
    let without = toml.replace(&format!("\"{}\"", &busy[4..]), "").replace("[, ", "[").replace(", ]", "]");
    for (toml, generation) in [(&without, 2), (&toml, 3)] {
        stand.weir.rewrite_config(toml)?;
        wait::until_true("it is taken over", PATIENCE, || {
            Ok(stand.weir.status()?["generation"] == generation)
        })?;
        only(&stand, other_name)?;
    }
    assert!(stand.weir.terminate()?.success());
    stand.weir = Weir::start(&stand.lab, &toml)?;
    wait::until_true("both are up", PATIENCE, || {
        Ok(server(&stand, ONE)?["status"] == "up" && server(&stand, TWO)?["status"] == "up")
    })?;
    only(&stand, other_name)?;
    let status = fine(&stand, &["status"])?.stdout;
    assert!(status.contains("draining (up)"), "{status}");

    // 4. Until it is undone.
    fine(&stand, &["undrain", busy])?;
    wait_for_both(&stand.visitor)?;

    // 5. By force, visitors get the page, also where a server that is up would be there.
    fine(&stand, &["drain", "app/*", "--force"])?;
    assert!(stand.visitor.get("/")?.is_maintenance());
    fine(&stand, &["undrain", "app/*"])?;
    wait_for_both(&stand.visitor)
}

#[test]
fn a_server_is_drained_while_its_health_answers_ask_for_it() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up_with(|_, toml| {
        toml.replace(
            "fall = 2, rise = 2",
            "fall = 2, rise = 2, drain_on = \"404\", drain_header = \"X-Drain\"",
        )
    })?;
    let direct = Browser::plain(&stand.lab.edge, stand.one.address())?;
    let load = stand.load("/", 100)?;
    for how in ["404", "header"] {
        direct.get(&format!("/retire?how={how}"))?;
        wait::until_true("one drains", PATIENCE, || Ok(server(&stand, ONE)?["drain"]["by"] == "health"))?;
        assert_eq!(server(&stand, ONE)?["status"], "up", "it drains, and is not down");
        only(&stand, "two")?;
        let undone = fine(&stand, &["undrain", ONE])?;
        assert!(undone.stdout.contains("only they can end that"), "{undone:?}");
        direct.get("/retire?how=not")?;
        let back = Instant::now();
        load.wait_for("one serves again", back, PATIENCE, |record| record.served_by("one"))?;
    }
    load::all_served(&load.stop()?)
}

#[test]
fn a_drained_host_says_so_and_sends_its_connections_elsewhere() -> Done {
    needs!(Need::Root, Need::Weir);
    let mut stand = Stand::up()?;
    let station = Station::open(&stand.lab.visitor)?;
    let browser = Browser::new(&stand.lab, &stand.lab.visitor, HTTPS, &["h2"])?;
    let target = browser.target.clone();
    let kept = Arc::new(Mutex::new(station.run(async move { Connection::open(&target).await })??));
    let ask = || {
        let kept = kept.clone();
        station.run(async move { kept.lock().await.send(Request::get("/").body(nothing())?).await })?
    };
    assert_eq!(ask()?.status, 200);
    let loads = [stand.load("/", 50)?, {
        let load = load::Load::start(&stand.lab.visitor, &browser, "/", 50)?;
        load.wait_for_more(20, PATIENCE)?;
        load
    }];

    fine(&stand, &["drain", "--host", "--why", "a new kernel"])?;
    assert_eq!(stand.weir.admin().get("/ping")?.status, 503);
    assert_eq!(weir::run(&stand.lab, &["ping"])?.code, 1);
    // Who comes all the same is served, and told.
    let reply = stand.visitor.get("/")?;
    assert_eq!((reply.status.as_u16(), reply.header("connection")), (200, Some("close")));
    wait::until_true("the kept connection was told to end", PATIENCE, || {
        let kept = kept.clone();
        station.run(async move { !kept.lock().await.is_open() })
    })?;
    for load in &loads {
        load.wait_for_more(50, PATIENCE)?;
    }
    for load in loads {
        load::all_served(&load.stop()?)?;
    }
    fine(&stand, &["drain", "--host", "--wait", "--timeout", "8s"])?;

    // Also after a restart; servers are none of it.
    assert!(stand.weir.terminate()?.success());
    let mut command = stand.lab.edge.command(weir::program()?)?;
    command.arg("run").arg(stand.weir.config()).env("NO_COLOR", "1");
    let _again = Process::start("weir", command, &stand.lab.folder().join("again.log"))?;
    wait::until_true("it answers, and drains", PATIENCE, || {
        Ok(stand.weir.admin().get("/ping").is_ok_and(|reply| reply.status == 503))
    })?;
    let status = fine(&stand, &["status"])?.stdout;
    assert!(status.contains("THIS HOST IS DRAINED") && status.contains("a new kernel"), "{status}");
    fine(&stand, &["undrain", "--host"])?;
    assert_eq!(stand.weir.admin().get("/ping")?.status, 200);
    wait_for_both(&stand.visitor)?;
    assert_eq!(stand.visitor.get("/")?.header("connection"), None);
    Ok(())
}
