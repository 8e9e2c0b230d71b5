//! The programs that the kernel loads: entry points, and the table from stop reason to verdict.
//!
//! With the feature `log` it is the gate alone, and tells what it does (`log.rs`).

#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]
#![deny(clippy::wildcard_enum_match_arm)]

#[cfg(all(target_arch = "bpf", not(feature = "log")))]
mod carry;
#[cfg(target_arch = "bpf")]
mod challenge;
#[cfg(target_arch = "bpf")]
mod events;
#[cfg(all(target_arch = "bpf", feature = "log"))]
mod log;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(all(target_arch = "bpf", not(feature = "log")))]
mod measured;
#[cfg(all(target_arch = "bpf", not(feature = "log")))]
mod passthrough;
#[cfg(all(target_arch = "bpf", not(feature = "log")))]
mod translate;
#[cfg(all(target_arch = "bpf", not(feature = "log")))]
mod upstream;

#[cfg(target_arch = "bpf")]
#[allow(clippy::needless_pass_by_value, reason = "the signature that the attribute macros want")]
mod programs {
    use aya_ebpf::{
        EbpfContext,
        bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
        helpers::bpf_xdp_adjust_head,
        macros::{classifier, xdp},
        programs::{TcContext, XdpContext},
    };
    use proxy_common::{
        answer::{Answer, Outcome},
        syn_flood::Unproved,
        verdict::DropReason,
    };
    use proxy_ebpf::{
        frame::Frame,
        gate::{Admitted, Stop, Tables, judge, source},
    };

    #[cfg(feature = "log")]
    use crate::log;
    use crate::{
        challenge::{Proof, Segment, prove},
        events::{self, Decided, Packet},
        maps::{GateMaps, handed_over, prove_next, report},
    };

    /// How much of a packet is made readable when its headers don't lie in one piece: more than the deepest
    /// headers that the gate walks usually take, less than what is dear to copy.
    const PULL: u32 = 512;

    #[xdp]
    pub fn gate_xdp(ctx: XdpContext) -> u32 {
        at_xdp(&ctx)
    }

    #[inline(always)]
    pub fn at_xdp(ctx: &XdpContext) -> u32 {
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
            tell(&ctx, &Decided { entrypoint, reason, bytes, shadowed: false });
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
        tell_of_passed(&ctx, entrypoint);
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

    enum Verdict {
        Pass,
        Drop,
    }

    #[inline(always)]
    fn decide(
        ctx: &(impl Frame + Packet + EbpfContext),
        judged: Result<Admitted, Stop>,
        bytes: u64,
        go_on: impl FnOnce(),
    ) -> Verdict {
        match judged {
            Ok(admitted) => {
                report::passed(admitted.entrypoint, bytes);
                tell_of_passed(ctx, admitted.entrypoint);
                Verdict::Pass
            }
            Err(
                Stop::NotIp | Stop::NotAHeader | Stop::NotGuardable | Stop::LaterFragment | Stop::NotGuarded,
            ) => Verdict::Pass,
            Err(Stop::Dropped { entrypoint, reason }) => {
                report::dropped(entrypoint, reason, bytes);
                tell(ctx, &Decided { entrypoint, reason, bytes, shadowed: false });
                Verdict::Drop
            }
            Err(Stop::Shadowed { entrypoint, reason }) => {
                report::shadowed(entrypoint, reason, source(ctx), bytes);
                tell(ctx, &Decided { entrypoint, reason, bytes, shadowed: true });
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

    /// Dropped, or it would be.
    #[inline(always)]
    fn tell(ctx: &(impl Frame + Packet + EbpfContext), decided: &Decided) {
        events::tell_if_watched(ctx, decided);
        #[cfg(feature = "log")]
        log::stopped(ctx, decided);
    }

    #[cfg_attr(not(feature = "log"), allow(unused_variables, reason = "only the other object tells of it"))]
    #[inline(always)]
    fn tell_of_passed(ctx: &(impl Frame + Packet + EbpfContext), entrypoint: u32) {
        #[cfg(feature = "log")]
        log::passed(ctx, entrypoint);
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
