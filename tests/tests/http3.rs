//! HTTP/3 to visitors: who comes in over UDP, what is served, and what becomes of connections at a reload and at the end.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use bytes::Bytes;
use hyper::{HeaderMap, Request, StatusCode, Version, header};
use nix::sys::signal::Signal;
use weir_lab::{
    Lab,
    lab::{
        SITE,
        addresses::{EDGE, HTTPS, HTTPS_V6},
        certificates::Authority,
        client::{Browser, Target},
        http3::{self, Line},
        pinned,
        raw::serve,
        stand::{PATIENCE, Stand},
        wait, weir,
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

const MIB: usize = 1 << 20;

/// The standard configuration with HTTP/3.
#[allow(clippy::needless_pass_by_value, reason = "the signature that `Stand::up_with` wants")]
fn with_http3(_: &Lab, toml: String) -> String {
    toml.replace("[entrypoint.https]\n", "[entrypoint.https]\nhttp3 = true\n")
}

fn visitor(stand: &Stand) -> anyhow::Result<Browser> {
    http3::browser(&stand.lab, &stand.lab.visitor, HTTPS)
}

/// Bytes of which none is where another one was.
fn noise(length: usize) -> Bytes {
    (0..length as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// Waits for a line of the access log that has all of this.
fn logged(stand: &Stand, wanted: &[&str]) -> anyhow::Result<String> {
    let file = stand.lab.folder().join("access.log");
    wait::until(&format!("a line of the access log has {wanted:?}"), PATIENCE, || {
        let text = std::fs::read_to_string(&file)?;
        Ok(text.lines().find(|line| wanted.iter().all(|wanted| line.contains(wanted))).map(str::to_owned))
    })
}

fn faults(stand: &Stand) -> anyhow::Result<serde_json::Value> {
    Ok(stand.weir.status()?["entrypoints"][0]["faults"].clone())
}

/// Waits until the daemon has counted such a fault.
fn counted(stand: &Stand, fault: &str) -> Done {
    wait::until_true(&format!("`{fault}` is counted"), PATIENCE, || {
        let status = stand.weir.status()?.to_string();
        Ok(status.contains(&format!("\"{fault}\":")))
    })
    .with_context(|| faults(stand).map(|faults| faults.to_string()).unwrap_or_default())
}

#[test]
fn the_site_is_served_over_http3_and_told_of_over_tcp() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let stand = Stand::up_with(with_http3)?;
    for to in [HTTPS, HTTPS_V6] {
        let browser = http3::browser(&stand.lab, &stand.lab.visitor, to)?;
        let reply = http3::get(&browser, "/headers")?;
        assert_eq!((reply.status, reply.version), (StatusCode::OK, Version::HTTP_3), "{to}");
        assert!(reply.upstream().is_some() && reply.header("date").is_some());
        assert_eq!(reply.header("alt-svc"), None, "it is there already");
        let seen: serde_json::Value = serde_json::from_slice(&reply.body)?;
        assert_eq!(seen["host"][0], SITE);
        assert_eq!(seen["x-forwarded-proto"][0], "https");
    }
    logged(&stand, &["HTTP/3.0", "/headers"])?;
    for alpn in ["http/1.1", "h2"] {
        let browser = Browser::new(&stand.lab, &stand.lab.visitor, HTTPS, &[alpn])?;
        assert_eq!(browser.get("/")?.header("alt-svc"), Some("h3=\":443\"; ma=86400"), "{alpn}");
    }
    Ok(())
}

#[test]
fn a_stranger_is_dropped_in_the_kernel_and_counted() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir, Need::Program("bpftool"));
    let stand = Stand::up_with(with_http3)?;
    let before = pinned::packets(&stand.lab, "https", "not_listed")?;
    let stranger = http3::browser(&stand.lab, &stand.lab.stranger, HTTPS)?;
    let refused = http3::get(&stranger.with_patience(Duration::from_secs(2)), "/").unwrap_err();
    assert!(format!("{refused:#}").contains("no handshake in time"), "{refused:#}");
    assert!(pinned::packets(&stand.lab, "https", "not_listed")? > before);
    let status = stand.weir.status()?;
    assert_eq!(status["entrypoints"][0]["not_listed"], 0, "nothing of it reached the daemon");
    assert_eq!(http3::get(&visitor(&stand)?, "/")?.status, StatusCode::OK);
    let mut explain = stand.lab.edge.command(weir::program()?)?;
    explain.env("WEIR_BPFFS", stand.lab.bpffs());
    explain.args(["explain", "203.0.113.9", "--entrypoint", "https", "--udp"]);
    let scope = weir::finish(explain)?;
    assert!(scope.stdout.contains("not_listed"), "{scope:?}");
    Ok(())
}

#[test]
fn without_the_gate_a_stranger_is_ignored_at_the_first_datagram() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up_with(|lab, toml| {
        with_http3(lab, toml).replace("[kernel]\n", "[kernel]\nmode = \"off\"\n")
    })?;
    let stranger = http3::browser(&stand.lab, &stand.lab.stranger, HTTPS)?;
    http3::get(&stranger.with_patience(Duration::from_secs(1)), "/").unwrap_err();
    assert!(stand.weir.status()?["entrypoints"][0]["not_listed"].as_u64() > Some(0));
    assert_eq!(http3::get(&visitor(&stand)?, "/")?.status, StatusCode::OK);
    Ok(())
}

