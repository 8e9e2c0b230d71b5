//! HTTP/2 on both sides: frame by frame where no library would go, with servers that speak it, with trailers and streams.

use std::{collections::BTreeSet, io::Read, pin::Pin, task::Poll, time::Duration};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Request,
    body::{Body, Frame},
    client::conn::http2,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, sync::mpsc};
use weir_lab::{
    lab::{
        SITE,
        addresses::{EDGE, HTTP, HTTPS},
        client::{Browser, body},
        frames::{
            self, ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS,
            WINDOW_UPDATE,
        },
        raw::{Raw, serve},
        stand::{PATIENCE, Stand},
        wait, weir,
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

const BYTES: &str = "127.0.0.1:7100";

/// With a port without TLS, and services whose servers are spoken to with `protocol`.
fn stand(limits: &str, service: &str) -> anyhow::Result<Stand> {
    Stand::up_with(|_, toml| {
        toml.replace("[service.app]\n", &format!("[service.app]\n{service}\n"))
            + &format!(
                "\n[entrypoint.http]\nbind = [\"{HTTP}\"]\nlimits = {{ {limits} }}\n\
                 [service.bytes]\nservers = [\"{BYTES}\"]\n{service}\n\
                 [[route]]\nhost = \"bytes.example\"\nservice = \"bytes\"\n"
            )
    })
}

fn http2(stand: &Stand) -> anyhow::Result<Raw> {
    let mut raw = Raw::connect(&stand.lab.visitor, HTTP)?;
    raw.begin_http2()?;
    Ok(raw)
}

fn counted(stand: &Stand, reason: &str) -> anyhow::Result<u64> {
    let status = stand.weir.status()?;
    let entrypoints = status["entrypoints"].as_array().context("no entrypoints")?;
    let http = entrypoints.iter().find(|entrypoint| entrypoint["name"] == "http").context("no http")?;
    Ok(http["refused"][reason].as_u64().unwrap_or(0))
}

#[test]
fn http2_is_spoken_without_tls_by_those_who_know() -> Done {
    needs!(Need::Root, Need::Weir, Need::Program("curl"));
    let stand = stand("", "")?;
    let mut curl = stand.lab.visitor.command("curl")?;
    curl.args([
        "-sS",
        "-m",
        "5",
        "--http2-prior-knowledge",
        "-o",
        "/dev/null",
        "-w",
        "%{http_version} %{http_code}",
    ])
    .args(["-H", &format!("Host: {SITE}"), &format!("http://{HTTP}/")]);
    let ran = weir::finish(curl)?;
    assert_eq!((ran.stdout.as_str(), ran.code), ("2 200", 0), "{}", ran.stderr);
    // Whatever only begins like its preface is HTTP/1.
    for begin in ["P", "PR", "PRI * HTTP/2.0\r\n\r\nSM"] {
        let mut raw = Raw::connect(&stand.lab.visitor, HTTP)?;
        raw.say(begin)?;
        std::thread::park_timeout(Duration::from_millis(30));
        let rest = if begin.len() < 3 {
            format!("{}OPFIND / HTTP/1.1\r\nHost: {SITE}\r\n\r\n", if begin == "P" { "R" } else { "" })
        } else {
            "?\r\n\r\n".to_owned()
        };
        raw.say(rest)?;
        assert_eq!(raw.answer()?.status, if begin.len() < 3 { 200 } else { 400 }, "{begin}");
    }
    Ok(())
}

#[test]
fn heads_that_http2_forbids_end_their_stream_and_no_other() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand("", "")?;
    let mut raw = http2(&stand)?;
    let mut stream = 1;
    for (what, block) in [
        ("a connection's field", frames::get("/", &[("connection", "close")])),
        ("keep-alive", frames::get("/", &[("keep-alive", "timeout=5")])),
        ("transfer-encoding", frames::get("/", &[("transfer-encoding", "chunked")])),
        ("upgrade", frames::get("/", &[("upgrade", "websocket")])),
        ("te other than trailers", frames::get("/", &[("te", "gzip")])),
        ("upper case", frames::get("/", &[("X-Upper", "y")])),
        ("a line end in a value", frames::get("/", &[("x", "a\r\nb: c")])),
        ("a line end in a name", frames::get("/", &[("x\r\nb", "c")])),
        ("no path", frames::block(&[(":method", "GET"), (":scheme", "http"), (":authority", SITE)])),
        ("a pseudo field twice", frames::get("/", &[(":path", "/b")])),
        ("an unknown pseudo field", frames::get("/", &[(":x", "/b")])),
    ] {
        raw.say_frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)?;
        let end = raw.frame_of(&[RST_STREAM, GOAWAY, HEADERS]).with_context(|| what.to_owned())?;
        let refused = match end.kind {
            RST_STREAM | GOAWAY => end.code() == frames::PROTOCOL_ERROR,
            _ => end.status() == Some(400),
        };
        assert!(refused, "{what}: {end:?}");
        if end.kind == GOAWAY {
            raw = http2(&stand)?;
            stream = 1;
            continue;
        }
        stream += 2;
    }
    for (what, block) in [
        ("two hosts", frames::get("/", &[("host", "other.example")])),
        ("a path that climbs", frames::get("/a/../b", &[])),
        ("a path that climbs in disguise", frames::get("/a/%2e%2e/b", &[])),
        (
            "user information",
            frames::block(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", "u@example.com"),
                (":path", "/"),
            ]),
        ),
    ] {
        raw.say_frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)?;
        let answer = raw.frame_of(&[RST_STREAM, GOAWAY, HEADERS])?;
        let refused = answer.status() == Some(400) || answer.kind == RST_STREAM;
        assert!(refused && answer.kind != GOAWAY, "{what}: {answer:?}");
        stream += 2;
    }
    // The connection goes on all the same.
    raw.say_frame(
        HEADERS,
        END_HEADERS | END_STREAM,
        stream,
        &frames::get("/", &[("te", "trailers"), ("host", SITE)]),
    )?;
    let answer = raw.frame_of(&[RST_STREAM, GOAWAY, HEADERS])?;
    assert_eq!(answer.status(), Some(200), "{answer:?}");
    Ok(())
}

