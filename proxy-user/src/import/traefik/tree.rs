//! Traefik's files as one tree, whether YAML or TOML: tables, lists and texts, each with its line.
//!
//! Of YAML it takes events from a parser and builds the tree itself, so that anchors can't blow it up: an alias is a
//! fault, as no configuration of Traefik needs one that couldn't be written out.

use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle};
use toml::de::{DeTable, DeValue};

use super::super::{ImportFault, LARGEST, Place, Source};

const DEEPEST: usize = 32;
const MOST_NODES: usize = 200_000;

#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub value: Value,
    pub place: Place,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Also numbers and booleans, as they are written; YAML's null is empty.
    Text(String),
    List(Vec<Node>),
    /// In the order in which it is written.
    Table(Vec<(String, Node)>),
}

/// Parses a file: TOML by its ending, YAML otherwise. A YAML file may hold several documents.
///
/// # Errors
/// With the first thing that is not of the language.
pub fn parse(source: &Source) -> Result<Vec<Node>, ImportFault> {
    let is_toml = source.path.extension().is_some_and(|ending| ending == "toml");
    if is_toml {
        toml(&source.name, &source.text).map(|node| vec![node])
    } else {
        yaml(&source.name, &source.text)
    }
}

/// Parses YAML.
///
/// # Errors
/// As [`parse`].
pub fn yaml(name: &str, text: &str) -> Result<Vec<Node>, ImportFault> {
    let file: Arc<str> = name.into();
    let first = Place { file: file.clone(), line: 1 };
    if text.len() > LARGEST {
        return Err(ImportFault::new(&first, "the file has more than 4 MiB: is it a configuration?"));
    }
    // What is open: a list, or a table with the key that waits for its value.
    enum Open {
        List(Vec<Node>),
        Table(Vec<(String, Node)>, Option<String>),
    }
    let (mut open, mut done, mut nodes): (Vec<(Open, Place)>, Vec<Node>, usize) = (Vec::new(), Vec::new(), 0);
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let place = Place { file: file.clone(), line: error.marker().line() };
            ImportFault::new(&place, format!("this is not YAML: {}", error.info()))
        })?;
        let place = Place { file: file.clone(), line: span.start.line() };
        nodes += 1;
        if nodes > MOST_NODES || open.len() > DEEPEST {
            return Err(ImportFault::new(&place, "there is too much in it, or nested too deeply"));
        }
        let closed = match event {
            Event::SequenceStart(..) => {
                open.push((Open::List(Vec::new()), place));
                continue;
            }
            Event::MappingStart(..) => {
                open.push((Open::Table(Vec::new(), None), place));
                continue;
            }
            Event::Scalar(text, style, ..) => {
                let null = style == ScalarStyle::Plain && matches!(&*text, "~" | "null");
                Node { value: Value::Text(if null { String::new() } else { text.into_owned() }), place }
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some((Open::List(items), place)) => Node { value: Value::List(items), place },
                Some((Open::Table(keys, _), place)) => Node { value: Value::Table(keys), place },
                None => continue,
            },
            Event::Alias(_) => {
                return Err(ImportFault::new(
                    &place,
                    "aliases (`*name`) are not read: write out what it stands for",
                ));
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => {
                continue;
            }
        };
        match open.last_mut() {
            None => done.push(closed),
            Some((Open::List(items), _)) => items.push(closed),
            Some((Open::Table(keys, waiting), _)) => match waiting.take() {
                Some(key) => keys.push((key, closed)),
                None => match closed.value {
                    Value::Text(key) => *waiting = Some(key),
                    _ => return Err(ImportFault::new(&closed.place, "a key is a text")),
                },
            },
        }
    }
    Ok(done)
}

/// Parses TOML.
///
/// # Errors
/// As [`parse`].
pub fn toml(name: &str, text: &str) -> Result<Node, ImportFault> {
    let file: Arc<str> = name.into();
    let place = |at: usize| Place {
        file: file.clone(),
        line: 1 + text.get(..at).map_or(0, |before| before.matches('\n').count()),
    };
    if text.len() > LARGEST {
        return Err(ImportFault::new(&place(0), "the file has more than 4 MiB: is it a configuration?"));
    }
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        ImportFault::new(&place(at), format!("this is not TOML: {}", error.message()))
    })?;
    let mut nodes = 0;
    of_table(table.get_ref(), &place(0), &place, &mut nodes, 0)
}

