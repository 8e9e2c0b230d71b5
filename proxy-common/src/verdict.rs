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

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotListed => "not_listed",
            Self::Truncated => "truncated",
            Self::ExtensionHeaders => "extension_headers",
            Self::ListMissing => "list_missing",
        }
    }
}
