//! The maps, and the gate's view of them.
//!
//! Only `#[btf_map]`: one map of the older kind and libbpf's tools (bpftool among them) refuse the object.

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps, LruPerCpuHashMap, PerCpuArray},
    helpers::bpf_ktime_get_ns,
    macros::btf_map,
};
use proxy_common::{
    admission::{
        MAX_ADMISSIONS, MAX_LISTS, SOME_LIST, Sieve,
        directory::{BLOCKS, Block, Hosts, Listed, Touched, block, touches},
        tree::{Damaged, Node, Whole},
    },
    counters::Counters,
    flood::Flood,
    label::{Label, ListLabel},
    scope::{MAX_ENTRYPOINTS, Policy, ScopeKey, ScopeTable, protect},
    shadow::{MAX_SHADOWED, Shadowed, ShadowedKey},
};
use proxy_ebpf::{
    flood::Gauge,
    gate::{Admits, SourceV4, SourceV6, Tables},
};

/// One slot, so that one update brings a whole new generation.
#[btf_map]
static GATE_SCOPE: ArrayOfMaps<Array<ScopeTable, 1>, 1> = ArrayOfMaps::new();

#[btf_map]
static GATE_SIEVES: ArrayOfMaps<Array<Sieve, 1>, MAX_ADMISSIONS> = ArrayOfMaps::new();

/// As large as the lists are: user space makes the arrays of maps, with other flags than can be said here.
#[btf_map]
static GATE_ALLOW: ArrayOfMaps<Array<Node, 1>, MAX_ADMISSIONS> = ArrayOfMaps::new();

/// Only of sets with many IPv4 prefixes.
#[btf_map]
static GATE_DIRECTORY: ArrayOfMaps<Array<Touched, BLOCKS>, MAX_ADMISSIONS> = ArrayOfMaps::new();

#[btf_map]
static GATE_BLOCKS: ArrayOfMaps<Array<Block, BLOCKS>, MAX_ADMISSIONS> = ArrayOfMaps::new();

#[btf_map]
static GATE_HOSTS: ArrayOfMaps<Array<Hosts, 1>, MAX_ADMISSIONS> = ArrayOfMaps::new();

#[btf_map]
static GATE_COUNTERS: PerCpuArray<Counters, MAX_ENTRYPOINTS> = PerCpuArray::new();

/// What shadowed entrypoints would have dropped: the same counters once more.
#[btf_map]
static GATE_WOULD_DROP: PerCpuArray<Counters, MAX_ENTRYPOINTS> = PerCpuArray::new();

/// Of shadowed entrypoints: whose packets those were. Others never look here.
#[btf_map]
static GATE_SHADOWED: LruPerCpuHashMap<ShadowedKey, Shadowed, MAX_SHADOWED> = LruPerCpuHashMap::new();

/// Written and read by user space only; here so that the loader makes them with their types.
#[btf_map]
static GATE_ENTRYPOINTS: Array<Label, MAX_ENTRYPOINTS> = Array::new();

#[btf_map]
static GATE_LISTS: Array<ListLabel, MAX_LISTS> = Array::new();

/// What `gate_explain` has counted, for packets that the gate's own programs were tried out on.
#[btf_map]
static GATE_TRIED: PerCpuArray<Counters, MAX_ENTRYPOINTS> = PerCpuArray::new();

/// Not per CPU: a flood is one whatever CPUs it comes to.
#[btf_map]
static GATE_FLOODS: Array<Flood, MAX_ENTRYPOINTS> = Array::new();

/// The gate's questions, answered by the maps above.
pub struct GateMaps {
    pub handshakes: Handshakes,
}

/// What a program does about handshakes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Handshakes {
    /// It has them proved, and counts SYNs.
    Proves,
    /// It only tells whether they would have to be.
    Tells,
    /// It can't send anything back.
    CannotProve,
}