#[test]
fn a_body_must_be_as_long_as_its_head_says() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand("", "")?;
    for sent in ["abc", "abcdefg"] {
        let mut raw = http2(&stand)?;
        let post = frames::block(&[
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", SITE),
            (":path", "/count"),
            ("content-length", "5"),
        ]);
        raw.say_frame(HEADERS, END_HEADERS, 1, &post)?;
        raw.say_frame(DATA, END_STREAM, 1, sent.as_bytes())?;
        let end = raw.frame_of(&[RST_STREAM, GOAWAY, HEADERS])?;
        assert!(end.kind != HEADERS || end.status() == Some(400), "{sent}: {end:?}");
        if end.kind != HEADERS {
            assert_eq!(end.code(), frames::PROTOCOL_ERROR, "{sent}");
        }
    }
    Ok(())
}

#[test]
fn rapid_resets_end_the_connection_and_are_counted() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand("", "")?;
    let mut raw = http2(&stand)?;
    let block = frames::get("/slow?ms=5000", &[]);
    let mut attack = Vec::new();
    for number in 0..2000 {
        let stream = 2 * number + 1;
        attack.extend(frames::Frame::new(HEADERS, END_HEADERS | END_STREAM, stream, &block).bytes());
        attack.extend(frames::Frame::new(RST_STREAM, 0, stream, &8u32.to_be_bytes()).bytes());
    }
    // The connection may be closed while this is still on its way.
    let _ = raw.say(attack);
    let end = raw.frame_of(&[GOAWAY])?;
    assert_eq!(end.code(), frames::ENHANCE_YOUR_CALM);
    wait::until_true("it is counted", PATIENCE, || Ok(counted(&stand, "http2_flood")? == 1))?;
    assert_eq!(stand.visitor.get("/")?.status, 200);
    Ok(())
}

