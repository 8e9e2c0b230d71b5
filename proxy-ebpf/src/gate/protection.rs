//! What is asked of a source beside the allowlists: is it blocked, does it send too much?
//!
//! Only of sources that are listed, or where nobody has to be: who is on no list is dropped before, for less. A CDN's
//! sources are spared, each being many visitors, unless it was asked for otherwise.

use proxy_common::{
    limit::SourceKey,
    scope::{Policy, protect},
    verdict::DropReason,
};

use super::{Source, Tables};
use crate::headers::TcpFlags;

/// Who sends what.
pub struct Sender {
    pub source: Source,
    pub key: SourceKey,
    /// SYN and ACK of TCP's flags; [`TcpFlags::SYN`] alone where they can't be read: the rest of a first fragment's
    /// header comes in another fragment, which isn't judged. Of UDP, whatever stands there: its connections aren't
    /// limited. Read with the port, and a number, so that the verifier follows what comes after only once.
    pub flags: u8,
}

/// Why a listed source's packet is dropped all the same.
#[inline(always)]
pub(super) fn refuses(policy: Policy, tables: &impl Tables, sender: &Sender) -> Option<DropReason> {
    // 1. Is it a CDN's?
    let is_cdn = is_cdn(policy, tables, sender.source);

    // 2. Is it blocked?
    if policy.has(protect::BLOCKS) && tables.blocked(sender.source, is_cdn) {
        return Some(DropReason::Blocked);
    }

    // 3. Does it send too much?
    let opens = policy.has(protect::CONNECTIONS) && sender.flags == TcpFlags::SYN;
    let limited = opens || policy.has(protect::PACKETS);
    if !limited || (is_cdn && !policy.has(protect::LIMITS_CDN)) {
        return None;
    }
    tables.spend(sender.key, opens).err()
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
