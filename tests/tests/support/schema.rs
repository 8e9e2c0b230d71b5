//! Holds an answer against its schema in the OpenAPI document. Stricter than JSON Schema asks: a field that the document
//! doesn't have is a fault too, and so is a keyword that nothing here knows.

use std::collections::BTreeSet;

use serde_json::Value;

/// Says of nothing more than what it is for.
const SILENT: &[&str] = &["description", "format", "minimum", "propertyNames", "example", "title", "default"];

pub struct Schemas<'a> {
    pub document: &'a Value,
}

impl Schemas<'_> {
    /// What is wrong with `value`, and where.
    pub fn faults(&self, schema: &Value, value: &Value, at: &str) -> Vec<String> {
        let mut faults = self.faults_of(schema, value, at);
        if let Some(object) = value.as_object() {
            let known = self.properties(schema, value);
            let open = self.is_open(schema);
            let unknown = object.keys().filter(|key| !open && !known.contains(*key));
            faults.extend(unknown.map(|key| format!("{at}: `{key}` is not in the document")));
        }
        faults
    }

    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(pointer) => {
                let there = self.document.pointer(pointer.trim_start_matches('#'));
                self.resolve(there.unwrap_or_else(|| panic!("{pointer} is not in the document")))
            }
            None => schema,
        }
    }

    fn faults_of(&self, schema: &Value, value: &Value, at: &str) -> Vec<String> {
        let schema = self.resolve(schema);
        let Some(keywords) = schema.as_object() else { return Vec::new() };
        let mut faults = Vec::new();
        for (keyword, wanted) in keywords {
            match keyword.as_str() {
                "type" => {
                    let types = wanted.as_array().cloned().unwrap_or_else(|| vec![wanted.clone()]);
                    if !types.iter().any(|name| is(name.as_str().unwrap_or_default(), value)) {
                        faults.push(format!("{at}: {value} is not {wanted}"));
                    }
                }
                "enum" if !wanted.as_array().is_some_and(|values| values.contains(value)) => {
                    faults.push(format!("{at}: {value} is none of {wanted}"));
                }
                "enum" => {}
                "required" if value.is_object() => {
                    let names = wanted.as_array().into_iter().flatten().filter_map(Value::as_str);
                    let missing = names.filter(|name| value.get(name).is_none());
                    faults.extend(missing.map(|name| format!("{at}: `{name}` is missing")));
                }
                "properties" => {
                    for (name, schema) in wanted.as_object().into_iter().flatten() {
                        if let Some(value) = value.get(name) {
                            faults.extend(self.faults(schema, value, &format!("{at}/{name}")));
                        }
                    }
                }
                "additionalProperties" => {
                    let declared = schema["properties"].as_object();
                    for (name, value) in value.as_object().into_iter().flatten() {
                        if !declared.is_some_and(|declared| declared.contains_key(name)) {
                            faults.extend(self.faults(wanted, value, &format!("{at}/{name}")));
                        }
                    }
                }
                "items" => {
                    for (index, value) in value.as_array().into_iter().flatten().enumerate() {
                        if wanted.is_object() {
                            faults.extend(self.faults(wanted, value, &format!("{at}/{index}")));
                        }
                    }
                }
                "prefixItems" => {
                    let pairs =
                        value.as_array().into_iter().flatten().zip(wanted.as_array().into_iter().flatten());
                    for (index, (value, schema)) in pairs.enumerate() {
                        faults.extend(self.faults(schema, value, &format!("{at}/{index}")));
                    }
                }
                "allOf" => {
                    let all = wanted.as_array().into_iter().flatten();
                    faults.extend(all.flat_map(|schema| self.faults_of(schema, value, at)));
                }
                "oneOf" => {
                    let each = wanted.as_array().into_iter().flatten();
                    let tried: Vec<_> = each.map(|schema| self.faults(schema, value, at)).collect();
                    if tried.iter().filter(|faults| faults.is_empty()).count() != 1 {
                        faults.push(format!("{at}: {value} is not exactly one of {tried:?}"));
                    }
                }
                "required" => {}
                silent if SILENT.contains(&silent) => {}
                other => faults.push(format!("{at}: nothing here knows `{other}`")),
            }
        }
        faults
    }

    /// The fields that an object may have by all parts of its schema.
    fn properties(&self, schema: &Value, value: &Value) -> BTreeSet<String> {
        let schema = self.resolve(schema);
        let own = schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.clone());
        let mut all: BTreeSet<_> = own.collect();
        for part in schema["allOf"].as_array().into_iter().flatten() {
            all.extend(self.properties(part, value));
        }
        for part in schema["oneOf"].as_array().into_iter().flatten() {
            if self.faults_of(part, value, "").is_empty() {
                all.extend(self.properties(part, value));
            }
        }
        all
    }

    /// Whether any field may be there.
    fn is_open(&self, schema: &Value) -> bool {
        let schema = self.resolve(schema);
        schema.get("additionalProperties").is_some()
            || schema
                .as_object()
                .is_some_and(|whole| whole.keys().all(|keyword| SILENT.contains(&keyword.as_str())))
    }
}

fn is(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => false,
    }
}
