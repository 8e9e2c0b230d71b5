//! What a frame is.

use proxy_common::{
    flow::{FlowKey, Segment},
    scope::{TCP, UDP},
};

use super::{Address, Fault, NETWORK, Packet, Quote, Seen, TRANSPORT_V6, octets};
use crate::{
    frame::{Frame, TooShort, read},
    headers::{Ethernet, Icmp, Ipv4, Ipv6, Ports, Tcp, Udp, ether_type, extension},
};

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Looks at a frame. What it finds is written to `packet` or `quote`: a result that carried either along would be copied
/// several times over.
#[inline(always)]
pub fn look(frame: &impl Frame, packet: &mut Packet, quote: &mut Quote) -> Seen {
    let Ok(ethernet) = read::<Ethernet>(frame, 0) else { return Seen::Short };
    let seen = match ethernet.ether_type() {
        ether_type::IPV4 => ipv4(frame, packet, quote),
        ether_type::IPV6 => ipv6(frame, packet, quote),
        _ => Ok(Seen::Other),
    };
    seen.unwrap_or(Seen::Short)
}

#[inline(always)]
fn ipv4(frame: &impl Frame, packet: &mut Packet, quote: &mut Quote) -> Result<Seen, TooShort> {
    let ip: &Ipv4 = read(frame, NETWORK)?;
    let header = ip.length();
    if ip.version() != 4 || header < size_of::<Ipv4>() || ip.is_later_fragment() {
        return Ok(Seen::Other);
    }
    let length = ip.total_length();
    let transport = NETWORK + header;
    let (source, destination) = (mapped(ip.source.read()), mapped(ip.destination.read()));
    let fragment = ip.has_more_fragments();
    if !is_one_v4(source) {
        return Ok(Seen::Other);
    }
    match ip.protocol {
        protocol @ (TCP | UDP) => {
            packet.is_v6 = false;
            packet.hops = ip.hops;
            packet.length = told(length);
            whole(frame, packet, Whole { source, destination, protocol, transport, header, length, fragment })
        }
        ICMP if !fragment => {
            quote.is_v6 = false;
            quote.hops = ip.hops;
            quote.from = source;
            quote.icmp = transport;
            quoted_v4(frame, quote, destination, length.saturating_sub(header))
        }
        _ => Ok(Seen::Other),
    }
}

#[inline(always)]
fn ipv6(frame: &impl Frame, packet: &mut Packet, quote: &mut Quote) -> Result<Seen, TooShort> {
    const HEADER: usize = size_of::<Ipv6>();
    let ip: &Ipv6 = read(frame, NETWORK)?;
    if ip.version() != 6 {
        return Ok(Seen::Other);
    }
    let length = ip.payload_length().saturating_add(HEADER);
    let (source, destination) = (ip.source.read(), ip.destination.read());
    // Such a destination would be taken for IPv4's. The stack throws both away.
    if !is_one_v6(source) || is_mapped(destination) {
        return Ok(Seen::Other);
    }
    match ip.next_header {
        protocol @ (TCP | UDP) => {
            packet.is_v6 = true;
            packet.hops = ip.hops;
            packet.length = told(length);
            let whole_v6 = Whole {
                source,
                destination,
                protocol,
                transport: TRANSPORT_V6,
                header: HEADER,
                length,
                fragment: false,
            };
            whole(frame, packet, whole_v6)
        }
        ICMPV6 => {
            quote.is_v6 = true;
            quote.hops = ip.hops;
            quote.from = source;
            quote.icmp = TRANSPORT_V6;
            quoted_v6(frame, quote, destination, length - HEADER)
        }
        extension::FRAGMENT => first_fragment_v6(frame, packet, source, destination),
        _ => Ok(Seen::Other),
    }
}

