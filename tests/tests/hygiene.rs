//! What must not pass: requests that two readers could read differently, and paths that climb. And what must, though it
//! is unusual.

use std::time::Duration;

use anyhow::Context;
use serde_json::Value;
use weir_lab::{
    lab::{
        SITE,
        addresses::HTTP,
        raw::{Raw, serve},
        stand::{PATIENCE, Stand},
        wait,
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

/// Where a server of bytes listens, on the edge's own loopback.
const BYTES: &str = "127.0.0.1:7100";

/// The standard, and a port without TLS at which raw bytes can be said.
fn stand() -> anyhow::Result<Stand> {
    Stand::up_with(|_, toml| toml + &format!("\n[entrypoint.http]\nbind = [\"{HTTP}\"]\n"))
}

/// As [`stand`], where a host leads to a server of raw bytes.
fn stand_with_bytes() -> anyhow::Result<Stand> {
    Stand::up_with(|_, toml| {
        toml + &format!(
            "\n[entrypoint.http]\nbind = [\"{HTTP}\"]\n[service.bytes]\nservers = [\"{BYTES}\"]\n\
             [[route]]\nhost = \"bytes.example\"\nservice = \"bytes\"\n"
        )
    })
}

fn raw(stand: &Stand) -> anyhow::Result<Raw> {
    Raw::connect(&stand.lab.visitor, HTTP)
}

/// How often each rule was broken at the port without TLS.
fn refused(stand: &Stand) -> anyhow::Result<Value> {
    let status = stand.weir.status()?;
    let entrypoints = status["entrypoints"].as_array().context("no entrypoints")?;
    let http = entrypoints.iter().find(|entrypoint| entrypoint["name"] == "http").context("no http")?;
    Ok(http["refused"].clone())
}

/// The access log's lines that have `text`, as soon as there are as many as that.
fn log_lines(stand: &Stand, text: &str, count: usize) -> anyhow::Result<Vec<Value>> {
    wait::until(&format!("{count} lines with {text} in the access log"), PATIENCE, || {
        let log = std::fs::read_to_string(stand.lab.folder().join("access.log")).unwrap_or_default();
        let lines: Vec<Value> = log
            .lines()
            .filter(|line| line.contains(text))
            .map(|line| serde_json::from_str(line).unwrap_or_default())
            .collect();
        Ok((lines.len() >= count).then_some(lines))
    })
}

#[test]
fn what_smuggles_is_answered_with_400_and_never_reaches_a_server() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand()?;
    let smuggled = format!("GET /smuggled HTTP/1.1\r\nHost: {SITE}\r\n\r\n");
    let length = smuggled.len();
    let with =
        |fields: &str, body: &str| format!("POST /echo HTTP/1.1\r\nHost: {SITE}\r\n{fields}\r\n\r\n{body}");
    let chunks = format!("0\r\n\r\n{smuggled}");
    let cases = [
        (with(&format!("Content-Length: {length}\r\nTransfer-Encoding: chunked"), &chunks), "two_lengths"),
        (with("Transfer-Encoding: chunked\r\nContent-Length: 5", &chunks), "two_lengths"),
        (with("Transfer-Encoding: xchunked", &chunks), "transfer_encoding"),
        (with("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", &chunks), "transfer_encoding"),
        (with("Transfer-Encoding: gzip, chunked", &chunks), "transfer_encoding"),
        (with("Transfer-Encoding: chunked, identity", &chunks), "transfer_encoding"),
        (with("Transfer-Encoding:\u{b}chunked", &chunks), "control_byte"),
        (with("Transfer-Encoding\t: chunked", &chunks), "field_name"),
        (with("X: y\nTransfer-Encoding: chunked", &chunks), "line_end"),
        (with("X: y\rTransfer-Encoding: chunked", &chunks), "line_end"),
        (with("X: y\r\n Transfer-Encoding: chunked", &chunks), "folded_line"),
        (with("X: y\0Transfer-Encoding: chunked", &chunks), "control_byte"),
        (with(&format!("Content-Length: 0\r\nContent-Length: {length}"), &smuggled), "content_length"),
        (with(&format!("Content-Length: +{length}"), &smuggled), "content_length"),
        (with("Content-Length: 0, 0", &smuggled), "content_length"),
        (with("Content-Length: 18446744073709551617", &smuggled), "content_length"),
        (
            format!("POST /echo HTTP/1.0\r\nHost: {SITE}\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"),
            "transfer_encoding",
        ),
        (format!("GET /\r\n\r\n{smuggled}"), "request_line"),
        (format!("GET / HTTP/2.0\r\nHost: {SITE}\r\n\r\n{smuggled}"), "version"),
        (format!("GET /a#/smuggled HTTP/1.1\r\nHost: {SITE}\r\n\r\n"), "target"),
        (format!("GET /a\\b HTTP/1.1\r\nHost: {SITE}\r\n\r\n"), "target"),
        (format!("GET {SITE}:80 HTTP/1.1\r\nHost: {SITE}\r\n\r\n"), "target"),
        (format!("CONNECT {SITE}:80 HTTP/1.1\r\nHost: {SITE}:80\r\n\r\n"), "connect"),
        (format!("GET http://other.example/ HTTP/1.1\r\nHost: {SITE}\r\n\r\n"), "host"),
        (format!("GET / HTTP/1.1\r\nHost: {SITE}\r\nHost: other.example\r\n\r\n"), "host"),
        (format!("GET / HTTP/1.1\r\nHost: {SITE}/smuggled\r\n\r\n"), "host"),
        ("GET / HTTP/1.1\r\nX: y\r\n\r\n".to_owned(), "host"),
        (format!("GET /a/../smuggled HTTP/1.1\r\nHost: {SITE}\r\n\r\n"), "path"),
        (format!("GET /a/%2e%2e/smuggled HTTP/1.1\r\nHost: {SITE}\r\n\r\n"), "path"),
        (format!("GET /a/..;/smuggled HTTP/1.1\r\nHost: {SITE}\r\n\r\n"), "path"),
        (format!("GET /a%2f..%2fsmuggled HTTP/1.1\r\nHost: {SITE}\r\n\r\n"), "path"),
        (format!("GET /smuggled%00.html HTTP/1.1\r\nHost: {SITE}\r\n\r\n"), "path"),
        (format!("POST / HTTP/1.1\r\nHost: {SITE}\r\nExpect: the-worst\r\n\r\n"), "expectation"),
    ];
    let mut counted = std::collections::BTreeMap::new();
    for (request, reason) in cases {
        let mut raw = raw(&stand)?;
        raw.say(&request)?;
        let answer = raw.answer().with_context(|| format!("{reason}: {request:?}"))?;
        let expected = match reason {
            "connect" => 405,
            "expectation" => 417,
            _ => 400,
        };
        assert_eq!(answer.status, expected, "{reason}: {request:?}: {}", answer.head);
        assert!(answer.head.contains("x-request-id: "), "{}", answer.head);
        if !["host", "path", "connect", "expectation"].contains(&reason) {
            assert!(raw.has_ended()?, "{reason}: the connection goes on: {request:?}");
        }
        *counted.entry(reason).or_insert(0) += 1;
    }
    assert_eq!(refused(&stand)?, serde_json::to_value(&counted)?);
    for (reason, count) in counted {
        let lines = log_lines(&stand, &format!("\"refused\":\"{reason}\""), count)?;
        assert_eq!(lines.len(), count, "{reason}");
        assert!(lines.iter().all(|line| line["flags"] == serde_json::json!(["refused"])), "{lines:?}");
        assert!(lines.iter().all(|line| line.get("upstream").is_none()), "it reached a server: {lines:?}");
    }
    Ok(())
}

#[test]
fn a_refused_request_is_answered_in_its_turn() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand()?;
    let mut raw = raw(&stand)?;
    let good = format!("GET /slow?ms=100 HTTP/1.1\r\nHost: {SITE}\r\n\r\n");
    let bad = format!("GET /bad HTTP/1.1\r\nHost: {SITE}\r\nX : y\r\n\r\n");
    raw.say(format!("{good}{good}{bad}{good}"))?;
    for expected in [200, 200, 400] {
        assert_eq!(raw.answer()?.status, expected);
    }
    assert!(raw.has_ended()?);
    let line = &log_lines(&stand, "field_name", 1)?[0];
    assert_eq!(
        (&line["method"], &line["path"], &line["status"]),
        (&"GET".into(), &"/bad".into(), &400.into())
    );
    Ok(())
}

