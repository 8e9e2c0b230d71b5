//! `weir explain` and `weir watch`: what they say is what happens to real packets, and asking changes nothing that
//! anybody counts.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::ensure;
use proxy_common::event::{EVENTS_PER_WINDOW, WINDOW};
use serde_json::Value;
use weir_lab::{
    Lab,
    lab::{
        addresses::{EDGE, HTTPS, HTTPS_V6, STRANGER, STRANGER_V6, VISITOR, VISITOR_V6},
        knock::{Knocks, knock},
        pinned,
        stand::{PATIENCE, Stand},
        wait,
        weir::{self, Ran},
    },
    needs,
    needs::Need,
};

#[path = "support/watch.rs"]
mod watch;

use watch::Watch;

type Done = anyhow::Result<()>;

const KNOCK: Duration = Duration::from_millis(300);

fn weir_of(lab: &Lab, arguments: &[&str]) -> anyhow::Result<Ran> {
    let mut command = lab.edge.command(weir::program()?)?;
    command.args(arguments).env("NO_COLOR", "1").env("WEIR_BPFFS", lab.bpffs());
    weir::finish(command)
}

fn well(lab: &Lab, arguments: &[&str]) -> anyhow::Result<String> {
    let ran = weir_of(lab, arguments)?;
    ensure!(ran.code == 0, "weir {arguments:?} ended with {}: {}{}", ran.code, ran.stdout, ran.stderr);
    Ok(ran.stdout)
}

/// What `weir explain` says of the one packet it is asked about.
fn explain(lab: &Lab, arguments: &[&str]) -> anyhow::Result<Value> {
    let text = well(lab, &[&["explain", "--json"], arguments].concat())?;
    let document: Value = serde_json::from_str(&text)?;
    ensure!(document["judged_by"] == "kernel", "not the kernel: {text}");
    ensure!(document["packets"].as_array().is_some_and(|packets| packets.len() == 1), "not one: {text}");
    Ok(document["packets"][0].clone())
}

/// Everything that the gate counts, as `weir kernel status` tells it.
fn counters(lab: &Lab) -> anyhow::Result<Value> {
    let status: Value = serde_json::from_str(&well(lab, &["kernel", "status", "--json"])?)?;
    Ok(status["status"]["entrypoints"].clone())
}

#[test]
fn explain_says_what_happens_to_real_packets() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    // A second list, at another entrypoint, has the stranger; a third entrypoint lets in everybody.
    let stand = Stand::up_with(|_, toml| {
        let more = format!(
            "[allowlist.office]\nprefixes = [\"203.0.113.0/24\"]\n\n[entrypoint.inner]\nbind = [\"{EDGE}:8443\"]\nallow = \
             [\"office\"]\n\n[entrypoint.open]\nbind = [\"{EDGE}:8080\"]\n\n"
        );
        toml.replace("[entrypoint.https]", &(more + "[entrypoint.https]"))
    })?;
    let lab = &stand.lab;
    let inner = SocketAddr::new(EDGE.into(), 8443);
    let open = SocketAddr::new(EDGE.into(), 8080);
    let cases: [(&str, IpAddr, SocketAddr, &str, Value); 8] = [
        ("listed", VISITOR.into(), HTTPS, "admitted", "https".into()),
        ("a stranger", STRANGER.into(), HTTPS, "dropped", "https".into()),
        ("listed, v6", VISITOR_V6.into(), HTTPS_V6, "admitted", "https".into()),
        ("a stranger, v6", STRANGER_V6.into(), HTTPS_V6, "dropped", "https".into()),
        ("listed elsewhere", STRANGER.into(), inner, "admitted", "inner".into()),
        ("a stranger there", VISITOR.into(), inner, "dropped", "inner".into()),
        ("open to everybody", STRANGER.into(), open, "admitted", "open".into()),
        ("a port of nobody's", STRANGER.into(), SocketAddr::new(EDGE.into(), 22), "not_guarded", Value::Null),
    ];
    for (name, source, to, outcome, entrypoint) in cases {
        let said = explain(lab, &[&source.to_string(), "--to", &to.to_string()])?;
        assert_eq!((&said["outcome"], &said["entrypoint"]), (&outcome.into(), &entrypoint), "{name}: {said}");
        let from = if [STRANGER.into(), IpAddr::V6(STRANGER_V6)].contains(&source) {
            &lab.stranger
        } else {
            &lab.visitor
        };
        let dropped = outcome == "dropped";
        assert_eq!(said["verdict"] == "drop", dropped, "{name}: {said}");
        assert_eq!(knock(from, to, 2, KNOCK)?.silent, if dropped { 2 } else { 0 }, "{name}");
    }
    Ok(())
}

