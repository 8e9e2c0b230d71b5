//! Listening sockets: whether they would take a cookie, and what is remembered of them.

use core::ptr;

use aya_ebpf::{
    bindings::{bpf_sock, xdp_md},
    btf_maps::LruHashMap,
    helpers::{
        bpf_ktime_get_ns, bpf_sk_release, bpf_skc_lookup_tcp, bpf_tcp_check_syncookie, bpf_tcp_gen_syncookie,
        bpf_xdp_load_bytes,
    },
    macros::btf_map,
};
use proxy_common::{
    scope::ScopeKey,
    syn_flood::{Listener, MAX_LISTENERS, OVERFLOW_COUNTS_FOR, OVERFLOW_NOTED_EVERY},
};
use proxy_ebpf::{
    headers::Tcp,
    syn_ack::{Opening, TcpWords},
    word::Word,
};

use super::family::Family;

#[btf_map]
static GATE_LISTENERS: LruHashMap<ScopeKey, Listener, MAX_LISTENERS> = LruHashMap::new();

/// The headers of a segment, where the kernel's functions want them. IP options stay behind, TCP options that aren't
/// there are zero.
#[repr(C, align(8))]
pub struct Headers<F: Family> {
    pub ip: F::Ip,
    pub tcp: TcpWords,
    tcp_length: u32,
}

const SHORTEST_TCP: u32 = 20;
const WITH_AN_OPTION: u32 = 24;
const LONGEST_TCP: u32 = size_of::<TcpWords>() as u32;
/// As it stands in the header.
const LENGTH_OF_LONGEST: u8 = (LONGEST_TCP as u8 / 4) << 4;

const LISTEN: u32 = 10;
const CURRENT_NAMESPACE: u64 = u64::MAX;

impl<F: Family> Headers<F> {
    #[inline(always)]
    pub fn load(ctx: *mut xdp_md, network: usize, transport: usize) -> Option<Self> {
        let mut headers = Self { ip: F::NO_HEADER, tcp: [0; 10], tcp_length: SHORTEST_TCP };
        let (network, transport) = (network as u32, transport as u32);
        // SAFETY: each has room for as many bytes as are asked for: the fixed part of the header.
        let (ip, tcp) = unsafe {
            (
                bpf_xdp_load_bytes(ctx, network, (&raw mut headers.ip).cast(), size_of::<F::Ip>() as u32),
                bpf_xdp_load_bytes(ctx, transport, (&raw mut headers.tcp).cast(), SHORTEST_TCP),
            )
        };
        if ip != 0 || tcp != 0 {
            return None;
        }
        let [length, ..] = headers.tcp[3].to_ne_bytes();
        let length = u32::from(length >> 4) * 4;
        if length < SHORTEST_TCP {
            // Less than any header has: the stack throws it away.
            return None;
        }
        headers.tcp_length = length;
        if length > LONGEST_TCP {
            // What is cut off is no MSS, which everybody sends first. The header says that there is nothing more.
            headers.tcp_length = LONGEST_TCP;
            let [_, flags, a, b] = headers.tcp[3].to_ne_bytes();
            headers.tcp[3] = u32::from_ne_bytes([LENGTH_OF_LONGEST, flags, a, b]);
        }
        let length = headers.tcp_length();
        if length > SHORTEST_TCP {
            // SAFETY: there is room for as much, behind the fixed part.
            let all = unsafe {
                let to = (&raw mut headers.tcp).cast::<u8>().add(SHORTEST_TCP as usize);
                bpf_xdp_load_bytes(ctx, transport + SHORTEST_TCP, to.cast(), length - SHORTEST_TCP)
            };
            if all != 0 {
                return None;
            }
        }
        Some(headers)
    }

    #[inline(always)]
    pub fn opening(&self) -> Opening {
        Opening { ports: self.tcp[0], sequence: self.tcp[1] }
    }

    /// From 20 to 40 bytes.
    #[inline(always)]
    fn tcp_length(&self) -> u32 {
        // The verifier believes a length only where it sees the bounds; the compiler, which knows them, would leave them
        // out. So it must not know.
        // SAFETY: a field of what is borrowed.
        let length = unsafe { ptr::read_volatile(&raw const self.tcp_length) };
        if length <= SHORTEST_TCP {
            SHORTEST_TCP
        } else if length > LONGEST_TCP {
            LONGEST_TCP
        } else {
            length
        }
    }

    #[inline(always)]
    pub fn have_options(&self) -> bool {
        self.tcp_length >= WITH_AN_OPTION
    }

