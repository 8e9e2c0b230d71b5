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

use super::{
    KernelFault,
    sys::{link::LinkKind, present},
};
use crate::config::model::KernelMode;

/// Where the gate hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// In the driver, before the kernel has made anything of the packet.
    Xdp,
    /// Behind that; there since Linux 6.6.
    Tcx,
    /// What was there before tcx.
    Clsact,
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

/// The interfaces that are named, each once.
#[derive(Debug, Default)]
pub struct Resolved {
    pub candidates: Vec<Candidate>,
    /// Guarded before, and not there now.
    pub absent: Vec<String>,
}

/// Finds the interfaces, and chooses. One that is missing is a fault, unless it was `known`: then it may come back.
pub fn resolve(
    names: &[Arc<str>],
    mode: KernelMode,
    tc: Tc,
    known: impl Fn(&str) -> bool,
) -> Result<Resolved, KernelFault> {
    let mut resolved = Resolved::default();
    if mode == KernelMode::Off {
        return Ok(resolved);
    }
    let distinct = names.iter().enumerate().filter(|(at, name)| !names[..*at].contains(name));
    for (_, name) in distinct {
        let Ok(index) = if_nametoindex(&**name) else {
            if known(name) {
                resolved.absent.push(name.to_string());
                continue;
            }
            return Err(KernelFault::NoInterface { name: name.to_string() });
        };
        if !is_ethernet(name) {
            return Err(KernelFault::NotEthernet { name: name.to_string() });
        }
        let hooks = match mode {
            KernelMode::Auto => choose(&driver(name), tc),
            KernelMode::Xdp => vec![Choice { hook: Hook::Xdp, why: CONFIGURED.into() }],
            KernelMode::Tc => vec![tc.choice(CONFIGURED.into())],
            KernelMode::Off => Vec::new(),
        };
        resolved.candidates.push(Candidate { name: name.to_string(), index, hooks });
    }
    Ok(resolved)
}

/// Which interfaces were found under the names that were looked for.
#[derive(Debug, Default)]
pub(super) struct Places(Vec<(String, Option<u32>)>);

impl Places {
    pub(super) fn of(resolved: &Resolved) -> Self {
        let found =
            resolved.candidates.iter().map(|candidate| (candidate.name.clone(), Some(candidate.index)));
        Self(found.chain(resolved.absent.iter().map(|name| (name.clone(), None))).collect())
    }

    pub(super) fn know(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    /// Says what has happened since `before`.
    pub(super) fn tell(&self, before: &Self) {
        for (name, index) in &self.0 {
            let known = before.0.iter().find(|(known, _)| known == name).map(|(_, index)| *index);
            match (known, index) {
                (Some(Some(_)) | None, None) => tracing::warn!(
                    "the interface `{name}` is gone: the gate returns to it when an interface of this name is back"
                ),
                (Some(None), Some(_)) => tracing::info!("the interface `{name}` is back, and guarded"),
                (Some(Some(before)), Some(now)) if before != *now => {
                    tracing::info!("the interface `{name}` is another one now, and guarded");
                }
                _ => {}
            }
        }
    }

    pub(super) fn changed(&self) -> bool {
        self.0.iter().any(|(name, index)| if_nametoindex(&**name).ok() != *index)
    }
}

const CONFIGURED: &str = "the configuration says so";

/// Why the gate hangs where it was found, in words.
pub(super) fn why(name: &str, hook: Hook, tc: Tc) -> String {
    let choices = choose(&driver(name), tc);
    match choices.into_iter().next() {
        Some(first) if first.hook == hook => first.why,
        _ => "the configuration says so, or what suits the interface better was refused".into(),
    }
}

/// Which hook this kernel has besides XDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tc {
    Tcx,
    Clsact,
}

/// What the kernel says drives an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Driver {
    /// Empty: nobody says.
    name: String,
    /// Where a real device sits; empty for what is made of software.
    bus: String,
}