#[test]
fn ten_megabytes_arrive_as_they_were_sent_both_ways() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up_with(with_http3)?;
    let browser = visitor(&stand)?;
    let body = noise(10 * MIB);
    for told in [true, false] {
        let (target, sent) = (browser.target.clone(), body.clone());
        let reply = browser.station().run(async move {
            let line = Line::open(&target).await?;
            let mut request = line.request("POST", "/echo");
            if told {
                request = request.header(header::CONTENT_LENGTH, sent.len());
            }
            line.send(request.body(sent)?, None).await
        })??;
        assert_eq!(reply.status, StatusCode::OK);
        assert!(reply.body == body, "{} bytes came back, or others", reply.body.len());
    }
    Ok(())
}

#[test]
fn bodies_are_not_gathered_while_nobody_takes_them() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up_with(with_http3)?;
    let browser = visitor(&stand)?;
    http3::get(&browser, &format!("/bytes?n={}", 4 * MIB))?;
    let before = stand.weir.process().memory("VmHWM")?;
    let target = browser.target.clone();
    // A download of which nothing is taken.
    let (_line, _stream) = browser.station().run(async move {
        let line = Line::open(&target).await?;
        let request = line.request("GET", &format!("/bytes?n={}", 200 * MIB)).body(())?;
        let mut stream = line.begin(request).await?;
        stream.finish().await?;
        stream.recv_response().await?;
        anyhow::Ok((line, stream))
    })??;
    // And one that is taken whole.
    assert_eq!(http3::get(&browser, &format!("/chunked?n={}", 48 * MIB))?.body.len(), 48 * MIB);
    let grown = stand.weir.process().memory("VmHWM")?.saturating_sub(before);
    assert!(grown < 24 * MIB as u64, "the daemon grew by {} MiB", grown / MIB as u64);
    Ok(())
}

#[test]
fn a_hundred_requests_share_a_connection() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up_with(with_http3)?;
    let browser = visitor(&stand)?;
    let target = browser.target.clone();
    let replies = browser.station().run(async move {
        let line = Line::open(&target).await?;
        let asked: Vec<_> = (0..100)
            .map(|number| {
                let line = line.clone();
                tokio::spawn(async move { line.get(&format!("/slow?ms=300&number={number}")).await })
            })
            .collect();
        let began = std::time::Instant::now();
        for one in asked {
            let reply = one.await??;
            anyhow::ensure!(reply.status == StatusCode::OK, "{}", reply.status);
        }
        anyhow::Ok(began.elapsed())
    })??;
    assert!(replies < Duration::from_secs(10), "one after the other they would take 30 s; {replies:?}");
    assert_eq!(
        stand.weir.status()?["entrypoints"][0]["accepted"].as_u64().map(|count| count > 0),
        Some(true)
    );
    Ok(())
}

