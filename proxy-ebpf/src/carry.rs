//! The entry points beside the gate: what carries packets on, and what sees the daemon's connections to servers.

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::{classifier, sock_ops},
    programs::{SockOpsContext, TcContext},
};
use proxy_common::forward::StopReason;

use crate::{
    passthrough,
    translate::{self, Passage},
    upstream,
};

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
