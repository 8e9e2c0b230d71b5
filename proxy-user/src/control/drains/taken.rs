//! Drains of servers that were said at other hosts of the fleet.

use std::collections::BTreeSet;

use super::{Draining, known, leaves_some, note};
use crate::{
    drain::{DrainList, Name, Word as Said},
    fleet::shared::{ledger::Word, switch::Switch},
    journal::{Kind, Note},
    snapshot::Snapshot,
};

impl Draining {
    /// Takes up what was said elsewhere. What became of each, in order. A drain that would leave a service without a server that gets
    /// work *here* is not taken up, as long as it would: from where it was said, other servers may well be reached.
    pub fn take(&mut self, words: &[&Word], running: &Snapshot) -> Vec<Result<(), String>> {
        let before = self.drains.list();
        let mut list = DrainList::clone(&before);
        let mut services = known(running);
        let mut outcomes = Vec::new();
        let mut changed = Vec::new();
        for word in words {
            let differs = match word.switch.clone() {
                Some(Switch::Drain { service, server, since, by, who, why }) => {
                    let (name, said) = (Name { service, server }, Said { since, by, who, why });
                    let names = BTreeSet::from([name.clone()]);
                    if !word.force
                        && let Err(refusal) = leaves_some(&names, &services, &list)
                    {
                        outcomes.push(Err(refusal.to_string()));
                        continue;
                    }
                    let before = list.servers.insert(name.clone(), said.clone());
                    let service = services.iter_mut().filter(|known| known.name == name.service);
                    let servers = service.flat_map(|known| &mut known.servers);
                    servers.filter(|(label, _)| *label == name.server).for_each(|(_, takes)| *takes = false);
                    (before.as_ref() != Some(&said)).then_some((name, Some(said)))
                }
                _ => name_of(&word.name).and_then(|name| list.servers.remove(&name).map(|_| (name, None))),
            };
            outcomes.push(Ok(()));
            changed.extend(differs.map(|(name, said)| (*word, name, said)));
        }
        if let Err(refusal) = self.hold(list, running) {
            return vec![Err(refusal.to_string()); words.len()];
        }
        for (word, name, said) in changed {
            let host = word.host.as_deref();
            let by = host.unwrap_or("another host");
            match said {
                Some(said) => {
                    tracing::info!(why = said.why, "{name} is drained: it gets no new work (said at {by})");
                    let message = format!("{name} is drained: it gets no new work");
                    note(Kind::ServerDrained, message, Some(&name), &said, host);
                }
                None => {
                    tracing::info!("{name} is not drained any more (said at {by})");
                    let note = Note::new(Kind::ServerUndrained, format!("{name} is not drained any more"));
                    note.service(&name.service).server(&name.server).host(host).write();
                }
            }
        }
        outcomes
    }
}

fn name_of(name: &str) -> Option<Name> {
    let (service, server) = name.strip_prefix("drains/")?.rsplit_once('/')?;
    Some(Name::of(service, server))
}