#[test]
fn requests_mean_what_they_mean_over_http2() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up_with(with_http3)?;
    let browser = visitor(&stand)?;
    let target = browser.target.clone();
    browser.station().run(async move {
        let line = Line::open(&target).await?;
        // Cookies are one field, and forwarding fields are the edge's.
        let request = line
            .request("GET", "/headers")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("x-forwarded-for", "192.0.2.66");
        let reply = line.send(request.body(Bytes::new())?, None).await?;
        let seen: serde_json::Value = serde_json::from_slice(&reply.body)?;
        anyhow::ensure!(seen["cookie"] == serde_json::json!(["a=1; b=2"]), "{seen}");
        anyhow::ensure!(seen.get("transfer-encoding").is_none(), "a GET has no body: {seen}");

        // HEAD, 204-like answers, trailers, expectations.
        let reply = line.send(line.request("HEAD", "/bytes?n=1000").body(Bytes::new())?, None).await?;
        anyhow::ensure!(reply.body.is_empty() && reply.header("content-length") == Some("1000"), "{reply:?}");
        let trailers = HeaderMap::from_iter([("x-sum".parse()?, "17".parse()?)]);
        let request = line.request("POST", "/count").body(Bytes::from_static(b"four"))?;
        let reply = line.send(request, Some(trailers)).await?;
        anyhow::ensure!(reply.text() == "4", "{reply:?}");
        let request = line.request("POST", "/count").header("expect", "100-continue");
        let reply = line.send(request.body(Bytes::from_static(b"12345"))?, None).await?;
        anyhow::ensure!(reply.text() == "5", "{reply:?}");

        // What HTTP/3 forbids.
        for (name, value) in [("connection", "close"), ("te", "gzip"), ("transfer-encoding", "chunked")] {
            let request = line.request("GET", "/").header(name, value).body(Bytes::new())?;
            let reply = line.send(request, None).await?;
            anyhow::ensure!(reply.status == StatusCode::BAD_REQUEST, "{name}: {reply:?}");
        }
        for (said, sent) in [("9", &b"four"[..]), ("3", b"four"), ("9", b"")] {
            let request = line.request("POST", "/count").header("content-length", said);
            let reply = line.send(request.body(Bytes::from_static(sent))?, None).await;
            let status = reply.as_ref().ok().map(|reply| reply.status);
            anyhow::ensure!(status == Some(StatusCode::BAD_REQUEST), "{said}: {reply:?}");
        }
        let reply = line.get("/a/../b").await?;
        anyhow::ensure!(reply.status == StatusCode::BAD_REQUEST, "{reply:?}");
        let elsewhere = Request::get("https://elsewhere.example/").body(Bytes::new())?;
        let reply = line.send(elsewhere, None).await?;
        anyhow::ensure!(reply.status == StatusCode::MISDIRECTED_REQUEST, "{reply:?}");
        anyhow::Ok(())
    })??;
    counted(&stand, "connection_field")
}

#[test]
fn too_large_a_head_is_answered_or_cut_off_and_counted() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up_with(|lab, toml| {
        with_http3(lab, toml)
            .replace("[service.app]", "limits = { head = \"2KiB\", fields = 20 }\n\n[service.app]")
    })?;
    let browser = visitor(&stand)?;
    let target = browser.target.clone();
    browser.station().run(async move {
        let line = Line::open(&target).await?;
        for (fields, length) in [(1, 3000), (25, 1)] {
            // The client would not send it, if it had heard the limit; so it is a client that doesn't care.
            let mut request = line.request("GET", "/");
            for number in 0..fields {
                request = request.header(format!("x-{number}"), "a".repeat(length));
            }
            match line.send(request.body(Bytes::new())?, None).await {
                Ok(reply) => {
                    let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                    anyhow::ensure!(reply.status == status, "{reply:?}");
                }
                Err(why) => anyhow::ensure!(fields == 1, "{why:#}"),
            }
        }
        anyhow::ensure!(line.get("/").await?.status == StatusCode::OK, "the connection is none the worse");
        anyhow::Ok(())
    })??;
    counted(&stand, "too_many_fields")
}

/// Writes raw bytes on a stream of its own.
async fn raw(
    quic: &quinn::Connection,
    bytes: &[u8],
    end: bool,
) -> anyhow::Result<(quinn::SendStream, quinn::RecvStream)> {
    let (mut send, recv) = quic.open_bi().await?;
    send.write_all(bytes).await?;
    if end {
        send.finish()?;
    }
    Ok((send, recv))
}

