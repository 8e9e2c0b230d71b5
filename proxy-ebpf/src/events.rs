//! Sampled drops. Nobody watches almost always: then a drop costs one load more, and nothing is written.
//!
//! A watcher says until when it will watch, and says so again each second. When it died, the first drop after that
//! time takes the word back. However much is dropped, each CPU tells only so much ([`Budget`]).

use core::{ffi::c_long, ptr};

use aya_ebpf::{
    EbpfContext,
    btf_maps::{Array, PerCpuArray, RingBuf},
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_skb_load_bytes, bpf_xdp_load_bytes},
    macros::btf_map,
    programs::{TcContext, XdpContext},
};
use proxy_common::{
    event::{Budget, DropEvent, HEAD, RING_BYTES, Watched},
    verdict::DropReason,
};

#[btf_map]
static GATE_EVENTS: RingBuf<DropEvent, RING_BYTES> = RingBuf::new();

#[btf_map]
static GATE_WATCHED: Array<Watched, 1> = Array::new();

#[btf_map]
static GATE_BUDGET: PerCpuArray<Budget, 1> = PerCpuArray::new();

/// A packet at either hook, as far as an event tells of it.
pub trait Packet {
    fn interface(&self) -> u32;

    /// # Safety
    /// `to` must have room for `length` bytes.
    unsafe fn copy(&self, to: *mut u8, length: u32) -> c_long;
}

/// What was decided of a packet.
pub struct Decided {
    pub entrypoint: u32,
    pub reason: DropReason,
    pub bytes: u64,
    /// It passes all the same.
    pub shadowed: bool,
}

/// This packet is dropped, or would be. Both tell out of the same budget.
#[inline(always)]
pub fn tell_if_watched(packet: &impl Packet, decided: &Decided) {
    let Some(watched) = GATE_WATCHED.get_ptr_mut(0) else { return };
    // SAFETY: an element of an array that outlives the program. User space writes it as a whole, and a moment of
    // the old value does no harm.
    let until = unsafe { ptr::read_volatile(&raw const (*watched).until) };
    if until != 0 {
        tell(watched, until, packet, decided);
    }
}

#[inline(always)]
fn tell(watched: *mut Watched, until: u64, packet: &impl Packet, decided: &Decided) {
    let Decided { entrypoint, reason, bytes, shadowed } = *decided;
    // SAFETY: the helper has no conditions.
    let now = unsafe { bpf_ktime_get_ns() };
    if now > until {
        // SAFETY: as for the reading. A word that comes in between is lost, and given again within a second.
        unsafe { ptr::write_volatile(&raw mut (*watched).until, 0) };
        return;
    }
    let Some(budget) = GATE_BUDGET.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's own. XDP and tc on one CPU may interleave, and then at worst tell one event more.
    if !unsafe { &mut *budget }.spend(now) {
        return;
    }
    // No room: the reader is behind, and has the counters.
    let Some(mut entry) = GATE_EVENTS.reserve(0) else { return };
    let captured = captured(bytes);
    let event = entry.as_mut_ptr();
    // SAFETY: the entry is ours until it is submitted, and as large as the event. What a packet doesn't fill of
    // `head` is zero, and what it fills is at most `HEAD` bytes. Asking for the CPU has no conditions.
    let copied = unsafe {
        event.write(DropEvent {
            at: now,
            interface: packet.interface(),
            entrypoint,
            reason: reason as u32,
            length: bytes as u32,
            captured,
            cpu: bpf_get_smp_processor_id() as u16,
            shadow: u16::from(shadowed),
            head: [0; HEAD],
        });
        packet.copy((&raw mut (*event).head).cast(), captured) == 0
    };
    if copied { entry.submit(0) } else { entry.discard(0) }
}

/// How much of a packet is copied: from 1 to [`HEAD`] bytes. An empty packet is no packet, and its copy fails.
#[inline(always)]
fn captured(bytes: u64) -> u32 {
    const MASK: u64 = HEAD as u64 - 1;
    const { assert!(HEAD.is_power_of_two()) };
    let last = bytes.wrapping_sub(1);
    let last = if last > MASK { MASK } else { last };
    // The verifier believes a length only where it sees the bounds; the compiler, which knows them, would leave them
    // out. So it must not know.
    // SAFETY: a local variable.
    let last = unsafe { ptr::read_volatile(&raw const last) } & MASK;
    last as u32 + 1
}

impl Packet for XdpContext {
    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: `ctx` is what the program was called with.
        unsafe { (*self.ctx).ingress_ifindex }
    }

    #[inline(always)]
    unsafe fn copy(&self, to: *mut u8, length: u32) -> c_long {
        // SAFETY: passed on.
        unsafe { bpf_xdp_load_bytes(self.ctx, 0, to.cast(), length) }
    }
}

impl Packet for TcContext {
    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: `skb` is what the program was called with.
        unsafe { (*self.skb.skb).ifindex }
    }

    #[inline(always)]
    unsafe fn copy(&self, to: *mut u8, length: u32) -> c_long {
        // SAFETY: passed on.
        unsafe { bpf_skb_load_bytes(self.as_ptr().cast(), 0, to.cast(), length) }
    }
}
