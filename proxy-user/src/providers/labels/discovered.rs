//! What many things with labels say together: containers of one service become its servers, and a route that each of them
//! names is one route.
//!
//! Things that may take work go before those that may not, and of these the youngest: so what a new version says holds as
//! soon as it is ready. Where another one says a key otherwise, that is told. A thing that takes no work just now keeps its
//! routes, so that visitors get the service's page and not somebody else's route.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::{Part, Said, ServerSaid, Told, read, takes_part};
use crate::{
    config::inline::line_of,
    providers::composed::{Composed, Kind, Section, Server},
};

/// Something that has labels: a container, an instance in a catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thing {
    /// The document that tells what is wrong with it: `container/shop-1`.
    pub document: String,
    /// As sentences call it: `container shop-1`.
    pub title: String,
    pub labels: BTreeMap<String, String>,
    /// What its service is called where no label names one.
    pub service: String,
    /// Whether it may take work.
    pub ready: bool,
    /// When it was made: later ones are greater.
    pub made: i64,
    /// Its address, without a port; or why that isn't known.
    pub host: Result<String, String>,
    /// Where it listens.
    pub ports: Vec<u16>,
    pub weight: Option<u32>,
    pub zone: Option<String>,
}

/// A section, as one of several things tells it.
type Tells<'a> = (&'a Thing, Part);

/// All of it. `by_default`: those count too that aren't asked (`weir.enable`); `own`: labels that the source itself reads.
#[must_use]
pub fn discovered(things: &[Thing], by_default: bool, own: &[&str]) -> Composed {
    let mut composed = Composed::default();
    let mut order: Vec<&Thing> = things.iter().collect();
    order.sort_by_key(|thing| (!thing.ready, Reverse(thing.made), &thing.document));
    let mut sections: BTreeMap<(Kind, String), Vec<Tells<'_>>> = BTreeMap::new();
    let mut servers: Vec<(&Thing, BTreeMap<String, ServerSaid>)> = Vec::new();
    for thing in order {
        match takes_part(&thing.labels, by_default) {
            Ok(true) => {}
            Ok(false) => continue,
            Err(why) => {
                composed.fault(&thing.document, why);
                continue;
            }
        }
        let mut said = read(&thing.labels, own);
        lead(thing, &mut said);
        for why in said.faults {
            composed.fault(&thing.document, why);
        }
        for (section, part) in said.sections {
            sections.entry(section).or_default().push((thing, part));
        }
        servers.push((thing, said.servers));
    }
    for ((kind, name), tells) in &sections {
        let document = format!("{}/{name}", word(*kind));
        let (sound, faulty): (Vec<_>, Vec<_>) = tells.iter().partition(|(_, part)| part.faults.is_empty());
        for (thing, part) in faulty {
            for why in &part.faults {
                // Where nobody says it better, what ran before stays: that goes by the section's own document.
                match sound.is_empty() {
                    true => composed.fault(&document, format!("{why} (of {})", thing.title)),
                    false => composed.fault(&thing.document, why.clone()),
                }
            }
        }
        let Some(names) = sound.iter().map(|(thing, _)| thing.title.as_str()).min() else { continue };
        let keys = together(&sound, &mut composed);
        let made_of_others = ["split.", "failover", "service"];
        let has_servers = *kind == Kind::Service
            && !keys.keys().any(|key| made_of_others.iter().any(|other| key.starts_with(other)));
        let mut section = match has_servers {
            true => Section::service(name, of_service(name, &sound, &servers, &mut composed)),
            false => Section::new(*kind, name),
        }
        .made_of(names);
        for (key, (value, by)) in keys {
            section.set_by(&key, value, by);
        }
        composed.add(&document, section);
    }
    composed
}