/// Asks for so many streams, ten at a time, and resets them once they are at work. Ends early when the connection does, and
/// yields how many were reset.
fn reset_at_work(raw: &mut Raw, first: u32, count: u32, path: &str, answered: bool) -> anyhow::Result<u32> {
    let head = frames::get(path, &[]);
    for ten in 0..count / 10 {
        let streams = (0..10).map(|nth| first + 2 * (10 * ten + nth));
        // The connection may end in the middle of this; why, it says.
        for stream in streams.clone() {
            let _ = raw.say_frame(HEADERS, END_HEADERS | END_STREAM, stream, &head);
        }
        let _ = raw.say_frame(PING, 0, 0, &[7; 8]);
        let (mut pongs, mut heads) = (0, 0);
        while pongs < 1 || (answered && heads < 10) {
            match raw.frame_of(&[PING, HEADERS, GOAWAY]) {
                Ok(frame) if frame.kind == PING => pongs += 1,
                Ok(frame) if frame.kind == HEADERS => heads += 1,
                Ok(end) => {
                    assert_eq!(end.code(), frames::ENHANCE_YOUR_CALM);
                    return Ok(10 * ten);
                }
                Err(why) => return Err(why.context(format!("after {} streams", 10 * ten))),
            }
        }
        for stream in streams {
            let _ = raw.say_frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        }
    }
    Ok(count)
}

#[test]
fn streams_reset_at_work_have_a_budget_and_those_of_many_clients_none() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up_with(|_, toml| {
        toml + &format!(
            "\n[entrypoint.http]\nbind = [\"{HTTP}\"]\n\
             [entrypoint.cdn]\nbind = [\"{EDGE}:8081\"]\n\
             client_ip = {{ header = \"CF-Connecting-IP\", trust = [\"cloudflare\"] }}\n"
        )
    })?;
    let mut other = http2(&stand)?;
    for (path, answered) in [("/slow?ms=60000", false), ("/bytes?n=1000000", true)] {
        let before = counted(&stand, "http2_flood")?;
        let mut raw = Raw::connect(&stand.lab.visitor, HTTP)?;
        raw.say(
            [frames::PREFACE, &frames::Frame::new(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]).bytes()].concat(),
        )?;
        // All that a page asks for, given up when the visitor goes on to the next one.
        assert_eq!(reset_at_work(&mut raw, 1, 150, path, answered)?, 150, "{path}");
        raw.say_frame(HEADERS, END_HEADERS | END_STREAM, 301, &frames::get("/", &[]))?;
        assert_eq!(raw.frame_of(&[HEADERS, GOAWAY])?.status(), Some(200), "{path}");
        let more = reset_at_work(&mut raw, 303, 5000, path, answered)?;
        assert!(more < 5000, "{path}: {more} more were taken");
        wait::until_true("it is counted", PATIENCE, || Ok(counted(&stand, "http2_flood")? == before + 1))?;
    }
    other.say_frame(HEADERS, END_HEADERS | END_STREAM, 1, &frames::get("/", &[]))?;
    assert_eq!(other.frame_of(&[HEADERS, GOAWAY])?.status(), Some(200), "the other connection is well");
    // A CDN resets what its visitors give up, and carries others over the same connection.
    let mut cdn = Raw::connect(&stand.lab.visitor, (EDGE, 8081).into())?;
    cdn.begin_http2()?;
    assert_eq!(reset_at_work(&mut cdn, 1, 1000, "/slow?ms=60000", false)?, 1000);
    Ok(())
}

#[test]
fn a_client_that_ends_its_side_of_http2_has_left() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand("", "")?;
    let mut raw = http2(&stand)?;
    raw.say_frame(HEADERS, END_HEADERS | END_STREAM, 1, &frames::get("/slow?ms=60000&left", &[]))?;
    raw.say_frame(PING, 0, 0, &[7; 8])?;
    raw.frame_of(&[PING])?;
    raw.end()?;
    raw.rest()?;
    wait::until_true("its request was let go", PATIENCE, || {
        let log = std::fs::read_to_string(stand.lab.folder().join("access.log")).unwrap_or_default();
        let line = log.lines().find(|line| line.contains("&left"));
        Ok(line.is_some_and(|line| line.contains("\"flags\":[\"client_left\"]")))
    })
}

