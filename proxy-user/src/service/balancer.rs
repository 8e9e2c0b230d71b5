//! How a service spreads its work, worked out for the servers that it has.

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::request;

use super::Server;
use crate::{
    balance::{
        Field, Way, hash, key,
        maglev::{Maglev, Member},
        reach::Reach,
        shares::Shares,
        warmth,
    },
    clock::Moment,
    config::model::{BalanceWay, Balancing, HashKey},
    health::Health,
    sticky::Sticky,
};

#[derive(Debug)]
pub struct Balancer {
    pub way: Way,
    pub shares: Shares,
    pub reach: Reach,
    pub sticky: Option<Sticky>,
    hash_by: Option<HashKey>,
    slow_start: Duration,
    /// What `shares` and the table are made of: where it is the same in the next snapshot, they are taken over.
    members: Vec<Member>,
}

/// What a request brings along for the choice of its server.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    pub hash: u64,
    /// The server that its cookie names, by index.
    pub known: Option<usize>,
}

/// The servers at a moment.
#[derive(Debug, Clone, Copy)]
pub struct Now<'a> {
    servers: &'a [Server],
    slow_start: Duration,
    now: Moment,
    /// Whether it matters if they are well.
    whoever: bool,
}

impl Balancer {
    /// `zone`: the host's own.
    pub fn new(
        wanted: &Balancing,
        servers: &[Server],
        zone: Option<&str>,
        sticky: Option<Sticky>,
        known: Option<&Self>,
    ) -> Self {
        let members: Vec<Member> = servers
            .iter()
            .map(|server| Member { identity: hash::of(server.label.as_bytes()), weight: server.weight })
            .collect();
        let known = known.filter(|known| known.members == members);
        let weights: Vec<u32> = servers.iter().map(|server| server.weight).collect();
        let tiers: Vec<u32> = servers.iter().map(|server| server.tier).collect();
        let near = |server: &Server| match (zone, &server.zone) {
            (Some(own), Some(its)) => own == &**its,
            (None, _) | (_, None) => true,
        };
        let near: Vec<bool> = servers.iter().map(near).collect();
        let (way, hash_by) = match &wanted.way {
            BalanceWay::RoundRobin => (Way::RoundRobin, None),
            BalanceWay::LeastRequests => (Way::LeastRequests, None),
            BalanceWay::Latency => (Way::Latency, None),
            BalanceWay::Hash { by, bound } => {
                let table = match known.map(|known| &known.way) {
                    Some(Way::Hash { table, .. }) => table.clone(),
                    _ => Arc::new(Maglev::new(&members)),
                };
                (Way::Hash { table, bound: *bound }, Some(by.clone()))
            }
        };
        Self {
            way,
            shares: known.map_or_else(|| Shares::new(&weights), |known| known.shares.clone()),
            reach: Reach::new(&tiers, &near, wanted.tier_spill, wanted.zone_spill),
            sticky,
            hash_by,
            slow_start: wanted.slow_start,
            members,
        }
    }

    pub fn wanted(&self, head: &request::Parts, client: IpAddr) -> Wanted {
        Wanted {
            hash: self.hash_by.as_ref().map_or(0, |by| key::of(by, head, client)),
            known: self.sticky.as_ref().and_then(|sticky| sticky.server(&head.headers)),
        }
    }

    /// Likewise of a connection that nothing is known of but where it comes from.
    pub fn wanted_of_connection(&self, client: IpAddr) -> Wanted {
        Wanted { hash: self.hash_by.as_ref().map_or(0, |_| key::of_client(client)), known: None }
    }

    pub fn slow_start(&self) -> Duration {
        self.slow_start
    }

    /// Whether it goes by how long servers take.
    pub fn measures(&self) -> bool {
        matches!(self.way, Way::Latency)
    }

    /// Whether those may go on there that have a cookie for it.
    pub fn keeps_visitors(&self, health: &Health) -> bool {
        match &self.sticky {
            Some(sticky) if sticky.keep_drained => health.status().usable(),
            _ => health.takes_work(),
        }
    }

    /// `whoever`: also those who are down.
    pub fn now<'a>(&self, servers: &'a [Server], whoever: bool) -> Now<'a> {
        Now { servers, slow_start: self.slow_start, now: Moment::recent(), whoever }
    }
}

impl Field for Now<'_> {
    fn len(&self) -> usize {
        self.servers.len()
    }

    fn weight(&self, index: usize) -> u32 {
        self.servers[index].weight
    }

    fn active(&self, index: usize) -> u32 {
        self.servers[index].active()
    }

    fn latency(&self, index: usize) -> f32 {
        self.servers[index].counters.latency.at(self.now)
    }

    fn warmth(&self, index: usize) -> f32 {
        if self.slow_start.is_zero() {
            return 1.0;
        }
        warmth::warmth(self.servers[index].health.usable_since(), self.slow_start, self.now)
    }

    fn takes_work(&self, index: usize) -> bool {
        let health = &self.servers[index].health;
        health.takes_work() || self.whoever && !health.is_draining()
    }
}
