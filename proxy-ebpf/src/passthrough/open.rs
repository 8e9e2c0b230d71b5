//! A new flow: a server for it, and a source port towards that server.

use core::ptr;

use aya_ebpf::bindings::BPF_NOEXIST;
use proxy_common::{
    flow::{Flow, FlowKey, HALF_MADE, Origin, State},
    forward::{Lookup, NONE, ServerState, Service, Settings, StopReason, hash, service},
};
use proxy_ebpf::{
    forward::{parse::is_mapped, words},
    word::Word,
};

use super::{
    Room,
    find::is_reply,
    maps::{FORWARD_CURSORS, FORWARD_FLOWS, FORWARD_REPLIES, FORWARD_SERVERS, FORWARD_TABLES, opened},
};

/// How many ports are tried. Spread over the range, so that it is nearly full before all of them are in use.
const TRIED: u32 = 32;
/// From this try on also ports that the server still remembers, if it can tell the new flow from the old one.
const FOLLOWS_FROM: u32 = 8;
/// And from this one on those of flows that give way.
const GIVES_WAY_FROM: u32 = 16;

const EXISTS: i32 = -17;

/// Begins the flow of the packet in the room. `None`: it is there.
#[inline(never)]
pub fn open(room: &mut Room, service: &Service, settings: &Settings, now: u64) -> Option<StopReason> {
    // 1. The server.
    let key = &room.packet.key;
    let port = if service.has(service::STICKY) { 0 } else { key.source_port };
    let place = Lookup::place(hash(words(key.source), port));
    let slot = match FORWARD_TABLES.get_value(service.table.into(), &0) {
        Some(table) => table.servers[place],
        None => NONE,
    };
    if slot == NONE {
        return Some(StopReason::NoServer);
    }
    let Some(server) = FORWARD_SERVERS.get(slot.into()) else { return Some(StopReason::NoServer) };
    if server.state != ServerState::Serving as u16 || is_mapped(words(server.address)) == room.packet.is_v6 {
        return Some(StopReason::NoServer);
    }

    // 2. One with the same key has ended. If its server is the same, so are its ports: the server knows its client, and
    //    judges by sequence numbers and timestamps whether it is new, as if we weren't there.
    if let Some(ended) = FORWARD_FLOWS.get_ptr_mut(&room.packet.key) {
        // SAFETY: an element of a map; only whoever reads it for a list sees that it changes.
        let ended = unsafe { &mut *ended };
        let same = ended.server_slot == slot && ended.incarnation == server.incarnation;
        if same && (ended.flags ^ service.flags) & service::KEEP_SOURCE == 0 {
            begin_again(ended, service, now, room.packet.key.protocol as u8);
            opened(service.slot, slot);
            return None;
        }
        room.replies = ended.replies(&room.packet.key);
        // Whoever is first takes them away.
        let _ = FORWARD_REPLIES.remove(&room.replies);
        let _ = FORWARD_FLOWS.remove(&room.packet.key);
    }

    // 3. The flow.
    let flow = &mut room.flow;
    let keeps_source = service.has(service::KEEP_SOURCE);
    flow.source = if keeps_source { room.packet.key.source } else { server.source };
    flow.server = server.address;
    flow.source_port = room.packet.key.source_port;
    flow.server_port = server.port;
    flow.state = State::first(room.packet.key.protocol as u8) as u16;
    flow.flags = service.flags;
    flow.service = service.slot;
    flow.server_slot = slot;
    flow.incarnation = server.incarnation;
    flow.idle = service.idle;
    flow.lifetime = service.lifetime;
    flow.server_interface = 0;
    flow.fin = 0;
    flow.time = 0;
    flow.generation = settings.generation;
    flow.began = now;
    flow.last_packet = now;
    (flow.sent.packets, flow.sent.bytes) = (0, 0);
    (flow.received.packets, flow.received.bytes) = (0, 0);
    room.replies = flow.replies(&room.packet.key);
    room.origin = Origin { flow: room.packet.key, since: now };

    // 4. Its port. The entry of its replies comes first: they may be faster than we are.
    room.tried = 0;
    let taken = if keeps_source { take(room, settings, now) } else { take_port(room, settings, slot, now) };
    if let Some(reason) = taken {
        return Some(reason);
    }
    match FORWARD_FLOWS.insert(&room.packet.key, &room.flow, BPF_NOEXIST.into()) {
        Ok(()) => {
            opened(service.slot, slot);
            None
        }
        Err(error) => {
            let _ = FORWARD_REPLIES.remove(&room.replies);
            // Another CPU has had the same packet.
            if error == EXISTS { None } else { Some(StopReason::TableFull) }
        }
    }
}

