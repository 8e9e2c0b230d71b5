//! The eBPF object inside the binary, and how it gets into the kernel.

use std::{ffi::CStr, io, os::fd::AsFd, path::Path, thread};

use aya::{
    EbpfError, EbpfLoader,
    maps::{MapError, MapInfo, MapType, ProgramArray},
    programs::{ProgramError, SchedClassifier, Xdp},
};
use proxy_common::{
    admission::{
        MAX_ADMISSIONS, MAX_LISTS, Sieve,
        directory::{BLOCKS, Block, Hosts, Touched},
        index::{Bucket, FILTER_WORDS},
        tree::Node,
    },
    blocked::{Blocked, MAX_BLOCKS},
    counters::Counters,
    event::{Budget, RING_BYTES, Watched},
    label::{Label, ListLabel},
    limit::{MAX_SOURCES, SourceKey, Spent},
    names,
    scope::{MAX_CDN, MAX_ENTRYPOINTS, MAX_TRIED, ScopeKey, ScopeTable},
    shadow::{MAX_SHADOWED, Shadowed, ShadowedKey},
    syn_flood::{Flood, Listener, MAX_LISTENERS, Unproved},
};

use super::{
    KernelFault,
    attach::Programs,
    pins::Pins,
    syn_cookies,
    sys::table::{self, Sizes, Table},
};

/// Empty when the binary was built without it. Aligned, because an ELF reader casts what it finds in it.
static OBJECT: &Aligned<[u8]> = &Aligned { _align: [], bytes: *include_bytes!(env!("WEIR_EBPF_EMBEDDED")) };

/// The gate's programs once more, which tell what they do.
static TELLING: &Aligned<[u8]> =
    &Aligned { _align: [], bytes: *include_bytes!(env!("WEIR_EBPF_LOG_EMBEDDED")) };

#[repr(C)]
struct Aligned<Bytes: ?Sized> {
    _align: [u64; 0],
    bytes: Bytes,
}

pub(super) struct Loaded {
    pub programs: Programs,
}

/// The object as it is embedded. `None` when the binary was built without it.
#[must_use]
pub fn built_in() -> Option<&'static [u8]> {
    (!OBJECT.bytes.is_empty()).then_some(&OBJECT.bytes)
}

/// The one that tells what it does.
#[must_use]
pub fn telling_built_in() -> Option<&'static [u8]> {
    (!TELLING.bytes.is_empty()).then_some(&TELLING.bytes)
}

/// Loads the programs that judge onto the pinned maps; maps that aren't pinned yet are made and pinned.
pub(super) fn load(pins: &Pins, telling: bool) -> Result<Loaded, KernelFault> {
    let object = if telling { telling_built_in() } else { built_in() }.ok_or(KernelFault::NoObject)?;
    for (name, shape) in shapes() {
        check_shape(&pins.map(name), &shape)?;
    }

    pin_arrays_of_maps(pins)?;
    let mut loader = EbpfLoader::new();
    for name in names::GATE_MAPS {
        loader.map_pin_path(name, pins.map(name));
    }
    make_small(&mut loader, &names::GATE_MAPS);
    let mut ebpf = loader.load(object).map_err(|error| not_loaded(&error))?;

    let xdp: &mut Xdp = program(&mut ebpf, names::GATE_XDP)?;
    xdp.load().map_err(|error| refused(names::GATE_XDP, error))?;
    let tc: &mut SchedClassifier = program(&mut ebpf, names::GATE_TC)?;
    tc.load().map_err(|error| refused(names::GATE_TC, error))?;
    let no_proof = load_prove(&mut ebpf)?;
    Ok(Loaded { programs: Programs::new(ebpf, no_proof, telling)? })
}

/// Other programs of the object aren't loaded with this one, and the loader makes their maps all the same: as small as can be.
pub(super) fn make_small(loader: &mut EbpfLoader<'_>, but: &[&'static str]) {
    let others = names::GATE_MAPS.into_iter().chain(names::FORWARD_MAPS).chain(names::TRANSLATE_MAPS);
    let others = others.chain([names::UPSTREAM_SERVERS, names::UPSTREAM_REPORTS]);
    for name in others.filter(|name| !but.contains(name)) {
        let ring = [names::GATE_EVENTS, names::UPSTREAM_REPORTS].contains(&name);
        loader.map_max_entries(name, if ring { 4096 } else { 1 });
    }
}

