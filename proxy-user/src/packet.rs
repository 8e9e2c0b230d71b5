//! Packets as people speak of them: taken apart, to say who sends to whom, and put together, to ask what the gate would
//! do. Nothing here decides anything: the gate has eyes of its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub mod capture;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const PROVIDER_VLAN: u16 = 0x88a8;

/// The port that a made-up packet comes from.
const SOURCE_PORT: u16 = 40_000;
const SYN: u8 = 0x02;

/// Who sends to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    /// Source and destination. `None`: not TCP or UDP, a later fragment, or cut off.
    pub ports: Option<(u16, u16)>,
}

/// Takes a frame apart. `None`: it is neither IPv4 nor IPv6, or ends before its addresses.
#[must_use]
pub fn parse(frame: &[u8]) -> Option<Headers> {
    let mut ether_type = u16_at(frame, 12)?;
    let mut offset = 14;
    while matches!(ether_type, VLAN | PROVIDER_VLAN) && offset < 14 + 2 * 4 {
        ether_type = u16_at(frame, offset + 2)?;
        offset += 4;
    }
    match ether_type {
        IPV4 => parse_v4(frame.get(offset..)?),
        IPV6 => parse_v6(frame.get(offset..)?),
        _ => None,
    }
}

/// A TCP SYN as it would arrive. Checksums are left at zero: the gate reads none.
///
/// # Errors
/// When the addresses are of different families.
pub fn syn(source: IpAddr, to: SocketAddr) -> Result<Vec<u8>, String> {
    made_up(source, to, TCP, &[0, 0, 0, 1, 0, 0, 0, 0, 0x50, SYN, 0xff, 0xff, 0, 0, 0, 0])
}

/// A UDP datagram with nothing in it, likewise.
///
/// # Errors
/// When the addresses are of different families.
pub fn datagram(source: IpAddr, to: SocketAddr) -> Result<Vec<u8>, String> {
    made_up(source, to, UDP, &[0, 8, 0, 0])
}

