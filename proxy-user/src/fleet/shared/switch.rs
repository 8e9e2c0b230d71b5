//! What operators switch at run time, as hosts tell it to each other. Pure.
//!
//! Each switch has a name, which is the end of its key in the store: two hosts that say something about the same name mean the
//! same thing. A switch that is off has no value. Whoever reads may be a release older or newer than who wrote, so what isn't
//! known in a value is passed over.

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::LAYOUT;
use crate::{
    blocklist::Block,
    control::splits::HEAVIEST,
    drain::{self, By, Word},
    maintenance::{About, Ordered, Span},
};

/// All that is on, by name.
pub type Switches = BTreeMap<String, Switch>;

/// One that is on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Switch {
    Block {
        prefix: IpNet,
        #[serde(default)]
        until: Option<Timestamp>,
        #[serde(default)]
        why: String,
        #[serde(default)]
        cdn: bool,
        since: Timestamp,
    },
    Maintenance {
        /// At the host where it was ordered.
        id: u64,
        #[serde(default)]
        routes: Vec<String>,
        #[serde(default)]
        hosts: Vec<String>,
        #[serde(default)]
        allow: Vec<String>,
        #[serde(default)]
        except: Vec<String>,
        #[serde(default)]
        from: Option<Timestamp>,
        #[serde(default)]
        until: Option<Timestamp>,
        page: String,
        #[serde(default)]
        why: String,
        since: Timestamp,
    },
    Split {
        name: String,
        weights: BTreeMap<String, u32>,
    },
    Drain {
        service: String,
        server: String,
        since: Timestamp,
        by: By,
        #[serde(default)]
        who: Option<String>,
        #[serde(default)]
        why: Option<String>,
    },
}

/// What stands in the store under a switch's name: somebody's word.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Said {
    layout: u32,
    /// By the host that it was said to.
    pub host: String,
    /// When, in milliseconds since 1970, by that host's clock: for people, and to tell two words apart.
    pub at: i64,
    /// Somebody knew what he did (`--force`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// `None`: off.
    pub switch: Option<Switch>,
}

/// A word that takes something back is kept for so long: a host that was away for longer finds nothing, which means the same.
const OFF_KEPT: i64 = 24 * 3600;

/// What ends by itself stays in the store for so much longer: hosts end it by their own clocks.
const AFTER_END: i64 = 60;

/// What ends so late stays in the store: a lease of etcd's can't be of any length.
const LONGEST: i64 = 100 * 366 * 24 * 3600;

/// More than any configuration has.
const MOST_VARIANTS: usize = 1000;

/// Whether it is a host's name, as the configuration takes it.
#[must_use]
pub fn is_host(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(plain)
}

fn texts_are(value: &serde_json::Value, good: fn(&str) -> bool) -> bool {
    match value {
        serde_json::Value::String(text) => good(text),
        serde_json::Value::Array(all) => all.iter().all(|one| texts_are(one, good)),
        serde_json::Value::Object(all) => all.iter().all(|(name, one)| good(name) && texts_are(one, good)),
        _ => true,
    }
}

// === impl Switch ===

impl Switch {
    /// By which it is known.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Block { prefix, .. } => format!("blocks/{prefix}"),
            Self::Maintenance { routes, hosts, from, .. } => maintenance_name(routes, hosts, *from),
            Self::Split { name, .. } => format!("splits/{name}"),
            Self::Drain { service, server, .. } => format!("drains/{}", drain::Name::of(service, server)),
        }
    }

    /// When it ends by itself.
    #[must_use]
    pub fn until(&self) -> Option<Timestamp> {
        match self {
            Self::Block { until, .. } | Self::Maintenance { until, .. } => *until,
            Self::Split { .. } | Self::Drain { .. } => None,
        }
    }
}

/// Windows that replace each other have one name, whatever else they say.
fn maintenance_name(routes: &[String], hosts: &[String], from: Option<Timestamp>) -> String {
    let mut sum = digest::Context::new(&digest::SHA256);
    for part in [routes, hosts] {
        let mut sorted: Vec<_> = part.iter().collect();
        sorted.sort();
        sorted.dedup();
        sum.update(&(sorted.len() as u64).to_be_bytes());
        for text in sorted {
            sum.update(&(text.len() as u64).to_be_bytes());
            sum.update(text.as_bytes());
        }
    }
    sum.update(from.map(|from| from.to_string()).unwrap_or_default().as_bytes());
    let hex: String = sum.finish().as_ref()[..12].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("maintenance/{hex}")
}

/// The name of a window of maintenance that is known by what people are told of it.
#[must_use]
pub fn window_name(about: &About) -> String {
    maintenance_name(&about.routes, &about.hosts, about.span.from)
}

