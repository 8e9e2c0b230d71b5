//! One server's way through a roll: drained, renewed, well again, undrained.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    admin::status::drains::{DrainsDocument, ServerWork},
    cli::{
        Failure,
        admin::AdminArgs,
        drain::{Asking, LOOK, SETTLED, who},
        roll::{
            command::{self, Ended, interrupts},
            plan::{Rolled, filled},
            tell::Teller,
        },
    },
    config::show_duration,
};

/// What holds for every server.
pub struct Terms {
    pub admin: AdminArgs,
    pub service: String,
    pub command: Vec<String>,
    pub drain_timeout: Duration,
    pub command_timeout: Duration,
    pub healthy_timeout: Duration,
    /// Also the last server that gets work.
    pub force: bool,
    /// The command's output doesn't go where ours goes.
    pub output_aside: bool,
    pub tell: Arc<Teller>,
}

/// Why the roll goes no further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    pub server: String,
    pub why: String,
    pub drained: bool,
}

/// Takes one server through it.
pub fn roll(terms: &Terms, server: &Rolled) -> Result<(), Stopped> {
    let name = format!("{}/{}", terms.service, server.name);
    let stopped = |drained| move |why: String| Stopped { server: server.name.clone(), why, drained };
    let tell = |event: &str, facts: Value, text: String| terms.tell.event(event, &name, &facts, || text);

    // 1. No new work, and the old work ends.
    let order = json!({
        "servers": [name], "roll": true, "force": terms.force, "who": who(), "why": "weir roll is renewing it",
    });
    terms.admin.order("/api/v1/drain", &order).map_err(|why| stopped(false)(sentence(why.into())))?;
    tell("drained", json!({}), "drained".to_owned());
    std::thread::sleep(SETTLED);
    if let Err(why) = until_idle(terms, server, &name) {
        let Interrupted(true, why) = why else { return Err(stopped(true)(why.1)) };
        // Nothing has been done to it: it is put back as it was.
        let undone = !server.stays_drained && undrain(terms, &name).is_ok_and(|undone| undone);
        return Err(stopped(!undone)(why));
    }
    tell("idle", json!({}), "nobody is left".to_owned());

    // 2. The command.
    let words = filled(&terms.command, &terms.service, &server.name);
    tell("command", json!({ "command": words }), words.join(" "));
    let begun = Instant::now();
    let ended = command::run(&words, terms.command_timeout, terms.output_aside, || {
        terms.tell.remark(&format!(
            "{name}: waiting for the command to end, since it is better not cut off; once more ends it"
        ));
    });
    let seconds = begun.elapsed().as_secs_f64();
    match ended {
        Ended::Well => tell(
            "ended",
            json!({ "seconds": seconds }),
            format!("the command ended well after {seconds:.1} s"),
        ),
        failed => return Err(stopped(true)(failed.sentence(terms.command_timeout))),
    }
    if interrupts() > 0 {
        return Err(stopped(true)("it was interrupted, after the command had ended well".into()));
    }

    // 3. Well again.
    if server.checked {
        until_well(terms, server).map_err(|why| stopped(true)(why.1))?;
        tell("healthy", json!({}), "well again".to_owned());
    }

    // 4. Back to work.
    if server.stays_drained {
        tell("stays_drained", json!({}), "stays drained, as an operator had drained it before".to_owned());
        return Ok(());
    }
    if undrain(terms, &name).map_err(stopped(true))? {
        tell("undrained", json!({}), "gets work again".to_owned());
    } else {
        tell("stays_drained", json!({}), "stays drained, as an operator has said meanwhile".to_owned());
    }
    Ok(())
}

/// Whether a person interrupted the wait, and what there is to say.
#[derive(Debug)]
struct Interrupted(bool, String);

fn until_idle(terms: &Terms, server: &Rolled, name: &str) -> Result<(), Interrupted> {
    let mut told = 0;
    let mut active = 0;
    watch(terms, server, terms.drain_timeout, |work| {
        active = work.active;
        if active > 0 && active != told {
            terms.tell.event("waiting", name, &json!({ "active": active }), || format!("{active} under way"));
            told = active;
        }
        active == 0
    })
    .map_err(|why| match why {
        Unmet::Time => {
            let time = show_duration(terms.drain_timeout);
            Interrupted(false, format!("after {time} there is still something under way ({active})"))
        }
        Unmet::Interrupted => Interrupted(true, "it was interrupted before the command was begun".into()),
        Unmet::Other(why) => Interrupted(false, why),
    })
}