    /// A cookie that the listener will take, for what these headers ask. They may ask something else after this.
    #[inline(always)]
    pub fn cookie(&mut self, ctx: *mut xdp_md, room: &mut F::Answer) -> Option<u32> {
        let listener = Listening::find(ctx, self, room)?;
        let key = F::listener(&self.ip, &self.tcp);
        // SAFETY: the helper has no conditions.
        let now = unsafe { bpf_ktime_get_ns() };

        // 1. Its queue is full: it gives us one, and notes that.
        if let Some(cookie) = listener.cookie(self) {
            overflowed(&key, now);
            return Some(cookie);
        }

        // 2. It isn't, because we answer in its place: then one from the kernel, if that counts with this listener,
        //    and will for long enough.
        let noted = GATE_LISTENERS.get_ptr(key)?;
        // SAFETY: an aligned word that only changes as a whole. An entry that gives way is only reused, for another
        // listener's; then the question below is the one that counts.
        let noted = unsafe { Word::of((&raw const (*noted).overflowed).cast_mut()) }.load();
        if now.saturating_sub(noted) > OVERFLOW_COUNTS_FOR {
            return None;
        }
        let length = self.tcp_length();
        let cookie = F::cookie(&mut self.ip, &mut self.tcp, length)?;
        self.become_answer_to(cookie);
        listener.takes(self).then_some(cookie)
    }

    /// What a client sends that got this cookie.
    #[inline(always)]
    fn become_answer_to(&mut self, cookie: u32) {
        self.tcp[1] = u32::from_be(self.tcp[1]).wrapping_add(1).to_be();
        self.tcp[2] = cookie.wrapping_add(1).to_be();
        self.tcp[3] = u32::from_ne_bytes([(SHORTEST_TCP as u8 / 4) << 4, Tcp::ACK, 0, 0]);
    }
}

/// A listening socket, held.
pub struct Listening(*mut bpf_sock);

impl Listening {
    /// Whom the segment is for, if that is a listener.
    #[inline(always)]
    pub fn find<F: Family>(ctx: *mut xdp_md, headers: &Headers<F>, room: &mut F::Answer) -> Option<Self> {
        F::tuple(room, &headers.ip, &headers.tcp);
        // SAFETY: the tuple is as long as is said. The socket, if there is one, is given back on drop.
        let socket = unsafe {
            bpf_skc_lookup_tcp(ctx.cast(), (&raw mut *room).cast(), F::TUPLE as u32, CURRENT_NAMESPACE, 0)
        };
        if socket.is_null() {
            return None;
        }
        let socket = Self(socket);
        // SAFETY: not null, and held.
        (unsafe { (*socket.0).state } == LISTEN).then_some(socket)
    }

    /// From a listener whose queue is full.
    #[inline(always)]
    fn cookie<F: Family>(&self, headers: &mut Headers<F>) -> Option<u32> {
        let length = headers.tcp_length();
        // SAFETY: the socket is held, the headers are as long as is said.
        let cookie = unsafe {
            bpf_tcp_gen_syncookie(
                self.0.cast(),
                (&raw mut headers.ip).cast(),
                size_of::<F::Ip>() as u32,
                (&raw mut headers.tcp).cast(),
                length,
            )
        };
        (cookie > 0).then_some(cookie as u32)
    }

    #[inline(always)]
    fn takes<F: Family>(&self, headers: &mut Headers<F>) -> bool {
        // SAFETY: as above.
        let taken = unsafe {
            bpf_tcp_check_syncookie(
                self.0.cast(),
                (&raw mut headers.ip).cast(),
                size_of::<F::Ip>() as u32,
                (&raw mut headers.tcp).cast(),
                SHORTEST_TCP,
            )
        };
        taken == 0
    }
}

impl Drop for Listening {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: it is held, and nobody has it any more.
        unsafe { bpf_sk_release(self.0.cast()) };
    }
}

/// Notes that a listener's queue was full.
#[inline(always)]
fn overflowed(key: &ScopeKey, now: u64) {
    let Some(listener) = GATE_LISTENERS.get_ptr_mut(key) else {
        // No memory for it: SYNs pass where the queue isn't full.
        let _ = GATE_LISTENERS.insert(key, Listener { overflowed: now }, 0);
        return;
    };
    // SAFETY: an aligned word that only changes as a whole.
    let noted = unsafe { Word::of(&raw mut (*listener).overflowed) };
    if now.saturating_sub(noted.load()) > OVERFLOW_NOTED_EVERY {
        noted.store(now);
    }
}
