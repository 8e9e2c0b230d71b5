//! The maps, and the gate's view of them.
//!
//! Only `#[btf_map]`: one map of the older kind and libbpf's tools (bpftool among them) refuse the object.

use core::ptr;

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    btf_maps::{
        Array, ArrayOfMaps, LpmTrie, LruHashMap, LruPerCpuHashMap, PerCpuArray, ProgramArray, lpm_trie::Key,
    },
    helpers::{bpf_ktime_get_boot_ns, bpf_ktime_get_ns},
    macros::btf_map,
    programs::XdpContext,
};
use proxy_common::{
    admission::{
        MAX_ADMISSIONS, MAX_LISTS, SOME_LIST, Sieve,
        directory::{BLOCKS, Block, Hosts, Listed, Touched, block, touches},
        index::{Bucket, FILTER_WORDS},
        tree::{Damaged, Node},
    },
    blocked::{Blocked, MAX_BLOCKS},
    counters::Counters,
    label::{Label, ListLabel},
    limit::{Bucket as TokenBucket, MAX_SOURCES, SourceKey, Spent, Take},
    scope::{MAX_CDN, MAX_ENTRYPOINTS, MAX_TRIED, Policy, ScopeKey, ScopeTable, protect},
    shadow::{MAX_SHADOWED, Shadowed, ShadowedKey},
    syn_flood::{Flood, Unproved},
    verdict::DropReason,
};
use proxy_ebpf::{
    flood::Gauge,
    gate::{Admits, Source, SourceV4, SourceV6, Tables},
    word::Word,
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

/// Only of sets with many IPv6 prefixes.
#[btf_map]
static GATE_FILTER: ArrayOfMaps<Array<u64, FILTER_WORDS>, MAX_ADMISSIONS> = ArrayOfMaps::new();

#[btf_map]
static GATE_INDEX: ArrayOfMaps<Array<Bucket, 1>, MAX_ADMISSIONS> = ArrayOfMaps::new();

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
static GATE_TRIED: PerCpuArray<Counters, MAX_TRIED> = PerCpuArray::new();

/// What sources have spent of their limits. One that is pushed out begins anew.
#[btf_map]
static GATE_SOURCES: LruHashMap<SourceKey, Spent, MAX_SOURCES> = LruHashMap::new();

/// Not per CPU: a flood is one whatever CPUs it comes to.
#[btf_map]
static GATE_FLOODS: Array<Flood, MAX_ENTRYPOINTS> = Array::new();

/// Programs that the gate goes on with: at 0 `gate_prove`, unless the kernel wouldn't take it.
#[btf_map]
static GATE_STEPS: ProgramArray<1> = ProgramArray::new();

/// What the gate hands over to them. Written and read within one packet, which nothing at XDP comes between on a CPU;
/// but a packet that is tried out may, on old kernels, find another's here, and then only it is judged wrongly.
#[btf_map]
static GATE_UNPROVED: PerCpuArray<Unproved, 1> = PerCpuArray::new();

/// Whom somebody has blocked. Asked only where the scope says that there is anybody.
#[btf_map]
static GATE_BLOCKED: LpmTrie<[u8; 16], Blocked, MAX_BLOCKS> = LpmTrie::new();

/// Whom entrypoints spare that allow others too.
#[btf_map]
static GATE_CDN: LpmTrie<[u8; 16], u64, MAX_CDN> = LpmTrie::new();

/// The gate's questions, answered by the maps above. `IN_EARNEST`: what it lets pass is spent, and what is blocked or
/// asks for a connection is counted; else it only looks. `PROVES`: it can send back what handshakes are proved by.
pub struct GateMaps<const IN_EARNEST: bool, const PROVES: bool>;

impl<const IN_EARNEST: bool, const PROVES: bool> Tables for GateMaps<IN_EARNEST, PROVES> {
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
        let Some(nodes) = GATE_ALLOW.get(admission) else { return Admits::NoLists };
        let address = [joined(source[0], source[1]), joined(source[2], source[3])];
        admits(sieve.lists_v6(
            address,
            |node| nodes.get(node),
            |word| GATE_FILTER.get_value(admission, &word),
            |bucket| GATE_INDEX.get_value(admission, &bucket),
        ))
    }

    #[inline(always)]
    fn is_cdn(&self, source: Source) -> bool {
        // SAFETY: four words are sixteen bytes, and any bytes are an address.
        let address = unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(source) };
        GATE_CDN.get(&Key::new(u128::BITS, address)).is_some()
    }

    #[inline(always)]
    fn blocked(&self, source: Source, is_cdn: bool) -> bool {
        // SAFETY: four words are sixteen bytes, and any bytes are an address.
        let address = unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(source) };
        let Some(block) = GATE_BLOCKED.get(&Key::new(u128::BITS, address)) else { return false };
        // SAFETY: the helper has no conditions.
        let holds = block.holds(is_cdn, unsafe { bpf_ktime_get_boot_ns() });
        if holds && IN_EARNEST {
            let packets = (&raw const block.packets).cast_mut();
            // SAFETY: a field of a map's value, which can be written, and is not given back to the system while this
            // program runs; everybody adds to it atomically.
            unsafe { Word::of(packets) }.increment();
        }
        holds
    }

    #[inline(always)]
    fn spend(&self, source: SourceKey, opens: bool) -> Result<(), DropReason> {
        let Some(scope) = GATE_SCOPE.get_value(0, &0) else { return Ok(()) };
        // Cut off rather than compared: the compiler compares one copy of a number and uses another, of which the verifier
        // then knows nothing.
        const { assert!(MAX_ENTRYPOINTS.is_power_of_two()) };
        let limit = &scope.limits[usize::from(source.entrypoint) & (MAX_ENTRYPOINTS - 1)];
        // SAFETY: the helper has no conditions.
        let now = unsafe { bpf_ktime_get_ns() };
        let Some(spent) = GATE_SOURCES.get_ptr_mut(&source) else {
            if IN_EARNEST {
                let connections = if opens { now + limit.connections.interval } else { 0 };
                let first = Spent { packets: now + limit.packets.interval, connections };
                // Another CPU may be first, or there may be no room in a flood: then this one packet is free.
                let _ = GATE_SOURCES.insert(&source, first, BPF_NOEXIST.into());
            }
            return Ok(());
        };
        // SAFETY: fields of what was just looked up.
        unsafe {
            if !Self::take(&limit.packets, &raw mut (*spent).packets, now) {
                return Err(DropReason::PacketRate);
            }
            if opens && !Self::take(&limit.connections, &raw mut (*spent).connections, now) {
                return Err(DropReason::ConnectionRate);
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn opening(&self, policy: Policy) -> bool {
        if !(PROVES && IN_EARNEST) {
            return self.is_flooded(policy);
        }
        // Counted in any case: that there is a flood is worth to be known.
        gauge(policy).is_some_and(|gauge| gauge.opening(now())) || policy.has(protect::SYN_COOKIES_ALWAYS)
    }

    #[inline(always)]
    fn is_flooded(&self, policy: Policy) -> bool {
        PROVES
            && (policy.has(protect::SYN_COOKIES_ALWAYS)
                || gauge(policy).is_some_and(|gauge| gauge.is_active(now)))
    }

    #[inline(always)]
    fn keep(&self, unproved: &Unproved) {
        if PROVES
            && IN_EARNEST
            && let Some(room) = GATE_UNPROVED.get_ptr_mut(0)
        {
            // SAFETY: this CPU's own, until the program that follows has read it.
            unsafe { *room = *unproved };
        }
    }
}

impl<const IN_EARNEST: bool, const PROVES: bool> GateMaps<IN_EARNEST, PROVES> {
    /// Takes one from a bucket, unless that is too much.
    ///
    /// # Safety
    /// `due` must be a field of a map's value.
    #[inline(always)]
    unsafe fn take(bucket: &TokenBucket, due: *mut u64, now: u64) -> bool {
        if bucket.interval == 0 {
            return true;
        }
        // SAFETY: a map's value, as the caller promises, which is not given back to the system while this program runs.
        // Other CPUs may write in between: then one too many passes, and never one too few.
        let take = bucket.take(unsafe { ptr::read_volatile(due) }, now);
        match take {
            Take::Over => return false,
            Take::Begin(_) | Take::Add(_) if !IN_EARNEST => {}
            // SAFETY: as above.
            Take::Begin(next) => unsafe { ptr::write_volatile(due, next) },
            Take::Add(more) => {
                // SAFETY: as above.
                unsafe { Word::of(due) }.add(more);
            }
        }
        true
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

/// Goes on with `gate_prove`, and doesn't come back, unless there is no such program.
#[inline(always)]
pub fn prove_next(ctx: &XdpContext) {
    // SAFETY: it is given the same packet, and nothing here is left to be dropped.
    unsafe { GATE_STEPS.tail_call(ctx, 0) };
}

/// What was handed over.
#[inline(always)]
pub fn handed_over() -> Option<Unproved> {
    // SAFETY: this CPU's own.
    GATE_UNPROVED.get_ptr(0).map(|unproved| unsafe { *unproved })
}

/// The counters.
pub mod report {
    use aya_ebpf::{bindings::BPF_NOEXIST, btf_maps::PerCpuArray};
    use proxy_common::{
        counters::Counters,
        scope::{MAX_ENTRYPOINTS, TRIED_SHADOWED},
        shadow::{PREFIX_V4, PREFIX_V6, Shadowed, ShadowedKey, TRIED},
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

    /// Likewise, at a shadowed entrypoint.
    #[inline(always)]
    pub fn tried_shadowed(entrypoint: u32, reason: DropReason, source: Source, bytes: u64) {
        tried(entrypoint + TRIED_SHADOWED, Some(reason), bytes);
        count_source(entrypoint | TRIED, source, bytes);
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
        count_source(entrypoint, source, bytes);
    }

    #[inline(always)]
    fn count_source(entrypoint: u32, source: Source, bytes: u64) {
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