#[test]
fn hostile_streams_harm_nobody_else() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up_with(|lab, toml| {
        with_http3(lab, toml).replace("[service.app]", "limits = { head_time = \"1s\" }\n\n[service.app]")
    })?;
    let browser = visitor(&stand)?;
    let target = browser.target.clone();
    browser.station().run(async move {
        let other = Line::open(&target).await?;
        // A good head of a POST, as the library's own client would write it: method, scheme, authority, path.
        let mut head = vec![0, 0, 0xd4, 0xd7, 0xc1, 0x50, 0x0b];
        head.extend_from_slice(SITE.as_bytes());
        let headers = [&[1, head.len() as u8][..], &head].concat();
        let cases: Vec<Vec<u8>> = vec![
            vec![],
            vec![0x01],
            // A head of 4 GiB, an unknown frame of as much.
            vec![0x01, 0xc0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3],
            vec![0x21, 0xc0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3],
            // DATA before a head, DATA that is cut off, SETTINGS, WebTransport, HTTP/2's frames.
            vec![0x00, 0x05, 1, 2, 3, 4, 5],
            [&headers[..], &[0x00, 0x0a]].concat(),
            [&headers[..], &[0x00, 0x0a, 1, 2]].concat(),
            [&headers[..], &[0x00]].concat(),
            [&headers[..], &headers[..], &[0x00, 0x01, 9]].concat(),
            [&headers[..], &[0x00, 0x00, 0x00, 0x01, 9]].concat(),
            [&headers[..], &[0x04, 0x00]].concat(),
            vec![0x40, 0x41, 0x00, 1, 2, 3],
            [&headers[..], &[0x40, 0x41, 0x00, 1, 2, 3]].concat(),
            vec![0x06, 0x00],
            // A head that can't be unpacked.
            vec![0x01, 0x04, 0xff, 0xff, 0xff, 0xff],
        ];
        for (number, case) in cases.iter().enumerate() {
            for end in [true, false] {
                let line = Line::open(&target).await?;
                // An error means that the connection was closed for it, which is as good.
                if let Ok((_send, mut recv)) = raw(&line.quic, case, end).await {
                    let told = recv.read_to_end(1 << 20);
                    let _ = tokio::time::timeout(Duration::from_millis(1500), told).await;
                }
                let reply = other.get("/").await;
                anyhow::ensure!(reply.is_ok_and(|reply| reply.status == StatusCode::OK), "case {number}");
            }
        }
        // And what nobody thought of.
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let line = Line::open(&target).await?;
        let mut line = line;
        for _ in 0..300 {
            let mut bytes = Vec::new();
            for _ in 0..(random % 60) {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                bytes.push((random >> 32) as u8 & if random & 1 == 0 { 0x07 } else { 0xff });
            }
            random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let bytes = if random & 2 == 0 { [&headers[..], &bytes].concat() } else { bytes };
            let ended = tokio::time::timeout(Duration::from_secs(2), raw(&line.quic, &bytes, true)).await;
            if !matches!(ended, Ok(Ok(_))) || line.quic.close_reason().is_some() {
                line = Line::open(&target).await?;
            }
        }
        anyhow::ensure!(other.get("/").await?.status == StatusCode::OK);
        anyhow::Ok(())
    })??;
    assert!(!stand.weir.log_text().contains("panicked"), "{}", stand.weir.log_text());
    counted(&stand, "head_too_large")?;
    counted(&stand, "head_timeout")
}

#[test]
fn tiny_frames_are_not_gathered() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up_with(with_http3)?;
    let browser = visitor(&stand)?;
    http3::get(&browser, &format!("/bytes?n={}", 4 * MIB))?;
    let before = stand.weir.process().memory("VmHWM")?;
    let target = browser.target.clone();
    let length = 300_000;
    let reply = browser.station().run(async move {
        let line = Line::open(&target).await?;
        let stream = line.begin(line.request("POST", "/count").body(())?).await?;
        let (mut send, mut recv) = stream.split();
        let sending = async {
            for number in 0..length {
                if number % 1000 == 0 {
                    tokio::task::yield_now().await;
                }
                if send.send_data(Bytes::from_static(b"x")).await.is_err() {
                    break;
                }
            }
            let _ = send.finish().await;
        };
        let receiving = async {
            recv.recv_response().await?;
            let body = recv.recv_data().await?.context("no body")?;
            anyhow::Ok(String::from_utf8_lossy(bytes::Buf::chunk(&body)).into_owned())
        };
        tokio::join!(sending, receiving).1
    })??;
    assert_eq!(reply, length.to_string());
    let grown = stand.weir.process().memory("VmHWM")?.saturating_sub(before);
    assert!(grown < 16 * MIB as u64, "the daemon grew by {} MiB", grown / MIB as u64);
    Ok(())
}

