//! What is asked: packets, made up or given.

use std::net::{IpAddr, SocketAddr};

use super::ExplainArgs;
use crate::{cli::Failure, kernel::explain::SHORTEST, packet, packet::capture};

/// One packet to explain.
pub struct Question {
    pub frame: Vec<u8>,
    /// Only its beginning is known.
    pub cut: bool,
}

/// Where an address could connect to: an entrypoint's name and one of its addresses.
pub struct Target {
    pub entrypoint: String,
    pub address: SocketAddr,
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
            .map(|to| Ok(Question { frame: packet::syn(source, to).map_err(bad)?, cut: false }))
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

/// One address for each entrypoint that is meant.
fn addresses(
    args: &ExplainArgs,
    source: IpAddr,
    targets: &[Target],
    whose: &str,
) -> Result<Vec<SocketAddr>, Failure> {
    if let Some(to) = args.to {
        return Ok(vec![to]);
    }
    let family = if source.is_ipv4() { "IPv4" } else { "IPv6" };
    let mut names: Vec<&str> = Vec::new();
    let mut addresses = Vec::new();
    let meant = |target: &&Target| args.entrypoint.as_ref().is_none_or(|name| *name == target.entrypoint);
    for target in targets.iter().filter(meant) {
        if target.address.is_ipv4() == source.is_ipv4() && !names.contains(&&*target.entrypoint) {
            names.push(&target.entrypoint);
            addresses.push(target.address);
        }
    }
    if !addresses.is_empty() {
        return Ok(addresses);
    }
    let mut known: Vec<&str> = targets.iter().map(|target| &*target.entrypoint).collect();
    known.dedup();
    Err(bad(match &args.entrypoint {
        Some(name) if known.contains(&&**name) => {
            format!("entrypoint `{name}` has no {family} address, so {source} can't reach it")
        }
        Some(name) if known.is_empty() => format!("{whose} no entrypoint, so none named `{name}`"),
        Some(name) => format!(
            "{whose} no entrypoint `{name}`, but {}; one without `allow` lets in everybody",
            known.join(", ")
        ),
        None => {
            format!("{whose} no entrypoint that {source} could reach; `--to ADDR:PORT` asks for any address")
        }
    }))
}

fn bad(sentence: impl std::fmt::Display) -> Failure {
    Failure::BadConfig(format!("error: {sentence}"))
}
