//! What can go wrong on the kernel side, each a sentence that says what, where, and what to do.

use std::{io, path::PathBuf};

use thiserror::Error;

#[derive(Debug, Error)]
pub enum KernelFault {
    #[error("this binary was built without its eBPF object; build it with `cargo xtask build`")]
    NoObject,
    #[error(
        "no permission to {doing}: the gate needs root, or the capabilities CAP_BPF, CAP_NET_ADMIN and \
         CAP_PERFMON, and write access to bpffs"
    )]
    NotPermitted { doing: String },
    #[error("bpffs is not mounted at {0}: `mount -t bpf bpf {0}`", path.display())]
    BpffsNotMounted { path: PathBuf },
    #[error("the kernel here can't run the gate: {why}")]
    Unsupported { why: String },
    #[error(
        "the kernel's verifier refuses the program `{program}`: {why}. Please report this, with the kernel's version"
    )]
    Verifier { program: &'static str, why: String },

    #[error("interface `{name}` does not exist here; `ip link` lists those that do")]
    NoInterface { name: String },
    #[error(
        "interface `{name}` does not carry Ethernet frames, which is what the gate reads; name the interface \
         that its packets arrive on"
    )]
    NotEthernet { name: String },
    #[error("interface `{name}` refuses the gate at {hook}: {why}")]
    AttachRefused { name: String, hook: &'static str, why: String },
    #[error(
        "the map pinned at {path} has another layout than this binary's ({why}): another version of Weir \
         left it there. `weir kernel unload` removes it; until the next start only the check at accept guards",
        path = path.display()
    )]
    Layout { path: PathBuf, why: String },
    #[error(
        "{path} is no attachment of Weir's: somebody else put it there. Remove or rename it; Weir leaves it alone",
        path = path.display()
    )]
    ForeignPin { path: PathBuf },
    #[error(
        "another `weir run` looks after the gate pinned below {path}: end it first, or give this one a bpffs of its \
         own (`kernel.bpffs`)",
        path = path.display()
    )]
    Taken { path: PathBuf },
    #[error("{what} are more than the {limit} that the gate can hold")]
    TooMany { what: String, limit: usize },
    #[error("the name `{name}` is longer than the {limit} bytes that the gate can hold")]
    NameTooLong { name: String, limit: usize },

    #[error("could not {doing}: {source}")]
    System {
        doing: String,
        #[source]
        source: io::Error,
    },
    #[error("could not {doing}: {why}")]
    Other { doing: String, why: String },
}

impl KernelFault {
    /// Whether the gate can't be had on this host at all, whatever the configuration: `mode = "auto"` then
    /// goes on without it.
    #[must_use]
    pub const fn is_unavailable(&self) -> bool {
        match self {
            Self::NoObject
            | Self::NotPermitted { .. }
            | Self::BpffsNotMounted { .. }
            | Self::Unsupported { .. }
            | Self::Verifier { .. } => true,
            Self::NoInterface { .. }
            | Self::NotEthernet { .. }
            | Self::AttachRefused { .. }
            | Self::Layout { .. }
            | Self::ForeignPin { .. }
            | Self::Taken { .. }
            | Self::TooMany { .. }
            | Self::NameTooLong { .. }
            | Self::System { .. }
            | Self::Other { .. } => false,
        }
    }

    /// An error of the operating system, told apart by whether it is one of permission.
    pub(super) fn system(doing: impl Into<String>, source: io::Error) -> Self {
        let doing = doing.into();
        if matches!(source.raw_os_error(), Some(nix::libc::EPERM | nix::libc::EACCES)) {
            Self::NotPermitted { doing }
        } else {
            Self::System { doing, source }
        }
    }

    /// An error of aya's, whose own text says "what" and hides "why" in its sources.
    pub(super) fn aya(doing: impl Into<String>, error: &(dyn std::error::Error + 'static)) -> Self {
        let doing = doing.into();
        let mut why = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            if let Some(io) = cause.downcast_ref::<io::Error>()
                && let Some(code) = io.raw_os_error()
            {
                return Self::system(doing, io::Error::from_raw_os_error(code));
            }
            let text = cause.to_string();
            if !why.contains(&text) {
                why = format!("{why}: {text}");
            }
            next = cause.source();
        }
        Self::Other { doing, why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_permission_is_told_apart() {
        let fault = KernelFault::system("load the gate", io::Error::from_raw_os_error(nix::libc::EPERM));
        assert!(fault.is_unavailable());
        assert!(fault.to_string().starts_with("no permission to load the gate: the gate needs root"));
    }

    #[test]
    fn an_interface_that_does_not_exist_is_a_fault_of_the_configuration() {
        let fault = KernelFault::NoInterface { name: "eth9".into() };
        assert!(!fault.is_unavailable());
        assert_eq!(fault.to_string(), "interface `eth9` does not exist here; `ip link` lists those that do");
    }
}
