//! Values and names of TOML on one line, for texts that Weir itself writes: what it imports, and what it makes of things
//! that it discovers.

use std::fmt::Write as _;

use toml::Value;

/// On one line: text is written with escapes in the place of its line breaks.
#[must_use]
pub fn line_of(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(line_of).collect::<Vec<_>>().join(", "))
        }
        Value::Table(table) => {
            let keys: Vec<_> =
                table.iter().map(|(key, value)| format!("{} = {}", bare(key), line_of(value))).collect();
            format!("{{ {} }}", keys.join(", "))
        }
        other => other.to_string(),
    }
}

#[must_use]
pub fn bare(key: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
    if !key.is_empty() && key.chars().all(plain) { key.to_owned() } else { quoted(key) }
}

/// As TOML's basic string.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            letter if letter.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(letter));
            }
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}
