//! What is asked: packets, made up or given.

use std::net::{IpAddr, SocketAddr};

use super::ExplainArgs;
use crate::{
    cli::Failure,
    kernel::{Protocol, explain::SHORTEST},
    packet,
    packet::capture,
};

/// One packet to explain.
pub struct Question {
    pub frame: Vec<u8>,
    /// Only its beginning is known.
    pub cut: bool,
}

/// Where an address could connect to: an entrypoint's name and one of its addresses, and by what.
pub struct Target {
    pub entrypoint: String,
    pub address: SocketAddr,
    pub protocol: Protocol,
}

/// The packets that the arguments ask for. `targets`: what is guarded; `whose` says where that was learnt.
pub fn of(args: &ExplainArgs, targets: &[Target], whose: &str) -> Result<Vec<Question>, Failure> {
    let questions = if let Some(hex) = &args.packet {
        let frame = packet::from_hex(hex).map_err(|why| bad(format!("--packet: {why}")))?;
        vec![Question { frame, cut: false }]
    } else if let Some(path) = &args.pcap {
        let file = std::fs::read(path)
            .map_err(|error| Failure::Failed(format!("can't read {}: {error}", path.display())))?;
        let packets = capture::read(&file, args.packets)
            .map_err(|why| Failure::Failed(format!("{} can't be understood: {why}", path.display())))?;
        packets.into_iter().map(|packet| Question { frame: packet.frame, cut: packet.cut }).collect()
    } else {
        let source = args.what.as_deref().and_then(|what| what.parse().ok());
        let source: IpAddr = source.ok_or_else(|| bad("an address, --packet or --pcap is wanted"))?;
        addresses(args, source.to_canonical(), targets, whose)?
            .into_iter()
            .map(|(to, protocol)| {
                let frame = match protocol {
                    Protocol::Tcp => packet::syn(source, to),
                    Protocol::Udp => packet::datagram(source, to),
                };
                Ok(Question { frame: frame.map_err(bad)?, cut: false })
            })
            .collect::<Result<_, Failure>>()?
    };
    match questions.iter().find(|question| question.frame.len() < SHORTEST) {
        Some(short) => Err(bad(format!(
            "a packet begins with an Ethernet header of {SHORTEST} bytes; this has {} altogether",
            short.frame.len()
        ))),
        None => Ok(questions),
    }
}

/// One address for each entrypoint that is meant, and each protocol that it takes.
fn addresses(
    args: &ExplainArgs,
    source: IpAddr,
    targets: &[Target],
    whose: &str,
) -> Result<Vec<(SocketAddr, Protocol)>, Failure> {
    if let Some(to) = args.to {
        return Ok(vec![(to, if args.udp { Protocol::Udp } else { Protocol::Tcp })]);
    }
    let family = if source.is_ipv4() { "IPv4" } else { "IPv6" };
    let targets: Vec<&Target> =
        targets.iter().filter(|target| !args.udp || target.protocol == Protocol::Udp).collect();
    let mut names: Vec<(&str, Protocol)> = Vec::new();
    let mut addresses = Vec::new();
    let meant = |target: &&&Target| args.entrypoint.as_ref().is_none_or(|name| *name == target.entrypoint);
    for target in targets.iter().filter(meant) {
        let name = (&*target.entrypoint, target.protocol);
        if target.address.is_ipv4() == source.is_ipv4() && !names.contains(&name) {
            names.push(name);
            addresses.push((target.address, target.protocol));
        }
    }
    if !addresses.is_empty() {
        return Ok(addresses);
    }
    let mut known: Vec<&str> = targets.iter().map(|target| &*target.entrypoint).collect();
    known.dedup();
    let udp = if args.udp { " for UDP" } else { "" };
    Err(bad(match &args.entrypoint {
        Some(name) if known.contains(&&**name) => {
            format!("entrypoint `{name}` has no {family} address{udp}, so {source} can't reach it")
        }
        Some(name) if known.is_empty() => format!("{whose} no entrypoint{udp}, so none named `{name}`"),
        Some(name) => format!(
            "{whose} no entrypoint `{name}`{udp}, but {}; one without `allow` lets in everybody",
            known.join(", ")
        ),
        None => {
            format!(
                "{whose} no entrypoint that {source} could reach{udp}; `--to ADDR:PORT` asks for any address"
            )
        }
    }))
}

fn bad(sentence: impl std::fmt::Display) -> Failure {
    Failure::BadConfig(format!("error: {sentence}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ExplainArgs,
    }

    /// What is asked, as `destination protocol`; or why nothing can be.
    fn asked(line: &str) -> Result<Vec<String>, String> {
        let target = |entrypoint: &str, address: &str, protocol| Target {
            entrypoint: entrypoint.to_owned(),
            address: address.parse().unwrap(),
            protocol,
        };
        let targets = [
            target("web", "198.51.100.1:443", Protocol::Tcp),
            target("web", "198.51.100.2:443", Protocol::Tcp),
            target("web", "198.51.100.1:443", Protocol::Udp),
            target("mail", "198.51.100.1:25", Protocol::Tcp),
        ];
        let line = Line::try_parse_from(["explain"].into_iter().chain(line.split(' '))).unwrap();
        match of(&line.args, &targets, "the gate guards") {
            Ok(questions) => Ok(questions
                .iter()
                .map(|question| {
                    let headers = packet::parse(&question.frame).unwrap();
                    format!("{} {}", headers.to(), headers.protocol_name())
                })
                .collect()),
            Err(Failure::BadConfig(why) | Failure::Failed(why)) => Err(why),
        }
    }

    #[test]
    fn an_entrypoint_is_asked_about_by_all_that_it_takes() {
        for (line, questions) in [
            ("203.0.113.9", &["198.51.100.1:443 tcp", "198.51.100.1:443 udp", "198.51.100.1:25 tcp"][..]),
            ("203.0.113.9 --entrypoint web", &["198.51.100.1:443 tcp", "198.51.100.1:443 udp"]),
            ("203.0.113.9 --udp", &["198.51.100.1:443 udp"]),
            ("203.0.113.9 --to 192.0.2.1:53", &["192.0.2.1:53 tcp"]),
            ("203.0.113.9 --to 192.0.2.1:53 --udp", &["192.0.2.1:53 udp"]),
        ] {
            assert_eq!(asked(line).unwrap(), questions, "{line}");
        }
    }

    #[test]
    fn what_takes_no_udp_is_said_to_take_none() {
        let why = asked("203.0.113.9 --udp --entrypoint mail").unwrap_err();
        assert!(why.contains("the gate guards no entrypoint `mail` for UDP, but web"), "{why}");
    }
}
