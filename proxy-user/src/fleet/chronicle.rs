//! What of the fleet goes into a host's journal: what is current, what was taken back and by whom, and what this host can't run.
//! Pure. That the store is away or back, the provider tells that asks it.

use super::{member::Seen, survey};
use crate::journal::{Kind, Note};

/// What has happened between two looks at the store. Of what was decided before the first nothing is told: it is no news.
#[must_use]
pub fn news(before: &Seen, now: &Seen) -> Vec<Note> {
    let mut notes = Vec::new();
    let knew = before.current.is_some() || before.nothing;
    if let Some(current) = now.current.as_ref().filter(|_| knew) {
        let known = before.current.as_ref();
        let halted = current.halted.as_ref();
        if let Some(halted) =
            halted.filter(|halted| known.and_then(|known| known.halted.as_ref()) != Some(halted))
        {
            let message = format!("{}; {} is current again", survey::taken_back(halted), current.generation);
            notes.push(Note::new(Kind::GenerationTakenBack, message).why(&halted.why));
        } else if known.is_none_or(|known| {
            (known.generation, &known.canary, known.confirm_by)
                != (current.generation, &current.canary, current.confirm_by)
        }) {
            let only = match &*current.canary {
                [] => String::new(),
                some => format!(", only at {}", some.join(", ")),
            };
            let trial = if current.confirm_by.is_some() { ", on trial" } else { "" };
            let (generation, author) = (current.generation, &current.author);
            let message =
                format!("generation {generation} of the fleet is current{only}{trial}, by {author}");
            notes.push(Note::new(Kind::GenerationCurrent, message));
        }
    }
    let rejected = now.standing.rejected.as_ref();
    if let Some(rejected) = rejected.filter(|_| before.standing.rejected.as_ref() != rejected) {
        let message = format!("this host can't run generation {} of the fleet", rejected.generation);
        notes.push(Note::new(Kind::GenerationRefused, message).why(&rejected.why));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fleet::report::{Rejected, Standing},
        store::layout::Current,
    };

    fn seen(current: Option<&str>) -> Seen {
        let current = current.map(|more| {
            let text = format!(
                r#"{{"layout":1,"digest":"d","previous":5,"latest":9,"at":1,"author":"ops@bastion",{more}}}"#
            );
            Current::read(text.as_bytes()).unwrap()
        });
        Seen { current, ..Seen::default() }
    }

    fn told(before: &Seen, now: &Seen) -> Vec<String> {
        news(before, now).iter().map(|note| note.message().to_owned()).collect()
    }

    #[test]
    fn what_is_decided_is_told_once_and_what_was_found_is_not() {
        let (five, six) =
            (seen(Some("\"generation\":5")), seen(Some("\"generation\":6,\"canary\":[\"edge-1\"]")));
        assert_eq!(told(&Seen::default(), &five), [""; 0], "this daemon has just begun");
        assert_eq!(told(&five, &five), [""; 0]);
        assert_eq!(
            told(&five, &six),
            ["generation 6 of the fleet is current, only at edge-1, by ops@bastion"]
        );
        assert_eq!(told(&five, &Seen::default()), [""; 0]);
        let empty = Seen { nothing: true, ..Seen::default() };
        assert_eq!(told(&empty, &five).len(), 1, "the very first");
    }

    #[test]
    fn what_was_taken_back_is_told_by_whom_and_a_host_says_what_it_cant_run() {
        let halted = r#""generation":5,"halted":{"generation":6,"by":"edge-2","why":"port taken","at":9}"#;
        let (six, five) = (seen(Some("\"generation\":6")), seen(Some(halted)));
        assert_eq!(
            told(&six, &five),
            ["generation 6 was taken back by edge-2: port taken; 5 is current again"]
        );
        assert_eq!(told(&five, &five), [""; 0]);
        let rejected = Some(Rejected { generation: 6, why: "port taken".into() });
        let standing = Standing { rejected, ..Standing::default() };
        let here = Seen { standing, ..six.clone() };
        assert_eq!(told(&six, &here), ["this host can't run generation 6 of the fleet"]);
        assert_eq!(told(&here, &here), [""; 0]);
    }
}
