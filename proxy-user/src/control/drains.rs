//! Drains servers and this host, and undoes it: `weir drain`, `weir undrain`. What is said is on disk before it holds.

mod taken;

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use jiff::Timestamp;
use serde_json::json;

use super::order::{Answer, Drain, Refusal, Undrain};
use crate::{
    config::{model::Config, nearest},
    drain::{By, DrainList, Drains, Name, Word, store},
    journal::{Kind, Note},
    snapshot::Snapshot,
};

/// What is drained, as the control side keeps it.
#[derive(Debug)]
pub struct Draining {
    kept: PathBuf,
    drains: Arc<Drains>,
}

/// A service of the running configuration, as far as draining goes.
#[derive(Debug, Clone)]
struct Known<'a> {
    name: &'a str,
    /// Their names, and whether they get work now.
    servers: Vec<(&'a str, bool)>,
}

impl Draining {
    /// Takes up what is kept in the state folder.
    pub fn at_start(config: &Config) -> Self {
        let kept = store::path(&config.state.dir);
        let list = store::load_or_set_aside(&kept);
        if !list.servers.is_empty() {
            let names: Vec<_> = list.servers.keys().map(ToString::to_string).collect();
            tracing::warn!("drained since before, until `weir undrain`: {}", names.join(", "));
        }
        if list.host.is_some() {
            tracing::warn!("THIS HOST IS DRAINED since before: /ping says so, until `weir undrain --host`");
        }
        let drains = Arc::<Drains>::default();
        drains.set(list);
        Self { kept, drains }
    }

    /// What snapshots carry.
    pub fn shared(&self) -> Arc<Drains> {
        self.drains.clone()
    }

    /// # Errors
    /// When it is refused; then nothing has changed.
    pub fn drain(&mut self, wanted: Drain, running: &Snapshot) -> Answer {
        let word = Word {
            since: Timestamp::now(),
            by: if wanted.roll { By::Roll } else { By::Operator },
            who: wanted.who,
            why: wanted.why,
        };
        let services = known(running);
        let names = resolve(&wanted.servers, &services, None)?;
        asks_for_something(&names, wanted.host)?;
        let mut list = DrainList::clone(&self.drains.list());
        if !wanted.force {
            leaves_some(&names, &services, &list)?;
        }
        let mut already = Vec::new();
        for name in &names {
            let before = list.servers.get(name).map(|word| word.by);
            if before.is_some() {
                already.push(name.to_string());
            }
            // Whoever drained it first has the word; but an operator's goes before a roll's, which would undo it.
            if before.is_none() || (before, word.by) == (Some(By::Roll), By::Operator) {
                list.servers.insert(name.clone(), word.clone());
            }
        }
        let host_already = wanted.host && list.host.is_some();
        if wanted.host && !host_already {
            list.host = Some(word.clone());
        }
        self.hold(list, running)?;
        for name in &names {
            tracing::info!(by = word.by.name(), why = word.why, "{name} is drained: it gets no new work");
            note(
                Kind::ServerDrained,
                format!("{name} is drained: it gets no new work"),
                Some(name),
                &word,
                None,
            );
        }
        if wanted.host {
            tracing::warn!(
                why = word.why,
                "this host is drained: /ping says so, and connections are told to end"
            );
            note(Kind::HostDrained, "this host is drained: /ping says so".to_owned(), None, &word, None);
        }
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        Ok(json!({ "drained": names, "already": already, "host": wanted.host, "host_already": host_already }))
    }