/// A route that doesn't say where leads to the thing's only service; a thing that names no service has one that is called
/// after it.
fn lead(thing: &Thing, said: &mut Said) {
    let aims = |part: &Part| {
        part.keys.keys().any(|key| key == "service" || key == "passthrough" || key.starts_with("split"))
    };
    let mut services: BTreeSet<String> = said.servers.keys().cloned().collect();
    services.extend(
        said.sections.keys().filter(|(kind, _)| *kind == Kind::Service).map(|(_, name)| name.clone()),
    );
    let routes = || said.sections.iter().filter(|((kind, _), _)| *kind == Kind::Route);
    if services.is_empty() && (routes().next().is_none() || !routes().all(|(_, part)| aims(part))) {
        said.sections.insert((Kind::Service, thing.service.clone()), Part::default());
        services.insert(thing.service.clone());
    }
    for ((_, name), part) in
        said.sections.iter_mut().filter(|((kind, _), part)| *kind == Kind::Route && !aims(part))
    {
        let mut all = services.iter();
        match (all.next(), all.next()) {
            (Some(only), None) => {
                let value = only.as_str().into();
                part.keys.insert("service".to_owned(), Told { value, label: None });
            }
            _ => {
                let all: Vec<_> = services.iter().map(|name| format!("`{name}`")).collect();
                part.faults.push(format!(
                    "label `weir.route.{name}.service` is missing: which of {} does it lead to?",
                    all.join(" and ")
                ));
            }
        }
    }
}

