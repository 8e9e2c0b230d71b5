//! Three hosts that have their configuration from one etcd: what operators push, what the hosts do with it, and what becomes of
//! both when something goes wrong.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context;
use nix::sys::signal::Signal;
use proxy_user::{
    fleet::publish::{self, Ground, Terms},
    store::{
        address::{Login, StoreAddress, StoreTls},
        etcd::{Session, StoreFault},
        layout::{self, Text},
    },
};
use serde_json::Value;
use weir_lab::{
    lab::{
        certificates::Authority,
        etcd::{Etcd, etcdctl},
        exposition,
        fleet::{self, FleetHost, FleetLab, PATIENCE, SITE, failed, fine, serve},
        successors::Successors,
        wait,
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

/// What each host says that it runs.
fn running(status: &Value) -> Vec<(String, Value, bool)> {
    let hosts = status["hosts"].as_array().cloned().unwrap_or_default();
    let one = |host: &Value| {
        (
            host["name"].as_str().unwrap_or_default().to_owned(),
            host["generation"].clone(),
            host["there"] == true,
        )
    };
    hosts.iter().map(one).collect()
}

#[test]
fn a_fleet_runs_what_is_pushed_and_takes_back_what_it_cant() -> Done {
    needs!(Need::Weir, Need::Program("etcd"), Need::Program("etcdctl"));
    let mut lab = FleetLab::up(3)?;

    // 1. What is faulty goes nowhere; what is valid is shown, and is everywhere when `--wait` returns.
    let faulty = lab.documents("1", "[[route]]\nhost = \"b.example.com\"\nservice = \"nowhere\"\n")?;
    let faulty = faulty.display().to_string();
    failed(&lab.weir(&["push", &faulty])?, 2, "shop.toml:8:11");
    let forbidden = lab.documents("1", "[admin]\nbind = \"127.0.0.1:1\"\n")?.display().to_string();
    failed(&lab.weir(&["push", &forbidden])?, 2, "`[admin]` is for the host's own configuration");
    assert_eq!(lab.status()?["generation"], 0);
    let first = lab.push("one", &["--wait", "-m", "begin"])?;
    fine(&first);
    assert!(first.stdout.contains("+ service `app`"), "{first:?}");
    lab.until_served(&["one", "one", "one"])?;
    // From here on there are visitors.
    let visitors = Visitors::of(&lab);
    let status = lab.status()?;
    let all = ["edge-1", "edge-2", "edge-3"].map(|name| (name.to_owned(), Value::from(1), true));
    assert_eq!(running(&status), all);
    wait::until_true("a host tells that it is ready", PATIENCE, || {
        Ok(lab.status()?["hosts"][0]["ready"] == true)
    })?;
    failed(&lab.push("one", &[])?, 1, "nothing differs");

    // 2. One that a host can't run is taken back for all of them: the page is missing on the second.
    for host in [0, 2] {
        fs::write(lab.hosts[host].folder.join("page.html"), "closed")?;
    }
    let broken = lab.documents("two", "[page.maintenance]\nhtml = \"page.html\"\n")?.display().to_string();
    let config = lab.hosts[0].config().display().to_string();
    let beside = ["push", &broken, "--wait", "--to", "store", "--config", &config];
    failed(&lab.weir(&beside)?, 1, "generation 2 was taken back by edge-2");
    lab.until_served(&["one", "one", "one"])?;
    wait::until_true("every host says so", PATIENCE, || {
        Ok(running(&lab.status()?).iter().all(|(_, runs, _)| *runs == 1))
    })?;
    let status = lab.status()?;
    assert_eq!((&status["generation"], &status["halted"]["generation"]), (&Value::from(1), &Value::from(2)));
    assert!(status["halted"]["why"].as_str().is_some_and(|why| why.contains("page.html")), "{status}");

    let here = lab.hosts[0].status()?["fleet"].take();
    assert_eq!(
        (&here["generation"], &here["halted"]["by"]),
        (&Value::from(1), &Value::from("edge-2")),
        "{here}"
    );
    let told = lab.hosts[0].weir(&["status"])?.stdout;
    assert!(told.contains("generation 2 was taken back by edge-2: "), "{told}");
    let metrics = get(&lab.hosts[0], "/metrics")?;
    for line in ["weir_fleet_store_up 1", "weir_fleet_generation 1", "weir_fleet_taken_back_generation 2"] {
        assert!(metrics.lines().any(|told| told == line), "{line} isn't in\n{metrics}");
    }
    let (mut told, mut described) = (exposition::told(&metrics), exposition::described());
    for names in [&mut told, &mut described] {
        names.retain(|name| name.starts_with("weir_fleet_"));
    }
    assert_eq!(told, described);
    let events = get(&lab.hosts[0], "/api/v1/events?after=0")?;
    for kind in ["generation_current", "generation_taken_back"] {
        assert!(events.contains(kind), "{events}");
    }
    assert!(get(&lab.hosts[1], "/api/v1/events?after=0")?.contains("generation_refused"));

    // 3. One that every host can run, and whose server answers 500: the hosts compare, and take it back.
    let good = std::mem::replace(&mut lab.server, serve("500 Internal Server Error")?);
    fine(&lab.push("worse", &[])?);
    wait::until_true("it is taken back", PATIENCE, || Ok(lab.status()?["halted"]["generation"] == 3))?;
    lab.server = good;
    let status = lab.status()?;
    assert_eq!(status["generation"], 1, "{status}");
    assert!(status["halted"]["why"].as_str().is_some_and(|why| why.contains("failed since")), "{status}");
    lab.until_served(&["one", "one", "one"])?;
    visitors.leave();

    // 4. A canary tries it first, and nothing else comes in between.
    fine(&lab.push("three", &["--canary", "edge-3"])?);
    lab.until_served(&["one", "one", "three"])?;
    failed(&lab.push("four", &[])?, 1, "only at edge-3");
    failed(&lab.push("four", &["--canary", "edge-9", "--force"])?, 0, "edge-9");
    fine(&lab.weir(&["rollback", "4", "--wait"])?);
    lab.until_served(&["three", "three", "three"])?;
    fine(&lab.push("five", &["--canary", "edge-1", "--wait", "--soak", "1s"])?);
    lab.until_served(&["five", "five", "five"])?;

    // 5. On trial: it goes when nobody confirms it, and stays when somebody does.
    fine(&lab.push("six", &["--confirm", "6s", "--wait"])?);
    lab.until_served(&["five", "five", "five"])?;
    wait::until_true("the store says so too", PATIENCE, || {
        let status = lab.status()?;
        Ok(status["generation"] == 6 && status["halted"]["why"] == "nobody confirmed it in time")
    })?;
    fine(&lab.push("seven", &["--confirm", "60s", "--wait"])?);
    fine(&lab.weir(&["fleet", "confirm"])?);
    failed(&lab.weir(&["fleet", "confirm"])?, 1, "is not on trial");

    // 6. One daemon takes over from another: the host is there all the time, and soon there is one lease for it again.
    let mut successors = Successors::with(&lab.hosts[0].config());
    let upgraded = lab.hosts[0].weir(&["upgrade", "--json"])?;
    fine(&upgraded);
    successors.note(&upgraded)?;
    wait::until_true("the old daemon has given its lease up", SOON, || {
        let there = running(&lab.status()?).iter().all(|(_, _, there)| *there);
        anyhow::ensure!(there, "a host is gone: {:?}", lab.status()?);
        Ok(leases(&lab)? == 3)
    })?;

    // 7. The store is away: all goes on, also a host that starts anew.
    lab.etcd.stop()?;
    lab.hosts[1].kill()?;
    lab.hosts[1].begin()?;
    lab.until_served(&["seven", "seven", "seven"])?;
    failed(&lab.weir(&["history"])?, 1, "the store can't be used");
    lab.etcd.go_on()?;
    fine(&lab.push("eight", &["--wait"])?);
    lab.until_served(&["eight", "eight", "eight"])?;

    // 8. What was, and the way back to it; a host that ends is gone soon after.
    let history: Value = serde_json::from_str(&lab.weir(&["history", "--json"])?.stdout)?;
    let state = |generation: u64| {
        let all = history["generations"].as_array()?;
        all.iter().find(|one| one["generation"] == generation)?["state"].as_str()
    };
    assert_eq!((state(9), state(8)), (Some("current"), Some("previous")), "{history}");
    lab.hosts[2].kill()?;
    fine(&lab.weir(&["rollback", "1"])?);
    lab.until_served(&["one", "one"])?;
    wait::until_true("the third host is missed", PATIENCE, || {
        Ok(running(&lab.status()?).iter().any(|(name, _, there)| name == "edge-3" && !there))
    })?;

    // 9. One that is asked to end says for a while that it will, serves meanwhile, and then is gone at once.
    let config = lab.hosts[1].config();
    fs::write(&config, fs::read_to_string(&config)? + "\n[shutdown]\ndelay = \"45s\"\n")?;
    wait::until_true("the delay holds", PATIENCE, || {
        Ok(get(&lab.hosts[1], "/api/v1/configuration")?.contains("45s"))
    })?;
    lab.hosts[1].signal(Signal::SIGTERM)?;
    wait::until_true("it says that it ends", PATIENCE, || {
        Ok(get(&lab.hosts[1], "/ping")?.starts_with("HTTP/1.1 503"))
    })?;
    assert_eq!(lab.hosts[1].served().as_deref(), Some("one"), "who comes is served");
    lab.hosts[1].terminate()?;
    let there = running(&lab.status()?).iter().any(|(name, _, there)| name == "edge-2" && *there);
    assert!(!there, "it has said good-bye");
    Ok(())
}

/// What the second daemon of a host must not take.
const SOON: Duration = Duration::from_secs(10);

/// Over the admin socket.
fn get(host: &FleetHost, path: &str) -> anyhow::Result<String> {
    let mut stream = UnixStream::connect(host.folder.join("admin.sock"))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// How many leases there are in the store.
fn leases(lab: &FleetLab) -> anyhow::Result<usize> {
    let told = etcdctl(lab.etcd.addr(), &["lease", "list"])?;
    // After a line that says how many there are.
    Ok(told.lines().count().saturating_sub(1))
}

/// People who ask all hosts, one after the other, until they leave.
struct Visitors(Arc<AtomicBool>, JoinHandle<()>);

impl Visitors {
    fn of(lab: &FleetLab) -> Self {
        let (stays, hosts) = (Arc::new(AtomicBool::new(true)), lab.hosts.iter().map(|host| host.addr));
        let (still, hosts): (_, Vec<_>) = (stays.clone(), hosts.collect());
        let asking = std::thread::spawn(move || {
            while still.load(Ordering::Relaxed) {
                for host in &hosts {
                    // Whatever the answer is: the hosts count.
                    let _ = fleet::get(*host, SITE);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self(stays, asking)
    }

    fn leave(self) {
        self.0.store(false, Ordering::Relaxed);
        let _ = self.1.join();
    }
}

#[test]
fn a_host_goes_on_with_what_a_neighbouring_release_has_left() -> Done {
    needs!(Need::Weir, Need::Program("etcd"));
    let mut lab = FleetLab::up(0)?;
    let left = Path::new(env!("CARGO_MANIFEST_DIR")).join("skew/0.1");
    let host = lab.add()?;
    copy(&left.join("state"), &host.folder.join("state"))?;
    host.begin()?;
    host.until_it_answers()?;

    // 1. With nothing in the store, and nothing but what the other release left on the disk.
    let status = lab.hosts[0].status()?;
    assert_eq!(status["host_drain"]["why"], "a new kernel", "{status}");
    let old = &status["services"][0];
    assert_eq!(
        (&old["name"], &old["servers"][0]["draining"]["why"]),
        (&Value::from("old"), &Value::from("a new disk"))
    );
    assert_eq!(status["maintenance"][0]["why"], "moving", "{status}");
    assert_eq!(status["splits"][0]["variants"][0]["weight"], 50, "{status}");
    assert_eq!(status["fleet"]["generation"], 2, "{status}");

    // 2. A host of a later release is in the fleet, and says more than this one knows.
    let (address, read) = (lab.address(), |name: &str| fs::read_to_string(left.join("store").join(name)));
    let (current, generation, report) = (read("current.json")?, read("generation.json")?, read("host.json")?);
    block_on(async {
        let session = Session::open(&address, 0).await?;
        let grown = |text: &str| text.trim_end().replacen('{', "{\"wave\":{\"of\":2},", 1).into_bytes();
        let later = report.replace("edge-1", "edge-2").replace("0.1.0", "0.2.0");
        session.put(&layout::generation_key(2), grown(&generation), None).await?;
        session.put("hosts/edge-2", grown(&later), None).await?;
        session.put("current", grown(&current), None).await?;
        Ok(())
    })?;
    wait::until_true("both are in the fleet", PATIENCE, || {
        let both = [("edge-1".to_owned(), Value::from(2), true), ("edge-2".to_owned(), Value::from(2), true)];
        Ok(running(&lab.status()?) == both)
    })?;
    fine(&lab.push("three", &["--wait", "--canary", "edge-1", "--soak", "0s", "--patience", "1s"]).map(
        |mut ran| {
            // The other one is but a line in the store, and never runs it.
            ran.code = i32::from(!ran.stderr.contains("isn't run by edge-2"));
            ran
        },
    )?);
    block_on(async {
        let kept = Session::open(&address, 0).await?.get("current").await?.found.context("it is gone")?;
        let kept: Value = serde_json::from_slice(&kept.bytes)?;
        assert_eq!((&kept["generation"], &kept["wave"]["of"]), (&Value::from(3), &Value::from(2)), "{kept}");
        Ok(())
    })?;
    let damaged = |path: &Path| {
        let entries = fs::read_dir(path)?.map(|entry| Ok(entry?.path()));
        let names = entries.collect::<anyhow::Result<Vec<_>>>()?;
        Ok::<_, anyhow::Error>(
            names.into_iter().filter(|path| path.to_string_lossy().contains("damaged")).count(),
        )
    };
    let state = lab.hosts[0].folder.join("state");
    assert_eq!(damaged(&state)? + damaged(&state.join("fleet"))? + damaged(&state.join("providers"))?, 0);
    Ok(())
}

/// A folder with all that is below it.
fn copy(from: &Path, to: &Path) -> Done {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let (entry, to) = (entry?, |name: &std::ffi::OsStr| to.join(name));
        let to = to(&entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), &to)?;
        }
    }
    Ok(())
}

#[test]
fn of_two_pushes_at_the_same_time_one_is_refused() -> Done {
    needs!(Need::Program("etcd"), Need::Program("etcdctl"));
    let folder = tempfile::tempdir()?;
    let etcd = Etcd::start(folder.path(), &[])?;
    let store = StoreAddress {
        endpoints: vec!["127.0.0.1:1".to_owned(), etcd.addr().to_string()],
        prefix: "/two/".into(),
        tls: None,
        login: None,
    };
    let documents = |text: &str| vec![Text { name: "all.toml".into(), text: text.into() }];
    block_on(async {
        // The first endpoint is dead.
        let session = Session::open(&store, 0).await?;
        let ground = Ground::read(&session).await?;
        let terms = Terms { author: "first".into(), ..Terms::default() };
        publish::push(&session, &ground, documents("a"), &terms).await?;
        let late = publish::push(&session, &ground, documents("b"), &Terms::default()).await.unwrap_err();
        assert!(late.to_string().contains("generation 1 is current now, by first"), "{late}");
        assert_eq!(publish::history(&session, 9).await?.len(), 1, "nothing half written");
        let large = documents(&"x".repeat(2 << 20));
        let ground = Ground::read(&session).await?;
        let refused = publish::push(&session, &ground, large, &terms).await.unwrap_err();
        assert!(refused.to_string().contains("fit into the store"), "{refused}");

        // What has come since is forgotten before anybody could hear of it: that is said, and read anew.
        let seen = session.get("current").await?;
        for text in ["c", "d"] {
            let ground = Ground::read(&session).await?;
            publish::push(&session, &ground, documents(text), &terms).await?;
        }
        let now = session.get("current").await?;
        etcdctl(etcd.addr(), &["compact", &now.at.to_string()])?;
        let missed = session.watch("current", false, seen.at).await?.next().await;
        assert!(matches!(missed, Err(StoreFault::Missed { .. })), "{missed:?}");
        Ok(())
    })
}

#[test]
fn a_store_is_spoken_to_over_tls_and_with_a_password() -> Done {
    needs!(Need::Program("etcd"), Need::Program("etcdctl"));
    let folder = tempfile::tempdir()?;
    let authority = Authority::new("store")?;
    let file = |name: &str| folder.path().join(name);
    let write = |name: &str, text: &str| fs::write(file(name), text);
    let (server, client) = (authority.issue(&["127.0.0.1"])?, authority.issue(&["edge-1"])?);
    write("ca.pem", &authority.pem())?;
    write("server.pem", &server.certificate)?;
    write("server.key", &server.key)?;
    write("client.pem", &client.certificate)?;
    write("client.key", &client.key)?;
    write("password", "secret\n")?;
    write("wrong", "guess\n")?;
    let named = |option: &str, name: &str| format!("--{option}={}", file(name).display());
    let tls = [
        named("cert-file", "server.pem"),
        named("key-file", "server.key"),
        named("trusted-ca-file", "ca.pem"),
        "--client-cert-auth".to_owned(),
    ];
    let arguments: Vec<_> = tls.iter().map(String::as_str).collect();
    let etcd = Etcd::start(folder.path(), &arguments)?;
    let pair = || Some((file("client.pem"), file("client.key")));
    let store = |certificate, login: Option<&str>| StoreAddress {
        endpoints: vec![etcd.addr().to_string()],
        prefix: "/weir/".into(),
        tls: Some(StoreTls { ca: Some(file("ca.pem")), certificate }),
        login: login.map(|name| Login { user: "root".into(), password_file: Some(file(name)) }),
    };
    block_on(async {
        Session::open(&store(pair(), None), 0).await?;
        let stranger = Session::open(&store(None, None), 0).await.err();
        assert!(matches!(stranger, Some(StoreFault::Away { .. })), "{stranger:?}");
        Ok(())
    })?;
    // As docs/fleet.md has it for hosts.
    for command in [
        "user add root:secret",
        "user grant-role root root",
        "role add weir-host",
        "role grant-permission weir-host --prefix=true read /weir/",
        "role grant-permission weir-host --prefix=true readwrite /weir/hosts/",
        "user add edge:secret",
        "user grant-role edge weir-host",
        "auth enable",
    ] {
        etcdctl_over_tls(&etcd, folder.path(), &command.split(' ').collect::<Vec<_>>())?;
    }
    block_on(async {
        Session::open(&store(pair(), Some("password")), 0).await?;
        for login in [None, Some("wrong")] {
            let refused = Session::open(&store(pair(), login), 0).await.err();
            assert!(matches!(refused, Some(StoreFault::Refused { .. })), "{login:?}: {refused:?}");
        }
        let mut host = store(pair(), Some("password"));
        host.login = host.login.map(|login| Login { user: "edge".into(), ..login });
        let session = Session::open(&host, 0).await?;
        let lease = session.lease(15).await?;
        session.put("hosts/edge-1", b"{}".to_vec(), Some(lease.id)).await?;
        assert_eq!(session.list("hosts/").await?.found.len(), 1);
        let forbidden = session.put("generations/1", b"{}".to_vec(), None).await;
        assert!(matches!(forbidden, Err(StoreFault::Refused { .. })), "{forbidden:?}");
        Ok(())
    })
}

fn etcdctl_over_tls(etcd: &Etcd, folder: &Path, arguments: &[&str]) -> Done {
    let named = |option: &str, name: &str| format!("--{option}={}", folder.join(name).display());
    let tls = [named("cacert", "ca.pem"), named("cert", "client.pem"), named("key", "client.key")];
    let tls = tls.iter().map(String::as_str);
    let arguments: Vec<_> = tls.chain(arguments.iter().copied()).collect();
    etcdctl(format!("https://{}", etcd.addr()), &arguments).map(drop)
}

fn block_on(work: impl Future<Output = Done>) -> Done {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