impl From<&Block> for Switch {
    fn from(Block { prefix, until, why, cdn, since }: &Block) -> Self {
        Self::Block { prefix: *prefix, until: *until, why: why.clone(), cdn: *cdn, since: *since }
    }
}

impl From<&Ordered> for Switch {
    fn from(one: &Ordered) -> Self {
        let Ordered { id, routes, hosts, allow, except, span: Span { from, until }, page, why, since } =
            one.clone();
        Self::Maintenance { id, routes, hosts, allow, except, from, until, page, why, since }
    }
}

impl From<(&drain::Name, &Word)> for Switch {
    fn from((name, word): (&drain::Name, &Word)) -> Self {
        let (drain::Name { service, server }, Word { since, by, who, why }) = (name.clone(), word.clone());
        Self::Drain { service, server, since, by, who, why }
    }
}

// === impl Said ===

impl Said {
    #[must_use]
    pub fn new(host: &str, at: i64, force: bool, switch: Option<Switch>) -> Self {
        Self { layout: LAYOUT, host: host.to_owned(), at, force, switch }
    }

    /// What stands under a name.
    ///
    /// # Errors
    /// A sentence, when it can't be believed.
    pub fn read(name: &str, bytes: &[u8]) -> Result<Self, String> {
        let read = super::read(bytes, |said: &Self| (said.layout, &said.host))?;
        // It comes into logs and onto terminals.
        let is_plain = |text: &str| !text.chars().any(char::is_control);
        if !is_plain(name) || !texts_are(&serde_json::to_value(&read).unwrap_or_default(), is_plain) {
            return Err("it has control characters in it".to_owned());
        }
        let Some(switch) = &read.switch else { return Ok(read) };
        if switch.name() != name {
            return Err(format!("it is about `{}`", switch.name()));
        }
        match switch {
            Switch::Block { prefix, .. } if *prefix != prefix.trunc() => {
                Err(format!("{prefix} has bits set behind its length"))
            }
            Switch::Split { weights, .. }
                if weights.values().all(|weight| *weight == 0)
                    || weights.values().any(|weight| *weight > HEAVIEST)
                    || weights.len() > MOST_VARIANTS =>
            {
                Err("its weights can't be".to_owned())
            }
            _ => Ok(read),
        }
    }

    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        // Texts, times and numbers always have a form in JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Whether it comes to the same.
    #[must_use]
    pub fn agrees_with(&self, other: &Self) -> bool {
        match (&self.switch, &other.switch) {
            (None, None) => true,
            (Some(one), Some(other)) => one == other,
            _ => false,
        }
    }

    /// For how many seconds it stays in the store; `None`: until somebody says something else.
    #[must_use]
    pub fn lasts(&self, now: Timestamp) -> Option<i64> {
        match &self.switch {
            None => Some(OFF_KEPT),
            Some(switch) => {
                let left = switch.until().map(|until| until.duration_since(now).as_secs().max(0) + AFTER_END);
                left.filter(|left| *left < LONGEST)
            }
        }
    }
}

