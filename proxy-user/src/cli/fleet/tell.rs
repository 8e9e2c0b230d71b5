//! What a push says while it goes on: lines for people, or one JSON object a line.

use serde_json::json;

use crate::{
    cli::{Failure, print},
    fleet::{now, wait::Told},
    store::layout::Current,
};

pub struct Teller {
    pub json: bool,
}

impl Teller {
    pub fn decided(&self, current: &Current, done: &str) -> Result<(), Failure> {
        if self.json {
            let line = json!({
                "event": "decided",
                "generation": current.generation,
                "previous": current.previous,
                "digest": current.digest,
                "canary": current.canary,
                "confirm_within_seconds": current.confirm_by.map(|by| (by - now()) as f64 / 1000.0),
            });
            return print(&format!("{line}\n"));
        }
        print(&format!("generation {}: {done}\n", current.generation))?;
        if let Some(by) = current.confirm_by {
            let left = (by - now()) / 1000;
            print(&format!(
                "on trial: the hosts go back to {} in {left} s, unless you say `weir fleet confirm`\n",
                current.previous
            ))?;
        }
        if !current.canary.is_empty() {
            let hosts = current.canary.join(", ");
            print(&format!(
                "only for {hosts}: `weir fleet promote` gives it to all, `weir rollback {}` takes it away\n",
                current.previous
            ))?;
        }
        Ok(())
    }

    /// Whoever reads may have gone away; the push goes on, and the exit code tells.
    pub fn told(&self, told: &Told<'_>) {
        let _ = match (told, self.json) {
            (Told::Runs { host }, true) => print(&format!("{}\n", json!({ "event": "runs", "host": host }))),
            (Told::Runs { host }, false) => print(&format!("{host}: runs it\n")),
            (Told::Promoted, true) => print(&format!("{}\n", json!({ "event": "promoted" }))),
            (Told::Promoted, false) => print("well there: given to all hosts\n"),
        };
    }

    pub fn ended(&self, current: &Current) -> Result<(), Failure> {
        if self.json {
            return print(&format!("{}\n", json!({ "event": "done", "generation": current.generation })));
        }
        print(&format!("generation {} runs everywhere\n", current.generation))
    }
}

/// Who gives this command: for the history.
pub fn author() -> String {
    let user = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let user = user.filter(|user| !user.is_empty()).unwrap_or_else(|| nix::unistd::getuid().to_string());
    match host {
        Some(host) => format!("{user}@{host}"),
        None => user,
    }
}