#[test]
fn floods_of_control_frames_harm_nobody() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand("head = '16KiB'", "")?;
    let memory = stand.weir.process().memory("VmRSS")?;
    // Header blocks without end.
    let mut raw = http2(&stand)?;
    raw.say_frame(HEADERS, END_STREAM, 1, &frames::get("/", &[]))?;
    let more = frames::block(&[("x", &"y".repeat(100))]).repeat(100);
    for _ in 0..2000 {
        if raw.say_frame(frames::CONTINUATION, 0, 1, &more).is_err() {
            break;
        }
    }
    assert!(raw.say_frame(PING, 0, 0, &[0; 8]).is_err() || raw.frame_of(&[GOAWAY, RST_STREAM]).is_ok());
    // Pings and settings whose answers nobody reads: the server stops reading, and keeps nothing.
    for frame in
        [frames::Frame::new(PING, 0, 0, &[7; 8]), frames::Frame::new(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255])]
    {
        let mut raw = http2(&stand)?;
        raw.stream.set_write_timeout(Some(Duration::from_millis(300)))?;
        let many = frame.bytes().repeat(1000);
        for _ in 0..500 {
            if raw.say(&many).is_err() {
                break;
            }
        }
    }
    let mut raw = http2(&stand)?;
    raw.say_frame(HEADERS, END_HEADERS | END_STREAM, 1, &frames::get("/", &[]))?;
    assert_eq!(raw.frame_of(&[HEADERS])?.status(), Some(200));
    let grown = stand.weir.process().memory("VmRSS")?.saturating_sub(memory);
    ensure!(grown < 16 << 20, "it keeps {grown} bytes");
    Ok(())
}

#[test]
fn a_head_that_is_too_large_gets_431() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand("head = '4KiB'", "")?;
    let mut raw = http2(&stand)?;
    let long = "y".repeat(120);
    let fields: Vec<_> = (0..60).map(|_| ("x", long.as_str())).collect();
    raw.say_frame(HEADERS, END_HEADERS | END_STREAM, 1, &frames::get("/", &fields))?;
    let answer = raw.frame_of(&[HEADERS, RST_STREAM, GOAWAY])?;
    // 431 is in no table: a literal, Huffman coded.
    assert_eq!(answer.kind, HEADERS, "{answer:?}");
    assert!(answer.status().is_none_or(|status| status == 431), "{answer:?}");
    Ok(())
}

#[test]
fn streams_at_a_time_are_limited() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand("streams = 2", "")?;
    let mut raw = http2(&stand)?;
    let settings = raw.frame_of(&[SETTINGS])?;
    ensure!(settings.payload.chunks(6).any(|one| one == [0, 3, 0, 0, 0, 2]), "{settings:?}");
    raw.say_frame(SETTINGS, ACK, 0, &[])?;
    for stream in [1, 3, 5] {
        raw.say_frame(HEADERS, END_HEADERS | END_STREAM, stream, &frames::get("/slow?ms=300", &[]))?;
    }
    let refused = raw.frame_of(&[RST_STREAM])?;
    assert_eq!((refused.stream, refused.code()), (5, frames::REFUSED_STREAM));
    for _ in 0..2 {
        assert_eq!(raw.frame_of(&[HEADERS])?.status(), Some(200));
    }
    Ok(())
}

