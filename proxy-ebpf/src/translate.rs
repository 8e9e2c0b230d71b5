//! Connections that are joined in the kernel: what comes by one leaves by the other, with its numbers shifted.
//!
//! The daemon has opened both, read how far each is, and written that down (`proxy-common/src/translate.rs`). From then on no
//! socket knows of them. Everything that a flow's packets need is in its entry; nothing here depends on the daemon being there.
//!
//! At tcx ingress or clsact, behind the gate: what comes from clients has been let in by then.

mod errors;

use core::{ffi::c_void, mem::transmute};

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_NO_PREALLOC, BPF_F_PSEUDO_HDR, bpf_check_mtu_flags::BPF_MTU_CHK_SEGS},
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray},
    helpers::{
        bpf_check_mtu, bpf_ktime_get_coarse_ns, bpf_l4_csum_replace, bpf_redirect_neigh, bpf_skb_load_bytes,
        bpf_skb_store_bytes,
    },
    macros::btf_map,
    programs::TcContext,
};
use proxy_common::translate::{
    Flow, FlowKey, HELD_FOR, MAX_FLOWS, MAX_SEEN, PORT_WORDS, Seen, Tally, port_bit, seen, stage,
};
use proxy_ebpf::{
    frame::{Frame, read},
    headers::{Ipv4, Ipv6, Tcp, ether_type},
    segment::{self, Header, LONGEST, Opening, SHORTEST, Shift, Shifted, opening},
    sum::Sum,
};

/// Memory for those that there are: most hosts have few.
#[btf_map]
static TRANSLATE_FLOWS: HashMap<FlowKey, Flow, MAX_FLOWS, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

#[btf_map]
static TRANSLATE_SEEN: LruHashMap<FlowKey, Seen, MAX_SEEN> = LruHashMap::new();

/// Written by the daemon. All other ports cost no more than one look here.
#[btf_map]
static TRANSLATE_PORTS: Array<u64, PORT_WORDS> = Array::new();

#[btf_map]
static TRANSLATE_TALLY: PerCpuArray<Tally, 1> = PerCpuArray::new();

/// The stack is small, and isn't read at places that are only known at run time. Not pinned: it is of no use for longer than a
/// packet.
#[btf_map]
static TRANSLATE_HEADER: PerCpuArray<Header, 1> = PerCpuArray::new();

const ETHERNET: u32 = 14;
const TCP: u8 = 6;
/// Where a TCP header has its checksum.
const CHECKSUM: u32 = 16;
const LONGEST_FIXED: u32 = ETHERNET + 40 + 20;
/// How far a reset may be from what was acknowledged last, to be taken for one.
const IN_WINDOW: u32 = 1 << 24;

/// What [`shift`] gives.
const DIFFERENCE: u64 = u32::MAX as u64;
const SELECTIVE: u64 = 1 << 32;
const UNREADABLE: u64 = u64::MAX;

/// What becomes of a packet.
pub enum Passage {
    /// It is of no flow of ours, or is for the stack.
    Stays,
    /// On its way; as the kernel says it.
    Leaves(i32),
    /// Longer than what it would leave by carries, which is so many bytes. Its sender is to be told.
    TooLong(u32),
    Dropped(Loss),
}

#[derive(Clone, Copy)]
pub enum Loss {
    /// The daemon is about to hand the flow over. It will be sent again.
    Held,
    Fragment,
    Unreadable,
    Expired,
}

/// A TCP segment in a single packet, or the first part of one.
struct Packet {
    key: FlowKey,
    flags: u8,
    is_v6: bool,
    is_fragment: bool,
    /// In bytes.
    network: u32,
    /// Of the TCP header.
    header: u32,
    /// In bytes, behind the TCP header. Of a fragment, nothing that could be relied on.
    payload: u32,
    hops: u8,
    sum: u16,
    /// What stands before the hops in IPv6.
    before_hops: [u8; 3],
}

