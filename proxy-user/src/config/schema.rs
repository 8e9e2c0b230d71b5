//! The JSON Schema of a configuration file, generated from [`super::written`]. It is also what [`super::parse`] holds
//! a file against: an editor and Weir agree on what may be written.

use std::sync::LazyLock;

use schemars::{Schema, generate::SchemaSettings, transform::transform_subschemas};
use serde_json::Value;

use super::written::Written;

/// As it is published in `docs/weir.schema.json`.
#[must_use]
pub fn schema() -> String {
    let mut text = serde_json::to_string_pretty(root()).unwrap_or_default();
    text.push('\n');
    text
}

/// Without references, so that it can be followed key by key.
pub(crate) fn root() -> &'static Value {
    static ROOT: LazyLock<Value> = LazyLock::new(|| {
        let settings = SchemaSettings::draft07()
            .with(|settings| settings.inline_subschemas = true)
            .with_transform(for_toml);
        let mut schema = settings.into_generator().into_root_schema_for::<Written>();
        schema.insert("title".into(), "Weir's configuration".into());
        schema.to_value()
    });
    &ROOT
}

/// Makes the schema one of TOML, which has no null: an optional key is one that may be left out.
fn for_toml(schema: &mut Schema) {
    if let Some(object) = schema.as_object_mut() {
        if let Some(Value::Array(types)) = object.get_mut("type") {
            types.retain(|name| name != "null");
            if let [only] = types.as_slice() {
                let only = only.clone();
                object.insert("type".into(), only);
            }
        }
        if let Some(Value::Array(alternatives)) = object.get_mut("anyOf") {
            alternatives.retain(|alternative| alternative["type"] != "null");
            if let [Value::Object(only)] = alternatives.as_slice() {
                let only = only.clone();
                object.remove("anyOf");
                for (key, value) in only {
                    // What is said of the key is more to the point than what is said of its type.
                    object.entry(key).or_insert(value);
                }
            }
        }
        // Doc comments are broken into lines for their source, not for readers of the schema.
        if let Some(Value::String(text)) = object.get_mut("description") {
            *text = text.replace('\n', " ");
        }
        if object.get("default") == Some(&Value::Null) {
            object.remove("default");
        }
    }
    transform_subschemas(&mut for_toml, schema);
}