    /// # Errors
    /// When there is no such server, in the configuration or among those that were drained.
    pub fn undrain(&mut self, wanted: &Undrain, running: &Snapshot) -> Answer {
        let mut list = DrainList::clone(&self.drains.list());
        let names = resolve(&wanted.servers, &known(running), Some(&list))?;
        asks_for_something(&names, wanted.host)?;
        // A roll undoes what it did itself, and not what an operator has said since.
        let its_own = |word: &Word| !wanted.roll || word.by == By::Roll;
        let undrained: Vec<_> =
            names.iter().filter(|name| list.servers.get(name).is_some_and(its_own)).collect();
        list.servers.retain(|name, _| !undrained.contains(&name));
        let host = wanted.host && list.host.take().is_some();
        self.hold(list, running)?;
        for name in &undrained {
            tracing::info!("{name} is not drained any more");
            let message = format!("{name} is not drained any more");
            Note::new(Kind::ServerUndrained, message).service(&name.service).server(&name.server).write();
        }
        if host {
            tracing::info!("this host is not drained any more");
            Note::new(Kind::HostUndrained, "this host is not drained any more").write();
        }
        let said =
            |names: &mut dyn Iterator<Item = &Name>| names.map(ToString::to_string).collect::<Vec<_>>();
        Ok(json!({
            "undrained": said(&mut undrained.iter().copied()),
            "was_not": said(&mut names.iter().filter(|name| !undrained.contains(name))),
            "still_asking": said(&mut names.iter().filter(|name| asks_itself(name, running))),
            "host": wanted.host,
            "host_was_not": wanted.host && !host,
        }))
    }

    /// Makes a list the one that holds, on the disk and in what runs.
    fn hold(&mut self, list: DrainList, running: &Snapshot) -> Result<(), Refusal> {
        if list == *self.drains.list() {
            return Ok(());
        }
        store::save(&self.kept, &list)
            .map_err(|why| Refusal::Refused(format!("nothing was changed: {why} (`[state] dir`)")))?;
        self.drains.set(list);
        self.drains.mark(&running.services);
        Ok(())
    }
}

/// Into the journal, with who said so and why.
fn note(kind: Kind, message: String, name: Option<&Name>, word: &Word, host: Option<&str>) {
    let who = word.who.as_ref().map(|who| format!(" (by {who})")).unwrap_or_default();
    let note = Note::new(kind, message + &who).why(word.why.clone().unwrap_or_default()).host(host);
    match name {
        Some(name) => note.service(&name.service).server(&name.server).write(),
        None => note.write(),
    }
}

fn known(running: &Snapshot) -> Vec<Known<'_>> {
    let services = running.services.iter().map(|service| Known {
        name: &service.name,
        servers: service.servers.iter().map(|server| (&*server.label, server.health.takes_work())).collect(),
    });
    services.collect()
}

/// Whether its own health answers go on asking for a drain.
fn asks_itself(name: &Name, running: &Snapshot) -> bool {
    let service = running.services.iter().find(|service| *service.name == *name.service);
    let server =
        service.and_then(|service| service.servers.iter().find(|server| *server.label == *name.server));
    server.is_some_and(|server| server.health.asks_to_drain().is_some())
}

fn asks_for_something(names: &BTreeSet<Name>, host: bool) -> Result<(), Refusal> {
    if names.is_empty() && !host {
        return Err(faulty("say which: SERVICE/SERVER, SERVICE/*, or --host for this host"));
    }
    Ok(())
}

