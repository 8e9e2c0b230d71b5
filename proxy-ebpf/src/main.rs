//! The programs that the kernel loads: entry points, and the table from stop reason to verdict.

#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]
#![deny(clippy::wildcard_enum_match_arm)]

#[cfg(target_arch = "bpf")]
mod challenge;
#[cfg(target_arch = "bpf")]
mod events;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod passthrough;
#[cfg(target_arch = "bpf")]
mod translate;
#[cfg(target_arch = "bpf")]
mod upstream;

#[cfg(target_arch = "bpf")]
#[allow(clippy::needless_pass_by_value, reason = "the signature that the attribute macros want")]
mod programs {
    use aya_ebpf::{
        bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
        helpers::{bpf_get_prandom_u32, bpf_redirect, bpf_xdp_adjust_head},
        macros::{classifier, sock_ops, xdp},
        programs::{SockOpsContext, TcContext, XdpContext},
    };
    use proxy_common::{
        answer::{Answer, Outcome},
        flood,
        forward::StopReason,
        syn_flood::Unproved,
        verdict::DropReason,
    };
    use proxy_ebpf::{
        frame::Frame,
        gate::{Admitted, Stop, Tables, judge, source},
    };

    use crate::{
        challenge::{Proof, Segment, prove},
        events::{self, Decided, Packet},
        maps::{GateMaps, handed_over, prove_next, report},
        passthrough,
        translate::{self, Passage},
        upstream,
    };

    /// How much of a packet is made readable when its headers don't lie in one piece: more than the deepest
    /// headers that the gate walks usually take, less than what is dear to copy.
    const PULL: u32 = 512;

    #[xdp]
    pub fn gate_xdp(ctx: XdpContext) -> u32 {
        at_xdp(&ctx)
    }

    #[inline(always)]
    fn at_xdp(ctx: &XdpContext) -> u32 {
        let bytes = (ctx.end() - ctx.start()) as u64;
        let judged = judge(ctx, &GateMaps::<true, true>);
        match decide(ctx, judged, bytes, || prove_next(ctx)) {
            Verdict::Pass => xdp_action::XDP_PASS,
            Verdict::Drop => xdp_action::XDP_DROP,
        }
    }

    #[classifier]
    pub fn gate_tc(ctx: TcContext) -> i32 {
        let bytes = u64::from(ctx.len());
        // What comes in here can't be sent back.
        let maps = GateMaps::<true, false>;
        let mut judged = judge(&ctx, &maps);
        // A short read here may only mean that the rest lies in another piece.
        if may_be_in_pieces(&judged) && (ctx.end() - ctx.start()) < ctx.len() as usize {
            let _ = ctx.pull_data(PULL.min(ctx.len()));
            judged = judge(&ctx, &maps);
        }
        match decide(&ctx, judged, bytes, || {}) {
            // Not TC_ACT_OK: whoever is attached behind us is asked as well.
            Verdict::Pass => TC_ACT_UNSPEC,
            Verdict::Drop => TC_ACT_SHOT,
        }
    }

    /// Port passthrough, behind the gate and in front of the stack.
    #[classifier]
    pub fn forward_tc(ctx: TcContext) -> i32 {
        let bytes = u64::from(ctx.len());
        match passthrough::forward(&ctx) {
            Ok(sent) => sent,
            Err(passthrough::Stop::NotOurs) => TC_ACT_UNSPEC,
            Err(passthrough::Stop::Refused { service, reason }) => {
                passthrough::stopped(service, reason, bytes);
                match reason {
                    // The stack refuses it: nobody listens there.
                    StopReason::NoServer | StopReason::NoFlow => TC_ACT_UNSPEC,
                    StopReason::Reset => passthrough::reset(&ctx),
                    StopReason::TooBig => passthrough::too_big(&ctx),
                    StopReason::NoPort
                    | StopReason::TableFull
                    | StopReason::Fragment
                    | StopReason::Malformed
                    | StopReason::Hops
                    | StopReason::NoRoute
                    | StopReason::WrongInterface => TC_ACT_SHOT,
                }
            }
        }
    }

    /// Has a handshake proved that the gate at XDP has handed over: a program of its own, with a stack of its own and
    /// judged by the verifier for itself, so that the gate loads also where this doesn't.
    #[xdp]
    pub fn gate_prove(ctx: XdpContext) -> u32 {
        let bytes = (ctx.end() - ctx.start()) as u64;
        let Some(Unproved { source, network, transport, is_v6, opens, limited, .. }) = handed_over() else {
            return xdp_action::XDP_PASS;
        };
        let entrypoint = source.entrypoint.into();
        let segment = Segment { network: network.into(), transport: transport.into(), is_v6: is_v6 != 0 };
        let drop = |reason| {
            report::dropped(entrypoint, reason, bytes);
            events::tell_if_watched(&ctx, &Decided { entrypoint, reason, bytes, shadowed: false });
            xdp_action::XDP_DROP
        };

        // 1. Is there anybody?
        let opens = match prove(ctx.ctx, segment, opens != 0) {
            Proof::Answered => {
                report::challenged(entrypoint, bytes);
                return xdp_action::XDP_TX;
            }
            Proof::BadCookie => return drop(DropReason::BadCookie),
            // What shows a cookie makes a connection.
            Proof::Proved => true,
            Proof::Passes => opens != 0,
        };

        // 2. Does it send too much?
        if limited != 0
            && let Err(reason) = GateMaps::<true, true>.spend(source, opens)
        {
            return drop(reason);
        }
        report::passed(entrypoint, bytes);
        xdp_action::XDP_PASS
    }

