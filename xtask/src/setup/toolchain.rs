//! Which compiler makes the kernel programs: found, completed or installed.

use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::Way;
use crate::workspace::output_of;
use crate::{packages, progress};

/// Installed beside the user's own toolchains when none of them fits.
const PINNED_RUST: &str = "1.95.0";
/// What the pinned compiler has, and everything here is tested with.
const LLVM: u32 = 22;
/// What bpf-linker 0.13 can be built for. Debian's compiler may move within these on its own.
const LLVM_OF_LINKER: std::ops::RangeInclusive<u32> = 21..=23;
/// rustup's server answers within this or not at all.
const DOWNLOAD: Duration = Duration::from_secs(180);

/// Debian's builds of current compilers (they exist for Firefox's sake, hence the name).
const DEBIAN_COMPILER: &[&str] = &["rustc-web", "cargo-web", "rust-web-src"];

pub struct Toolchain {
    pub way: Way,
    /// rustup's name for it, or Debian's package.
    pub name: String,
    pub rustc: PathBuf,
    pub cargo: PathBuf,
    pub sysroot: PathBuf,
    pub release: String,
    pub commit: String,
    pub llvm: u32,
}

/// The first toolchain that fits, made complete. Says why when it goes on to the next way.
pub fn choose(way: Option<Way>) -> Result<Toolchain> {
    for candidate in
        [Way::Rustup, Way::Debian].into_iter().filter(|candidate| way.is_none_or(|way| way == *candidate))
    {
        let found = match candidate {
            Way::Rustup => by_rustup(),
            Way::Debian => by_debian(),
        };
        match found {
            Ok(toolchain) => return Ok(toolchain),
            Err(error) => eprintln!("  no compiler by way of {candidate}: {error:#}"),
        }
    }
    bail!(
        "there is no compiler for the kernel programs. By hand, one is got by `rustup toolchain install {PINNED_RUST} \
         --profile minimal --component rust-src`, or on Debian 12 by `apt-get install {} llvm-{LLVM}-dev \
         libpolly-{LLVM}-dev zlib1g-dev libzstd-dev`; then run `cargo xtask setup` again",
        DEBIAN_COMPILER.join(" ")
    )
}

/// Toolchains that are here and would do, best first: complete ones before those that lack `core`'s
/// sources, and within each the order of rustup, which puts the stable ones first.
pub fn present() -> Vec<Toolchain> {
    let mut found: Vec<Toolchain> = rustup_toolchains().into_iter().filter(Toolchain::fits).collect();
    found.extend(debian_toolchain().ok().filter(Toolchain::fits));
    found.sort_by_key(|toolchain| (toolchain.way == Way::Debian, !toolchain.has_core_sources()));
    found
}

// === impl Toolchain ===

impl Toolchain {
    pub fn inspect(way: Way, name: &str, rustc: &Path) -> Result<Self> {
        let version = output_of(Command::new(rustc).arg("-vV"))?;
        let field = |key: &str| {
            let value = version.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
            value.with_context(|| format!("`{} -vV` says no {key}", rustc.display()))
        };
        let llvm = field("LLVM version")?;
        Ok(Self {
            way,
            name: name.to_owned(),
            cargo: rustc.with_file_name("cargo"),
            sysroot: output_of(Command::new(rustc).args(["--print", "sysroot"]))?.into(),
            release: field("release")?.to_owned(),
            commit: field("commit-hash")?.chars().take(9).collect(),
            llvm: llvm
                .split('.')
                .next()
                .and_then(|major| major.parse().ok())
                .context("LLVM has an odd version")?,
            rustc: rustc.to_owned(),
        })
    }

    pub fn fits(&self) -> bool {
        match self.way {
            Way::Rustup => self.llvm == LLVM && self.llvm_library().is_some(),
            Way::Debian => LLVM_OF_LINKER.contains(&self.llvm),
        }
    }

    pub fn has_core_sources(&self) -> bool {
        self.sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file()
    }

    /// The LLVM that a toolchain of rustup's carries with it.
    pub fn llvm_library(&self) -> Option<PathBuf> {
        let files = self.sysroot.join("lib").read_dir().ok()?;
        files.filter_map(|file| Some(file.ok()?.path())).find(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libLLVM.so."))
        })
    }

    /// The packages to link against where the LLVM is Debian's.
    pub fn llvm_packages(&self) -> Vec<String> {
        let llvm = self.llvm;
        vec![
            format!("llvm-{llvm}-dev"),
            format!("libpolly-{llvm}-dev"),
            "zlib1g-dev".into(),
            "libzstd-dev".into(),
        ]
    }
}

