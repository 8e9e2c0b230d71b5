//! What a client may send, and how long it may take.

use std::time::{Duration, Instant};

use anyhow::Context;
use weir_lab::{
    lab::{
        SITE,
        addresses::{HTTP, HTTPS},
        raw::{Raw, serve},
        stand::{PATIENCE, Stand},
        wait,
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

const BYTES: &str = "127.0.0.1:7100";

fn stand(limits: &str) -> anyhow::Result<Stand> {
    Stand::up_with(|_, toml| {
        toml + &format!(
            "\n[entrypoint.http]\nbind = [\"{HTTP}\"]\nlimits = {{ {limits} }}\n\
             [service.bytes]\nservers = [\"{BYTES}\"]\n[[route]]\nhost = \"bytes.example\"\nservice = \"bytes\"\n"
        )
    })
}

fn raw(stand: &Stand) -> anyhow::Result<Raw> {
    Raw::connect(&stand.lab.visitor, HTTP)
}

fn refused(stand: &Stand, reason: &str) -> anyhow::Result<u64> {
    let status = stand.weir.status()?;
    let entrypoints = status["entrypoints"].as_array().context("no entrypoints")?;
    let http = entrypoints.iter().find(|entrypoint| entrypoint["name"] == "http").context("no http")?;
    Ok(http["refused"][reason].as_u64().unwrap_or(0))
}

fn is_refused(stand: &Stand, reason: &str, count: u64) -> Done {
    wait::until_true(&format!("{count} {reason} are counted"), PATIENCE, || {
        Ok(refused(stand, reason)? == count)
    })
}

#[test]
fn heads_that_are_too_large_get_the_status_for_it() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand("fields = 20, head = '2KiB'")?;
    let fields = |count: usize| "A: b\r\n".repeat(count);
    for (request, status, reason) in [
        (format!("GET / HTTP/1.1\r\nHost: {SITE}\r\n{}\r\n", fields(20)), 431, "too_many_fields"),
        (format!("GET / HTTP/1.1\r\nHost: {SITE}\r\nA: {}\r\n\r\n", "x".repeat(2048)), 431, "head_too_large"),
        (format!("GET /{} HTTP/1.1\r\nHost: {SITE}\r\n\r\n", "x".repeat(2048)), 414, "target_too_long"),
        // It is not waited for its end.
        (format!("GET / HTTP/1.1\r\nHost: {SITE}\r\nA: {}", "x".repeat(4096)), 431, "head_too_large"),
    ] {
        let before = refused(&stand, reason)?;
        let mut raw = raw(&stand)?;
        raw.say(request)?;
        assert_eq!(raw.answer()?.status, status, "{reason}");
        assert!(raw.has_ended()?);
        is_refused(&stand, reason, before + 1)?;
    }
    let mut raw = raw(&stand)?;
    raw.say(format!("GET / HTTP/1.1\r\nHost: {SITE}\r\n{}\r\n", fields(19)))?;
    assert_eq!(raw.answer()?.status, 200);
    Ok(())
}

#[test]
fn a_head_that_takes_too_long_gets_408_and_a_silent_client_is_let_go() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand("head_time = '1s', keep_alive = '1s'")?;
    let begun = Instant::now();
    let (mut slow, mut silent, mut done) = (raw(&stand)?, raw(&stand)?, raw(&stand)?);
    slow.say(format!("GET /slowly HTTP/1.1\r\nHost: {SITE}\r\nX: "))?;
    done.say(format!("GET / HTTP/1.1\r\nHost: {SITE}\r\n\r\n"))?;
    assert_eq!(done.answer()?.status, 200);
    // A byte now and then doesn't help.
    let answer = loop {
        let _ = slow.say("x");
        slow.stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        let mut byte = [0];
        if slow.stream.peek(&mut byte).is_ok() {
            break slow.answer()?;
        }
        assert!(begun.elapsed() < PATIENCE, "it is waited for");
    };
    assert_eq!(answer.status, 408);
    assert!(silent.has_ended()? && done.has_ended()?, "without a word");
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(900), "{took:?}");
    is_refused(&stand, "head_timeout", 1)
}

#[test]
fn a_body_that_stands_still_gets_408_and_one_that_moves_is_taken() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand("body_idle = '1s'")?;
    let mut still = raw(&stand)?;
    still.say(format!("POST /count HTTP/1.1\r\nHost: {SITE}\r\nContent-Length: 10\r\n\r\nhello"))?;
    let mut moving = raw(&stand)?;
    moving.say(format!("POST /count HTTP/1.1\r\nHost: {SITE}\r\nContent-Length: 6\r\n\r\n"))?;
    for _ in 0..5 {
        moving.say("x")?;
        // Slower than the limit in all, and never within.
        std::thread::park_timeout(Duration::from_millis(400));
    }
    moving.say("x")?;
    assert_eq!(moving.answer()?.body, "6");
    assert_eq!(still.answer()?.status, 408);
    assert!(still.has_ended()?);
    is_refused(&stand, "body_timeout", 1)
}

