//! Three hosts that have their configuration from one etcd: what operators push, what the hosts do with it, and what becomes of
//! both when something goes wrong.

use std::{fs, path::Path, process::Command};

use proxy_user::{
    fleet::publish::{self, Ground, Terms},
    store::{
        address::{Login, StoreAddress, StoreTls},
        etcd::{Session, StoreFault},
        layout::Text,
    },
};
use serde_json::Value;
use weir_lab::{
    lab::{
        certificates::Authority,
        etcd::Etcd,
        fleet::{FleetLab, PATIENCE},
        wait,
        weir::Ran,
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

fn fine(ran: &Ran) {
    assert_eq!(ran.code, 0, "{ran:?}");
}

fn failed(ran: &Ran, code: i32, sentence: &str) {
    assert_eq!(ran.code, code, "{ran:?}");
    assert!(format!("{}{}", ran.stdout, ran.stderr).contains(sentence), "{sentence:?} isn't in {ran:?}");
}

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
    needs!(Need::Weir, Need::Program("etcd"));
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

    // 3. A canary tries it first, and nothing else comes in between.
    fine(&lab.push("three", &["--canary", "edge-3"])?);
    lab.until_served(&["one", "one", "three"])?;
    failed(&lab.push("four", &[])?, 1, "only at edge-3");
    failed(&lab.push("four", &["--canary", "edge-9", "--force"])?, 0, "edge-9");
    fine(&lab.weir(&["rollback", "3", "--wait"])?);
    lab.until_served(&["three", "three", "three"])?;
    fine(&lab.push("five", &["--canary", "edge-1", "--wait", "--soak", "1s"])?);
    lab.until_served(&["five", "five", "five"])?;

    // 4. On trial: it goes when nobody confirms it, and stays when somebody does.
    fine(&lab.push("six", &["--confirm", "6s", "--wait"])?);
    lab.until_served(&["five", "five", "five"])?;
    wait::until_true("the store says so too", PATIENCE, || {
        let status = lab.status()?;
        Ok(status["generation"] == 5 && status["halted"]["why"] == "nobody confirmed it in time")
    })?;
    fine(&lab.push("seven", &["--confirm", "60s", "--wait"])?);
    fine(&lab.weir(&["fleet", "confirm"])?);
    failed(&lab.weir(&["fleet", "confirm"])?, 1, "is not on trial");

    // 5. The store is away: all goes on, also a host that starts anew.
    lab.etcd.stop()?;
    lab.hosts[1].kill()?;
    lab.hosts[1].begin()?;
    lab.until_served(&["seven", "seven", "seven"])?;
    failed(&lab.weir(&["history"])?, 1, "the store can't be used");
    lab.etcd.go_on()?;
    fine(&lab.push("eight", &["--wait"])?);
    lab.until_served(&["eight", "eight", "eight"])?;

    // 6. What was, and the way back to it; a host that ends is gone soon after.
    let history: Value = serde_json::from_str(&lab.weir(&["history", "--json"])?.stdout)?;
    let state = |generation: u64| {
        let all = history["generations"].as_array()?;
        all.iter().find(|one| one["generation"] == generation)?["state"].as_str()
    };
    assert_eq!((state(8), state(7)), (Some("current"), Some("previous")), "{history}");
    lab.hosts[2].kill()?;
    fine(&lab.weir(&["rollback", "1"])?);
    lab.until_served(&["one", "one"])?;
    wait::until_true("the third host is missed", PATIENCE, || {
        Ok(running(&lab.status()?).iter().any(|(name, _, there)| name == "edge-3" && !there))
    })
}

#[test]
fn of_two_pushes_at_the_same_time_one_is_refused() -> Done {
    needs!(Need::Program("etcd"));
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
        etcdctl(&etcd, folder.path(), &command.split(' ').collect::<Vec<_>>())?;
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

fn etcdctl(etcd: &Etcd, folder: &Path, arguments: &[&str]) -> Done {
    let named = |option: &str, name: &str| format!("--{option}={}", folder.join(name).display());
    let output = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints=https://{}", etcd.addr()))
        .args([named("cacert", "ca.pem"), named("cert", "client.pem"), named("key", "client.key")])
        .args(arguments)
        .output()?;
    anyhow::ensure!(output.status.success(), "{arguments:?}: {output:?}");
    Ok(())
}

fn block_on(work: impl Future<Output = Done>) -> Done {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
