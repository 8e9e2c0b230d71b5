//! Where further configuration comes from, for people.

use std::fmt::Write as _;

use super::indented;
use crate::admin::status::providers::ProviderStatus;

/// A line for each provider, and more where something is wrong.
pub fn lines(providers: &[ProviderStatus]) -> String {
    let mut text = String::new();
    for one in providers {
        let count = match one.documents {
            1 => "1 document".to_owned(),
            many => format!("{many} documents"),
        };
        let revision = one.revision.as_ref().map(|revision| format!(" at {revision}")).unwrap_or_default();
        let age = one.age_seconds.map(|age| format!(", confirmed {age} s ago")).unwrap_or_default();
        let state = match (&one.error, one.state.as_str()) {
            (Some(why), _) => format!("AWAY since {}: {why}", one.since.as_deref().unwrap_or_default()),
            (None, state) => state.to_owned(),
        };
        // Writing to a String can't fail.
        let _ = writeln!(text, "provider `{}` ({}): {count}{revision}{age}; {state}", one.name, one.kind);
        for fault in &one.faults {
            let _ = writeln!(text, "  FAULTY: {}\n{}", fault.sentence, indented(&indented(&fault.why)));
        }
        for conflict in &one.conflicts {
            let _ = writeln!(text, "  {conflict}");
        }
    }
    text
}
