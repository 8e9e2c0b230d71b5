//! One file's text → [`Written`], with every fault of its form: syntax, unknown keys, values of the wrong kind.
//!
//! serde stops at the first fault, so the parsed tree is held against the schema first; what is faulty is reported,
//! noted as lost and taken out. serde then takes the rest, and can't fail.

use std::ops::Range;

use serde::Deserialize;
use serde_json::{Map, Value};
use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use super::{
    code::Code,
    findings::Findings,
    recover::{self, Recovered},
    schema,
    source::FileId,
    unsupported,
    value::{choice, nearest, quoted},
    written::Written,
};

/// A file as written, as far as it is sound.
#[derive(Debug)]
pub struct Document {
    pub file: FileId,
    pub written: Written,
    /// False: parts of the file are lost without trace, so nothing may be concluded from what isn't there.
    pub whole: bool,
}

pub fn parse(file: FileId, findings: &mut Findings) -> Document {
    let recovered = recover::recover(findings.sources.text(file));
    report_syntax(file, &recovered, findings);
    let mut whole = recovered.whole;
    let (mut table, _) = DeTable::parse_recoverable(&recovered.text);
    let span = table.span();
    for nth in 1..=recovered.faults.len() {
        table.get_mut().remove(&*recover::stand_in(nth));
    }
    Walk { file, findings: &mut *findings }.keys(schema::root(), table.get_mut(), &Place::default());
    let tree = Spanned::new(span.clone(), DeValue::Table(table.into_inner()));
    let written = match Written::deserialize(toml::de::ValueDeserializer::from(tree)) {
        Ok(written) => written,
        Err(error) => {
            // The schema let something pass that serde doesn't: still a fault with a place.
            findings.error(Code::WrongValue, file, &error.span().unwrap_or(span), error.message().to_owned());
            whole = false;
            Written::default()
        }
    };
    Document { file, written, whole }
}

fn report_syntax(file: FileId, recovered: &Recovered, findings: &mut Findings) {
    for fault in &recovered.faults {
        let finding = findings
            .error(fault.code, file, &fault.span, fault.message.clone())
            .maybe_hint(fault.hint.clone());
        if let Some(first) = &fault.first {
            finding.related(file, first, "first written here");
        }
    }
    for lost in &recovered.lost {
        let section = match lost.element {
            Some(start) => element(&lost.section, file, start),
            None => lost.section.clone(),
        };
        findings.lose(match &lost.key {
            Some(key) => join(&section, key),
            None => section,
        });
    }
}

/// Where in the tree.
#[derive(Debug, Default, Clone)]
struct Place {
    /// As a reader knows it.
    path: String,
    /// With `NAME` in the place of names.
    general: String,
    /// With the elements of lists told apart.
    exact: String,
}

struct Walk<'a> {
    file: FileId,
    findings: &'a mut Findings,
}