impl Tables for GateMaps {
    #[inline(always)]
    fn policy(&self, key: &ScopeKey) -> Option<Policy> {
        // Where no scope is in place, nothing is guarded.
        GATE_SCOPE.get_value(0, &0)?.find(key)
    }

    #[inline(always)]
    fn admits_v4(&self, admission: u32, source: SourceV4) -> Admits {
        let Some(sieve) = GATE_SIEVES.get_value(admission, &0) else { return Admits::NoLists };
        let address = u32::from_be(source[0]);
        if sieve.directory != 0 {
            return admits(directory_lists(admission, address));
        }
        if !sieve.may_list_v4((address >> 16) as u16) {
            return Admits::NotListed;
        }
        let Some(nodes) = GATE_ALLOW.get(admission) else { return Admits::NoLists };
        admits(sieve.tree_v4.holds(address, |node| nodes.get(node)))
    }

    #[inline(always)]
    fn admits_v6(&self, admission: u32, source: SourceV6) -> Admits {
        let Some(sieve) = GATE_SIEVES.get_value(admission, &0) else { return Admits::NoLists };
        let [upper, lower] = [joined(source[0], source[1]), joined(source[2], source[3])];
        if !sieve.may_list_v6((upper >> 48) as u16) {
            return Admits::NotListed;
        }
        let Some(nodes) = GATE_ALLOW.get(admission) else { return Admits::NoLists };
        match sieve.tree_v6.holds(upper, |node| nodes.get(node)) {
            Ok(false) if sieve.tree_v6_hosts.levels != 0 => {
                admits(sieve.tree_v6_hosts.holds(Whole(upper, lower), |node| nodes.get(node)))
            }
            listed => admits(listed),
        }
    }

    #[inline(always)]
    fn opening(&self, policy: Policy) -> bool {
        match self.handshakes {
            // Counted in any case: that there is a flood is worth to be known.
            Handshakes::Proves => {
                gauge(policy).is_some_and(|gauge| gauge.opening(now()))
                    || policy.has(protect::SYN_COOKIES_ALWAYS)
            }
            Handshakes::Tells | Handshakes::CannotProve => self.is_flooded(policy),
        }
    }

    #[inline(always)]
    fn is_flooded(&self, policy: Policy) -> bool {
        if self.handshakes == Handshakes::CannotProve {
            return false;
        }
        policy.has(protect::SYN_COOKIES_ALWAYS) || gauge(policy).is_some_and(|gauge| gauge.is_active(now))
    }
}

#[inline(always)]
fn gauge(policy: Policy) -> Option<Gauge<'static>> {
    let flood = GATE_FLOODS.get_ptr_mut(policy.entrypoint.into())?;
    // SAFETY: an element of an array is aligned to 8 and outlives the program; programs touch it by this alone. User
    // space writes it as a whole when the configuration has changed: then at worst a count begins anew.
    Some(unsafe { Gauge::of(flood) })
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper has no conditions.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
fn directory_lists(admission: u32, address: u32) -> Result<bool, Damaged> {
    let at = block(address);
    let touched = *GATE_DIRECTORY.get_value(admission, &at).ok_or(Damaged)?;
    if !touches(touched, address) {
        return Ok(false);
    }
    match GATE_BLOCKS.get_value(admission, &at).ok_or(Damaged)?.lists(touched, address) {
        Listed::Yes => Ok(true),
        Listed::Partly(place) => {
            GATE_HOSTS.get_value(admission, &place).map(|hosts| hosts.list(address)).ok_or(Damaged)
        }
    }
}

/// Two words that hold an address's bytes in their order, as a number.
#[inline(always)]
fn joined(first: u32, second: u32) -> u64 {
    (u32::from_be(first) as u64) << 32 | u32::from_be(second) as u64
}

#[inline(always)]
fn admits(listed: Result<bool, Damaged>) -> Admits {
    match listed {
        Ok(true) => Admits::Listed(SOME_LIST),
        Ok(false) => Admits::NotListed,
        Err(Damaged) => Admits::NoLists,
    }
}

