//! `[process]` as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::At;

/// Read at start; a change waits for the next one.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// The user that a daemon which root has started goes on as: a name, or a number. It keeps the capabilities for the
    /// gate and for ports under 1024, and none of root's others, so files (certificates, keys) must be readable for this
    /// user. Without it, it stays who has started it.
    #[schemars(example = &"weir")]
    pub user: Option<At<String>>,
    /// The group, by name or number. Only with `user`; without it, that user's own group. The user's other groups come too.
    #[schemars(example = &"weir")]
    pub group: Option<At<String>>,
    /// Gives up what a proxy never needs: system calls that load modules, mount, trace processes and the like (seccomp), and
    /// to write anywhere but where the configuration says (Landlock, where the kernel has it).
    #[schemars(extend("default" = true))]
    pub sandbox: Option<At<bool>>,
}
