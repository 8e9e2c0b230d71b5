//! Packets with checksums: written from what they say, and read back by a parser of its own that believes none of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMP: u8 = 1;
pub const ICMPV6: u8 = 58;

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

/// What a packet says. Of UDP, only ends and payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wire {
    pub source: (IpAddr, u16),
    pub destination: (IpAddr, u16),
    pub protocol: u8,
    pub hops: u8,
    /// Of IPv4.
    pub ip_options: Vec<u8>,
    pub flags: u8,
    pub sequence: u32,
    pub acknowledges: u32,
    pub tcp_options: Vec<u8>,
    pub payload: Vec<u8>,
    /// UDP over IPv4 may go without.
    pub checksum: bool,
}

/// An ICMP error, and the beginning of the packet that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub hops: u8,
    pub kind: u8,
    pub code: u8,
    pub rest: [u8; 4],
    pub quoted: Vec<u8>,
}

pub fn end(text: &str) -> (IpAddr, u16) {
    let address: std::net::SocketAddr = text.parse().unwrap();
    (address.ip(), address.port())
}

pub fn tcp(source: &str, destination: &str, flags: u8) -> Wire {
    Wire {
        source: end(source),
        destination: end(destination),
        protocol: TCP,
        hops: 64,
        ip_options: Vec::new(),
        flags,
        sequence: 1000,
        acknowledges: if flags & ACK == 0 { 0 } else { 2000 },
        tcp_options: Vec::new(),
        payload: Vec::new(),
        checksum: true,
    }
}

pub fn udp(source: &str, destination: &str, payload: &[u8]) -> Wire {
    Wire { protocol: UDP, sequence: 0, payload: payload.to_vec(), ..tcp(source, destination, 0) }
}

impl Wire {
    pub fn frame(&self) -> Vec<u8> {
        let packet = self.packet();
        framed(matches!(self.source.0, IpAddr::V6(_)), &packet)
    }

    /// From the IP header on.
    pub fn packet(&self) -> Vec<u8> {
        let mut transport = Vec::new();
        transport.extend(self.source.1.to_be_bytes());
        transport.extend(self.destination.1.to_be_bytes());
        let at = if self.protocol == TCP {
            transport.extend(self.sequence.to_be_bytes());
            transport.extend(self.acknowledges.to_be_bytes());
            transport.extend([
                ((20 + self.tcp_options.len()) / 4 * 16) as u8,
                self.flags,
                0x10,
                0,
                0,
                0,
                0,
                0,
            ]);
            transport.extend(&self.tcp_options);
            16
        } else {
            transport.extend(((8 + self.payload.len()) as u16).to_be_bytes());
            transport.extend([0, 0]);
            6
        };
        transport.extend(&self.payload);
        if self.checksum {
            let mut sum = !folded(
                &[
                    pseudo(self.source.0, self.destination.0, self.protocol, transport.len()),
                    transport.clone(),
                ]
                .concat(),
            );
            if sum == 0 && self.protocol == UDP {
                sum = 0xffff;
            }
            transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        ip(self.source.0, self.destination.0, self.protocol, self.hops, &self.ip_options, &transport)
    }

    pub fn read(frame: &[u8]) -> Self {
        let (header, transport) = opened(frame);
        assert!(header.protocol == TCP || header.protocol == UDP, "{header:?}");
        let word = |at: usize| u32::from_be_bytes(transport[at..at + 4].try_into().unwrap());
        let half = |at: usize| u16::from_be_bytes(transport[at..at + 2].try_into().unwrap());
        let is_tcp = header.protocol == TCP;
        let checksum = is_tcp || half(6) != 0;
        if checksum {
            let pseudo = pseudo(header.source, header.destination, header.protocol, transport.len());
            assert_eq!(folded(&[pseudo, transport.to_vec()].concat()), 0xffff, "the checksum of {header:?}");
        }
        let headers = if is_tcp { usize::from(transport[12] >> 4) * 4 } else { 8 };
        Self {
            source: (header.source, half(0)),
            destination: (header.destination, half(2)),
            protocol: header.protocol,
            hops: header.hops,
            ip_options: header.options,
            flags: if is_tcp { transport[13] } else { 0 },
            sequence: if is_tcp { word(4) } else { 0 },
            acknowledges: if is_tcp { word(8) } else { 0 },
            tcp_options: if is_tcp { transport[20..headers].to_vec() } else { Vec::new() },
            payload: transport[headers..].to_vec(),
            checksum,
        }
    }

    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

impl Error {
    pub fn frame(&self) -> Vec<u8> {
        let is_v6 = matches!(self.source, IpAddr::V6(_));
        let mut message = vec![self.kind, self.code, 0, 0];
        message.extend(self.rest);
        message.extend(&self.quoted);
        let sum = !folded(&[self.pseudo(message.len()), message.clone()].concat());
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let protocol = if is_v6 { ICMPV6 } else { ICMP };
        framed(is_v6, &ip(self.source, self.destination, protocol, self.hops, &[], &message))
    }

    pub fn read(frame: &[u8]) -> Self {
        let (header, message) = opened(frame);
        assert!(header.protocol == ICMP || header.protocol == ICMPV6, "{header:?}");
        let error = Self {
            source: header.source,
            destination: header.destination,
            hops: header.hops,
            kind: message[0],
            code: message[1],
            rest: message[4..8].try_into().unwrap(),
            quoted: message[8..].to_vec(),
        };
        assert_eq!(folded(&[error.pseudo(message.len()), message.to_vec()].concat()), 0xffff, "{error:?}");
        error
    }

    fn pseudo(&self, length: usize) -> Vec<u8> {
        match self.source {
            IpAddr::V4(_) => Vec::new(),
            IpAddr::V6(_) => pseudo(self.source, self.destination, ICMPV6, length),
        }
    }
}

#[derive(Debug)]
struct Header {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    hops: u8,
    options: Vec<u8>,
}

fn framed(is_v6: bool, packet: &[u8]) -> Vec<u8> {
    let ether_type = if is_v6 { [0x86, 0xdd] } else { [0x08, 0x00] };
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..], &ether_type, packet].concat()
}

