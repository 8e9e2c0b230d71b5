//! Reads a SYN-ACK as a careful client would: every length, every checksum.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub struct Answer {
    /// What is between the addresses of stations and the IP header.
    pub tags: Vec<u8>,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub source_port: u16,
    pub destination_port: u16,
    pub sequence: u32,
    pub acknowledgement: u32,
    pub flags: u8,
    pub mss: Option<u16>,
}

impl Answer {
    pub fn parse(frame: &[u8]) -> Result<Self, String> {
        let mut at = 12;
        while matches!(number(frame, at)?, 0x8100 | 0x88a8) {
            at += 4;
        }
        let kind = number(frame, at)?;
        at += 2;
        let tags = frame[12..at].to_vec();
        let packet = &frame[at..];
        let (source, destination, segment, mut pseudo) = match kind {
            0x0800 => v4(packet)?,
            0x86dd => v6(packet)?,
            other => return Err(format!("type {other:x}")),
        };
        let padding = frame.len() - at - (segment.as_ptr().addr() - packet.as_ptr().addr()) - segment.len();
        if padding > 0 && frame.len() > 60 {
            return Err(format!("{padding} bytes behind the packet"));
        }
        pseudo.extend(segment);
        if checksum(&pseudo) != 0 {
            return Err("the TCP checksum is wrong".into());
        }
        let header = usize::from(segment[12] >> 4) * 4;
        if header != segment.len() {
            return Err(format!("a header of {header} bytes in a segment of {}", segment.len()));
        }
        let mss = match &segment[20..] {
            [] => None,
            [2, 4, high, low] => Some(u16::from_be_bytes([*high, *low])),
            other => return Err(format!("options {other:x?}")),
        };
        if number(segment, 14)? < 1000 || segment[18..20] != [0, 0] {
            return Err("no window to speak of, or urgent data".into());
        }
        Ok(Self {
            tags,
            source,
            destination,
            source_port: number(segment, 0)?,
            destination_port: number(segment, 2)?,
            sequence: u32::from_be_bytes(segment[4..8].try_into().unwrap()),
            acknowledgement: u32::from_be_bytes(segment[8..12].try_into().unwrap()),
            flags: segment[13],
            mss,
        })
    }
}

/// Addresses, what is in the packet, and the pseudo-header of its checksum.
type Read<'a> = (IpAddr, IpAddr, &'a [u8], Vec<u8>);

fn v4(packet: &[u8]) -> Result<Read<'_>, String> {
    let length = usize::from(number(packet, 2)?);
    let header = packet.get(..20).ok_or("no IPv4 header")?;
    if header[0] != 0x45 || checksum(header) != 0 {
        return Err("the IPv4 header is none, or its checksum is wrong".into());
    }
    if header[6..8] != [0x40, 0] || header[8] < 32 || header[9] != 6 {
        return Err("a fragment, about to die, or not TCP".into());
    }
    let segment = packet.get(20..length).ok_or("it ends before its length")?;
    let address = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&header[at..at + 4]).unwrap()).into();
    let mut pseudo = header[12..20].to_vec();
    pseudo.extend([0, 6]);
    pseudo.extend((segment.len() as u16).to_be_bytes());
    Ok((address(12), address(16), segment, pseudo))
}

fn v6(packet: &[u8]) -> Result<Read<'_>, String> {
    let header = packet.get(..40).ok_or("no IPv6 header")?;
    if header[..4] != [0x60, 0, 0, 0] || header[6] != 6 || header[7] < 32 {
        return Err("the IPv6 header is none, not TCP's, or about to die".into());
    }
    let length = usize::from(number(header, 4)?);
    let segment = packet.get(40..40 + length).ok_or("it ends before its length")?;
    let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&header[at..at + 16]).unwrap()).into();
    let mut pseudo = header[8..40].to_vec();
    pseudo.extend((segment.len() as u32).to_be_bytes());
    pseudo.extend([0, 0, 0, 6]);
    Ok((address(8), address(24), segment, pseudo))
}

fn number(bytes: &[u8], at: usize) -> Result<u16, String> {
    let two = bytes.get(at..at + 2).ok_or("it ends early")?;
    Ok(u16::from_be_bytes([two[0], two[1]]))
}

/// 0 over what carries the right one.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u64;
    for two in bytes.chunks(2) {
        sum += u64::from(two[0]) << 8 | u64::from(*two.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