#[test]
fn explain_names_the_list_and_the_prefix_that_decided() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let stand = Stand::up_with(|_, toml| {
        let more = format!(
            "[allowlist.office]\nprefixes = [\"203.0.113.0/25\"]\n\n[entrypoint.inner]\nbind = [\"{EDGE}:8443\"]\nallow = \
             [\"office\"]\n\n"
        );
        toml.replace("[entrypoint.https]", &(more + "[entrypoint.https]"))
    })?;
    let lab = &stand.lab;
    let listed = explain(lab, &[&VISITOR.to_string(), "--entrypoint", "https"])?;
    let decided = serde_json::json!({ "prefix": "173.245.48.0/20", "list": "cloudflare" });
    assert_eq!(listed["lists"]["decided"], decided, "{listed}");
    assert_eq!(listed["generation"], stand.weir.status()?["generation"]);

    let stranger = explain(lab, &[&STRANGER.to_string(), "--entrypoint", "https"])?;
    assert_eq!(stranger["reason"], "not_listed");
    // The last of Cloudflare's ranges is right below; above there is none.
    let because = serde_json::json!({
        "allows": ["cloudflare"],
        "decided": null,
        "nearest": [{ "prefix": "198.41.128.0/17", "list": "cloudflare" }],
        "elsewhere": [{ "prefix": "203.0.113.0/25", "list": "office" }],
    });
    assert_eq!(stranger["lists"], because, "{stranger}");

    let text = well(lab, &["explain", &STRANGER.to_string()])?;
    assert!(text.contains("198.51.100.1:443 tcp: dropped, not_listed"), "{text}");
    assert!(
        text.contains("203.0.113.0/25, of the allowlist `office`, lets it in at entrypoint `inner`"),
        "{text}"
    );
    Ok(())
}

#[test]
fn explaining_is_not_counted_as_traffic() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let stand = Stand::up()?;
    let lab = &stand.lab;
    // Nobody else sends: neither the visitor nor a stranger.
    let before = settled(lab)?;
    for _ in 0..5 {
        explain(lab, &[&STRANGER.to_string(), "--entrypoint", "https"])?;
        explain(lab, &[&VISITOR_V6.to_string(), "--entrypoint", "https"])?;
    }
    assert_eq!(counters(lab)?, before);
    // The counters count: a real packet is seen, and exactly that one.
    knock(&lab.stranger, HTTPS, 1, KNOCK)?;
    let count = |counters: &Value| counters[1]["dropped"]["not_listed"]["packets"].as_u64();
    assert_eq!(count(&counters(lab)?), count(&before).map(|count| count + 1));
    Ok(())
}

/// The counters, once connections of before have ended.
fn settled(lab: &Lab) -> anyhow::Result<Value> {
    let mut last = (counters(lab)?, std::time::Instant::now());
    wait::until("the counters stand still", PATIENCE, || {
        let now = counters(lab)?;
        if now != last.0 {
            last = (now, std::time::Instant::now());
        }
        Ok((last.1.elapsed() > Duration::from_millis(500)).then(|| last.0.clone()))
    })
}

#[test]
fn packets_as_hex_and_out_of_captures_are_explained() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let stand = Stand::up()?;
    let lab = &stand.lab;
    let frame = proxy_user::packet::syn(STRANGER.into(), HTTPS).map_err(anyhow::Error::msg)?;
    let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(explain(lab, &["--packet", &hex])?["reason"], "not_listed");
    // A packet that the kernel tries out at XDP only: shorter than its IP header.
    assert_eq!(explain(lab, &["--packet", &hex[..2 * 30]])?["outcome"], "not_a_header");
    let fault = weir_of(lab, &["explain", "--packet", "0102"])?;
    assert_eq!(fault.code, 2);
    assert!(fault.stderr.contains("a packet begins with an Ethernet header of 14 bytes"), "{}", fault.stderr);

    let visitor = proxy_user::packet::syn(VISITOR.into(), HTTPS).map_err(anyhow::Error::msg)?;
    let mut file: Vec<u8> = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1].map(u32::to_le_bytes).concat();
    for frame in [&frame, &visitor, &frame] {
        let length = frame.len() as u32;
        file.extend([0, 0, length, length].map(u32::to_le_bytes).concat());
        file.extend(frame);
    }
    let path = lab.folder().join("some.pcap");
    std::fs::write(&path, file)?;
    let text = well(lab, &["explain", "--pcap", &path.to_string_lossy(), "--packets", "2"])?;
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].contains("dropped") && lines[0].contains("203.0.113.9:40000"), "{text}");
    assert!(lines[1].contains("passes") && lines[1].contains("173.245.48.0/20"), "{text}");
    assert!(!lines[2].contains("203.0.113.9"), "{text}");
    Ok(())
}

