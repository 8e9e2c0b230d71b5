//! Which way leads to an address, by what the kernel itself would do.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use nix::libc;

use super::netlink::{self, Message, word};

/// `struct rtmsg`
const RTMSG: usize = 12;
const TYPE_AT: usize = 7;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_PREFSRC: u16 = 7;

/// A way out of this host, or into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The address is one of the host's own.
    pub local: bool,
    pub interface: u32,
    /// What the host would send from.
    pub source: Option<IpAddr>,
}

/// The way to an address. `None`: there is none.
pub fn to(address: IpAddr) -> io::Result<Option<Route>> {
    let (family, bytes) = match address {
        IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
    };
    let mut request = [0; RTMSG];
    request[0] = family as u8;
    request[1] = (bytes.len() * 8) as u8;
    let request = Message::new(&request).with(RTA_DST, &bytes);
    let answers = match netlink::call(libc::RTM_GETROUTE, 0, &request) {
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL)
            ) =>
        {
            return Ok(None);
        }
        answers => answers?,
    };
    Ok(answers.first().and_then(route))
}

/// Whether an interface is a port of a bond or a bridge, which routes never name.
pub fn is_port(interface: u32) -> io::Result<bool> {
    const IFINFOMSG: usize = 16;
    const IFLA_MASTER: u16 = 10;
    let mut request = [0; IFINFOMSG];
    request[4..8].copy_from_slice(&interface.to_ne_bytes());
    let answers = netlink::call(libc::RTM_GETLINK, 0, &Message::new(&request))?;
    Ok(answers.iter().any(|answer| answer.attribute(IFINFOMSG, IFLA_MASTER).is_some()))
}

fn route(answer: &Message) -> Option<Route> {
    let kind = answer.word(TYPE_AT & !3)?.to_ne_bytes()[TYPE_AT & 3];
    let local = match kind {
        libc::RTN_LOCAL => true,
        libc::RTN_UNICAST => false,
        _ => return None,
    };
    let interface = word(answer.attribute(RTMSG, RTA_OIF)?, 0)?;
    let source = answer.attribute(RTMSG, RTA_PREFSRC).and_then(|bytes| match bytes.len() {
        4 => Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))),
        16 => Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?))),
        _ => None,
    });
    Some(Route { local, interface, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_the_hosts_own() {
        let route = to("127.0.0.1".parse().unwrap()).unwrap().unwrap();
        assert!(route.local);
        assert_eq!(route.source, Some("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn nobody_is_reached_at_an_address_of_no_use() {
        assert_eq!(to("255.255.255.255".parse().unwrap()).unwrap().filter(|route| !route.local), None);
    }
}
