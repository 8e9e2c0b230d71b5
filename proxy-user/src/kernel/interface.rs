//! Which interfaces there are, and where on them the gate is best attached.
//!
//! Only ioctls are used: they speak of the network namespace that this process is in, while `/sys/class/net`
//! may show another one's.

use std::{ffi::CStr, os::fd::AsRawFd, sync::Arc};

use nix::{
    libc,
    net::if_::if_nametoindex,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};
use serde::Serialize;

use super::{KernelFault, sys::link::LinkKind};
use crate::config::model::KernelMode;

/// Where the gate hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    Xdp,
    Tc,
}

/// An interface that exists, and the hooks to try on it, the best first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub name: String,
    pub index: u32,
    pub hooks: Vec<Choice>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub hook: Hook,
    pub why: String,
}

/// Finds the interfaces, all or none, and chooses. Each name once.
pub fn resolve(names: &[Arc<str>], mode: KernelMode) -> Result<Vec<Candidate>, KernelFault> {
    let mut candidates: Vec<Candidate> = Vec::new();
    if mode == KernelMode::Off {
        return Ok(candidates);
    }
    for name in names {
        if candidates.iter().any(|candidate| *candidate.name == **name) {
            continue;
        }
        let index =
            if_nametoindex(&**name).map_err(|_| KernelFault::NoInterface { name: name.to_string() })?;
        if !is_ethernet(name) {
            return Err(KernelFault::NotEthernet { name: name.to_string() });
        }
        let hooks = match mode {
            KernelMode::Auto => choose(&driver(name)),
            KernelMode::Xdp => vec![Choice { hook: Hook::Xdp, why: "the configuration says so".into() }],
            KernelMode::Tc => vec![Choice { hook: Hook::Tc, why: "the configuration says so".into() }],
            KernelMode::Off => Vec::new(),
        };
        candidates.push(Candidate { name: name.to_string(), index, hooks });
    }
    Ok(candidates)
}

/// What the kernel says drives an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Driver {
    /// Empty: nobody says.
    name: String,
    /// Where a real device sits; empty for what is made of software.
    bus: String,
}

/// XDP where there is a device whose driver may run it; tcx on what is made of software.
fn choose(driver: &Driver) -> Vec<Choice> {
    let name = &driver.name;
    let tc_why = match name.as_str() {
        "veth" => Some("any XDP program on a veth turns off its peer's segmentation offload".to_owned()),
        "" => Some("nothing is known of its driver".to_owned()),
        "bridge"
        | "bonding"
        | "team"
        | "802.1Q VLAN Support"
        | "macvlan"
        | "ipvlan"
        | "tun"
        | "vxlan"
        | "dummy"
        | "netkit" => Some(format!("`{name}` is made of software: XDP gains nothing there")),
        _ if driver.bus.is_empty() || driver.bus == "N/A" => {
            Some(format!("`{name}` sits on no bus, so it is made of software"))
        }
        _ => None,
    };
    let xdp = |why| Choice { hook: Hook::Xdp, why };
    let tc = |why| Choice { hook: Hook::Tc, why };
    match tc_why {
        Some(why) => vec![tc(why), xdp("the other hook".into())],
        None => vec![xdp(format!("`{name}` is a real device")), tc("the other hook".into())],
    }
}

/// `struct ifreq`: a name, and a union of 24 bytes.
#[repr(C)]
struct Request<Data> {
    name: [u8; libc::IFNAMSIZ],
    data: Data,
}

/// Whether frames begin with an Ethernet header. Where it can't be asked, they do.
fn is_ethernet(interface: &str) -> bool {
    /// A `sockaddr`, of which the family is a kind of hardware.
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Hardware {
        kind: u16,
        address: [u8; 14],
        rest: [u8; 8],
    }
    let mut hardware = Hardware { kind: libc::ARPHRD_ETHER, address: [0; 14], rest: [0; 8] };
    // SAFETY: SIOCGIFHWADDR writes a `sockaddr` into the request's 24 bytes, and any bytes are one.
    unsafe { ask(interface, libc::SIOCGIFHWADDR, &mut hardware) };
    matches!(hardware.kind, libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK)
}