#[test]
fn without_a_gate_the_check_at_accept_is_explained_and_said_to_be_that() -> Done {
    needs!(Need::Root, Need::Weir);
    let lab = Lab::build()?;
    let file = lab.folder().join("weir.toml");
    std::fs::write(&file, weir::standard(&lab))?;
    let ask = |source: IpAddr| {
        well(
            &lab,
            &["explain", &source.to_string(), "--entrypoint", "https", "--config", &file.to_string_lossy()],
        )
    };
    let stranger = ask(STRANGER.into())?;
    assert!(stranger.starts_with("No gate judges this: nothing of Weir's is in the kernel"), "{stranger}");
    assert!(stranger.contains("turned away at once; the source is on none of the lists"), "{stranger}");
    let visitor = ask(VISITOR_V6.into())?;
    assert!(
        visitor.contains("let in at entrypoint `https` by 2400:cb00::/32, of the allowlist `cloudflare`"),
        "{visitor}"
    );
    Ok(())
}

#[test]
fn questions_that_make_no_sense_are_answered_with_a_sentence() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let stand = Stand::up()?;
    for (arguments, sentence) in [
        (vec!["203.0.113.9", "--entrypoint", "http"], "the gate guards no entrypoint `http`, but https;"),
        (vec!["203.0.113.9", "--to", "[2001:db8::1]:443"], "one is IPv4 and the other is IPv6"),
        (vec!["ftp://example.com/"], "is not a URL of a site"),
        (vec!["W999"], "is no code of Weir's"),
        (vec!["--packet", "zz"], "`z` is no hexadecimal digit"),
    ] {
        let ran = weir_of(&stand.lab, &[&["explain"], &arguments[..]].concat())?;
        assert_eq!(ran.code, 2, "{arguments:?}");
        assert!(ran.stderr.contains(sentence), "{arguments:?}: {}", ran.stderr);
    }
    Ok(())
}

#[test]
fn watch_shows_a_strangers_drop() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let stand = Stand::up()?;
    let lab = &stand.lab;
    let mut watch = Watch::start(lab, &["--json", "--count", "2"])?;
    assert_eq!(knock(&lab.stranger, HTTPS, 1, KNOCK)?, Knocks { silent: 1, ..Knocks::default() });
    assert_eq!(knock(&lab.stranger, HTTPS_V6, 1, KNOCK)?, Knocks { silent: 1, ..Knocks::default() });
    assert!(watch.process.wait(PATIENCE)?.success());
    let drops = watch.drops()?;
    let sources: Vec<_> = drops.iter().map(|drop| &drop["source"]).collect();
    assert_eq!(sources, [&Value::from(STRANGER.to_string()), &Value::from(STRANGER_V6.to_string())]);
    for drop in &drops {
        assert_eq!(drop["reason"], "not_listed", "{drop}");
        assert_eq!(drop["entrypoint"], "https", "{drop}");
        assert_eq!(
            (&drop["destination_port"], &drop["interface"]),
            (&443.into(), &"public".into()),
            "{drop}"
        );
    }
    Ok(())
}