fn until_well(terms: &Terms, server: &Rolled) -> Result<(), Interrupted> {
    let mut anew = Anew::default();
    let mut last = String::new();
    watch(terms, server, terms.healthy_timeout, |work| {
        last = format!("it is {} ({})", work.status, work.why);
        if work.asks_to_drain {
            "its health answers ask for a drain".clone_into(&mut last);
        }
        anew.is_well(work)
    })
    .map_err(|why| match why {
        Unmet::Time => {
            let time = show_duration(terms.healthy_timeout);
            Interrupted(false, format!("it did not get well within {time}: {last}"))
        }
        Unmet::Interrupted => {
            Interrupted(true, "it was interrupted while the server was getting well".into())
        }
        Unmet::Other(why) => Interrupted(false, why),
    })
}

/// Tells a server that is well again from one that was never seen to be away: only probes count that began after the
/// command ended.
#[derive(Debug, Default)]
struct Anew(Option<u64>);

impl Anew {
    fn is_well(&mut self, work: &ServerWork) -> bool {
        let before = *self.0.get_or_insert(work.probes);
        // The daemon was restarted meanwhile, and counts anew.
        let before = if work.probes < before { 0 } else { before };
        self.0 = Some(before);
        let rise = work.rise.unwrap_or(1);
        // One may have been under way when the command ended.
        let are_new = work.probes > before + u64::from(rise);
        work.status == "up" && work.good_probes >= rise && are_new && !work.asks_to_drain
    }
}

/// Why something that was waited for did not come.
enum Unmet {
    Time,
    Interrupted,
    Other(String),
}

/// Looks at a server until it is as wanted.
fn watch(
    terms: &Terms,
    server: &Rolled,
    within: Duration,
    mut wanted: impl FnMut(&ServerWork) -> bool,
) -> Result<(), Unmet> {
    let until = Instant::now() + within;
    let mut asking = Asking::new(&terms.admin);
    loop {
        let document = asking.document().map_err(|failure| Unmet::Other(sentence(failure)))?;
        if let Some(document) = document {
            let work = find(&document, &terms.service, &server.name)
                .ok_or_else(|| Unmet::Other("it has left the configuration".into()))?;
            if wanted(work) {
                return Ok(());
            }
        }
        if interrupts() > 0 {
            return Err(Unmet::Interrupted);
        }
        if Instant::now() >= until {
            return Err(Unmet::Time);
        }
        std::thread::sleep(LOOK);
    }
}

fn find<'a>(document: &'a DrainsDocument, service: &str, server: &str) -> Option<&'a ServerWork> {
    super::plan::of_service(document, service).find(|known| known.server == server)
}

/// Says whether it gets work again: an operator may have drained it for reasons of their own.
fn undrain(terms: &Terms, name: &str) -> Result<bool, String> {
    let answer = terms.admin.order("/api/v1/undrain", &json!({ "servers": [name], "roll": true }));
    let answer = answer.map_err(|why| format!("it can't be undrained: {}", sentence(why.into())))?;
    Ok(answer["undrained"].as_array().is_some_and(|undrained| !undrained.is_empty()))
}

pub fn sentence(failure: Failure) -> String {
    match failure {
        Failure::Failed(sentence) | Failure::BadConfig(sentence) => {
            sentence.strip_prefix("error: ").unwrap_or(&sentence).to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_probes_after_the_command_tell_that_a_server_is_well() {
        let work = |status: &str, probes, good_probes| ServerWork {
            service: "app".into(),
            server: "10.0.0.1:80".into(),
            status: status.into(),
            why: String::new(),
            takes_work: false,
            active: 0,
            drain: None,
            asks_to_drain: false,
            rise: Some(2),
            probes,
            good_probes,
        };
        let well = |row: &[ServerWork]| {
            let mut anew = Anew::default();
            row.iter().map(|work| anew.is_well(work)).collect::<Vec<_>>()
        };
        // It was never seen to be away. The first of these may have begun before.
        let row = [work("up", 10, 10), work("up", 11, 11), work("up", 12, 12), work("up", 13, 13)];
        assert_eq!(well(&row), [false, false, false, true]);
        // It was, and the last failed probe is behind the second look.
        let row = [work("down", 10, 0), work("down", 11, 0), work("down", 12, 1), work("up", 13, 2)];
        assert_eq!(well(&row), [false, false, false, true]);
        // Good, but not in a row.
        let row = [work("up", 10, 5), work("up", 13, 1)];
        assert_eq!(well(&row), [false, false]);
        // The daemon was restarted.
        let row = [work("up", 10, 5), work("starting", 0, 0), work("up", 2, 2), work("up", 3, 3)];
        assert_eq!(well(&row), [false, false, false, true]);
        let asking = ServerWork { asks_to_drain: true, ..work("up", 13, 13) };
        assert_eq!(well(&[work("up", 10, 10), asking]), [false, false]);
    }
}