#[test]
fn a_body_with_a_broken_chunk_is_refused_and_never_whole_for_the_server() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand()?;
    for rest in [
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX",
        "-5\r\nhello",
        "FFFFFFFFFFFFFFFFF\r\n",
        "5;a\0b\r\nhello\r\n",
    ] {
        let mut raw = raw(&stand)?;
        raw.say(format!(
            "POST /count HTTP/1.1\r\nHost: {SITE}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n{rest}"
        ))?;
        assert_eq!(raw.answer()?.status, 400, "{rest:?}");
        assert!(raw.has_ended()?, "{rest:?}");
    }
    assert_eq!(refused(&stand)?["chunk"], 5);
    Ok(())
}

#[test]
fn a_request_in_pieces_of_one_byte_is_served() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand()?;
    let mut raw = raw(&stand)?;
    let request = format!(
        "POST /echo HTTP/1.1\r\nHost: {SITE}\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nA: b\r\n\r\n\
         GET / HTTP/1.0\r\nHost: {SITE}\r\n\r\n"
    );
    for byte in request.bytes() {
        raw.say([byte])?;
    }
    let head = raw.head()?;
    assert!(head.starts_with("http/1.1 200 ") && head.contains("transfer-encoding: chunked"), "{head}");
    let rest = String::from_utf8(raw.rest()?)?;
    assert!(rest.contains("hello") && rest.contains("HTTP/1.0 200 OK"), "{rest}");
    Ok(())
}

