//! The packet, by way of the kernel's helpers.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    helpers::{
        bpf_csum_update, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_change_tail, bpf_skb_load_bytes,
        bpf_skb_store_bytes, bpf_skb_vlan_pop,
    },
    programs::TcContext,
};
use proxy_ebpf::forward::{
    Packet,
    checksum::Difference,
    rewrite::{Edit, Part, Refused},
};

/// What the program was called with.
#[derive(Clone, Copy)]
pub struct Skb(*mut __sk_buff);

impl Skb {
    #[inline(always)]
    pub fn of(ctx: &TcContext) -> Self {
        Self(ctx.as_ptr().cast())
    }

    #[inline(always)]
    pub fn pointer(self) -> *mut __sk_buff {
        self.0
    }

    #[inline(always)]
    pub fn interface(self) -> u32 {
        // SAFETY: here and below, it is what the program was called with.
        unsafe { (*self.0).ifindex }
    }

    /// With the Ethernet header.
    #[inline(always)]
    pub fn length(self) -> u64 {
        // SAFETY: as above.
        u64::from(unsafe { (*self.0).len })
    }

    /// Whether the frame is addressed to the host. Others are seen too, while somebody listens in on the interface.
    #[inline(always)]
    pub fn is_for_us(self) -> bool {
        const PACKET_HOST: u32 = 0;
        // SAFETY: as above.
        unsafe { (*self.0).pkt_type == PACKET_HOST }
    }

    /// Whether it has a tag that names a VLAN: then it is for that VLAN's interface.
    #[inline(always)]
    pub fn is_of_a_vlan(self) -> bool {
        const NUMBER: u32 = 0xfff;
        // SAFETY: as above.
        unsafe { (*self.0).vlan_present != 0 && (*self.0).vlan_tci & NUMBER != 0 }
    }

    /// Takes off a tag that only gives a priority, which would be sent on with the packet.
    #[inline(always)]
    pub fn untag(self) {
        // SAFETY: as above, and no pointer into the packet is used after this.
        unsafe {
            if (*self.0).vlan_present != 0 {
                bpf_skb_vlan_pop(self.0);
            }
        }
    }

    /// Of the IP packets that it stands for: where the kernel has merged several, each of them.
    #[inline(always)]
    pub fn length_of_parts(self, packet: &Packet) -> usize {
        // SAFETY: as above.
        match unsafe { (*self.0).gso_size } {
            0 => packet.length,
            payload => packet.headers + payload as usize,
        }
    }

    /// As many bytes as `to` has.
    #[inline(always)]
    pub fn load<T: Copy>(self, offset: usize, to: &mut T) -> Result<(), Refused> {
        // SAFETY: there is room for as much, and any bytes are a value of what is loaded here: words and bytes.
        done(unsafe {
            bpf_skb_load_bytes(self.0.cast(), offset as u32, (&raw mut *to).cast(), size_of::<T>() as u32)
        })
    }

    /// The first `length` bytes of `to`: at least one, and no more than there is room for.
    #[inline(always)]
    pub fn load_part<const N: usize>(
        self,
        offset: usize,
        to: &mut [u8; N],
        length: usize,
    ) -> Result<(), Refused> {
        const { assert!(N.is_power_of_two()) };
        let last = length.wrapping_sub(1) as u32;
        // The verifier believes a length only where it sees the bounds; the compiler, which knows them, would leave them
        // out. So it must not know.
        // SAFETY: a local variable.
        let last = unsafe { core::ptr::read_volatile(&raw const last) } & (N as u32 - 1);
        // SAFETY: there is room for as much.
        done(unsafe { bpf_skb_load_bytes(self.0.cast(), offset as u32, to.as_mut_ptr().cast(), last + 1) })
    }

    #[inline(always)]
    pub fn resize(self, length: usize) -> Result<(), Refused> {
        // SAFETY: no pointer into the packet is used after this.
        done(unsafe { bpf_skb_change_tail(self.0, length as u32, 0) })
    }
}

impl Edit for Skb {
    #[inline(always)]
    fn store<T: Copy>(&mut self, offset: usize, value: &T) -> Result<(), Refused> {
        let (from, length) = ((&raw const *value).cast(), size_of::<T>() as u32);
        // SAFETY: as many bytes as there are.
        done(unsafe { bpf_skb_store_bytes(self.0, offset as u32, from, length, 0) })
    }

    #[inline(always)]
    fn header_checksum(&mut self, offset: usize, by: Difference) -> Result<(), Refused> {
        // SAFETY: the helper checks the offset.
        done(unsafe { bpf_l3_csum_replace(self.0, offset as u32, 0, by.get().into(), 0) })
    }

    #[inline(always)]
    fn checksum(
        &mut self,
        offset: usize,
        by: Difference,
        part: Part,
        may_be_absent: bool,
    ) -> Result<(), Refused> {
        let pseudo = match part {
            Part::PseudoHeader => u64::from(BPF_F_PSEUDO_HDR),
            Part::Message => 0,
        };
        let absent = if may_be_absent { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 };
        // SAFETY: the helper checks the offset.
        done(unsafe { bpf_l4_csum_replace(self.0, offset as u32, 0, by.get().into(), pseudo | absent) })
    }

    #[inline(always)]
    fn total(&mut self, by: Difference) {
        // SAFETY: no conditions. Where the network card hasn't summed up everything, it says so, and nothing is to be done.
        unsafe { bpf_csum_update(self.0, by.get()) };
    }
}

#[inline(always)]
fn done(result: core::ffi::c_long) -> Result<(), Refused> {
    if result == 0 { Ok(()) } else { Err(Refused) }
}
