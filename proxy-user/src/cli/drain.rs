//! `weir drain` and `weir undrain`

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use crate::{
    admin::status::drains::DrainsDocument,
    cli::{
        Failure,
        admin::{AdminArgs, fleet_knows},
        complain, print,
    },
    config::{self, show_duration},
};

/// How often is looked at who is left.
pub const LOOK: Duration = Duration::from_millis(100);

/// A daemon may take so long to come back.
const RESTARTING: Duration = Duration::from_secs(10);

/// A request that was given to a server in the last moment is counted by then.
pub const SETTLED: Duration = Duration::from_millis(50);

#[derive(Debug, Args)]
pub struct DrainArgs {
    /// Servers as `weir status` names them: SERVICE/ADDRESS:PORT; SERVICE/* is all of them
    #[arg(value_name = "SERVICE/SERVER", required_unless_present = "host")]
    servers: Vec<String>,
    /// This host: `/ping` fails, and clients are told to take their connections elsewhere
    #[arg(long)]
    host: bool,
    /// Return when nobody is left: no request and no upgraded connection (for this host: no connection)
    #[arg(long)]
    wait: bool,
    /// With --wait: how long at most; exit code 1 when somebody is left then
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = config::duration)]
    timeout: Duration,
    /// What it is for, for whoever reads `weir status` later
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    /// Also where it leaves a service without any server that gets work
    #[arg(long)]
    force: bool,
    /// Only at this host: the others of its fleet are told nothing
    #[arg(long)]
    here: bool,
    #[command(flatten)]
    admin: AdminArgs,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct UndrainArgs {
    /// As for `weir drain`; also servers that the configuration has no more
    #[arg(value_name = "SERVICE/SERVER", required_unless_present = "host")]
    servers: Vec<String>,
    /// This host
    #[arg(long)]
    host: bool,
    /// Only at this host: the others of its fleet are told nothing
    #[arg(long)]
    here: bool,
    #[command(flatten)]
    admin: AdminArgs,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

/// What is still under way.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Left {
    /// Of each server that was drained.
    servers: Vec<(String, u32)>,
    /// Open connections, if the host was.
    connections: Option<u32>,
}

pub fn drain(args: &DrainArgs) -> Result<(), Failure> {
    let order = json!({
        "servers": args.servers,
        "host": args.host,
        "force": args.force,
        "who": who(),
        "why": args.why,
        "here": args.here,
    });
    let mut answer = args.admin.order("/api/v1/drain", &order)?;
    let names = texts(&answer["drained"]);
    if !args.json {
        let already = texts(&answer["already"]);
        for name in &names {
            let already = if already.contains(name) { " already" } else { "" };
            print(&format!("{name} is drained{already}: it gets no new work until `weir undrain {name}`\n"))?;
        }
        if args.host {
            let already = if answer["host_already"] == true { " already" } else { "" };
            print(&format!(
                "this host is drained{already}: /ping says so, and connections end after their next answer, until `weir undrain --host`\n"
            ))?;
        }
    }
    if !args.json {
        print(fleet_knows(&answer))?;
    }
    let left = if args.wait { wait(args, &names)? } else { None };
    if args.json {
        answer["left"] = left.as_ref().map_or(Value::Null, Left::json);
        if args.wait {
            answer["empty"] = left.is_none().into();
        }
        print(&format!("{answer}\n"))?;
    }
    match left {
        None => Ok(()),
        Some(left) => Err(Failure::Failed(format!(
            "after {} there is still something under way: {left}. It stays drained, and nothing is cut off",
            show_duration(args.timeout)
        ))),
    }
}

pub fn undrain(args: &UndrainArgs) -> Result<(), Failure> {
    let order = json!({ "servers": args.servers, "host": args.host, "here": args.here });
    let answer = args.admin.order("/api/v1/undrain", &order)?;
    if args.json {
        return print(&format!("{answer}\n"));
    }
    let asking = texts(&answer["still_asking"]);
    for name in texts(&answer["undrained"]) {
        if asking.contains(&name) {
            print(&format!(
                "{name} is not drained by anybody's word any more, but its own health answers ask for it: it gets no work yet\n"
            ))?;
        } else {
            print(&format!("{name} gets work again, as soon as it is well\n"))?;
        }
    }
    for name in texts(&answer["was_not"]) {
        let why = if asking.contains(&name) {
            "its own health answers ask for it, and only they can end that"
        } else {
            "nothing to undo"
        };
        print(&format!("{name} was not drained by anybody's word: {why}\n"))?;
    }
    print(fleet_knows(&answer))?;
    match (args.host, answer["host_was_not"] == true) {
        (true, true) => print("this host was not drained: nothing to undo\n"),
        (true, false) => print("this host takes traffic again\n"),
        (false, _) => Ok(()),
    }
}

