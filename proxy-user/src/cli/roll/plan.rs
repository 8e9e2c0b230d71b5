//! Who is rolled, in which order, and whether the others can do without. Pure.

use std::collections::BTreeSet;

use crate::{
    admin::status::drains::{DrainStatus, DrainsDocument, ServerWork},
    config::nearest,
};

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Who<'a> {
    pub service: &'a str,
    pub from: Option<&'a str>,
    pub skip: &'a [String],
    pub parallel: usize,
    pub without_health: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub batches: Vec<Batch>,
}

/// Servers that are taken out at the same time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub servers: Vec<Rolled>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rolled {
    pub name: String,
    /// An operator drained it before: it is renewed like the others, and stays as it was.
    pub stays_drained: bool,
    pub checked: bool,
}

impl Plan {
    /// # Errors
    /// With a sentence, when there is nothing that can be rolled.
    pub fn of(document: &DrainsDocument, who: Who<'_>) -> Result<Self, String> {
        let service = who.service;
        let servers: Vec<_> = of_service(document, service).collect();
        if servers.is_empty() {
            let names: BTreeSet<_> = document.servers.iter().map(|one| one.service.as_str()).collect();
            let hint = match nearest(service, names) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "`weir status` lists them".to_owned(),
            };
            return Err(format!("there is no service `{service}` with servers of its own: {hint}"));
        }
        if servers.iter().any(|server| server.rise.is_none()) && !who.without_health {
            return Err(format!(
                "service `{service}` has no health check, so nobody can tell when a server is well again: give it \
                 `health = {{ path = … }}`, or roll `--without-health`"
            ));
        }
        let named = |name: &str| named(&servers, name, service);
        let first = who.from.map(named).transpose()?.unwrap_or(0);
        let skipped = who.skip.iter().map(|name| named(name)).collect::<Result<BTreeSet<_>, _>>()?;
        let rolled =
            servers.iter().enumerate().filter(|(index, _)| *index >= first && !skipped.contains(index));
        let rolled: Vec<_> = rolled
            .map(|(_, server)| Rolled {
                name: server.server.clone(),
                stays_drained: server.drain.as_ref().is_some_and(|drain| drain.by == "operator"),
                checked: server.rise.is_some(),
            })
            .collect();
        if rolled.is_empty() {
            return Err(format!("nothing of service `{service}` is left to roll: every server is skipped"));
        }
        let batches = rolled.chunks(who.parallel).map(|servers| Batch { servers: servers.to_vec() });
        Ok(Self { batches: batches.collect() })
    }

    pub fn servers(&self) -> impl Iterator<Item = &str> {
        self.batches.iter().flat_map(|batch| &batch.servers).map(|server| server.name.as_str())
    }
}

/// Whether enough servers get work while those of `batch` get none.
///
/// # Errors
/// With a sentence, when they don't.
pub fn enough_without(
    document: &DrainsDocument,
    service: &str,
    batch: &Batch,
    at_least: usize,
) -> Result<(), String> {
    let others: Vec<_> = of_service(document, service)
        .filter(|server| !batch.servers.iter().any(|rolled| rolled.name == server.server))
        .collect();
    let working = others.iter().filter(|server| server.takes_work).count();
    if working >= at_least {
        return Ok(());
    }
    let idle = others.iter().filter(|server| !server.takes_work).map(|server| {
        let why = server.drain.as_ref().map_or_else(|| server.status.clone(), DrainStatus::sentence);
        format!("{} is {why}", server.server)
    });
    let idle: Vec<_> = idle.collect();
    let idle = if idle.is_empty() { "there is no other".to_owned() } else { idle.join(", ") };
    let names: Vec<_> = batch.servers.iter().map(|server| server.name.as_str()).collect();
    Err(format!(
        "without {} only {working} of service `{service}`'s servers would get work, and --at-least is {at_least} ({idle})",
        names.join(" and ")
    ))
}

pub fn of_service<'a>(document: &'a DrainsDocument, service: &str) -> impl Iterator<Item = &'a ServerWork> {
    document.servers.iter().filter(move |server| server.service == service)
}

/// The place of a server that somebody named, with or without its port.
fn named(servers: &[&ServerWork], name: &str, service: &str) -> Result<usize, String> {
    let name = name.strip_prefix(service).and_then(|rest| rest.strip_prefix('/')).unwrap_or(name);
    let exactly = servers.iter().position(|server| server.server == name);
    let by_host = || {
        let mut same = servers.iter().enumerate().filter(|(_, server)| {
            let host = split(&server.server).0;
            host == name || host.trim_matches(['[', ']']) == name
        });
        same.next().filter(|_| same.next().is_none()).map(|(index, _)| index)
    };
    exactly.or_else(by_host).ok_or_else(|| {
        let labels: Vec<_> = servers.iter().map(|server| server.server.as_str()).collect();
        let hint = match nearest(name, labels.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("it has {}", labels.join(", ")),
        };
        format!("service `{service}` has no server `{name}`: {hint}")
    })
}

/// Host and port.
fn split(server: &str) -> (&str, &str) {
    server.rsplit_once(':').unwrap_or((server, ""))
}

