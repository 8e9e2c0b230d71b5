//! Whose packet it is.

use core::ptr;

use proxy_common::{
    flow::{Flow, FlowKey, Side, State},
    forward::{ServerState, Service, ServiceKey, Settings, StopReason, service, settings},
};
use proxy_ebpf::forward::words;

use super::{
    Room, Stop, answer,
    maps::{FORWARD_FLOWS, FORWARD_REPLIES, FORWARD_SERVERS, FORWARD_SERVICES, cut},
    open, route,
    skb::Skb,
};

pub struct Known {
    pub flow: *mut Flow,
    /// Who has sent the packet.
    pub side: Side,
}

/// The flow of a packet, which may begin with it.
#[inline(always)]
pub fn of_packet(skb: Skb, settings: &Settings, room: &mut Room, now: u64) -> Result<Known, Stop> {
    // 1. A server's?
    let port = room.packet.key.destination_port;
    if (settings.is_ours(port) || settings.has(settings::REPLIES_ANYWHERE))
        && let Some(flow) = of_reply(&room.packet.key, &mut room.client)
    {
        // SAFETY: an element of a map; what is read is never changed.
        let service = unsafe { (*flow).service };
        if let Some(fault) = room.packet.fault.reason() {
            return Err(Stop::Refused { service, reason: fault });
        }
        return alive(Known { flow, side: Side::Server }, room.packet.is_tcp());
    }

    // 2. A client's?
    let key = &room.packet.key;
    let wanted = ServiceKey::new(key.destination, key.protocol as u8, key.destination_port);
    let Some(service) = FORWARD_SERVICES.get_ptr(&wanted) else { return Err(Stop::NotOurs) };
    // SAFETY: an element of a map, which user space replaces as a whole and doesn't write to.
    let service = unsafe { &*service };
    let refused = |reason| Stop::Refused { service: service.slot, reason };
    if let Some(fault) = room.packet.fault.reason() {
        return Err(refused(fault));
    }
    if let Some(flow) = FORWARD_FLOWS.get_ptr_mut(&room.packet.key)
        && goes_on(flow, room)
    {
        return alive(Known { flow, side: Side::Client }, room.packet.is_tcp());
    }

    // 3. Then it may begin one.
    begin(skb, settings, room, service, now)
}

#[inline(always)]
fn begin(skb: Skb, settings: &Settings, room: &mut Room, service: &Service, now: u64) -> Result<Known, Stop> {
    let refused = |reason| Stop::Refused { service: service.slot, reason };
    if service.has(service::RETIRED) {
        return Err(Stop::NotOurs);
    }
    if !room.packet.opens() {
        return Err(refused(StopReason::NoFlow));
    }
    room.flow.client_interface = skb.interface();
    room.time = if room.packet.is_tcp() { answer::time(skb, &room.packet) } else { 0 };
    if let Some(reason) = open::open(room, service, settings, now) {
        return Err(refused(reason));
    }
    match FORWARD_FLOWS.get_ptr_mut(&room.packet.key) {
        Some(flow) => Ok(Known { flow, side: Side::Client }),
        None => Err(refused(StopReason::NoFlow)),
    }
}

/// The flow that an error is about.
#[inline(always)]
pub fn of_error(settings: &Settings, room: &mut Room) -> Option<Known> {
    let port = room.quote.key.destination_port;
    if (settings.is_ours(port) || settings.has(settings::REPLIES_ANYWHERE))
        && let Some(flow) = of_reply(&room.quote.key, &mut room.client)
    {
        return Some(Known { flow, side: Side::Server });
    }
    let flow = FORWARD_FLOWS.get_ptr_mut(&room.quote.key)?;
    Some(Known { flow, side: Side::Client })
}

/// The flow of a server's packet. `client` gets how its client's packets come in.
#[inline(always)]
fn of_reply(key: &FlowKey, client: &mut FlowKey) -> Option<*mut Flow> {
    let origin = FORWARD_REPLIES.get_ptr(key)?;
    // SAFETY: an element of a map, which nobody writes to once it is there.
    *client = unsafe { (*origin).flow };
    let flow = FORWARD_FLOWS.get_ptr_mut(&*client)?;
    // SAFETY: an element of a map; what is read is never changed.
    is_reply(unsafe { &*flow }, key).then_some(flow)
}

/// Whether these are a flow's replies, and not those of one before it with the same client's port.
#[inline(always)]
pub fn is_reply(flow: &Flow, key: &FlowKey) -> bool {
    flow.source_port == key.destination_port
        && flow.server_port == key.source_port
        && words(flow.server)[3] == words(key.source)[3]
}

/// Whether a client's packet belongs to the flow that has its key, and not to one that begins with it.
#[inline(always)]
fn goes_on(flow: *mut Flow, room: &Room) -> bool {
    // SAFETY: an element of a map, of which a field is read whole.
    let state = State::of_number(unsafe { ptr::read_volatile(&raw const (*flow).state) });
    if room.packet.is_tcp() {
        return !(room.packet.opens() && state.is_some_and(State::has_ended));
    }
    // SAFETY: as above; what is read is never changed.
    state != Some(State::Cut) && !is_dead(unsafe { &*flow })
}

/// A flow whose server isn't dead.
#[inline(always)]
fn alive(known: Known, is_tcp: bool) -> Result<Known, Stop> {
    if !is_tcp {
        return Ok(known);
    }
    // SAFETY: as in `goes_on`.
    let (flow, state) = unsafe { (&*known.flow, ptr::read_volatile(&raw const (*known.flow).state)) };
    if state != State::Cut as u16 {
        if !is_dead(flow) {
            return Ok(known);
        }
        // SAFETY: a field of a map's value, written whole.
        unsafe { ptr::write_volatile(&raw mut (*known.flow).state, State::Cut as u16) };
    }
    cut(flow.server_slot);
    Err(Stop::Refused { service: flow.service, reason: StopReason::Reset })
}

#[inline(always)]
fn is_dead(flow: &Flow) -> bool {
    FORWARD_SERVERS.get(flow.server_slot.into()).is_some_and(|server| {
        server.state == ServerState::Dead as u16 && server.incarnation == flow.incarnation
    })
}

/// Whether a server's packet comes by the interface that leads to it.
#[inline(always)]
pub fn comes_by_its_way(skb: Skb, room: &mut Room, flow: &Flow) -> bool {
    flow.server_interface == skb.interface() || route::leads_to(skb, room, flow) == Some(skb.interface())
}