#[test]
fn odd_paths_take_the_route_of_their_plain_form_and_are_sent_on_as_they_are() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up_with(|_, toml| {
        toml + &format!(
            "\n[entrypoint.http]\nbind = [\"{HTTP}\"]\n[service.bytes]\nservers = [\"{BYTES}\"]\n\
             [[route]]\nhost = \"{SITE}\"\npath = \"/admin\"\nservice = \"bytes\"\n"
        )
    })?;
    // It answers with the request line that it got.
    serve(&stand.lab.edge, BYTES, |_, mut raw| {
        let head = raw.head()?;
        let line = head.lines().next().unwrap_or_default().to_owned();
        raw.say(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{line}",
            line.len()
        ))
    })?;
    for path in ["/admin", "//admin", "/%61dmin/x", "/admin;v=1", "///admin//x?a=/../b", "/admin%2fx"] {
        let mut raw = raw(&stand)?;
        raw.say(format!("GET {path} HTTP/1.1\r\nHost: {SITE}\r\n\r\n"))?;
        assert_eq!(raw.answer()?.body, format!("get {} http/1.1", path.to_lowercase()));
    }
    Ok(())
}

#[test]
fn a_client_that_ends_its_side_still_gets_its_answer() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand()?;
    for path in ["/slow?ms=300", "/drip?n=3&ms=100"] {
        let mut raw = raw(&stand)?;
        raw.say(format!("GET {path} HTTP/1.1\r\nHost: {SITE}\r\n\r\n"))?;
        raw.end()?;
        let answer = String::from_utf8(raw.rest()?)?;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{path}: {answer}");
        assert!(answer.contains("hello") || answer.matches("drop").count() == 3, "{path}: {answer}");
    }
    Ok(())
}

#[test]
fn http10_is_spoken_with_those_who_speak_it() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand()?;
    let mut old = raw(&stand)?;
    old.say(format!("GET /chunked?n=10 HTTP/1.0\r\nHost: {SITE}\r\n\r\n"))?;
    let head = old.head()?;
    assert!(head.starts_with("http/1.0 200 ") && !head.contains("transfer-encoding"), "{head}");
    assert_eq!(old.rest()?.len(), 10, "the body goes to the connection's end");
    let mut kept = raw(&stand)?;
    for _ in 0..2 {
        kept.say(format!("GET / HTTP/1.0\r\nHost: {SITE}\r\nConnection: keep-alive\r\n\r\n"))?;
        let answer = kept.answer()?;
        assert!(answer.status == 200 && answer.head.contains("connection: keep-alive"), "{}", answer.head);
    }
    Ok(())
}

