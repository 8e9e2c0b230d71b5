//! What a route compares a part of a request with: a text, or a table that says how it is meant.

use std::{borrow::Cow, fmt, ops::Range};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny},
};
use serde_json::{Value, json};
use toml::Spanned;

use super::At;

/// `"text"`, `{ regex = "…" }`, and where `EXACT` also `{ exact = "…" }`.
#[derive(Debug, Clone)]
pub struct Pattern<const EXACT: bool> {
    pub span: Range<usize>,
    pub kind: PatternKind,
}

#[derive(Debug, Clone)]
pub enum PatternKind {
    Plain(String),
    Exact(At<String>),
    Regex(At<String>),
    /// A table with none of the keys, or more than one.
    Unclear,
}

/// One pattern or a list of them.
#[derive(Debug, Clone)]
pub struct Patterns<const EXACT: bool> {
    pub span: Range<usize>,
    pub items: Vec<Pattern<EXACT>>,
}

pub type HostPatterns = Patterns<false>;
pub type PathPatterns = Patterns<true>;
pub type TextPattern = Pattern<false>;

// === impl Pattern ===

impl<'de, const EXACT: bool> Deserialize<'de> for Pattern<EXACT> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<PatternKind>::deserialize(deserializer)?;
        Ok(Self { span: spanned.span(), kind: spanned.into_inner() })
    }
}

impl<const EXACT: bool> JsonSchema for Pattern<EXACT> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        if EXACT { "PathPattern".into() } else { "TextPattern".into() }
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": alternatives(EXACT) })
    }
}

fn alternatives(exact: bool) -> [Value; 2] {
    let regex = json!({
        "type": "string",
        "description": "A regular expression, which must match the whole of it.",
    });
    let mut properties = json!({ "regex": regex });
    if exact {
        properties["exact"] = json!({ "type": "string", "description": "This, and nothing below it." });
    }
    [
        json!({ "type": "string" }),
        json!({ "type": "object", "properties": properties, "additionalProperties": false }),
    ]
}

// === impl Patterns ===

impl<'de, const EXACT: bool> Deserialize<'de> for Patterns<EXACT> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<OneOrMany<EXACT>>::deserialize(deserializer)?;
        let span = spanned.span();
        let items = match spanned.into_inner() {
            OneOrMany::One(kind) => vec![Pattern { span: span.clone(), kind }],
            OneOrMany::Many(items) => items,
        };
        Ok(Self { span, items })
    }
}

impl<const EXACT: bool> JsonSchema for Patterns<EXACT> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        if EXACT { "PathPatterns".into() } else { "HostPatterns".into() }
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let [text, table] = alternatives(EXACT);
        let items = json!({ "anyOf": [text.clone(), table.clone()] });
        json_schema!({ "anyOf": [text, table, { "type": "array", "items": items }] })
    }
}

/// By hand, because an untagged enum would only say that nothing matched, and lose the places.
enum OneOrMany<const EXACT: bool> {
    One(PatternKind),
    Many(Vec<Pattern<EXACT>>),
}

impl<'de> Deserialize<'de> for PatternKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = PatternKind;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a table")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<PatternKind, E> {
                Ok(PatternKind::Plain(text.to_owned()))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<PatternKind, A::Error> {
                table(map)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl<'de, const EXACT: bool> Deserialize<'de> for OneOrMany<EXACT> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<const EXACT: bool>;

        impl<'de, const EXACT: bool> de::Visitor<'de> for Visitor<EXACT> {
            type Value = OneOrMany<EXACT>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a table or a list of them")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(OneOrMany::One(PatternKind::Plain(text.to_owned())))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                table(map).map(OneOrMany::One)
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(item) = items.next_element()? {
                    all.push(item);
                }
                Ok(OneOrMany::Many(all))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

fn table<'de, A: de::MapAccess<'de>>(mut map: A) -> Result<PatternKind, A::Error> {
    let mut kind = None;
    let mut count = 0;
    while let Some(key) = map.next_key::<String>()? {
        count += 1;
        match &*key {
            "exact" => kind = Some(PatternKind::Exact(map.next_value()?)),
            "regex" => kind = Some(PatternKind::Regex(map.next_value()?)),
            _ => drop(map.next_value::<IgnoredAny>()?),
        }
    }
    Ok(kind.filter(|_| count == 1).unwrap_or(PatternKind::Unclear))
}
