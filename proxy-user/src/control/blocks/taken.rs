//! Blocks that other hosts of the fleet have said.

use ipnet::IpNet;
use jiff::Timestamp;

use super::{Blocking, said, spares_the_cdn};
use crate::{
    blocklist::Block,
    control::{apply::Fleet, guard::Guard},
    fleet::shared::{ledger::Word, switch::Switch},
    journal::{Kind, Note},
};

/// The journal holds so many of them one by one: a host that joins may learn of thousands.
const NOTED: usize = 20;

impl Blocking {
    /// Takes up what others have said: the gate, the disk and the check at accept are told once. What became of each, in order. It
    /// is judged as if it were said here: whom a host must not block is different on each.
    pub async fn take(
        &mut self,
        words: &[&Word],
        guard: &Guard,
        fleet: &mut Fleet,
    ) -> Vec<Result<(), String>> {
        let running = fleet.running().load_full();
        let mut list = self.blocks.list();
        let now = Timestamp::now();
        let asked = |word: &Word| match &word.switch {
            Some(Switch::Block { prefix, cdn, .. }) => Some((*prefix, *cdn)),
            _ => None,
        };
        let judged: Vec<_> = words.iter().filter(|word| !word.force).filter_map(|word| asked(word)).collect();
        let mut judged = guard.check_blocks(judged, &running.config, None).into_iter();
        let mut outcomes = Vec::new();
        let mut changed = Vec::new();
        for word in words {
            let allowed = match asked(word) {
                Some(_) if word.force => Ok(()),
                Some((prefix, false)) => judged.next().unwrap_or(Ok(())).and_then(|()| {
                    spares_the_cdn(prefix, &running.config).map_err(|refusal| refusal.to_string())
                }),
                Some((_, true)) => judged.next().unwrap_or(Ok(())),
                None => Ok(()),
            };
            if allowed.is_ok() {
                let differs = match &word.switch {
                    Some(Switch::Block { prefix, until, why, cdn, since }) => {
                        let block = Block {
                            prefix: *prefix,
                            until: *until,
                            why: why.clone(),
                            cdn: *cdn,
                            since: *since,
                        };
                        // What is over was never said.
                        block.holds(now) && list.add(block.clone()) != Some(block)
                    }
                    _ => prefix(&word.name).and_then(|prefix| list.remove(prefix)).is_some(),
                };
                changed.extend(differs.then_some(*word));
            }
            outcomes.push(allowed);
        }
        if changed.is_empty() {
            return outcomes;
        }
        if let Err(refusal) = self.hold(list, fleet).await {
            return vec![Err(refusal.to_string()); words.len()];
        }
        tell(&changed);
        outcomes
    }
}

fn prefix(name: &str) -> Option<IpNet> {
    name.strip_prefix("blocks/")?.parse().ok()
}

fn tell(changed: &[&Word]) {
    for (nth, word) in changed.iter().enumerate() {
        let by = word.host.as_deref().unwrap_or("another host");
        let (message, why, kind) = match &word.switch {
            Some(Switch::Block { prefix, until, why, .. }) => {
                (format!("{prefix} is blocked, until: {}", said(*until)), why.as_str(), Kind::Blocked)
            }
            _ => {
                let prefix = word.name.trim_start_matches("blocks/");
                (format!("{prefix} is not blocked any more"), "", Kind::Unblocked)
            }
        };
        tracing::info!(why, "{message} (said at {by})");
        if nth < NOTED {
            Note::new(kind, message).why(why).host(word.host.as_deref()).write();
        }
    }
    if changed.len() > NOTED {
        let message = format!("{} more blocks were said or taken back at other hosts", changed.len() - NOTED);
        Note::new(Kind::Blocked, message).write();
    }
}