impl Walk<'_> {
    /// Takes out of `table` whatever the schema doesn't allow there.
    fn keys(&mut self, schema: &Value, table: &mut DeTable<'_>, place: &Place) {
        let nothing = Map::new();
        let known = schema["properties"].as_object().unwrap_or(&nothing);
        let named = schema.get("additionalProperties").filter(|schema| schema.is_object());
        let mut faulty = Vec::new();
        for (key, value) in table.iter_mut() {
            let name: &str = key.get_ref();
            let sound = match (known.get(name), named) {
                (Some(schema), _) => self.value(schema, value, &place.key(name)),
                (None, Some(schema)) => self.value(schema, value, &place.name(name)),
                (None, None) => {
                    self.unknown(name, &key.span(), value.get_ref(), known, place);
                    false
                }
            };
            if !sound {
                self.findings.lose(join(&place.exact, name));
                faulty.push(name.to_owned());
            }
        }
        for key in faulty {
            table.remove(&*key);
        }
    }

    fn unknown(
        &mut self,
        name: &str,
        span: &Range<usize>,
        value: &DeValue<'_>,
        known: &Map<String, Value>,
        place: &Place,
    ) {
        let what = if place.path.is_empty() {
            format!("{} is not a section", quoted(name))
        } else {
            format!("{} is not a key of {}", quoted(name), quoted(&place.path))
        };
        if let Some(key) = unsupported::key(&place.general, name) {
            let message =
                format!("{} is not yet supported in this version", quoted(&join(&place.path, name)));
            self.findings.error(Code::NotYetSupported, self.file, span, message).hint(key.instead);
            return;
        }
        let suggestion = nearest(name, known.keys().map(String::as_str));
        if let Some(meant) = suggestion {
            self.lose_meant(&join(&place.exact, meant), &known[meant], value);
        }
        let finding = self.findings.error(Code::UnknownKey, self.file, span, what);
        match suggestion {
            Some(_) => finding.suggest(suggestion),
            None => finding.maybe_hint(choice(known.keys().map(String::as_str))),
        };
    }

    /// What was probably meant isn't missing: a second fault about the same slip would only confuse.
    fn lose_meant(&mut self, meant: &str, schema: &Value, value: &DeValue<'_>) {
        match value.as_table().filter(|_| schema["additionalProperties"].is_object()) {
            Some(named) => named.keys().for_each(|name| self.findings.lose(join(meant, name.get_ref()))),
            None => self.findings.lose(meant),
        }
    }

    /// Whether `value` may stay. What is faulty within it has been taken out.
    fn value(&mut self, schema: &Value, value: &mut Spanned<DeValue<'_>>, place: &Place) -> bool {
        let span = value.span();
        if let Some(words) = words(schema) {
            return match value.get_ref().as_str() {
                Some(word) if words.contains(&word) => true,
                Some(word) => self.wrong_word(word, &words, &span, place),
                None => self.wrong_kind("a string", schema, value, place),
            };
        }
        let alternatives = schema["anyOf"].as_array().map_or(&[][..], Vec::as_slice);
        let kinds: Vec<&Value> =
            if alternatives.is_empty() { vec![schema] } else { alternatives.iter().collect() };
        let Some(fitting) = kinds.iter().find(|kind| kind["type"] == kind_of(value.get_ref())) else {
            let wanted: Vec<_> = kinds.iter().filter_map(|kind| kind["type"].as_str()).map(wanted).collect();
            return self.wrong_kind(&wanted.join(" or "), schema, value, place);
        };
        match value.get_mut() {
            DeValue::Table(table) => self.keys(fitting, table, place),
            DeValue::Array(items) => self.elements(&fitting["items"], items, place),
            _ => {}
        }
        true
    }

    /// Takes faulty elements out of a list. The list then isn't the one that was meant: nothing is made of its length.
    fn elements(&mut self, schema: &Value, items: &mut DeArray<'_>, place: &Place) {
        let all = std::mem::replace(items, DeArray::new());
        for mut item in all {
            let element = place.element(self.file, item.span().start);
            if self.value(schema, &mut item, &element) {
                items.push(item);
            } else {
                self.findings.lose(place.exact.clone());
            }
        }
    }

    fn wrong_word(&mut self, word: &str, words: &[&str], span: &Range<usize>, place: &Place) -> bool {
        let all: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
        let message = format!("`{}` is {}, which is none of {}", place.path, quoted(word), all.join(", "));
        let suggestion = nearest(word, words.iter().copied());
        self.findings.error(Code::WrongValue, self.file, span, message).suggest(suggestion);
        false
    }

    fn wrong_kind(
        &mut self,
        wanted: &str,
        schema: &Value,
        value: &Spanned<DeValue<'_>>,
        place: &Place,
    ) -> bool {
        let message = format!("`{}` must be {wanted}, not {}", place.path, article(value.get_ref()));
        let example = schema["examples"].get(0).or(schema.get("default")).map(|example| {
            let key = place.path.rsplit('.').next().unwrap_or_default();
            format!("for instance `{key} = {example}`")
        });
        self.findings.error(Code::WrongValue, self.file, &value.span(), message).maybe_hint(example);
        false
    }
}

impl Place {
    fn key(&self, key: &str) -> Self {
        let exact = join(&self.exact, key);
        Self { path: join(&self.path, key), general: join(&self.general, key), exact }
    }

    fn name(&self, name: &str) -> Self {
        let exact = join(&self.exact, name);
        Self { path: join(&self.path, name), general: join(&self.general, "NAME"), exact }
    }

    fn element(&self, file: FileId, start: usize) -> Self {
        Self { exact: element(&self.exact, file, start), ..self.clone() }
    }
}

/// The path of a list's element, for [`Findings::lost`].
pub fn element(list: &str, file: FileId, start: usize) -> String {
    format!("{list}@{file:?}:{start}")
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The words to choose from, where there are.
fn words(schema: &Value) -> Option<Vec<&str>> {
    if let Some(words) = schema["enum"].as_array() {
        return Some(words.iter().filter_map(Value::as_str).collect());
    }
    let choices = schema["oneOf"].as_array()?;
    choices.iter().map(|choice| choice["const"].as_str()).collect()
}

fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "string",
        DeValue::Integer(_) => "integer",
        DeValue::Float(_) => "number",
        DeValue::Boolean(_) => "boolean",
        DeValue::Array(_) => "array",
        DeValue::Table(_) => "object",
        DeValue::Datetime(_) => "date",
    }
}

fn article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::Datetime(_) => "a date",
        DeValue::Float(_) => "a fraction",
        other => wanted(kind_of(other)),
    }
}

fn wanted(kind: &str) -> &'static str {
    match kind {
        "string" => "a string",
        "integer" => "a whole number",
        "boolean" => "`true` or `false`",
        "array" => "a list",
        "object" => "a table",
        _ => "something else",
    }
}
