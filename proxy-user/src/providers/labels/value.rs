//! A label's text → a value of the configuration language, by the schema: the same schema that files are held against, so
//! that everything which can be written can be said by a label.

use serde_json::Value as Schema;
use toml::Value;

use crate::config::{nearest, quoted};

/// What the schema says of the key at the end of `parts`. Err: the first part that is nothing there, and what could be meant.
pub fn descend<'a>(schema: &'a Schema, parts: &[&str]) -> Result<&'a Schema, String> {
    let mut here = schema;
    for part in parts {
        here = match child(here, part) {
            Some(below) => below,
            None => {
                let meant = nearest(part, known(here));
                let hint = meant.map(|meant| format!(" (did you mean `{meant}`?)")).unwrap_or_default();
                return Err(format!("{} is not a key there{hint}", quoted(part)));
            }
        };
    }
    Ok(here)
}

/// The text as the schema wants it: a number, a list, what it says. Whether it makes sense is for the configuration to say.
pub fn typed(schema: &Schema, text: &str) -> Result<Value, String> {
    let text = text.trim();
    let kinds: Vec<_> = alternatives(schema).filter_map(|one| one["type"].as_str()).collect();
    let takes = |kind: &str| kinds.contains(&kind);
    if (text.starts_with('[') && takes("array"))
        || (text.starts_with('{') && (takes("object") || takes("array")))
    {
        let value = toml_value(text)?;
        // One table where a list of them is wanted.
        return Ok(if value.is_table() && !takes("object") { vec![value].into() } else { value });
    }
    if takes("array") && text.contains(',') {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        return Ok(items.map(Value::from).collect::<Vec<_>>().into());
    }
    if takes("boolean") && matches!(text, "true" | "false") {
        return Ok((text == "true").into());
    }
    if takes("integer")
        && let Ok(number) = text.parse::<i64>()
    {
        return Ok(number.into());
    }
    if takes("string") {
        return Ok(text.into());
    }
    if takes("object") && text == "true" {
        return Ok(toml::Table::new().into());
    }
    if takes("array") {
        return Ok(vec![Value::from(text)].into());
    }
    let wanted = match kinds.first() {
        Some(&"boolean") => "`true` or `false`",
        Some(&"integer") => "a whole number",
        Some(&"object") => "a table: `{ key = value }`, or a label for each of its keys",
        _ => "something else",
    };
    Err(format!("{} is not what is wanted there: {wanted}", quoted(text)))
}

/// A value as TOML has it, on its own.
fn toml_value(text: &str) -> Result<Value, String> {
    let whole = format!("value = {text}");
    let mut table: toml::Table =
        toml::from_str(&whole).map_err(|error| format!("it is not TOML: {}", error.message()))?;
    match (table.remove("value"), table.is_empty()) {
        (Some(value), true) => Ok(value),
        _ => Err("it is more than one value".to_owned()),
    }
}

fn alternatives(schema: &Schema) -> impl Iterator<Item = &Schema> {
    let more = schema["anyOf"].as_array().or_else(|| schema["oneOf"].as_array());
    std::iter::once(schema).chain(more.into_iter().flatten())
}

fn child<'a>(schema: &'a Schema, part: &str) -> Option<&'a Schema> {
    alternatives(schema).find_map(|one| {
        let named = one.get("additionalProperties").filter(|named| named.is_object());
        one["properties"].get(part).or(named)
    })
}

fn known(schema: &Schema) -> impl Iterator<Item = &str> {
    let tables = alternatives(schema).filter_map(|one| one["properties"].as_object());
    tables.flat_map(|table| table.keys().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::inline::line_of, config::schema_tree};

    fn service(key: &str, text: &str) -> Result<String, String> {
        let schema = &schema_tree()["properties"]["service"]["additionalProperties"];
        let parts: Vec<_> = key.split('.').collect();
        typed(descend(schema, &parts)?, text).map(|value| line_of(&value))
    }

    fn route(key: &str, text: &str) -> Result<String, String> {
        let schema = &schema_tree()["properties"]["route"]["items"];
        let parts: Vec<_> = key.split('.').collect();
        typed(descend(schema, &parts)?, text).map(|value| line_of(&value))
    }

    #[test]
    fn a_text_becomes_what_the_schema_wants() {
        for (said, wanted) in [
            (service("health.path", "/up"), "\"/up\""),
            (service("health.fall", " 3 "), "3"),
            (service("health.tcp", "true"), "true"),
            (service("sticky", "cookie"), "\"cookie\""),
            (service("sticky.name", "shop"), "\"shop\""),
            (service("split.a", "80"), "80"),
            (service("failover", "a, b"), "[\"a\", \"b\"]"),
            (service("retry", "{ on = [\"502\"] }"), "{ on = [\"502\"] }"),
            (service("health.script", "{ send = \"x\" }"), "[{ send = \"x\" }]"),
            (route("host", "a.example,b.example"), "[\"a.example\", \"b.example\"]"),
            (service("eject", "true"), "{  }"),
            (route("host", "a.example"), "\"a.example\""),
            (route("host.regex", "[ab]{1,2}"), "\"[ab]{1,2}\""),
            (route("path", "/a,b"), "\"/a,b\""),
            (route("path.exact", "/a"), "\"/a\""),
            (route("header.X-Canary", "yes"), "\"yes\""),
            (route("priority", "-5"), "-5"),
            (route("method", "[\"GET\"]"), "[\"GET\"]"),
            (route("middleware", "auth"), "\"auth\""),
            (route("middleware", "[{ compress = {} }, \"auth\"]"), "[{ compress = {  } }, \"auth\"]"),
        ] {
            assert_eq!(said.as_deref(), Ok(wanted));
        }
    }

    #[test]
    fn what_is_not_of_the_language_is_told() {
        for (said, why) in [
            (service("helth.path", "/up"), "`helth` is not a key there (did you mean `health`?)"),
            (service("health.pth", "/up"), "`pth` is not a key there (did you mean `path`?)"),
            (service("health.fall", "three"), "`three` is not what is wanted there: a whole number"),
            (service("health.tcp", "yes"), "`yes` is not what is wanted there: `true` or `false`"),
            (service("health", "/up"), "`/up` is not what is wanted there: a table"),
            (route("host", "[\"a\""), "it is not TOML"),
            (route("host", "[\"a\"]\nnext = 1"), "it is more than one value"),
        ] {
            assert!(said.as_ref().is_err_and(|said| said.starts_with(why)), "{said:?}");
        }
    }
}
