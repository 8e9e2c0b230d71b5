//! By which interface the kernel would send something.

use std::{io, net::IpAddr};

use nix::libc;

use super::sys::netlink::{self, Message, word};

/// `struct rtmsg`
const RTMSG: usize = 12;
const KIND_AT: usize = 7;
const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_OIF: u16 = 4;
const RTN_UNICAST: u8 = 1;

/// The interface on the way from one address to another. `None`: there is no way that leaves this host.
pub fn interface(from: IpAddr, to: IpAddr) -> io::Result<Option<u32>> {
    if from.is_ipv4() != to.is_ipv4() {
        return Ok(None);
    }
    ask(Some(from), to)
}

/// The interface on the way to an address, from whichever of this host's suits it.
pub fn interface_towards(to: IpAddr) -> io::Result<Option<u32>> {
    ask(None, to)
}

fn ask(from: Option<IpAddr>, to: IpAddr) -> io::Result<Option<u32>> {
    let bytes = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let family = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let to = bytes(to);
    let mut fixed = [0; RTMSG];
    let bits = (to.len() * 8) as u8;
    [fixed[0], fixed[1]] = [family as u8, bits];
    let mut request = Message::new(&fixed).with(RTA_DST, &to);
    if let Some(from) = from {
        fixed[2] = bits;
        request = Message::new(&fixed).with(RTA_DST, &to).with(RTA_SRC, &bytes(from));
    }
    let answers = match netlink::call(libc::RTM_GETROUTE, 0, &request) {
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EINVAL | libc::EACCES)
            ) =>
        {
            return Ok(None);
        }
        answers => answers?,
    };
    let Some(answer) = answers.first() else { return Ok(None) };
    let kind = answer.word(KIND_AT / 4 * 4).map(|word| word.to_ne_bytes()[KIND_AT % 4]);
    if kind != Some(RTN_UNICAST) {
        return Ok(None);
    }
    Ok(answer.attribute(RTMSG, RTA_OIF).and_then(|bytes| word(bytes, 0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_on_this_host_leaves_by_no_interface() {
        let here = "127.0.0.1".parse().unwrap();
        assert_eq!(interface(here, here).unwrap(), None);
        assert_eq!(interface(here, "::1".parse().unwrap()).unwrap(), None);
    }
}
