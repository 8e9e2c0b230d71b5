//! `GET /ready`: whether this host can do its work and is meant to. What a load balancer in front of several edges, or a
//! container platform, asks before it sends anybody here; `/ping` asks less.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    control::{kernel_side::State, state::ControlState},
    health::Status,
    snapshot::Snapshot,
};

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ReadyDocument {
    /// Every check is `ok`.
    pub ready: bool,
    pub checks: Vec<Check>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// `configuration`: one is loaded and its entrypoints listen. `probes`: every server's first probe has ended. `kernel`: the
    /// gate enforces this configuration, or none was asked for. `traffic`: this host isn't drained, and doesn't end.
    pub name: String,
    pub ok: bool,
    /// In words.
    pub why: String,
}

pub fn document(state: &ControlState) -> ReadyDocument {
    let snapshot = state.running().map(|running| running.load_full());
    let checks = vec![
        configuration(snapshot.as_deref()),
        probes(snapshot.as_deref()),
        kernel(&state.kernel(), snapshot.as_deref()),
        traffic(state.is_draining()),
    ];
    ReadyDocument { ready: checks.iter().all(|check| check.ok), checks }
}

fn check(name: &str, ok: bool, why: impl Into<String>) -> Check {
    Check { name: name.to_owned(), ok, why: why.into() }
}

fn configuration(snapshot: Option<&Snapshot>) -> Check {
    match snapshot {
        Some(snapshot) => check("configuration", true, format!("generation {} runs", snapshot.generation)),
        None => check("configuration", false, "the daemon is starting"),
    }
}

fn probes(snapshot: Option<&Snapshot>) -> Check {
    let servers = snapshot.into_iter().flat_map(|snapshot| &snapshot.services);
    let starting = servers
        .flat_map(|service| &service.servers)
        .filter(|server| server.health.verdict() == Status::Starting)
        .count();
    match starting {
        0 => check("probes", snapshot.is_some(), "every server that is probed has been"),
        1 => check("probes", false, "1 server has not ended its first probe yet"),
        more => check("probes", false, format!("{more} servers have not ended their first probes yet")),
    }
}

fn kernel(kernel: &State, snapshot: Option<&Snapshot>) -> Check {
    match kernel {
        State::NotWanted => check("kernel", snapshot.is_some(), "no gate is asked for"),
        State::On(_) => check("kernel", true, "the gate is in the kernel"),
        // It was said loudly at the start; `mode = "auto"` means to serve all the same.
        State::Unavailable { why } => {
            check("kernel", true, format!("the gate can't be had here, lists are enforced at accept: {why}"))
        }
    }
}

fn traffic(draining: bool) -> Check {
    match draining {
        false => check("traffic", true, "this host takes traffic"),
        true => check("traffic", false, "this host drains (`weir undrain --host`), or ends"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_ready_before_a_configuration_runs() {
        assert!(!configuration(None).ok && !probes(None).ok && !kernel(&State::NotWanted, None).ok);
    }

    #[test]
    fn a_gate_that_cannot_be_had_keeps_nobody_out_of_work() {
        let check = kernel(&State::Unavailable { why: "no BTF".into() }, None);
        assert!(check.ok && check.why.contains("no BTF"), "{check:?}");
        assert!(!traffic(true).ok);
    }
}
