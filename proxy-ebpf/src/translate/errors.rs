//! ICMP errors about what was sent on: whoever sent it is told, and not this host, which has no such connection.
//!
//! An error comes to the edge, as the sender of the packet that it is about. It goes on as one about the packet that came in:
//! outside it gets the ends of the other connection, inside the packet has its old ends and its old number, since nobody
//! believes an error about a number that they haven't sent.

use aya_ebpf::{helpers::bpf_redirect_neigh, programs::TcContext};
use proxy_common::translate::{FlowKey, stage};
use proxy_ebpf::{
    forward::{
        Ends, NETWORK,
        checksum::Difference,
        quote,
        rewrite::{Edit, Part, Refused},
        words,
    },
    frame::{Frame, read},
    headers::{Ethernet, Ipv4, Ipv6, ether_type},
};

use super::{Loss, Passage, TRANSLATE_FLOWS, is_watched, tally};
use crate::passthrough::{self, Skb};

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// Of an ICMP header.
const CHECKSUM: usize = 2;
/// Of a TCP header: within the eight bytes that every error quotes.
const SEQUENCE: usize = 4;

#[inline(always)]
pub fn translate(ctx: &TcContext) -> Passage {
    // 1. Is it about a packet of a flow of ours?
    let skb = Skb::of(ctx);
    if !is_icmp(ctx) || !skb.is_for_us() || skb.is_of_a_vlan() {
        return Passage::Stays;
    }
    let Some(quote) = passthrough::quoted(ctx).filter(|quote| quote.key.is_tcp()) else {
        return Passage::Stays;
    };
    let [a, b] = quote.key.source_port.to_be_bytes();
    let [c, d] = quote.key.destination_port.to_be_bytes();
    let key = FlowKey { source: quote.key.source, destination: quote.key.destination, ports: [a, b, c, d] };
    if !is_watched(&key) {
        return Passage::Stays;
    }
    let Some(flow) = TRANSLATE_FLOWS.get_ptr(&key) else { return Passage::Stays };
    // SAFETY: an element of a map, which isn't given back to the system while this program runs.
    let flow = unsafe { &*flow };
    if flow.stage != stage::JOINED {
        return Passage::Stays;
    }
    if quote.hops <= 1 {
        return Passage::Dropped(Loss::Expired);
    }

    // 2. The packet that it is about was the other direction's, whose numbers are shifted as this one's acknowledgements are.
    let [e, f, g, h] = flow.ports;
    let (own, other) = (words(flow.source), words(flow.destination));
    let (own_port, other_port) = (u16::from_be_bytes([e, f]), u16::from_be_bytes([g, h]));
    let outside = Ends { source: own, destination: other, ..Ends::default() };
    let about = Ends { source: other, destination: own, source_port: other_port, destination_port: own_port };
    let mut edit = skb;
    let mut sequence = 0_u32;
    let changed = skb.load(quote.transport + SEQUENCE, &mut sequence).and_then(|()| {
        let becomes = u32::from_be(sequence).wrapping_add(flow.acknowledgement).to_be();
        edit.store(quote.transport + SEQUENCE, &becomes)?;
        edit.checksum(quote.icmp + CHECKSUM, Difference::word(sequence, becomes), Part::Message, false)?;
        quote::translate(&mut edit, quote, &outside, &about)
    });
    if changed == Err(Refused) {
        return Passage::Dropped(Loss::Unreadable);
    }
    if let Some(tally) = tally() {
        tally.errors += 1;
    }

    // 3. Out, as its flow's packets.
    // SAFETY: the kernel looks the neighbour up itself when it is given none.
    Passage::Leaves(unsafe { bpf_redirect_neigh(flow.interface, core::ptr::null_mut(), 0, 0) } as i32)
}

/// Most packets that are no TCP are none of these either, and nothing more is asked of them.
#[inline(always)]
fn is_icmp(ctx: &impl Frame) -> bool {
    let Ok(ethernet) = read::<Ethernet>(ctx, 0) else { return false };
    match ethernet.ether_type() {
        ether_type::IPV4 => read::<Ipv4>(ctx, NETWORK).is_ok_and(|ip| ip.protocol == ICMP),
        ether_type::IPV6 => read::<Ipv6>(ctx, NETWORK).is_ok_and(|ip| ip.next_header == ICMPV6),
        _ => false,
    }
}