/// What was switched between two looks: what is on now, and `None` for what is off.
#[must_use]
pub fn changes(before: &Switches, now: &Switches) -> Vec<(String, Option<Switch>)> {
    let on = now.iter().filter(|(name, switch)| before.get(*name) != Some(switch));
    let off = before.keys().filter(|name| !now.contains_key(*name));
    on.map(|(name, switch)| (name.clone(), Some(switch.clone())))
        .chain(off.map(|name| (name.clone(), None)))
        .collect()
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fleet::shared::{
        LARGEST,
        hint::Hint,
        keys::{self, TicketSecrets},
    };

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    pub fn block(prefix: &str, why: &str) -> Switch {
        Switch::Block {
            prefix: prefix.parse().unwrap(),
            until: Some(at("2030-01-01T00:00:00Z")),
            why: why.into(),
            cdn: false,
            since: at("2026-01-01T00:00:00Z"),
        }
    }

    fn window(routes: &[&str], hosts: &[&str], from: Option<&str>) -> Switch {
        let texts = |all: &[&str]| all.iter().map(ToString::to_string).collect();
        Switch::Maintenance {
            id: 1,
            routes: texts(routes),
            hosts: texts(hosts),
            allow: Vec::new(),
            except: Vec::new(),
            from: from.map(at),
            until: None,
            page: "maintenance".into(),
            why: String::new(),
            since: at("2026-01-01T00:00:00Z"),
        }
    }

    #[test]
    fn what_replaces_each_other_has_one_name_and_what_does_not_has_others() {
        assert_eq!(window(&["a", "b"], &[], None).name(), window(&["b", "a"], &[], None).name());
        let others = [
            window(&["a"], &[], None),
            window(&[], &["a"], None),
            window(&[], &[], None),
            window(&["ab"], &[], None),
            window(&["a", "b"], &[], None),
            window(&["a"], &["b"], None),
            window(&["a"], &[], Some("2026-12-01T00:00:00Z")),
        ];
        let names: std::collections::BTreeSet<_> = others.iter().map(Switch::name).collect();
        assert_eq!(names.len(), others.len());
        assert_eq!(block("2001:db8::/32", "").name(), "blocks/2001:db8::/32");
    }

    #[test]
    fn a_word_is_read_as_it_was_written_and_what_is_not_known_in_it_is_passed_over() {
        for switch in [block("192.0.2.0/24", "scans"), window(&["shop"], &["*.example.com"], None)] {
            let name = switch.name();
            let said = Said::new("edge-1", 7, true, Some(switch));
            assert_eq!(Said::read(&name, &said.write()), Ok(said.clone()));
            let newer = String::from_utf8(said.write()).unwrap().replace("\"since\"", "\"mood\":1,\"since\"");
            assert_eq!(Said::read(&name, newer.as_bytes()), Ok(said));
        }
        let off = Said::new("edge-1", 7, false, None);
        assert_eq!(Said::read("blocks/192.0.2.0/24", &off.write()), Ok(off));
    }

    #[test]
    fn what_can_not_be_believed_is_told_with_the_reason() {
        let text =
            String::from_utf8(Said::new("e", 1, false, Some(block("192.0.2.0/24", "x"))).write()).unwrap();
        let weights = |weights: &str| {
            format!(
                r#"{{"layout":1,"host":"e","at":1,"switch":{{"split":{{"name":"a","weights":{weights}}}}}}}"#
            )
        };
        let long = text.replace("\"x\"", &format!("\"{}\"", "x".repeat(LARGEST)));
        for (name, text, why) in [
            ("blocks/192.0.2.0/24", "{", "EOF"),
            ("blocks/192.0.2.0/25", &*text, "it is about `blocks/192.0.2.0/24`"),
            ("blocks/192.0.2.1/24", &text.replace("192.0.2.0", "192.0.2.1"), "bits set"),
            ("blocks/192.0.2.0/24", &text.replace("\"layout\":1", "\"layout\":2"), "its layout is 2"),
            ("blocks/192.0.2.0/24", &text.replace("\"block\"", "\"spell\""), "unknown variant"),
            ("blocks/192.0.2.0/24", &long, "more than 16384"),
            ("blocks/192.0.2.0/24", &text.replace("\"x\"", "\"\\u001b[2J\""), "control characters"),
            ("blocks/192.0.2.0/24", &text.replace("\"e\"", "\"e d\""), "names no host"),
            ("splits/a", &weights(r#"{"app":4294967295,"old":1}"#), "weights can't be"),
            ("splits/a", &weights(r#"{"app":0}"#), "weights can't be"),
        ] {
            let fault = Said::read(name, text.as_bytes()).unwrap_err();
            assert!(fault.contains(why), "{fault}");
        }
    }

    proptest! {
        #[test]
        fn whatever_stands_there_harms_nothing(bytes: Vec<u8>, name: String, text in r#"[\[\]{}":,a-z0-9]{0,60}"#) {
            for bytes in [&bytes[..], text.as_bytes()] {
                let _ = (Said::read(&name, bytes), Hint::read(bytes), keys::sticky(bytes), TicketSecrets::read(bytes));
            }
        }
    }

    #[test]
    fn what_ends_by_itself_leaves_the_store_a_little_later() {
        let said = Said::new("e", 1, false, Some(block("192.0.2.0/24", "")));
        assert_eq!(said.lasts(at("2029-12-31T23:59:00Z")), Some(120));
        assert_eq!(said.lasts(at("2031-01-01T00:00:00Z")), Some(60));
        assert_eq!(
            Said::new("e", 1, false, Some(window(&[], &[], None))).lasts(at("2030-01-01T00:00:00Z")),
            None
        );
        assert_eq!(Said::new("e", 1, false, None).lasts(at("2030-01-01T00:00:00Z")), Some(86_400));
    }

    #[test]
    fn changes_are_what_is_new_what_is_other_and_what_is_gone() {
        let all = |switches: &[Switch]| -> Switches {
            switches.iter().map(|switch| (switch.name(), switch.clone())).collect()
        };
        let (a, b) = (block("192.0.2.0/24", "a"), block("198.51.100.0/24", "b"));
        let (before, now) = (all(&[a.clone(), b.clone()]), all(&[block("192.0.2.0/24", "other")]));
        let changed = changes(&before, &now);
        assert_eq!(changed, [(a.name(), Some(block("192.0.2.0/24", "other"))), (b.name(), None)]);
        assert_eq!(changes(&now, &now), []);
    }
}
