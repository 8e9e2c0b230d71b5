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
        self.then(&[0, 100]).then(&ether_type.to_be_bytes())
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

    pub fn then(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn is_shorter_than_its_ip_header(&self) -> bool {
        match self.0[12..14] {
            [0x08, 0x00] => self.0.len() < 14 + 20,
            [0x86, 0xdd] => self.0.len() < 14 + 40,
            _ => false,
        }
    }

    /// Ends `less` bytes early.
    pub fn cut(mut self, less: usize) -> Self {
        self.0.truncate(self.0.len() - less);
        self
    }
}
