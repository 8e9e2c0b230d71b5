//! HAProxy: frontends, backends and `listen`, in `mode http`; those in `mode tcp` become passthrough ([`carried`]).
//!
//! A frontend's rules are asked in order and the first one wins; here the most specific route does. So routes get a
//! `priority` by their place where a frontend has more than one rule.

mod backend;
mod carried;
mod condition;
mod frontend;
pub mod syntax;

use std::collections::{BTreeMap, BTreeSet};

pub use syntax::{Section, parse, parse_text};

use super::{Draft, ImportFault, Source};
use syntax::Line;

/// Imports files that HAProxy would read together.
///
/// # Errors
/// When one of them isn't of HAProxy's syntax.
pub fn import(sources: &[Source]) -> Result<Draft, ImportFault> {
    let mut all = Vec::new();
    for source in sources {
        all.extend(parse(source)?);
    }
    Ok(convert(&all))
}

pub(crate) struct Haproxy<'a> {
    draft: Draft,
    /// `backend` and `listen`, by name, with the `defaults` before them.
    backends: BTreeMap<&'a str, (&'a Section, Option<&'a Section>)>,
    /// Services that are written, by the backend's name.
    services: BTreeMap<&'a str, String>,
    unused: BTreeSet<&'a str>,
}

/// Makes a draft of parsed sections. Pure.
#[must_use]
pub fn convert(all: &[Section]) -> Draft {
    let mut haproxy = Haproxy {
        draft: Draft::new("HAProxy"),
        backends: BTreeMap::new(),
        services: BTreeMap::new(),
        unused: BTreeSet::new(),
    };
    let mut defaults = None;
    let mut fronts = Vec::new();
    for section in all {
        match section.kind.as_str() {
            "defaults" => defaults = Some(section),
            "frontend" => fronts.push((section, defaults)),
            "backend" => _ = haproxy.backends.insert(&section.name, (section, defaults)),
            "listen" => {
                haproxy.backends.insert(&section.name, (section, defaults));
                fronts.push((section, defaults));
            }
            // Of HAProxy's own process.
            "global" => {}
            "userlist" => {
                let why = "`basic_auth` takes bcrypt and Argon2 alone: `weir hash-password` makes one";
                haproxy.draft.leave(&section.place, &format!("userlist {}", section.name), why);
            }
            kind => {
                let what = format!("{kind} {}", section.name);
                haproxy.draft.leave(&section.place, &what, "it has no counterpart here");
            }
        }
    }
    haproxy.unused = haproxy.backends.keys().copied().collect();
    for (section, defaults) in fronts {
        haproxy.frontend(section, defaults);
    }
    for name in haproxy.unused.clone() {
        if let Some((section, defaults)) = haproxy.backends.get(name).copied()
            && section.kind == "backend"
        {
            _ = haproxy.service_of(name, is_tcp(section, defaults));
        }
    }
    haproxy.draft
}

/// Whether a section carries bytes and knows no requests.
fn is_tcp(section: &Section, defaults: Option<&Section>) -> bool {
    nearest(section, defaults, "mode").is_none_or(|mode| mode.word(1) != "http")
}

/// What a section says; else what the `defaults` before it say.
fn nearest<'a>(section: &'a Section, defaults: Option<&'a Section>, key: &str) -> Option<&'a Line> {
    let of = |section: &'a Section| section.lines.iter().rev().find(|line| line.word(0) == key);
    of(section).or_else(|| of(defaults?))
}

/// Of two words, as `timeout connect` has them.
fn nearest_of_two<'a>(
    section: &'a Section,
    defaults: Option<&'a Section>,
    first: &str,
    second: &str,
) -> Option<&'a Line> {
    let of = |section: &'a Section| {
        section.lines.iter().rev().find(|line| line.word(0) == first && line.word(1) == second)
    };
    of(section).or_else(|| of(defaults?))
}
