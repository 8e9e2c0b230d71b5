//! Maintenance that was ordered at other hosts of the fleet.

use jiff::Timestamp;

use super::{MOST, Maintaining};
use crate::{
    config::model::Config,
    fleet::shared::{ledger::Word, switch::Switch},
    journal::{Kind, Note},
    maintenance::{Ordered, Span},
};

impl Maintaining {
    /// What was ordered, here or elsewhere.
    pub fn ordered(&self) -> &[Ordered] {
        &self.ordered
    }

    /// Takes up what was ordered elsewhere. What became of each, in order. Routes and pages that this host doesn't have (yet) are no
    /// fault: they may come with the next configuration.
    pub fn take(&mut self, words: &[&Word], config: &Config) -> Vec<Result<(), String>> {
        let now = Timestamp::now();
        let mut list = self.ordered.clone();
        let mut changed = Vec::new();
        let mut outcomes = Vec::new();
        for word in words {
            let (same, others): (Vec<_>, Vec<_>) =
                list.iter().cloned().partition(|one| Switch::from(one).name() == word.name);
            let ordered = match word.switch.clone() {
                Some(switch) => match ordered(switch, &others) {
                    Some(ordered) if ordered.span.is_over(now) => None,
                    Some(_) if others.len() >= MOST => {
                        outcomes.push(Err(format!("{MOST} are ordered here already")));
                        continue;
                    }
                    ordered => ordered,
                },
                None => None,
            };
            outcomes.push(Ok(()));
            let is_known =
                same.iter().map(Some).eq([ordered.as_ref()]) || same.is_empty() && ordered.is_none();
            if is_known {
                continue;
            }
            changed.push((*word, ordered.clone().or_else(|| same.into_iter().next())));
            // The latest goes first.
            list = ordered.into_iter().chain(others).collect();
        }
        if changed.is_empty() {
            return outcomes;
        }
        if let Err(refusal) = self.hold(list, config) {
            return vec![Err(refusal.to_string()); words.len()];
        }
        for (word, about) in changed {
            let Some(about) = about.map(|one| one.about()) else { continue };
            let by = word.host.as_deref().unwrap_or("another host");
            if word.switch.is_none() {
                tracing::info!("maintenance of {} was ended (at {by})", about.scope());
                continue;
            }
            let message = format!("maintenance of {} was ordered: {}", about.scope(), about.time(now));
            tracing::info!(why = about.why, "{message} (at {by})");
            Note::new(Kind::MaintenanceOrdered, message).why(&about.why).host(word.host.as_deref()).write();
        }
        outcomes
    }
}

/// With the number that it has where it was ordered, unless that is another one's here.
fn ordered(switch: Switch, others: &[Ordered]) -> Option<Ordered> {
    let Switch::Maintenance { id, routes, hosts, allow, except, from, until, page, why, since } = switch
    else {
        return None;
    };
    let taken = others.iter().any(|one| one.id == id);
    let id = if taken { others.iter().map(|one| one.id).max().unwrap_or(0) + 1 } else { id };
    Some(Ordered { id, routes, hosts, allow, except, span: Span { from, until }, page, why, since })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(id: u64, route: &str) -> Ordered {
        Ordered {
            id,
            routes: vec![route.into()],
            hosts: Vec::new(),
            allow: Vec::new(),
            except: Vec::new(),
            span: Span::default(),
            page: "maintenance".into(),
            why: String::new(),
            since: "2026-01-01T00:00:00Z".parse().unwrap(),
        }
    }

    #[test]
    fn a_window_keeps_its_number_unless_another_one_has_it_here() {
        let of = |id, others: &[Ordered]| ordered(Switch::from(&window(id, "shop")), others).unwrap().id;
        assert_eq!(of(7, &[]), 7);
        assert_eq!(of(7, &[window(3, "app")]), 7);
        assert_eq!(of(3, &[window(3, "app"), window(5, "old")]), 6);
    }
}
