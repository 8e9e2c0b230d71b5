//! What importers fill: sections of a Weir configuration, each with the place that it comes from.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use toml::Value;

/// A line of an imported file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub file: Arc<str>,
    /// From 1.
    pub line: usize,
}

/// Something that has no counterpart, or none that is the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    pub place: Place,
    /// As it stands there.
    pub what: String,
    pub why: String,
}

/// In the order in which they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Kernel,
    Acme,
    Allowlist,
    Entrypoint,
    Service,
    Page,
    Middleware,
    Route,
}

/// A section.
#[derive(Debug, Clone)]
pub struct Section {
    pub kind: Kind,
    pub name: String,
    pub keys: Vec<(String, Value)>,
    /// Written above it.
    pub notes: Vec<String>,
    pub place: Place,
}

#[derive(Debug, Default)]
pub struct Draft {
    /// The other proxy.
    pub from: &'static str,
    pub sections: Vec<Section>,
    pub left_out: Vec<LeftOut>,
    /// Entrypoints that must not be reached from elsewhere yet, and why.
    pub held_back: BTreeMap<String, BTreeSet<String>>,
}

/// What one import may make: a file that wants more is no configuration of a proxy.
const MOST_SECTIONS: usize = 5_000;

impl Draft {
    #[must_use]
    pub fn new(from: &'static str) -> Self {
        Self { from, ..Self::default() }
    }

    /// A new section, whose name is made one that Weir takes and that no other of its kind has. Returns its number.
    pub fn add(&mut self, kind: Kind, name: &str, place: &Place) -> usize {
        let base = plain_name(name);
        let taken = |name: &str| self.find(kind, name).is_some();
        let mut name = base.clone();
        for number in 2..=MOST_SECTIONS {
            if !taken(&name) {
                break;
            }
            name = format!("{base}-{number}");
        }
        let section = Section { kind, name, keys: Vec::new(), notes: Vec::new(), place: place.clone() };
        if self.sections.len() < MOST_SECTIONS {
            self.sections.push(section);
        } else {
            // The last one is written over, and the import is said to be cut short.
            let why = format!("an import makes at most {MOST_SECTIONS} sections");
            let what = section.name.clone();
            self.leave(place, &what, &why);
            self.hold_back_all("the import was cut short");
            if let Some(last) = self.sections.last_mut() {
                *last = section;
            }
        }
        self.sections.len() - 1
    }

    #[must_use]
    pub fn find(&self, kind: Kind, name: &str) -> Option<usize> {
        self.sections.iter().position(|section| section.kind == kind && section.name == name)
    }

    pub fn set(&mut self, section: usize, key: &str, value: impl Into<Value>) {
        let keys = &mut self.sections[section].keys;
        let value = value.into();
        match keys.iter_mut().find(|(known, _)| known == key) {
            Some((_, known)) => *known = value,
            None => keys.push((key.to_owned(), value)),
        }
    }

    #[must_use]
    pub fn get(&self, section: usize, key: &str) -> Option<&Value> {
        self.sections[section].keys.iter().find(|(known, _)| known == key).map(|(_, value)| value)
    }

    /// Adds to a list, which is made if need be.
    pub fn push(&mut self, section: usize, key: &str, value: impl Into<Value>) {
        let keys = &mut self.sections[section].keys;
        let value = value.into();
        match keys.iter_mut().find(|(known, _)| known == key) {
            Some((_, Value::Array(list))) if !list.contains(&value) => list.push(value),
            Some(_) => {}
            None => keys.push((key.to_owned(), Value::Array(vec![value]))),
        }
    }

    /// Sets a key of a table, which is made if need be.
    pub fn put(&mut self, section: usize, table: &str, key: &str, value: impl Into<Value>) {
        let keys = &mut self.sections[section].keys;
        let value = value.into();
        match keys.iter_mut().find(|(known, _)| known == table) {
            Some((_, Value::Table(table))) => _ = table.insert(key.to_owned(), value),
            Some(_) => {}
            None => keys.push((table.to_owned(), table_of([(key, value)]).into())),
        }
    }

    pub fn note(&mut self, section: usize, note: impl Into<String>) {
        self.sections[section].notes.push(note.into());
    }

    pub fn leave(&mut self, place: &Place, what: &str, why: &str) {
        let left = LeftOut { place: place.clone(), what: short(what), why: why.to_owned() };
        if !self.left_out.contains(&left) {
            self.left_out.push(left);
        }
    }

    /// Leaves out something that kept people out: what it guarded must not be open meanwhile.
    pub fn leave_guard(&mut self, entrypoints: &[String], place: &Place, what: &str, why: &str) {
        self.leave(place, what, why);
        let reason = format!("{place}: `{}` has no counterpart here: {why}", short(what));
        if entrypoints.is_empty() {
            self.hold_back_all(&reason);
        }
        for entrypoint in entrypoints {
            self.hold_back(entrypoint, &reason);
        }
    }

    pub fn hold_back(&mut self, entrypoint: &str, why: &str) {
        self.held_back.entry(entrypoint.to_owned()).or_default().insert(why.to_owned());
    }

    pub fn hold_back_all(&mut self, why: &str) {
        // Also those that are yet to come.
        self.hold_back("", why);
    }
}

/// Of a name, what Weir's names may hold: letters, digits, `-` and `_`, at most 64 of them.
#[must_use]
pub fn plain_name(name: &str) -> String {
    let mut plain = String::new();
    for letter in name.chars() {
        if letter.is_ascii_alphanumeric() || letter == '_' {
            plain.push(letter);
        } else if !plain.is_empty() && !plain.ends_with('-') {
            plain.push('-');
        }
        // Room for a number.
        if plain.len() >= 56 {
            break;
        }
    }
    let plain = plain.trim_end_matches('-');
    if plain.is_empty() { "unnamed".to_owned() } else { plain.to_owned() }
}

pub fn table_of<const N: usize>(keys: [(&str, Value); N]) -> toml::Table {
    keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// On one line, and not too long for one.
fn short(what: &str) -> String {
    let line: Vec<&str> = what.split_whitespace().collect();
    let line: String = line.join(" ").chars().filter(|letter| !letter.is_control()).collect();
    match line.char_indices().nth(120) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: left out `{}`: {}", self.place, self.what, self.why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_ones_that_weir_takes() {
        for (name, plain) in [
            ("app", "app"),
            ("app@file", "app-file"),
            ("www.example.com", "www-example-com"),
            ("~^(?<x>.+)$", "x"),
            ("§§", "unnamed"),
            (&"x".repeat(100), &"x".repeat(56)),
        ] {
            assert_eq!(plain_name(name), plain);
        }
    }

    #[test]
    fn two_of_a_name_are_told_apart() {
        let mut draft = Draft::new("nginx");
        let place = Place { file: "a".into(), line: 1 };
        draft.add(Kind::Service, "app", &place);
        draft.add(Kind::Service, "app", &place);
        draft.add(Kind::Route, "app", &place);
        let names: Vec<_> = draft.sections.iter().map(|section| section.name.as_str()).collect();
        assert_eq!(names, ["app", "app-2", "app"]);
    }
}