#[test]
fn a_head_request_gets_the_length_and_no_body() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand()?;
    let mut raw = raw(&stand)?;
    for _ in 0..2 {
        raw.say(format!("HEAD /bytes?n=1234 HTTP/1.1\r\nHost: {SITE}\r\n\r\n"))?;
        let head = raw.head()?;
        assert!(head.starts_with("http/1.1 200 ") && head.contains("content-length: 1234"), "{head}");
    }
    Ok(())
}

#[test]
fn a_server_that_answers_early_and_resets_is_heard_all_the_same() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand_with_bytes()?;
    // It says no without reading the body, and closes: what is unread makes that a reset.
    serve(&stand.lab.edge, BYTES, |_, mut raw| {
        raw.head()?;
        raw.say("HTTP/1.1 413 Content Too Large\r\nContent-Length: 7\r\nConnection: close\r\n\r\ntoo big")
    })?;
    let mut raw = raw(&stand)?;
    raw.say("POST /x HTTP/1.1\r\nHost: bytes.example\r\nContent-Length: 8000000\r\n\r\n")?;
    // The client goes on sending until nobody takes it any more.
    let mut sending = raw.stream.try_clone()?;
    sending.set_write_timeout(Some(Duration::from_secs(2)))?;
    let sender = std::thread::spawn(move || {
        let block = [b'x'; 65536];
        (0..122).take_while(|_| std::io::Write::write_all(&mut sending, &block).is_ok()).count()
    });
    let answer = raw.answer()?;
    assert_eq!((answer.status, answer.body.as_str()), (413, "too big"));
    let _ = sender.join();
    Ok(())
}

#[test]
fn a_client_is_told_to_continue_only_when_its_body_is_wanted() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand()?;
    let mut wanted = raw(&stand)?;
    wanted.say(format!(
        "POST /count HTTP/1.1\r\nHost: {SITE}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    ))?;
    assert_eq!(wanted.head()?, "http/1.1 100 continue\r\n\r\n");
    wanted.say("hello")?;
    assert_eq!(wanted.answer()?.body, "5");
    // Nothing leads there: the body isn't asked for.
    let mut unwanted = raw(&stand)?;
    unwanted.say(
        "POST / HTTP/1.1\r\nHost: nowhere.example\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    )?;
    assert_eq!(unwanted.answer()?.status, 404);
    Ok(())
}

#[test]
fn answers_that_two_readers_could_read_differently_become_the_page() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand_with_bytes()?;
    const ANSWERS: [&str; 5] = [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n\r\n",
    ];
    serve(&stand.lab.edge, BYTES, |_, mut raw| {
        let head = raw.head()?;
        let index =
            head.split("post /").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<usize>().ok());
        raw.say(ANSWERS[index.context("no number")?])
    })?;
    for (index, answer) in ANSWERS.iter().enumerate() {
        let mut raw = raw(&stand)?;
        raw.say(format!("POST /{index} HTTP/1.1\r\nHost: bytes.example\r\n\r\n"))?;
        assert_eq!(raw.answer()?.status, 503, "{answer:?}");
    }
    Ok(())
}

#[test]
fn a_server_is_not_asked_to_speak_http2_behind_an_upgrade() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand()?;
    let mut raw = raw(&stand)?;
    raw.say(format!(
        "GET /headers HTTP/1.1\r\nHost: {SITE}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n\
         GET /next HTTP/1.1\r\nHost: {SITE}\r\n\r\n"
    ))?;
    let answer = raw.answer()?;
    assert_eq!(answer.status, 200);
    for gone in ["upgrade", "http2-settings"] {
        assert!(!answer.body.to_lowercase().contains(gone), "{}", answer.body);
    }
    assert_eq!(raw.answer()?.status, 200, "what follows is HTTP");
    Ok(())
}