/// The servers that are meant. `also`: those that are drained may be named when the configuration has them no more.
fn resolve(
    wanted: &[String],
    services: &[Known<'_>],
    also: Option<&DrainList>,
) -> Result<BTreeSet<Name>, Refusal> {
    let mut names = BTreeSet::new();
    for text in wanted {
        let Some((service_name, server)) = text.split_once('/').filter(|(_, server)| !server.is_empty())
        else {
            let hint = services.iter().find(|known| known.name == text.trim_end_matches('/'));
            let hint = hint.map_or_else(
                || "a server is named SERVICE/SERVER, as `weir status` shows them".to_owned(),
                |known| format!("all servers of `{0}` are `{0}/*`", known.name),
            );
            return Err(faulty(&format!("`{text}` names no server: {hint}")));
        };
        let gone = also.into_iter().flat_map(|list| list.servers.keys());
        let gone: Vec<_> = gone.filter(|name| name.service == service_name).collect();
        let service = services.iter().find(|known| known.name == service_name);
        if service.is_none() && gone.is_empty() {
            return Err(no_service(service_name, services));
        }
        let there = service.map(|service| service.servers.as_slice()).unwrap_or_default();
        let labels: BTreeSet<&str> = there
            .iter()
            .map(|(label, _)| *label)
            .chain(gone.iter().map(|name| name.server.as_str()))
            .collect();
        if server == "*" {
            names.extend(labels.iter().map(|label| Name::of(service_name, label)));
            continue;
        }
        // An address alone is enough where only one server has it.
        let by_host = || {
            let mut same = labels.iter().filter(|label| {
                label
                    .rsplit_once(':')
                    .is_some_and(|(host, _)| host == server || host == format!("[{server}]"))
            });
            same.next().filter(|_| same.next().is_none())
        };
        match labels.get(server).or_else(by_host) {
            Some(label) => names.insert(Name::of(service_name, label)),
            None => return Err(no_server(service_name, server, &labels)),
        };
    }
    Ok(names)
}

fn no_service(name: &str, services: &[Known<'_>]) -> Refusal {
    let hint = match nearest(name, services.iter().map(|known| known.name)) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => "`weir status` lists them".to_owned(),
    };
    faulty(&format!("there is no service `{name}`: {hint}"))
}

fn no_server(service: &str, server: &str, labels: &BTreeSet<&str>) -> Refusal {
    if labels.is_empty() {
        return faulty(&format!("service `{service}` has no servers of its own to drain"));
    }
    let hint = match nearest(server, labels.iter().copied()) {
        Some(meant) => format!("did you mean `{service}/{meant}`?"),
        None => format!("it has {}", labels.iter().copied().collect::<Vec<_>>().join(", ")),
    };
    faulty(&format!("service `{service}` has no server `{server}`: {hint}"))
}

/// Refuses what would take the last server that gets work from a service.
fn leaves_some(names: &BTreeSet<Name>, services: &[Known<'_>], list: &DrainList) -> Result<(), Refusal> {
    for service in services {
        let drained = |label: &str| names.contains(&Name::of(service.name, label));
        let held = |label: &str| list.servers.contains_key(&Name::of(service.name, label));
        let is_concerned = service.servers.iter().any(|(label, _)| drained(label) && !held(label));
        if !is_concerned {
            continue;
        }
        let works_now = service.servers.iter().any(|(_, takes)| *takes);
        let will_work = service.servers.iter().any(|(label, takes)| *takes && !drained(label));
        let all = service.servers.iter().all(|(label, _)| drained(label) || held(label));
        if all || (works_now && !will_work) {
            let others = service.servers.iter().filter(|(label, _)| !drained(label));
            let others: Vec<_> = others.map(|(label, _)| *label).collect();
            let others = if others.is_empty() {
                "it has no other".to_owned()
            } else {
                format!("{} get none now, being down or drained", others.join(", "))
            };
            return Err(Refusal::Refused(format!(
                "that would leave service `{}` without a server that gets work ({others}), and visitors with the page; \
                 `--force` does it all the same",
                service.name
            )));
        }
    }
    Ok(())
}

fn faulty(sentence: &str) -> Refusal {
    Refusal::Faulty(format!("error: {sentence}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services() -> Vec<Known<'static>> {
        vec![
            Known { name: "app", servers: vec![("10.0.0.1:80", true), ("10.0.0.2:80", true)] },
            Known { name: "old", servers: vec![("[2001:db8::1]:80", true), ("10.0.0.2:81", false)] },
            Known { name: "two", servers: vec![("10.0.0.2:80", true), ("10.0.0.2:81", true)] },
        ]
    }

    fn wanted(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    fn resolved(texts: &[&str]) -> Result<String, String> {
        let names = resolve(&wanted(texts), &services(), None).map_err(|refusal| refusal.to_string())?;
        Ok(names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    }

    fn drained(names: &[(&str, &str)]) -> DrainList {
        let word = Word { since: Timestamp::UNIX_EPOCH, by: By::Operator, who: None, why: None };
        let servers = names.iter().map(|(service, server)| (Name::of(service, server), word.clone()));
        DrainList { host: None, servers: servers.collect() }
    }

    #[test]
    fn servers_are_named_one_by_one_all_at_once_and_by_their_address_alone() {
        for (texts, names) in [
            (&["app/10.0.0.1:80"][..], "app/10.0.0.1:80"),
            (&["app/*"], "app/10.0.0.1:80 app/10.0.0.2:80"),
            (&["app/10.0.0.2", "app/10.0.0.2:80"], "app/10.0.0.2:80"),
            (&["old/2001:db8::1", "app/10.0.0.1"], "app/10.0.0.1:80 old/[2001:db8::1]:80"),
        ] {
            assert_eq!(resolved(texts).as_deref(), Ok(names));
        }
    }

    #[test]
    fn names_that_are_unknown_are_refused_with_what_was_probably_meant() {
        for (text, part) in [
            ("ap/10.0.0.1:80", "there is no service `ap`: did you mean `app`?"),
            ("app/10.0.0.3:80", "has no server `10.0.0.3:80`: did you mean `app/10.0.0.1:80`?"),
            ("app/x", "has no server `x`: it has 10.0.0.1:80, 10.0.0.2:80"),
            ("two/10.0.0.2", "has no server `10.0.0.2`"),
            ("app", "all servers of `app` are `app/*`"),
            ("10.0.0.1:80", "a server is named SERVICE/SERVER"),
            ("app/", "names no server"),
        ] {
            let why = resolved(&[text]).unwrap_err();
            assert!(why.contains(part), "{text}: {why}");
        }
        assert!(
            resolve(&[], &services(), None).is_ok_and(|names| asks_for_something(&names, false).is_err())
        );
    }

    #[test]
    fn what_has_left_the_configuration_can_still_be_undrained() {
        let list = drained(&[("app", "10.0.0.9:80"), ("gone", "10.0.0.1:80")]);
        for text in ["app/10.0.0.9:80", "gone/10.0.0.1:80", "gone/*"] {
            assert_eq!(
                resolve(&wanted(&[text]), &services(), Some(&list)).map(|names| names.len()),
                Ok(1),
                "{text}"
            );
            assert!(resolve(&wanted(&[text]), &services(), None).is_err(), "{text}");
        }
    }

    #[test]
    fn the_last_server_that_gets_work_is_not_drained_by_accident() {
        let nothing = DrainList::default();
        let one = drained(&[("app", "10.0.0.1:80")]);
        for (texts, list, fine) in [
            (&["app/10.0.0.1:80"][..], &nothing, true),
            (&["app/*"], &nothing, false),
            (&["app/10.0.0.1", "app/10.0.0.2"], &nothing, false),
            (&["app/10.0.0.2"], &one, false),
            // It is drained already: nothing changes.
            (&["app/10.0.0.1"], &one, true),
            // The other one is down.
            (&["old/2001:db8::1"], &nothing, false),
            // What is down may be drained: it takes nothing away.
            (&["old/10.0.0.2"], &nothing, true),
            (&["app/10.0.0.1", "two/10.0.0.2:80"], &nothing, true),
            (&["app/10.0.0.1", "two/*"], &nothing, false),
        ] {
            let mut services = services();
            for (label, takes) in &mut services[0].servers {
                *takes = !list.servers.contains_key(&Name::of("app", label));
            }
            let names = resolve(&wanted(texts), &services, None).unwrap();
            assert_eq!(leaves_some(&names, &services, list).is_ok(), fine, "{texts:?}");
        }
    }
}
