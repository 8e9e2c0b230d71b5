//! Port passthrough in the kernel: packets of known flows get new ends and are sent on, new flows get a server.
//!
//! One program for both directions, where clients come in and where servers' replies do, behind the gate. What it says
//! nothing of goes on to the stack as if it weren't there. It sends packets on itself, past netfilter.
//!
//! Where a packet goes is asked of the host's routes for each packet, so that they may change under a flow. On a host that
//! doesn't forward they don't answer; then a packet goes out by the interface that is known of its flow.
//!
//! Not here: fragments put together, IPv6 extension headers, and tags of VLANs. A VLAN's own interface has its packets.

mod answer;
pub mod at_xdp;
mod find;
mod maps;
mod open;
mod route;
mod skb;

use core::ptr;

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, bpf_fib_lookup},
    helpers::bpf_ktime_get_coarse_ns,
    programs::TcContext,
};
use proxy_common::{
    flow::{Flow, FlowKey, Origin, Side, State, step},
    forward::{Settings, StopReason, settings},
    scope::UDP,
};
use proxy_ebpf::{
    forward::{
        Ends, Packet, Quote, Seen,
        parse::look,
        quote,
        rewrite::{self, Refused},
        words,
    },
    frame::Frame,
    word::Word,
};

pub use self::{
    answer::{reset, too_big},
    maps::stopped,
    skb::Skb,
};
use self::{
    find::Known,
    maps::{count, room, settings},
};

/// How much of a packet is made readable when its headers don't lie in one piece: what an error quotes, with options.
const PULL: u32 = 192;

/// Why a packet isn't sent on.
#[derive(Clone, Copy)]
pub enum Stop {
    /// For no service, and of no flow.
    NotOurs,
    Refused {
        service: u16,
        reason: StopReason,
    },
}

/// What is worked with, for one packet. In a map, since the stack is too small; and the verifier doesn't follow what
/// stands there, so that the ways on which a packet is looked at become one again.
#[repr(C)]
struct Room {
    packet: Packet,
    quote: Quote,
    /// The flow as its client's packets come in, where it is a server's that has come in.
    client: FlowKey,
    /// A flow in the making, and its replies.
    flow: Flow,
    replies: FlowKey,
    origin: Origin,
    /// Another flow, whose port may be free.
    other: FlowKey,
    fib: bpf_fib_lookup,
    /// How long a packet may be on the way that was found.
    mtu: u32,
    /// The timestamp of the SYN that begins a flow. 0: it has none.
    time: u32,
    /// How many ports were tried for it.
    tried: u32,
}

/// Sends a packet on, or says why not. Gives what the hook is to be told.
#[inline(always)]
pub fn forward(ctx: &TcContext) -> Result<i32, Stop> {
    let settings = settings().ok_or(Stop::NotOurs)?;
    let room = room().ok_or(Stop::NotOurs)?;
    let skb = Skb::of(ctx);
    if !skb.is_for_us() || skb.is_of_a_vlan() {
        return Err(Stop::NotOurs);
    }
    match seen(ctx, room) {
        Seen::Packet => packet(skb, settings, room),
        Seen::Error => error(skb, settings, room),
        Seen::Other | Seen::Short => Err(Stop::NotOurs),
    }
}

/// The packet that an ICMP error is about, if it is one: for connections that others join.
#[inline(always)]
pub fn quoted(ctx: &TcContext) -> Option<&'static Quote> {
    let room = room()?;
    (seen(ctx, room) == Seen::Error).then_some(&room.quote)
}

/// Answers a packet that no flow of ours has by how long it may be. Gives what the hook is to be told.
#[inline(always)]
pub fn too_long(ctx: &TcContext, carried: u32) -> i32 {
    let Some(room) = room() else { return TC_ACT_SHOT };
    if seen(ctx, room) != Seen::Packet {
        return TC_ACT_SHOT;
    }
    room.mtu = carried;
    too_big(ctx)
}

/// What a frame is. What is found stands in the room.
#[inline(always)]
fn seen(ctx: &TcContext, room: &mut Room) -> Seen {
    let seen = look(ctx, &mut room.packet, &mut room.quote);
    // A short read may only mean that the rest lies in another piece.
    if seen == Seen::Short && (ctx.end() - ctx.start()) < ctx.len() as usize {
        let _ = ctx.pull_data(PULL.min(ctx.len()));
        return look(ctx, &mut room.packet, &mut room.quote);
    }
    seen
}