#[inline(always)]
pub fn translate(ctx: &TcContext) -> Passage {
    // 1. Is it of a flow of ours?
    let Some(packet) = packet(ctx) else { return errors::translate(ctx) };
    if !is_watched(&packet.key) {
        return Passage::Stays;
    }
    let Some(flow) = TRANSLATE_FLOWS.get_ptr_mut(&packet.key) else {
        remember(ctx, &packet);
        return Passage::Stays;
    };
    // SAFETY: the helper has no conditions.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    // SAFETY: here and below, an element of a map, which isn't given back to the system while this program runs. Two CPUs at
    // a time lose a count at worst; what is written by user space is only read here.
    let entry = unsafe { &mut *flow };
    if packet.is_fragment {
        return Passage::Dropped(Loss::Fragment);
    }
    if entry.stage == stage::HELD {
        let is_lost = packet.payload > 0 || packet.flags & Tcp::FIN != 0;
        // Held by a daemon that died over it: the connection is the stack's, which ends it.
        let is_held = now.wrapping_sub(entry.begun) < HELD_FOR;
        return if is_lost && is_held { Passage::Dropped(Loss::Held) } else { Passage::Stays };
    }

    // 2. A new connection in the place of one that has ended. In the place of one that has not, it goes on like any other
    //    packet: then the other side says whether it is.
    if packet.flags & (Tcp::SYN | Tcp::ACK) == Tcp::SYN && forgets_ended(entry) {
        let _ = TRANSLATE_FLOWS.remove(&packet.key);
        remember(ctx, &packet);
        return Passage::Stays;
    }
    if packet.hops <= 1 {
        return Passage::Dropped(Loss::Expired);
    }
    if let Some(carried) = is_too_long(ctx, entry.interface) {
        if let Some(tally) = tally() {
            tally.too_long += 1;
        }
        return Passage::TooLong(carried);
    }

    // 3. The TCP header.
    let Some(header) = header(ctx, &packet) else { return Passage::Dropped(Loss::Unreadable) };
    note(entry, header, packet.flags, packet.payload, now);
    let shifted = shift(header, packet.header, entry);
    if shifted == UNREADABLE {
        return Passage::Dropped(Loss::Unreadable);
    }

    // 4. Both headers and their checksums.
    let skb = ctx.skb.skb;
    let at = ETHERNET + packet.network;
    let addresses = difference_of(&packet.key, entry);
    // SAFETY: the map's value is longer than any header. That a packet ends before it is an error that the helpers tell.
    let stored = unsafe {
        bpf_skb_store_bytes(skb, at, header.as_mut_ptr().cast(), bounded(packet.header), 0) == 0
            && bpf_l4_csum_replace(skb, at + CHECKSUM, 0, shifted & DIFFERENCE, 0) == 0
            && bpf_l4_csum_replace(
                skb,
                at + CHECKSUM,
                0,
                addresses.difference().into(),
                BPF_F_PSEUDO_HDR.into(),
            ) == 0
    };
    let readdressed = if packet.is_v6 {
        readdress_v6(skb, &packet, entry)
    } else {
        readdress_v4(skb, &packet, entry, addresses)
    };
    if !(stored && readdressed) {
        return Passage::Dropped(Loss::Unreadable);
    }
    if let Some(tally) = tally() {
        tally.translated += 1;
        tally.selective += u64::from(shifted & SELECTIVE != 0);
    }

    // 5. Out, by the way that the kernel knows to the new destination.
    // SAFETY: the kernel looks the neighbour up itself when it is given none.
    Passage::Leaves(unsafe { bpf_redirect_neigh(entry.interface, core::ptr::null_mut(), 0, 0) } as i32)
}

pub fn count(loss: Loss) {
    let Some(tally) = tally() else { return };
    match loss {
        Loss::Held => tally.held += 1,
        Loss::Fragment => tally.fragments += 1,
        Loss::Unreadable => tally.unreadable += 1,
        Loss::Expired => tally.expired += 1,
    }
}

/// `None`: nothing of which a flow could be known.
#[inline(always)]
fn packet(ctx: &TcContext) -> Option<Packet> {
    let skb = ctx.skb.skb;
    // SAFETY: fields of the context.
    let (protocol, is_tagged, length) = unsafe { ((*skb).protocol, (*skb).vlan_present, (*skb).len) };
    // What carries a VLAN's tag comes by once more, without it, at the VLAN's own interface.
    if is_tagged != 0 {
        return None;
    }
    let is_v6 = protocol == u32::from(ether_type::IPV6.to_be());
    if !is_v6 && protocol != u32::from(ether_type::IPV4.to_be()) {
        return None;
    }
    let readable = (ctx.end() - ctx.start()) as u32;
    if readable < LONGEST_FIXED && readable < length {
        ctx.pull_data(if length < LONGEST_FIXED { length } else { LONGEST_FIXED }).ok()?;
    }
    if is_v6 { packet_v6(ctx, length) } else { packet_v4(ctx, length) }
}

