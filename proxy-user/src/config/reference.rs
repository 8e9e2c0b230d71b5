//! The reference for operators, generated from the schema and the codes: what `docs/configuration.md` holds below its
//! guide. It can't say anything else than what Weir does.

use std::{fmt::Write as _, io, path::Path};

use serde_json::Value;

use super::{code::Code, schema};

/// Where the generated part of `configuration.md` begins. It goes on to the end of the file.
const MARK: &str = "<!-- Generated from here on: `cargo xtask docs` writes it anew. -->\n";

/// Writes what is generated into the folder `docs`: the schema, and the reference below the guide.
///
/// # Errors
/// When a file can't be read or written.
pub fn write_docs(docs: &Path) -> io::Result<()> {
    std::fs::write(docs.join("weir.schema.json"), schema::schema())?;
    let page = docs.join("configuration.md");
    let guide = std::fs::read_to_string(&page)?;
    std::fs::write(page, with_reference(&guide))
}

/// `configuration.md` with its guide as it is, and the reference as it should be.
#[must_use]
pub fn with_reference(page: &str) -> String {
    let guide = page.split(MARK).next().unwrap_or_default().trim_end();
    format!("{guide}\n\n{MARK}\n{}", reference_markdown())
}

/// The sections, in the order in which an operator meets them; and how each is written.
const SECTIONS: &[(&str, &str)] = &[
    ("kernel", "[kernel]"),
    ("admin", "[admin]"),
    ("log", "[log]"),
    ("process", "[process]"),
    ("access_log", "[access_log.NAME]"),
    ("tracing", "[tracing]"),
    ("metrics", "[metrics]"),
    ("shutdown", "[shutdown]"),
    ("upgrade", "[upgrade]"),
    ("state", "[state]"),
    ("provider", "[provider.NAME]"),
    ("fleet", "[fleet]"),
    ("host", "[host]"),
    ("dns", "[dns]"),
    ("acme", "[acme]"),
    ("allowlist", "[allowlist.NAME]"),
    ("entrypoint", "[entrypoint.NAME]"),
    ("service", "[service.NAME]"),
    ("page", "[page.NAME]"),
    ("maintenance", "[[maintenance]]"),
    ("middleware", "[middleware.NAME]"),
    ("route", "[[route]]"),
];

/// Markdown: every section and key, then every code.
#[must_use]
pub fn reference_markdown() -> String {
    let mut text = String::from("## Reference\n\n");
    let root = &schema::root()["properties"];
    for (name, title) in SECTIONS {
        let section = &root[*name];
        let _ = write!(text, "### `{title}`\n\n{}\n\n", paragraph(section));
        let body = match (section.get("additionalProperties"), section.get("items")) {
            (Some(named), _) if named.is_object() => named,
            (_, Some(items)) => items,
            _ => section,
        };
        keys(&mut text, "", body);
        text.push('\n');
    }
    codes(&mut text);
    text
}

/// One item for each key; tables within tables by their dotted path.
fn keys(text: &mut String, above: &str, section: &Value) {
    let required = section["required"].as_array().map_or(&[][..], Vec::as_slice);
    for (key, schema) in section["properties"].as_object().into_iter().flatten() {
        let path = if above.is_empty() { key.clone() } else { format!("{above}.{key}") };
        let mut facts = vec![kind(schema)];
        if required.iter().any(|name| name == key) {
            facts.push("required".to_owned());
        }
        if let Some(default) = schema.get("default") {
            facts.push(format!("default `{default}`"));
        }
        if let (Some(least), Some(most)) = (schema["minimum"].as_u64(), schema["maximum"].as_u64()) {
            facts.push(format!("{least} to {most}"));
        }
        let _ = writeln!(text, "- **`{path}`** ({}): {}", facts.join(", "), paragraph(schema));
        for choice in schema["oneOf"].as_array().into_iter().flatten() {
            let word = choice["const"].as_str().unwrap_or_default();
            let _ = writeln!(text, "  - `\"{word}\"`: {}", paragraph(choice));
        }
        if let Some(example) = schema["examples"].get(0) {
            let _ = writeln!(text, "  Example: `{key} = {example}`");
        }
        match schema.get("additionalProperties").filter(|named| named.is_object()) {
            Some(named) => keys(text, &format!("{path}.NAME"), named),
            None => keys(text, &path, schema),
        }
        for alternative in schema["anyOf"].as_array().into_iter().flatten() {
            keys(text, &path, alternative);
        }
    }
}

fn kind(schema: &Value) -> String {
    if schema["oneOf"].is_array() {
        return "one of these words".to_owned();
    }
    if let Some(alternatives) = schema["anyOf"].as_array() {
        let kind = |schema: &Value| match (schema["type"].as_str(), schema["items"]["type"].as_str()) {
            (Some("array"), Some("string")) => "list of strings".to_owned(),
            (Some("array"), _) => "list of them".to_owned(),
            _ => kind(schema),
        };
        let kinds: Vec<_> = alternatives.iter().map(kind).collect();
        return match kinds.as_slice() {
            [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
            _ => kinds.concat(),
        };
    }
    match schema["type"].as_str() {
        Some("object") => "table",
        Some("integer") => "whole number",
        Some("array") => "list",
        Some("boolean") => "`true` or `false`",
        Some(other) => other,
        None => "value",
    }
    .to_owned()
}

fn paragraph(schema: &Value) -> String {
    schema["description"].as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn codes(text: &mut String) {
    text.push_str("## Codes\n\nEvery error and warning has a number that stays its own. `weir explain W012` prints the same text.\n\n");
    for code in Code::ALL {
        let _ = write!(text, "### {code}: {}\n\n{}\n\n", code.title(), code.explanation());
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
}
