//! The maps, and the gate's view of them.
//!
//! Only `#[btf_map]`: one map of the older kind and libbpf's tools (bpftool among them) refuse the object.

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps, LpmTrie, PerCpuArray, lpm_trie::Key},
    macros::btf_map,
};
use proxy_common::{
    admission::{ListId, MAX_ADMISSIONS, MAX_LISTS, Sieve, TEMPLATE_PREFIXES},
    counters::Counters,
    label::{Label, ListLabel},
    scope::{MAX_ENTRYPOINTS, Policy, ScopeKey, ScopeTable},
};
use proxy_ebpf::gate::{Admits, SourceV4, SourceV6, Tables};

/// One slot, so that one update brings a whole new generation.
#[btf_map]
static GATE_SCOPE: ArrayOfMaps<Array<ScopeTable, 1>, 1> = ArrayOfMaps::new();

#[btf_map]
static GATE_SIEVES: ArrayOfMaps<Array<Sieve, 1>, MAX_ADMISSIONS> = ArrayOfMaps::new();

#[btf_map]
static GATE_ALLOW_V4: ArrayOfMaps<LpmTrie<[u8; 4], ListId, TEMPLATE_PREFIXES>, MAX_ADMISSIONS> =
    ArrayOfMaps::new();

#[btf_map]
static GATE_ALLOW_V6: ArrayOfMaps<LpmTrie<[u8; 16], ListId, TEMPLATE_PREFIXES>, MAX_ADMISSIONS> =
    ArrayOfMaps::new();

#[btf_map]
static GATE_COUNTERS: PerCpuArray<Counters, MAX_ENTRYPOINTS> = PerCpuArray::new();

/// Written and read by user space only; here so that the loader makes them with their types.
#[btf_map]
static GATE_ENTRYPOINTS: Array<Label, MAX_ENTRYPOINTS> = Array::new();

#[btf_map]
static GATE_LISTS: Array<ListLabel, MAX_LISTS> = Array::new();

/// What `gate_explain` has counted, for packets that the gate's own programs were tried out on.
#[btf_map]
static GATE_TRIED: PerCpuArray<Counters, MAX_ENTRYPOINTS> = PerCpuArray::new();

/// The gate's questions, answered by the maps above.
pub struct GateMaps;

impl Tables for GateMaps {
    #[inline(always)]
    fn policy(&self, key: &ScopeKey) -> Option<Policy> {
        // Where no scope is in place, nothing is guarded.
        GATE_SCOPE.get_value(0, &0)?.find(key)
    }

    #[inline(always)]
    fn admits_v4(&self, admission: u32, source: SourceV4) -> Admits {
        let Some(sieve) = GATE_SIEVES.get_value(admission, &0) else { return Admits::NoLists };
        if !sieve.may_list_v4(first_16_bits(source[0])) {
            return Admits::NotListed;
        }
        let Some(trie) = GATE_ALLOW_V4.get(admission) else { return Admits::NoLists };
        let key = WholeAddress { bits: 32, words: source };
        admits(trie.get(key.as_prefix()))
    }

    #[inline(always)]
    fn admits_v6(&self, admission: u32, source: SourceV6) -> Admits {
        let Some(sieve) = GATE_SIEVES.get_value(admission, &0) else { return Admits::NoLists };
        if !sieve.may_list_v6(first_16_bits(source[0])) {
            return Admits::NotListed;
        }
        let Some(trie) = GATE_ALLOW_V6.get(admission) else { return Admits::NoLists };
        let key = WholeAddress { bits: 128, words: source };
        admits(trie.get(key.as_prefix()))
    }
}

/// Of an address whose bytes the word holds in their order.
#[inline(always)]
fn first_16_bits(word: u32) -> u16 {
    (u32::from_be(word) >> 16) as u16
}

#[inline(always)]
fn admits(list: Option<&ListId>) -> Admits {
    match list {
        Some(list) => Admits::Listed(*list),
        None => Admits::NotListed,
    }
}

/// An address as a prefix of its full length: [`Key`], but aligned, so that it is written in words.
#[repr(C)]
struct WholeAddress<const N: usize> {
    bits: u32,
    words: [u32; N],
}

impl WholeAddress<1> {
    #[inline(always)]
    fn as_prefix(&self) -> &Key<[u8; 4]> {
        const { assert!(size_of::<Self>() == size_of::<Key<[u8; 4]>>()) };
        // SAFETY: both are the length in bits and then the address, without padding (same size), and a `Key`
        // may lie at any address.
        unsafe { &*(&raw const *self).cast() }
    }
}

impl WholeAddress<4> {
    #[inline(always)]
    fn as_prefix(&self) -> &Key<[u8; 16]> {
        const { assert!(size_of::<Self>() == size_of::<Key<[u8; 16]>>()) };
        // SAFETY: as for IPv4.
        unsafe { &*(&raw const *self).cast() }
    }
}

/// The counters.
pub mod report {
    use proxy_common::{counters::Counters, verdict::DropReason};

    use super::{GATE_COUNTERS, GATE_SCOPE, GATE_TRIED};

    #[inline(always)]
    pub fn passed(entrypoint: u32, bytes: u64) {
        if let Some(counters) = counters(entrypoint) {
            counters.passed.count(bytes);
        }
    }

    #[inline(always)]
    pub fn dropped(entrypoint: u32, reason: DropReason, bytes: u64) {
        if let Some(counters) = counters(entrypoint) {
            counters.dropped_mut(reason).count(bytes);
        }
    }

    /// This packet was one that the gate was tried out on.
    #[inline(always)]
    pub fn tried(entrypoint: u32, dropped: Option<DropReason>, bytes: u64) {
        let Some(counters) = GATE_TRIED.get_ptr_mut(entrypoint) else { return };
        // SAFETY: as for the counters proper.
        let counters = unsafe { &mut *counters };
        match dropped {
            Some(reason) => counters.dropped_mut(reason).count(bytes),
            None => counters.passed.count(bytes),
        }
    }

    /// The snapshot in force; 0: none.
    #[inline(always)]
    pub fn generation() -> u64 {
        GATE_SCOPE.get_value(0, &0).map_or(0, |scope| scope.generation)
    }

    #[inline(always)]
    fn counters(entrypoint: u32) -> Option<&'static mut Counters> {
        let counters = GATE_COUNTERS.get_ptr_mut(entrypoint)?;
        // SAFETY: this CPU's own share. A program isn't interrupted by itself on one CPU at one hook; XDP
        // and tc on one CPU may interleave, and then at worst lose a count. The map is pinned for longer
        // than any program that uses it runs.
        Some(unsafe { &mut *counters })
    }
}