#[test]
fn an_answer_that_nobody_takes_is_cut_off() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand("body_idle = '1s'")?;
    let mut raw = raw(&stand)?;
    raw.say(format!("GET /bytes?n=100000000 HTTP/1.1\r\nHost: {SITE}\r\n\r\n"))?;
    is_refused(&stand, "answer_timeout", 1)?;
    assert!(raw.rest()?.len() < 100_000_000);
    wait::until_true("the access log says so", PATIENCE, || {
        let log = std::fs::read_to_string(stand.lab.folder().join("access.log")).unwrap_or_default();
        Ok(log.contains(r#""refused":"answer_timeout""#) && !log.contains("client_left"))
    })
}

#[test]
fn an_answer_that_stops_in_the_middle_is_given_up() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand("stream_idle = '1s'")?;
    serve(&stand.lab.edge, BYTES, |_, mut raw| {
        raw.head()?;
        raw.say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")?;
        // Until the other side gives up.
        raw.rest().map(drop)
    })?;
    let mut raw = raw(&stand)?;
    raw.say("GET / HTTP/1.1\r\nHost: bytes.example\r\n\r\n")?;
    assert!(raw.head()?.contains("content-length: 10"));
    assert_eq!(raw.rest()?, b"hello");
    wait::until_true("it is in the access log", PATIENCE, || {
        let log = std::fs::read_to_string(stand.lab.folder().join("access.log")).unwrap_or_default();
        Ok(log.contains("server_broke_off"))
    })
}

#[test]
fn a_websocket_is_kept_by_either_side_and_ends_when_both_are_silent() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand("stream_idle = '1s'")?;
    serve(&stand.lab.edge, BYTES, |_, mut raw| {
        raw.head()?;
        raw.say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")?;
        for _ in 0..6 {
            std::thread::park_timeout(Duration::from_millis(400));
            raw.say("tick")?;
        }
        raw.rest().map(drop)
    })?;
    let mut raw = raw(&stand)?;
    raw.say("GET / HTTP/1.1\r\nHost: bytes.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")?;
    assert!(raw.head()?.starts_with("http/1.1 101 "));
    let ticks = raw.rest()?;
    assert_eq!(ticks, b"tick".repeat(6), "more than two limits long");
    is_refused(&stand, "stream_timeout", 1)
}

#[test]
fn a_client_has_so_many_connections_and_others_are_not_touched() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand("connections_per_client = 3")?;
    let mut kept = Vec::new();
    for _ in 0..3 {
        let mut raw = raw(&stand)?;
        raw.say(format!("GET / HTTP/1.1\r\nHost: {SITE}\r\n\r\n"))?;
        assert_eq!(raw.answer()?.status, 200);
        kept.push(raw);
    }
    let answer = raw(&stand)?.answer()?;
    assert_eq!(answer.status, 429);
    assert!(answer.head.contains("retry-after: "), "{}", answer.head);
    is_refused(&stand, "connections_per_client", 1)?;
    let mut other = Raw::connect(&stand.lab.stranger, HTTP)?;
    other.say(format!("GET / HTTP/1.1\r\nHost: {SITE}\r\n\r\n"))?;
    assert_eq!(other.answer()?.status, 200);
    // A place that is given up is free again.
    kept.pop();
    wait::until_true("there is a place again", PATIENCE, || {
        let mut raw = raw(&stand)?;
        raw.say(format!("GET / HTTP/1.1\r\nHost: {SITE}\r\n\r\n"))?;
        Ok(raw.answer()?.status == 200)
    })
}

#[test]
fn peers_that_bring_many_clients_are_limited_only_together() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up_with(|_, toml| {
        toml.replace(
            "[entrypoint.https]\n",
            "[entrypoint.https]\nlimits = { connections = 4, connections_per_client = 1 }\n",
        )
    })?;
    let mut open = Vec::new();
    wait::until_true("four connections of a trusted peer are open", PATIENCE, || {
        open.push(Raw::connect(&stand.lab.visitor, HTTPS)?);
        Ok(stand.weir.status()?["entrypoints"][0]["connections"] == 4)
    })?;
    // With TLS there are no words for it.
    let mut further = Raw::connect(&stand.lab.visitor, HTTPS)?;
    assert!(further.has_ended()?);
    let refused = stand.weir.status()?["entrypoints"][0]["refused"].clone();
    assert!(
        refused["connections"].as_u64() >= Some(1) && refused.get("connections_per_client").is_none(),
        "{refused}"
    );
    Ok(())
}
