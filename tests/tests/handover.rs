//! Connections handed to the kernel, end to end: every byte of every transfer is checked, and what can't be handed over is
//! relayed.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside of test functions")]

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use proxy_user::handover::{
    Ended, How, Keeper, Limits, Refused, ServerSide, Standing, Terms, Who, connect, hand_over,
};
use tokio::{io::copy_bidirectional, net::TcpStream};

#[path = "support/scratch.rs"]
mod scratch;
#[path = "support/transfer.rs"]
mod transfer;

use scratch::{Neighbour, Scratch, in_scratch, ip};
use transfer::{HEAD, Manner, Wish, transfer};

const ENTRY: u16 = 443;
const LIMITS: Limits =
    Limits { idle: Duration::from_secs(60), lifetime: None, linger: Duration::from_millis(300) };

fn entry(v6: bool) -> SocketAddr {
    if v6 { "[2001:db8:1::1]:443" } else { "192.0.2.1:443" }.parse().unwrap()
}

fn server(v6: bool) -> SocketAddr {
    if v6 { "[2001:db8:2::11]:8443" } else { "10.0.0.11:8443" }.parse().unwrap()
}

/// A client, an edge and a server; the edge's end is this namespace.
struct Lab {
    client: Neighbour,
    server: Neighbour,
}

impl Lab {
    fn new(scratch: &Scratch) -> Self {
        let client = scratch.neighbour("clients", "edge");
        let server = scratch.neighbour("servers", "edge");
        for (device, v4, v6) in
            [("clients", "192.0.2.1", "2001:db8:1::1"), ("servers", "10.0.0.1", "2001:db8:2::1")]
        {
            ip(&format!("addr add {v4}/24 dev {device}"));
            ip(&format!("addr add {v6}/64 dev {device} nodad"));
        }
        for (neighbour, v4, v6) in
            [(&client, "192.0.2.9", "2001:db8:1::9"), (&server, "10.0.0.11", "2001:db8:2::11")]
        {
            neighbour.run(move || {
                ip("link set lo up");
                ip(&format!("addr add {v4}/24 dev edge"));
                ip(&format!("addr add {v6}/64 dev edge nodad"));
            });
        }
        server.run(|| {
            for v6 in [false, true] {
                transfer::serve(TcpListener::bind(self::server(v6)).unwrap());
            }
        });
        Self { client, server }
    }

    /// Runs all of these at once and gives what went wrong.
    fn transfers(&self, wishes: Vec<(bool, Wish, Manner)>) -> Vec<String> {
        let (send, receive) = mpsc::channel();
        self.client.run(move || {
            for (v6, wish, manner) in wishes {
                let send = send.clone();
                thread::spawn(move || {
                    let outcome = transfer(entry(v6), wish, manner);
                    let _ = send
                        .send(outcome.err().map(|error| format!("v6: {v6}, {wish:?}, {manner:?}: {error}")));
                });
            }
        });
        receive.into_iter().flatten().collect()
    }

    /// Drops one packet in so many that come to the client and to the server.
    fn lose(&self, one_in: u32) {
        for neighbour in [&self.client, &self.server] {
            neighbour.run(move || {
                run("nft", "add table inet lossy");
                run("nft", "add chain inet lossy input { type filter hook input priority 0 ; }");
                run(
                    "nft",
                    &format!("add rule inet lossy input tcp dport 1-65535 numgen random mod {one_in} 0 drop"),
                );
            });
        }
    }

    fn lose_nothing(&self) {
        for neighbour in [&self.client, &self.server] {
            neighbour.run(|| run("nft", "delete table inet lossy"));
        }
    }
}

fn run(program: &str, arguments: &str) {
    let status = Command::new(program)
        .args(arguments.split_whitespace())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    assert!(status.unwrap().success(), "{program} {arguments}");
}

