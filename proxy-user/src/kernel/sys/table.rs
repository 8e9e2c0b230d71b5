//! Maps that hold one large value, and the arrays of maps that they are put into.
//!
//! Values here are some hundred kilobytes: they are read and written where they lie, and never pass over a
//! thread's stack.

use std::{
    ffi::CStr,
    io,
    num::NonZeroUsize,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
    ptr::NonNull,
};

use aya::Pod;
use nix::{
    libc,
    sys::mman::{MapFlags, ProtFlags, mmap, munmap},
};

use super::{BPF_OBJ_GET_INFO_BY_FD, GetInfo, bpf, bpf_fd, get, number, pin};

const BPF_MAP_CREATE: i32 = 0;
const BPF_MAP_LOOKUP_ELEM: i32 = 1;
const BPF_MAP_UPDATE_ELEM: i32 = 2;
const BPF_MAP_DELETE_ELEM: i32 = 3;
const BPF_MAP_GET_FD_BY_ID: i32 = 14;

const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;
/// The values can be written where they lie.
const BPF_F_MMAPABLE: u32 = 1 << 10;
/// In an array of maps, arrays may be of different lengths; programs pay with a call for each element.
const BPF_F_INNER_MAP: u32 = 1 << 12;

/// Whether the arrays in an array of maps are all of one length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizes {
    Same,
    Any,
}

/// A map.
#[derive(Debug)]
pub struct Table(OwnedFd);

impl Table {
    /// An array with one element. `name`: what bpftool shows; the kernel takes 15 bytes.
    pub fn holding<T: Pod>(name: &CStr, value: &T) -> io::Result<Self> {
        let table = Self::array::<T>(name)?;
        // SAFETY: the array's values were just made as large as `T`.
        unsafe { update(table.0.as_fd(), 0, value) }?;
        Ok(table)
    }

    /// An array with one element, all zero.
    pub fn array<T: Pod>(name: &CStr) -> io::Result<Self> {
        create(name, BPF_MAP_TYPE_ARRAY, size_of::<u32>(), size_of::<T>(), 1, 0, 0)
    }

    /// An array of so many elements, all zero. Sizes of a multiple of 8 leave no gaps between them.
    pub fn sized<T: Pod>(name: &CStr, elements: usize, sizes: Sizes) -> io::Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        let flags = match sizes {
            Sizes::Same => BPF_F_MMAPABLE,
            Sizes::Any => BPF_F_MMAPABLE | BPF_F_INNER_MAP,
        };
        create(name, BPF_MAP_TYPE_ARRAY, size_of::<u32>(), size_of::<T>(), elements, flags, 0)
    }

    /// An array with these elements: megabytes are copied at once, not element by element.
    pub fn filled<T: Pod>(name: &CStr, elements: &[T], sizes: Sizes) -> io::Result<Self> {
        let bytes = NonZeroUsize::new(size_of_val(elements)).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "an array has at least one element")
        })?;
        let table = Self::sized::<T>(name, elements.len(), sizes)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let mapping = unsafe { mmap(None, bytes, access, MapFlags::MAP_SHARED, &table.0, 0) }?;
        // SAFETY: the mapping is new, writable and as long as `elements`, whose values follow each other there
        // as here (`sized`), and any values are good there. Nobody else knows the map yet.
        unsafe {
            mapping.cast::<T>().copy_from_nonoverlapping(NonNull::from(elements).cast(), elements.len());
        };
        // SAFETY: made above, of this length, and not used any more.
        unsafe { munmap(mapping, bytes.get()) }?;
        Ok(table)
    }

    /// An array of maps like `inner`.
    pub fn array_of(name: &CStr, slots: usize, inner: &Self) -> io::Result<Self> {
        let size = size_of::<u32>();
        create(name, BPF_MAP_TYPE_ARRAY_OF_MAPS, size, size, slots, 0, number(inner.0.as_fd()))
    }

    pub fn open(path: &Path) -> io::Result<Self> {
        get(path).map(Self)
    }

    pub fn pin(&self, path: &Path) -> io::Result<()> {
        pin(self.0.as_fd(), path)
    }

    /// The kernel's number of it, which stands in the slots that it is in.
    pub fn id(&self) -> io::Result<u32> {
        self.info().map(|info| info.id)
    }

    /// The map of this number, which only who may do anything may ask for.
    pub fn of_number(id: u32) -> io::Result<Self> {
        #[repr(C)]
        struct ById {
            id: u32,
            next: u32,
            flags: u32,
        }
        let mut attr = ById { id, next: 0, flags: 0 };
        // SAFETY: MAP_GET_FD_BY_ID reads nothing but the structure and returns a new descriptor.
        unsafe { bpf_fd(BPF_MAP_GET_FD_BY_ID, &mut attr) }.map(Self)
    }

    /// The bytes that it takes, as the kernel reckons them.
    pub fn memory(&self) -> io::Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", self.0.as_raw_fd()))?;
        let bytes = text.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok());
        bytes.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "the kernel doesn't say how large it is")
        })
    }

    pub fn value_size(&self) -> io::Result<u32> {
        self.info().map(|info| info.value_size)
    }

    /// The value.
    pub fn read<T: Pod>(&self) -> io::Result<Box<T>> {
        if self.info()?.value_size as usize != size_of::<T>() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "its values are of another size"));
        }
        let mut value = Box::<T>::new_uninit();
        let key = 0_u32;
        let mut attr = Element {
            map: number(self.0.as_fd()),
            padding: 0,
            key: (&raw const key).addr() as u64,
            value: value.as_mut_ptr().addr() as u64,
            flags: 0,
        };
        // SAFETY: the kernel reads the four bytes of `key` and writes one value, which is as large as `T`: that
        // was asked above, and a map never changes its size.
        unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut attr) }?;
        // SAFETY: the kernel wrote all of it, and any bytes are a `T` (`Pod`).
        Ok(unsafe { value.assume_init() })
    }

    fn info(&self) -> io::Result<Info> {
        let mut info = Info::default();
        let mut attr = GetInfo {
            descriptor: number(self.0.as_fd()),
            length: size_of::<Info>() as u32,
            info: (&raw mut info).addr() as u64,
        };
        // SAFETY: the kernel writes at most `length` bytes to `info`, which is as long and outlives the call;
        // it is made of integers, so whatever is written is valid.
        unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr) }.map(|_| info)
    }
}

