//! A line for each packet that is dropped and each connection that may come in, through aya-log.
//!
//! Only in the second object, which is loaded where an operator asks for it: aya-log's map is of the older kind, and one such
//! map makes libbpf's tools refuse the whole object. Each CPU writes only so many lines a second ([`Spoken`]); what it leaves
//! out it counts.

use aya_ebpf::{EbpfContext, btf_maps::PerCpuArray, helpers::bpf_ktime_get_ns, macros::btf_map};
use aya_log_ebpf::debug;
use proxy_common::log::{Outcome, Spoken};
use proxy_ebpf::{
    ends::{Ends, ends},
    frame::Frame,
    gate::Source,
};

use crate::events::{Decided, Packet};

#[btf_map]
static GATE_SPOKEN: PerCpuArray<Spoken, 1> = PerCpuArray::new();

/// This packet is dropped, or would be.
#[inline(always)]
pub fn stopped(packet: &(impl Frame + Packet + EbpfContext), decided: &Decided) {
    let outcome = if decided.shadowed { Outcome::WouldDrop } else { Outcome::Dropped };
    if may_tell() {
        line(packet, outcome, decided.entrypoint, decided.reason as u32, &ends(packet));
    }
}

/// This one passes. What belongs to a connection that is there is not worth a line.
#[inline(always)]
pub fn passed(packet: &(impl Frame + Packet + EbpfContext), entrypoint: u32) {
    let ends = ends(packet);
    if ends.opens && may_tell() {
        line(packet, Outcome::LetIn, entrypoint, 0, &ends);
    }
}

#[inline(always)]
fn may_tell() -> bool {
    let Some(spoken) = GATE_SPOKEN.get_ptr_mut(0) else { return false };
    // SAFETY: this CPU's own; XDP and tc on one CPU may interleave, and then at worst write one line more. Asking for the time
    // has no conditions.
    unsafe { (*spoken).may_tell(bpf_ktime_get_ns()) }
}

/// Its order is that in which the daemon reads it (`proxy-user/src/kernel/log/line.rs`).
#[inline(always)]
fn line(packet: &(impl Packet + EbpfContext), outcome: Outcome, entrypoint: u32, reason: u32, ends: &Ends) {
    debug!(
        packet,
        "{} {} {} {} {} {:i} {} {:i} {}",
        outcome as u32,
        entrypoint,
        reason,
        packet.interface(),
        ends.protocol,
        octets(ends.source),
        ends.source_port,
        octets(ends.destination),
        ends.destination_port
    );
}

#[inline(always)]
fn octets(address: Source) -> [u8; 16] {
    // SAFETY: four words are sixteen bytes, and any bytes are an address.
    unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(address) }
}
