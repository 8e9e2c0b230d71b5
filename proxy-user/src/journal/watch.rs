//! What nobody's word makes known: that no server of a service takes requests any more, and that maintenance begins or ends by
//! the clock. Found out by looking, whenever something was written into the journal, and once a second.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::timeout;

use super::{JOURNAL, Kind, Note};
use crate::{
    maintenance::{About, Plan},
    snapshot::Snapshot,
    worker::Running,
};

const LOOK: Duration = Duration::from_secs(1);

/// What was seen last.
#[derive(Debug, Default)]
struct Seen {
    /// By their names, whether they can answer.
    services: BTreeMap<String, bool>,
    /// Windows that hold, in words.
    maintenance: BTreeSet<String>,
}

/// Looks for ever.
pub async fn look_on(running: Running) {
    let mut seen = Seen::default();
    loop {
        let last = JOURNAL.last();
        let snapshot = running.load_full();
        let plan = snapshot.maintenance.plan();
        for note in seen.look(answering(&snapshot), holding(&plan, Timestamp::now())) {
            note.write();
        }
        // What this has written itself wakes it once more, and then there is nothing new.
        let _ = timeout(LOOK, JOURNAL.more_than(last)).await;
    }
}

fn answering(snapshot: &Snapshot) -> BTreeMap<String, bool> {
    snapshot.services.iter().map(|service| (service.name.to_string(), service.can_answer())).collect()
}

fn holding(plan: &Plan, now: Timestamp) -> BTreeSet<String> {
    plan.all.iter().filter(|about| about.span.holds(now)).map(About::scope).collect()
}

impl Seen {
    fn look(&mut self, services: BTreeMap<String, bool>, maintenance: BTreeSet<String>) -> Vec<Note> {
        let mut notes = Vec::new();
        for (name, answers) in &services {
            // Of one that is new, it is only news when it can't.
            let before = self.services.get(name).copied().unwrap_or(true);
            match (before, *answers) {
                (true, false) => {
                    let message = format!("no server of `{name}` takes requests: visitors get its page");
                    notes.push(Note::new(Kind::ServiceDown, message).service(name));
                }
                (false, true) => {
                    let message = format!("servers of `{name}` take requests again");
                    notes.push(Note::new(Kind::ServiceUp, message).service(name));
                }
                (true, true) | (false, false) => {}
            }
        }
        for begun in maintenance.difference(&self.maintenance) {
            let message = format!("maintenance of {begun}: a page stands in the servers' place");
            notes.push(Note::new(Kind::MaintenanceBegun, message));
        }
        for ended in self.maintenance.difference(&maintenance) {
            notes.push(Note::new(Kind::MaintenanceEnded, format!("maintenance of {ended} is over")));
        }
        *self = Self { services, maintenance };
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(seen: &mut Seen, services: &[(&str, bool)], maintenance: &[&str]) -> Vec<Kind> {
        let services = services.iter().map(|(name, answers)| ((*name).to_owned(), *answers)).collect();
        let maintenance = maintenance.iter().map(|scope| (*scope).to_owned()).collect();
        seen.look(services, maintenance).into_iter().map(|note| note.0.kind).collect()
    }

    #[test]
    fn a_service_without_servers_is_news_once_and_so_is_its_return() {
        let mut seen = Seen::default();
        assert_eq!(kinds(&mut seen, &[("app", true)], &[]), []);
        assert_eq!(kinds(&mut seen, &[("app", false)], &[]), [Kind::ServiceDown]);
        assert_eq!(kinds(&mut seen, &[("app", false)], &[]), []);
        assert_eq!(kinds(&mut seen, &[("app", true)], &[]), [Kind::ServiceUp]);
        assert_eq!(kinds(&mut seen, &[("app", true), ("new", false)], &[]), [Kind::ServiceDown]);
        assert_eq!(kinds(&mut seen, &[], &[]), [], "what is not configured any more is no news");
    }

    #[test]
    fn maintenance_is_news_when_it_begins_and_when_it_ends() {
        let mut seen = Seen::default();
        assert_eq!(kinds(&mut seen, &[], &["everything"]), [Kind::MaintenanceBegun]);
        assert_eq!(kinds(&mut seen, &[], &["everything"]), []);
        assert_eq!(kinds(&mut seen, &[], &[]), [Kind::MaintenanceEnded]);
    }
}
