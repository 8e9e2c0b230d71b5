//! Servers die, hang, return; visitors shouldn't notice, or get the page at once.

use std::time::{Duration, Instant};

use serde_json::Value;
use weir_lab::{
    lab::{
        addresses::HTTPS,
        client::{Browser, body, nothing},
        load::{self, Load, Outcome, Record},
        server::Server,
        stand::{PATIENCE, Stand, wait_for_both},
        wait,
    },
    needs,
    needs::Need,
    upstream::Mood,
};

#[path = "failover/cutter.rs"]
mod cutter;

use cutter::{Cut, Cutter};

type Done = anyhow::Result<()>;

#[test]
fn one_killed_server_fails_no_request() -> Done {
    needs!(Need::Root, Need::Weir);
    let mut stand = Stand::up()?;
    let load = stand.load("/", 100)?;
    let killed = Instant::now();
    stand.one.kill()?;
    load.wait_for_more(100, PATIENCE)?;
    let records = load.stop()?;
    load::all_served(&records)?;
    let after = load::concerned(&records, killed, Duration::from_millis(300));
    let wait = load::longest(&after);
    assert!(wait < Duration::from_millis(250), "somebody waited {}", load::slowest(&after, killed));
    Ok(())
}

#[test]
fn requests_in_flight_at_a_killed_server_are_answered_by_the_other() -> Done {
    needs!(Need::Root, Need::Weir);
    let mut stand = Stand::up()?;
    // Each of these is at a server for a while, so that some are at the one that is killed.
    let load = stand.load("/slow?ms=300", 50)?;
    stand.one.kill()?;
    load.wait_for_more(50, PATIENCE)?;
    load::all_served(&load.stop()?)
}

#[test]
fn both_killed_servers_give_the_page() -> Done {
    needs!(Need::Root, Need::Weir);
    let mut stand = Stand::up()?;
    let load = stand.load("/", 100)?;
    stand.one.kill()?;
    stand.two.kill()?;
    let killed = Instant::now();
    let page = |record: &Record| record.outcome == Outcome::Maintenance;
    let first = load.wait_for("the page comes", killed, PATIENCE, page)?;
    assert!(
        first.ended() - killed < Duration::from_millis(500),
        "the page took {:?}",
        first.ended() - killed
    );
    load.wait_for_more(50, PATIENCE)?;
    let records = load.stop()?;
    assert_eq!(load::failed(&records), 0, "{}", load::summary(&records));

    for alpn in ["http/1.1", "h2"] {
        let browser = Browser::new(&stand.lab, &stand.lab.visitor, HTTPS, &[alpn])?;
        let html =
            browser.send(browser.request("GET", "/").header("accept", "text/html").body(nothing())?)?;
        assert!(html.is_maintenance(), "{html:?}");
        let id = html.header("x-request-id").unwrap_or_default().to_owned();
        assert!(!id.is_empty() && html.text().contains(&id), "the page tells the request id");
        let json = browser.request("GET", "/").header("accept", "application/json").body(nothing())?;
        let json = browser.send(json)?;
        assert!(json.is_maintenance() && json.json()?.is_object(), "{json:?}");
    }
    Ok(())
}

#[test]
fn a_hanging_server_is_left_within_two_seconds() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up()?;
    let load = stand.load("/", 100)?;
    stand.one.hang()?;
    let hung = Instant::now();
    load.wait_for_more(150, PATIENCE)?;
    load.wait_until_past(Instant::now(), PATIENCE)?;
    let records = load.stop()?;
    load::all_served(&records)?;
    let since: Vec<_> = records.into_iter().filter(|record| record.ended() > hung).collect();
    let wait = load::longest(&since);
    assert!(wait < Duration::from_secs(2), "somebody waited {}", load::slowest(&since, hung));
    Ok(())
}

#[test]
fn a_slow_page_of_a_healthy_server_is_never_cut_short() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up()?;
    let load = stand.load("/slow?ms=1500", 20)?;
    let records = load.stop()?;
    load::all_served(&records)?;
    assert!(records.iter().all(|record| record.took >= Duration::from_millis(1500)));
    Ok(())
}

