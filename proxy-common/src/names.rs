//! The names of maps, programs and pins, as `bpftool` shows them.

/// The layout of pinned state: the folder below `weir/`. Another layout is another folder.
pub const LAYOUT: &str = "v1";

/// Folder below the bpffs mount point that holds everything Weir pins.
pub const ROOT: &str = "weir";
pub const MAPS: &str = "maps";
pub const PROGRAMS: &str = "progs";
pub const LINKS: &str = "links";

/// The running scope: which (local address, protocol, port) is guarded, and by which policy.
pub const GATE_SCOPE: &str = "GATE_SCOPE";
/// The pin of the map that is in [`GATE_SCOPE`]: without it, only who may open any map by its number could read
/// what is guarded.
pub const RUNNING_SCOPE: &str = "running_scope";
/// The pin of the map that is about to be.
pub const INCOMING_SCOPE: &str = "incoming_scope";
/// By admission slot: which beginnings of addresses are on no list, and where to look for the others.
pub const GATE_SIEVES: &str = "GATE_SIEVES";
/// By admission slot: who may come in.
pub const GATE_ALLOW: &str = "GATE_ALLOW";
/// By admission slot: who may come in by IPv4, where the lists are long.
pub const GATE_DIRECTORY: &str = "GATE_DIRECTORY";
/// By admission slot: what is behind the /24s of a directory.
pub const GATE_BLOCKS: &str = "GATE_BLOCKS";
/// By admission slot: the hosts of those /24s of a directory that are listed in part.
pub const GATE_HOSTS: &str = "GATE_HOSTS";
/// By entrypoint slot and CPU: what the gate decided.
pub const GATE_COUNTERS: &str = "GATE_COUNTERS";
/// By entrypoint slot and CPU: what the gate let pass and would have dropped, were the entrypoint not shadowed. Its
/// `passed` stays 0: what is listed is counted in [`GATE_COUNTERS`].
pub const GATE_WOULD_DROP: &str = "GATE_WOULD_DROP";
/// Of shadowed entrypoints: whose packets these were.
pub const GATE_SHADOWED: &str = "GATE_SHADOWED";
/// By entrypoint slot: its name.
pub const GATE_ENTRYPOINTS: &str = "GATE_ENTRYPOINTS";
/// By list id: its name and size.
pub const GATE_LISTS: &str = "GATE_LISTS";
/// By entrypoint slot and CPU: what `weir explain` has added to [`GATE_COUNTERS`].
pub const GATE_TRIED: &str = "GATE_TRIED";
/// Drops, sampled while somebody watches.
pub const GATE_EVENTS: &str = "GATE_EVENTS";
/// Until when somebody watches.
pub const GATE_WATCHED: &str = "GATE_WATCHED";
/// By CPU: how much it has told of late.
pub const GATE_BUDGET: &str = "GATE_BUDGET";
/// By entrypoint slot: what is known of floods of SYNs.
pub const GATE_FLOODS: &str = "GATE_FLOODS";
/// By address and port: when the queue of who listens there overflowed.
pub const GATE_LISTENERS: &str = "GATE_LISTENERS";

pub const GATE_MAPS: [&str; 17] = [
    GATE_SCOPE,
    GATE_SIEVES,
    GATE_ALLOW,
    GATE_DIRECTORY,
    GATE_BLOCKS,
    GATE_HOSTS,
    GATE_COUNTERS,
    GATE_WOULD_DROP,
    GATE_SHADOWED,
    GATE_ENTRYPOINTS,
    GATE_LISTS,
    GATE_TRIED,
    GATE_EVENTS,
    GATE_WATCHED,
    GATE_BUDGET,
    GATE_FLOODS,
    GATE_LISTENERS,
];

/// The gate at XDP.
pub const GATE_XDP: &str = "gate_xdp";
/// The gate at XDP, for kernels that can't make SYN cookies for it.
pub const GATE_XDP_PLAIN: &str = "gate_xdp_plain";
/// The gate at tcx ingress.
pub const GATE_TC: &str = "gate_tc";
/// Judges as the gate does, and says all that it knows. Never attached: `weir explain` runs it.
pub const GATE_EXPLAIN: &str = "gate_explain";
/// Returns XDP_DROP and does nothing else: the floor that benchmarks compare the gate with. Never attached.
pub const FLOOR_DROP: &str = "floor_drop";
/// The gate, asked about another source each time: for benchmarks. Never attached.
pub const GATE_SCATTERED: &str = "gate_scattered";
/// Gives a packet another source and drops it: for benchmarks. Never attached.
pub const FLOOR_SCATTERED: &str = "floor_scattered";
