//! The gate once more, by another hand: a parser that eats slices from the front, over `ipnet`'s containment. Slow and
//! plain. Property tests compare it with the real one, and the fuzz target includes it from its own folder: it uses
//! nothing of its neighbours.

extern crate std;

use std::{
    collections::HashMap,
    format,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    string::String,
    vec::Vec,
};

use ipnet::IpNet;
use proxy_common::{
    limit::SourceKey,
    scope::{Policy, ScopeKey, TCP, UDP, protect},
    verdict::DropReason,
};

use crate::{
    frame::Frame,
    gate::{self, Admits, Admitted, Source, SourceV4, SourceV6, Stop, Tables},
};

const TCP_PORT: u16 = 443;
const UDP_PORT: u16 = 4433;

/// Where entrypoint 1 is guarded at TCP port 443 and entrypoint 2 at UDP port 4433.
pub const EDGE_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
pub const EDGE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// Inside of the listed prefixes, at their ends, beside them, and elsewhere.
pub const SOURCES_V4: [Ipv4Addr; 5] = [
    Ipv4Addr::new(192, 0, 2, 0),
    Ipv4Addr::new(192, 0, 2, 255),
    Ipv4Addr::new(192, 0, 3, 0),
    Ipv4Addr::new(192, 0, 1, 255),
    Ipv4Addr::new(198, 51, 100, 1),
];
pub const SOURCES_V6: [Ipv6Addr; 5] = [
    Ipv6Addr::new(0x2001, 0xdb8, 0xc1, 0, 0, 0, 0, 0),
    Ipv6Addr::new(0x2001, 0xdb8, 0xc1, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff),
    Ipv6Addr::new(0x2001, 0xdb8, 0xc2, 0, 0, 0, 0, 0),
    Ipv6Addr::new(0x2001, 0xdb8, 0xc0, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff),
    Ipv6Addr::LOCALHOST,
];

/// A frame in memory.
pub struct Buffer<'a>(pub &'a [u8]);

// SAFETY: the bytes of a slice are readable while it is borrowed, and its end is not before its start.
unsafe impl Frame for Buffer<'_> {
    fn start(&self) -> usize {
        self.0.as_ptr().addr()
    }

    fn end(&self) -> usize {
        self.start() + self.0.len()
    }
}

/// Tables that look through everything they have.
#[derive(Default)]
pub struct Plain {
    pub scope: HashMap<ScopeKey, Policy>,
    pub prefixes: Vec<IpNet>,
    /// A CDN's.
    pub cdn: Vec<IpNet>,
    pub blocked: Blocked,
    /// Every source has sent too many packets; has begun too many connections.
    pub over: [bool; 2],
}

/// Who is blocked, of all sources.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Blocked {
    #[default]
    Nobody,
    NoCdn,
    Everybody,
}

/// What an entrypoint has beside its allowlists, and what its sources have done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Setting {
    pub shadow: bool,
    /// [`protect`]'s flags.
    pub protect: u8,
    /// Half of the listed prefixes are a CDN's; or all of them, in the same slot; or none.
    pub cdn: Option<u16>,
    pub blocked: Blocked,
    pub over: [bool; 2],
}

impl Plain {
    pub fn guarding(address: IpAddr, port: u16, prefixes: Vec<IpNet>) -> Self {
        let octets = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        let policy =
            |entrypoint| Policy { entrypoint, shadow: 0, protect: 0, admission: 0, cdn: Policy::NO_CDN };
        let scope = HashMap::from([
            (ScopeKey::new(octets, TCP, port), policy(1)),
            (ScopeKey::whole(octets), policy(0)),
            (ScopeKey::ANYTHING, policy(0)),
        ]);
        Self { scope, prefixes, ..Self::default() }
    }

    fn admits(&self, source: IpAddr) -> Admits {
        if self.prefixes.iter().any(|prefix| prefix.contains(&source)) {
            Admits::Listed(1)
        } else {
            Admits::NotListed
        }
    }
}

impl Tables for Plain {
    fn policy(&self, key: &ScopeKey) -> Option<Policy> {
        self.scope.get(key).copied()
    }

    fn admits_v4(&self, _: u32, [source]: SourceV4) -> Admits {
        self.admits(IpAddr::from(source.to_ne_bytes()))
    }

    fn admits_v6(&self, _: u32, source: SourceV6) -> Admits {
        let mut octets = [0; 16];
        let bytes = source.into_iter().flat_map(u32::to_ne_bytes);
        octets.iter_mut().zip(bytes).for_each(|(octet, byte)| *octet = byte);
        self.admits(IpAddr::from(octets))
    }

    fn is_cdn(&self, source: Source) -> bool {
        let mut octets = [0; 16];
        let bytes = source.into_iter().flat_map(u32::to_ne_bytes);
        octets.iter_mut().zip(bytes).for_each(|(octet, byte)| *octet = byte);
        let source = Ipv6Addr::from(octets).to_canonical();
        self.cdn.iter().any(|prefix| prefix.contains(&source))
    }

