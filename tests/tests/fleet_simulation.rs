//! Hundreds of hosts on one etcd that is killed, behind networks that fall apart, while good and bad generations are pushed: the
//! hosts' own code, without kernels and sockets. All come to the newest generation that is valid, and none ever runs another.
//!
//! `WEIR_SEED` repeats a run. With `WEIR_MEASURE` set to a number of hosts nothing bad happens, and what they cost an etcd is printed:
//! the figures of docs/scaling.md.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use proxy_user::{
    config,
    fleet::{
        agent::{Agent, Host},
        member::Seen,
        publish::{self, Ground, Terms},
        reconcile::Reconciler,
        report::Figures,
    },
    store::{
        address::StoreAddress,
        etcd::Session,
        layout::{Generation, Text},
    },
};
use tokio::{sync::mpsc, time::Instant};
use weir_lab::{
    lab::etcd::{Etcd, Relay, etcdctl},
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

const HOSTS: usize = 200;

/// Hosts behind one network.
const NETWORKS: usize = 10;

/// Things that happen.
const TURNS: usize = 24;

/// How long all may take to come to rest, on a machine that has other things to do.
const REST: Duration = Duration::from_secs(90);

/// What every host runs, by its name, and which generations were ever run.
#[derive(Debug, Default)]
struct World {
    running: BTreeMap<String, u64>,
    ever: BTreeSet<u64>,
}

/// A host that reads what it is given as the daemon would, and runs nothing.
struct Simulated {
    name: String,
    world: Arc<Mutex<World>>,
    tell: mpsc::UnboundedSender<(u64, Result<(), String>)>,
    told: mpsc::UnboundedReceiver<(u64, Result<(), String>)>,
}

impl Simulated {
    fn new(name: String, world: Arc<Mutex<World>>) -> Self {
        let (tell, told) = mpsc::unbounded_channel();
        Self { name, world, tell, told }
    }
}

impl Host for Simulated {
    async fn offer(&mut self, generation: &Generation) {
        let number = generation.generation;
        let text: String = generation.documents.iter().map(|document| document.text.as_str()).collect();
        let outcome = match config::load_text(Path::new("store"), &text) {
            Ok(_) => {
                let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
                world.running.insert(self.name.clone(), number);
                world.ever.insert(number);
                Ok(())
            }
            Err(report) => Err(report.lines()),
        };
        let _ = self.tell.send((number, outcome));
    }

    async fn outcome(&mut self) -> (u64, Result<(), String>) {
        match self.told.recv().await {
            Some(told) => told,
            // This host itself holds the other end.
            None => std::future::pending().await,
        }
    }

    fn figures(&mut self) -> Figures {
        Figures { ready: true, ..Figures::default() }
    }

    fn speaks(&self) -> bool {
        true
    }

    async fn seen(&mut self, _: &Seen) {}

    fn keep(&mut self, _: &Reconciler) {}
}

fn address(endpoint: std::net::SocketAddr) -> StoreAddress {
    StoreAddress { endpoints: vec![endpoint.to_string()], prefix: "/sim/".into(), tls: None, login: None }
}

/// A configuration that differs from the others; a bad one has a route to nowhere.
fn documents(number: u64, good: bool) -> Vec<Text> {
    let service = if good { "app" } else { "nowhere" };
    let text = format!(
        "[entrypoint.http]\nbind = [\"127.0.0.1:8080\"]\n[service.app]\nservers = [\"127.0.0.1:9000\"]\n\
         [[route]]\nhost = \"{number}.example.com\"\nservice = \"{service}\"\n"
    );
    vec![Text { name: "all.toml".into(), text }]
}

/// Pushes, however often the store must be asked.
async fn push(store: &StoreAddress, tag: u64, good: bool) -> anyhow::Result<u64> {
    let late = Instant::now() + REST;
    loop {
        let pushed = async {
            let session = Session::open(store, 0).await.map_err(publish::PublishFault::from)?;
            let ground = Ground::read(&session).await?;
            publish::push(&session, &ground, documents(tag, good), &Terms::default()).await
        };
        match pushed.await {
            Ok(current) => return Ok(current.generation),
            // Whether it was written before the store went away, is not known; then it is refused as the same.
            Err(fault) if Instant::now() > late => anyhow::bail!("a push came to nothing: {fault}"),
            Err(publish::PublishFault::Refused(why)) if why.contains("nothing differs") => {
                let session = Session::open(store, 0).await?;
                let ground = Ground::read(&session).await?;
                return Ok(ground.current.context("it has just been there")?.generation);
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

#[test]
fn all_hosts_come_to_the_newest_valid_generation_and_none_runs_another() -> Done {
    needs!(Need::Program("etcd"), Need::Program("etcdctl"));
    let seed = match std::env::var("WEIR_SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => std::process::id().into(),
    };
    if let Ok(hosts) = std::env::var("WEIR_MEASURE") {
        return runtime()?.block_on(measure(hosts.parse()?));
    }
    println!("WEIR_SEED={seed}");
    runtime()?.block_on(simulate(seed)).with_context(|| format!("WEIR_SEED={seed}"))
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// What so many hosts cost.
async fn measure(hosts: usize) -> Done {
    let folder = tempfile::tempdir()?;
    let etcd = Etcd::start(folder.path(), &[])?;
    let store = address(etcd.addr());
    let world = Arc::<Mutex<World>>::default();
    push(&store, 1, true).await?;
    let began = Instant::now();
    for nth in 0..hosts {
        begin(format!("edge-{nth}"), etcd.addr(), &world);
    }
    until_all_run(&world, hosts, 1).await?;
    println!("{hosts} hosts joined within {:.1} s", began.elapsed().as_secs_f64());
    let (cpu, steady) = (etcd.cpu()?, Duration::from_secs(30));
    tokio::time::sleep(steady).await;
    let spent = etcd.cpu()?.checked_sub(cpu).unwrap_or_default();
    println!(
        "etcd: {:.2} % of a core while nothing happens",
        100.0 * spent.as_secs_f64() / steady.as_secs_f64()
    );
    for tag in 2..=6 {
        let (began, cpu) = (Instant::now(), etcd.cpu()?);
        let generation = push(&store, tag, true).await?;
        until_all_run(&world, hosts, generation).await?;
        let (took, spent) = (began.elapsed(), etcd.cpu()?.checked_sub(cpu).unwrap_or_default());
        println!(
            "a push ran on all of them after {} ms; etcd's CPU {} ms",
            took.as_millis(),
            spent.as_millis()
        );
    }
    println!("etcd: {} MB of memory at most", etcd.memory()? >> 20);
    let session = Session::open(&store, 0).await?;
    let reports = session.list("hosts/").await?.found;
    let bytes: usize = reports.iter().map(|(_, stored)| stored.bytes.len()).sum();
    println!("{} reports of {} bytes each", reports.len(), bytes / reports.len().max(1));
    Ok(())
}

fn begin(
    name: String,
    store: std::net::SocketAddr,
    world: &Arc<Mutex<World>>,
) -> tokio::task::JoinHandle<()> {
    let agent = Agent { address: address(store), mind: Reconciler::new(name.clone()), reports: true };
    tokio::spawn(agent.run(Simulated::new(name, world.clone()), std::future::pending()))
}

async fn simulate(seed: u64) -> Done {
    let folder = tempfile::tempdir()?;
    let mut dice = Dice(seed);
    let mut etcd = Etcd::start(folder.path(), &[])?;
    let store = address(etcd.addr());
    let world = Arc::<Mutex<World>>::default();

    // 1. One generation that is good, and hosts that find it.
    let mut good = BTreeSet::from([push(&store, 1, true).await?]);
    let mut relays = Vec::new();
    for _ in 0..NETWORKS {
        relays.push(Relay::start(etcd.addr()).await?);
    }
    let hosts: Vec<_> =
        (0..HOSTS).map(|nth| begin(format!("edge-{nth}"), relays[nth % NETWORKS].addr, &world)).collect();
    until_all_run(&world, HOSTS, 1).await?;

    // 2. What a bad month brings.
    for turn in 0..TURNS {
        match dice.roll(8) {
            0 | 1 => relays[dice.roll(NETWORKS)].fall_silent(),
            2 => relays[dice.roll(NETWORKS)].refuse(),
            3 => relays[dice.roll(NETWORKS)].heal(),
            4 => {
                etcd.stop()?;
                tokio::time::sleep(Duration::from_millis(dice.roll(400) as u64)).await;
                etcd.go_on()?;
            }
            fate => {
                let valid = fate != 5;
                let generation = push(&store, 100 + turn as u64, valid).await?;
                if valid {
                    good.insert(generation);
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(dice.roll(150) as u64)).await;
    }

    // 3. The store forgets what some have missed, who can't be reached; the last one is bad; then the networks are whole again.
    relays[0].fall_silent();
    let newest = push(&store, 900, true).await?;
    good.insert(newest);
    let at = Session::open(&store, 0).await?.get("current").await?.at;
    etcdctl(etcd.addr(), &["compact", &at.to_string()])?;
    push(&store, 1_000, false).await?;
    relays.iter().for_each(Relay::heal);
    until_all_run(&world, HOSTS, newest).await?;
    let ever = world.lock().unwrap_or_else(PoisonError::into_inner).ever.clone();
    assert!(ever.is_subset(&good), "ran {ever:?}, of which {good:?} are valid");
    assert!(hosts.iter().all(|host| !host.is_finished()), "no host has ended");
    hosts.iter().for_each(tokio::task::JoinHandle::abort);
    Ok(())
}

async fn until_all_run(world: &Mutex<World>, hosts: usize, generation: u64) -> Done {
    let late = Instant::now() + REST;
    loop {
        let others: Vec<_> = {
            let world = world.lock().unwrap_or_else(PoisonError::into_inner);
            let mut others: Vec<_> = world
                .running
                .iter()
                .filter(|(_, runs)| **runs != generation)
                .map(|(name, runs)| (name.clone(), *runs))
                .collect();
            others.extend((world.running.len()..hosts).map(|_| ("one that runs nothing".to_owned(), 0)));
            others
        };
        if others.is_empty() {
            return Ok(());
        }
        anyhow::ensure!(
            Instant::now() < late,
            "{} hosts don't run generation {generation}: {:?} …",
            others.len(),
            &others[..others.len().min(5)]
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The same numbers for the same seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % sides as u64) as usize
    }
}
