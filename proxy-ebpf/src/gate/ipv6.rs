//! The gate for IPv6.

use proxy_common::{
    scope::{TCP, UDP},
    verdict::DropReason,
};

use super::{Admitted, Stop, Tables, admit, key_v6, unreadable};
use crate::{
    frame::{Frame, read},
    headers::{Extension, Ipv6, Ipv6Fragment, Ports, extension},
};

/// Extension headers that are looked behind. More than RFC 8200 recommends to send, hop-by-hop and
/// authentication included.
const EXTENSION_HEADERS: usize = 6;

#[inline(always)]
pub(super) fn judge(frame: &impl Frame, offset: usize, tables: &impl Tables) -> Result<Admitted, Stop> {
    // 1. The header. Without the whole of it there is no address to guard.
    let header: &Ipv6 = read(frame, offset)?;

    // 2. The transport header, behind the extension headers if there are any.
    let transport = match transport(frame, offset + size_of::<Ipv6>(), header.next_header) {
        Ok(transport) => transport,
        Err(Unreached::Stop(stop)) => return Err(stop),
        Err(Unreached::Unreadable(reason)) => {
            return Err(unreadable(tables, header.destination.read(), reason));
        }
    };
    let Ok(ports) = read::<Ports>(frame, transport.offset) else {
        return Err(unreadable(tables, header.destination.read(), DropReason::Truncated));
    };

    // 3. Is it guarded?
    let key = key_v6(header.destination.read(), transport.protocol, ports.destination());
    let policy = tables.policy(&key).ok_or(Stop::NotGuarded)?;

    // 4. Is the source listed?
    admit(policy, tables.admits_v6(policy.admission, header.source.read()))
}

struct Transport {
    protocol: u8,
    offset: usize,
}

enum Unreached {
    /// There is none, or none that could be guarded.
    Stop(Stop),
    /// There may be one.
    Unreadable(DropReason),
}

/// Walks the extension headers.
#[inline(always)]
fn transport(frame: &impl Frame, mut offset: usize, mut next: u8) -> Result<Transport, Unreached> {
    for _ in 0..=EXTENSION_HEADERS {
        match next {
            TCP | UDP => return Ok(Transport { protocol: next, offset }),
            extension::HOP_BY_HOP
            | extension::ROUTING
            | extension::DESTINATION_OPTIONS
            | extension::MOBILITY
            | extension::HIP
            | extension::SHIM6 => {
                let header: &Extension = read(frame, offset).map_err(|_| Unreached::TRUNCATED)?;
                next = header.next_header;
                offset += header.length();
            }
            extension::AUTHENTICATION => {
                let header: &Extension = read(frame, offset).map_err(|_| Unreached::TRUNCATED)?;
                next = header.next_header;
                offset += header.authentication_length();
            }
            extension::FRAGMENT => {
                let header: &Ipv6Fragment = read(frame, offset).map_err(|_| Unreached::TRUNCATED)?;
                if header.is_later_fragment() {
                    return Err(Unreached::Stop(Stop::LaterFragment));
                }
                next = header.next_header;
                offset += size_of::<Ipv6Fragment>();
            }
            _ => return Err(Unreached::Stop(Stop::NotGuardable)),
        }
    }
    Err(Unreached::Unreadable(DropReason::ExtensionHeaders))
}

impl Unreached {
    const TRUNCATED: Self = Self::Unreadable(DropReason::Truncated);
}