impl Display for Toolchain {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let way = match self.way {
            Way::Rustup => "rustup's",
            Way::Debian => "Debian's",
        };
        write!(f, "{way} {} (rustc {}, LLVM {})", self.name, self.release, self.llvm)
    }
}

// === by way of rustup ===

fn by_rustup() -> Result<Toolchain> {
    if packages::find("rustup").is_none() {
        bail!("rustup is not installed (https://rustup.rs)");
    }
    let mut candidates: Vec<_> =
        present().into_iter().filter(|toolchain| toolchain.way == Way::Rustup).collect();
    if let Some(complete) = candidates.iter().position(Toolchain::has_core_sources) {
        return Ok(candidates.swap_remove(complete));
    }
    for candidate in candidates {
        let mut add = rustup();
        add.args(["component", "add", "rust-src", "--toolchain", &candidate.name]);
        let title = format!("adding the sources of `core` to rustup's {}", candidate.name);
        match progress::step_within(&title, DOWNLOAD, &mut add) {
            Ok(()) if candidate.has_core_sources() => return Ok(candidate),
            Ok(()) => eprintln!(
                "  rustup added rust-src, yet {} has no sources of `core`",
                candidate.sysroot.display()
            ),
            Err(error) => eprintln!("  {error:#}"),
        }
    }
    install_pinned()
}

fn install_pinned() -> Result<Toolchain> {
    let mut install = rustup();
    install.args([
        "toolchain",
        "install",
        PINNED_RUST,
        "--profile=minimal",
        "--component=rust-src",
        "--no-self-update",
    ]);
    progress::step_within(
        &format!("installing Rust {PINNED_RUST} beside the others"),
        DOWNLOAD,
        &mut install,
    )?;
    let toolchain = of_rustup(PINNED_RUST)?;
    anyhow::ensure!(
        toolchain.fits() && toolchain.has_core_sources(),
        "Rust {PINNED_RUST} is installed, but its LLVM is {} and the sources of `core` are {}",
        toolchain.llvm,
        if toolchain.has_core_sources() { "there" } else { "absent" }
    );
    Ok(toolchain)
}

fn rustup_toolchains() -> Vec<Toolchain> {
    let Ok(list) = output_of(rustup().args(["toolchain", "list"])) else { return Vec::new() };
    let names = list.lines().filter_map(|line| line.split_whitespace().next());
    names.filter_map(|name| of_rustup(name).ok()).collect()
}

fn of_rustup(name: &str) -> Result<Toolchain> {
    let sysroot = output_of(rustup().args(["run", name, "rustc", "--print", "sysroot"]))?;
    Toolchain::inspect(Way::Rustup, name, &Path::new(&sysroot).join("bin/rustc"))
}

fn rustup() -> Command {
    let mut command = Command::new("rustup");
    // Cargo's own run of us has set it; it would hide which toolchains there are.
    command.env_remove("RUSTUP_TOOLCHAIN");
    // Where its server can't be reached, one sentence is enough.
    command.env_remove("RUST_BACKTRACE");
    command
}

// === by way of Debian ===

fn by_debian() -> Result<Toolchain> {
    if packages::find("apt-get").is_none() {
        bail!("this machine has no apt-get");
    }
    let complete = |toolchain: &Toolchain| toolchain.fits() && toolchain.has_core_sources();
    let toolchain = match debian_toolchain() {
        Ok(toolchain) if complete(&toolchain) => toolchain,
        _ => {
            packages::install(DEBIAN_COMPILER)?;
            debian_toolchain()?
        }
    };
    anyhow::ensure!(
        complete(&toolchain),
        "Debian's rustc {} has LLVM {} and bpf-linker wants one of {LLVM_OF_LINKER:?}",
        toolchain.release,
        toolchain.llvm
    );
    let llvm = toolchain.llvm_packages();
    if !Path::new(&format!("/usr/lib/llvm-{}/bin/llvm-config", toolchain.llvm)).exists() {
        packages::install(&llvm.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    Ok(toolchain)
}

fn debian_toolchain() -> Result<Toolchain> {
    Toolchain::inspect(Way::Debian, "rustc-web", Path::new("/usr/bin/rustc"))
}
