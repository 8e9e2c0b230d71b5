//! Servers die, hang, return; visitors shouldn't notice, or get the page at once.

use std::time::{Duration, Instant};

use weir_lab::{
    lab::{
        addresses::HTTPS,
        client::{Browser, body, nothing},
        load::{self, Outcome, Record},
        stand::{PATIENCE, Stand},
    },
    needs,
    needs::Need,
};

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
