//! The programs that the kernel loads: entry points, and the table from stop reason to verdict.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![deny(clippy::wildcard_enum_match_arm)]

#[cfg(target_arch = "bpf")]
mod challenge;
#[cfg(target_arch = "bpf")]
mod events;
#[cfg(target_arch = "bpf")]
mod maps;

#[cfg(target_arch = "bpf")]
#[allow(clippy::needless_pass_by_value, reason = "the signature that the attribute macros want")]
mod programs {
    use aya_ebpf::{
        bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
        helpers::{bpf_get_prandom_u32, bpf_xdp_adjust_head},
        macros::{classifier, xdp},
        programs::{TcContext, XdpContext},
    };
    use proxy_common::{
        answer::{Answer, Outcome},
        verdict::DropReason,
    };
    use proxy_ebpf::{
        frame::Frame,
        gate::{Admitted, Stop, judge, source},
        handshake::{Segment, Step},
    };

    use crate::{
        challenge::{Proof, prove},
        events::{self, Packet},
        maps::{GateMaps, Handshakes, report},
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
        let judged = judge(ctx, &GateMaps { handshakes: Handshakes::Proves });
        xdp_action_of(decide(ctx, judged, bytes, |segment| prove(ctx.ctx, segment)))
    }

    /// For kernels without the functions that SYN cookies take: a program that names them can't be loaded there.
    #[xdp]
    pub fn gate_xdp_plain(ctx: XdpContext) -> u32 {
        let bytes = (ctx.end() - ctx.start()) as u64;
        let judged = judge(&ctx, &GateMaps { handshakes: Handshakes::CannotProve });
        xdp_action_of(decide(&ctx, judged, bytes, |_| Proof::Passes))
    }

    #[inline(always)]
    fn xdp_action_of(verdict: Verdict) -> u32 {
        match verdict {
            Verdict::Pass => xdp_action::XDP_PASS,
            Verdict::Drop => xdp_action::XDP_DROP,
            Verdict::SendBack => xdp_action::XDP_TX,
        }
    }

    #[classifier]
    pub fn gate_tc(ctx: TcContext) -> i32 {
        let bytes = u64::from(ctx.len());
        // What comes in here can't be sent back.
        let maps = GateMaps { handshakes: Handshakes::CannotProve };
        let mut judged = judge(&ctx, &maps);
        // A short read here may only mean that the rest lies in another piece.
        if may_be_in_pieces(&judged) && (ctx.end() - ctx.start()) < ctx.len() as usize {
            let _ = ctx.pull_data(PULL.min(ctx.len()));
            judged = judge(&ctx, &maps);
        }
        match decide(&ctx, judged, bytes, |_| Proof::Passes) {
            // Not TC_ACT_OK: whoever is attached behind us is asked as well.
            Verdict::Pass | Verdict::SendBack => TC_ACT_UNSPEC,
            Verdict::Drop => TC_ACT_SHOT,
        }
    }

    /// The gate's judgement with all that is known about it, put in front of the packet. Never attached.
    #[xdp]
    pub fn gate_explain(ctx: XdpContext) -> u32 {
        let bytes = (ctx.end() - ctx.start()) as u64;
        let judged = judge(&ctx, &GateMaps { handshakes: Handshakes::Tells });
        let answer = explain(judged, bytes).to_bytes();
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

    enum Verdict {
        Pass,
        Drop,
        SendBack,
    }

    #[inline(always)]
    fn decide(
        ctx: &(impl Frame + Packet),
        judged: Result<Admitted, Stop>,
        bytes: u64,
        prove: impl FnOnce(Segment) -> Proof,
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
                events::dropped(ctx, entrypoint, reason, bytes);
                Verdict::Drop
            }
            Err(Stop::Shadowed { entrypoint, reason }) => {
                report::shadowed(entrypoint, reason, source(ctx), bytes);
                Verdict::Pass
            }
            Err(Stop::Unproved { policy, segment }) => {
                let entrypoint = policy.entrypoint.into();
                if policy.shadow != 0 {
                    // Nobody got a cookie, so nobody can have one.
                    match segment.step {
                        Step::Opening => report::would_challenge(entrypoint, bytes),
                        Step::Answering => report::passed(entrypoint, bytes),
                    }
                    return Verdict::Pass;
                }
                match prove(segment) {
                    Proof::Passes => {
                        report::passed(entrypoint, bytes);
                        Verdict::Pass
                    }
                    Proof::Answered => {
                        report::challenged(entrypoint, bytes);
                        Verdict::SendBack
                    }
                    Proof::BadCookie => {
                        report::dropped(entrypoint, DropReason::BadCookie, bytes);
                        events::dropped(ctx, entrypoint, DropReason::BadCookie, bytes);
                        Verdict::Drop
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn explain(judged: Result<Admitted, Stop>, bytes: u64) -> Answer {
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
                (answer.entrypoint, answer.reason) = (entrypoint, reason as u32);
                Outcome::Shadowed
            }
            // Whether it is proved, only the program that does it can say.
            Err(Stop::Unproved { policy, .. }) => {
                answer.entrypoint = policy.entrypoint.into();
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
            Err(
                Stop::NotAHeader
                | Stop::Dropped { reason: DropReason::Truncated | DropReason::SplitHeader, .. }
                | Stop::Shadowed { reason: DropReason::Truncated | DropReason::SplitHeader, .. },
            ) => true,
            Ok(_)
            | Err(
                Stop::NotIp
                | Stop::NotGuardable
                | Stop::LaterFragment
                | Stop::NotGuarded
                | Stop::Unproved { .. }
                | Stop::Dropped {
                    reason:
                        DropReason::NotListed
                        | DropReason::ExtensionHeaders
                        | DropReason::ListMissing
                        | DropReason::Malformed
                        | DropReason::VlanTags
                        | DropReason::BadCookie,
                    ..
                }
                | Stop::Shadowed {
                    reason:
                        DropReason::NotListed
                        | DropReason::ExtensionHeaders
                        | DropReason::ListMissing
                        | DropReason::Malformed
                        | DropReason::VlanTags
                        | DropReason::BadCookie,
                    ..
                },
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