#[inline(always)]
fn begin_again(flow: &mut Flow, service: &Service, now: u64, protocol: u8) {
    flow.idle = service.idle;
    flow.lifetime = service.lifetime;
    flow.began = now;
    (flow.fin, flow.time) = (0, 0);
    (flow.sent.packets, flow.sent.bytes) = (0, 0);
    (flow.received.packets, flow.received.bytes) = (0, 0);
    // SAFETY: fields of a map's value, written whole; the time first, or somebody might take it for over.
    unsafe {
        Word::of(&raw mut flow.last_packet).store(now);
        ptr::write_volatile(&raw mut flow.state, State::first(protocol) as u16);
    }
}

/// Takes the next of our own ports that isn't in use towards this server.
#[inline(always)]
fn take_port(room: &mut Room, settings: &Settings, slot: u16, now: u64) -> Option<StopReason> {
    let ports = u64::from(settings.ports);
    let Some(cursor) = FORWARD_CURSORS.get_ptr_mut(slot.into()) else { return Some(StopReason::NoPort) };
    // SAFETY: an aligned word of a map's value, changed atomically. Two CPUs may begin with the same port, which only one
    // gets.
    let cursor = unsafe { Word::of(&raw mut (*cursor).next) };
    let mut at = cursor.load();
    cursor.increment();
    // About the golden section of the range: wherever flows lie close together, the next try is somewhere else.
    let stride = (ports * 40_503) >> 16;
    for tried in 0..TRIED {
        room.tried = tried;
        if ports == 0 {
            break;
        }
        let port = settings.first_port.wrapping_add((at % ports) as u16);
        at = at.wrapping_add(stride | 1);
        room.flow.source_port = port;
        room.replies.destination_port = port;
        match take(room, settings, now) {
            Some(StopReason::NoPort) => {}
            taken => return taken,
        }
    }
    Some(StopReason::NoPort)
}

/// Takes a port, if it is free, or after so many tries may be had all the same. `None`: it is ours.
#[inline(never)]
fn take(room: &mut Room, settings: &Settings, now: u64) -> Option<StopReason> {
    // 1. Free?
    match FORWARD_REPLIES.insert(&room.replies, &room.origin, BPF_NOEXIST.into()) {
        Ok(()) => return None,
        Err(EXISTS) => {}
        Err(_) => return Some(StopReason::TableFull),
    }

    // 2. Of a flow that is over, or was never made?
    let Some(origin) = FORWARD_REPLIES.get_ptr(&room.replies) else { return Some(StopReason::NoPort) };
    // SAFETY: an element of a map, which nobody writes to once it is there.
    let since = unsafe {
        copy(&raw const (*origin).flow, &raw mut room.other);
        (*origin).since
    };
    let mut is_whole = false;
    if let Some(flow) = FORWARD_FLOWS.get_ptr(&room.other) {
        // SAFETY: an element of a map, of numbers that are each read whole.
        let flow = unsafe { &*flow };
        is_whole = is_reply(flow, &room.replies);
        let may_be_had = flow.is_over(&settings.timeouts, now)
            || (room.tried >= FOLLOWS_FROM && flow.may_be_followed(&room.packet.segment, room.time, now))
            || (room.tried >= GIVES_WAY_FROM && flow.gives_way(now));
        if is_whole && !may_be_had {
            return Some(StopReason::NoPort);
        }
    }
    if !is_whole && now.saturating_sub(since) < HALF_MADE {
        return Some(StopReason::NoPort);
    }

    // 3. Whoever removes the entry has it.
    if FORWARD_REPLIES.remove(&room.replies).is_err() {
        return Some(StopReason::NoPort);
    }
    if is_whole {
        let _ = FORWARD_FLOWS.remove(&room.other);
    }
    match FORWARD_REPLIES.insert(&room.replies, &room.origin, BPF_NOEXIST.into()) {
        Ok(()) => None,
        Err(EXISTS) => Some(StopReason::NoPort),
        Err(_) => Some(StopReason::TableFull),
    }
}

/// Word by word: the compiler would call a function, which needs a stack of its own, and Linux 6.1 counts 32 bytes for each.
///
/// # Safety
/// `from` must be readable and `to` writable, as a key is.
#[inline(always)]
unsafe fn copy(from: *const FlowKey, to: *mut FlowKey) {
    const WORDS: usize = size_of::<FlowKey>() / size_of::<u64>();
    let (from, to) = (from.cast::<u64>(), to.cast::<u64>());
    for word in 0..WORDS {
        // SAFETY: within a key, which is made of so many words and aligned to them.
        unsafe { to.add(word).write_volatile(from.add(word).read_volatile()) };
    }
}
