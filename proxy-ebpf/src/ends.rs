//! Who sends a packet to whom, for a line in a log. The gate has judged it already, and better: here nothing is decided, so a
//! port behind extension headers is just not told.

use proxy_common::scope::{TCP, UDP};

use crate::{
    frame::{Frame, read},
    gate::{Source, Tagged, UNKNOWN_SOURCE, behind_tags, mapped},
    headers::{Ipv4, Ipv6, Ports, Tcp, ether_type},
};

/// What can't be told is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    pub source: Source,
    pub destination: Source,
    pub protocol: u8,
    pub source_port: u16,
    pub destination_port: u16,
    /// It asks for a connection.
    pub opens: bool,
}

const UNKNOWN: Ends = Ends {
    source: UNKNOWN_SOURCE,
    destination: UNKNOWN_SOURCE,
    protocol: 0,
    source_port: 0,
    destination_port: 0,
    opens: false,
};

#[inline(always)]
pub fn ends(frame: &impl Frame) -> Ends {
    let Ok(Tagged { ether_type, offset, .. }) = behind_tags(frame) else { return UNKNOWN };
    let (ends, transport) = match ether_type {
        ether_type::IPV4 => {
            let Ok(ip) = read::<Ipv4>(frame, offset) else { return UNKNOWN };
            let (source, destination) = (mapped(ip.source.read()), mapped(ip.destination.read()));
            let ends = Ends { source, destination, protocol: ip.protocol, ..UNKNOWN };
            if ip.is_later_fragment() || ip.length() < size_of::<Ipv4>() {
                return ends;
            }
            (ends, offset + ip.length())
        }
        ether_type::IPV6 => {
            let Ok(ip) = read::<Ipv6>(frame, offset) else { return UNKNOWN };
            let (source, destination) = (ip.source.read(), ip.destination.read());
            (Ends { source, destination, protocol: ip.next_header, ..UNKNOWN }, offset + size_of::<Ipv6>())
        }
        _ => return UNKNOWN,
    };
    if ends.protocol != TCP && ends.protocol != UDP {
        return ends;
    }
    let Ok(ports) = read::<Ports>(frame, transport) else { return ends };
    let opens = ends.protocol == TCP
        && read::<Tcp>(frame, transport).is_ok_and(|tcp| tcp.flags() & (Tcp::SYN | Tcp::ACK) == Tcp::SYN);
    Ends { source_port: ports.source(), destination_port: ports.destination(), opens, ..ends }
}