/// The command for one server.
pub fn filled(command: &[String], service: &str, server: &str) -> Vec<String> {
    let (host, port) = split(server);
    let host = host.trim_matches(['[', ']']);
    let words = [
        ("{server}", server),
        ("{address}", server),
        ("{host}", host),
        ("{port}", port),
        ("{service}", service),
    ];
    let fill = |argument: &String| {
        let mut filled = String::new();
        let mut rest = argument.as_str();
        // From left to right, so that what was filled in is not looked into.
        while let Some(at) = rest.find('{') {
            filled.push_str(&rest[..at]);
            rest = &rest[at..];
            match words.iter().find(|(word, _)| rest.starts_with(word)) {
                Some((word, value)) => {
                    filled.push_str(value);
                    rest = &rest[word.len()..];
                }
                None => {
                    filled.push('{');
                    rest = &rest[1..];
                }
            }
        }
        filled + rest
    };
    command.iter().map(fill).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(service: &str, server: &str, takes_work: bool, drained_by: Option<&str>) -> ServerWork {
        ServerWork {
            service: service.into(),
            server: server.into(),
            status: if takes_work || drained_by.is_some() { "up" } else { "down" }.into(),
            why: String::new(),
            takes_work,
            active: 0,
            drain: drained_by.map(|by| DrainStatus {
                by: by.into(),
                since: String::new(),
                who: None,
                why: None,
                from: None,
            }),
            asks_to_drain: false,
            rise: Some(2),
            probes: 0,
            good_probes: 0,
        }
    }

    fn document() -> DrainsDocument {
        let servers = vec![
            server("app", "10.0.0.1:80", true, None),
            server("app", "10.0.0.2:80", false, Some("operator")),
            server("app", "10.0.0.3:80", false, Some("roll")),
            server("app", "[2001:db8::1]:80", false, None),
            server("old", "10.0.0.1:80", true, None),
        ];
        DrainsDocument { host: None, connections: 0, servers, absent: Vec::new() }
    }

    const ALL: Who<'_> = Who { service: "app", from: None, skip: &[], parallel: 1, without_health: false };

    fn planned(who: Who<'_>) -> Result<String, String> {
        let plan = Plan::of(&document(), who)?;
        let batch = |batch: &Batch| {
            let name =
                |server: &Rolled| format!("{}{}", server.name, if server.stays_drained { "!" } else { "" });
            batch.servers.iter().map(name).collect::<Vec<_>>().join("+")
        };
        Ok(plan.batches.iter().map(batch).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn servers_are_rolled_in_their_order_and_what_an_operator_drained_stays_so() {
        let one = "10.0.0.1:80 10.0.0.2:80! 10.0.0.3:80 [2001:db8::1]:80";
        assert_eq!(planned(ALL).as_deref(), Ok(one));
        let two = "10.0.0.1:80+10.0.0.2:80! 10.0.0.3:80+[2001:db8::1]:80";
        assert_eq!(planned(Who { parallel: 2, ..ALL }).as_deref(), Ok(two));
    }

    #[test]
    fn a_roll_goes_on_from_a_server_and_leaves_others_out() {
        let from = |from| Who { from: Some(from), ..ALL };
        assert_eq!(planned(from("10.0.0.3")).as_deref(), Ok("10.0.0.3:80 [2001:db8::1]:80"));
        assert_eq!(planned(from("app/10.0.0.3:80")).as_deref(), Ok("10.0.0.3:80 [2001:db8::1]:80"));
        let skip = ["2001:db8::1".to_owned()];
        assert_eq!(planned(Who { skip: &skip, ..from("10.0.0.3:80") }).as_deref(), Ok("10.0.0.3:80"));
        let all = ["10.0.0.3:80".to_owned(), skip[0].clone()];
        assert!(planned(Who { skip: &all, ..from("10.0.0.3:80") }).unwrap_err().contains("nothing"));
    }

    #[test]
    fn what_can_not_be_rolled_is_refused_with_a_hint() {
        let unchecked = {
            let mut document = document();
            document.servers[0].rise = None;
            document
        };
        assert!(Plan::of(&unchecked, ALL).unwrap_err().contains("--without-health"));
        assert!(Plan::of(&unchecked, Who { without_health: true, ..ALL }).is_ok());
        for (who, part) in [
            (Who { service: "ap", ..ALL }, "did you mean `app`?"),
            (Who { from: Some("10.0.0.4:80"), ..ALL }, "did you mean `10.0.0.1:80`?"),
            (Who { skip: &["x".into()], ..ALL }, "it has 10.0.0.1:80"),
        ] {
            let why = planned(who).unwrap_err();
            assert!(why.contains(part), "{why}");
        }
    }

    #[test]
    fn the_others_must_be_getting_work() {
        let document = document();
        let batch = |name: &str| {
            let all = Plan::of(&document, ALL).unwrap();
            all.batches.into_iter().find(|batch| batch.servers[0].name == name).unwrap()
        };
        assert_eq!(enough_without(&document, "app", &batch("10.0.0.3:80"), 1), Ok(()));
        assert_eq!(enough_without(&document, "app", &batch("10.0.0.1:80"), 0), Ok(()));
        let why = enough_without(&document, "app", &batch("10.0.0.1:80"), 1).unwrap_err();
        for part in [
            "without 10.0.0.1:80 only 0",
            "10.0.0.2:80 is drained by an operator",
            "[2001:db8::1]:80 is down",
        ] {
            assert!(why.contains(part), "{why}");
        }
        assert!(enough_without(&document, "app", &batch("10.0.0.3:80"), 2).is_err());
    }

    #[test]
    fn placeholders_are_filled_once_and_anything_else_is_left_alone() {
        let command: Vec<String> =
            ["ssh", "{host}", "restart-{service} {port}", "{server}={address}", "awk {print $1} {{host}"]
                .map(Into::into)
                .into();
        assert_eq!(
            filled(&command, "app", "[2001:db8::1]:80"),
            [
                "ssh",
                "2001:db8::1",
                "restart-app 80",
                "[2001:db8::1]:80=[2001:db8::1]:80",
                "awk {print $1} {2001:db8::1"
            ]
        );
    }
}