#[test]
fn traffic_returns_when_servers_return() -> Done {
    needs!(Need::Root, Need::Weir);
    let mut stand = Stand::up()?;
    let load = stand.load("/", 100)?;
    stand.one.kill()?;
    stand.two.kill()?;
    let killed = Instant::now();
    load.wait_for("the page comes", killed, PATIENCE, |record| record.outcome == Outcome::Maintenance)?;
    stand.one.start_again(&stand.lab)?;
    stand.two.start_again(&stand.lab)?;
    let started = Instant::now();
    for name in ["one", "two"] {
        let back =
            load.wait_for(&format!("{name} serves"), started, PATIENCE, |record| record.served_by(name))?;
        // Two probes, 200 ms apart, and what the machine adds.
        let took = back.ended() - started;
        assert!(took < Duration::from_millis(1500), "{name} was back after {took:?}");
    }
    let back = Instant::now();
    load.wait_for_more(50, PATIENCE)?;
    let records = load.stop()?;
    assert_eq!(load::failed(&records), 0, "{}", load::summary(&records));
    let since: Vec<_> = records.into_iter().filter(|record| record.begun > back).collect();
    load::all_served(&since)
}

#[test]
fn a_server_that_hung_is_used_again_when_it_goes_on() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up()?;
    let load = stand.load("/", 100)?;
    stand.one.hang()?;
    load.wait_for_more(150, PATIENCE)?;
    let resumed = Instant::now();
    stand.one.resume()?;
    load.wait_for("one serves again", resumed, PATIENCE, |record| record.served_by("one"))?;
    load::all_served(&load.stop()?)
}

#[test]
fn a_reset_get_is_tried_again_and_a_reset_post_is_not() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up()?;
    // Both servers reset this: nothing is left but the page.
    assert!(stand.visitor.get("/reset")?.is_maintenance());
    let post = stand.visitor.request("POST", "/reset").body(body("pay 5"))?;
    let reply = stand.visitor.send(post)?;
    assert_eq!(reply.status, 503, "{reply:?}");
    // A path that resets says nothing about the rest of the server.
    let load = stand.load("/", 100)?;
    load::all_served(&load.stop()?)
}

#[test]
fn a_post_that_a_dead_server_never_saw_goes_to_the_other() -> Done {
    needs!(Need::Root, Need::Weir);
    let mut stand = Stand::up()?;
    stand.one.kill()?;
    // The first of these find out; none of them may be lost, and none may arrive twice or maimed.
    for number in 0..20 {
        let text = format!("order {number}: {}", "x".repeat(50_000));
        let reply = stand.visitor.send(stand.visitor.request("POST", "/echo").body(body(text.clone()))?)?;
        assert_eq!(
            (reply.upstream(), reply.text() == text),
            (Some("two"), true),
            "order {number}: {reply:?}"
        );
    }
    Ok(())
}

#[test]
fn a_server_whose_health_check_fails_gets_no_requests() -> Done {
    needs!(Need::Root, Need::Weir);
    // The servers answer everything with 200, except where the path names a status.
    let stand = Stand::up_with(|_, toml| {
        toml + "\n[service.sick]\nservers = [\"10.0.0.11:8080\"]\nhealth = { path = \"/status/500\", every = \"100ms\", \
                timeout = \"100ms\" }\nwhen_all_down = \"page:maintenance\"\n\
                \n[[route]]\nhost = \"sick.example.com\"\nservice = \"sick\"\n"
    })?;
    assert!(stand.visitor.clone().with_host("sick.example.com").get("/")?.is_maintenance());
    Ok(())
}

