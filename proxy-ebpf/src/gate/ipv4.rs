//! The gate for IPv4.

use proxy_common::{
    scope::{TCP, UDP, protect},
    verdict::DropReason,
};

use super::{Admitted, Stop, Tables, admit, key_v4, mapped, unreadable};
use crate::{
    frame::{Frame, read},
    handshake::{Place, unproved},
    headers::{Ipv4, Ports},
};

#[inline(always)]
pub(super) fn judge(frame: &impl Frame, offset: usize, tables: &impl Tables) -> Result<Admitted, Stop> {
    // 1. The header. Without the whole of its fixed part there is no address to guard.
    let header: &Ipv4 = read(frame, offset)?;
    let protocol = header.protocol;
    if protocol != TCP && protocol != UDP {
        return Err(Stop::NotGuardable);
    }
    if header.is_later_fragment() {
        return Err(Stop::LaterFragment);
    }
    let unreadable = |reason| Err(unreadable(tables, mapped(header.destination.read()), reason));
    let length = header.length();
    if length < size_of::<Ipv4>() {
        return unreadable(DropReason::Malformed);
    }

    // 2. The port, behind the options if there are any. What lies behind the packet's own end is padding, which
    //    the stack cuts off: a port there is a lie.
    let Some(ports) = ports(frame, offset, length, header.total_length()) else {
        let split = header.has_more_fragments();
        return unreadable(if split { DropReason::SplitHeader } else { DropReason::Truncated });
    };

    let port = ports.destination();
    let place = Place {
        is_v6: false,
        network: offset,
        transport: offset + length,
        has_more_fragments: header.has_more_fragments(),
    }
    .forgotten();

    // 3. Is it guarded?
    let key = key_v4(header.destination.read(), protocol, port);
    let policy = tables.policy(&key).ok_or(Stop::NotGuarded)?;

    // 4. Is the source listed?
    let admitted = admit(policy, tables.admits_v4(policy.admission.into(), header.source.read()))?;

    // 5. Does it have to be proved that there is anybody at the source?
    if policy.has(protect::SYN_COOKIES) {
        let lists_cdn = |cdn| tables.admits_v4(cdn, header.source.read());
        unproved(frame, tables, policy, place, lists_cdn)?;
    }
    Ok(admitted)
}

#[inline(always)]
fn ports(frame: &impl Frame, offset: usize, header: usize, total: usize) -> Option<&Ports> {
    if header + size_of::<Ports>() > total {
        return None;
    }
    read(frame, offset + header).ok()
}