#[test]
fn a_stream_that_is_not_taken_and_an_idle_connection_are_let_go() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand("stream_idle = '1s', keep_alive = '1s'", "timeouts = { first_byte = '1s' }")?;
    let mut stalled = http2(&stand)?;
    // The client opens no window beyond the first 64 KiB.
    stalled.say_frame(HEADERS, END_HEADERS | END_STREAM, 1, &frames::get("/bytes?n=1000000", &[]))?;
    let end = stalled.frame_of(&[RST_STREAM])?;
    assert_eq!(end.stream, 1);
    wait::until_true("the access log says why", PATIENCE, || {
        let log = std::fs::read_to_string(stand.lab.folder().join("access.log")).unwrap_or_default();
        Ok(log.contains(r#""refused":"answer_timeout""#))
    })?;
    let idle = stalled.frame_of(&[GOAWAY])?;
    assert_eq!(idle.code(), 0, "gracefully");
    // A client that only pings is idle too.
    let mut pinging = http2(&stand)?;
    wait::until_true("it is let go", PATIENCE, || {
        let _ = pinging.say_frame(PING, 0, 0, &[1; 8]);
        pinging.stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        match pinging.frame() {
            Ok(frame) => Ok(frame.kind == GOAWAY),
            Err(_) => Ok(false),
        }
    })?;
    let _ = WINDOW_UPDATE;
    Ok(())
}

#[test]
fn servers_are_spoken_to_in_http2_over_few_connections() -> Done {
    needs!(Need::Root, Need::Weir);
    for tls in [false, true] {
        let stand = Stand::up_with(|lab, toml| {
            if !tls {
                return toml.replace("[service.app]\n", "[service.app]\nprotocol = \"http2\"\n");
            }
            // Without a word about the protocol: TLS agrees on it.
            toml.replace("10.0.0.11:8080\", \"10.0.0.12:8080", "10.0.0.11:8443\", \"10.0.0.12:8443").replace(
                "[service.app]\n",
                &format!(
                    "[service.app]\ntls = {{ server_name = \"app.internal\", ca = \"{}\" }}\n",
                    lab.ca().display()
                ),
            )
        })?;
        // Many at a time, each over a connection of its own as from many visitors.
        let browser = Browser::new(&stand.lab, &stand.lab.visitor, HTTPS, &["h2"])?;
        let replies = std::thread::scope(|scope| {
            let asked: Vec<_> = (0..24).map(|_| scope.spawn(|| browser.get("/slow?ms=200"))).collect();
            asked
                .into_iter()
                .map(|one| one.join().map_err(|_| anyhow::anyhow!("a panic"))?)
                .collect::<anyhow::Result<Vec<_>>>()
        })?;
        let mut connections = BTreeSet::new();
        for reply in &replies {
            assert_eq!(
                (reply.status.as_u16(), reply.header("x-version")),
                (200, Some("HTTP/2.0")),
                "tls: {tls}"
            );
            connections.insert((
                reply.upstream().unwrap_or_default().to_owned(),
                reply.header("x-connection").unwrap_or_default().to_owned(),
            ));
        }
        // Two servers, two workers.
        assert!(connections.len() <= 4, "tls: {tls}: {connections:?}");
        let seen = stand.visitor.get("/headers")?.json()?;
        assert_eq!(seen["x-forwarded-host"], serde_json::json!([SITE]));
        let echo = stand.visitor.request("POST", "/echo").body(body("there and back"))?;
        assert_eq!(stand.visitor.send(echo)?.text(), "there and back");
    }
    Ok(())
}

#[test]
fn servers_that_offer_only_http1_are_spoken_to_in_it() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand("", "protocol = \"http1\"")?;
    assert_eq!(stand.visitor.get("/")?.header("x-version"), Some("HTTP/1.1"));
    Ok(())
}

/// A body that a test sends piece by piece.
struct Pieces(mpsc::Receiver<Frame<Bytes>>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(Ok))
    }
}

#[test]
fn streams_go_both_ways_at_once_and_end_with_trailers() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand("", "protocol = \"http2\"")?;
    stand.visitor.station().run(async {
        let stream = TcpStream::connect(HTTP).await?;
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let (say, pieces) = mpsc::channel(1);
        let request = Request::post(format!("http://{SITE}/echo"))
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .body(Pieces(pieces))?;
        let answer = sender.send_request(request).await?;
        ensure!(answer.status() == 200, "{answer:?}");
        let mut back = answer.into_body();
        for round in 0..5 {
            let piece = Bytes::from(format!("piece {round}"));
            say.send(Frame::data(piece.clone())).await?;
            // It comes back before the next one is sent.
            let echoed = back.frame().await.context("no echo")??.into_data().ok().context("no data")?;
            ensure!(echoed == piece, "{echoed:?}");
        }
        let trailers = HeaderMap::from_iter([("grpc-status".parse()?, "0".parse()?)]);
        say.send(Frame::trailers(trailers.clone())).await?;
        drop(say);
        let end = back.frame().await.context("no trailers")??.into_trailers().ok().context("no trailers")?;
        ensure!(end == trailers, "{end:?}");
        ensure!(back.frame().await.is_none(), "more than the trailers");
        anyhow::Ok(())
    })??;
    Ok(())
}