#[test]
fn a_flood_is_told_in_samples_and_the_rest_in_numbers() -> Done {
    const FLOOD: u64 = 30_000;
    needs!(Need::Root, Need::Ebpf, Need::Weir, Need::Program("bpftool"));
    let stand = Stand::up()?;
    let lab = &stand.lab;
    let mut watch = Watch::start(lab, &["--json"])?;
    let begun = std::time::Instant::now();
    flood(lab, FLOOD)?;
    let told = |lines: &[Value]| -> u64 {
        let told =
            |line: &Value| line["packets"].as_u64().unwrap_or_else(|| u64::from(line["event"] == "drop"));
        lines.iter().map(told).sum()
    };
    // Nothing is lost: what isn't shown is counted. (On a busy machine the way to the gate may lose some: what counts
    // is what came as far.)
    wait::until_true("all that was dropped is told", PATIENCE, || {
        let dropped = pinned::packets(lab, "https", "not_listed")?;
        Ok(dropped > FLOOD / 10 && told(&watch.lines()?) == dropped)
    })?;
    let took = begun.elapsed();
    let drops = watch.drops()?.len() as u128;
    let cpus = std::thread::available_parallelism()?.get() as u128;
    let windows = took.as_nanos() / u128::from(WINDOW) + 2;
    let limit = windows * cpus * u128::from(EVENTS_PER_WINDOW);
    assert!(drops > 0 && drops <= limit, "{drops} events in {took:?}, of at most {limit}");
    watch.process.kill()
}

/// SYNs that nobody answers, each from a port of its own or with another text.
fn flood(lab: &Lab, packets: u64) -> Done {
    // To a guarded TCP port, of which UDP knows nothing: so raw, as a stranger with root has it.
    lab.stranger.run(move || -> Done {
        use nix::sys::socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
        };
        let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Tcp)?;
        let to = SockaddrIn::from(std::net::SocketAddrV4::new(EDGE, 0));
        let frame =
            proxy_user::packet::syn(Ipv4Addr::UNSPECIFIED.into(), HTTPS).map_err(anyhow::Error::msg)?;
        for _ in 0..packets {
            // Behind the Ethernet and IPv4 headers, which the kernel writes.
            let descriptor = std::os::fd::AsRawFd::as_raw_fd(&raw);
            while let Err(error) = sendto(descriptor, &frame[34..], &to, MsgFlags::empty()) {
                ensure!(error == nix::errno::Errno::ENOBUFS, "can't send: {error}");
            }
        }
        Ok(())
    })?
}

#[test]
fn what_nobody_watches_is_not_told_and_a_watcher_that_dies_is_noticed() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let stand = Stand::up()?;
    let lab = &stand.lab;
    knock(&lab.stranger, HTTPS, 20, KNOCK)?;
    assert_eq!(take_events(lab)?, 0, "told though nobody has ever watched");

    let mut watch = Watch::start(lab, &["--json"])?;
    knock(&lab.stranger, HTTPS, 1, KNOCK)?;
    wait::until_true("the drop is told", PATIENCE, || Ok(!watch.drops()?.is_empty()))?;
    watch.process.kill()?;
    knock(&lab.stranger, HTTPS, 1, Duration::from_millis(100))?;
    assert!(take_events(lab)? > 0, "the gate can't know yet that nobody watches any more");
    wait::until_true("the gate falls silent", PATIENCE, || {
        knock(&lab.stranger, HTTPS, 2, Duration::from_millis(100))?;
        Ok(take_events(lab)? == 0)
    })?;
    knock(&lab.stranger, HTTPS, 20, KNOCK)?;
    assert_eq!(take_events(lab)?, 0);

    // And the next one hears again.
    let mut next = Watch::start(lab, &["--json", "--count", "1"])?;
    knock(&lab.stranger, HTTPS, 1, KNOCK)?;
    assert!(next.process.wait(PATIENCE)?.success());
    Ok(())
}

#[test]
fn two_do_not_watch_at_once() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir);
    let stand = Stand::up()?;
    let _first = Watch::start(&stand.lab, &[])?;
    let second = weir_of(&stand.lab, &["watch"])?;
    assert_eq!(second.code, 1);
    assert!(second.stderr.contains("another `weir watch` or `weir top` does"), "{}", second.stderr);
    Ok(())
}

/// Takes out of the ring what waits in it, and says how many events that were.
fn take_events(lab: &Lab) -> anyhow::Result<usize> {
    let map =
        aya::maps::MapData::from_pin(weir_lab::lab::pinned::map(lab, proxy_common::names::GATE_EVENTS))?;
    let mut ring: aya::maps::RingBuf<_> = aya::maps::Map::from_map_data(map)?.try_into()?;
    Ok(std::iter::from_fn(|| ring.next().map(drop)).count())
}