/// The first of several fragments has ports, by which it is known whose it is, and refused.
#[inline(always)]
fn first_fragment_v6(
    frame: &impl Frame,
    packet: &mut Packet,
    source: Address,
    destination: Address,
) -> Result<Seen, TooShort> {
    use crate::headers::Ipv6Fragment;
    let fragment: &Ipv6Fragment = read(frame, TRANSPORT_V6)?;
    let protocol = fragment.next_header;
    if fragment.is_later_fragment() || (protocol != TCP && protocol != UDP) {
        return Ok(Seen::Other);
    }
    let transport = TRANSPORT_V6 + size_of::<Ipv6Fragment>();
    let ports: &Ports = read(frame, transport)?;
    packet.is_v6 = true;
    packet.transport = transport;
    packet.fault = Fault::Fragment;
    packet.key = key(source, destination, ports, protocol);
    Ok(Seen::Packet)
}

#[derive(Clone, Copy)]
struct Whole {
    source: Address,
    destination: Address,
    protocol: u8,
    transport: usize,
    /// How long the IP header is, and all that it tells of.
    header: usize,
    length: usize,
    fragment: bool,
}

#[inline(always)]
fn whole(frame: &impl Frame, packet: &mut Packet, of: Whole) -> Result<Seen, TooShort> {
    let Whole { source, destination, protocol, transport, header, length, fragment } = of;
    // What lies behind the packet's own end is padding.
    if header + size_of::<Ports>() > length {
        return Ok(Seen::Other);
    }
    let ports: &Ports = read(frame, transport)?;
    packet.key = key(source, destination, ports, protocol);
    packet.transport = transport;
    packet.fault = Fault::None;
    if fragment {
        packet.fault = Fault::Fragment;
        return Ok(Seen::Packet);
    }
    if protocol == UDP {
        packet.headers = header + size_of::<Udp>();
        if packet.headers > length {
            packet.fault = Fault::Malformed;
        } else {
            // All of it has to be there to be changed.
            let _: &Udp = read(frame, transport)?;
        }
        return Ok(Seen::Packet);
    }
    if header + size_of::<Tcp>() > length {
        packet.fault = Fault::Malformed;
        return Ok(Seen::Packet);
    }
    let tcp: &Tcp = read(frame, transport)?;
    let headers = header + tcp.length();
    if tcp.length() < size_of::<Tcp>() || headers > length {
        packet.fault = Fault::Malformed;
        return Ok(Seen::Packet);
    }
    packet.headers = headers;
    let flags = tcp.flags();
    let has = |flag| flags & flag != 0;
    let (syn, fin) = (has(Tcp::SYN), has(Tcp::FIN));
    // Where the IP header doesn't tell, no FIN comes with so much: then nobody asks.
    let payload = if told(length) == 0 { 0 } else { (length - headers) as u32 };
    let counted = payload + u32::from(syn) + u32::from(fin);
    packet.segment = Segment {
        syn,
        ack: has(Tcp::ACK),
        fin,
        rst: has(Tcp::RST),
        end: tcp.sequence().wrapping_add(counted),
        acknowledges: tcp.acknowledges(),
    };
    Ok(Seen::Packet)
}

/// `to`: whom the error is sent to. `length`: of the ICMP message.
#[inline(always)]
fn quoted_v4(frame: &impl Frame, quote: &mut Quote, to: Address, length: usize) -> Result<Seen, TooShort> {
    let icmp: &Icmp = read(frame, quote.icmp)?;
    // Unreachable (and too big), time exceeded, a parameter's problem.
    if !matches!(icmp.kind, 3 | 11 | 12) {
        return Ok(Seen::Other);
    }
    let network = quote.icmp + size_of::<Icmp>();
    let ip: &Ipv4 = read(frame, network)?;
    let header = ip.length();
    if ip.version() != 4 || header < size_of::<Ipv4>() || ip.is_later_fragment() {
        return Ok(Seen::Other);
    }
    if size_of::<Icmp>() + header + size_of::<Udp>() > length {
        return Ok(Seen::Other);
    }
    let (source, destination) = (mapped(ip.source.read()), mapped(ip.destination.read()));
    quoted(
        frame,
        quote,
        Quoted { network, transport: network + header, protocol: ip.protocol, source, destination, to },
    )
}

