//! The programs that the kernel loads: entry points, and the table from stop reason to verdict.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![deny(clippy::wildcard_enum_match_arm)]

#[cfg(target_arch = "bpf")]
mod maps;

#[cfg(target_arch = "bpf")]
#[allow(clippy::needless_pass_by_value, reason = "the signature that the attribute macros want")]
mod programs {
    use aya_ebpf::{
        bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
        macros::{classifier, xdp},
        programs::{TcContext, XdpContext},
    };
    use proxy_common::verdict::DropReason;
    use proxy_ebpf::{
        frame::Frame,
        gate::{Admitted, Stop, judge, source},
    };

    use crate::maps::{GateMaps, report};

    /// How much of a packet is made readable when its headers don't lie in one piece: more than the deepest
    /// headers that the gate walks usually take, less than what is dear to copy.
    const PULL: u32 = 512;

    #[xdp]
    pub fn gate_xdp(ctx: XdpContext) -> u32 {
        let bytes = (ctx.end() - ctx.start()) as u64;
        match decide(&ctx, judge(&ctx, &GateMaps), bytes) {
            Verdict::Pass => xdp_action::XDP_PASS,
            Verdict::Drop => xdp_action::XDP_DROP,
        }
    }

    #[classifier]
    pub fn gate_tc(ctx: TcContext) -> i32 {
        let bytes = u64::from(ctx.len());
        let mut judged = judge(&ctx, &GateMaps);
        // A short read here may only mean that the rest lies in another piece.
        if may_be_in_pieces(&judged) && (ctx.end() - ctx.start()) < ctx.len() as usize {
            let _ = ctx.pull_data(PULL.min(ctx.len()));
            judged = judge(&ctx, &GateMaps);
        }
        match decide(&ctx, judged, bytes) {
            // Not TC_ACT_OK: whoever is attached behind us is asked as well.
            Verdict::Pass => TC_ACT_UNSPEC,
            Verdict::Drop => TC_ACT_SHOT,
        }
    }

    /// What benchmarks compare the gate with. Never attached.
    #[xdp]
    pub fn floor_drop(_: XdpContext) -> u32 {
        xdp_action::XDP_DROP
    }

    enum Verdict {
        Pass,
        Drop,
    }

    #[inline(always)]
    fn decide(ctx: &impl Frame, judged: Result<Admitted, Stop>, bytes: u64) -> Verdict {
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
                Verdict::Drop
            }
            Err(Stop::Shadowed { entrypoint, reason }) => {
                report::shadowed(entrypoint, reason, source(ctx), bytes);
                Verdict::Pass
            }
        }
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
                | Stop::Dropped {
                    reason:
                        DropReason::NotListed
                        | DropReason::ExtensionHeaders
                        | DropReason::ListMissing
                        | DropReason::Malformed
                        | DropReason::VlanTags,
                    ..
                }
                | Stop::Shadowed {
                    reason:
                        DropReason::NotListed
                        | DropReason::ExtensionHeaders
                        | DropReason::ListMissing
                        | DropReason::Malformed
                        | DropReason::VlanTags,
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