impl AsFd for Table {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn create(
    name: &CStr,
    kind: u32,
    key_size: usize,
    value_size: usize,
    max_entries: usize,
    flags: u32,
    inner: u32,
) -> io::Result<Table> {
    #[repr(C)]
    struct Create {
        kind: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        flags: u32,
        inner: u32,
        numa_node: u32,
        name: [u8; 16],
    }
    let (key_size, value_size, max_entries) = (key_size as u32, value_size as u32, max_entries as u32);
    let mut attr =
        Create { kind, key_size, value_size, max_entries, flags, inner, numa_node: 0, name: [0; 16] };
    for (to, from) in attr.name[..15].iter_mut().zip(name.to_bytes()) {
        *to = *from;
    }
    // SAFETY: MAP_CREATE reads nothing but the structure and returns a new descriptor.
    unsafe { bpf_fd(BPF_MAP_CREATE, &mut attr) }.map(Table)
}

/// The beginning of `bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct Info {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
}

/// The number of the map in a slot of an array of maps. `None`: the slot is empty.
pub fn slot(outer: BorrowedFd<'_>, index: u32) -> io::Result<Option<u32>> {
    let mut id = 0_u32;
    let mut attr = Element {
        map: number(outer),
        padding: 0,
        key: (&raw const index).addr() as u64,
        value: (&raw mut id).addr() as u64,
        flags: 0,
    };
    // SAFETY: an array of maps has keys and values of four bytes, which is what is pointed at.
    match unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut attr) } {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
        Ok(_) => Ok(Some(id)),
    }
}

/// Puts a map into a slot. The kernel returns only when no program uses what was there before.
pub fn set_slot(outer: BorrowedFd<'_>, index: u32, table: &Table) -> io::Result<()> {
    let descriptor = number(table.0.as_fd());
    // SAFETY: an array of maps takes the four bytes of a descriptor.
    unsafe { update(outer, index, &descriptor) }
}

/// Empties a slot.
pub fn clear_slot(outer: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    let mut attr =
        Element { map: number(outer), padding: 0, key: (&raw const index).addr() as u64, value: 0, flags: 0 };
    // SAFETY: the kernel reads the four bytes that an array's keys have.
    match unsafe { bpf(BPF_MAP_DELETE_ELEM, &mut attr) } {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
        _ => Ok(()),
    }
}

#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// # Safety
/// `map` must be an array whose values are as large as `T`.
unsafe fn update<T>(map: BorrowedFd<'_>, index: u32, value: &T) -> io::Result<()> {
    let mut attr = Element {
        map: number(map),
        padding: 0,
        key: (&raw const index).addr() as u64,
        value: (&raw const *value).addr() as u64,
        flags: 0,
    };
    // SAFETY: the kernel reads the four bytes of an array's key and a value as large as `T`.
    unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut attr) }.map(drop)
}
