//! The language of labels and tags: the configuration language, one key a label.
//!
//! ```text
//!   weir.enable                        = true
//!   weir.route.shop.host               = shop.example.com
//!   weir.service.shop.health.path      = /up
//!   weir.service.shop.port             = 8080
//!   weir.middleware.office.clients.allow = office
//! ```
//!
//! What stands behind the name is a key of `[[route]]`, `[service.NAME]` or `[middleware.NAME]`, with its value as text; lists
//! are written with commas, and whatever else TOML can say as TOML. Beside those, a service's labels say how it is reached
//! where the label is: `port`, `address`, `weight`, `zone`, `tier`. Pure: [`discovered`] makes one whole of what many things
//! say.

pub mod discovered;
mod value;

use std::collections::BTreeMap;

use toml::Value;

use super::composed::{Kind, dotted};
use crate::config::{nearest, quoted, schema_tree};

const PREFIX: &str = "weir.";

/// What the labels of one thing say.
#[derive(Debug, Default)]
pub struct Said {
    pub sections: BTreeMap<(Kind, String), Part>,
    /// How a service is reached there, by its name.
    pub servers: BTreeMap<String, ServerSaid>,
    /// Of labels that are about nothing.
    pub faults: Vec<String>,
}

/// What one thing says of a section.
#[derive(Debug, Default)]
pub struct Part {
    /// By dotted keys.
    pub keys: BTreeMap<String, Told>,
    /// If there are any, nothing of this part counts: half of a route may let in whom the other half kept out.
    pub faults: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    pub value: Value,
    /// The label that says so. None: it follows from others.
    pub label: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerSaid {
    pub port: Option<u16>,
    pub address: Option<String>,
    pub weight: Option<u32>,
    pub zone: Option<String>,
    pub tier: Option<u32>,
}

/// Whether a thing with these labels takes part. Err: why nobody can tell.
pub fn takes_part(labels: &BTreeMap<String, String>, by_default: bool) -> Result<bool, String> {
    match labels.get("weir.enable").map(|text| text.trim()) {
        None => Ok(by_default),
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(other) => Err(format!("label `weir.enable`: {} is neither `true` nor `false`", quoted(other))),
    }
}

/// Reads all labels that are Weir's. `own` are those, without the prefix, that somebody else has looked at.
pub fn read(labels: &BTreeMap<String, String>, own: &[&str]) -> Said {
    let mut said = Said::default();
    let ours = labels.iter().filter_map(|(label, text)| Some((label, label.strip_prefix(PREFIX)?, text)));
    for (label, rest, text) in ours.filter(|(_, rest, _)| *rest != "enable" && !own.contains(rest)) {
        let parts: Vec<&str> = rest.split('.').collect();
        let (kind, name, key) = match parts.as_slice() {
            [kind, name, key @ ..] if !key.is_empty() => match kind_of(kind) {
                Some(kind) => (kind, *name, key),
                None => {
                    said.faults.push(unknown(label, kind, own));
                    continue;
                }
            },
            [kind, ..] => {
                said.faults.push(match kind_of(kind) {
                    Some(_) => {
                        format!("label `{label}`: it goes on with a name and a key: `weir.{kind}.NAME.KEY`")
                    }
                    None => unknown(label, kind, own),
                });
                continue;
            }
            [] => continue,
        };
        let part = said.sections.entry((kind, name.to_owned())).or_default();
        if crate::config::is_name(name).is_err() {
            part.faults.push(format!(
                "label `{label}`: {} is no name: letters, digits, `-` and `_`, at most 64",
                quoted(name)
            ));
            continue;
        }
        let outcome = match (kind, key) {
            (Kind::Service, [key @ ("port" | "address" | "weight" | "zone" | "tier")]) => {
                said.servers.entry(name.to_owned()).or_default().take(key, text.trim())
            }
            _ => key_of(kind, key, text).map(|value| {
                part.keys.insert(dotted(key.iter().copied()), Told { value, label: Some(label.clone()) });
            }),
        };
        if let Err(why) = outcome {
            part.faults.push(format!("label `{label}`: {why}"));
        }
    }
    said
}

fn kind_of(word: &str) -> Option<Kind> {
    match word {
        "route" => Some(Kind::Route),
        "service" => Some(Kind::Service),
        "middleware" => Some(Kind::Middleware),
        _ => None,
    }
}

fn unknown(label: &str, word: &str, own: &[&str]) -> String {
    let known = ["enable", "route", "service", "middleware"].into_iter().chain(own.iter().copied());
    let meant = nearest(word, known).map(|meant| format!("did you mean `weir.{meant}`?"));
    let hint = meant.unwrap_or_else(|| {
        "labels begin with `weir.route.`, `weir.service.` or `weir.middleware.`".to_owned()
    });
    format!("label `{label}`: `weir.{word}` says nothing to Weir: {hint}")
}

fn key_of(kind: Kind, key: &[&str], text: &str) -> Result<Value, String> {
    let sections = &schema_tree()["properties"];
    let schema = match kind {
        Kind::Route => &sections["route"]["items"],
        Kind::Service => &sections["service"]["additionalProperties"],
        Kind::Middleware => &sections["middleware"]["additionalProperties"],
    };
    match (kind, key) {
        (Kind::Service, ["servers", ..]) => Err(
            "servers are found, not written: `port`, `address`, `weight`, `zone` and `tier` tell of this one"
                .to_owned(),
        ),
        (Kind::Route, ["name"]) => Err("the route is called as the label says".to_owned()),
        _ => value::typed(value::descend(schema, key)?, text),
    }
}

// === impl ServerSaid ===

impl ServerSaid {
    fn take(&mut self, key: &str, text: &str) -> Result<(), String> {
        let number = |most: u32| {
            let number = text.parse::<u32>().ok().filter(|number| (1..=most).contains(number));
            number.ok_or_else(|| format!("{} is not a whole number from 1 to {most}", quoted(text)))
        };
        match key {
            "port" => self.port = u16::try_from(number(65_535)?).ok(),
            "weight" => self.weight = Some(number(256)?),
            "tier" => self.tier = Some(number(16)?),
            "zone" => self.zone = Some(text.to_owned()),
            _ if text.is_empty() => return Err("it is empty".to_owned()),
            _ => self.address = Some(text.to_owned()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(all: &[(&str, &str)]) -> BTreeMap<String, String> {
        all.iter().map(|(label, text)| ((*label).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn whoever_is_not_asked_takes_no_part() {
        for (text, by_default, takes) in [
            (None, false, Ok(false)),
            (None, true, Ok(true)),
            (Some("true"), false, Ok(true)),
            (Some("false"), true, Ok(false)),
            (Some("yes"), true, Err("label `weir.enable`: `yes` is neither `true` nor `false`".to_owned())),
        ] {
            let labels = labels(&text.map(|text| ("weir.enable", text)).into_iter().collect::<Vec<_>>());
            assert_eq!(takes_part(&labels, by_default), takes);
        }
    }

    #[test]
    fn labels_are_keys_of_the_configuration_and_say_where_the_server_is() {
        let said = read(
            &labels(&[
                ("com.example.other", "x"),
                ("weir.network", "back"),
                ("weir.route.shop.host", "a.example, b.example"),
                ("weir.service.shop.health.path", "/up"),
                ("weir.service.shop.port", "8080"),
                ("weir.service.shop.weight", "3"),
            ]),
            &["network"],
        );
        assert!(said.faults.is_empty());
        let route = &said.sections[&(Kind::Route, "shop".to_owned())];
        assert_eq!(route.keys["host"].value, Value::from(vec!["a.example", "b.example"]));
        let service = &said.sections[&(Kind::Service, "shop".to_owned())];
        assert_eq!(service.keys.keys().collect::<Vec<_>>(), ["health.path"]);
        let server = ServerSaid { port: Some(8080), weight: Some(3), ..ServerSaid::default() };
        assert_eq!(said.servers["shop"], server);
    }

    #[test]
    fn what_says_nothing_is_told_with_its_label() {
        let said = read(
            &labels(&[
                ("weir.rout.a.host", "x"),
                ("weir.route.a", "x"),
                ("weir.route", "x"),
                ("weir.page.a.html", "/etc/shadow"),
                ("weir.network", "x"),
            ]),
            &[],
        );
        assert_eq!(said.faults.len(), 5, "{:?}", said.faults);
        assert!(
            said.faults.iter().any(|why| why.ends_with("did you mean `weir.route`?")),
            "{:?}",
            said.faults
        );
        for (label, text, why) in [
            ("weir.route.a.hots", "x", "`hots` is not a key there (did you mean `host`?)"),
            ("weir.route.a.name", "x", "the route is called as the label says"),
            ("weir.service.a.servers", "10.0.0.1:80", "servers are found, not written"),
            ("weir.service.a.port", "0", "`0` is not a whole number from 1 to 65535"),
            ("weir.service.a.address", "", "it is empty"),
            ("weir.service.a b.port", "1", "`a b` is no name"),
        ] {
            let said = read(&labels(&[(label, text)]), &[]);
            let part = said.sections.values().next().unwrap();
            assert!(part.faults[0].starts_with(&format!("label `{label}`: {why}")), "{:?}", part.faults);
        }
    }
}