#[test]
fn a_server_that_answers_503_or_resets_costs_no_get_and_maims_no_put() -> Done {
    needs!(Need::Root, Need::Weir);
    // A second service of the same servers that nobody probes: it is found out by requests alone.
    let stand = Stand::up_with(|_, toml| {
        toml + "\n[service.unprobed]\nservers = [\"10.0.0.11:8080\", \"10.0.0.12:8080\"]\n\
                \n[[route]]\nhost = \"unprobed.example.com\"\nservice = \"unprobed\"\n"
    })?;
    for mood in [Mood::Unavailable, Mood::Reset] {
        let load = stand.load("/", 100)?;
        stand.one.be(&stand.lab, mood)?;
        for number in 0..10 {
            let text = format!("version {number}: {}", "x".repeat(50_000));
            let put = stand.visitor.request("PUT", "/echo").body(body(text.clone()))?;
            let reply = stand.visitor.send(put)?;
            let whole = reply.status == 200 && reply.text() == text;
            assert!(whole, "{mood:?}, {number}: {} with {} bytes", reply.status, reply.body.len());
        }
        load.wait_for_more(50, PATIENCE)?;
        load::all_served(&load.stop()?)?;
        stand.one.be(&stand.lab, Mood::Fine)?;
        wait_for_both(&stand.visitor)?;
    }
    // The log tells where a request has been. They go around: one of two begins at the server that breaks off.
    stand.one.be(&stand.lab, Mood::Reset)?;
    let unprobed = stand.visitor.clone().with_host("unprobed.example.com");
    for _ in 0..2 {
        assert_eq!(unprobed.get("/")?.upstream(), Some("two"));
    }
    let was_reset = |line: &Value| {
        let attempts = line["attempts"].as_array().map_or(&[][..], Vec::as_slice);
        attempts.len() == 2 && attempts[0]["failed"] == "broke" && attempts[1]["status"] == 200
    };
    wait::until_true("the log tells of a request that was sent again", PATIENCE, || {
        let log = std::fs::read_to_string(stand.lab.folder().join("access.log"))?;
        Ok(log.lines().filter_map(|line| serde_json::from_str(line).ok()).any(|line| was_reset(&line)))
    })?;
    stand.one.be(&stand.lab, Mood::Fine)?;
    wait_for_both(&stand.visitor)?;
    // Where every server says so, the client gets what the last one said.
    let reply = stand.visitor.get("/status/503")?;
    assert!(reply.status == 503 && reply.upstream().is_some(), "{reply:?}");
    Ok(())
}

#[test]
fn no_order_comes_twice_through_kills_hangs_and_resets() -> Done {
    needs!(Need::Root, Need::Weir);
    let mut stand = Stand::up()?;
    let orders = Load::ordering(&stand.lab.visitor, &stand.visitor, 0, 100)?;
    orders.wait_for_more(20, PATIENCE)?;
    stand.one.kill()?;
    orders.wait_for_more(30, PATIENCE)?;
    stand.one.start_again(&stand.lab)?;
    orders.wait_for("one is back", Instant::now(), PATIENCE, |record| record.served_by("one"))?;
    stand.one.hang()?;
    orders.wait_for_more(100, PATIENCE)?;
    // What was on its way to it is carried out now.
    stand.one.resume()?;
    orders.wait_for("one goes on", Instant::now(), PATIENCE, |record| record.served_by("one"))?;
    stand.one.be(&stand.lab, Mood::Reset)?;
    orders.wait_for_more(30, PATIENCE)?;
    let records = orders.stop()?;
    assert_eq!(load::failed(&records), 0, "{}", load::summary(&records));

    let text = std::fs::read_to_string(Server::orders(&stand.lab))?;
    let mut ids: Vec<u64> = text.lines().map(str::parse).collect::<Result<_, _>>()?;
    let served = records.iter().filter(|record| record.is_served()).count();
    assert!(ids.len() >= served && served > 100, "{} orders came, {served} were answered", ids.len());
    ids.sort_unstable();
    let twice: Vec<_> = ids.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    assert!(twice.is_empty(), "came twice: {twice:?}");
    Ok(())
}