#[inline(always)]
fn packet(skb: Skb, settings: &Settings, room: &mut Room) -> Result<i32, Stop> {
    // SAFETY: the helper has no conditions.
    let now = unsafe { bpf_ktime_get_coarse_ns() };

    // 1. Whose is it?
    let Known { flow, side } = find::of_packet(skb, settings, room, now)?;
    // SAFETY: a flow in the map. It isn't given back to the system while this program runs; one that is removed at this
    // moment may become another's, which then gets a count that isn't its own. Only flows that are over are removed.
    let flow = unsafe { &mut *flow };
    let service = flow.service;
    let refused = |reason| Stop::Refused { service, reason };
    if room.packet.hops <= 1 {
        return Err(refused(StopReason::Hops));
    }
    if side == Side::Server && settings.has(settings::STRICT_PATH) && !find::comes_by_its_way(skb, room, flow)
    {
        return Err(refused(StopReason::WrongInterface));
    }

    // 2. Its new ends, and the way there.
    let ends = match side {
        Side::Client => Ends {
            source: words(flow.source),
            destination: words(flow.server),
            source_port: flow.source_port,
            destination_port: flow.server_port,
        },
        Side::Server => Ends::of(&room.client).backwards(),
    };
    let length = skb.length_of_parts(&room.packet);
    let way = route::find(skb, room, &ends, length, side, flow).map_err(refused)?;

    // 3. Its new headers.
    if room.packet.is_tcp() && room.packet.segment.syn {
        answer::lower_mss(skb, &room.packet, way.interface, settings.longest_segment);
    }
    let mut edit = skb;
    rewrite::translate(&mut edit, &room.packet, &ends).map_err(|Refused| refused(StopReason::Malformed))?;

    // 4. What is known of its flow now.
    note(skb, flow, side, &room.packet, now, way.interface);
    count(flow, side, skb.length());
    Ok(way.send(skb, room))
}

#[inline(always)]
fn error(skb: Skb, settings: &Settings, room: &mut Room) -> Result<i32, Stop> {
    // 1. Whose packet is it about?
    let Known { flow, side } = find::of_error(settings, room).ok_or(Stop::NotOurs)?;
    // SAFETY: as for packets.
    let flow = unsafe { &mut *flow };
    let service = flow.service;
    let refused = |reason| Stop::Refused { service, reason };
    if room.quote.hops <= 1 {
        return Err(refused(StopReason::Hops));
    }

    // 2. Outside, the ends of a reply to that packet; inside, what that packet was.
    let (outside, about) = match side {
        Side::Server => (Ends::of(&room.client).backwards(), Ends::of(&room.client)),
        Side::Client => {
            let to_server =
                Ends { source: words(flow.source), destination: words(flow.server), ..Ends::default() };
            let from_server = Ends {
                source: words(flow.server),
                destination: words(flow.source),
                source_port: flow.server_port,
                destination_port: flow.source_port,
            };
            (to_server, from_server)
        }
    };
    // It goes the way of its flow's packets. Nobody is told by an error that an error is too long.
    room.packet.is_v6 = room.quote.is_v6;
    room.packet.key.protocol = room.quote.key.protocol;
    let way = route::find(skb, room, &outside, 0, side, flow).map_err(|_| refused(StopReason::NoRoute))?;

    // 3. Its new headers.
    let mut edit = skb;
    quote::translate(&mut edit, &room.quote, &outside, &about)
        .map_err(|Refused| refused(StopReason::Malformed))?;
    count(flow, side, skb.length());
    Ok(way.send(skb, room))
}

/// What a packet says of its flow.
#[inline(always)]
fn note(skb: Skb, flow: &mut Flow, side: Side, packet: &Packet, now: u64, goes_by: u32) {
    // Each field is written only when it changes: both sides' CPUs have it in their caches.
    if flow.last_packet != now {
        // SAFETY: an aligned word of a map's value, always written whole.
        unsafe { Word::of(&raw mut flow.last_packet) }.store(now);
    }
    let state = State::of_number(flow.state).unwrap_or(State::Open);
    let (next, fin) = if packet.key.protocol == UDP as u16 {
        let answered = side == Side::Server && state == State::Unanswered;
        (if answered { State::Answered } else { state }, flow.fin)
    } else {
        step(state, flow.fin, side, packet.segment)
    };
    if next as u16 != flow.state || fin != flow.fin {
        // SAFETY: fields of a map's value, written whole; the number first, since the state says that it counts.
        unsafe {
            ptr::write_volatile(&raw mut flow.fin, fin);
            ptr::write_volatile(&raw mut flow.state, next as u16);
        }
    }
    match side {
        Side::Client => {
            // Its server will remember it by this.
            if next == State::Closing || next == State::TimeWait {
                flow.time = answer::time(skb, packet);
            }
            if flow.client_interface != skb.interface() {
                flow.client_interface = skb.interface();
            }
            if flow.server_interface != goes_by {
                flow.server_interface = goes_by;
            }
        }
        Side::Server => {}
    }
}
