//! The maps of passthrough, and what is counted in them.

use core::mem::offset_of;

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, ArrayOfMaps, HashMap, PerCpuArray},
    macros::btf_map,
};
use proxy_common::{
    counters::Tally,
    flow::{Flow, FlowKey, MAX_FLOWS, Origin, Side},
    forward::{
        Cursor, Lookup, MAX_SERVERS, MAX_SERVICE_KEYS, MAX_SERVICES, MAX_TABLES, Server, ServerCounters,
        Service, ServiceCounters, ServiceKey, Settings, StopReason,
    },
    label::Label,
};
use proxy_ebpf::{forward::options, verifier::forgotten, word::Word};

use super::Room;

#[btf_map]
pub static FORWARD_SETTINGS: Array<Settings, 1> = Array::new();

#[btf_map]
pub static FORWARD_SERVICES: HashMap<ServiceKey, Service, MAX_SERVICE_KEYS> = HashMap::new();

/// One update brings a whole new table.
#[btf_map]
pub static FORWARD_TABLES: ArrayOfMaps<Array<Lookup, 1>, MAX_TABLES> = ArrayOfMaps::new();

#[btf_map]
pub static FORWARD_SERVERS: Array<Server, MAX_SERVERS> = Array::new();

/// Written and read by user space only; here so that the loader makes it with its type.
#[btf_map]
static FORWARD_NAMES: Array<Label, MAX_SERVICES> = Array::new();

/// Never LRU: a flood of new flows finds no room, and those that are there stay. Memory is taken as flows come.
#[btf_map]
pub static FORWARD_FLOWS: HashMap<FlowKey, Flow, MAX_FLOWS, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

#[btf_map]
pub static FORWARD_REPLIES: HashMap<FlowKey, Origin, MAX_FLOWS, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

#[btf_map]
pub static FORWARD_CURSORS: Array<Cursor, MAX_SERVERS> = Array::new();

#[btf_map]
static FORWARD_SERVICE_COUNTERS: PerCpuArray<ServiceCounters, MAX_SERVICES> = PerCpuArray::new();

#[btf_map]
static FORWARD_SERVER_COUNTERS: PerCpuArray<ServerCounters, MAX_SERVERS> = PerCpuArray::new();

/// Room for what one packet needs. Not pinned: it is nobody else's.
#[btf_map]
static FORWARD_ROOM: PerCpuArray<[u64; ROOM], 1> = PerCpuArray::new();

/// Room for a segment's options, which are too many for the stack. Not pinned either.
#[btf_map]
static FORWARD_OPTIONS: PerCpuArray<Options, 1> = PerCpuArray::new();

pub type Options = [u8; options::ROOM];

const ROOM: usize = size_of::<Room>().div_ceil(size_of::<u64>());

/// `None`: nothing is forwarded.
#[inline(always)]
pub fn settings() -> Option<&'static Settings> {
    FORWARD_SETTINGS.get(0).filter(|settings| settings.generation != 0)
}

#[inline(always)]
pub fn room() -> Option<&'static mut Room> {
    let room = FORWARD_ROOM.get_ptr_mut(0)?;
    // SAFETY: this CPU's own, large enough and aligned to 8, and nothing at this hook comes in between. Its fields hold zeros or
    // what was written to them as what they are, so they are valid.
    Some(unsafe { &mut *room.cast() })
}

#[inline(always)]
pub fn options_room() -> Option<&'static mut Options> {
    // SAFETY: as above; bytes.
    FORWARD_OPTIONS.get_ptr_mut(0).map(|options| unsafe { &mut *options })
}

/// A packet of a flow was sent on.
#[inline(always)]
pub fn count(flow: &mut Flow, side: Side, bytes: u64) {
    let tally = match side {
        Side::Client => &raw mut flow.sent,
        Side::Server => &raw mut flow.received,
    };
    // SAFETY: aligned words of a map's value, to which everybody adds atomically.
    unsafe {
        Word::of(&raw mut (*tally).packets).add(1);
        Word::of(&raw mut (*tally).bytes).add(bytes);
    }
    if let Some(counters) = service(flow.service) {
        match side {
            Side::Client => counters.sent.count(bytes),
            Side::Server => counters.received.count(bytes),
        }
    }
    if let Some(counters) = server(flow.server_slot) {
        match side {
            Side::Client => counters.sent.count(bytes),
            Side::Server => counters.received.count(bytes),
        }
    }
}

#[inline(always)]
pub fn opened(slot: u16, server_slot: u16) {
    if let Some(counters) = service(slot) {
        counters.opened = counters.opened.wrapping_add(1);
    }
    if let Some(counters) = server(server_slot) {
        counters.opened = counters.opened.wrapping_add(1);
    }
}

/// A packet was answered by a reset, because this server is dead.
#[inline(always)]
pub fn cut(server_slot: u16) {
    if let Some(counters) = server(server_slot) {
        counters.reset = counters.reset.wrapping_add(1);
    }
}

/// A packet wasn't sent on.
#[inline(always)]
pub fn stopped(slot: u16, reason: StopReason, bytes: u64) {
    let Some(counters) = service(slot) else { return };
    // One behind the other, in the order of their numbers. The compiler knows that there are no other reasons; the
    // verifier doesn't, so it has to see the comparison.
    let at = usize::from(forgotten(reason as u16 - StopReason::ALL[0] as u16));
    if at < StopReason::ALL.len() {
        let first = &raw mut counters.no_server;
        // SAFETY: within the counters, as the comparison shows.
        unsafe { (*first.add(at)).count(bytes) };
    }
}

const _: () = assert!(
    StopReason::ALL[0] as u32 == StopReason::NoServer as u32
        && offset_of!(ServiceCounters, no_server) + (StopReason::ALL.len() - 1) * size_of::<Tally>()
            == offset_of!(ServiceCounters, reset)
);

#[inline(always)]
fn service(slot: u16) -> Option<&'static mut ServiceCounters> {
    let counters = FORWARD_SERVICE_COUNTERS.get_ptr_mut(slot.into())?;
    // SAFETY: this CPU's own share, and nothing at this hook comes in between.
    Some(unsafe { &mut *counters })
}

#[inline(always)]
fn server(slot: u16) -> Option<&'static mut ServerCounters> {
    let counters = FORWARD_SERVER_COUNTERS.get_ptr_mut(slot.into())?;
    // SAFETY: as above.
    Some(unsafe { &mut *counters })
}