#[test]
fn a_request_that_a_server_has_begun_to_read_is_sent_again_only_if_it_may_be_repeated() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up_with(|_, toml| {
        toml + "\n[service.cut]\nservers = [\"10.0.0.11:9090\", \"10.0.0.12:9090\"]\n\
                \n[[route]]\nhost = \"cut.example.com\"\nservice = \"cut\"\n"
    })?;
    let cut = Cutter::start(&[&stand.lab.one, &stand.lab.two])?;
    let visitor = stand.visitor.clone().with_host("cut.example.com");
    // From the first byte to the last of the request, and beyond it into the answer.
    for after in (1..700).step_by(50).map(Cut::Reading).chain([Cut::Whole, Cut::Answering]) {
        for (method, servers) in [("POST", 1), ("PUT", 2), ("GET", 2)] {
            let text = if method == "GET" { String::new() } else { "x".repeat(200) };
            cut.begin(after);
            let reply = visitor.send(visitor.request(method, "/").body(body(text))?)?;
            assert_eq!(reply.status, 503, "{method}, {after:?}: {reply:?}");
            assert_eq!(cut.met(), servers, "{method}, {after:?}: so many servers have seen something of it");
        }
    }
    Ok(())
}

#[test]
fn a_server_that_is_taken_out_finishes_the_post_that_it_has_and_its_gets_are_moved() -> Done {
    needs!(Need::Root, Need::Weir);
    // Patient probes: nobody shall seem to be silent on a busy machine.
    let patient = "every = \"500ms\", timeout = \"500ms\"";
    let stand = Stand::up_with(|_, toml| toml.replace("every = \"200ms\", timeout = \"150ms\"", patient))?;
    let under_way = |number: usize| -> anyhow::Result<u64> {
        let status = stand.weir.status()?;
        Ok(status["services"][0]["servers"][number]["active"].as_u64().unwrap_or_default())
    };
    std::thread::scope(|scope| {
        let ask = |method| {
            let visitor = &stand.visitor;
            scope.spawn(move || visitor.send(visitor.request(method, "/slow?ms=2500").body(nothing())?))
        };
        // They go around: one of each kind is at each server.
        let mut asked = Vec::new();
        for (method, count) in [("POST", 1), ("POST", 2), ("GET", 3), ("GET", 4)] {
            asked.push((method, ask(method)));
            wait::until_true(&format!("{count} are under way"), PATIENCE, || {
                Ok(under_way(0)? + under_way(1)? == count)
            })?;
        }
        assert_eq!((under_way(0)?, under_way(1)?), (2, 2));
        // Its health check fails from here on; what it has begun it goes on with.
        stand.one.be(&stand.lab, Mood::Unavailable)?;
        let mut answered = Vec::new();
        for (method, one) in asked {
            let reply = one.join().map_err(|_| anyhow::anyhow!("a visitor panicked"))??;
            assert_eq!(reply.status, 200, "{method}: {reply:?}");
            answered.push((method, reply.upstream().unwrap_or_default().to_owned()));
        }
        answered.sort();
        let expected = [("GET", "two"), ("GET", "two"), ("POST", "one"), ("POST", "two")];
        assert_eq!(answered, expected.map(|(method, server)| (method, server.to_owned())));
        Ok(())
    })
}

#[test]
fn a_hedged_get_does_not_wait_for_a_server_that_hangs() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up_with(|_, toml| {
        // Health checks would take the server out, and nothing would be left to see.
        let toml = toml.replace(
            "health = { path = \"/health\", every = \"200ms\", timeout = \"150ms\", fall = 2, rise = 2 }",
            "",
        );
        toml.replace("when_all_down", "hedge = { after = \"100ms\", most = \"100%\" }\nwhen_all_down")
    })?;
    let load = stand.load("/", 50)?;
    stand.one.hang()?;
    let hung = Instant::now();
    load.wait_for_more(100, PATIENCE)?;
    let records = load.stop()?;
    load::all_served(&records)?;
    let hedged = records.iter().filter(|record| record.took >= Duration::from_millis(100)).count();
    assert!(hedged > 20, "half of them meet the server that hangs, and {hedged} were asked twice");
    let wait = load::longest(&records);
    assert!(wait < Duration::from_secs(2), "somebody waited {}", load::slowest(&records, hung));
    Ok(())
}