#[inline(always)]
fn packet_v4(ctx: &TcContext, length: u32) -> Option<Packet> {
    const NETWORK: u32 = 20;
    let ip = read::<Ipv4>(ctx, ETHERNET as usize).ok()?;
    let fixed = read::<[u8; 12]>(ctx, ETHERNET as usize).ok()?;
    if ip.protocol != TCP || ip.length() != NETWORK as usize || ip.is_later_fragment() {
        return None;
    }
    let tcp = read::<[u8; 20]>(ctx, (ETHERNET + NETWORK) as usize).ok()?;
    let [source] = ip.source.read();
    let [destination] = ip.destination.read();
    let mapped = |address| bytes([0, 0, u32::from_ne_bytes([0, 0, 0xff, 0xff]), address]);
    let total = ip.total_length();
    let segment = if total == usize::MAX { length - ETHERNET } else { total as u32 }.wrapping_sub(NETWORK);
    let header = u32::from(tcp[12] >> 4) * 4;
    Some(Packet {
        key: FlowKey {
            source: mapped(source),
            destination: mapped(destination),
            ports: [tcp[0], tcp[1], tcp[2], tcp[3]],
        },
        flags: tcp[13],
        is_v6: false,
        is_fragment: ip.has_more_fragments(),
        network: NETWORK,
        header,
        payload: payload(segment, header),
        hops: fixed[8],
        sum: u16::from_ne_bytes([fixed[10], fixed[11]]),
        before_hops: [0; 3],
    })
}

/// Extension headers aren't followed: the daemon's own connections have none, and what has some is left to the stack.
#[inline(always)]
fn packet_v6(ctx: &TcContext, length: u32) -> Option<Packet> {
    const NETWORK: u32 = 40;
    let ip = read::<Ipv6>(ctx, ETHERNET as usize).ok()?;
    if ip.next_header != TCP {
        return None;
    }
    let fixed = read::<[u8; 8]>(ctx, ETHERNET as usize).ok()?;
    let tcp = read::<[u8; 20]>(ctx, (ETHERNET + NETWORK) as usize).ok()?;
    let total = ip.payload_length();
    let segment = if total == usize::MAX { length - ETHERNET - NETWORK } else { total as u32 };
    let header = u32::from(tcp[12] >> 4) * 4;
    Some(Packet {
        key: FlowKey {
            source: bytes(ip.source.read()),
            destination: bytes(ip.destination.read()),
            ports: [tcp[0], tcp[1], tcp[2], tcp[3]],
        },
        flags: tcp[13],
        is_v6: true,
        is_fragment: false,
        network: NETWORK,
        header,
        payload: payload(segment, header),
        hops: fixed[7],
        sum: 0,
        before_hops: [fixed[4], fixed[5], fixed[6]],
    })
}

#[inline(always)]
fn payload(segment: u32, header: u32) -> u32 {
    if segment > header { segment - header } else { 0 }
}

/// By which an interface says how long a packet may be, if this one, or any that it stands for, is longer: hand-overs are judged
/// by what both ways carry, and a way may become narrower later.
#[inline(always)]
fn is_too_long(ctx: &TcContext, interface: u32) -> Option<u32> {
    // Of several packets that are merged, each.
    const EACH: u64 = BPF_MTU_CHK_SEGS as u64;
    let mut carried = 0;
    // SAFETY: a number to be read and written.
    let answer = unsafe { bpf_check_mtu(ctx.skb.skb.cast(), interface, &raw mut carried, 0, EACH) };
    // Below 0 it can't be said: whatever goes out there is the kernel's to judge.
    (answer > 0).then_some(carried)
}