#[test]
fn a_request_that_the_client_gives_up_is_given_up_at_the_server() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up_with(with_http3)?;
    let browser = visitor(&stand)?;
    let target = browser.target.clone();
    let active = |stand: &Stand| -> anyhow::Result<u64> {
        let text = weir_lab::lab::weir::finish({
            let mut ss = stand.lab.edge.command("ss")?;
            ss.args(["-Htn", "state", "established", "dport", "=", ":8080"]);
            ss
        })?;
        Ok(text.stdout.lines().count() as u64)
    };
    let (_line, stream) = browser.station().run(async move {
        let line = Line::open(&target).await?;
        let mut stream = line.begin(line.request("GET", "/slow?ms=60000&given-up").body(())?).await?;
        stream.finish().await?;
        anyhow::Ok((line, stream))
    })??;
    wait::until_true("the server was asked", PATIENCE, || Ok(active(&stand)? >= 1))?;
    browser.station().run(async move {
        let mut stream = stream;
        stream.stop_sending(h3::error::Code::H3_REQUEST_CANCELLED);
    })?;
    // Probes come and go, pooled connections for 4 s; the one that waits for the answer would stay for a minute.
    wait::until_true("no connection to a server is left", PATIENCE, || Ok(active(&stand)? == 0))
}

#[test]
fn a_killed_server_means_the_page() -> Done {
    needs!(Need::Root, Need::Weir);
    let mut stand = Stand::up_with(with_http3)?;
    let browser = visitor(&stand)?;
    stand.one.kill()?;
    stand.two.kill()?;
    let reply = http3::get(&browser, "/")?;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(reply.header("retry-after").is_some() && reply.header("content-length").is_some(), "{reply:?}");
    let (one, lab) = (&mut stand.one, &stand.lab);
    one.start_again(lab)?;
    wait::until_true("the site is back", PATIENCE, || Ok(http3::get(&browser, "/")?.status == StatusCode::OK))
}

#[test]
fn a_reload_fails_no_request_and_keeps_connections() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let stand = Stand::up_with(with_http3)?;
    let browser = visitor(&stand)?;
    let target = browser.target.clone();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (stopped, done) = (stop.clone(), std::sync::mpsc::channel());
    browser.station().spawn(async move {
        let _ = done.0.send(ask_until(&target, &stopped).await);
    });
    let toml = with_http3(&stand.lab, weir::standard(&stand.lab));
    for reload in 1..=5 {
        let generation = stand.weir.status()?["generation"].as_u64().context("no generation")?;
        stand.weir.rewrite_config(&toml.replace("rise = 2", &format!("rise = {}", reload + 2)))?;
        wait::until_true("the configuration runs", PATIENCE, || {
            Ok(stand.weir.status()?["generation"].as_u64() > Some(generation))
        })?;
    }
    stop.store(true, std::sync::atomic::Ordering::Release);
    let served = done.1.recv().context("the client is gone")??;
    assert!(served > 20, "only {served} requests over the five reloads");
    Ok(())
}

/// Asks over one connection, and each time over a new one too.
async fn ask_until(target: &Target, stop: &std::sync::atomic::AtomicBool) -> anyhow::Result<u32> {
    let line = Line::open(target).await?;
    let mut served = 0;
    while !stop.load(std::sync::atomic::Ordering::Acquire) || served < 30 {
        for line in [&line, &Line::open(target).await?] {
            let reply = line.get("/slow?ms=5").await?;
            anyhow::ensure!(reply.status == StatusCode::OK, "{reply:?}");
            served += 1;
        }
    }
    Ok(served)
}

