//! Why the gate drops. Each reason is named here once: the same word stands in the counters, in `bpftool`,
//! in metrics, logs, `weir explain` and the documentation.

/// Numbers are never reused.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// The source is on none of the entrypoint's allowlists.
    NotListed = 1,
    /// For a guarded address, and it ends before its port can be read.
    Truncated = 2,
    /// For a guarded address, behind more IPv6 extension headers than the gate walks.
    ExtensionHeaders = 3,
    /// For a guarded entrypoint whose allowlist isn't there. A fault of Weir's: it fails closed.
    ListMissing = 4,
}

impl DropReason {
    pub const ALL: [Self; 4] = [Self::NotListed, Self::Truncated, Self::ExtensionHeaders, Self::ListMissing];

    /// `None`: of another version's.
    #[must_use]
    pub fn of_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| *reason as u32 == number)
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotListed => "not_listed",
            Self::Truncated => "truncated",
            Self::ExtensionHeaders => "extension_headers",
            Self::ListMissing => "list_missing",
        }
    }

    /// What follows "dropped:".
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::NotListed => "its source is on none of the allowlists",
            Self::Truncated => "it ends before its port can be read",
            Self::ExtensionHeaders => "it has more IPv6 extension headers than the gate looks behind",
            Self::ListMissing => {
                "the allowlists are missing in the kernel. That is a fault of Weir's: please report it"
            }
        }
    }
}