#[test]
fn a_stream_that_the_server_refused_is_sent_again_also_a_post() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand("", "protocol = \"http2\"")?;
    // The first connection refuses its second stream, the next one serves.
    serve(&stand.lab.edge, BYTES, |number, mut raw| {
        let mut preface = [0; 24];
        raw.stream.read_exact(&mut preface)?;
        ensure!(preface == frames::PREFACE, "not HTTP/2");
        raw.say_frame(SETTINGS, 0, 0, &[])?;
        let mut streams = 0;
        loop {
            let frame = raw.frame()?;
            match frame.kind {
                SETTINGS if frame.flags & ACK == 0 => raw.say_frame(SETTINGS, ACK, 0, &[])?,
                HEADERS => {
                    streams += 1;
                    if number == 0 && streams == 2 {
                        raw.say_frame(RST_STREAM, 0, frame.stream, &frames::REFUSED_STREAM.to_be_bytes())?;
                        raw.say_frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0])?;
                    } else {
                        let head = frames::block(&[(":status", "200"), ("x-number", &number.to_string())]);
                        raw.say_frame(HEADERS, END_HEADERS | END_STREAM, frame.stream, &head)?;
                    }
                }
                _ => {}
            }
        }
    })?;
    let browser = Browser::plain(&stand.lab.visitor, HTTP)?.with_host("bytes.example");
    for round in 0..6 {
        // What was kept of a body goes along.
        let text = if round % 2 == 0 { "" } else { "an order" };
        let reply = browser.send(browser.request("POST", "/").body(body(text))?)?;
        assert_eq!(reply.status, 200, "round {round}: {}", reply.text());
    }
    Ok(())
}

#[test]
fn websockets_come_through_over_http2() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand("", "")?;
    serve(&stand.lab.edge, BYTES, |_, mut raw| {
        let head = raw.head()?;
        ensure!(head.starts_with("get /chat http/1.1\r\n"), "{head}");
        for field in
            ["connection: upgrade", "upgrade: websocket", "sec-websocket-key: ", "sec-websocket-version: 13"]
        {
            ensure!(head.contains(field), "{field} is not in {head}");
        }
        raw.say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n")?;
        let mut piece = [0; 100];
        loop {
            let read = raw.stream.read(&mut piece)?;
            if read == 0 {
                return Ok(());
            }
            raw.say(&piece[..read])?;
        }
    })?;
    let mut raw = http2(&stand)?;
    let settings = raw.frame_of(&[SETTINGS])?;
    ensure!(
        settings.payload.chunks(6).any(|one| one == [0, 8, 0, 0, 0, 1]),
        "CONNECT is not offered: {settings:?}"
    );
    let connect = frames::block(&[
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":authority", "bytes.example"),
        (":path", "/chat"),
        ("sec-websocket-version", "13"),
    ]);
    raw.say_frame(HEADERS, END_HEADERS, 1, &connect)?;
    let answer = raw.frame_of(&[HEADERS, RST_STREAM, GOAWAY])?;
    assert_eq!(answer.status(), Some(200), "{answer:?}");
    for word in ["first", "second"] {
        raw.say_frame(DATA, 0, 1, word.as_bytes())?;
        assert_eq!(raw.frame_of(&[DATA])?.payload, word.as_bytes());
    }
    raw.say_frame(DATA, END_STREAM, 1, &[])?;
    let end = raw.frame_of(&[DATA])?;
    assert_eq!(end.flags & END_STREAM, END_STREAM, "{end:?}");
    // Without a protocol, it is a wish for a forward proxy.
    raw.say_frame(
        HEADERS,
        END_HEADERS,
        3,
        &frames::block(&[(":method", "CONNECT"), (":authority", "bytes.example:80")]),
    )?;
    let refused = raw.frame_of(&[HEADERS, RST_STREAM])?;
    assert!(refused.status() != Some(200), "{refused:?}");
    Ok(())
}

