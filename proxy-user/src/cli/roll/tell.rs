//! What a roll says while it goes on: lines for people, or one JSON object a line.

use serde_json::{Value, json};

use super::plan::{Plan, filled};
use crate::cli::{Failure, complain, print};

/// Tells from all threads.
#[derive(Debug)]
pub struct Teller {
    json: bool,
}

impl Teller {
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Something has happened to `what`. An empty text is for machines only.
    pub fn event(&self, event: &str, what: &str, facts: &Value, text: impl FnOnce() -> String) {
        // Whoever reads may have gone away; the roll goes on, and its exit code tells.
        let _ = if self.json {
            let mut line = json!({ "event": event, "what": what, "at": jiff::Timestamp::now().to_string() });
            if let (Some(line), Some(facts)) = (line.as_object_mut(), facts.as_object()) {
                line.extend(facts.clone());
            }
            print(&format!("{line}\n"))
        } else {
            match text() {
                text if text.is_empty() => Ok(()),
                text => print(&format!("{what}: {text}\n")),
            }
        };
    }

    /// For the person at the terminal alone.
    pub fn remark(&self, text: &str) {
        complain(text);
    }

    /// What would be done.
    pub fn plan(&self, plan: &Plan, service: &str, command: &[String]) -> Result<(), Failure> {
        for (index, batch) in plan.batches.iter().enumerate() {
            for server in &batch.servers {
                let name = format!("{service}/{}", server.name);
                let words = filled(command, service, &server.name);
                if self.json {
                    let line = json!({
                        "event": "planned", "what": name, "batch": index + 1, "command": words,
                        "stays_drained": server.stays_drained,
                    });
                    print(&format!("{line}\n"))?;
                } else {
                    let stays = if server.stays_drained { ", and leave it drained" } else { "" };
                    print(&format!("{}. {name}: drain, run `{}`{stays}\n", index + 1, words.join(" ")))?;
                }
            }
        }
        Ok(())
    }
}