#[test]
fn a_drain_lets_requests_end_and_says_goodbye() -> Done {
    needs!(Need::Root, Need::Weir);
    let mut stand = Stand::up_with(with_http3)?;
    let browser = visitor(&stand)?;
    let target = browser.target.clone();
    let (tell, told) = std::sync::mpsc::channel();
    browser.station().spawn(async move {
        let answered = async {
            let line = Line::open(&target).await?;
            let idle = Line::open(&target).await?;
            let slow = {
                let line = line.clone();
                tokio::spawn(async move { line.get("/drip?n=8&ms=250").await })
            };
            let _ = line.get("/").await?;
            let _ = tell.send(Ok(None));
            let reply = slow.await??;
            let ends = (line.ended(PATIENCE).await?, idle.ended(PATIENCE).await?);
            anyhow::Ok(Some((reply, ends)))
        };
        let answered = answered.await;
        let _ = tell.send(answered);
    });
    assert!(told.recv()??.is_none());
    stand.weir.signal(Signal::SIGTERM)?;
    let (reply, ends) = told.recv()??.context("no reply")?;
    assert_eq!((reply.status, reply.text().matches("drop").count()), (StatusCode::OK, 8));
    for end in [ends.0, ends.1] {
        let no_error = h3::error::Code::H3_NO_ERROR.value();
        let quinn::ConnectionError::ApplicationClosed(close) = &end else { panic!("it ended by {end:?}") };
        assert_eq!(close.error_code.into_inner(), no_error);
    }
    assert!(stand.weir.wait(PATIENCE)?.success());
    Ok(())
}

#[test]
fn http3_comes_and_goes_with_the_configuration() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up()?;
    let browser = visitor(&stand)?;
    let impatient = browser.clone().with_patience(Duration::from_millis(500));
    assert!(http3::get(&impatient, "/").is_err() && stand.visitor.get("/")?.header("alt-svc").is_none());
    let plain = weir::standard(&stand.lab);
    stand.weir.rewrite_config(&with_http3(&stand.lab, plain.clone()))?;
    wait::until_true("HTTP/3 is served", PATIENCE, || Ok(http3::get(&impatient, "/").is_ok()))?;
    stand.weir.rewrite_config(&plain)?;
    wait::until_true("HTTP/3 is gone", PATIENCE, || Ok(http3::get(&impatient, "/").is_err()))?;
    assert_eq!(stand.visitor.get("/")?.status, StatusCode::OK);
    // The port is free for others again.
    stand.weir.rewrite_config(&with_http3(&stand.lab, plain))?;
    wait::until_true("HTTP/3 is back", PATIENCE, || Ok(http3::get(&impatient, "/").is_ok()))
}

#[test]
fn certificates_of_clients_are_asked_for_by_host_as_over_tcp() -> Done {
    needs!(Need::Root, Need::Weir);
    let pullers = Authority::new("Pullers")?;
    let stand = Stand::up_with(|lab, toml| {
        let ca = lab.folder().join("pullers.pem");
        std::fs::write(&ca, pullers.pem()).expect("an authority's file");
        let clients = format!("/certs\", host.\"pull.{SITE}\" = {{ client_ca = \"{}\" }} }}", ca.display());
        with_http3(lab, toml)
            .replace("/certs\" }", &clients)
            .replace(&format!("host = \"{SITE}\""), &format!("host = [\"{SITE}\", \"pull.{SITE}\"]"))
    })?;
    let browser = visitor(&stand)?;
    assert_eq!(http3::get(&browser, "/")?.status, StatusCode::OK, "other hosts ask for none");
    let pull = browser.clone().with_host(&format!("pull.{SITE}"));
    assert!(http3::get(&pull, "/").is_err(), "it has no certificate");
    let target = browser.target.clone();
    let reply = browser.station().run(async move {
        let line = Line::open(&target).await?;
        line.send(Request::get(format!("https://pull.{SITE}/")).body(Bytes::new())?, None).await
    })??;
    assert_eq!(reply.status, StatusCode::MISDIRECTED_REQUEST, "not by the connection of another host either");

    let identity = pullers.issue(&["puller"])?;
    let mut shown = pull.clone();
    shown.target.tls = Some(stand.lab.authority.client_config_as(&["h3"], &identity)?);
    assert_eq!(http3::get(&shown, "/")?.status, StatusCode::OK);
    Ok(())
}

/// A good head of a GET of `/`, as HTTP/3's frames have it.
fn plain_get() -> Vec<u8> {
    let head = [&[0, 0, 0xd1, 0xd7, 0xc1, 0x50, SITE.len() as u8], SITE.as_bytes()].concat();
    [&[1, head.len() as u8][..], &head].concat()
}