fn ip(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    hops: u8,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let header = 20 + options.len();
            let mut packet = vec![0x40 | (header / 4) as u8, 0];
            packet.extend(((header + payload.len()) as u16).to_be_bytes());
            packet.extend([0x12, 0x34, 0x40, 0, hops, protocol, 0, 0]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
            packet.extend(options);
            let sum = !folded(&packet);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            packet.extend(payload);
            packet
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut packet = vec![0x60, 0, 0, 0];
            packet.extend((payload.len() as u16).to_be_bytes());
            packet.extend([protocol, hops]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
            packet.extend(payload);
            packet
        }
        _ => panic!("two families"),
    }
}

/// Checks the IP header, and gives what it says and what is behind it.
fn opened(frame: &[u8]) -> (Header, &[u8]) {
    let packet = &frame[14..];
    if frame[12..14] == [0x08, 0x00] {
        let length = usize::from(packet[0] & 15) * 4;
        assert_eq!(packet[0] >> 4, 4);
        assert_eq!(folded(&packet[..length]), 0xffff, "the checksum of an IPv4 header");
        assert_eq!(
            usize::from(u16::from_be_bytes([packet[2], packet[3]])),
            packet.len(),
            "the length in an IPv4 header"
        );
        let address = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap()).into();
        let header = Header {
            source: address(12),
            destination: address(16),
            protocol: packet[9],
            hops: packet[8],
            options: packet[20..length].to_vec(),
        };
        return (header, &packet[length..]);
    }
    assert_eq!((&frame[12..14], packet[0] >> 4), (&[0x86, 0xdd][..], 6));
    assert_eq!(
        usize::from(u16::from_be_bytes([packet[4], packet[5]])) + 40,
        packet.len(),
        "the length in an IPv6 header"
    );
    let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).unwrap()).into();
    let header = Header {
        source: address(8),
        destination: address(24),
        protocol: packet[6],
        hops: packet[7],
        options: Vec::new(),
    };
    (header, &packet[40..])
}

fn pseudo(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let mut bytes = [octets(source), octets(destination)].concat();
    bytes.extend((length as u32).to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes
}

/// The one's complement sum over 16-bit words.
fn folded(bytes: &[u8]) -> u16 {
    let mut sum: u64 =
        bytes.chunks(2).map(|of| u64::from(of[0]) << 8 | u64::from(*of.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
