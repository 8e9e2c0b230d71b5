//! A valid configuration as text, key by key, with every default and without secrets: what the admin API shows of what runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    diff,
    model::{Condition, Config},
};

/// A section of the configuration, as it is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Section {
    /// `entrypoint`, `service`, `kernel` …
    pub section: String,
    /// Empty for a section without names.
    pub name: String,
    /// Values as text.
    pub keys: BTreeMap<String, String>,
}

pub fn sections(config: &Config) -> Vec<Section> {
    let things = diff::things(config).into_iter();
    things
        .map(|((section, name), keys)| Section {
            section: section.to_owned(),
            name,
            keys: keys.into_iter().map(|(key, value)| (key.to_owned(), hidden(value))).collect(),
        })
        .collect()
}

/// Of a secret not even whether it is another one: that would help to guess a poor one.
fn hidden(value: String) -> String {
    if value.starts_with("a secret (") { "a secret".to_owned() } else { value }
}

/// A route's condition in words.
pub fn condition(config: &Config, condition: &Condition) -> String {
    diff::shown(config, condition)
}
