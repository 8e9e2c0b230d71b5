//! The entry points that only benchmarks run. None of them is ever attached.

use aya_ebpf::{
    bindings::xdp_action,
    helpers::{bpf_get_prandom_u32, bpf_redirect},
    macros::xdp,
    programs::XdpContext,
};
use proxy_common::flood;
use proxy_ebpf::frame::Frame as _;

use crate::{passthrough, programs::at_xdp};

/// What benchmarks compare the gate with. Never attached.
#[xdp]
pub fn floor_drop(_: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

/// The gate, asked about another source each time, so that benchmarks see what lookups cost that no cache has
/// the answer to. Never attached.
#[xdp]
pub fn gate_scattered(ctx: XdpContext) -> u32 {
    scatter(&ctx);
    at_xdp(&ctx)
}

/// What giving a packet another source costs. Never attached.
#[xdp]
pub fn floor_scattered(ctx: XdpContext) -> u32 {
    scatter(&ctx);
    xdp_action::XDP_DROP
}

/// Any IPv4 address; of IPv6, any /64 of those that are given to networks (2000::/4).
#[inline(always)]
fn scatter(ctx: &XdpContext) {
    const SOURCE_V4: usize = 14 + 12;
    const SOURCE_V6: usize = 14 + 8;
    let at = ctx.start();
    if at + SOURCE_V4 + 4 > ctx.end() {
        return;
    }
    // SAFETY: below, each address is inside the packet, as the check above shows; words may lie anywhere for
    // the kernel's machine, and volatile accesses stay whole.
    let put = |offset: usize, word: u32| unsafe {
        core::ptr::write_volatile((at + offset) as *mut u32, word);
    };
    // SAFETY: the helper has no conditions.
    let random = || unsafe { bpf_get_prandom_u32() };
    // SAFETY: as for writing.
    let is_v6 = unsafe { core::ptr::read_volatile((at + 12) as *const u8) } == 0x86;
    if is_v6 {
        put(SOURCE_V6, random() & 0xffff_ff0f_u32 | 0x20);
        put(SOURCE_V6 + 4, random());
    } else {
        put(SOURCE_V4, random());
    }
}

/// What port passthrough would cost here. Never attached.
#[xdp]
pub fn forward_at_xdp(ctx: XdpContext) -> u32 {
    passthrough::at_xdp::forward(&ctx)
}

/// Sends a frame that benchmarks have made out of the interface that it names, from one of their sources: run on
/// frames as a driver has them, before they are socket buffers. Never attached.
#[xdp]
pub fn flood_send(ctx: XdpContext) -> u32 {
    let at = ctx.start();
    if at + flood::LENGTH > ctx.end() {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: the helper has no conditions.
    let source = flood::source(unsafe { bpf_get_prandom_u32() } & (flood::SOURCES - 1));
    // SAFETY: here and below, the check above keeps the words inside of the frame; they may lie anywhere for the
    // kernel's machine, and volatile accesses stay whole.
    let read = |offset: usize| unsafe { core::ptr::read_volatile((at + offset) as *const u32) };
    let sum = read(flood::SUM) + (source >> 16) + (source & 0xffff);
    // SAFETY: as above.
    unsafe {
        core::ptr::write_volatile((at + flood::SOURCE) as *mut u32, source.to_be());
        core::ptr::write_volatile((at + flood::CHECKSUM) as *mut u16, flood::checksum(sum).to_be());
    }
    // SAFETY: an interface that isn't there is an error at run time, and the frame is dropped.
    unsafe { bpf_redirect(read(flood::INTERFACE), 0) as u32 }
}