#[test]
fn whoever_gives_up_requests_without_end_is_cut_off_and_nobody_else() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up_with(with_http3)?;
    let browser = visitor(&stand)?;
    let target = browser.target.clone();
    let given_up = browser.station().run(async move {
        let other = Line::open(&target).await?;
        let line = Line::open(&target).await?;
        let gives_up = async |times: usize| {
            for nth in 0..times {
                let opened = raw(&line.quic, &plain_get(), true).await;
                let Ok((mut send, mut recv)) = opened else { return nth };
                let _ = (send.reset(0x10c_u32.into()), recv.stop(0x10c_u32.into()));
            }
            times
        };
        // All that a page asks for, given up when the visitor goes on to the next one.
        anyhow::ensure!(gives_up(120).await == 120, "it was cut off at once");
        anyhow::ensure!(line.get("/").await?.status == StatusCode::OK);
        let more = gives_up(5000).await;
        let why = line.ended(PATIENCE).await?;
        anyhow::ensure!(
            matches!(&why, quinn::ConnectionError::ApplicationClosed(close)
                if close.error_code.into_inner() == h3::error::Code::H3_EXCESSIVE_LOAD.value()),
            "it ended because of {why:?}"
        );
        anyhow::ensure!(other.get("/").await?.status == StatusCode::OK, "the other connection is well");
        anyhow::Ok(more)
    })??;
    assert!(given_up < 5000, "{given_up}");
    counted(&stand, "http3_flood")
}

#[test]
fn a_flood_of_first_datagrams_must_show_where_it_is() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up_with(with_http3)?;
    let browser = visitor(&stand)?;
    let target = browser.target.clone();
    let (accepted, told_to_prove) = browser.station().run(async move {
        // Datagrams as a client begins with: they are for somebody who only listens.
        let listener = tokio::net::UdpSocket::bind("0.0.0.0:0").await?;
        let nobody = std::net::SocketAddr::from(([127, 0, 0, 1], listener.local_addr()?.port()));
        let mut first = Vec::new();
        let mut aside = target.clone();
        (aside.to, aside.patience, aside.from) = (nobody, Duration::from_millis(1), None);
        while first.len() < 120 {
            let _ = Line::connect(&aside).await;
            let mut datagram = vec![0; 2048];
            while let Ok((length, _)) = listener.try_recv_from(&mut datagram) {
                // Of the type Initial, and not one that was sent again.
                let id = datagram[5..6 + usize::from(datagram[5])].to_vec();
                if datagram[0] & 0xf0 == 0xc0 && first.iter().all(|(known, _)| *known != id) {
                    first.push((id, datagram[..length].to_vec()));
                }
            }
        }
        // All from one address: so they come to one worker.
        let from = target.from.map_or("0.0.0.0:0".into(), |from| format!("{from}:0"));
        let flood = tokio::net::UdpSocket::bind(&from).await?;
        let (mut accepted, mut retry) = (0, 0);
        for (_, datagram) in &first {
            flood.send_to(datagram, target.to).await?;
            let mut answer = vec![0; 2048];
            let answered = tokio::time::timeout(PATIENCE, flood.recv_from(&mut answer)).await;
            // Answers to earlier ones are sent again and again: each one seen counts as an answer of its kind.
            answered.context("no answer")??;
            match answer[0] & 0xf0 {
                0xf0 => retry += 1,
                _ => accepted += 1,
            }
        }
        // Who is where it says comes in all the same, at whichever worker.
        for _ in 0..8 {
            let mut patient = target.clone();
            patient.patience = PATIENCE;
            anyhow::ensure!(Line::open(&patient).await?.get("/").await?.status == StatusCode::OK);
        }
        anyhow::Ok((accepted, retry))
    })??;
    assert!(accepted >= 64 && told_to_prove > 0, "{accepted} were accepted, {told_to_prove} told to prove");
    Ok(())
}

/// What Chromium needs to know of the site, and to leave alone.
fn chromium(stand: &Stand, url: &str) -> anyhow::Result<std::process::Command> {
    let mut chromium = stand.lab.visitor.command("chromium")?;
    chromium.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--enable-logging=stderr",
        "--dump-dom",
    ]);
    let folder = stand.lab.folder().join("chromium");
    chromium.arg(format!("--user-data-dir={}", folder.display())).env("HOME", &folder);
    chromium.arg(format!("--origin-to-force-quic-on={SITE}:443"));
    chromium.arg(format!("--host-resolver-rules=MAP {SITE} {EDGE}"));
    chromium.arg(format!("--ignore-certificate-errors-spki-list={}", spki_hash(&stand.lab)?));
    chromium.arg(url);
    Ok(chromium)
}