    /// The gate's judgement with all that is known about it, put in front of the packet. Never attached.
    #[xdp]
    pub fn gate_explain(ctx: XdpContext) -> u32 {
        let bytes = (ctx.end() - ctx.start()) as u64;
        let judged = judge(&ctx, &GateMaps::<false, true>);
        let answer = explain(&ctx, judged, bytes).to_bytes();
        // SAFETY: `ctx` is what this program was called with. Every address read from it before is stale now.
        if unsafe { bpf_xdp_adjust_head(ctx.ctx, -(Answer::BYTES as i32)) } != 0
            || ctx.start() + Answer::BYTES > ctx.end()
        {
            return xdp_action::XDP_ABORTED;
        }
        // SAFETY: the check above keeps all of the answer inside of the packet, and bytes may lie anywhere.
        unsafe { (ctx.start() as *mut [u8; Answer::BYTES]).write_unaligned(answer) };
        xdp_action::XDP_PASS
    }

    /// Carries connections that the daemon has handed to the kernel.
    #[classifier]
    pub fn translate_tc(ctx: TcContext) -> i32 {
        match translate::translate(&ctx) {
            Passage::Stays => TC_ACT_UNSPEC,
            Passage::Leaves(how) => how,
            Passage::TooLong(carried) => passthrough::too_long(&ctx, carried),
            Passage::Dropped(loss) => {
                translate::count(loss);
                TC_ACT_SHOT
            }
        }
    }

    /// Sees the daemon's connections to servers. Nothing is asked of it, so what it returns doesn't matter.
    #[sock_ops]
    pub fn upstream_watch(ctx: SockOpsContext) -> u32 {
        upstream::watch(&ctx);
        1
    }

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

    enum Verdict {
        Pass,
        Drop,
    }

    #[inline(always)]
    fn decide(
        ctx: &(impl Frame + Packet),
        judged: Result<Admitted, Stop>,
        bytes: u64,
        go_on: impl FnOnce(),
    ) -> Verdict {
        match judged {
            Ok(admitted) => {
                report::passed(admitted.entrypoint, bytes);
                Verdict::Pass
            }
            Err(
                Stop::NotIp | Stop::NotAHeader | Stop::NotGuardable | Stop::LaterFragment | Stop::NotGuarded,
            ) => Verdict::Pass,
            Err(Stop::Dropped { entrypoint, reason }) => {
                report::dropped(entrypoint, reason, bytes);
                events::tell_if_watched(ctx, &Decided { entrypoint, reason, bytes, shadowed: false });
                Verdict::Drop
            }
            Err(Stop::Shadowed { entrypoint, reason }) => {
                report::shadowed(entrypoint, reason, source(ctx), bytes);
                events::tell_if_watched(ctx, &Decided { entrypoint, reason, bytes, shadowed: true });
                Verdict::Pass
            }
            Err(Stop::UnprovedInRehearsal { entrypoint }) => {
                report::would_challenge(entrypoint, bytes);
                Verdict::Pass
            }
            Err(Stop::Unproved { entrypoint }) => {
                go_on();
                // The kernel hasn't taken the program. The source may come in: guarding comes first.
                report::passed(entrypoint, bytes);
                Verdict::Pass
            }
        }
    }

    #[inline(always)]
    fn explain(ctx: &impl Frame, judged: Result<Admitted, Stop>, bytes: u64) -> Answer {
        let mut answer = Answer { generation: report::generation(), ..Answer::default() };
        let outcome = match judged {
            Ok(admitted) => {
                report::tried(admitted.entrypoint, None, bytes);
                (answer.entrypoint, answer.list) = (admitted.entrypoint, admitted.list);
                Outcome::Admitted
            }
            Err(Stop::Dropped { entrypoint, reason }) => {
                report::tried(entrypoint, Some(reason), bytes);
                (answer.entrypoint, answer.reason) = (entrypoint, reason as u32);
                Outcome::Dropped
            }
            Err(Stop::Shadowed { entrypoint, reason }) => {
                report::tried_shadowed(entrypoint, reason, source(ctx), bytes);
                (answer.entrypoint, answer.reason) = (entrypoint, reason as u32);
                Outcome::Shadowed
            }
            // Whether it is proved, only the program that does it can say.
            Err(Stop::Unproved { entrypoint } | Stop::UnprovedInRehearsal { entrypoint }) => {
                answer.entrypoint = entrypoint;
                Outcome::Unproved
            }
            Err(Stop::NotIp) => Outcome::NotIp,
            Err(Stop::NotAHeader) => Outcome::NotAHeader,
            Err(Stop::NotGuardable) => Outcome::NotGuardable,
            Err(Stop::LaterFragment) => Outcome::LaterFragment,
            Err(Stop::NotGuarded) => Outcome::NotGuarded,
        };
        answer.outcome = outcome as u32;
        answer
    }

    #[inline(always)]
    fn may_be_in_pieces(judged: &Result<Admitted, Stop>) -> bool {
        match judged {
            Err(Stop::NotAHeader) => true,
            Err(Stop::Dropped { reason, .. } | Stop::Shadowed { reason, .. }) => reason.may_be_in_pieces(),
            Ok(_)
            | Err(
                Stop::NotIp
                | Stop::NotGuardable
                | Stop::LaterFragment
                | Stop::NotGuarded
                | Stop::Unproved { .. }
                | Stop::UnprovedInRehearsal { .. },
            ) => false,
        }
    }

    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo) -> ! {
        // The verifier refuses an endless loop, so an object in which this can be reached never loads.
        loop {}
    }
}

/// `cargo check` on the host wants an entry point.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