/// Loads what has handshakes proved, where the gate at XDP finds it. If this kernel doesn't take it, says why: guarding
/// goes without it.
fn load_prove(ebpf: &mut aya::Ebpf) -> Result<Option<String>, KernelFault> {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        KernelFault::aya(format!("put a program into {}", names::GATE_STEPS), error)
    };
    let loaded = if syn_cookies::kernel_has_them() {
        let prove: &mut Xdp = program(ebpf, names::GATE_PROVE)?;
        match prove.load().map_err(|error| refused(names::GATE_PROVE, error)) {
            Ok(()) => Ok(prove
                .fd()
                .and_then(|descriptor| Ok(descriptor.try_clone()?))
                .map_err(|error| failed(&error))?),
            Err(fault) => Err(fault.to_string()),
        }
    } else {
        Err(syn_cookies::NO_HELPERS.to_owned())
    };
    let steps = ebpf
        .map_mut(names::GATE_STEPS)
        .ok_or_else(|| failed(&MapError::InvalidName { name: names::GATE_STEPS.into() }))?;
    let mut steps = ProgramArray::try_from(steps).map_err(|error| failed(&error))?;
    match loaded {
        Ok(prove) => {
            steps.set(0, &prove, 0).map_err(|error| failed(&error))?;
            Ok(None)
        }
        Err(why) => {
            match steps.clear_index(&0) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(failed(&error)),
            }
            Ok(Some(why))
        }
    }
}

/// Loads `gate_explain`, onto the same maps.
pub(super) fn load_explain(ebpf: &mut aya::Ebpf) -> Result<&mut Xdp, KernelFault> {
    let explain: &mut Xdp = program(ebpf, names::GATE_EXPLAIN)?;
    explain.load().map_err(|error| refused(names::GATE_EXPLAIN, error))?;
    Ok(explain)
}

/// A program of the object, as the kind that it is.
pub(super) fn program<'a, P>(ebpf: &'a mut aya::Ebpf, name: &'static str) -> Result<&'a mut P, KernelFault>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program>,
{
    ebpf.program_mut(name).and_then(|program| program.try_into().ok()).ok_or_else(|| KernelFault::Other {
        doing: format!("find the program `{name}`"),
        why: "it is not in the eBPF object; build again with `cargo xtask build`".into(),
    })
}

/// Makes the arrays of maps before the loader would. Linux before 6.2 takes an inner map only if it is like the
/// first in whether its types are known; the loader's would be, and those that are put in later aren't. Of arrays that are
/// there it is asked whether they take such maps.
fn pin_arrays_of_maps(pins: &Pins) -> Result<(), KernelFault> {
    let pin = |name, slots, inner| pin_array_of_maps(pins, name, slots, inner);
    let many = |name, inner| pin(name, MAX_ADMISSIONS, inner);
    // At the same time, since the kernel waits for packets in flight whenever a map is tried out in an array.
    thread::scope(|threads| {
        let waiting = [
            threads.spawn(|| pin(c"GATE_SCOPE", 1, Table::array::<ScopeTable>(c"gate_scope"))),
            threads.spawn(|| many(c"GATE_SIEVES", Table::array::<Sieve>(c"gate_sieve"))),
            threads.spawn(|| many(c"GATE_ALLOW", Table::sized::<Node>(c"gate_allow", 1, Sizes::Any))),
            threads.spawn(|| {
                many(c"GATE_DIRECTORY", Table::sized::<Touched>(c"gate_directory", BLOCKS, Sizes::Same))
            }),
            threads
                .spawn(|| many(c"GATE_BLOCKS", Table::sized::<Block>(c"gate_blocks", BLOCKS, Sizes::Same))),
            threads.spawn(|| many(c"GATE_HOSTS", Table::sized::<Hosts>(c"gate_hosts", 1, Sizes::Any))),
            threads.spawn(|| {
                many(c"GATE_FILTER", Table::sized::<u64>(c"gate_filter", FILTER_WORDS, Sizes::Same))
            }),
            threads.spawn(|| many(c"GATE_INDEX", Table::sized::<Bucket>(c"gate_index", 1, Sizes::Any))),
        ];
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        waiting.into_iter().map(join).fold(Ok(()), Result::and)
    })
}

