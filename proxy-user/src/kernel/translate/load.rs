//! The program and its maps out of the object, onto what is pinned.

use aya::{Ebpf, EbpfLoader, maps::MapType, programs::SchedClassifier};
use proxy_common::{
    names,
    translate::{Flow, FlowKey, MAX_FLOWS, MAX_SEEN, PORT_WORDS, Seen, Tally},
};

use crate::kernel::{
    KernelFault,
    object::{self, Shape, check_shape},
    pins::Pins,
};

pub(super) fn onto(pins: &Pins) -> Result<Ebpf, KernelFault> {
    let object = object::built_in().ok_or(KernelFault::NoObject)?;
    for (name, shape) in shapes() {
        check_shape(&pins.map(name), &shape)?;
    }
    let mut loader = EbpfLoader::new();
    for name in names::TRANSLATE_MAPS {
        loader.map_pin_path(name, pins.map(name));
    }
    object::make_small(&mut loader, &names::TRANSLATE_MAPS);
    let mut ebpf = loader.load(object).map_err(|error| object::not_loaded(&error))?;
    let program: &mut SchedClassifier = object::program(&mut ebpf, names::TRANSLATE_TC)?;
    program.load().map_err(|error| object::refused(names::TRANSLATE_TC, error))?;
    Ok(ebpf)
}

/// What this binary's program expects of pinned maps.
fn shapes() -> [(&'static str, Shape); names::TRANSLATE_MAPS.len()] {
    let by_direction = |kind, value, entries| Shape { kind, key: size_of::<FlowKey>(), value, entries };
    let array = |kind, value, entries| Shape { kind, key: size_of::<u32>(), value, entries };
    [
        (names::TRANSLATE_FLOWS, by_direction(MapType::Hash, size_of::<Flow>(), MAX_FLOWS)),
        (names::TRANSLATE_SEEN, by_direction(MapType::LruHash, size_of::<Seen>(), MAX_SEEN)),
        (names::TRANSLATE_PORTS, array(MapType::Array, size_of::<u64>(), PORT_WORDS)),
        (names::TRANSLATE_TALLY, array(MapType::PerCpuArray, size_of::<Tally>(), 1)),
    ]
}