#[inline(always)]
fn is_watched(key: &FlowKey) -> bool {
    let [_, _, high, low] = key.ports;
    let (word, bit) = port_bit(u16::from_be_bytes([high, low]));
    TRANSLATE_PORTS.get(word).is_some_and(|ports| *ports & bit != 0)
}

/// Of the first packet from each side: its timestamp can't be asked of a socket later, and with it the clock of who sent it.
#[inline(always)]
fn remember(ctx: &TcContext, packet: &Packet) {
    if packet.flags & (Tcp::SYN | Tcp::FIN | Tcp::RST) != Tcp::SYN || packet.is_fragment {
        return;
    }
    let Some(header) = header(ctx, packet) else { return };
    let Ok(Opening { time, longest }) = opening(header, packet.header) else { return };
    // SAFETY: a field of the context.
    let interface = unsafe { (*ctx.skb.skb).ifindex };
    let seen = Seen { time: time.unwrap_or(0), has_time: time.is_some().into(), interface, longest };
    // Without it the connection can't be handed over, and that is all.
    let _ = TRANSLATE_SEEN.insert(&packet.key, &seen, 0);
}

/// The TCP header, where it can be changed.
#[inline(always)]
fn header(ctx: &TcContext, packet: &Packet) -> Option<&'static mut Header> {
    // SAFETY: this CPU's own, and nothing at this hook comes between on a CPU.
    let header = unsafe { &mut *TRANSLATE_HEADER.get_ptr_mut(0)? };
    let length = packet.header;
    if length < SHORTEST || length > LONGEST {
        return None;
    }
    let (skb, at) = (ctx.skb.skb, ETHERNET + packet.network);
    // SAFETY: the room is longer than the longest header, and the helper says when the packet is shorter.
    let loaded =
        unsafe { bpf_skb_load_bytes(skb.cast(), at, header.as_mut_ptr().cast::<c_void>(), bounded(length)) };
    (loaded == 0).then_some(header)
}

/// A header's length, from 1 to 64, as the verifier believes it: only where it sees the bounds, and the compiler, which knows
/// them, would leave them out.
#[inline(always)]
fn bounded(length: u32) -> u32 {
    const MASK: u32 = 63;
    const { assert!(LONGEST <= MASK) };
    let last = length.wrapping_sub(1);
    // SAFETY: a local variable.
    let last = unsafe { core::ptr::read_volatile(&raw const last) } & MASK;
    last + 1
}

/// Gives what has changed, and [`SELECTIVE`]; or [`UNREADABLE`]. A number: it is what functions of programs give. They have
/// a stack each, and all that is done for a packet is too much for one.
#[inline(never)]
fn shift(header: &mut Header, length: u32, flow: &Flow) -> u64 {
    let by = Shift {
        ports: u32::from_ne_bytes(flow.ports),
        sequence: flow.sequence,
        acknowledgement: flow.acknowledgement,
        time: flow.time,
        echo: flow.echo,
        scale_from: flow.scale_from,
        scale_to: flow.scale_to,
    };
    match segment::shift(header, length, &by) {
        Ok(Shifted { difference, selective: false }) => difference.into(),
        Ok(Shifted { difference, selective: true }) => u64::from(difference) | SELECTIVE,
        Err(segment::Unreadable) => UNREADABLE,
    }
}

/// What the flow's own state is after this packet.
#[inline(never)]
fn note(flow: &mut Flow, header: &Header, flags: u8, payload: u32, now: u64) {
    flow.last = now;
    flow.packets += 1;
    flow.bytes += u64::from(payload);
    if flags & Tcp::ACK != 0 {
        let acked = header.acknowledgement();
        if (acked.wrapping_sub(flow.acked) as i32) > 0 {
            flow.acked = acked;
        }
        // Nothing comes after the end, so nothing after it is acknowledged.
        if flow.seen & seen::PEER_FIN != 0 && acked == flow.peer_end {
            flow.seen |= seen::PEER_FIN_ACKED;
        }
    }
    let is_reset = flags & Tcp::RST != 0;
    if !is_reset {
        flow.seen &= !(seen::RESET | seen::SENT_RESET);
        if flags & Tcp::FIN == 0 {
            return;
        }
    }

    // The end, or a reset: known to both directions.
    let Some(other) = TRANSLATE_FLOWS.get_ptr_mut(&flow.other_side()) else { return };
    // SAFETY: as for `flow`, of which this is another entry: the two sides have different names.
    let other = unsafe { &mut *other };
    let sequence = header.sequence().wrapping_add(flow.sequence);
    if is_reset {
        // Whoever guesses at it can't end a connection with it: the other side's stack looks closer, and goes on.
        if sequence.wrapping_sub(other.acked) < IN_WINDOW {
            flow.seen |= seen::RESET | seen::SENT_RESET;
            other.seen |= seen::RESET;
        }
        return;
    }
    let end = sequence.wrapping_add(payload).wrapping_add(1);
    if (end.wrapping_sub(other.acked) as i32) >= 0 {
        if flow.seen & (seen::FIN | seen::PEER_FIN) == 0 {
            flow.seen |= seen::ENDED_FIRST;
        }
        flow.seen |= seen::FIN;
        other.peer_end = end;
        other.seen |= seen::PEER_FIN;
    }
}

