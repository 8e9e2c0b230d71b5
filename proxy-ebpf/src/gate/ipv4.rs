//! The gate for IPv4.

use proxy_common::{
    admission::SOME_LIST,
    limit::SourceKey,
    scope::{TCP, UDP, protect},
    verdict::DropReason,
};

use super::{Admits, Admitted, Place, Sender, Stop, Tables, admit, key_v4, mapped, unreadable};
use crate::{
    frame::{Frame, read},
    headers::{Ipv4, Ports, Tcp},
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
        is_cut: length + size_of::<Tcp>() > header.total_length(),
        has_more_fragments: header.has_more_fragments(),
    }
    .forgotten();

    // 3. Is it guarded?
    let key = key_v4(header.destination.read(), protocol, port);
    let source = header.source.read();
    let policy = tables.policy(&key).ok_or(Stop::NotGuarded)?;

    // 4. Is the source listed, not blocked, proved if need be, and within its limits?
    let listed = match policy.has(protect::OPEN) {
        true => Admits::Listed(SOME_LIST),
        false => tables.admits_v4(policy.admission.into(), source),
    };
    let sender = Sender { source: mapped(source), key: SourceKey::v4(source[0], policy.entrypoint), place };
    admit(frame, tables, policy, listed, &sender)
}

#[inline(always)]
fn ports(frame: &impl Frame, offset: usize, header: usize, total: usize) -> Option<&Ports> {
    if header + size_of::<Ports>() > total {
        return None;
    }
    read(frame, offset + header).ok()
}
