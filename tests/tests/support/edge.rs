//! An edge whose gate is tried with real connections from a neighbour.

#![allow(dead_code, reason = "each test binary uses its part of it")]
#![allow(clippy::unwrap_used, reason = "this is test code, outside of a test function")]

use std::{
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use proxy_common::verdict::DropReason;
use proxy_user::{
    config::model::{KernelMode, SynCookies},
    kernel::{Desired, Guarded, KernelStatus, NamedList, Protocol},
};

use crate::scratch::{Neighbour, Scratch, ip};

pub const EDGE: &str = "203.0.113.1:443";
pub const VISITOR: &str = "192.0.2.10";
pub const STRANGER: &str = "198.51.100.10";

/// An edge that listens, and a neighbour that holds the visitor's and the stranger's address.
pub struct Lab {
    listener: TcpListener,
    pub neighbour: Neighbour,
}

impl Lab {
    pub fn new(scratch: &Scratch) -> Self {
        Self::between(scratch.neighbour("edge0", "outside0"), "edge0", "outside0")
    }

    /// Over two interfaces that are connected: one here, one at the neighbour.
    pub fn between(neighbour: Neighbour, here: &str, there: &str) -> Self {
        ip(&format!("addr add 203.0.113.1/24 dev {here}"));
        ip(&format!("route add default dev {here}"));
        let there = there.to_owned();
        neighbour.run(move || {
            ip(&format!("addr add {VISITOR}/32 dev {there}"));
            ip(&format!("addr add {STRANGER}/32 dev {there}"));
            ip(&format!("route add 203.0.113.0/24 dev {there}"));
        });
        Self { listener: TcpListener::bind(EDGE).unwrap(), neighbour }
    }

    pub fn comes_in(&self, from: &str) {
        let from = from.parse().unwrap();
        self.neighbour.run(move || connect_from(from, edge(), Duration::from_secs(5))).unwrap();
        assert_eq!(self.listener.accept().unwrap().1.ip(), from);
    }

    /// Accepts and closes connections until `stop`, so that the queue of those that wait never fills.
    pub fn take_all_in(&self, stop: &Arc<AtomicBool>) {
        let (listener, stop) = (self.listener.try_clone().unwrap(), stop.clone());
        listener.set_nonblocking(true).unwrap();
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if listener.accept().is_err() {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
    }

    /// Sends until the gate has counted it; nothing may have come through.
    pub fn is_dropped(&self, from: &str, status: impl Fn() -> KernelStatus) {
        let from: IpAddr = from.parse().unwrap();
        let before = status().dropped(DropReason::NotListed);
        let begun = Instant::now();
        while status().dropped(DropReason::NotListed) == before {
            assert!(begun.elapsed() < Duration::from_secs(5), "the gate counted no drop");
            assert!(
                self.neighbour.run(move || connect_from(from, edge(), Duration::from_millis(100))).is_err()
            );
        }
        self.listener.set_nonblocking(true).unwrap();
        assert!(self.listener.accept().is_err(), "{from} came in");
        self.listener.set_nonblocking(false).unwrap();
    }
}

fn edge() -> SocketAddr {
    EDGE.parse().unwrap()
}

/// A connection from one of several addresses that an interface has.
pub fn connect_from(from: IpAddr, to: SocketAddr, patience: Duration) -> std::io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.connect_timeout(&to.into(), patience)?;
    Ok(socket.into())
}

/// `edge0` guarded, for visitors with these prefixes.
pub fn desired(generation: u64, prefixes: &[&str]) -> Desired {
    let lists = vec![NamedList {
        cdn: false,
        name: "visitors".into(),
        prefixes: prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect(),
    }];
    Desired {
        generation,
        interfaces: vec!["edge0".into()],
        mode: KernelMode::Auto,
        log: false,
        guarded: vec![Guarded {
            entrypoint: "https".into(),
            bind: vec![EDGE.parse().unwrap()],
            protocols: vec![Protocol::Tcp],
            lists,
            shadow: false,
            limit: None,
            syn_cookies: SynCookies::OFF,
        }],
    }
}
