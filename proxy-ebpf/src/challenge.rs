//! Handshakes proved: SYNs answered with cookies, and cookies checked, with the kernel's own functions.
//!
//! A cookie is good for nothing unless the listener takes it, and a listener takes cookies only for two minutes after
//! its queue overflowed (or, with `net.ipv4.tcp_syncookies = 2`, after it was last asked for one). That note is the
//! kernel's, is kept with the socket, and no program can make it. So the gate takes over from a listener when that has
//! begun to send cookies itself, and asks it before every answer; until then, and where there is none, SYNs pass. When
//! the note gets old they pass again, until the queue has overflowed anew.
//!
//! Only at XDP: elsewhere there is no sending back.

mod family;
mod listener;

use aya_ebpf::{
    bindings::xdp_md,
    helpers::{bpf_xdp_adjust_tail, bpf_xdp_load_bytes, bpf_xdp_store_bytes},
    programs::XdpContext,
};
use proxy_ebpf::{
    frame::Frame,
    syn_ack::{self, Answer},
};

use self::{
    family::{Family, V4, V6},
    listener::{Headers, Listening},
};

/// What becomes of a segment that has to be proved.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Proof {
    /// It is for the stack: of a connection, or nobody could prove it.
    Passes = 0,
    /// The frame is the answer now.
    Answered = 1,
    /// It refers to what nobody has sent.
    BadCookie = 2,
    /// It is the last step of a handshake, with the kernel's cookie.
    Proved = 3,
}

/// A TCP segment, by where its headers begin in the frame.
#[derive(Clone, Copy)]
pub struct Segment {
    pub network: usize,
    pub transport: usize,
    pub is_v6: bool,
}

const ETHERNET: usize = 14;
/// What a frame is padded to on the wire.
const SHORTEST_FRAME: usize = 60;

/// What needs no proof pays nothing for it: each way is a function of its own, with a stack of its own.
#[inline(always)]
pub fn prove(ctx: *mut xdp_md, Segment { network, transport, is_v6 }: Segment, opens: bool) -> Proof {
    match (is_v6, opens) {
        (false, true) => opening::<V4>(ctx, network, transport),
        (true, true) => opening::<V6>(ctx, network, transport),
        (false, false) => answering::<V4>(ctx, network, transport),
        (true, false) => answering::<V6>(ctx, network, transport),
    }
}

#[inline(never)]
fn opening<F: Family>(ctx: *mut xdp_md, network: usize, transport: usize) -> Proof {
    // 1. The headers, where the kernel's functions want them.
    let Some(mut headers) = Headers::<F>::load(ctx, network, transport) else { return Proof::Passes };
    if !F::can_be_answered(&headers.ip) || is_for_a_group(ctx) {
        return Proof::Passes;
    }

    // 2. The cookie, if the listener would take it.
    let opening = headers.opening();
    let mut answer = F::NO_ANSWER;
    let Some(cookie) = headers.cookie(ctx, &mut answer) else { return Proof::Passes };

    // 3. The answer, from whom the question was for, behind the same VLAN tags.
    let mss = headers.have_options().then(|| F::mss(ctx));
    F::answer(&mut answer, &headers.ip, opening, Answer { cookie, mss });
    let length = if mss.is_some() {
        send_back(ctx, network, &mut answer, size_of::<F::Answer>())
    } else {
        send_back(ctx, network, &mut answer, size_of::<F::Answer>() - syn_ack::OPTION_BYTES)
    };
    let Some(length) = length else { return Proof::Passes };
    shorten(ctx, length);
    Proof::Answered
}

#[inline(never)]
fn answering<F: Family>(ctx: *mut xdp_md, network: usize, transport: usize) -> Proof {
    let Some(mut headers) = Headers::<F>::load(ctx, network, transport) else { return Proof::Passes };
    let mut room = F::NO_ANSWER;
    // A connection, or one in the making, knows what it has sent; and where nobody listens, the stack says so.
    let Some(listener) = Listening::find(ctx, &headers, &mut room) else { return Proof::Passes };
    drop(listener);
    if F::holds_a_cookie(&mut headers.ip, &mut headers.tcp) { Proof::Proved } else { Proof::BadCookie }
}

/// Puts the first `length` bytes of the answer in the place of the question. Gives how long the frame is now.
#[inline(always)]
fn send_back<A>(ctx: *mut xdp_md, network: usize, answer: &mut A, length: usize) -> Option<usize> {
    let mut addresses = [0_u16; 6];
    let bytes = size_of_val(&addresses) as u32;
    // SAFETY: as many bytes as are asked for and as are written. That the answer fits has been shown by loading as
    // much from there; else the helper says so, and nothing has changed yet.
    unsafe {
        if bpf_xdp_load_bytes(ctx, 0, (&raw mut addresses).cast(), bytes) != 0
            || bpf_xdp_store_bytes(ctx, network as u32, (&raw mut *answer).cast(), length as u32) != 0
        {
            return None;
        }
        let [a, b, c, d, e, f] = addresses;
        addresses = [d, e, f, a, b, c];
        if bpf_xdp_store_bytes(ctx, 0, (&raw mut addresses).cast(), bytes) != 0 {
            return None;
        }
    }
    Some(network + length)
}

/// Cuts off what is behind the answer, down to what a frame has at least. Where that fails the rest of the question
/// goes back as padding.
#[inline(always)]
fn shorten(ctx: *mut xdp_md, to: usize) {
    let context = XdpContext::new(ctx);
    let to = if to < SHORTEST_FRAME { SHORTEST_FRAME } else { to };
    let has = context.end() - context.start();
    if has > to {
        // SAFETY: `ctx` is what the program was called with. No address read from it is used after this.
        unsafe { bpf_xdp_adjust_tail(ctx, to as i32 - has as i32) };
    }
}

#[inline(always)]
fn is_for_a_group(ctx: *mut xdp_md) -> bool {
    let context = XdpContext::new(ctx);
    let at = context.start();
    // SAFETY: the first byte is inside of the frame, as the check before it shows.
    at + ETHERNET > context.end() || unsafe { *(at as *const u8) } & 1 != 0
}
