//! Goes through all flows: removes those that are over, counts the others, and finds out which slots nobody refers to any more.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use proxy_common::flow::{Flow, FlowKey, HALF_MADE, State};

use super::{
    KernelFault,
    ended::{self, Ended},
    maps::Maps,
    written::Written,
};
use crate::kernel::watch::monotonic;

/// Replies' entries without a flow are rare: they are looked for with every so manieth sweep.
const LEFT_OVER_EVERY: u32 = 30;

/// What a sweep has found, and left.
#[derive(Debug, Clone, Default)]
pub struct Swept {
    pub removed: u64,
    /// By service's slot: how many flows are in which state.
    pub services: BTreeMap<u16, BTreeMap<&'static str, u64>>,
    /// Flows that aren't over, by server's slot.
    pub servers: BTreeMap<u16, u64>,
    /// Flows, over or not, that are there.
    pub all: u64,
    pub took: Duration,
    /// Those that were removed, for their lines in the log; none where nobody reads that.
    pub ended: Vec<Ended>,
}

/// What flows refer to.
#[derive(Debug, Default)]
pub struct Held {
    services: BTreeSet<u16>,
    servers: BTreeSet<u16>,
    sweeps: u32,
    /// Nobody has looked yet: a predecessor's flows may be there.
    looked: bool,
}

impl Held {
    pub fn is_empty(&self) -> bool {
        self.looked && self.servers.is_empty()
    }
}

/// `tell`: what is removed is told.
pub fn sweep(
    maps: &mut Maps,
    written: &mut Written,
    held: &mut Held,
    tell: bool,
) -> Result<Swept, KernelFault> {
    let (began, now) = (Instant::now(), now()?);
    let timeouts = maps.settings()?.timeouts;
    let mut swept = Swept::default();
    let mut over: Vec<(FlowKey, Flow)> = Vec::new();
    let (mut services, mut servers) = (BTreeSet::new(), BTreeSet::new());
    maps.flows(|key, flow| {
        if flow.is_over(&timeouts, now) {
            over.push((*key, *flow));
            return;
        }
        swept.all += 1;
        services.insert(flow.service);
        servers.insert(flow.server_slot);
        let state = State::of_number(flow.state);
        let name = state.map_or("unknown", State::name);
        *swept.services.entry(flow.service).or_default().entry(name).or_default() += 1;
        if state.is_some_and(|state| !state.has_ended()) {
            *swept.servers.entry(flow.server_slot).or_default() += 1;
        }
    })?;

    if tell && !over.is_empty() {
        written.learn(maps)?;
    }
    // The flow goes first: a reply without one finds nobody, and is left alone for as long as one may be being made.
    for (key, flow) in &over {
        if maps.remove_flow(key, |flow| flow.is_over(&timeouts, now))? {
            maps.remove_reply(&flow.replies(key), |origin| origin.flow == *key)?;
            swept.removed += 1;
            if tell {
                let service = written.names().get(usize::from(flow.service)).and_then(|name| name.as_deref());
                swept.ended.extend(ended::of(key, flow, service, now));
            }
        } else {
            services.insert(flow.service);
            servers.insert(flow.server_slot);
        }
    }
    held.sweeps = held.sweeps.wrapping_add(1);
    if held.sweeps.is_multiple_of(LEFT_OVER_EVERY) {
        left_over(maps, now)?;
    }

    // Twice without a flow: one may have begun while the first sweep went by.
    let still =
        |before: &BTreeSet<u16>, now: &BTreeSet<u16>| before.union(now).copied().collect::<BTreeSet<_>>();
    if held.looked {
        written.give_back(maps, &still(&held.services, &services), &still(&held.servers, &servers))?;
    }
    *held = Held { services, servers, sweeps: held.sweeps, looked: true };
    swept.took = began.elapsed();
    Ok(swept)
}

/// Entries of replies whose flow is gone, or is another one.
fn left_over(maps: &Maps, now: u64) -> Result<(), KernelFault> {
    let mut replies = Vec::new();
    maps.replies(|key, origin| {
        if now.saturating_sub(origin.since) > HALF_MADE {
            replies.push((*key, *origin));
        }
    })?;
    if replies.is_empty() {
        return Ok(());
    }
    let mut ways = std::collections::HashSet::new();
    maps.flows(|key, flow| {
        ways.insert(flow.replies(key));
    })?;
    for (key, seen) in replies.into_iter().filter(|(key, _)| !ways.contains(key)) {
        maps.remove_reply(&key, |origin| *origin == seen)?;
    }
    Ok(())
}

/// The clock that the program reads.
pub fn now() -> Result<u64, KernelFault> {
    Ok(u64::try_from(monotonic()?.as_nanos()).unwrap_or(u64::MAX))
}
