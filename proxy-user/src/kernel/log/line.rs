//! A line as the gate writes it: numbers and addresses, in the order in which `proxy-ebpf/src/log.rs` puts them.

use std::net::{IpAddr, Ipv6Addr};

use proxy_common::{log::Outcome, verdict::DropReason};

use crate::kernel::Protocol;

#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    pub outcome: Outcome,
    /// A slot among the names.
    pub entrypoint: usize,
    /// Of what isn't let in.
    pub reason: Option<DropReason>,
    pub interface: u32,
    pub protocol: Option<Protocol>,
    /// With its port, if the gate could tell that.
    pub source: String,
    pub destination: String,
}

/// `None`: it isn't one of this version's.
pub fn parse(text: &str) -> Option<Line> {
    let mut words = text.split(' ');
    let outcome = Outcome::of_number(words.next()?.parse().ok()?)?;
    let entrypoint = words.next()?.parse().ok()?;
    let reason = match (outcome, words.next()?.parse().ok()?) {
        (Outcome::LetIn, _) => None,
        (Outcome::Dropped | Outcome::WouldDrop, reason) => Some(DropReason::of_number(reason)?),
    };
    let interface = words.next()?.parse().ok()?;
    let protocol = Protocol::of_number(words.next()?.parse().ok()?);
    let mut end = || Some(end(words.next()?.parse().ok()?, words.next()?.parse().ok()?));
    let (source, destination) = (end()?, end()?);
    let line = Line { outcome, entrypoint, reason, interface, protocol, source, destination };
    words.next().is_none().then_some(line)
}

fn end(address: Ipv6Addr, port: u16) -> String {
    match (address.to_canonical(), port) {
        (address, 0) => address.to_string(),
        (IpAddr::V4(address), port) => format!("{address}:{port}"),
        (IpAddr::V6(address), port) => format!("[{address}]:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_packet_s_line_is_read() {
        let line = parse("1 3 1 7 6 ::ffff:203.0.113.9 40000 ::ffff:198.51.100.1 443").unwrap();
        let expected = Line {
            outcome: Outcome::Dropped,
            entrypoint: 3,
            reason: Some(DropReason::NotListed),
            interface: 7,
            protocol: Some(Protocol::Tcp),
            source: "203.0.113.9:40000".into(),
            destination: "198.51.100.1:443".into(),
        };
        assert_eq!(line, expected);
    }

    #[test]
    fn what_the_gate_could_not_tell_is_left_out() {
        let line = parse("2 0 2 7 44 2001:db8::9 0 2001:db8::1 0").unwrap();
        assert_eq!((line.source.as_str(), line.destination.as_str()), ("2001:db8::9", "2001:db8::1"));
        assert_eq!((line.outcome, line.protocol), (Outcome::WouldDrop, None));
    }

    #[test]
    fn lines_of_another_version_are_nobody_s() {
        let of_others =
            ["", "1", "9 3 1 7 6 ::1 1 ::1 1", "1 3 99 7 6 ::1 1 ::1 1", "3 3 0 7 6 ::1 1 ::1 1 more"];
        for text in of_others {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