/// Whether both sides have ended a flow and know of each other's end. Then the other side is forgotten.
#[inline(never)]
fn forgets_ended(flow: &Flow) -> bool {
    let other_side = flow.other_side();
    let other_is_done = match TRANSLATE_FLOWS.get_ptr(&other_side) {
        // SAFETY: as for other elements.
        Some(other) => unsafe { (*other).is_done() },
        None => true,
    };
    if !(flow.is_done() && other_is_done) {
        return false;
    }
    let _ = TRANSLATE_FLOWS.remove(&other_side);
    true
}

#[inline(always)]
fn difference_of(key: &FlowKey, flow: &Flow) -> Sum {
    let changed = |sum: Sum, from: [u8; 16], to: [u8; 16]| {
        let (from, to) = (words(from), words(to));
        let sum = sum.without(from[0]).without(from[1]).without(from[2]).without(from[3]);
        sum.with(to[0]).with(to[1]).with(to[2]).with(to[3])
    };
    changed(changed(Sum::none(), key.source, flow.source), key.destination, flow.destination)
}

#[inline(always)]
fn readdress_v4(skb: *mut __sk_buff, packet: &Packet, flow: &Flow, addresses: Sum) -> bool {
    const HOPS: u32 = ETHERNET + 8;
    let hops = |hops: u8| u32::from(u16::from_ne_bytes([hops, TCP]));
    let sum = addresses.without(hops(packet.hops)).with(hops(packet.hops - 1));
    let [low, high] = sum.mend(packet.sum).to_ne_bytes();
    let first = u32::from_ne_bytes([packet.hops - 1, TCP, low, high]);
    let mut changed = [first, words(flow.source)[3], words(flow.destination)[3]];
    // SAFETY: as many bytes as there are.
    unsafe {
        bpf_skb_store_bytes(skb, HOPS, changed.as_mut_ptr().cast(), size_of_val(&changed) as u32, 0) == 0
    }
}

#[inline(always)]
fn readdress_v6(skb: *mut __sk_buff, packet: &Packet, flow: &Flow) -> bool {
    const LENGTH: u32 = ETHERNET + 4;
    let [a, b, c] = packet.before_hops;
    let (source, destination) = (words(flow.source), words(flow.destination));
    let mut changed = [
        u32::from_ne_bytes([a, b, c, packet.hops - 1]),
        source[0],
        source[1],
        source[2],
        source[3],
        destination[0],
        destination[1],
        destination[2],
        destination[3],
    ];
    // SAFETY: as many bytes as there are.
    unsafe {
        bpf_skb_store_bytes(skb, LENGTH, changed.as_mut_ptr().cast(), size_of_val(&changed) as u32, 0) == 0
    }
}

#[inline(always)]
fn bytes(words: [u32; 4]) -> [u8; 16] {
    // SAFETY: four words are sixteen bytes, and any bytes are an address.
    unsafe { transmute(words) }
}

#[inline(always)]
fn words(bytes: [u8; 16]) -> [u32; 4] {
    // SAFETY: as above.
    unsafe { transmute(bytes) }
}

#[inline(always)]
fn tally() -> Option<&'static mut Tally> {
    // SAFETY: this CPU's own.
    TRANSLATE_TALLY.get_ptr_mut(0).map(|tally| unsafe { &mut *tally })
}