pub(super) fn pin_array_of_maps(
    pins: &Pins,
    name: &CStr,
    slots: usize,
    inner: io::Result<Table>,
) -> Result<(), KernelFault> {
    let path = pins.map(&name.to_string_lossy());
    let made = |error| KernelFault::system(format!("make {}", path.display()), error);
    let inner = inner.map_err(made)?;
    if path.exists() {
        return check_inner(pins, &path, slots, &inner);
    }
    Table::array_of(name, slots, &inner).and_then(|outer| outer.pin(&path)).map_err(made)
}

/// Whether a pinned array takes maps like `inner`. The kernel doesn't tell what an array was made for, so one is put into a
/// slot that nothing uses, and taken out again: what stands in any slot alone changes no verdict.
fn check_inner(pins: &Pins, path: &Path, slots: usize, inner: &Table) -> Result<(), KernelFault> {
    let failed = |error| KernelFault::system(format!("look at {}", path.display()), error);
    let other = |why: String| KernelFault::Layout { path: path.to_owned(), why };
    let outer = Table::open(path).map_err(failed)?;
    let mut free = None;
    for index in (0..slots as u32).rev() {
        if table::slot(outer.as_fd(), index).map_err(failed)?.is_none() {
            free = Some(index);
            break;
        }
    }
    let Some(free) = free else {
        // The only slot of the scope, in use: what is in it has a pin of its own.
        for name in [names::RUNNING_SCOPE, names::INCOMING_SCOPE] {
            let running = pins.map(name);
            let same = |there: &Table| Ok::<_, io::Error>(there.value_size()? == inner.value_size()?);
            if running.exists() && !Table::open(&running).and_then(|there| same(&there)).map_err(failed)? {
                return Err(other("the map in it has values of another size".to_owned()));
            }
        }
        return Ok(());
    };
    match table::set_slot(outer.as_fd(), free, inner) {
        Ok(()) => table::clear_slot(outer.as_fd(), free).map_err(failed),
        Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => Err(other(
            "it was made for maps of another kind or size than this binary puts into it".to_owned(),
        )),
        Err(error) => Err(failed(error)),
    }
}

pub(super) struct Shape {
    pub kind: MapType,
    pub key: usize,
    pub value: usize,
    pub entries: usize,
}

