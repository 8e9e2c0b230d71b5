//! What a packet's sender is told instead: that its connection is gone, or how long a packet may be. The answer takes the
//! packet's place and goes back where it came from.

use aya_ebpf::{bindings::TC_ACT_SHOT, helpers::bpf_redirect, programs::TcContext};
use proxy_ebpf::forward::{
    Ends, NETWORK, Packet, TRANSPORT_V4, TRANSPORT_V6,
    checksum::Difference,
    mss, options, reset,
    rewrite::{CHECKSUM_TCP, Edit, Part, Refused},
    too_big,
};

use super::{
    maps::{Options, options_room, room},
    route::mtu,
    skb::Skb,
};

/// Of a TCP header, in bytes; and of the option.
const SHORTEST: usize = 20;
const OPTION: usize = 4;

/// Answers a segment by a reset. Gives what the hook is to be told.
#[inline(never)]
pub fn reset(ctx: &TcContext) -> i32 {
    let Some(room) = room() else { return TC_ACT_SHOT };
    let packet = &room.packet;
    let has_options = packet.transport != if packet.is_v6 { TRANSPORT_V6 } else { TRANSPORT_V4 };
    // Two ends that answer each other's resets never stop.
    if !packet.is_tcp() || packet.segment.rst || has_options {
        return TC_ACT_SHOT;
    }
    let skb = Skb::of(ctx);
    let ends = Ends::of(&packet.key);
    let written = if packet.is_v6 {
        let answer = reset::v6(&ends, &packet.segment);
        write(skb, reset::LENGTH_V6, &answer.words, TRANSPORT_V6 + CHECKSUM_TCP, answer.unfinished)
    } else {
        let answer = reset::v4(&ends, &packet.segment);
        write(skb, reset::LENGTH_V4, &answer.words, TRANSPORT_V4 + CHECKSUM_TCP, answer.unfinished)
    };
    match written.and_then(|()| send_back(skb)) {
        Ok(sent) => sent,
        Err(Refused) => TC_ACT_SHOT,
    }
}

/// Answers a packet by how long it may be.
#[inline(never)]
pub fn too_big(ctx: &TcContext) -> i32 {
    let Some(room) = room() else { return TC_ACT_SHOT };
    let (packet, mtu) = (&room.packet, room.mtu as u16);
    let has_options = packet.transport != if packet.is_v6 { TRANSPORT_V6 } else { TRANSPORT_V4 };
    if has_options {
        return TC_ACT_SHOT;
    }
    let skb = Skb::of(ctx);
    let told =
        if packet.is_v6 { tell_v6(skb, packet.is_tcp(), mtu) } else { tell_v4(skb, packet.is_tcp(), mtu) };
    match told.and_then(|()| send_back(skb)) {
        Ok(sent) => sent,
        Err(Refused) => TC_ACT_SHOT,
    }
}

#[inline(always)]
fn tell_v4(skb: Skb, is_tcp: bool, mtu: u16) -> Result<(), Refused> {
    let mut quote: too_big::QuoteV4 = Default::default();
    let mut words: too_big::WordsV4 = Default::default();
    skb.load(NETWORK, &mut quote)?;
    let answer = too_big::v4(&mut words, &quote, is_tcp, mtu);
    write(skb, too_big::LENGTH_V4, &words, answer.at, answer.unfinished)
}

#[inline(always)]
fn tell_v6(skb: Skb, is_tcp: bool, mtu: u16) -> Result<(), Refused> {
    let mut quote: too_big::QuoteV6 = Default::default();
    let mut words: too_big::WordsV6 = Default::default();
    skb.load(NETWORK, &mut quote)?;
    let answer = too_big::v6(&mut words, &quote, is_tcp, mtu);
    write(skb, too_big::LENGTH_V6, &words, answer.at, answer.unfinished)
}

/// Puts words in the place of the packet, and finishes the checksum that isn't.
#[inline(always)]
fn write<T: Copy>(
    mut skb: Skb,
    length: usize,
    words: &T,
    checksum: usize,
    unfinished: Difference,
) -> Result<(), Refused> {
    skb.resize(length)?;
    skb.store(NETWORK, words)?;
    skb.checksum(checksum, unfinished, Part::Message, false)
}

#[inline(always)]
fn send_back(mut skb: Skb) -> Result<i32, Refused> {
    let mut addresses = [0_u16; 6];
    skb.load(0, &mut addresses)?;
    let [a, b, c, d, e, f] = addresses;
    skb.store(0, &[d, e, f, a, b, c])?;
    skb.untag();
    // SAFETY: an interface that is gone is an error when it is sent, and the packet is dropped.
    Ok(unsafe { bpf_redirect(skb.interface(), 0) } as i32)
}

/// Has a SYN ask for no longer segments than the interfaces of its way carry, and than the operator wants (0: any).
#[inline(never)]
pub fn lower_mss(skb: Skb, packet: &Packet, interface: u32, longest: u16) {
    let Some((options, length)) = options_of(skb, packet) else { return };
    let Some(found) = mss::find(options, length) else { return };
    let (_, goes_by) = mtu(skb, interface);
    let (_, came_by) = mtu(skb, 0);
    let carried = |mtu| if mtu == 0 { u16::MAX } else { mss::carried(mtu, packet.is_v6) };
    let wanted = if longest == 0 { u16::MAX } else { longest };
    let most = carried(goes_by).min(carried(came_by)).min(wanted);
    if found.value <= most {
        return;
    }
    let (from, to) = mss::change(found.at, found.value, most);
    let mut edit = skb;
    // A SYN that can't be written to isn't sent on either.
    let _ = edit
        .checksum(packet.transport + CHECKSUM_TCP, Difference::word(from, to), Part::Message, false)
        .and_then(|()| edit.store(packet.transport + SHORTEST + found.at, &most.to_be_bytes()));
}

/// When a segment's sender says that it sent it; 0 where it doesn't.
#[inline(never)]
pub fn time(skb: Skb, packet: &Packet) -> u32 {
    match options_of(skb, packet) {
        Some((options, length)) => options::time(options, length),
        None => 0,
    }
}

/// Copies a segment's options to where they can be looked at. Gives how long they are; `None`: there are none.
#[inline(always)]
fn options_of(skb: Skb, packet: &Packet) -> Option<(&'static Options, usize)> {
    let at = packet.transport + SHORTEST;
    let length = (packet.headers + NETWORK).saturating_sub(at);
    if length < OPTION || length > options::LONGEST {
        return None;
    }
    let options = options_room()?;
    skb.load_part(at, options, length).ok()?;
    Some((options, length))
}
