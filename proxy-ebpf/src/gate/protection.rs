//! What is asked of a source beside the allowlists: is it blocked, is there anybody at all, does it send too much?
//!
//! Only of sources that are listed, or where nobody has to be: who is on no list is dropped before, for less. A CDN's
//! sources are spared, each being many visitors, unless it was asked for otherwise.
//!
//! What has to be proved is asked before what a source sends is counted: during a flood the sources are invented, and
//! counting would take from those whose addresses they are, and push everybody else out of what is remembered.

use proxy_common::{
    limit::SourceKey,
    scope::{Policy, protect},
    syn_flood::Unproved,
    verdict::DropReason,
};

use super::{Place, Source, Stop, Tables, stopped};
use crate::{frame::Frame, handshake, headers::Tcp};

/// Who sends what.
pub struct Sender {
    pub source: Source,
    pub key: SourceKey,
    pub place: Place,
}

const ABOUT_SOURCES: u8 = protect::BLOCKS | protect::PACKETS | protect::CONNECTIONS;

/// Judges what a source sends that may come in.
#[inline(always)]
pub(super) fn judge(
    frame: &impl Frame,
    tables: &impl Tables,
    policy: Policy,
    sender: &Sender,
) -> Result<(), Stop> {
    // 1. Is it a CDN's?
    let is_cdn = policy.has(ABOUT_SOURCES) && is_cdn(policy, tables, sender.source);

    // 2. Is it blocked?
    if policy.has(protect::BLOCKS) && tables.blocked(sender.source, is_cdn) {
        return Err(stopped(policy, DropReason::Blocked));
    }

    let limited =
        policy.has(protect::PACKETS | protect::CONNECTIONS) && (policy.has(protect::LIMITS_CDN) || !is_cdn);

    // 3. Does it have to be proved that there is anybody at the source?
    let mut opens = false;
    if policy.has(protect::SYN_COOKIES | protect::CONNECTIONS) {
        let flags = handshake::flags(frame, sender.place);
        opens = policy.has(protect::CONNECTIONS) && flags & (Tcp::SYN | Tcp::ACK) == Tcp::SYN;
        if policy.has(protect::SYN_COOKIES)
            && let Some(step) = handshake::unproved(tables, policy, sender.place, flags)?
            && !is_spared(policy, tables, sender.source)
        {
            let entrypoint = policy.entrypoint.into();
            if policy.shadow != 0 {
                return Err(Stop::UnprovedInRehearsal { entrypoint });
            }
            tables.keep(&Unproved {
                source: sender.key,
                network: sender.place.network as u16,
                transport: sender.place.transport as u16,
                is_v6: sender.place.is_v6.into(),
                opens: (step == handshake::Step::Opening).into(),
                limited: limited.into(),
                reserved: 0,
            });
            return Err(Stop::Unproved { entrypoint });
        }
    }

    // 4. Does it send too much?
    if !limited || !(opens || policy.has(protect::PACKETS)) {
        return Ok(());
    }
    tables.spend(sender.key, opens).map_err(|reason| stopped(policy, reason))
}

/// A CDN proves nothing unless that is asked for.
#[inline(always)]
fn is_spared(policy: Policy, tables: &impl Tables, source: Source) -> bool {
    !policy.has(protect::SYN_COOKIES_OF_CDN) && is_cdn(policy, tables, source)
}

/// Whether a source that came in by `policy` is a CDN's.
#[inline(always)]
pub fn is_cdn(policy: Policy, tables: &impl Tables, source: Source) -> bool {
    match policy.cdn {
        Policy::NO_CDN => false,
        // All of the lists are: it is on one of them.
        cdn if cdn == policy.admission => true,
        _ => tables.is_cdn(source),
    }
}