/// XDP where there is a device whose driver may run it; tcx or clsact on what is made of software.
fn choose(driver: &Driver, tc: Tc) -> Vec<Choice> {
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
    match tc_why {
        Some(why) => vec![tc.choice(why), xdp("the other hook".into())],
        None => vec![xdp(format!("`{name}` is a real device")), tc.choice("the other hook".into())],
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

/// The largest packet that an interface carries.
pub(super) fn mtu(interface: &str) -> Option<u32> {
    let mut mtu = [0_u32; 6];
    // SAFETY: SIOCGIFMTU writes an `int` at the beginning of the request's 24 bytes.
    unsafe { ask(interface, libc::SIOCGIFMTU, &mut mtu) }.then_some(mtu[0])
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

// === impl Tc ===

impl Tc {
    /// As far as it can be told without loading anything: who may not ask is told of the newer one.
    pub(super) fn of_this_kernel() -> Self {
        let loopback = if_nametoindex(c"lo").unwrap_or(1);
        match present::tcx(loopback) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Self::Clsact,
            _ => Self::Tcx,
        }
    }

    fn choice(self, why: String) -> Choice {
        match self {
            Self::Tcx => Choice { hook: Hook::Tcx, why },
            Self::Clsact => Choice {
                hook: Hook::Clsact,
                why: format!("{why}; and this kernel has no tcx (Linux 6.6 brought it)"),
            },
        }
    }
}

// === impl Hook ===

impl Hook {
    /// How its attachments are made; at clsact there are no links.
    pub(super) const fn link_kind(self) -> Option<LinkKind> {
        match self {
            Self::Xdp => Some(LinkKind::Xdp),
            Self::Tcx => Some(LinkKind::TcxIngress),
            Self::Clsact => None,
        }
    }

    pub(super) const fn of(kind: LinkKind) -> Self {
        match kind {
            LinkKind::Xdp => Self::Xdp,
            LinkKind::TcxIngress => Self::Tcx,
        }
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_choice(name: &str, bus: &str) -> Hook {
        choose(&Driver { name: name.into(), bus: bus.into() }, Tc::Tcx)[0].hook
    }

    #[test]
    fn xdp_is_for_real_and_virtio_ports_and_tcx_for_the_rest() {
        let cases = [
            ("virtio_net", "0000:00:03.0", Hook::Xdp),
            ("ixgbe", "0000:02:00.1", Hook::Xdp),
            ("mlx5_core", "0000:04:00.0", Hook::Xdp),
            ("veth", "", Hook::Tcx),
            ("bridge", "N/A", Hook::Tcx),
            ("bonding", "", Hook::Tcx),
            ("802.1Q VLAN Support", "", Hook::Tcx),
            ("something_new", "", Hook::Tcx),
            ("", "", Hook::Tcx),
        ];
        for (name, bus, wanted) in cases {
            assert_eq!(first_choice(name, bus), wanted, "{name} on {bus:?}");
        }
    }

    #[test]
    fn clsact_takes_the_place_of_tcx_and_says_why() {
        let choices = choose(&Driver { name: "veth".into(), bus: String::new() }, Tc::Clsact);
        assert_eq!(choices[0].hook, Hook::Clsact);
        assert!(
            choices[0].why.ends_with("this kernel has no tcx (Linux 6.6 brought it)"),
            "{}",
            choices[0].why
        );
    }

    #[test]
    fn an_interface_that_does_not_exist_is_named() {
        let fault = resolve(&["weir-no-such".into()], KernelMode::Auto, Tc::Tcx, |_| false).unwrap_err();
        assert!(matches!(fault, KernelFault::NoInterface { name } if name == "weir-no-such"));
    }

    #[test]
    fn an_interface_that_was_there_before_is_waited_for() {
        let names = ["weir-no-such".into(), "lo".into()];
        let found = resolve(&names, KernelMode::Auto, Tc::Tcx, |name| name == "weir-no-such").unwrap();
        assert_eq!((found.absent, found.candidates.len()), (vec!["weir-no-such".to_owned()], 1));
    }

    #[test]
    fn loopback_is_found_and_is_software() {
        let found = resolve(&["lo".into(), "lo".into()], KernelMode::Auto, Tc::Tcx, |_| false).unwrap();
        assert_eq!(found.candidates.len(), 1);
        assert_eq!(found.candidates[0].hooks[0].hook, Hook::Tcx);
    }
}
