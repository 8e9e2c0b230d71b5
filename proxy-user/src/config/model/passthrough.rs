//! What entrypoints and services say of passthrough, valid.

use std::fmt;

/// `[entrypoint.NAME] protocol = "http" | "tcp" | "udp"`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Carries {
    /// The default.
    Http,
    /// Passthrough alone.
    Tcp,
    /// Passthrough alone.
    Udp,
}

/// `[service.NAME] offload = "auto" | "off" | "splice-kernel"`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Offload {
    /// By port in the kernel where that can be, by name in the relay. The default.
    Auto,
    /// Always in the relay.
    Off,
    /// By name in the kernel too, once the name was read.
    SpliceKernel,
}

/// `[service.NAME] source = "replace" | "keep"`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourceAddress {
    /// Servers see this host's. The default.
    Replace,
    /// Servers see the client's. Never with `offload = "off"` or `send_proxy`.
    Keep,
}

/// `[kernel] nat_ports = "20000-29999"`: the ports that connections to servers come from which the kernel carries. At least
/// 256; none is an entrypoint's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NatPorts {
    pub first: u16,
    pub last: u16,
}

// === impl Carries ===

impl Carries {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

// === impl Offload ===

impl Offload {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Off => "off",
            Self::SpliceKernel => "splice-kernel",
        }
    }
}

// === impl SourceAddress ===

impl SourceAddress {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Keep => "keep",
        }
    }
}

// === impl NatPorts ===

impl NatPorts {
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// Those of connections that are forwarded by port: all but the last quarter.
    pub const fn by_port(self) -> Self {
        Self { first: self.first, last: self.last - (self.count() / 4) as u16 }
    }

    /// Those of connections that are handed over by name: the last quarter.
    pub const fn by_name(self) -> Self {
        Self { first: self.by_port().last + 1, last: self.last }
    }

    pub const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    pub const fn count(self) -> u32 {
        self.last as u32 - self.first as u32 + 1
    }
}

impl fmt::Display for NatPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}
