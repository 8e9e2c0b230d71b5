//! What the check at accept says, where there is no gate to ask: from the configuration.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{
    ExplainArgs, lists,
    question::{self, Target},
};
use crate::{
    cli::{Failure, colour_on_stderr, print},
    config::model::{Config, Entrypoint},
    kernel::Protocol,
    packet::{self, Headers},
};

/// The answer to one packet.
struct Said<'a> {
    headers: Option<Headers>,
    entrypoint: Option<&'a Entrypoint>,
    /// By which list and prefix. `None`: it is turned away, or nobody asks.
    listed: Option<(&'a str, IpNet)>,
}

/// `why`: why there is no gate.
pub fn explain(args: &ExplainArgs, why: &str) -> Result<(), Failure> {
    let config = lists::load(args).map_err(|report| {
        Failure::BadConfig(format!(
            "{why}; what is left to go by is the configuration, and that has faults (`--config` names another):\n{}",
            report.render(colour_on_stderr())
        ))
    })?;
    let config = &config;
    let whose = format!("{} has", args.config().display());
    let questions = question::of(args, &targets(config), &whose)?;
    let said: Vec<_> =
        questions.iter().map(|question| judge(config, packet::parse(&question.frame))).collect();
    if args.json {
        let packets: Vec<Value> = said.iter().map(|said| in_json(config, said)).collect();
        let document = json!({ "judged_by": "configuration", "why": why, "packets": packets });
        return print(&format!("{document}\n"));
    }
    let mut text = format!(
        "No gate judges this: {why}.\nThis is what the check at accept does by {}.\n\n",
        args.config().display()
    );
    for said in &said {
        // Writing to a String can't fail.
        let _ = writeln!(text, "{}", sentence(config, said));
    }
    print(&text)
}

fn targets(config: &Config) -> Vec<Target> {
    config
        .entrypoints
        .iter()
        .flat_map(|entrypoint| {
            entrypoint.bind.iter().map(|address| Target {
                entrypoint: entrypoint.name.to_string(),
                address: *address,
                protocol: Protocol::Tcp,
            })
        })
        .collect()
}

fn judge(config: &Config, headers: Option<Headers>) -> Said<'_> {
    let to = headers.and_then(|headers| Some(SocketAddr::new(headers.destination, headers.ports?.1)));
    let is_tcp = headers.is_some_and(|headers| headers.protocol == packet::TCP);
    let entrypoint = to.filter(|_| is_tcp).and_then(|to| {
        let bound = |exactly: bool| {
            config.entrypoints.iter().find(|entrypoint| {
                entrypoint.bind.iter().any(|bind| *bind == to || (!exactly && stands_for(*bind, to)))
            })
        };
        // As sockets do: an address that is named comes before a wildcard.
        bound(true).or_else(|| bound(false))
    });
    let source = headers.map(|headers| headers.source);
    let listed = entrypoint.zip(source).and_then(|(entrypoint, source)| listed(config, entrypoint, source));
    Said { headers, entrypoint, listed }
}

fn stands_for(bind: SocketAddr, to: SocketAddr) -> bool {
    bind.ip().is_unspecified() && bind.is_ipv4() == to.is_ipv4() && bind.port() == to.port()
}

fn listed<'a>(config: &'a Config, entrypoint: &Entrypoint, source: IpAddr) -> Option<(&'a str, IpNet)> {
    let lists = entrypoint.allow.iter().map(|list| &config.allowlists[list.0]);
    let prefixes = lists.flat_map(|list| list.prefixes.iter().map(|prefix| (&*list.name, *prefix)));
    prefixes.filter(|(_, prefix)| prefix.contains(&source)).max_by_key(|(_, prefix)| prefix.prefix_len())
}

fn sentence(config: &Config, said: &Said<'_>) -> String {
    let Some(headers) = said.headers else {
        return "It is neither IPv4 nor IPv6: no entrypoint sees it.".into();
    };
    let title = format!("{} → {} {}", headers.from(), headers.to(), headers.protocol_name());
    let Some(entrypoint) = said.entrypoint else {
        return format!("{title}: no entrypoint listens there.");
    };
    let name = &entrypoint.name;
    match said.listed {
        Some((list, prefix)) => {
            format!("{title}: let in at entrypoint `{name}` by {prefix}, of the allowlist `{list}`.")
        }
        None if entrypoint.allow.is_empty() => {
            format!("{title}: let in; entrypoint `{name}` lets in everybody.")
        }
        None => {
            let lists: Vec<_> =
                entrypoint.allow.iter().map(|list| &*config.allowlists[list.0].name).collect();
            format!(
                "{title}: the connection is made and turned away at once; the source is on none of the lists that \
                 entrypoint `{name}` allows ({}).",
                lists.join(", ")
            )
        }
    }
}

fn in_json(config: &Config, said: &Said<'_>) -> Value {
    let let_in = said.entrypoint.map(|entrypoint| entrypoint.allow.is_empty() || said.listed.is_some());
    json!({
        "from": said.headers.map(|headers| headers.from()),
        "to": said.headers.map(|headers| headers.to()),
        "protocol": said.headers.map(|headers| headers.protocol_name()),
        "entrypoint": said.entrypoint.map(|entrypoint| &*entrypoint.name),
        "verdict": let_in.map(|let_in| if let_in { "pass" } else { "drop" }),
        "allows": said.entrypoint.map(|entrypoint| {
            entrypoint.allow.iter().map(|list| &*config.allowlists[list.0].name).collect::<Vec<_>>()
        }),
        "list": said.listed.map(|(list, _)| list),
        "prefix": said.listed.map(|(_, prefix)| prefix),
    })
}