/// Asks the driver by ethtool's ioctl.
fn driver(interface: &str) -> Driver {
    const SIOCETHTOOL: libc::c_ulong = 0x8946;
    const ETHTOOL_GDRVINFO: u32 = 3;

    /// `struct ethtool_drvinfo`.
    #[repr(C)]
    struct DriverInfo {
        command: u32,
        driver: [u8; 32],
        version: [u8; 32],
        firmware: [u8; 32],
        bus: [u8; 32],
        rom: [u8; 32],
        reserved: [u8; 12],
        counts: [u32; 5],
    }
    /// The union, of which one pointer is used.
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Pointer {
        info: *mut DriverInfo,
        rest: [u64; 2],
    }

    let mut info = DriverInfo {
        command: ETHTOOL_GDRVINFO,
        driver: [0; 32],
        version: [0; 32],
        firmware: [0; 32],
        bus: [0; 32],
        rom: [0; 32],
        reserved: [0; 12],
        counts: [0; 5],
    };
    let mut pointer = Pointer { info: &raw mut info, rest: [0; 2] };
    // SAFETY: SIOCETHTOOL follows the pointer to an `ethtool_drvinfo`, which outlives the call, and any bytes
    // written to it are valid.
    if !unsafe { ask(interface, SIOCETHTOOL, &mut pointer) } {
        return Driver::default();
    }
    let text = |bytes: &[u8]| {
        CStr::from_bytes_until_nul(bytes)
            .ok()
            .and_then(|text| text.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    Driver { name: text(&info.driver), bus: text(&info.bus) }
}

/// Makes a request about an interface; whether it was answered.
///
/// # Safety
/// `Data` must be the 24 bytes of the union as `request` expects them, and valid whatever it writes there.
unsafe fn ask<Data: Copy>(interface: &str, request: libc::c_ulong, data: &mut Data) -> bool {
    const { assert!(size_of::<Data>() == 24 && align_of::<Data>() <= 8) };
    let mut name = [0; libc::IFNAMSIZ];
    match name.get_mut(..interface.len()) {
        Some(bytes) if interface.len() < libc::IFNAMSIZ => bytes.copy_from_slice(interface.as_bytes()),
        _ => return false,
    }
    let Ok(socket) = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None) else {
        return false;
    };
    let mut argument = Request { name, data: *data };
    // SAFETY: `argument` is an `ifreq` whose name ends with NUL; what it holds is the caller's promise.
    let answered = unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut argument) >= 0 };
    *data = argument.data;
    answered
}

// === impl Hook ===

impl Hook {
    pub(super) const fn link_kind(self) -> LinkKind {
        match self {
            Self::Xdp => LinkKind::Xdp,
            Self::Tc => LinkKind::TcxIngress,
        }
    }

    pub(super) const fn of(kind: LinkKind) -> Self {
        match kind {
            LinkKind::Xdp => Self::Xdp,
            LinkKind::TcxIngress => Self::Tc,
        }
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Tc => "tc",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_choice(name: &str, bus: &str) -> Hook {
        choose(&Driver { name: name.into(), bus: bus.into() })[0].hook
    }

    #[test]
    fn xdp_is_for_real_and_virtio_ports_and_tcx_for_the_rest() {
        let cases = [
            ("virtio_net", "0000:00:03.0", Hook::Xdp),
            ("ixgbe", "0000:02:00.1", Hook::Xdp),
            ("mlx5_core", "0000:04:00.0", Hook::Xdp),
            ("veth", "", Hook::Tc),
            ("bridge", "N/A", Hook::Tc),
            ("bonding", "", Hook::Tc),
            ("802.1Q VLAN Support", "", Hook::Tc),
            ("something_new", "", Hook::Tc),
            ("", "", Hook::Tc),
        ];
        for (name, bus, wanted) in cases {
            assert_eq!(first_choice(name, bus), wanted, "{name} on {bus:?}");
        }
    }

    #[test]
    fn an_interface_that_does_not_exist_is_named() {
        let fault = resolve(&["weir-no-such".into()], KernelMode::Auto).unwrap_err();
        assert!(matches!(fault, KernelFault::NoInterface { name } if name == "weir-no-such"));
    }

    #[test]
    fn loopback_is_found_and_is_software() {
        let found = resolve(&["lo".into(), "lo".into()], KernelMode::Auto).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].hooks[0].hook, Hook::Tc);
    }
}