#[inline(always)]
fn quoted_v6(frame: &impl Frame, quote: &mut Quote, to: Address, length: usize) -> Result<Seen, TooShort> {
    let icmp: &Icmp = read(frame, quote.icmp)?;
    // Unreachable, too big, time exceeded, a parameter's problem.
    if !matches!(icmp.kind, 1..=4) {
        return Ok(Seen::Other);
    }
    let network = quote.icmp + size_of::<Icmp>();
    let ip: &Ipv6 = read(frame, network)?;
    if ip.version() != 6 || size_of::<Icmp>() + size_of::<Ipv6>() + size_of::<Udp>() > length {
        return Ok(Seen::Other);
    }
    let (source, destination) = (ip.source.read(), ip.destination.read());
    let transport = network + size_of::<Ipv6>();
    quoted(frame, quote, Quoted { network, transport, protocol: ip.next_header, source, destination, to })
}

/// The packet that an error is about.
#[derive(Clone, Copy)]
struct Quoted {
    network: usize,
    transport: usize,
    protocol: u8,
    source: Address,
    destination: Address,
    to: Address,
}

#[inline(always)]
fn quoted(frame: &impl Frame, quote: &mut Quote, of: Quoted) -> Result<Seen, TooShort> {
    let Quoted { network, transport, protocol, source, destination, to } = of;
    // Errors go to whom the packet came from; anything else is forged.
    if (protocol != TCP && protocol != UDP) || to != source {
        return Ok(Seen::Other);
    }
    let udp: &Udp = read(frame, transport)?;
    let ports: &Ports = read(frame, transport)?;
    quote.network = network;
    quote.transport = transport;
    quote.checksum = if protocol == UDP { udp.checksum() } else { 0 };
    quote.key = FlowKey {
        source: octets(destination),
        destination: octets(source),
        source_port: ports.destination(),
        destination_port: ports.source(),
        protocol: protocol.into(),
        reserved: 0,
    };
    Ok(Seen::Error)
}

#[inline(always)]
fn key(source: Address, destination: Address, ports: &Ports, protocol: u8) -> FlowKey {
    FlowKey {
        source: octets(source),
        destination: octets(destination),
        source_port: ports.source(),
        destination_port: ports.destination(),
        protocol: protocol.into(),
        reserved: 0,
    }
}

/// 0 where the header tells nothing.
#[inline(always)]
fn told(length: usize) -> usize {
    const LONGEST: usize = u16::MAX as usize + size_of::<Ipv6>();
    if length > LONGEST { 0 } else { length }
}

/// In front of an IPv4 address in its IPv6 form.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

#[inline(always)]
fn mapped([address]: [u32; 1]) -> Address {
    [0, 0, MAPPED, address]
}

/// Whether an address can be one other host's. What comes from anywhere else, the stack throws away.
#[inline(always)]
fn is_one_v4(source: Address) -> bool {
    const LOOPBACK: u8 = 127;
    const MULTICAST: u8 = 224;
    let [first, ..] = source[3].to_ne_bytes();
    first != 0 && first != LOOPBACK && first < MULTICAST
}

/// As [`is_one_v4`].
#[inline(always)]
fn is_one_v6(source: Address) -> bool {
    const MULTICAST: u8 = 0xff;
    let [first, ..] = source[0].to_ne_bytes();
    // What begins with zeros is nobody, ourselves, or IPv4 in disguise.
    first != MULTICAST && (source[0] | source[1]) != 0
}

/// Whether an address is IPv4's.
#[inline(always)]
#[must_use]
pub fn is_mapped([first, second, third, _]: Address) -> bool {
    first | second == 0 && third == MAPPED
}
