//! The daemon's connections to servers, as the kernel sees them: what isn't acknowledged and what is reset is reported, for
//! servers that the daemon has named. Attached to the daemon's own control group, so nobody else's connections come by.

use core::{arch::asm, mem::offset_of, ptr};

use aya_ebpf::{
    bindings::{
        BPF_SOCK_OPS_RETRANS_CB, BPF_SOCK_OPS_RETRANS_CB_FLAG, BPF_SOCK_OPS_RTO_CB, BPF_SOCK_OPS_RTO_CB_FLAG,
        BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB, bpf_sock_ops,
    },
    btf_maps::{HashMap, RingBuf},
    helpers::bpf_ktime_get_ns,
    macros::btf_map,
    programs::SockOpsContext,
};
use proxy_common::upstream::{
    Kind, MAX_WATCHED, PAUSE, PAUSE_OF_RESETS, RING_BYTES, Report, ServerKey, Told,
};

/// Written by user space: which servers.
#[btf_map]
static UPSTREAM_SERVERS: HashMap<ServerKey, Told, MAX_WATCHED> = HashMap::new();

#[btf_map]
static UPSTREAM_REPORTS: RingBuf<Report, RING_BYTES> = RingBuf::new();

const AF_INET: u32 = 2;

/// Behind `op`.
const ARGUMENTS: usize = 4;

/// From when a connection is begun, so that its first segment counts too.
const WATCHED: u32 = BPF_SOCK_OPS_RETRANS_CB_FLAG | BPF_SOCK_OPS_RTO_CB_FLAG | BPF_SOCK_OPS_STATE_CB_FLAG;

#[inline(always)]
pub fn watch(ctx: &SockOpsContext) {
    let kind = match field::<{ offset_of!(bpf_sock_ops, op) }>(ctx) {
        BPF_SOCK_OPS_TCP_CONNECT_CB => {
            let server = server(ctx);
            if UPSTREAM_SERVERS.get_ptr(&server).is_some() {
                // Without it this connection isn't watched, and the daemon's own clocks have to do.
                let _ = ctx.set_cb_flags(WATCHED as i32);
            }
            return;
        }
        BPF_SOCK_OPS_RETRANS_CB | BPF_SOCK_OPS_RTO_CB => Some(Kind::Unacknowledged),
        BPF_SOCK_OPS_STATE_CB => Kind::of_change(field::<ARGUMENTS>(ctx), field::<{ ARGUMENTS + 4 }>(ctx)),
        _ => None,
    };
    if let Some(kind) = kind {
        report(server(ctx), kind);
    }
}

#[inline(always)]
fn report(server: ServerKey, kind: Kind) {
    // Gone from the map: no server any more.
    let Some(told) = UPSTREAM_SERVERS.get_ptr_mut(&server) else { return };
    // SAFETY: an element of a map of ours; the kernel gives it to nobody else while the program runs. Two CPUs at a time
    // tell at worst twice.
    let (last, pause) = unsafe {
        match kind {
            Kind::Unacknowledged => (&raw mut (*told).unacknowledged, PAUSE),
            Kind::Reset => (&raw mut (*told).reset, PAUSE_OF_RESETS),
        }
    };
    // SAFETY: the helper has no conditions; the element is readable and writable as above.
    unsafe {
        let now = bpf_ktime_get_ns();
        if now.wrapping_sub(ptr::read_volatile(last)) < pause {
            return;
        }
        ptr::write_volatile(last, now);
    }
    // No room: the daemon is behind, and will hear of it the next time.
    let Some(mut entry) = UPSTREAM_REPORTS.reserve(0) else { return };
    entry.write(Report { server, kind: kind as u32 });
    entry.submit(0);
}

/// The other end.
#[inline(always)]
fn server(ctx: &SockOpsContext) -> ServerKey {
    let mut address = [0; 16];
    if field::<{ offset_of!(bpf_sock_ops, family) }>(ctx) == AF_INET {
        let [a, b, c, d] = field::<{ offset_of!(bpf_sock_ops, remote_ip4) }>(ctx).to_ne_bytes();
        address = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d];
    } else {
        let words = [
            field::<{ offset_of!(bpf_sock_ops, remote_ip6) }>(ctx),
            field::<{ offset_of!(bpf_sock_ops, remote_ip6) + 4 }>(ctx),
            field::<{ offset_of!(bpf_sock_ops, remote_ip6) + 8 }>(ctx),
            field::<{ offset_of!(bpf_sock_ops, remote_ip6) + 12 }>(ctx),
        ];
        for (index, word) in words.into_iter().enumerate() {
            address[index * 4..][..4].copy_from_slice(&word.to_ne_bytes());
        }
    }
    let port = u32::from_be(field::<{ offset_of!(bpf_sock_ops, remote_port) }>(ctx)) as u16;
    ServerKey::new(address, port)
}

/// A word of the context. The verifier wants each read whole and at an offset that stands in the instruction; left to
/// itself, the compiler works addresses out beforehand where several ways lead to a read.
#[inline(always)]
fn field<const OFFSET: usize>(ctx: &SockOpsContext) -> u32 {
    let word: u64;
    // SAFETY: `ops` is what the program was called with, and the offset is that of one of its fields.
    unsafe {
        asm!(
            "{word} = *(u32 *)({ops} + {offset})",
            word = out(reg) word,
            ops = in(reg) ctx.ops,
            offset = const OFFSET,
            options(nostack, readonly, pure),
        );
    }
    word as u32
}
