//! Why the gate drops. Each reason is named here once: the same word stands in the counters, in `bpftool`,
//! in metrics, logs, `weir explain` and the documentation.

use crate::numbered::numbered;

numbered! {
    pub enum DropReason: u32 {
        /// The source is on none of the entrypoint's allowlists.
        NotListed = 1, "not_listed";
        /// For a guarded address, and it ends before its port: the frame does, or the packet by its own length.
        Truncated = 2, "truncated";
        /// For a guarded address, behind more IPv6 extension headers than the gate walks.
        ExtensionHeaders = 3, "extension_headers";
        /// For a guarded entrypoint whose allowlist isn't there. A fault of Weir's: it fails closed.
        ListMissing = 4, "list_missing";
        /// For a guarded address, with a header length that no header has: where its port is can't be said.
        Malformed = 5, "malformed";
        /// For a guarded address, the first of several fragments, and its port isn't in it.
        SplitHeader = 6, "split_header";
        /// Behind more VLAN tags than the gate looks behind, one of which names no VLAN: the host would take it for its own.
        VlanTags = 7, "vlan_tags";
        /// Somebody has blocked the source.
        Blocked = 8, "blocked";
        /// The source sends more packets than the entrypoint allows each.
        PacketRate = 9, "packet_rate";
        /// The source opens more connections than the entrypoint allows each.
        ConnectionRate = 10, "connection_rate";
        /// Refers to what nobody has sent, while handshakes have to be proved.
        BadCookie = 11, "bad_cookie";
    }
}

impl DropReason {
    /// Whether it may only seem so, because the rest of the packet lies in another piece of memory.
    #[must_use]
    pub const fn may_be_in_pieces(self) -> bool {
        match self {
            Self::Truncated | Self::SplitHeader => true,
            Self::NotListed
            | Self::ExtensionHeaders
            | Self::ListMissing
            | Self::Malformed
            | Self::VlanTags
            | Self::Blocked
            | Self::PacketRate
            | Self::ConnectionRate
            | Self::BadCookie => false,
        }
    }

    /// What follows "dropped:".
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Malformed => "a header in it has a length that no header has",
            Self::SplitHeader => "it is the first of several fragments, and its port isn't in it",
            Self::VlanTags => "it has more VLAN tags than the gate looks behind, one of which names no VLAN",
            Self::Blocked => "its source is blocked (`weir block list`)",
            Self::PacketRate => "its source sends more packets than `source_limit` allows",
            Self::ConnectionRate => "its source opens more connections than `source_limit` allows",
            Self::NotListed => "its source is on none of the allowlists",
            Self::Truncated => "it ends before its port can be read",
            Self::ExtensionHeaders => "it has more IPv6 extension headers than the gate looks behind",
            Self::BadCookie => "it answers what nobody has sent, during a flood of SYNs",
            Self::ListMissing => {
                "the allowlists are missing in the kernel. That is a fault of Weir's: please report it"
            }
        }
    }
}