/// An edge that hands over whatever it can and relays the rest. It ends when it is dropped, as a daemon that is killed: the
/// kernel goes on.
struct Edge {
    keeper: Arc<Keeper>,
    relayed: Arc<AtomicUsize>,
    ended: Arc<Mutex<Vec<Ended>>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Edge {
    fn new(bpffs: &Path) -> Self {
        let interfaces = ["clients", "servers"];
        let (relayed, ended) = (Arc::default(), Arc::<Mutex<Vec<Ended>>>::default());
        let taken_over = ended.clone();
        let heir = Box::new(move |one| taken_over.lock().unwrap().push(one));
        let keeper = Keeper::open(bpffs, &interfaces, &[ENTRY], 20_000..=20_999, LIMITS, heir).unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (ready, is_ready) = mpsc::channel();
        let serving = (keeper.clone(), Arc::clone(&relayed), ended.clone());
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                for v6 in [false, true] {
                    let listener = tokio::net::TcpListener::bind(entry(v6)).await.unwrap();
                    let serving = serving.clone();
                    tokio::spawn(async move {
                        loop {
                            let (client, _) = listener.accept().await.unwrap();
                            tokio::spawn(carry(client, server(v6), serving.clone()));
                        }
                    });
                }
                tokio::spawn(serving.0.clone().look_after());
                ready.send(()).unwrap();
                let _ = stopped.await;
            });
        });
        is_ready.recv().unwrap();
        Self { keeper, relayed, ended, stop: Some(stop), thread: Some(thread) }
    }

    fn standing(&self) -> Standing {
        self.keeper.standing().unwrap()
    }

    fn relayed(&self) -> usize {
        self.relayed.load(Ordering::Relaxed)
    }

    /// Waits until nothing is carried any more.
    fn is_empty(&self) {
        until("the table is empty", || self.standing().carried == 0);
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().unwrap().join();
    }
}

type Serving = (Arc<Keeper>, Arc<AtomicUsize>, Arc<Mutex<Vec<Ended>>>);

async fn carry(client: TcpStream, server: SocketAddr, (keeper, relayed, ended): Serving) {
    // As of a hello: looked at until it is there, and not taken.
    let mut seen = vec![0; 32 << 10];
    let mut known = 0;
    loop {
        known = match client.peek(&mut seen).await {
            Ok(0) | Err(_) => return,
            Ok(peeked) if peeked > known => peeked,
            Ok(same) => {
                tokio::time::sleep(Duration::from_millis(1)).await;
                same
            }
        };
        if known >= HEAD && known - HEAD >= Wish::read(seen[..HEAD].try_into().unwrap()).hello as usize {
            break;
        }
    }
    let Ok(side) = connect(&keeper, &client, server).await else {
        relayed.fetch_add(1, Ordering::Relaxed);
        return relay(client, TcpStream::connect(server).await.unwrap()).await;
    };
    match hand_over(&keeper, client, side, Terms { service: "pool", limits: LIMITS }) {
        Ok(end) => {
            let how = end.await.ok();
            ended.lock().unwrap().extend(how);
        }
        Err(refused) => {
            relayed.fetch_add(1, Ordering::Relaxed);
            let Refused { client, server: side, .. } = *refused;
            let ServerSide { stream, lease: _lease } = side.unwrap();
            relay(client, stream).await;
        }
    }
}

async fn relay(mut client: TcpStream, mut server: TcpStream) {
    let _ = copy_bidirectional(&mut client, &mut server).await;
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(30), "waited in vain until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn wish(seed: u64, hello: u64, upload: u64, download: u64) -> Wish {
    Wish { hello, upload, download, seed: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) }
}

/// Of many sizes, by both families, as clients do it.
fn many() -> Vec<(bool, Wish, Manner)> {
    let mut all = Vec::new();
    let mut seed = 1_u64;
    for v6 in [false, true] {
        for hello in [0, 200, 1_700, 13_000] {
            for (upload, download) in [(0, 1), (1, 0), (1_000, 100_000), (70_000, 20), (2_000_000, 3_000_000)]
            {
                seed += 1;
                let manner = Manner {
                    pieces: [None, Some(500)][seed as usize % 2],
                    is_early: upload <= 1_000 && hello < 13_000,
                    closes_first: upload > 1_000 && seed.is_multiple_of(3),
                };
                all.push((v6, wish(seed, hello, upload, download), manner));
            }
        }
    }
    all
}

fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} transfers went wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn transfers_of_many_sizes_arrive_as_they_were_sent() {
    in_scratch("transfers_of_many_sizes_arrive_as_they_were_sent", |scratch| {
        let lab = Lab::new(scratch);
        let edge = Edge::new(&scratch.bpffs);
        if weir_lab::needs::find_program("ethtool").is_none() {
            return scratch::skip(
                "transfers_of_many_sizes_arrive_as_they_were_sent",
                "ethtool (the package ethtool) isn't installed",
            );
        }
        none(&lab.transfers(many()));
        let standing = edge.standing();
        println!("{standing:?}, {} relayed", edge.relayed());
        assert!(standing.handed_over > 20, "{standing:?}");
        edge.is_empty();

        // Once more where checksums are made by the CPU, so that each is looked at.
        for device in ["clients", "servers"] {
            run("ethtool", &format!("-K {device} tx off"));
        }
        for neighbour in [&lab.client, &lab.server] {
            neighbour.run(|| run("ethtool", "-K edge tx off"));
        }
        none(&lab.transfers(many()));
        let again = edge.standing();
        assert!(again.handed_over > standing.handed_over + 20, "{again:?}");
        edge.is_empty();
        println!("{:?}, {} relayed", edge.standing(), edge.relayed());
        assert!(edge.ended.lock().unwrap().iter().all(|one| matches!(one.how, How::Closed(_))));
        assert!(edge.ended.lock().unwrap().iter().any(|one| one.how == How::Closed(Who::Client)));
        assert!(edge.ended.lock().unwrap().iter().any(|one| one.how == How::Closed(Who::Server)));
    });
}