/// The hash of the site's public key, in base64.
fn spki_hash(lab: &Lab) -> anyhow::Result<String> {
    let mut shell = std::process::Command::new("sh");
    shell.arg("-c").arg(
        "openssl x509 -in \"$0\" -noout -pubkey | openssl pkey -pubin -outform der \
         | openssl dgst -sha256 -binary | openssl base64",
    );
    let ran = weir::finish({
        shell.arg(lab.certificates().join("site.crt"));
        shell
    })?;
    anyhow::ensure!(ran.stdout.trim().len() == 44, "{ran:?}");
    Ok(ran.stdout.trim().to_owned())
}

#[test]
fn chromium_gets_a_page() -> Done {
    needs!(Need::Root, Need::Weir, Need::Program("chromium"));
    let stand = Stand::up_with(with_http3)?;
    let ran = weir::finish(chromium(&stand, &format!("https://{SITE}/from-chromium"))?)?;
    assert!(ran.stdout.contains("hello from "), "{ran:?}\n{}", stand.weir.log_text());
    logged(&stand, &["/from-chromium", "\"protocol\":\"HTTP/3.0\"", "Chrome"]).map(drop)
}

#[test]
fn a_client_has_only_so_many_connections() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up_with(|lab, toml| {
        with_http3(lab, toml)
            .replace("client_ip = ", "# ")
            .replace("[service.app]", "limits = { connections_per_client = 5 }\n\n[service.app]")
    })?;
    let browser = visitor(&stand)?;
    let target = browser.target.clone();
    let (open, refused) = browser.station().run(async move {
        let mut lines = Vec::new();
        loop {
            match Line::open(&target).await {
                Ok(line) if lines.len() < 20 => lines.push(line),
                other => return (lines.len(), other.err().map(|why| format!("{why:#}"))),
            }
        }
    })?;
    assert!((1..=5).contains(&open), "{open} connections");
    assert!(refused.as_deref().is_some_and(|why| why.contains("refuse")), "{refused:?}");
    counted(&stand, "connections_per_client")
}

#[test]
fn another_implementation_gets_pages_and_uploads() -> Done {
    needs!(Need::Root, Need::Weir, Need::PythonPackage("aioquic"));
    let stand = Stand::up_with(with_http3)?;
    let mut python = stand.lab.visitor.command(weir_lab::needs::python())?;
    python.args(["-c", include_str!("support/http3.py")]);
    python.arg(stand.lab.ca()).args([EDGE.to_string().as_str(), SITE]);
    let ran = weir::finish(python)?;
    assert!(ran.code == 0 && ran.stdout.trim().ends_with("fine"), "{ran:?}\n{}", stand.weir.log_text());
    Ok(())
}

#[test]
fn early_hints_come_before_the_answer() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up_with(|lab, toml| {
        with_http3(lab, toml)
            + "\n[service.bytes]\nservers = [\"127.0.0.1:7100\"]\n[[route]]\nhost = \"{SITE}\"\n\
               path = \"/hinted\"\nservice = \"bytes\"\n"
                .replace("{SITE}", SITE)
                .as_str()
    })?;
    serve(&stand.lab.edge, "127.0.0.1:7100", |_, mut raw| {
        raw.head()?;
        raw.say("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: x\r\n\r\n".repeat(2))?;
        raw.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
    })?;
    let browser = visitor(&stand)?;
    let target = browser.target.clone();
    let heads = browser.station().run(async move {
        let line = Line::open(&target).await?;
        let mut stream = line.begin(line.request("GET", "/hinted").body(())?).await?;
        stream.finish().await?;
        let mut heads = Vec::new();
        while heads.last() != Some(&200) {
            let head = stream.recv_response().await?;
            let link = head.headers().get("link").map(|link| link.as_bytes().to_vec());
            anyhow::ensure!(
                head.status() == StatusCode::OK || link.as_deref() == Some(b"</a.css>"),
                "{head:?}"
            );
            anyhow::ensure!(!head.headers().contains_key("connection"), "{head:?}");
            heads.push(head.status().as_u16());
        }
        anyhow::Ok(heads)
    })??;
    assert_eq!(heads, [103, 103, 200]);
    Ok(())
}