/// `behind_ports`: the rest of the transport header.
fn made_up(source: IpAddr, to: SocketAddr, protocol: u8, behind_ports: &[u8]) -> Result<Vec<u8>, String> {
    // Never more than a TCP header.
    let length = 4 + behind_ports.len() as u8;
    let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
    match (source.to_canonical(), to.ip().to_canonical()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.extend(IPV4.to_be_bytes());
            frame.extend([0x45, 0, 0, 20 + length, 0, 1, 0x40, 0, 64, protocol, 0, 0]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            frame.extend(IPV6.to_be_bytes());
            frame.extend([0x60, 0, 0, 0, 0, length, protocol, 64]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        (source, destination) => {
            return Err(format!("{source} can't send to {destination}: one is IPv4 and the other is IPv6"));
        }
    }
    frame.extend(SOURCE_PORT.to_be_bytes());
    frame.extend(to.port().to_be_bytes());
    frame.extend(behind_ports);
    Ok(frame)
}

/// A frame written in hexadecimal digits; blanks and colons between them are nothing.
///
/// # Errors
/// With what is wrong about it.
pub fn from_hex(text: &str) -> Result<Vec<u8>, String> {
    let text = text.trim();
    let text = text.strip_prefix("0x").unwrap_or(text);
    let mut digits = Vec::new();
    for character in text.chars().filter(|character| !character.is_whitespace() && *character != ':') {
        let digit = character.to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        digits.push(digit.ok_or_else(|| format!("`{character}` is no hexadecimal digit"))?);
    }
    if digits.len() % 2 != 0 {
        return Err(format!("{} hexadecimal digits are not whole bytes", digits.len()));
    }
    Ok(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

fn parse_v4(packet: &[u8]) -> Option<Headers> {
    let address = |at: usize| packet.get(at..at + 4)?.first_chunk().copied().map(Ipv4Addr::from);
    let (source, destination) = (address(12)?, address(16)?);
    let protocol = packet[9];
    let is_later_fragment = u16_at(packet, 6)? & 0x1fff != 0;
    let header = usize::from(packet[0] & 0x0f) * 4;
    let ports = if is_later_fragment || header < 20 { None } else { ports(packet, protocol, header) };
    Some(Headers { source: source.into(), destination: destination.into(), protocol, ports })
}

fn parse_v6(packet: &[u8]) -> Option<Headers> {
    let address = |at: usize| packet.get(at..at + 16)?.first_chunk().copied().map(Ipv6Addr::from);
    let (source, destination) = (address(8)?, address(24)?);
    let (protocol, offset) = behind_extensions(packet);
    let ports = offset.and_then(|offset| ports(packet, protocol, offset));
    Some(Headers { source: source.into(), destination: destination.into(), protocol, ports })
}

/// The transport protocol and where its header begins, if it is there.
fn behind_extensions(packet: &[u8]) -> (u8, Option<usize>) {
    let (mut next, mut offset) = (packet[6], 40);
    loop {
        let (Some(&following), Some(&length)) = (packet.get(offset), packet.get(offset + 1)) else {
            return (next, None);
        };
        let length = usize::from(length);
        let skip = match next {
            0 | 43 | 60 | 135 | 139 | 140 => (length + 1) * 8,
            51 => (length + 2) * 4,
            44 if u16_at(packet, offset + 2).is_some_and(|fragment| fragment & 0xfff8 == 0) => 8,
            44 => return (following, None),
            _ => return (next, Some(offset)),
        };
        next = following;
        offset += skip;
    }
}

fn ports(packet: &[u8], protocol: u8, offset: usize) -> Option<(u16, u16)> {
    if !matches!(protocol, TCP | UDP) {
        return None;
    }
    Some((u16_at(packet, offset)?, u16_at(packet, offset + 2)?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}

// === impl Headers ===

impl Headers {
    /// `tcp`, `udp`, or the number.
    #[must_use]
    pub fn protocol_name(&self) -> String {
        match self.protocol {
            TCP => "tcp".into(),
            UDP => "udp".into(),
            1 => "icmp".into(),
            58 => "icmpv6".into(),
            other => format!("protocol {other}"),
        }
    }

    /// The source, with its port if there is one.
    #[must_use]
    pub fn from(&self) -> String {
        with_port(self.source, self.ports.map(|(source, _)| source))
    }

    /// The destination, with its port if there is one.
    #[must_use]
    pub fn to(&self) -> String {
        with_port(self.destination, self.ports.map(|(_, destination)| destination))
    }
}

fn with_port(address: IpAddr, port: Option<u16>) -> String {
    port.map_or_else(|| address.to_string(), |port| SocketAddr::new(address, port).to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_put_together_is_taken_apart_again() {
        for (source, to) in
            [("203.0.113.9", "198.51.100.1:443"), ("2001:db8:bad::9", "[2001:db8:ed9e::1]:8443")]
        {
            let (source, to): (IpAddr, SocketAddr) = (source.parse().unwrap(), to.parse().unwrap());
            for (frame, protocol) in [(syn(source, to), TCP), (datagram(source, to), UDP)] {
                let headers = parse(&frame.unwrap()).unwrap();
                assert_eq!(headers.from(), SocketAddr::new(source, 40_000).to_string());
                assert_eq!((headers.to(), headers.protocol), (to.to_string(), protocol));
            }
        }
    }

    #[test]
    fn families_do_not_mix_but_ipv4_in_ipv6_clothes_is_ipv4() {
        let to = "198.51.100.1:443".parse().unwrap();
        let fault = syn("2001:db8::1".parse().unwrap(), to).unwrap_err();
        assert_eq!(fault, "2001:db8::1 can't send to 198.51.100.1: one is IPv4 and the other is IPv6");
        let headers = parse(&syn("::ffff:203.0.113.9".parse().unwrap(), to).unwrap()).unwrap();
        assert_eq!(headers.source.to_string(), "203.0.113.9");
    }

    #[test]
    fn hexadecimal_is_read_as_tcpdump_and_people_write_it() {
        assert_eq!(from_hex("0xDEad"), Ok(vec![0xde, 0xad]));
        assert_eq!(from_hex("de:ad be\n ef"), Ok(vec![0xde, 0xad, 0xbe, 0xef]));
        assert_eq!(from_hex("abc"), Err("3 hexadecimal digits are not whole bytes".into()));
        assert_eq!(from_hex("xy"), Err("`x` is no hexadecimal digit".into()));
    }

    #[test]
    fn ports_behind_a_vlan_tag_options_and_extension_headers_are_found() {
        let mut tagged = syn("203.0.113.9".parse().unwrap(), "198.51.100.1:443".parse().unwrap()).unwrap();
        tagged.splice(12..12, [0x81, 0, 0, 100]);
        assert_eq!(parse(&tagged).unwrap().ports, Some((40_000, 443)));

        let mut extended = syn("2001:db8::9".parse().unwrap(), "[2001:db8::1]:443".parse().unwrap()).unwrap();
        extended[14 + 6] = 60;
        extended.splice(54..54, [TCP, 0, 1, 4, 0, 0, 0, 0]);
        assert_eq!(parse(&extended).unwrap().ports, Some((40_000, 443)));
    }

    #[test]
    fn a_later_fragment_has_no_ports() {
        let mut frame = syn("203.0.113.9".parse().unwrap(), "198.51.100.1:443".parse().unwrap()).unwrap();
        frame[14 + 7] = 1;
        assert_eq!(parse(&frame).unwrap().ports, None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(frame in proptest::collection::vec(any::<u8>(), 0..200), tail in 0..200_usize) {
            let _ = parse(&frame);
            let mut whole = syn("2001:db8::9".parse().unwrap(), "[2001:db8::1]:443".parse().unwrap()).unwrap();
            whole[20] = frame.first().copied().unwrap_or_default();
            whole.truncate(tail);
            whole.extend(frame);
            let _ = parse(&whole);
        }
    }
}