#[test]
fn early_hints_reach_clients_that_know_them() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand_with_bytes()?;
    serve(&stand.lab.edge, BYTES, |_, mut raw| {
        raw.head()?;
        raw.say("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: x\r\n\r\n")?;
        raw.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
    })?;
    let mut knows = raw(&stand)?;
    knows.say("GET / HTTP/1.1\r\nHost: bytes.example\r\n\r\n")?;
    let hint = knows.head()?;
    assert!(hint.starts_with("http/1.1 103 early hints\r\nlink: </a.css>\r\n"), "{hint}");
    assert!(!hint.contains("connection"), "{hint}");
    assert_eq!(knows.answer()?.body, "hi");
    let mut old = raw(&stand)?;
    old.say("GET / HTTP/1.0\r\nHost: bytes.example\r\n\r\n")?;
    assert!(old.head()?.starts_with("http/1.0 200 "));
    Ok(())
}

#[test]
fn a_request_ends_when_its_client_leaves() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand_with_bytes()?;
    let (asked, hears) = std::sync::mpsc::channel();
    // It never answers, and tells when it is asked, and when it is left.
    serve(&stand.lab.edge, BYTES, move |_, mut raw| {
        raw.head()?;
        asked.send("asked")?;
        if raw.has_ended()? {
            asked.send("left")?;
        }
        Ok(())
    })?;
    let mut raw = raw(&stand)?;
    raw.say("GET /forever HTTP/1.1\r\nHost: bytes.example\r\n\r\n")?;
    assert_eq!(hears.recv_timeout(PATIENCE)?, "asked");
    // A reset: to close one's side alone is not to leave.
    socket2::SockRef::from(&raw.stream).set_linger(Some(Duration::ZERO))?;
    drop(raw);
    assert_eq!(hears.recv_timeout(PATIENCE)?, "left");
    let line = &log_lines(&stand, "/forever", 1)?[0];
    assert_eq!((&line["status"], &line["flags"]), (&499.into(), &serde_json::json!(["client_left"])));
    Ok(())
}

#[test]
fn a_body_that_nobody_wants_does_not_spoil_the_next_request() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand()?;
    let mut raw = raw(&stand)?;
    for framed in [
        format!("Content-Length: 100000\r\n\r\n{}", "x".repeat(100_000)),
        "Transfer-Encoding: chunked\r\n\r\n3\r\nGET\r\n0\r\n\r\n".to_owned(),
    ] {
        raw.say(format!("POST / HTTP/1.1\r\nHost: nowhere.example\r\n{framed}"))?;
        let answer = raw.answer()?;
        assert_eq!(
            (answer.status, answer.head.contains("connection: close")),
            (404, false),
            "{}",
            answer.head
        );
        raw.say(format!("GET / HTTP/1.1\r\nHost: {SITE}\r\n\r\n"))?;
        assert_eq!(raw.answer()?.status, 200);
    }
    // Too much of it: the connection is said to end, and does.
    raw.say("POST / HTTP/1.1\r\nHost: nowhere.example\r\nContent-Length: 10000000\r\n\r\n")?;
    let answer = raw.answer()?;
    assert!(answer.status == 404 && answer.head.contains("connection: close"), "{}", answer.head);
    assert!(raw.has_ended()?);
    Ok(())
}

#[test]
fn trailers_reach_clients_that_take_them() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand_with_bytes()?;
    serve(&stand.lab.edge, BYTES, |_, mut raw| {
        raw.head()?;
        raw.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n")
    })?;
    for (fields, end) in
        [("TE: trailers\r\n", "2\r\nhi\r\n0\r\nx-sum: 1\r\n\r\n"), ("", "2\r\nhi\r\n0\r\n\r\n")]
    {
        let mut raw = raw(&stand)?;
        raw.say(format!("GET / HTTP/1.1\r\nHost: bytes.example\r\n{fields}Connection: close\r\n\r\n"))?;
        let answer = String::from_utf8(raw.rest()?)?;
        assert!(answer.ends_with(&format!("\r\n\r\n{end}")), "{fields}: {answer}");
    }
    Ok(())
}
