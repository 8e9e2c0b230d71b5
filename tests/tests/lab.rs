//! The lab itself: everything else relies on these.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use weir_lab::{
    Lab,
    lab::{
        addresses::{
            EDGE, EDGE_V6, ONE, SERVER_PORT, SERVER_TLS_PORT, STRANGER, STRANGER_V6, VISITOR, VISITOR_V6,
        },
        client::{Browser, body},
        knock::{Knocks, Witness, knock},
        load::{self, Load},
        process::Process,
        server::{Server, Which},
        stand::PATIENCE,
        wait,
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

/// A web server on the edge itself, in place of the daemon.
fn server_on_the_edge(lab: &Lab, address: SocketAddr) -> anyhow::Result<Process> {
    let mut command = lab.edge.command(env!("CARGO_BIN_EXE_weir-lab"))?;
    command.args(["upstream", "--name", "edge", "--listen", &address.to_string()]);
    let log = lab.folder().join("edge.log");
    Process::start_and_wait_for_a_line("a server on the edge", command, &log, Duration::from_secs(5))
}

#[test]
fn labs_stand_side_by_side_and_leave_nothing() -> Done {
    needs!(Need::Root);
    let (one, two) = (Lab::build()?, Lab::build()?);
    assert_ne!(one.name(), two.name());
    let remains = [one.edge.path(), two.visitor.path(), one.folder().to_owned(), two.bpffs()];
    assert!(remains.iter().all(|path| path.exists()));
    drop((one, two));
    for path in remains {
        assert!(!path.exists(), "{} is still there", path.display());
    }
    Ok(())
}

#[test]
fn a_lab_vanishes_when_its_test_panics() -> Done {
    needs!(Need::Root);
    let lab = Lab::build()?;
    let folder = lab.folder().to_owned();
    let panicked = std::thread::spawn(move || {
        let _lab = lab;
        std::panic::resume_unwind(Box::new("a test failed"));
    })
    .join();
    assert!(panicked.is_err());
    assert!(!folder.exists());
    Ok(())
}

#[test]
fn visitor_and_stranger_reach_the_edge_over_both_protocols() -> Done {
    needs!(Need::Root);
    let lab = Lab::build()?;
    let witness = Witness::open(&lab.edge)?;
    for (namespace, v4, v6) in [(&lab.visitor, VISITOR, VISITOR_V6), (&lab.stranger, STRANGER, STRANGER_V6)] {
        for edge in [SocketAddr::new(EDGE.into(), 443), SocketAddr::new(EDGE_V6.into(), 443)] {
            let knocks = knock(namespace, edge, 3, Duration::from_secs(2))?;
            assert_eq!(knocks, Knocks { refused: 3, ..Knocks::default() });
        }
        assert_eq!((witness.syns_from(v4), witness.syns_from(v6)), (3, 3));
    }
    Ok(())
}

#[test]
fn servers_answer_over_http_and_https_and_http2() -> Done {
    needs!(Need::Root);
    let lab = Lab::build()?;
    let _one = Server::start(&lab, Which::One)?;
    let plain = Browser::plain(&lab.edge, SocketAddr::new(ONE.into(), SERVER_PORT))?;
    assert_eq!(plain.get("/")?.text(), "hello from one\n");
    for (alpn, version) in [("h2", hyper::Version::HTTP_2), ("http/1.1", hyper::Version::HTTP_11)] {
        let secure = Browser::new(&lab, &lab.edge, SocketAddr::new(ONE.into(), SERVER_TLS_PORT), &[alpn])?
            .with_host("app.internal");
        let reply = secure.get("/headers")?;
        assert_eq!((reply.version, reply.upstream()), (version, Some("one")));
    }
    Ok(())
}

#[test]
fn servers_do_what_their_paths_say() -> Done {
    needs!(Need::Root);
    let lab = Lab::build()?;
    let _one = Server::start(&lab, Which::One)?;
    let browser = Browser::plain(&lab.edge, SocketAddr::new(ONE.into(), SERVER_PORT))?;
    assert_eq!(browser.get("/status/503")?.status, 503);
    assert_eq!(browser.get("/bytes?n=100000")?.body.len(), 100_000);
    assert_eq!(browser.get("/bytes?n=100000")?.header("content-length"), Some("100000"));
    assert_eq!(browser.get("/chunked?n=100000")?.header("transfer-encoding"), Some("chunked"));
    assert_eq!(browser.download("/chunked?n=100000")?, 100_000);
    assert_eq!(browser.get("/drip?n=3&ms=1")?.text(), "drop\ndrop\ndrop\n");
    assert!(browser.get("/slow?ms=50")?.took >= Duration::from_millis(50));
    assert_eq!(browser.send(browser.request("POST", "/echo").body(body("so it is"))?)?.text(), "so it is");
    assert_eq!(browser.send(browser.request("POST", "/count").body(body(vec![0; 5000]))?)?.text(), "5000");
    let sent = browser.request("GET", "/headers").header("X-Twice", "a").header("x-twice", "b");
    let seen = browser.send(sent.body(body(""))?)?.json()?;
    assert_eq!(seen["x-twice"], serde_json::json!(["a", "b"]));
    let reset = browser.get("/reset").expect_err("a reset is no answer");
    assert!(format!("{reset:#}").contains("reset"), "{reset:#}");
    Ok(())
}

#[test]
fn a_killed_server_refuses_and_a_hanging_one_is_silent() -> Done {
    needs!(Need::Root);
    let lab = Lab::build()?;
    let mut one = Server::start(&lab, Which::One)?;
    let address = one.address();
    let browser = Browser::plain(&lab.edge, address)?.with_patience(Duration::from_millis(200));
    one.hang()?;
    let knocks = knock(&lab.edge, address, 1, Duration::from_millis(500))?;
    assert_eq!(knocks.connected, 1, "the kernel accepts for a stopped program");
    assert!(browser.get("/").is_err());
    one.resume()?;
    assert_eq!(browser.get("/")?.upstream(), Some("one"));
    one.kill()?;
    assert_eq!(knock(&lab.edge, address, 1, Duration::from_millis(500))?.refused, 1);
    one.start_again(&lab)?;
    assert_eq!(browser.get("/")?.upstream(), Some("one"));
    Ok(())
}

#[test]
fn a_load_keeps_its_rate_and_records_what_fails() -> Done {
    needs!(Need::Root);
    let lab = Lab::build()?;
    let address = SocketAddr::new(EDGE.into(), 80);
    let mut server = server_on_the_edge(&lab, address)?;
    let browser = Browser::plain(&lab.visitor, address)?;
    let load = Load::start(&lab.visitor, &browser, "/", 200)?;
    load.wait_for_more(40, Duration::from_secs(5))?;
    load::all_served(&load.records())?;
    server.kill()?;
    let moment = std::time::Instant::now();
    load.wait_for("a request fails", moment, Duration::from_secs(2), load::Record::is_failed)?;
    let records = load.stop()?;
    assert!(load::failed(&records) > 0 && records.iter().any(|record| record.served_by("edge")));
    let span = records[40].begun - records[0].begun;
    assert!(span > Duration::from_millis(150), "200 a second, not all at once: {span:?}");
    Ok(())
}

#[test]
fn building_a_lab_is_cheap() -> Done {
    needs!(Need::Root);
    let (lab, took) = weir_lab::lab::process::timed(Lab::build)?;
    drop(lab);
    // Far above what it takes, for machines that are busy with other things.
    assert!(took < Duration::from_secs(3), "{took:?}");
    Ok(())
}

#[test]
fn a_server_may_answer_an_upload_early() -> Done {
    needs!(Need::Root);
    use http_body_util::BodyExt;
    let lab = Lab::build()?;
    let one = Server::start(&lab, Which::One)?;
    let browser = Browser::plain(&lab.edge, one.address())?;
    let zeros = weir_lab::upstream::Zeros { left: 64 << 20, told: true };
    let reply = browser.send(browser.request("POST", "/early").body(zeros.boxed())?)?;
    assert_eq!(reply.status, 413);
    Ok(())
}

/// `weir-lab lab`, up and waiting for Ctrl-C; and what the names of all that it made begin with.
fn a_lab_by_hand(log: &std::path::Path) -> anyhow::Result<(Process, String)> {
    // In a namespace like any other program of a lab; it makes its own ones all the same.
    let host = Lab::build()?;
    let mut command = host.edge.command(env!("CARGO_BIN_EXE_weir-lab"))?;
    command.arg("lab");
    let process = Process::start("weir-lab lab", command, log)?;
    wait::until_true("the lab is up", PATIENCE, || Ok(process.log_text().contains("Ctrl-C")))
        .with_context(|| process.log_text())?;
    let name = format!("weir-{}-", process.pid());
    assert_eq!(remains(&name)?, (6, 1, 1), "six namespaces, a folder, a mount");
    Ok((process, name))
}

/// How many namespaces, folders and mounts carry the name.
fn remains(name: &str) -> anyhow::Result<(usize, usize, usize)> {
    let entries = |folder: &std::path::Path| -> anyhow::Result<usize> {
        let names =
            std::fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let names: Vec<String> = names.collect::<std::io::Result<_>>()?;
        Ok(names.iter().filter(|found| found.starts_with(name)).count())
    };
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let bpffs = mounts.lines().filter(|line| line.starts_with("bpf ") && line.contains(name)).count();
    Ok((entries(std::path::Path::new("/run/netns"))?, entries(&std::env::temp_dir())?, bpffs))
}

#[test]
fn ctrl_c_takes_a_lab_down() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir, Need::Program("bpftool"));
    let log = tempfile::NamedTempFile::new()?;
    let (mut lab, name) = a_lab_by_hand(log.path())?;
    lab.signal(nix::sys::signal::Signal::SIGINT)?;
    assert!(lab.wait(PATIENCE)?.success(), "{}", lab.log_text());
    assert_eq!(remains(&name)?, (0, 0, 0));
    Ok(())
}