/// The counters.
pub mod report {
    use aya_ebpf::{bindings::BPF_NOEXIST, btf_maps::PerCpuArray};
    use proxy_common::{
        counters::Counters,
        scope::MAX_ENTRYPOINTS,
        shadow::{PREFIX_V4, PREFIX_V6, Shadowed, ShadowedKey},
        verdict::DropReason,
    };
    use proxy_ebpf::gate::Source;

    use super::{GATE_COUNTERS, GATE_SCOPE, GATE_SHADOWED, GATE_TRIED, GATE_WOULD_DROP};

    #[inline(always)]
    pub fn passed(entrypoint: u32, bytes: u64) {
        if let Some(counters) = counters(&GATE_COUNTERS, entrypoint) {
            counters.passed.count(bytes);
        }
    }

    #[inline(always)]
    pub fn dropped(entrypoint: u32, reason: DropReason, bytes: u64) {
        if let Some(counters) = counters(&GATE_COUNTERS, entrypoint) {
            counters.dropped_mut(reason).count(bytes);
        }
    }

    /// The gate has answered it itself.
    #[inline(always)]
    pub fn challenged(entrypoint: u32, bytes: u64) {
        if let Some(counters) = counters(&GATE_COUNTERS, entrypoint) {
            counters.challenged.count(bytes);
        }
    }

    /// It would have been answered, were its entrypoint not shadowed. It passes.
    #[inline(always)]
    pub fn would_challenge(entrypoint: u32, bytes: u64) {
        passed(entrypoint, bytes);
        if let Some(counters) = counters(&GATE_WOULD_DROP, entrypoint) {
            counters.challenged.count(bytes);
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

    /// Would have been dropped: counted by reason, and by where it came from.
    #[inline(always)]
    pub fn shadowed(entrypoint: u32, reason: DropReason, source: Source, bytes: u64) {
        if let Some(counters) = counters(&GATE_WOULD_DROP, entrypoint) {
            counters.dropped_mut(reason).count(bytes);
        }
        let key = ShadowedKey { prefix: prefix(source), entrypoint };
        if add(&key, bytes).is_none() {
            // Another CPU may be first; then there is something to add to.
            let first = Shadowed { packets: 1, bytes };
            if GATE_SHADOWED.insert(key, first, BPF_NOEXIST.into()).is_err() {
                let _ = add(&key, bytes);
            }
        }
    }

    #[inline(always)]
    fn add(key: &ShadowedKey, bytes: u64) -> Option<()> {
        let tally = GATE_SHADOWED.get_ptr_mut(key)?;
        // SAFETY: this CPU's own share, aligned to 8, and never given back to the system while this program runs: an
        // entry that gives way is only reused, and then at worst the wrong prefix gets a count.
        unsafe { (*tally).count(bytes) };
        Some(())
    }

    /// The first address of the prefix that a source is counted by.
    #[inline(always)]
    fn prefix([first, second, third, last]: Source) -> [u8; 16] {
        let words = if first == 0 && second == 0 && third == u32::from_ne_bytes([0, 0, 0xff, 0xff]) {
            [first, second, third, last & (u32::MAX << (32 - PREFIX_V4)).to_be()]
        } else {
            [first, second & (u32::MAX << (64 - PREFIX_V6)).to_be(), 0, 0]
        };
        // SAFETY: four words are sixteen bytes, and any bytes are an address.
        unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(words) }
    }

    #[inline(always)]
    fn counters(
        map: &'static PerCpuArray<Counters, MAX_ENTRYPOINTS>,
        entrypoint: u32,
    ) -> Option<&'static mut Counters> {
        let counters = map.get_ptr_mut(entrypoint)?;
        // SAFETY: this CPU's own share. A program isn't interrupted by itself on one CPU at one hook; XDP
        // and tc on one CPU may interleave, and then at worst lose a count. The map is pinned for longer
        // than any program that uses it runs.
        Some(unsafe { &mut *counters })
    }
}
