//! The gate for IPv4.

use proxy_common::{
    scope::{TCP, UDP},
    verdict::DropReason,
};

use super::{Admitted, Stop, Tables, admit, key_v4, mapped, unreadable};
use crate::{
    frame::{Frame, read},
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
    let length = header.length();
    if length < size_of::<Ipv4>() {
        return Err(Stop::NotAHeader);
    }
    if header.is_later_fragment() {
        return Err(Stop::LaterFragment);
    }

    // 2. The port, behind the options if there are any.
    let Ok(ports) = read::<Ports>(frame, offset + length) else {
        return Err(unreadable(tables, mapped(header.destination.read()), DropReason::Truncated));
    };

    // 3. Is it guarded?
    let key = key_v4(header.destination.read(), protocol, ports.destination());
    let policy = tables.policy(&key).ok_or(Stop::NotGuarded)?;

    // 4. Is the source listed?
    admit(policy, tables.admits_v4(policy.admission, header.source.read()))
}