#[test]
fn ctrl_c_in_the_middle_of_the_story_leaves_nothing() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir, Need::Program("bpftool"));
    let log = tempfile::NamedTempFile::new()?;
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_weir-lab"));
    command.args(["demo", "--once"]);
    let mut demo = Process::start("weir-lab demo", command, log.path())?;
    wait::until_true("the third scene", PATIENCE, || Ok(demo.log_text().contains("kill -9 on server one")))?;
    let name = format!("weir-{}-", demo.pid());
    assert_eq!(remains(&name)?, (6, 1, 1));
    demo.signal(nix::sys::signal::Signal::SIGINT)?;
    assert_eq!(demo.wait(PATIENCE)?.code(), Some(130));
    assert_eq!(remains(&name)?, (0, 0, 0));
    Ok(())
}

#[test]
fn what_a_killed_lab_leaves_is_swept() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir, Need::Program("bpftool"));
    let log = tempfile::NamedTempFile::new()?;
    let (mut lab, name) = a_lab_by_hand(log.path())?;
    lab.signal(nix::sys::signal::Signal::SIGKILL)?;
    lab.wait(PATIENCE)?;
    weir_lab::lab::remains::sweep();
    assert_eq!(remains(&name)?, (0, 0, 0));
    Ok(())
}
