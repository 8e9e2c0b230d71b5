//! The end-to-end tests of the gate on kernels other than this machine's: Debian's own, in an emulated VM.
//!
//! The same test binaries that `cargo xtask test` runs, and the same `weir`, with the libraries that they ask
//! for; nothing is installed but the emulator. Outside of the default run, since a VM without hardware help is
//! slow: some minutes per kernel.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use crate::build::{self, Profile};
use crate::packages::{self, Program};
use crate::setup;
use crate::workspace::Workspace;

use machine::Outcome;

mod cpio;
mod fetch;
mod image;
mod machine;

#[derive(clap::Args)]
pub struct Arguments {
    /// Only this one (`6.1` or `6.12`)
    kernel: Option<String>,
    /// Only tests whose name contains this; may be given more than once
    #[arg(long)]
    filter: Vec<String>,
}

/// A kernel of Debian's.
pub struct Kernel {
    /// As people call it.
    pub line: &'static str,
    /// The package that depends on its newest build.
    package: &'static str,
}

const KERNELS: [Kernel; 2] = [
    Kernel { line: "6.1", package: "linux-image-amd64" },
    Kernel { line: "6.12", package: "linux-image-6.12-amd64" },
];

const PROGRAMS: &[Program] = &[
    Program { name: "qemu-system-x86_64", package: "qemu-system-x86", purpose: "other kernels" },
    Program { name: "busybox", package: "busybox-static", purpose: "other kernels" },
    Program { name: "ip", package: "iproute2", purpose: "network namespaces" },
    Program { name: "bpftool", package: "bpftool", purpose: "looking at the kernel's maps" },
    Program { name: "setpriv", package: "util-linux", purpose: "fewer privileges" },
    Program { name: "ethtool", package: "ethtool", purpose: "checksums that no hardware makes" },
    Program { name: "nft", package: "nftables", purpose: "packets that get lost" },
];

/// The tests that say what a kernel must do for the gate. Those that are ignored elsewhere run here: they want the
/// VM's two connected virtio ports, or modules that few hosts have loaded.
const TESTS: [&str; 10] = [
    "verifier",
    "ports",
    "kernel_lifecycle",
    "attach",
    "gate_packets",
    "forward_packets",
    "translate_packets",
    "handover",
    "passthrough_ports",
    "syn_cookies",
];

pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode> {
    let wanted: Vec<&Kernel> = KERNELS
        .iter()
        .filter(|kernel| arguments.kernel.as_deref().is_none_or(|line| line == kernel.line))
        .collect();
    if wanted.is_empty() {
        bail!(
            "there is no kernel `{}` here; there are 6.1 and 6.12",
            arguments.kernel.as_deref().unwrap_or_default()
        );
    }
    anyhow::ensure!(
        cfg!(target_arch = "x86_64"),
        "the kernels are built for x86_64; this machine is another"
    );
    setup::ensure_toolchain(workspace, None)?;
    packages::ensure(PROGRAMS)?;
    let built = build::all(workspace, Profile::Dev)?;
    let tests = build_tests(workspace, &built)?;

    let mut failed = false;
    let mut table = vec![["kernel".to_owned(), "what".to_owned(), "outcome".to_owned()]];
    let mut failures = String::new();
    for kernel in wanted {
        let fetched = fetch::kernel(workspace, kernel)?;
        let folder = Scratch::new(workspace, kernel)?;
        let initrd = folder.0.join("initrd");
        image::write(&initrd, &fetched, &built.weir, &tests, &arguments.filter)?;
        let report = machine::boot(kernel, &fetched.vmlinuz, &initrd, &folder.0)?;
        for check in &report.checks {
            let outcome = match &check.outcome {
                Outcome::Ok => "ok".to_owned(),
                // Everything that the tests want is in the VM: what was not shown has not been shown to work.
                Outcome::Skipped(why) => {
                    failed = true;
                    format!("SKIPPED: {why}")
                }
                Outcome::Failed(log) => {
                    failures.push_str(&format!("--- {} {}\n{log}\n", report.release, check.name));
                    failed = true;
                    "FAILED".to_owned()
                }
            };
            table.push([report.release.clone(), check.name.clone(), outcome]);
        }
        failed |= report.checks.is_empty();
        if let Some(broken) = report.broken {
            failures.push_str(&format!("--- {} {broken}\n", report.release));
            failed = true;
        }
    }
    eprint!("{failures}");
    print_table(&table);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn print_table(table: &[[String; 3]]) {
    let width = |column: usize| table.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let (first, second) = (width(0), width(1));
    for [kernel, what, outcome] in table {
        println!("{kernel:first$}  {what:second$}  {outcome}");
    }
}

/// The test binaries, in the order of [`TESTS`].
fn build_tests(workspace: &Workspace, built: &build::Built) -> Result<Vec<PathBuf>> {
    let mut cargo = workspace.cargo();
    cargo.args([
        "test",
        "--workspace",
        "--exclude=xtask",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ]);
    for test in TESTS {
        cargo.args(["--test", test]);
    }
    cargo.env("WEIR_EBPF_OBJECT", &built.ebpf_object).stderr(std::process::Stdio::inherit());
    let output = cargo.output().context("cannot run cargo")?;
    anyhow::ensure!(output.status.success(), "building the tests failed");
    let messages: Vec<serde_json::Value> = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect();
    let executable = |test: &&str| {
        let message = messages
            .iter()
            .find(|message| message["target"]["name"] == **test && message["executable"].is_string());
        let path = message.and_then(|message| message["executable"].as_str()).map(PathBuf::from);
        path.with_context(|| format!("cargo built no test `{test}`"))
    };
    TESTS.iter().map(executable).collect()
}

/// Where a VM's files are while it runs.
struct Scratch(PathBuf);

impl Scratch {
    fn new(workspace: &Workspace, kernel: &Kernel) -> Result<Self> {
        let folder = workspace.target.join(format!("vm-{}-{}", kernel.line, std::process::id()));
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left of it lies below `target`, where it is in nobody's way.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
