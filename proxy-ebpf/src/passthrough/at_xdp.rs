//! What port passthrough would cost at XDP: a client's packet of a known flow is parsed, its flow and its way are looked up, its
//! headers and checksums rewritten and its frame redirected, by the same functions as at tcx where there are such. Benchmarks run it
//! over bare frames; it is never attached (docs/kernel-passthrough.md says why it isn't offered).

use aya_ebpf::{
    bindings::{BPF_FIB_LKUP_RET_SUCCESS, xdp_action},
    helpers::{bpf_fib_lookup, bpf_ktime_get_coarse_ns, bpf_redirect},
    programs::XdpContext,
};
use proxy_common::{
    flow::{Side, State, step},
    forward::ServiceKey,
};
use proxy_ebpf::{
    forward::{
        Ends, Seen,
        checksum::Difference,
        parse::look,
        rewrite::{self, Edit, Part, Refused},
        words,
    },
    frame::Frame,
    word::Word,
};

use super::maps::{FORWARD_FLOWS, FORWARD_SERVICES, count, room, settings};

const AF_INET: u8 = 2;
/// No header that is changed begins behind this.
const MASK: usize = 0xff;

/// What the hook is to be told.
#[inline(always)]
pub fn forward(ctx: &XdpContext) -> u32 {
    let (Some(_), Some(room)) = (settings(), room()) else { return xdp_action::XDP_ABORTED };
    // SAFETY: the helper has no conditions.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    if look(ctx, &mut room.packet, &mut room.quote) != Seen::Packet || room.packet.is_v6 {
        return xdp_action::XDP_PASS;
    }

    // 1. Whose is it?
    let key = &room.packet.key;
    let wanted = ServiceKey::new(key.destination, key.protocol as u8, key.destination_port);
    if FORWARD_SERVICES.get_ptr(&wanted).is_none() {
        return xdp_action::XDP_PASS;
    }
    let Some(flow) = FORWARD_FLOWS.get_ptr_mut(&room.packet.key) else { return xdp_action::XDP_PASS };
    // SAFETY: a flow in the map, as at tcx.
    let flow = unsafe { &mut *flow };
    let ends = Ends {
        source: words(flow.source),
        destination: words(flow.server),
        source_port: flow.source_port,
        destination_port: flow.server_port,
    };

    // 2. The way there.
    let fib = &mut room.fib;
    fib.family = AF_INET;
    fib.l4_protocol = room.packet.key.protocol as u8;
    (fib.sport, fib.dport) = (ends.source_port.to_be(), ends.destination_port.to_be());
    fib.__bindgen_anon_1.tot_len = room.packet.length as u16;
    fib.ifindex = flow.client_interface;
    fib.__bindgen_anon_2.flowinfo = 0;
    fib.__bindgen_anon_3.ipv4_src = ends.source[3];
    fib.__bindgen_anon_4.ipv4_dst = ends.destination[3];
    fib.__bindgen_anon_5.tbid = 0;
    // SAFETY: as many bytes as there are.
    let found = unsafe { bpf_fib_lookup(ctx.ctx.cast(), &raw mut *fib, size_of_val(fib) as i32, 0) };
    // There is no helper at XDP that asks for a neighbour's address: the stack would have to.
    if found as u32 != BPF_FIB_LKUP_RET_SUCCESS {
        return xdp_action::XDP_PASS;
    }

    // 3. Its headers.
    let (to, from) = (fib.dmac, fib.smac);
    let mut edit = Bare(ctx);
    let written =
        rewrite::translate(&mut edit, &room.packet, &ends).and_then(|()| edit.store(0, &[to, from]));
    if written == Err(Refused) {
        return xdp_action::XDP_ABORTED;
    }

    // 4. What is known of its flow now.
    let state = State::of_number(flow.state).unwrap_or(State::Open);
    let (next, _) = step(state, flow.fin, Side::Client, room.packet.segment);
    if flow.last_packet != now {
        // SAFETY: an aligned word of a map's value.
        unsafe { Word::of(&raw mut flow.last_packet) }.store(now);
    }
    flow.state = next as u16;
    count(flow, Side::Client, (ctx.end() - ctx.start()) as u64);
    // SAFETY: an interface that is gone is an error when it is sent.
    unsafe { bpf_redirect(room.fib.ifindex, 0) as u32 }
}

/// A frame that is changed where it lies.
struct Bare<'a>(&'a XdpContext);

impl Bare<'_> {
    #[inline(always)]
    fn at<T>(&self, offset: usize) -> Result<*mut T, Refused> {
        let at = self.0.start() + (offset & MASK);
        if at + size_of::<T>() > self.0.end() { Err(Refused) } else { Ok(at as *mut T) }
    }

    #[inline(always)]
    fn mend(&self, offset: usize, by: Difference, may_be_absent: bool) -> Result<(), Refused> {
        let place = self.at::<u16>(offset)?;
        // SAFETY: inside of the frame; the kernel's machine reads words from anywhere.
        let sum = unsafe { core::ptr::read_volatile(place) };
        if !(may_be_absent && sum == 0) {
            // SAFETY: as above.
            unsafe { core::ptr::write_volatile(place, by.apply(sum)) };
        }
        Ok(())
    }
}

impl Edit for Bare<'_> {
    #[inline(always)]
    fn store<T: Copy>(&mut self, offset: usize, value: &T) -> Result<(), Refused> {
        // SAFETY: inside of the frame, and the bytes of what is stored there may lie anywhere.
        unsafe { self.at::<T>(offset)?.write_unaligned(*value) };
        Ok(())
    }

    #[inline(always)]
    fn header_checksum(&mut self, offset: usize, by: Difference) -> Result<(), Refused> {
        self.mend(offset, by, false)
    }

    #[inline(always)]
    fn checksum(
        &mut self,
        offset: usize,
        by: Difference,
        _: Part,
        may_be_absent: bool,
    ) -> Result<(), Refused> {
        self.mend(offset, by, may_be_absent)
    }

    #[inline(always)]
    fn total(&mut self, _: Difference) {}
}