#[test]
fn nothing_is_corrupted_or_broken_by_loss_or_by_the_end_of_the_daemon() {
    in_scratch("nothing_is_corrupted_or_broken_by_loss_or_by_the_end_of_the_daemon", |scratch| {
        if weir_lab::needs::find_program("nft").is_none() {
            return scratch::skip(
                "nothing_is_corrupted_or_broken_by_loss_or_by_the_end_of_the_daemon",
                "nft (the package nftables) isn't installed",
            );
        }
        let lab = Lab::new(scratch);
        let edge = Edge::new(&scratch.bpffs);
        lab.lose(100);
        let lossy = (0..16).map(|seed| {
            let manner = Manner { closes_first: seed % 2 == 0, ..Manner::default() };
            (seed % 2 == 0, wish(seed + 500, 200, 3_000_000, 3_000_000), manner)
        });
        none(&lab.transfers(lossy.collect()));
        let standing = edge.standing();
        println!("{standing:?}, {} relayed", edge.relayed());
        assert!(standing.handed_over >= 10 && standing.selective > 0, "{standing:?}");
        lab.lose_nothing();
        edge.is_empty();

        // The daemon goes while bytes are on their way, and another one comes.
        let running = thread::scope(|threads| {
            let long = (0..6).map(|seed| {
                (seed % 2 == 0, wish(seed + 900, 200, 150_000_000, 150_000_000), Manner::default())
            });
            let before = edge.standing().handed_over;
            let transfers = threads.spawn(|| lab.transfers(long.collect()));
            until("all are handed over", || edge.standing().handed_over == before + 6);
            drop(edge);
            let next = Edge::new(&scratch.bpffs);
            let adopted = next.standing().carried;
            println!("{adopted} adopted");
            none(&transfers.join().unwrap());
            next.is_empty();
            adopted
        });
        assert!(running > 0, "none was running any more");
    });
}

#[test]
fn what_cannot_be_handed_over_is_relayed_whole() {
    in_scratch("what_cannot_be_handed_over_is_relayed_whole", |scratch| {
        let lab = Lab::new(scratch);
        let edge = Edge::new(&scratch.bpffs);
        let usual = |seed| (false, wish(seed, 200, 50_000, 50_000), Manner::default());
        let refused = |why: &str, wishes| {
            let relayed = edge.relayed();
            none(&lab.transfers(wishes));
            let standing = edge.standing();
            assert!(edge.relayed() > relayed, "{why}: {standing:?}");
            assert!(standing.refused.contains_key(why), "{why}: {standing:?}");
        };

        // A hello that is larger than what a server takes at once.
        refused("too_much_at_first", vec![(true, wish(1, 20_000, 10, 100_000), Manner::default())]);

        // A server that doesn't use timestamps.
        lab.server.run(|| std::fs::write("/proc/sys/net/ipv4/tcp_timestamps", "0").unwrap());
        refused("options", vec![usual(2)]);
        lab.server.run(|| std::fs::write("/proc/sys/net/ipv4/tcp_timestamps", "1").unwrap());

        // A server behind a smaller MTU, of which the client doesn't know.
        lab.server.run(|| ip("link set edge mtu 1400"));
        refused("longest", vec![usual(3)]);
        lab.server.run(|| ip("link set edge mtu 1500"));

        // A client behind a smaller MTU: the server is told.
        let before = edge.standing().handed_over;
        lab.client.run(|| ip("link set edge mtu 1400"));
        ip("link set clients mtu 1400");
        none(&lab.transfers(vec![usual(4), (true, wish(5, 1_700, 500_000, 500_000), Manner::default())]));
        assert_eq!(edge.standing().handed_over, before + 2, "{:?}", edge.standing());
        edge.is_empty();

        // A client that goes without a word of parting.
        let reset = lab.client.run(|| {
            let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            client.connect(&entry(false).into()).unwrap();
            let hello = wish(7, 0, 10_000_000, 0);
            client.send(&hello.bytes()).unwrap();
            client
        });
        until("it is handed over", || edge.standing().handed_over == before + 3);
        reset.set_linger(Some(Duration::ZERO)).unwrap();
        drop(reset);
        edge.is_empty();
        until("it is told", || {
            edge.ended.lock().unwrap().iter().any(|one| one.how == How::Reset(Who::Client))
        });
    });
}
