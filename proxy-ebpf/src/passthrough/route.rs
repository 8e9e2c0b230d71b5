//! Where a packet goes.

use core::ptr;

use aya_ebpf::{
    bindings::{
        BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_FWD_DISABLED, BPF_FIB_LKUP_RET_NO_NEIGH,
        BPF_FIB_LKUP_RET_SUCCESS, bpf_redir_neigh, bpf_redir_neigh__bindgen_ty_1,
    },
    helpers::{bpf_check_mtu, bpf_fib_lookup, bpf_redirect_neigh},
};
use proxy_common::{
    flow::{Flow, Side},
    forward::StopReason,
};
use proxy_ebpf::forward::{Ends, words};

use super::{Room, maps::FORWARD_SERVERS, skb::Skb};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// The way out. The next hop stands in the room, if there was anybody to ask for it.
pub struct Way {
    pub interface: u32,
    asked: bool,
}

/// The way to the new ends of a packet of this length, 0 if that isn't known.
#[inline(always)]
pub fn find(
    skb: Skb,
    room: &mut Room,
    ends: &Ends,
    length: usize,
    side: Side,
    flow: &Flow,
) -> Result<Way, StopReason> {
    let length = if length > u16::MAX as usize { 0 } else { length as u16 };
    match ask(skb, room, ends, length) {
        // That nobody knows the neighbour yet doesn't matter: whoever sends to it asks.
        BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH => {
            Ok(Way { interface: room.fib.ifindex, asked: true })
        }
        BPF_FIB_LKUP_RET_FRAG_NEEDED => {
            // SAFETY: a number either way.
            room.mtu = unsafe { room.fib.__bindgen_anon_1.mtu_result }.into();
            Err(StopReason::TooBig)
        }
        BPF_FIB_LKUP_RET_FWD_DISABLED => known(skb, room, side, flow),
        _ => Err(StopReason::NoRoute),
    }
}

/// The interface by which a flow's server is reached.
#[inline(always)]
pub fn leads_to(skb: Skb, room: &mut Room, flow: &Flow) -> Option<u32> {
    let ends = Ends { source: words(flow.source), destination: words(flow.server), ..Ends::default() };
    match ask(skb, room, &ends, 0) {
        BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH => Some(room.fib.ifindex),
        _ => None,
    }
}

#[inline(always)]
fn ask(skb: Skb, room: &mut Room, ends: &Ends, length: u16) -> u32 {
    let fib = &mut room.fib;
    fib.family = if room.packet.is_v6 { AF_INET6 } else { AF_INET };
    fib.l4_protocol = room.packet.key.protocol as u8;
    fib.sport = ends.source_port.to_be();
    fib.dport = ends.destination_port.to_be();
    fib.__bindgen_anon_1.tot_len = length;
    fib.ifindex = skb.interface();
    fib.__bindgen_anon_2.flowinfo = 0;
    if room.packet.is_v6 {
        fib.__bindgen_anon_3.ipv6_src = ends.source;
        fib.__bindgen_anon_4.ipv6_dst = ends.destination;
    } else {
        fib.__bindgen_anon_3.ipv4_src = ends.source[3];
        fib.__bindgen_anon_4.ipv4_dst = ends.destination[3];
    }
    fib.__bindgen_anon_5.tbid = 0;
    // SAFETY: as many bytes as there are.
    let answer = unsafe { bpf_fib_lookup(skb.pointer().cast(), &raw mut *fib, size_of_val(fib) as i32, 0) };
    answer as u32
}

/// On a host that doesn't forward: the interface that is known of the flow.
#[inline(always)]
fn known(skb: Skb, room: &mut Room, side: Side, flow: &Flow) -> Result<Way, StopReason> {
    let interface = match side {
        Side::Client => match FORWARD_SERVERS.get(flow.server_slot.into()) {
            Some(server) if server.incarnation == flow.incarnation => server.interface,
            _ => flow.server_interface,
        },
        Side::Server => flow.client_interface,
    };
    if interface == 0 {
        return Err(StopReason::NoRoute);
    }
    match mtu(skb, interface) {
        (0, _) => Ok(Way { interface, asked: false }),
        (1.., mtu) => {
            room.mtu = mtu;
            Err(StopReason::TooBig)
        }
        _ => Err(StopReason::NoRoute),
    }
}

/// How much an interface carries, and whether that isn't enough: 0, or more if so. 0 as an interface: where it comes from.
#[inline(always)]
pub fn mtu(skb: Skb, interface: u32) -> (i32, u32) {
    let mut mtu = 0;
    // SAFETY: a number to be read and written.
    let answer = unsafe { bpf_check_mtu(skb.pointer().cast(), interface, &raw mut mtu, 0, 0) };
    (answer as i32, mtu)
}

impl Way {
    /// Sends the packet there. Gives what the hook is to be told.
    #[inline(always)]
    pub fn send(&self, skb: Skb, room: &Room) -> i32 {
        skb.untag();
        // SAFETY: the next hop is as long as is said; where nobody was asked for it, there is none.
        let sent = unsafe {
            if self.asked {
                let mut hop = bpf_redir_neigh {
                    nh_family: room.fib.family.into(),
                    __bindgen_anon_1: bpf_redir_neigh__bindgen_ty_1 {
                        ipv6_nh: room.fib.__bindgen_anon_4.ipv6_dst,
                    },
                };
                bpf_redirect_neigh(self.interface, &raw mut hop, size_of_val(&hop) as i32, 0)
            } else {
                bpf_redirect_neigh(self.interface, ptr::null_mut(), 0, 0)
            }
        };
        sent as i32
    }
}
