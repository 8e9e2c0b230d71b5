//! Who is drained, and how much each server still has to do: `GET /api/v1/drains`. Cheap: it is asked several times a second
//! by `weir drain --wait` and `weir roll`.

use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::text;
use crate::{
    control::state::ControlState,
    drain::{DrainList, Name, Word},
    fleet::shared::board::Board,
    service::{Server, Service},
    snapshot::Snapshot,
};

#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DrainsDocument {
    /// This host, if it is drained.
    pub host: Option<DrainStatus>,
    /// Open connections at all entrypoints.
    pub connections: u32,
    /// All servers of all services.
    pub servers: Vec<ServerWork>,
    /// Drained servers that the configuration doesn't have now: they would come back drained.
    pub absent: Vec<Absent>,
}

#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ServerWork {
    pub service: String,
    pub server: String,
    /// `starting`, `up`, `down` or `unchecked`, and why.
    pub status: String,
    pub why: String,
    /// Whether new requests go there.
    pub takes_work: bool,
    /// Requests and upgraded connections that it has under way.
    pub active: u32,
    pub drain: Option<DrainStatus>,
    /// Its own health answers ask for a drain, whoever else does.
    pub asks_to_drain: bool,
    /// So many good probes in a row make it well; `None`: it isn't probed.
    pub rise: Option<u32>,
    /// Probes that have ended so far, and how many of the last in a row went well.
    pub probes: u64,
    pub good_probes: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DrainStatus {
    /// `operator`, `roll`, or `health`: its own health answers ask for it.
    pub by: String,
    pub since: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The host of the fleet at which it was switched, if others were told of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Absent {
    pub service: String,
    pub server: String,
    pub drain: DrainStatus,
}

/// As of now; `None` while the daemon starts.
pub fn document(state: &ControlState) -> Option<DrainsDocument> {
    let snapshot = state.running()?.load_full();
    let list = snapshot.drains.list();
    let each = snapshot
        .services
        .iter()
        .flat_map(|service| service.servers.iter().map(|server| server_work(&list, service, server)));
    let servers: Vec<_> = each.collect();
    let absent = list.servers.iter().filter(|(name, _)| {
        !servers.iter().any(|known| known.service == name.service && known.server == name.server)
    });
    let absent = absent.map(|(name, word)| Absent {
        service: name.service.clone(),
        server: name.server.clone(),
        drain: told(word),
    });
    let mut document = DrainsDocument {
        host: of_host(&snapshot),
        connections: snapshot.entrypoints.iter().map(|entrypoint| entrypoint.crowd.size()).sum(),
        absent: absent.collect(),
        servers,
    };
    let servers = document
        .servers
        .iter_mut()
        .filter_map(|one| Some((&*one.service, &*one.server, one.drain.as_mut()?)));
    let absent = document.absent.iter_mut().map(|one| (&*one.service, &*one.server, &mut one.drain));
    for (service, server, drain) in servers.chain(absent) {
        drain.came_from(&state.shared, service, server);
    }
    Some(document)
}

fn server_work(list: &DrainList, service: &Service, server: &Server) -> ServerWork {
    let probes = server.health.probes();
    ServerWork {
        service: service.name.to_string(),
        server: server.label.to_string(),
        status: server.health.status().name().to_owned(),
        why: server.health.last_change().why,
        takes_work: server.health.takes_work(),
        active: server.counters.active.load(Ordering::Relaxed),
        drain: of_server(list, service, server),
        asks_to_drain: server.health.asks_to_drain().is_some(),
        rise: service.check.as_ref().map(|check| check.rise),
        probes: probes.ended,
        good_probes: probes.good,
    }
}

pub fn of_host(snapshot: &Snapshot) -> Option<DrainStatus> {
    snapshot.drains.list().host.as_ref().map(told)
}

/// Somebody's word goes before what the server itself asks for.
pub fn of_server(list: &DrainList, service: &Service, server: &Server) -> Option<DrainStatus> {
    let word = list.servers.get(&Name::of(&service.name, &server.label)).map(told);
    word.or_else(|| {
        server.health.asks_to_drain().map(|asked| DrainStatus {
            by: "health".to_owned(),
            since: text(asked.at),
            who: None,
            why: Some(asked.why),
            from: None,
        })
    })
}

fn told(word: &Word) -> DrainStatus {
    DrainStatus {
        by: word.by.name().to_owned(),
        since: text(word.since),
        who: word.who.clone(),
        why: word.why.clone(),
        from: None,
    }
}

impl DrainStatus {
    /// Notes at which host of the fleet it was said.
    pub fn came_from(&mut self, board: &Board, service: &str, server: &str) {
        if self.by != "health" {
            self.from = board.origin(&format!("drains/{}", Name::of(service, server)));
        }
    }

    /// `by anna since …: disk` for people.
    pub fn sentence(&self) -> String {
        let by = match (self.by.as_str(), &self.who) {
            ("health", _) => "its own health answers".to_owned(),
            ("roll", who) => {
                format!("weir roll{}", who.as_ref().map(|who| format!(" ({who})")).unwrap_or_default())
            }
            (_, Some(who)) => who.clone(),
            (_, None) => "an operator".to_owned(),
        };
        let why = self.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let from = self.from.as_ref().map(|from| format!(" at {from}")).unwrap_or_default();
        format!("drained by {by}{from}{why}")
    }
}