#[test]
fn websockets_come_through_to_servers_that_speak_http2() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand("", "protocol = \"http2\"")?;
    // A server that takes none, and says so by not saying it.
    serve(&stand.lab.edge, BYTES, |_, mut raw| {
        raw.stream.read_exact(&mut [0; frames::PREFACE.len()])?;
        raw.say_frame(SETTINGS, 0, 0, &[])?;
        loop {
            let frame = raw.frame()?;
            ensure!(frame.kind != HEADERS, "it was asked all the same");
        }
    })?;
    // From HTTP/1.1.
    let ask = |host: &str| {
        let mut raw = Raw::connect(&stand.lab.visitor, HTTP)?;
        raw.say(format!(
            "GET /chat HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ))?;
        anyhow::Ok(raw)
    };
    let mut raw = ask(SITE)?;
    let head = raw.head()?;
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    for field in
        ["connection: upgrade", "upgrade: websocket", "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="]
    {
        assert!(head.contains(field), "{field} is not in {head}");
    }
    for word in ["first", "second"] {
        raw.say(word)?;
        let mut echoed = vec![0; word.len()];
        raw.stream.read_exact(&mut echoed)?;
        assert_eq!(echoed, word.as_bytes());
    }
    raw.end()?;
    assert!(raw.has_ended()?);
    // From HTTP/2.
    let mut raw = http2(&stand)?;
    let connect = |host| {
        frames::block(&[
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":authority", host),
            (":path", "/chat"),
            ("sec-websocket-version", "13"),
        ])
    };
    raw.say_frame(HEADERS, END_HEADERS, 1, &connect(SITE))?;
    let answer = raw.frame_of(&[HEADERS, RST_STREAM, GOAWAY])?;
    assert_eq!(answer.status(), Some(200), "{answer:?}");
    raw.say_frame(DATA, 0, 1, b"third")?;
    assert_eq!(raw.frame_of(&[DATA])?.payload, b"third");
    // Both get 502 from the other, and the operator a word.
    raw.say_frame(HEADERS, END_HEADERS, 3, &connect("bytes.example"))?;
    let answer = raw.frame_of(&[HEADERS, RST_STREAM, GOAWAY])?;
    // `:status: 502`, by HPACK's own code for digits.
    assert_eq!((answer.kind, &answer.payload[..4]), (HEADERS, &[0x48, 0x82, 0x6c, 0x02][..]), "{answer:?}");
    assert_eq!(ask("bytes.example")?.answer()?.status, 502);
    let told = stand.weir.log_text();
    assert_eq!(told.matches("takes no WebSockets over it").count(), 1, "{told}");
    Ok(())
}

fn open_files(stand: &Stand) -> anyhow::Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{}/fd", stand.weir.pid()))?.count())
}