    fn blocked(&self, _: Source, is_cdn: bool) -> bool {
        match self.blocked {
            Blocked::Nobody => false,
            Blocked::NoCdn => !is_cdn,
            Blocked::Everybody => true,
        }
    }

    fn spend(&self, _: SourceKey, opens: bool) -> Result<(), DropReason> {
        match (self.over, opens) {
            ([true, _], _) => Err(DropReason::PacketRate),
            ([_, true], true) => Err(DropReason::ConnectionRate),
            _ => Ok(()),
        }
    }
}

/// What is to be done with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Untouched,
    Admitted { entrypoint: u32 },
    Dropped { entrypoint: u32, reason: DropReason },
}

/// What the gate and the model say of a frame, if it isn't the same.
pub fn disagreement(frame: &[u8], setting: Setting) -> Option<String> {
    // Boxed to the exact length, so that Miri and a sanitizer see a read past the end.
    let exact: std::boxed::Box<[u8]> = frame.into();
    let tables = tables(setting);
    let judged = gate::judge(&Buffer(&exact), &tables);
    let got = match judged {
        Ok(Admitted { entrypoint, .. }) => Fate::Admitted { entrypoint },
        Err(Stop::Dropped { entrypoint, reason }) if !setting.shadow => Fate::Dropped { entrypoint, reason },
        Err(Stop::Shadowed { entrypoint, reason }) if setting.shadow => Fate::Dropped { entrypoint, reason },
        Err(
            Stop::Dropped { .. }
            | Stop::Shadowed { .. }
            | Stop::Unproved { .. }
            | Stop::UnprovedInRehearsal { .. },
        ) => {
            return Some(format!("{judged:?} with {setting:?}"));
        }
        Err(Stop::NotIp | Stop::NotAHeader | Stop::NotGuardable | Stop::LaterFragment | Stop::NotGuarded) => {
            Fate::Untouched
        }
    };
    let wanted = fate(&exact, setting).unwrap_or(Fate::Untouched);
    (got != wanted)
        .then(|| format!("the gate says {got:?} ({judged:?}), the model {wanted:?}, with {setting:?}"))
}

fn tables(setting: Setting) -> Plain {
    let policy = |entrypoint: u16| Policy {
        entrypoint,
        shadow: setting.shadow.into(),
        protect: match entrypoint {
            0 => 0,
            1 => setting.protect,
            _ => setting.protect & !protect::CONNECTIONS,
        },
        admission: 0,
        cdn: setting.cdn.unwrap_or(Policy::NO_CDN),
    };
    let mut scope = HashMap::from([(ScopeKey::ANYTHING, policy(0))]);
    for octets in [EDGE_V4.to_ipv6_mapped().octets(), EDGE_V6.octets()] {
        scope.insert(ScopeKey::whole(octets), policy(0));
        scope.insert(ScopeKey::new(octets, TCP, TCP_PORT), policy(1));
        scope.insert(ScopeKey::new(octets, UDP, UDP_PORT), policy(2));
    }
    let nets = |nets: [&str; 2]| nets.map(|net| net.parse().unwrap()).into();
    let (prefixes, cdn) = (nets(LISTED), nets(CDN));
    Plain { scope, prefixes, cdn, blocked: setting.blocked, over: setting.over }
}

const LISTED: [&str; 2] = ["192.0.2.0/24", "2001:db8:c1::/48"];
const CDN: [&str; 2] = ["192.0.2.128/25", "2001:db8:c1:8000::/49"];

/// `None`: the frame ends before its destination address, or is for nobody.
fn fate(frame: &[u8], setting: Setting) -> Option<Fate> {
    let mut rest = frame.get(12..)?;
    let mut tags = 0;
    let mut stripped_by_the_host = false;
    loop {
        let kind = (take(&mut rest, 2)?[0], frame[frame.len() - rest.len() - 1]);
        match kind {
            (0x81, 0x00) | (0x88, 0xa8) => {
                let tag = take(&mut rest, 2)?;
                tags += 1;
                stripped_by_the_host |= u16::from_be_bytes([tag[0], tag[1]]) & 0x0fff == 0;
                if tags > 2 {
                    // Its type has to be there too, or it is no tag.
                    rest.get(1)?;
                    let dropped = Fate::Dropped { entrypoint: 0, reason: DropReason::VlanTags };
                    return stripped_by_the_host.then_some(dropped);
                }
            }
            (0x08, 0x00) => return v4(rest, setting),
            (0x86, 0xdd) => return v6(rest, setting),
            _ => return None,
        }
    }
}