fn of_table(
    table: &DeTable<'_>,
    own: &Place,
    place: &impl Fn(usize) -> Place,
    nodes: &mut usize,
    depth: usize,
) -> Result<Node, ImportFault> {
    let mut keys = Vec::new();
    for (key, value) in table {
        let at = place(key.span().start);
        keys.push((key.get_ref().to_string(), of_value(value.get_ref(), &at, place, nodes, depth + 1)?));
    }
    Ok(Node { value: Value::Table(keys), place: own.clone() })
}

fn of_value(
    value: &DeValue<'_>,
    own: &Place,
    place: &impl Fn(usize) -> Place,
    nodes: &mut usize,
    depth: usize,
) -> Result<Node, ImportFault> {
    *nodes += 1;
    if *nodes > MOST_NODES || depth > DEEPEST {
        return Err(ImportFault::new(own, "there is too much in it, or nested too deeply"));
    }
    let text = |text: String| Node { value: Value::Text(text), place: own.clone() };
    Ok(match value {
        DeValue::String(value) => text(value.to_string()),
        DeValue::Integer(value) => text(value.to_string()),
        DeValue::Float(value) => text(value.to_string()),
        DeValue::Boolean(value) => text(value.to_string()),
        DeValue::Datetime(value) => text(value.to_string()),
        DeValue::Table(table) => of_table(table, own, place, nodes, depth)?,
        DeValue::Array(items) => {
            let mut list = Vec::new();
            for item in items {
                list.push(of_value(item.get_ref(), &place(item.span().start), place, nodes, depth + 1)?);
            }
            Node { value: Value::List(list), place: own.clone() }
        }
    })
}

// === impl Node ===

impl Node {
    /// Of a table, by its key: Traefik reads its keys whatever their case.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|(known, _)| known.eq_ignore_ascii_case(key)).map(|(_, node)| node)
    }

    /// Several keys down.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    pub(super) fn entries(&self) -> &[(String, Node)] {
        match &self.value {
            Value::Table(keys) => keys,
            _ => &[],
        }
    }

    pub(super) fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The texts of a list; a text alone is a list of one.
    pub(super) fn texts(&self) -> Vec<&str> {
        self.text().into_iter().chain(self.items().iter().filter_map(Node::text)).collect()
    }

    pub(super) fn text_of(&self, key: &str) -> Option<&str> {
        self.get(key)?.text().filter(|text| !text.is_empty())
    }

    pub(super) fn texts_of(&self, key: &str) -> Vec<&str> {
        self.get(key).map(Node::texts).unwrap_or_default()
    }

    pub(super) fn is_true(&self, key: &str) -> bool {
        self.text_of(key) == Some("true")
    }

    pub(super) fn number_of(&self, key: &str) -> Option<i64> {
        self.text_of(key)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_languages_make_the_same_tree_with_lines() {
        let of_yaml = yaml(
            "x",
            "http:\n  routers:\n    a:\n      rule: Host(`a`)\n      entryPoints: [web]\n      priority: 5\n",
        )
        .unwrap();
        let of_toml =
            toml("x", "[http.routers.a]\nrule = \"Host(`a`)\"\nentryPoints = [\"web\"]\npriority = 5\n")
                .unwrap();
        for (node, line) in [(&of_yaml[0], 4), (&of_toml, 2)] {
            let router = node.at(&["http", "routers", "A"]).unwrap();
            assert_eq!(router.text_of("rule"), Some("Host(`a`)"));
            assert_eq!(router.texts_of("entrypoints"), ["web"]);
            assert_eq!(router.number_of("priority"), Some(5));
            assert_eq!(router.get("rule").unwrap().place.line, line);
        }
    }

    #[test]
    fn what_would_blow_up_is_refused() {
        let fault = yaml("x", "a: &a [1]\nb: [*a, *a]\n").unwrap_err().to_string();
        assert!(fault.starts_with("x:2: aliases"), "{fault}");
        let deep = "[".repeat(100);
        assert!(yaml("x", &deep).is_err() && toml("x", &format!("a = {deep}")).is_err());
        assert!(yaml("x", "a: [").unwrap_err().to_string().contains("this is not YAML"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_odd(text in "(\\PC|[ \n\"'\\-:{}\\[\\]#&*|>]){0,200}") {
            let _ = yaml("x", &text);
            let _ = toml("x", &text);
        }
    }
}
