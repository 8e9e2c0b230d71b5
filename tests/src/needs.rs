//! What a test needs of the machine, and what happens where it isn't there: the test is skipped *by name, with the
//! reason*, and where `CI=true` it fails.

use std::{io::Write, path::PathBuf, process::Command};

use aya::{programs::ProgramType, sys::is_program_supported};

/// Something without which a test can't run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Namespaces, mounts and eBPF are root's.
    Root,
    /// A kernel that takes the gate's program types, and a daemon that has the gate inside it.
    Ebpf,
    /// The daemon's binary, named by `WEIR_BIN`.
    Weir,
    Program(&'static str),
    /// A module that [`python`] can import.
    PythonPackage(&'static str),
}

impl Need {
    /// # Errors
    /// A sentence about what is missing and how to get it.
    pub fn met(self) -> Result<(), String> {
        match self {
            Self::Root if nix::unistd::geteuid().is_root() => Ok(()),
            Self::Root => {
                Err("it needs root (network namespaces, mounts, eBPF): run it with sudo".to_owned())
            }
            Self::Ebpf => match is_program_supported(ProgramType::Xdp) {
                Ok(true) => gate_inside(),
                Ok(false) => Err("this kernel doesn't take XDP programs".to_owned()),
                Err(why) => Err(format!("this kernel's eBPF can't be used: {why}")),
            },
            Self::Weir => crate::lab::weir::program().map(drop).map_err(|why| format!("{why:#}")),
            Self::Program(name) => match find_program(name) {
                Some(_) => Ok(()),
                None => Err(format!("the program `{name}` isn't installed")),
            },
            Self::PythonPackage(name) => {
                let import = format!("import {name}");
                match Command::new(python()).args(["-c", &import]).output() {
                    Ok(ran) if ran.status.success() => Ok(()),
                    _ => Err(format!("Python has no `{name}`: `cargo xtask setup` installs it")),
                }
            }
        }
    }
}

/// A daemon that was built without the eBPF toolchain runs, but has no gate to test.
fn gate_inside() -> Result<(), String> {
    let Ok(weir) = crate::lab::weir::program() else { return Ok(()) };
    let said = Command::new(&weir).args(["version", "--json"]).output().map_err(|why| why.to_string())?;
    match serde_json::from_slice::<serde_json::Value>(&said.stdout) {
        Ok(version) if version["ebpf"] == true => Ok(()),
        _ => Err(format!(
            "{} was built without its kernel programs: `cargo xtask build` makes both",
            weir.display()
        )),
    }
}

/// The Python that has the packages: `WEIR_PYTHON`, as `cargo xtask test` sets it, else whichever is there.
pub fn python() -> PathBuf {
    std::env::var_os("WEIR_PYTHON").map_or_else(|| "python3".into(), PathBuf::from)
}

/// Where a program is, by `PATH` and the folders of root's programs.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Says that a test is skipped, past the harness's capture of output.
///
/// # Panics
/// Where `CI=true`: there a skipped test is a failed one.
pub fn skipped(test: &str, reason: &str) {
    // Not `eprintln!`: the harness would swallow that, and the skip would be silent.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {reason}");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{test} can't run: {reason}");
}

/// Ends the test that calls it, as skipped, unless all of the [`Need`]s are met. The test returns a `Result<()>`.
#[macro_export]
macro_rules! needs {
    ($($need:expr),+ $(,)?) => {
        for need in [$($need),+] {
            if let Err(reason) = $crate::needs::Need::met(need) {
                fn here() {}
                let name = ::std::any::type_name_of_val(&here);
                $crate::needs::skipped(name.trim_end_matches("::here"), &reason);
                return Ok(());
            }
        }
    };
}