fn v4(packet: &[u8], setting: Setting) -> Option<Fate> {
    let header: [u8; 20] = packet.get(..20)?.try_into().ok()?;
    let [.., s0, s1, s2, s3, d0, d1, d2, d3] = header;
    let (source, destination) = (Ipv4Addr::new(s0, s1, s2, s3), Ipv4Addr::new(d0, d1, d2, d3));
    let (protocol, fragment) = (header[9], u16::from_be_bytes([header[6], header[7]]));
    if !matches!(protocol, 6 | 17) || fragment & 0x1fff != 0 {
        return None;
    }
    let hidden = |reason| (destination == EDGE_V4).then_some(Fate::Dropped { entrypoint: 0, reason });
    let words = usize::from(header[0] % 16);
    if words < 5 {
        return hidden(DropReason::Malformed);
    }
    let own = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let end = if own == 0 { packet.len() } else { own.min(packet.len()) };
    match packet[..end].get(words * 4..).filter(|behind| behind.len() >= 4) {
        Some(behind) => guarded(destination == EDGE_V4, source.into(), protocol, behind, setting),
        None if fragment & 0x2000 != 0 => hidden(DropReason::SplitHeader),
        None => hidden(DropReason::Truncated),
    }
}

fn v6(packet: &[u8], setting: Setting) -> Option<Fate> {
    let (header, behind) = packet.split_at_checked(40)?;
    let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&header[at..at + 16]).unwrap());
    let (source, destination) = (address(8), address(24));
    let is_ours = destination == EDGE_V6 || destination == EDGE_V4.to_ipv6_mapped();
    let hidden = |reason| is_ours.then_some(Fate::Dropped { entrypoint: 0, reason });

    let own = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let mut rest = if own == 0 { behind } else { &behind[..own.min(behind.len())] };
    let (mut next, mut walked, mut split) = (header[6], 0, false);
    loop {
        if next == 6 || next == 17 {
            let reason = if split { DropReason::SplitHeader } else { DropReason::Truncated };
            return if rest.len() < 4 {
                hidden(reason)
            } else {
                guarded(is_ours, source.into(), next, rest, setting)
            };
        }
        let short = if split { DropReason::SplitHeader } else { DropReason::Truncated };
        let length = match next {
            0 | 43 | 60 | 135 | 139 | 140 => rest.get(..2).map(|header| 8 * (1 + usize::from(header[1]))),
            51 => rest.get(..2).map(|header| 4 * (2 + usize::from(header[1]))),
            44 => rest.get(..8).map(|_| 8),
            _ => return None,
        };
        // The seventh isn't looked behind, but it is looked at.
        let Some(length) = length else { return hidden(short) };
        if next == 44 {
            let word = u16::from_be_bytes([rest[2], rest[3]]);
            if word >> 3 != 0 {
                return None;
            }
            split |= word & 1 != 0;
        }
        walked += 1;
        if walked > 6 {
            return hidden(DropReason::ExtensionHeaders);
        }
        next = rest[0];
        rest = rest.get(length..).unwrap_or_default();
    }
}

/// `behind`: the transport header and what follows it, four bytes at least.
fn guarded(is_ours: bool, source: IpAddr, protocol: u8, behind: &[u8], setting: Setting) -> Option<Fate> {
    let entrypoint = match (protocol, u16::from_be_bytes([behind[2], behind[3]])) {
        (6, TCP_PORT) => 1,
        (17, UDP_PORT) => 2,
        _ => return None,
    };
    let on = |list: [&str; 2]| list.iter().any(|net| net.parse::<IpNet>().unwrap().contains(&source));
    let has = |flag: u8| setting.protect & flag != 0;
    // Bits of the fourteenth byte, in a header that is all there: 2 is SYN, 16 is ACK.
    let opens = protocol == 6
        && has(protect::CONNECTIONS)
        && behind.get(..20).is_none_or(|header| header[13] & 2 > 0 && header[13] & 16 == 0);
    let is_cdn = match setting.cdn {
        Some(0) => true,
        Some(_) => on(CDN),
        None => false,
    };
    let spared = is_cdn && !has(protect::LIMITS_CDN);
    let [over_packets, over_connections] = setting.over;
    let counted = has(protect::PACKETS) || opens;
    let reason = if !has(protect::OPEN) && !on(LISTED) {
        Some(DropReason::NotListed)
    } else if has(protect::BLOCKS)
        && (setting.blocked == Blocked::Everybody || (setting.blocked == Blocked::NoCdn && !is_cdn))
    {
        Some(DropReason::Blocked)
    } else if counted && !spared && over_packets {
        Some(DropReason::PacketRate)
    } else if counted && !spared && over_connections && opens {
        Some(DropReason::ConnectionRate)
    } else {
        None
    };
    is_ours.then_some(match reason {
        None => Fate::Admitted { entrypoint },
        Some(reason) => Fate::Dropped { entrypoint, reason },
    })
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(count)?;
    *rest = after;
    Some(taken)
}