/// Looks until nobody is left; who is, when the time is over.
fn wait(args: &DrainArgs, names: &[String]) -> Result<Option<Left>, Failure> {
    let until = Instant::now() + args.timeout;
    std::thread::sleep(SETTLED);
    let mut told = None;
    let mut asked = Asking::new(&args.admin);
    loop {
        let Some(document) = asked.document()? else { continue };
        let left = Left::of(&document, names, args.host);
        if left.is_none() {
            if !args.json {
                print("nobody is left\n")?;
            }
            return Ok(None);
        }
        if Instant::now() >= until {
            return Ok(left);
        }
        if !args.json && left != told {
            complain(&format!("waiting for {}", left.iter().map(ToString::to_string).collect::<String>()));
            told = left;
        }
        std::thread::sleep(LOOK);
    }
}

/// Asks again and again: a daemon that restarts meanwhile is forgiven.
pub struct Asking<'a> {
    admin: &'a AdminArgs,
    unanswered_since: Option<Instant>,
}

impl<'a> Asking<'a> {
    pub fn new(admin: &'a AdminArgs) -> Self {
        Self { admin, unanswered_since: None }
    }

    /// What the daemon says; `None`, a while later: it doesn't answer just now.
    ///
    /// # Errors
    /// When it has not answered for long.
    pub fn document(&mut self) -> Result<Option<DrainsDocument>, Failure> {
        match document(self.admin) {
            Ok(document) => {
                self.unanswered_since = None;
                Ok(Some(document))
            }
            Err(failure) if self.unanswered_since.get_or_insert_with(Instant::now).elapsed() > RESTARTING => {
                Err(failure)
            }
            Err(_) => {
                std::thread::sleep(LOOK);
                Ok(None)
            }
        }
    }
}

/// What the daemon says of drains.
pub fn document(admin: &AdminArgs) -> Result<DrainsDocument, Failure> {
    let (status, body) = admin.get("/api/v1/drains")?;
    if !status.is_success() {
        return Err(Failure::Failed(format!("the daemon answered {status}: is it another version?")));
    }
    serde_json::from_slice(&body).map_err(|error| {
        Failure::Failed(format!("the daemon's answer is not understood ({error}): is it another version?"))
    })
}

/// Who gives the order, as far as the environment knows.
pub fn who() -> Option<String> {
    let named = |name| std::env::var(name).ok().filter(|user| !user.is_empty());
    named("SUDO_USER").or_else(|| named("USER"))
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(ToOwned::to_owned).collect()
}

// === impl Left ===

impl Left {
    fn of(document: &DrainsDocument, names: &[String], host: bool) -> Option<Self> {
        let servers =
            document.servers.iter().map(|one| (format!("{}/{}", one.service, one.server), one.active));
        let servers: Vec<_> = servers.filter(|(name, active)| *active > 0 && names.contains(name)).collect();
        let connections = Some(document.connections).filter(|connections| host && *connections > 0);
        (!servers.is_empty() || connections.is_some()).then_some(Self { servers, connections })
    }

    fn json(&self) -> Value {
        let servers = self.servers.iter().map(|(name, active)| (name.clone(), json!(active)));
        let servers: serde_json::Map<_, _> = servers.collect();
        json!({ "servers": servers, "connections": self.connections })
    }
}

impl std::fmt::Display for Left {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let servers = self.servers.iter().map(|(name, active)| format!("{active} under way at {name}"));
        let host = self.connections.map(|connections| format!("{connections} connections to this host"));
        write!(f, "{}", servers.chain(host).collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::status::drains::ServerWork;

    fn server(service: &str, server: &str, active: u32) -> ServerWork {
        ServerWork {
            service: service.into(),
            server: server.into(),
            status: "up".into(),
            why: String::new(),
            takes_work: false,
            active,
            drain: None,
            asks_to_drain: false,
            rise: None,
            probes: 0,
            good_probes: 0,
        }
    }

    #[test]
    fn only_what_was_drained_is_waited_for() {
        let document = DrainsDocument {
            host: None,
            connections: 7,
            servers: vec![server("app", "a:1", 2), server("app", "b:1", 0), server("old", "a:1", 1)],
            absent: Vec::new(),
        };
        let left = |names: &[&str], host| {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            Left::of(&document, &names, host).map(|left| left.to_string())
        };
        assert_eq!(left(&["app/b:1"], false), None);
        assert_eq!(left(&["app/a:1", "app/b:1"], false).as_deref(), Some("2 under way at app/a:1"));
        assert_eq!(
            left(&["old/a:1"], true).as_deref(),
            Some("1 under way at old/a:1, 7 connections to this host")
        );
    }
}
