//! Tells others which servers fail as seen from here, and looks at those that others tell of.

use std::{collections::BTreeSet, sync::Arc};

use tokio::time::Instant;

use super::Unclear;
use crate::{
    drain::Name,
    fleet::shared::{
        HINTS,
        board::{Board, Counts},
        hint::{Hint, Hints, LASTS},
        link::{Link, Write},
    },
    health::Status,
    snapshot::Snapshot,
};

#[derive(Debug)]
pub struct Hinting {
    host: Arc<str>,
    hints: Hints,
}

impl Hinting {
    pub fn new(host: &Arc<str>) -> Self {
        Self { host: host.clone(), hints: Hints::default() }
    }

    pub fn due(&self) -> Option<Instant> {
        self.hints.due().map(Instant::from_std)
    }

    /// Tells of servers that have begun to fail. Where the store is away that is lost: it is news for a moment only.
    pub fn look(&mut self, snapshot: &Snapshot, link: &Link, board: &Board) {
        let servers = snapshot.services.iter().flat_map(|service| {
            service.servers.iter().map(move |server| (Name::of(&service.name, &server.label), &server.health))
        });
        let failing: BTreeSet<_> = servers
            .filter(|(_, health)| health.verdict() == Status::Down)
            .map(|(name, _)| name.to_string())
            .collect();
        let Some(failing) = self.hints.see(failing, Instant::now().into_std()) else { return };
        Counts::add(&board.counts.hints_told, failing.len());
        let bytes = Hint::new(&self.host, failing).write();
        link.write(Write {
            key: format!("{HINTS}{}", self.host),
            bytes,
            lasts: Some(LASTS),
            only_at: None,
            or_anew: false,
        });
    }

    /// Has the servers probed that another host tells of. A hint is never more than that.
    pub fn hear(
        &mut self,
        key: &str,
        bytes: &[u8],
        snapshot: &Snapshot,
        board: &Board,
        unclear: &mut Unclear,
    ) {
        let hint = match Hint::read(bytes) {
            Ok(hint) => hint,
            Err(why) => return unclear.add(key, why),
        };
        if *hint.host == *self.host {
            return;
        }
        for name in self.hints.hear(hint.failing, std::time::Instant::now()) {
            let Some((service_name, label)) = name.rsplit_once('/') else { continue };
            let service = snapshot.services.iter().find(|service| *service.name == *service_name);
            let service = service.filter(|service| service.check.is_some());
            let server = service.and_then(|service| service.servers.iter().find(|one| *one.label == *label));
            if let Some(server) = server.filter(|server| server.health.verdict() == Status::Up) {
                tracing::info!(host = %hint.host, "{name} fails as seen from another host: it is probed at once");
                Counts::add(&board.counts.hints_taken, 1);
                server.health.suspect();
            }
        }
    }
}
