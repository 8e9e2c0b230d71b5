//! Who may come in.

/// Slots for unions of lists. A change fills unused slots before it becomes visible, so at most half of them
/// should be in use.
pub const MAX_ADMISSIONS: usize = 128;
/// How many named lists are known to the kernel.
pub const MAX_LISTS: usize = 256;
/// What the programs are verified against; real tries are made as large as their lists.
pub const TEMPLATE_PREFIXES: usize = 1024;

/// The value of a prefix: the list that let it in.
pub type ListId = u32;
