//! Packets, put together from their headers.

#![allow(dead_code, reason = "each test binary uses its part of it")]
#![allow(clippy::unwrap_used, reason = "this is test code, outside of a test function")]

use std::net::{Ipv4Addr, Ipv6Addr};

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

#[derive(Clone, Default)]
pub struct Packet(pub Vec<u8>);

/// Ethernet with a source and destination that nobody has, and this type.
pub fn ethernet(ether_type: u16) -> Packet {
    let mut bytes = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
    bytes.extend(ether_type.to_be_bytes());
    Packet(bytes)
}

/// An IPv4 header behind Ethernet.
pub fn ipv4(source: &str, destination: &str, protocol: u8) -> Packet {
    ethernet(0x0800).ipv4(source, destination, protocol, &[], 0)
}

pub fn ipv6(source: &str, destination: &str, next_header: u8) -> Packet {
    ethernet(0x86dd).ipv6(source, destination, next_header)
}

impl Packet {
    pub fn vlan(self, ether_type: u16) -> Self {
        self.tag(100, ether_type)
    }

    /// A VLAN's number, and what follows.
    pub fn tag(self, number: u16, ether_type: u16) -> Self {
        self.then(&number.to_be_bytes()).then(&ether_type.to_be_bytes())
    }

    pub fn ipv4(self, source: &str, destination: &str, protocol: u8, options: &[u8], fragment: u16) -> Self {
        let length = 0x45 + (options.len() / 4) as u8;
        let address = |text: &str| text.parse::<Ipv4Addr>().unwrap().octets();
        self.then(&[length, 0, 0, 40, 0, 1])
            .then(&fragment.to_be_bytes())
            .then(&[64, protocol, 0, 0])
            .then(&address(source))
            .then(&address(destination))
            .then(options)
    }

    pub fn ipv6(self, source: &str, destination: &str, next_header: u8) -> Self {
        let address = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
        self.then(&[0x60, 0, 0, 0, 0, 20, next_header, 64]).then(&address(source)).then(&address(destination))
    }

    /// An extension header of `units` times 8 bytes.
    pub fn extension(self, next_header: u8, units: u8) -> Self {
        let rest = vec![0; usize::from(units) * 8 - 2];
        self.then(&[next_header, units - 1]).then(&rest)
    }

    /// An authentication header of `words` times 4 bytes.
    pub fn authentication(self, next_header: u8, words: u8) -> Self {
        let rest = vec![0; usize::from(words) * 4 - 2];
        self.then(&[next_header, words - 2]).then(&rest)
    }

    /// An IPv6 fragment header; `offset` in units of 8 bytes.
    pub fn fragment(self, next_header: u8, offset: u16, more: bool) -> Self {
        let offset = (offset << 3) | u16::from(more);
        self.then(&[next_header, 0]).then(&offset.to_be_bytes()).then(&[0, 0, 0, 1])
    }

    pub fn tcp(self, port: u16, flags: u8) -> Self {
        self.then(&40_000_u16.to_be_bytes())
            .then(&port.to_be_bytes())
            .then(&[0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0])
    }

    pub fn udp(self, port: u16) -> Self {
        self.then(&40_000_u16.to_be_bytes()).then(&port.to_be_bytes()).then(&[0, 8, 0, 0])
    }

    /// More of the packet: the IP header's own idea of its length grows with it.
    pub fn then(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        let length = self.0.len().saturating_sub(self.ip());
        self.with_ip_length(length)
    }

    /// More bytes in the frame that the IP header knows nothing of.
    pub fn padded(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Has the IP header say that it and what follows are so long.
    pub fn with_ip_length(mut self, length: usize) -> Self {
        let ip = self.ip();
        match (self.ether_type(), self.0.len().saturating_sub(ip)) {
            (0x0800, 20..) => self.0[ip + 2..ip + 4].copy_from_slice(&(length as u16).to_be_bytes()),
            (0x86dd, 40..) => {
                self.0[ip + 4..ip + 6].copy_from_slice(&(length as u16).saturating_sub(40).to_be_bytes());
            }
            _ => {}
        }
        self
    }

    /// Has the IPv4 header say that it is so many words long.
    pub fn with_header_words(mut self, words: u8) -> Self {
        let ip = self.ip();
        self.0[ip] = 0x40 | words;
        self
    }

    pub fn is_shorter_than_its_ip_header(&self) -> bool {
        match self.0[12..14] {
            [0x08, 0x00] => self.0.len() < 14 + 20,
            [0x86, 0xdd] => self.0.len() < 14 + 40,
            _ => false,
        }
    }

    /// Where the IP header begins, or would.
    fn ip(&self) -> usize {
        let is_tag = |at: &usize| matches!(self.0.get(*at..*at + 2), Some([0x81, 0x00] | [0x88, 0xa8]));
        14 + 4 * (12..).step_by(4).take_while(is_tag).count()
    }

    fn ether_type(&self) -> u16 {
        let at = self.ip() - 2;
        self.0.get(at..at + 2).map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// Ends `less` bytes early.
    pub fn cut(mut self, less: usize) -> Self {
        self.0.truncate(self.0.len() - less);
        self
    }
}
