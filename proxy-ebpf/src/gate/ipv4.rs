//! The gate for IPv4.

use proxy_common::{
    limit::SourceKey,
    scope::{TCP, UDP},
    verdict::DropReason,
};

use super::{Admitted, Sender, Stop, Tables, admit, key_v4, mapped, unreadable};
use crate::{
    frame::{Frame, read},
    headers::{Ipv4, Ports, TcpFlags},
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

    // 3. Is it guarded?
    let key = key_v4(header.destination.read(), protocol, ports.destination());
    let source = header.source.read();
    // The last that is read of the packet, so that nothing of how it was read is left for the verifier to tell apart.
    let flags = flags(frame, offset, length, header.total_length());
    let policy = tables.policy(&key).ok_or(Stop::NotGuarded)?;

    // 4. Is the source listed, not blocked, and within its limits?
    let admits = |slot: u16| tables.admits_v4(slot.into(), source);
    let sender = Sender { source: mapped(source), key: SourceKey::v4(source[0], policy.entrypoint), flags };
    admit(policy, tables, admits, &sender)
}

#[inline(always)]
fn flags(frame: &impl Frame, offset: usize, header: usize, total: usize) -> u8 {
    if header + size_of::<TcpFlags>() > total {
        return TcpFlags::SYN;
    }
    read::<TcpFlags>(frame, offset + header).map_or(TcpFlags::SYN, TcpFlags::syn_and_ack)
}

#[inline(always)]
fn ports(frame: &impl Frame, offset: usize, header: usize, total: usize) -> Option<&Ports> {
    if header + size_of::<Ports>() > total {
        return None;
    }
    read(frame, offset + header).ok()
}
