//! Names inside the kernel, so that whoever looks with `bpftool` reads words instead of indices.

/// A name cut to what fits, padded with NUL.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Label {
    pub name: [u8; Label::SIZE],
}

const _: () = assert!(size_of::<Label>() == Label::SIZE);

impl Label {
    pub const SIZE: usize = 64;
    pub const EMPTY: Self = Self { name: [0; Self::SIZE] };

    /// `None` when the name doesn't fit: two names must never become one.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let mut label = Self::EMPTY;
        label.name.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        (name.len() < Self::SIZE).then_some(label)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        let end = self.name.iter().position(|byte| *byte == 0).unwrap_or(Self::SIZE);
        core::str::from_utf8(&self.name[..end]).unwrap_or("?")
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.name[0] == 0
    }
}

/// A named list as the kernel's tables know it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListLabel {
    pub label: Label,
    /// How many prefixes it has.
    pub prefixes: u64,
}

const _: () = assert!(size_of::<ListLabel>() == Label::SIZE + 8);

// SAFETY: `repr(C)`, one byte array without padding, every bit pattern valid.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Label {}
// SAFETY: `repr(C)`, 64 bytes and an integer aligned right after them: the assertion above shows no padding.
#[cfg(feature = "user")]
unsafe impl aya::Pod for ListLabel {}

#[cfg(test)]
mod tests {
    use super::Label;

    #[test]
    fn a_name_comes_back_as_it_went_in() {
        assert_eq!(Label::new("https").map(|label| label.as_str() == "https"), Some(true));
    }

    #[test]
    fn a_name_that_does_not_fit_is_refused() {
        let long = core::str::from_utf8(&[b'x'; Label::SIZE]).unwrap_or_default();
        assert_eq!(Label::new(long), None);
        assert!(Label::new(&long[1..]).is_some());
    }
}
