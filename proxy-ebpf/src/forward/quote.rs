//! ICMP errors: outside they get new ends, and inside the packet that they are about gets its old ones back.

use proxy_common::scope::UDP;

use super::{
    Ends, NETWORK, Quote,
    checksum::Difference,
    rewrite::{self, ADDRESSES_V4, ADDRESSES_V6, CHECKSUM_UDP, CHECKSUM_V4, Edit, Part, Refused},
};

/// Of an ICMP header.
const CHECKSUM: usize = 2;

/// Sends an error on. `from`, `to`: its ends (without ports). `about`: the ends that the packet had that it is about.
#[inline(always)]
pub fn translate(edit: &mut impl Edit, quote: &Quote, outside: &Ends, about: &Ends) -> Result<(), Refused> {
    // 1. Inside. The sum over an IPv4 header stays what it is, since its checksum makes up for the change.
    let was = Ends::of(&quote.key).backwards();
    let addresses = rewrite::addresses(&was, about);
    let ports = Difference::word(was.ports(), about.ports());
    let mut message = ports;
    if quote.is_v6 {
        edit.store(quote.network - NETWORK + ADDRESSES_V6, &[about.source, about.destination])?;
        message = message.and(addresses);
    } else {
        edit.header_checksum(quote.network - NETWORK + CHECKSUM_V4, addresses)?;
        edit.store(quote.network - NETWORK + ADDRESSES_V4, &[about.source[3], about.destination[3]])?;
    }
    edit.store(quote.transport, &about.ports())?;
    if quote.key.protocol == UDP as u16 && quote.checksum != 0 {
        // So that the sender knows it again. What it makes up for, nothing else has to.
        let was = quote.checksum;
        let becomes = addresses.and(ports).apply(was);
        edit.store(quote.transport + CHECKSUM_UDP, &becomes)?;
        message = message.and(Difference::word(was.into(), becomes.into()));
    }

    // 2. Outside.
    let from = Ends { source: quote.from, destination: was.source, ..Ends::default() };
    let addresses = rewrite::addresses(&from, outside);
    edit.checksum(quote.icmp + CHECKSUM, message, Part::Message, false)?;
    if quote.is_v6 {
        edit.checksum(quote.icmp + CHECKSUM, addresses, Part::PseudoHeader, false)?;
    }
    rewrite::header(edit, quote.is_v6, quote.hops, addresses, outside)
}

#[cfg(test)]
mod tests;
