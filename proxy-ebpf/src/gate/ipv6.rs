//! The gate for IPv6.

use proxy_common::{
    admission::SOME_LIST,
    limit::SourceKey,
    scope::{TCP, UDP, protect},
    verdict::DropReason,
};

use super::{Admits, Admitted, Place, Sender, Stop, Tables, admit, key_v6, unreadable};
use crate::{
    frame::{Frame, TooShort, Wire, read},
    headers::{Extension, Ipv6, Ipv6Fragment, Ports, Tcp, extension},
};

/// Extension headers that are looked behind. More than RFC 8200 recommends to send, hop-by-hop and
/// authentication included.
const EXTENSION_HEADERS: usize = 6;

#[inline(always)]
pub(super) fn judge(frame: &impl Frame, offset: usize, tables: &impl Tables) -> Result<Admitted, Stop> {
    // 1. The header. Without the whole of it there is no address to guard.
    let header: &Ipv6 = read(frame, offset)?;

    let unreadable = |reason| Err(unreadable(tables, header.destination.read(), reason));

    // 2. The transport header, behind the extension headers if there are any. What lies behind the packet's own end
    //    is padding, which the stack cuts off: whatever stands there is a lie.
    let mut walk = Walk { at: 0, end: header.payload_length(), has_more_fragments: false };
    let protocol = match walk.transport(frame, offset + size_of::<Ipv6>(), header.next_header) {
        Ok(protocol) => protocol,
        Err(Unreached::Stop(stop)) => return Err(stop),
        Err(Unreached::Unreadable(reason)) => return unreadable(reason),
    };
    let Ok(ports) = walk.read::<Ports>(frame, offset + size_of::<Ipv6>()) else {
        return unreadable(walk.short());
    };

    let port = ports.destination();
    let place = Place {
        is_v6: true,
        network: offset,
        transport: offset + size_of::<Ipv6>() + walk.at,
        is_cut: walk.at + size_of::<Tcp>() > walk.end,
        has_more_fragments: walk.has_more_fragments,
    }
    .forgotten();

    // 3. Is it guarded?
    let key = key_v6(header.destination.read(), protocol, port);
    let source = header.source.read();
    let policy = tables.policy(&key).ok_or(Stop::NotGuarded)?;

    // 4. Is the source listed, not blocked, proved if need be, and within its limits?
    let listed = match policy.has(protect::OPEN) {
        true => Admits::Listed(SOME_LIST),
        false => tables.admits_v6(policy.admission.into(), source),
    };
    let sender = Sender { source, key: SourceKey::v6([source[0], source[1]], policy.entrypoint), place };
    admit(frame, tables, policy, listed, &sender)
}

/// Where we are behind the fixed header.
struct Walk {
    at: usize,
    end: usize,
    /// Of a first fragment that is not the only one.
    has_more_fragments: bool,
}

enum Unreached {
    /// There is none, or none that could be guarded.
    Stop(Stop),
    /// There may be one.
    Unreadable(DropReason),
}

// === impl Walk ===

impl Walk {
    /// Walks the extension headers, to a transport protocol that could be guarded.
    #[inline(always)]
    fn transport(&mut self, frame: &impl Frame, from: usize, mut next: u8) -> Result<u8, Unreached> {
        for _ in 0..=EXTENSION_HEADERS {
            match next {
                TCP | UDP => return Ok(next),
                extension::HOP_BY_HOP
                | extension::ROUTING
                | extension::DESTINATION_OPTIONS
                | extension::MOBILITY
                | extension::HIP
                | extension::SHIM6 => {
                    let header: &Extension = self.read_extension(frame, from)?;
                    next = header.next_header;
                    self.at += header.length();
                }
                extension::AUTHENTICATION => {
                    let header: &Extension = self.read_extension(frame, from)?;
                    next = header.next_header;
                    self.at += header.authentication_length();
                }
                extension::FRAGMENT => {
                    let header: &Ipv6Fragment = self.read_extension(frame, from)?;
                    if header.is_later_fragment() {
                        return Err(Unreached::Stop(Stop::LaterFragment));
                    }
                    self.has_more_fragments |= header.has_more_fragments();
                    next = header.next_header;
                    self.at += size_of::<Ipv6Fragment>();
                }
                _ => return Err(Unreached::Stop(Stop::NotGuardable)),
            }
        }
        Err(Unreached::Unreadable(DropReason::ExtensionHeaders))
    }

    #[inline(always)]
    fn read_extension<'f, T: Wire>(&self, frame: &'f impl Frame, from: usize) -> Result<&'f T, Unreached> {
        self.read(frame, from).map_err(|_| Unreached::Unreadable(self.short()))
    }

    #[inline(always)]
    fn read<'f, T: Wire>(&self, frame: &'f impl Frame, from: usize) -> Result<&'f T, TooShort> {
        if self.at + size_of::<T>() > self.end {
            return Err(TooShort);
        }
        read(frame, from + self.at)
    }

    /// Why nothing can be read here.
    #[inline(always)]
    fn short(&self) -> DropReason {
        if self.has_more_fragments { DropReason::SplitHeader } else { DropReason::Truncated }
    }
}
