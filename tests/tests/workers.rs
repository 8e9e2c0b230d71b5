//! How the workers of a daemon share their work, and what each of them keeps ready.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::Context;
use weir_lab::{
    lab::{
        Island,
        client::Browser,
        process::Process,
        raw::{Raw, serve},
        stand::PATIENCE,
        wait,
        weir::{ADMIN, program},
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

const WEB: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8000);
const SERVER: &str = "127.0.0.1:7000";

/// A daemon on the loopback of an island, where servers and clients are too.
struct Small {
    process: Process,
    admin: Browser,
    island: Island,
}

impl Small {
    fn start(workers: usize, service: &str) -> anyhow::Result<Self> {
        let island = Island::build()?;
        let config = island.folder().join("weir.toml");
        std::fs::write(
            &config,
            format!(
                "[kernel]\nmode = 'off'\n[admin]\nbind = '{ADMIN}'\n[log]\naccess = 'off'\n\
                 [entrypoint.http]\nbind = '{WEB}'\n[service.app]\nservers = ['{SERVER}']\n{service}\n\
                 [[route]]\nservice = 'app'\n"
            ),
        )?;
        let mut command = island.namespace.command(program()?)?;
        command.arg("run").arg(&config).arg("--workers").arg(workers.to_string()).env("NO_COLOR", "1");
        let process = Process::start("weir", command, &island.folder().join("weir.log"))?;
        let admin = Browser::plain(&island.namespace, ADMIN)?;
        let small = Self { process, admin, island };
        wait::until_true("the daemon is up", PATIENCE, || Ok(small.admin.get("/ping").is_ok()))
            .with_context(|| small.process.log_text())?;
        Ok(small)
    }

    fn loads(&self) -> anyhow::Result<Vec<u64>> {
        let status = self.admin.get("/api/v1/status")?.json()?;
        let workers = status["workers"].as_array().context("no workers")?;
        Ok(workers.iter().filter_map(serde_json::Value::as_u64).collect())
    }
}

#[test]
fn a_few_lasting_connections_are_spread_evenly() -> Done {
    needs!(Need::Root, Need::Weir);
    let small = Small::start(8, "")?;
    let mut open = Vec::new();
    for _ in 0..64 {
        let mut raw = Raw::connect(&small.island.namespace, WEB)?;
        raw.say("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")?;
        // Nobody is there to be asked: it is the connection that counts.
        assert_eq!(raw.answer()?.status, 503);
        open.push(raw);
    }
    let loads = small.loads()?;
    assert_eq!(loads.iter().sum::<u64>(), 64, "{loads:?}");
    // By the kernel's chance alone the busiest has 12 of them, and the idlest 4, as a rule.
    let (most, least) = (loads.iter().max(), loads.iter().min());
    assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 3), "{loads:?}");
    // Each is served by whoever has it now.
    for raw in &mut open {
        raw.say("GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n")?;
        assert_eq!(raw.answer()?.status, 503);
    }
    wait::until_true("all are gone", PATIENCE, || Ok(small.loads()?.iter().sum::<u64>() == 0))
}

/// A server whose open connections are counted, and that answers when as many requests have come as it waits for.
#[derive(Default)]
struct Counting {
    open: AtomicUsize,
    asked: Mutex<usize>,
    more: Condvar,
}

impl Counting {
    fn converse(&self, mut raw: Raw, wanted: usize) -> anyhow::Result<()> {
        while raw.head().is_ok() {
            let mut asked = self.asked.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
            *asked += 1;
            self.more.notify_all();
            let _enough = self.more.wait_while(asked, |asked| *asked < wanted);
            raw.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        }
        Ok(())
    }
}

#[test]
fn connections_are_opened_ahead_and_no_more_are_kept_than_wanted() -> Done {
    needs!(Need::Root, Need::Weir);
    const AT_ONCE: usize = 8;
    let small = Small::start(1, "pool = { warm = 3, idle = 5, idle_timeout = '1h' }")?;
    let server = Arc::new(Counting::default());
    let answering = server.clone();
    serve(&small.island.namespace, SERVER, move |_, raw| {
        answering.open.fetch_add(1, Ordering::Relaxed);
        let done = answering.converse(raw.with_patience(PATIENCE * 10)?, AT_ONCE);
        answering.open.fetch_sub(1, Ordering::Relaxed);
        done
    })?;
    let open = |wanted: usize| {
        wait::until_true(&format!("{wanted} connections are open"), PATIENCE, || {
            Ok(server.open.load(Ordering::Relaxed) == wanted)
        })
    };
    open(3)?;
    let mut clients = Vec::new();
    for _ in 0..AT_ONCE {
        let mut raw = Raw::connect(&small.island.namespace, WEB)?;
        raw.say("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")?;
        clients.push(raw);
    }
    for raw in &mut clients {
        assert_eq!(raw.answer()?.status, 200);
    }
    open(5)
}
