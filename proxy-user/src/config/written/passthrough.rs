//! What entrypoints and services say of passthrough, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP, and with `tls` HTTPS.
    Http,
    /// Any TCP, untouched.
    Tcp,
    /// Any UDP, untouched.
    Udp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Offload {
    /// What is passed through by port goes through the kernel where that is possible, what is passed through by name is
    /// relayed by the daemon.
    Auto,
    /// Everything is relayed by the daemon.
    Off,
    /// As `auto`, and connections that are passed through by name are handed to the kernel once the name was read.
    SpliceKernel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Servers see an address of this host.
    Replace,
    /// Servers see the client's address, and have to route their answers back through this host.
    Keep,
}
