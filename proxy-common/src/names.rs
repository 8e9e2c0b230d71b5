//! The names of maps, programs and pins, as `bpftool` shows them.

/// The layout of pinned state: the folder below `weir/`. Another layout is another folder, and the daemon that finds one takes
/// the gate over from it.
pub const LAYOUT: &str = "v2";

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
/// By admission slot: of which /32s nothing is listed by IPv6, where the lists are long.
pub const GATE_FILTER: &str = "GATE_FILTER";
/// By admission slot: where in [`GATE_ALLOW`] to look for the others.
pub const GATE_INDEX: &str = "GATE_INDEX";
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
/// By entrypoint slot and CPU: what `weir explain` has added to [`GATE_COUNTERS`] and, behind that, to
/// [`GATE_WOULD_DROP`].
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

/// By source and entrypoint: what it has spent of its limits.
pub const GATE_SOURCES: &str = "GATE_SOURCES";
/// By source prefix: until when it is blocked.
pub const GATE_BLOCKED: &str = "GATE_BLOCKED";

/// The prefixes of CDNs, which entrypoints that allow others too spare.
pub const GATE_CDN: &str = "GATE_CDN";

/// By number: programs that the gate goes on with.
pub const GATE_STEPS: &str = "GATE_STEPS";
/// By CPU: what the gate hands over to them.
pub const GATE_UNPROVED: &str = "GATE_UNPROVED";

/// By CPU: how much the gate has had to tell. Only of the programs that log; not pinned.
pub const GATE_SPOKEN: &str = "GATE_SPOKEN";

pub const GATE_MAPS: [&str; 24] = [
    GATE_SCOPE,
    GATE_SIEVES,
    GATE_ALLOW,
    GATE_DIRECTORY,
    GATE_BLOCKS,
    GATE_HOSTS,
    GATE_FILTER,
    GATE_INDEX,
    GATE_COUNTERS,
    GATE_WOULD_DROP,
    GATE_SHADOWED,
    GATE_ENTRYPOINTS,
    GATE_LISTS,
    GATE_TRIED,
    GATE_EVENTS,
    GATE_WATCHED,
    GATE_BUDGET,
    GATE_SOURCES,
    GATE_BLOCKED,
    GATE_CDN,
    GATE_FLOODS,
    GATE_LISTENERS,
    GATE_STEPS,
    GATE_UNPROVED,
];

/// Port passthrough: the source ports and timeouts that hold for all of it.
pub const FORWARD_SETTINGS: &str = "FORWARD_SETTINGS";
/// By address, protocol and port: what is forwarded.
pub const FORWARD_SERVICES: &str = "FORWARD_SERVICES";
/// By table slot: which server gets a new flow.
pub const FORWARD_TABLES: &str = "FORWARD_TABLES";
/// By server slot: where it is, and whether it is alive.
pub const FORWARD_SERVERS: &str = "FORWARD_SERVERS";
/// By service slot: its name.
pub const FORWARD_NAMES: &str = "FORWARD_NAMES";
/// By the way of a client's packets: its flow.
pub const FORWARD_FLOWS: &str = "FORWARD_FLOWS";
/// By the way of a server's packets: whose flow they are of.
pub const FORWARD_REPLIES: &str = "FORWARD_REPLIES";
/// By server slot: which source port is tried next.
pub const FORWARD_CURSORS: &str = "FORWARD_CURSORS";
/// By service slot and CPU: what was forwarded, and what wasn't and why.
pub const FORWARD_SERVICE_COUNTERS: &str = "FORWARD_SERVICE_COUNTERS";
/// By server slot and CPU: what was forwarded.
pub const FORWARD_SERVER_COUNTERS: &str = "FORWARD_SERVER_COUNTERS";

/// All of port passthrough, pinned beside the gate's.
pub const FORWARD_MAPS: [&str; 10] = [
    FORWARD_SETTINGS,
    FORWARD_SERVICES,
    FORWARD_TABLES,
    FORWARD_SERVERS,
    FORWARD_NAMES,
    FORWARD_FLOWS,
    FORWARD_REPLIES,
    FORWARD_CURSORS,
    FORWARD_SERVICE_COUNTERS,
    FORWARD_SERVER_COUNTERS,
];

/// Which servers are watched by [`UPSTREAM_WATCH`], and when each was last told of. Not pinned, as little as the next one: whoever
/// reads it holds it.
pub const UPSTREAM_SERVERS: &str = "UPSTREAM_SERVERS";
/// What there is to tell of them.
pub const UPSTREAM_REPORTS: &str = "UPSTREAM_REPORTS";
/// Watches the daemon's connections to servers, from its control group.
pub const UPSTREAM_WATCH: &str = "upstream_watch";

/// The gate at XDP.
pub const GATE_XDP: &str = "gate_xdp";
/// Has handshakes proved that the gate at XDP hands over to it. Where a kernel can't do that, it isn't there.
pub const GATE_PROVE: &str = "gate_prove";
/// The gate at tcx ingress.
pub const GATE_TC: &str = "gate_tc";
/// Port passthrough, at tcx ingress behind the gate: where clients come in and where servers' replies do.
pub const FORWARD_TC: &str = "forward_tc";
/// Judges as the gate does, and says all that it knows. Never attached: `weir explain` runs it.
pub const GATE_EXPLAIN: &str = "gate_explain";
/// Returns XDP_DROP and does nothing else: the floor that benchmarks compare the gate with. Never attached.
pub const FLOOR_DROP: &str = "floor_drop";
/// The gate, asked about another source each time: for benchmarks. Never attached.
pub const GATE_SCATTERED: &str = "gate_scattered";
/// Gives a packet another source and drops it: for benchmarks. Never attached.
pub const FLOOR_SCATTERED: &str = "floor_scattered";
/// Carries a client's packet as [`FORWARD_TC`] does, at XDP: for benchmarks. Never attached.
pub const FORWARD_AT_XDP: &str = "forward_at_xdp";
/// Sends the frames that it is run on out of an interface, each from another source: for benchmarks. Never attached.
pub const FLOOD_SEND: &str = "flood_send";

/// By direction: how packets of connections that were handed to the kernel are translated.
pub const TRANSLATE_FLOWS: &str = "TRANSLATE_FLOWS";
/// By direction: what was seen of the handshakes of connections that may be.
pub const TRANSLATE_SEEN: &str = "TRANSLATE_SEEN";
/// The local ports of such connections.
pub const TRANSLATE_PORTS: &str = "TRANSLATE_PORTS";
/// By CPU: what was done.
pub const TRANSLATE_TALLY: &str = "TRANSLATE_TALLY";

/// All of them are pinned, and not before a service asks for the hand-over.
pub const TRANSLATE_MAPS: [&str; 4] = [TRANSLATE_FLOWS, TRANSLATE_SEEN, TRANSLATE_PORTS, TRANSLATE_TALLY];

/// Translates, at tcx ingress or clsact.
pub const TRANSLATE_TC: &str = "translate_tc";
/// The folder of its links, beside that of the gate's.
pub const TRANSLATE_LINKS: &str = "translate";