/// What this binary's programs expect of pinned maps.
fn shapes() -> [(&'static str, Shape); names::GATE_MAPS.len()] {
    let shape = |kind, value, entries| Shape { kind, key: size_of::<u32>(), value, entries };
    let of_maps = |entries| shape(MapType::ArrayOfMaps, size_of::<u32>(), entries);
    [
        (names::GATE_SCOPE, of_maps(1)),
        (names::GATE_SIEVES, of_maps(MAX_ADMISSIONS)),
        (names::GATE_ALLOW, of_maps(MAX_ADMISSIONS)),
        (names::GATE_DIRECTORY, of_maps(MAX_ADMISSIONS)),
        (names::GATE_BLOCKS, of_maps(MAX_ADMISSIONS)),
        (names::GATE_HOSTS, of_maps(MAX_ADMISSIONS)),
        (names::GATE_FILTER, of_maps(MAX_ADMISSIONS)),
        (names::GATE_INDEX, of_maps(MAX_ADMISSIONS)),
        (names::GATE_COUNTERS, shape(MapType::PerCpuArray, size_of::<Counters>(), MAX_ENTRYPOINTS)),
        (names::GATE_WOULD_DROP, shape(MapType::PerCpuArray, size_of::<Counters>(), MAX_ENTRYPOINTS)),
        (
            names::GATE_SHADOWED,
            Shape {
                kind: MapType::LruPerCpuHash,
                key: size_of::<ShadowedKey>(),
                value: size_of::<Shadowed>(),
                entries: MAX_SHADOWED,
            },
        ),
        (names::GATE_ENTRYPOINTS, shape(MapType::Array, size_of::<Label>(), MAX_ENTRYPOINTS)),
        (names::GATE_LISTS, shape(MapType::Array, size_of::<ListLabel>(), MAX_LISTS)),
        (names::GATE_TRIED, shape(MapType::PerCpuArray, size_of::<Counters>(), MAX_TRIED)),
        (names::GATE_EVENTS, Shape { kind: MapType::RingBuf, key: 0, value: 0, entries: RING_BYTES }),
        (names::GATE_WATCHED, shape(MapType::Array, size_of::<Watched>(), 1)),
        (names::GATE_BUDGET, shape(MapType::PerCpuArray, size_of::<Budget>(), 1)),
        (
            names::GATE_SOURCES,
            Shape {
                kind: MapType::LruHash,
                key: size_of::<SourceKey>(),
                value: size_of::<Spent>(),
                entries: MAX_SOURCES,
            },
        ),
        (
            names::GATE_CDN,
            Shape {
                kind: MapType::LpmTrie,
                key: size_of::<u32>() + size_of::<[u8; 16]>(),
                value: size_of::<u64>(),
                entries: MAX_CDN,
            },
        ),
        (
            names::GATE_BLOCKED,
            Shape {
                kind: MapType::LpmTrie,
                key: size_of::<u32>() + size_of::<[u8; 16]>(),
                value: size_of::<Blocked>(),
                entries: MAX_BLOCKS,
            },
        ),
        (names::GATE_STEPS, shape(MapType::ProgramArray, size_of::<u32>(), 1)),
        (names::GATE_UNPROVED, shape(MapType::PerCpuArray, size_of::<Unproved>(), 1)),
        (names::GATE_FLOODS, shape(MapType::Array, size_of::<Flood>(), MAX_ENTRYPOINTS)),
        (
            names::GATE_LISTENERS,
            Shape {
                kind: MapType::LruHash,
                key: size_of::<ScopeKey>(),
                value: size_of::<Listener>(),
                entries: MAX_LISTENERS,
            },
        ),
    ]
}

/// aya takes a pinned map for what the object says it is. A map of another shape would be read as garbage.
pub(super) fn check_shape(path: &Path, wanted: &Shape) -> Result<(), KernelFault> {
    if !path.exists() {
        return Ok(());
    }
    let found = MapInfo::from_pin(path)
        .map_err(|error| KernelFault::aya(format!("open the map pinned at {}", path.display()), &error))?;
    let kind = found.map_type().ok();
    let sizes = [found.key_size(), found.value_size(), found.max_entries()];
    let wanted_sizes = [wanted.key, wanted.value, wanted.entries];
    if kind == Some(wanted.kind) && sizes.map(|size| size as usize) == wanted_sizes {
        return Ok(());
    }
    let why = format!(
        "{kind:?} with key, value and entries {sizes:?}; wanted {:?} with {wanted_sizes:?}",
        wanted.kind
    );
    Err(KernelFault::Layout { path: path.to_owned(), why })
}

/// For how many entries a pinned map was made. `None`: none is there.
pub(super) fn entries(path: &Path) -> Result<Option<u32>, KernelFault> {
    if !path.exists() {
        return Ok(None);
    }
    let found = MapInfo::from_pin(path)
        .map_err(|error| KernelFault::aya(format!("open the map pinned at {}", path.display()), &error))?;
    Ok(Some(found.max_entries()))
}

pub(super) fn not_loaded(error: &EbpfError) -> KernelFault {
    match error {
        EbpfError::BtfError(_) | EbpfError::NoBTF => KernelFault::Unsupported {
            why: format!(
                "it does not take the types of the programs (BTF): {error}; Linux 6.1 or later is needed"
            ),
        },
        _ => KernelFault::aya("make the gate's maps", error),
    }
}

pub(super) fn refused(program: &'static str, error: ProgramError) -> KernelFault {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            if matches!(io_error.raw_os_error(), Some(nix::libc::EPERM)) {
                return KernelFault::system(format!("load the program `{program}`"), io_error);
            }
            let log = verifier_log.to_string();
            // The verifier's reason is the last line before its statistics.
            let statistics = ["processed ", "verification time ", "stack depth "];
            let is_reason =
                |line: &&str| !line.is_empty() && !statistics.iter().any(|of| line.starts_with(of));
            let reason = log.lines().rev().find(is_reason);
            let why = reason.map_or_else(|| io_error.to_string(), str::to_owned);
            KernelFault::Verifier { program, why }
        }
        error => KernelFault::aya(format!("load the program `{program}`"), &error),
    }
}