#[test]
fn what_clients_break_off_at_any_point_leaves_nothing_behind() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = stand("", "")?;
    let get = frames::get("/bytes?n=300000", &[]);
    let post = frames::block(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", SITE),
        (":path", "/count"),
        ("content-length", "9"),
    ]);
    let frame =
        |kind, flags, stream, payload: &[u8]| frames::Frame::new(kind, flags, stream, payload).bytes();
    let cancel = 8_u32.to_be_bytes();
    let asked = frame(HEADERS, END_HEADERS | END_STREAM, 1, &get);
    let begun = frame(HEADERS, END_HEADERS, 1, &post);
    let preface = frames::PREFACE.to_vec();
    let settings = [&preface[..], &frame(SETTINGS, 0, 0, &[])].concat();
    let no_window = [&preface[..], &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat();
    let behind = |first: &[u8], others: &[&[u8]]| [&[first], others].concat().concat();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a part of the preface", preface[..10].to_vec()),
        ("a preface and no settings", behind(&preface, &[&asked])),
        ("half of a frame", behind(&settings, &[&asked[..5]])),
        ("half of a head", behind(&settings, &[&asked[..asked.len() - 3]])),
        ("a head that goes on and doesn't", behind(&settings, &[&frame(HEADERS, END_STREAM, 1, &get)])),
        (
            "no END_HEADERS, and another frame",
            behind(&settings, &[&frame(HEADERS, END_STREAM, 1, &get), &frame(DATA, 0, 1, b"x")]),
        ),
        ("a request", behind(&settings, &[&asked])),
        ("a request, reset", behind(&settings, &[&asked, &frame(RST_STREAM, 0, 1, &cancel)])),
        ("a body that isn't there", behind(&settings, &[&begun])),
        ("half of a body", behind(&settings, &[&begun, &frame(DATA, 0, 1, b"half")])),
        (
            "half of a body, reset",
            behind(&settings, &[&begun, &frame(DATA, 0, 1, b"half"), &frame(RST_STREAM, 0, 1, &cancel)]),
        ),
        ("more of a body than it said", behind(&settings, &[&begun, &frame(DATA, 0, 1, b"more than nine")])),
        ("no window at all", behind(&no_window, &[&asked])),
        (
            "a window beyond all bounds",
            behind(&settings, &[&asked, &frame(WINDOW_UPDATE, 0, 1, &0x7fff_ffff_u32.to_be_bytes())]),
        ),
        ("a window of nothing", behind(&settings, &[&frame(WINDOW_UPDATE, 0, 0, &[0; 4])])),
        ("a frame that is too long", behind(&settings, &[&frame(DATA, 0, 1, &[0; 20_000])])),
        ("DATA on no stream", behind(&settings, &[&frame(DATA, 0, 0, b"x")])),
        ("DATA on an idle stream", behind(&settings, &[&frame(DATA, 0, 7, b"x")])),
        ("a stream of the server's", behind(&settings, &[&frame(HEADERS, END_HEADERS, 2, &get)])),
        ("a push", behind(&settings, &[&frame(5, END_HEADERS, 1, &get)])),
        ("a head that can't be unpacked", behind(&settings, &[&frame(HEADERS, END_HEADERS, 1, &[0xff; 9])])),
        (
            "a path that is no UTF-8",
            behind(
                &settings,
                &[&frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x82, 0x86, 0x04, 3, b'/', 0xff, 0xfe])],
            ),
        ),
        ("settings of the wrong length", behind(&settings, &[&frame(SETTINGS, 0, 0, &[0; 5])])),
        ("a frame of no known type", behind(&settings, &[&frame(0xee, 0xff, 1, b"?"), &asked])),
    ];
    let mut other = http2(&stand)?;
    let mut stream = 1;
    let mut sweep = || {
        for (what, bytes) in &cases {
            for waits in [false, true] {
                let mut raw = Raw::connect(&stand.lab.visitor, HTTP)?;
                // It may have been closed while this is still on its way.
                let _ = raw.say(bytes);
                if waits {
                    // Until the first word of the answer.
                    raw.stream.set_read_timeout(Some(Duration::from_millis(50)))?;
                    let _ = raw.stream.read(&mut [0; 16]);
                }
                drop(raw);
            }
            other.say_frame(HEADERS, END_HEADERS | END_STREAM, stream, &frames::get("/", &[]))?;
            assert_eq!(other.frame_of(&[HEADERS, RST_STREAM, GOAWAY])?.status(), Some(200), "{what}");
            stream += 2;
        }
        // All but the one that goes on.
        wait::until_true("the connections are gone", PATIENCE, || {
            let workers = stand.weir.status()?["workers"].clone();
            Ok(workers.as_array().map(|each| each.iter().filter_map(serde_json::Value::as_u64).sum())
                == Some(1))
        })
    };
    sweep()?;
    let (files, memory) = (open_files(&stand)?, stand.weir.process().memory("VmRSS")?);
    for _ in 0..2 {
        sweep()?;
    }
    // Connections to servers come and go, a few at a time.
    wait::until_true("no file is left open", PATIENCE, || Ok(open_files(&stand)? <= files + 4))?;
    let grown = stand.weir.process().memory("VmRSS")?.saturating_sub(memory);
    ensure!(grown < 4 << 20, "it keeps {grown} bytes");
    assert!(!stand.weir.log_text().contains("panicked"), "{}", stand.weir.log_text());
    Ok(())
}