/// Each key as the first says it, and what it was made of. Others that say it otherwise are told.
fn together(sound: &[&Tells<'_>], composed: &mut Composed) -> BTreeMap<String, (toml::Value, String)> {
    let mut keys: BTreeMap<String, (&Thing, &Told)> = BTreeMap::new();
    for (thing, part) in sound {
        for (key, told) in &part.keys {
            match keys.get(key) {
                None => _ = keys.insert(key.clone(), (thing, told)),
                Some((first, counts)) if counts.value != told.value && thing.ready => {
                    let label = match &told.label {
                        Some(label) => format!("label `{label}`"),
                        None => format!("it names no `{key}`, and its only one"),
                    };
                    composed.fault(
                        &thing.document,
                        format!(
                            "{label} says {}, but {} says {}, which counts",
                            line_of(&told.value),
                            first.title,
                            line_of(&counts.value)
                        ),
                    );
                }
                Some(_) => {}
            }
        }
    }
    let by = |key: &str, counts: &Told| {
        // Always the same one, whoever of them is ready or younger just now: the text must not change for that.
        let same = sound
            .iter()
            .filter(|(_, part)| part.keys.get(key).is_some_and(|told| told.value == counts.value));
        let title = same.map(|(thing, _)| thing.title.as_str()).min().unwrap_or_default();
        match &counts.label {
            Some(label) => format!("label `{label}` of {title}"),
            None => title.to_owned(),
        }
    };
    keys.iter().map(|(key, (_, told))| (key.clone(), (told.value.clone(), by(key, told)))).collect()
}

/// The servers of those that may take work.
fn of_service(
    name: &str,
    sound: &[&Tells<'_>],
    servers: &[(&Thing, BTreeMap<String, ServerSaid>)],
    composed: &mut Composed,
) -> Vec<Server> {
    let mut all = Vec::new();
    for (thing, _) in sound.iter().filter(|(thing, _)| thing.ready) {
        let said = servers.iter().find(|(known, _)| known.document == thing.document);
        let said = said.and_then(|(_, servers)| servers.get(name)).cloned().unwrap_or_default();
        match address(name, thing, &said) {
            Ok(address) => all.push(Server {
                address,
                weight: said.weight.or(thing.weight),
                zone: said.zone.or_else(|| thing.zone.clone()),
                tier: said.tier,
            }),
            Err(why) => composed.fault(&thing.document, why),
        }
    }
    all
}

fn address(service: &str, thing: &Thing, said: &ServerSaid) -> Result<String, String> {
    let host = match &said.address {
        // With a port of its own.
        Some(address) if has_port(address) => match said.port {
            None => return Ok(address.clone()),
            Some(_) => {
                return Err(format!(
                    "labels `weir.service.{service}.address` and `.port` both name a port: take one out"
                ));
            }
        },
        Some(address) => address,
        None => thing
            .host
            .as_ref()
            .map_err(|why| format!("{why}; label `weir.service.{service}.address` may say where it is"))?,
    };
    let port = match (said.port, thing.ports.as_slice()) {
        (Some(port), _) => port,
        (None, [port]) => *port,
        (None, []) => {
            return Err(format!("it tells no port: label `weir.service.{service}.port` may say it"));
        }
        (None, several) => {
            let several: Vec<_> = several.iter().map(u16::to_string).collect();
            return Err(format!(
                "it has the ports {}: label `weir.service.{service}.port` must say which",
                several.join(", ")
            ));
        }
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    Ok(if bare.contains(':') { format!("[{bare}]:{port}") } else { format!("{bare}:{port}") })
}

/// `a:80`, `[::1]:80`; not `::1`.
fn has_port(address: &str) -> bool {
    match address.strip_prefix('[') {
        Some(rest) => rest.contains("]:"),
        None => address.matches(':').count() == 1,
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Route => "route",
        Kind::Service => "service",
        Kind::Middleware => "middleware",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thing(name: &str, labels: &[(&str, &str)]) -> Thing {
        Thing {
            document: format!("container/{name}"),
            title: format!("container {name}"),
            labels: labels.iter().map(|(label, text)| ((*label).to_owned(), (*text).to_owned())).collect(),
            service: "app".to_owned(),
            ready: true,
            made: 0,
            host: Ok(format!("10.0.0.{}", name.trim_start_matches(|letter: char| !letter.is_numeric()))),
            ports: vec![80],
            weight: None,
            zone: None,
        }
    }

    /// Documents with their texts, without the notes; and what is wrong with which.
    fn told(things: &[Thing]) -> (Vec<(String, String)>, Vec<String>) {
        let (mut texts, mut faults) = (Vec::new(), Vec::new());
        for document in discovered(things, true, &[]).documents("d") {
            match document.text {
                Ok(text) => {
                    let plain: Vec<_> =
                        text.lines().map(|line| line.split("  #: ").next().unwrap()).collect();
                    texts.push((document.name, plain.join("\n")));
                }
                Err(why) => faults.push(format!("{}: {why}", document.origin.display())),
            }
        }
        (texts, faults)
    }

    fn text<'a>(texts: &'a [(String, String)], name: &str) -> &'a str {
        texts.iter().find(|(known, _)| known == name).map_or("", |(_, text)| text)
    }

    #[test]
    fn containers_of_a_service_are_its_servers_and_their_route_is_one() {
        let labels = [("weir.route.shop.host", "a.example"), ("weir.service.shop.health.path", "/up")];
        let (texts, faults) = told(&[thing("shop-2", &labels), thing("shop-1", &labels)]);
        assert!(faults.is_empty(), "{faults:?}");
        assert_eq!(
            text(&texts, "route/shop"),
            "[[route]]\nname = \"shop\"\nhost = \"a.example\"\nservice = \"shop\""
        );
        assert_eq!(
            text(&texts, "service/shop"),
            "[service.shop]\nhealth.path = \"/up\"\nservers = [\"10.0.0.1:80\", \"10.0.0.2:80\"]"
        );
    }

    #[test]
    fn the_text_stays_while_nothing_changes_but_who_is_younger_or_ready() {
        let labels = [("weir.route.shop.host", "a.example")];
        let mut things = [thing("shop-1", &labels), thing("shop-2", &labels)];
        let before = discovered(&things, true, &[]).documents("d");
        things[1].made = 7;
        assert_eq!(discovered(&things, true, &[]).documents("d"), before);
        things[0].ready = false;
        let after = discovered(&things, true, &[]).documents("d");
        assert_eq!((&before[0], before.len()), (&after[0], after.len()), "the route");
        assert_ne!(before[1], after[1], "the service");
    }

    #[test]
    fn whoever_takes_no_work_keeps_the_route_and_gives_no_server() {
        let mut stopped = thing("shop-1", &[("weir.route.shop.host", "a.example")]);
        (stopped.ready, stopped.host) = (false, Err("it has no address".to_owned()));
        let (texts, faults) = told(&[stopped]);
        assert!(faults.is_empty(), "{faults:?}");
        assert_eq!(text(&texts, "service/app"), "[service.app]\nservers = []");
        assert!(text(&texts, "route/shop").ends_with("service = \"app\""));
    }

    #[test]
    fn of_two_that_say_otherwise_the_youngest_that_is_ready_counts() {
        let mut old = thing("a-1", &[("weir.service.app.health.path", "/old")]);
        let mut new = thing("a-2", &[("weir.service.app.health.path", "/new")]);
        (old.made, new.made, new.ready) = (1, 2, false);
        let (texts, faults) = told(&[new.clone(), old.clone()]);
        assert!(text(&texts, "service/app").contains("/old"), "{texts:?}");
        assert!(faults.is_empty(), "what isn't ready says nothing yet: {faults:?}");
        new.ready = true;
        let (texts, faults) = told(&[new, old]);
        assert!(text(&texts, "service/app").contains("/new"), "{texts:?}");
        assert_eq!(
            faults,
            [
                "d:container/a-1: label `weir.service.app.health.path` says \"/old\", but container a-2 says \"/new\", which counts"
            ]
        );
    }

    #[test]
    fn a_faulty_thing_is_left_out_and_the_others_stay() {
        let good = thing("a-1", &[("weir.service.app.health.path", "/up")]);
        let bad = thing("a-2", &[("weir.service.app.helth.path", "/up")]);
        let (texts, faults) = told(&[good, bad.clone()]);
        assert!(text(&texts, "service/app").contains("servers = [\"10.0.0.1:80\"]"), "{texts:?}");
        assert!(
            faults[0].starts_with("d:container/a-2: label `weir.service.app.helth.path`: `helth`"),
            "{faults:?}"
        );
        // Nobody says it better: the section's own document is faulty, so that what ran before stays.
        let (texts, faults) = told(&[bad]);
        assert!(texts.is_empty(), "{texts:?}");
        assert!(faults[0].starts_with("d:service/app: label `weir.service.app.helth.path`: "), "{faults:?}");
        assert!(faults[0].ends_with("(of container a-2)"), "{faults:?}");
    }

    #[test]
    fn where_a_server_is_follows_from_its_labels_then_from_what_is_known() {
        let at = |labels: &[(&str, &str)], change: fn(&mut Thing)| {
            let mut thing = thing("a-1", labels);
            change(&mut thing);
            let (texts, faults) = told(&[thing]);
            let line = text(&texts, "service/app").lines().last().unwrap_or_default().to_owned();
            (line, faults.join(";"))
        };
        let nothing: fn(&mut Thing) = |_| {};
        for (labels, change, line) in [
            (&[][..], nothing, "servers = [\"10.0.0.1:80\"]"),
            (&[("weir.service.app.port", "81")], nothing, "servers = [\"10.0.0.1:81\"]"),
            (&[("weir.service.app.address", "host.internal")], nothing, "servers = [\"host.internal:80\"]"),
            (&[("weir.service.app.address", "127.0.0.1:9")], nothing, "servers = [\"127.0.0.1:9\"]"),
            (&[], |thing| thing.host = Ok("fd00::1".to_owned()), "servers = [\"[fd00::1]:80\"]"),
            (
                &[("weir.service.app.weight", "5")],
                |thing| thing.zone = Some("b".to_owned()),
                "servers = [{ address = \"10.0.0.1:80\", weight = 5, zone = \"b\" }]",
            ),
        ] {
            assert_eq!(at(labels, change), (line.to_owned(), String::new()));
        }
        for (labels, change, why) in [
            (
                &[][..],
                (|thing| thing.ports = vec![80, 81]) as fn(&mut Thing),
                "it has the ports 80, 81: label",
            ),
            (&[], |thing| thing.ports.clear(), "it tells no port: label `weir.service.app.port`"),
            (
                &[],
                |thing| thing.host = Err("it is in two networks".to_owned()),
                "it is in two networks; label",
            ),
            (&[("weir.service.app.address", "a:1"), ("weir.service.app.port", "2")], nothing, "labels `weir"),
        ] {
            let (line, faults) = at(labels, change);
            assert_eq!(line, "servers = []");
            assert!(faults.starts_with(&format!("d:container/a-1: {why}")), "{faults}");
        }
    }

    #[test]
    fn a_route_must_say_which_service_where_there_are_several() {
        let (_, faults) = told(&[thing(
            "a-1",
            &[("weir.route.r.host", "a.example"), ("weir.service.a.port", "1"), ("weir.service.b.port", "2")],
        )]);
        assert!(
            faults[0].contains("label `weir.route.r.service` is missing: which of `a` and `b`"),
            "{faults:?}"
        );
        let (texts, faults) = told(&[thing("a-1", &[("weir.route.r.service", "elsewhere")])]);
        assert!(faults.is_empty() && texts.len() == 1, "no service of its own: {texts:?}");
        let (texts, _) = told(&[thing(
            "a-1",
            &[("weir.service.both.split.a", "80"), ("weir.service.both.split.b", "20")],
        )]);
        assert!(!text(&texts, "service/both").contains("servers"), "{texts:?}");
    }
}
