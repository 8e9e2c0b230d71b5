//! `cargo xtask setup --check`: what is needed, what is here, and how to get the rest. Changes nothing.

use std::path::Path;
use std::process::{Command, ExitCode};

use super::{Way, linker, toolchain};
use crate::workspace::{Workspace, output_of};
use crate::{packages, python, root};

struct Row {
    thing: &'static str,
    needed: String,
    /// `None`: it is missing.
    found: Option<String>,
    remedy: String,
}

pub fn print(workspace: &Workspace, way: Option<Way>) -> ExitCode {
    let mut rows = vec![compiler()];
    rows.extend(for_the_kernel_programs(workspace, way));
    rows.extend(packages::FOR_BUILDING.iter().chain(packages::FOR_LABS).map(|program| Row {
        thing: program.name,
        needed: program.purpose.into(),
        found: packages::find(program.name).map(|path| path.display().to_string()),
        remedy: format!("apt-get install {}", program.package),
    }));
    rows.push(python_peers(workspace));
    rows.push(kernel());
    rows.push(privilege());
    table(&rows);
    if rows.iter().all(|row| row.found.is_some()) {
        println!("\nnothing is missing");
        return ExitCode::SUCCESS;
    }
    println!("\nsomething is missing: `cargo xtask setup` gets what can be installed");
    ExitCode::FAILURE
}

fn compiler() -> Row {
    let found = ["cc", "gcc", "clang"].into_iter().find_map(packages::find);
    Row {
        thing: "C compiler",
        needed: "cryptography, linking".into(),
        found: found.map(|path| path.display().to_string()),
        remedy: "apt-get install gcc libc6-dev".into(),
    }
}

fn for_the_kernel_programs(workspace: &Workspace, way: Option<Way>) -> [Row; 2] {
    let chosen = super::remembered(workspace, way).map(|ready| ready.toolchain).or_else(|| {
        let mut present = toolchain::present();
        present.retain(|toolchain| way.is_none_or(|way| way == toolchain.way));
        present.into_iter().find(toolchain::Toolchain::has_core_sources)
    });
    let linker = chosen.as_ref().and_then(|toolchain| linker::find(workspace, toolchain));
    [
        Row {
            thing: "eBPF compiler",
            needed: "rustc with LLVM 22 and rust-src".into(),
            found: chosen.as_ref().map(ToString::to_string),
            remedy: "cargo xtask setup".into(),
        },
        Row {
            thing: "bpf-linker",
            needed: format!("{}, of the same LLVM", linker::VERSION),
            found: linker.map(|linker| linker.path.display().to_string()),
            remedy: "cargo xtask setup".into(),
        },
    ]
}

fn python_peers(workspace: &Workspace) -> Row {
    Row {
        thing: "Python packages",
        needed: python::wanted(),
        found: python::is_ready(workspace).then(|| python::interpreter(workspace).display().to_string()),
        remedy: "cargo xtask setup".into(),
    }
}

fn kernel() -> Row {
    let release = output_of(Command::new("uname").arg("-r")).unwrap_or_default();
    Row {
        thing: "kernel types",
        needed: "/sys/kernel/btf/vmlinux".into(),
        found: Path::new("/sys/kernel/btf/vmlinux").exists().then(|| format!("Linux {release}")),
        remedy: "a kernel built with CONFIG_DEBUG_INFO_BTF".into(),
    }
}

fn privilege() -> Row {
    let found = if root::is_root() {
        Some("root".to_owned())
    } else {
        root::sudo_is_free().then(|| "sudo without a password".to_owned())
    };
    Row {
        thing: "privilege",
        needed: "root, for namespaces and eBPF".into(),
        found,
        remedy: "run as root, or allow sudo".into(),
    }
}

fn table(rows: &[Row]) {
    let width = |of: fn(&Row) -> usize| rows.iter().map(of).max().unwrap_or_default();
    let (thing, needed) = (width(|row| row.thing.len()), width(|row| row.needed.len()));
    println!("{:thing$}  {:needed$}  found", "thing", "needed");
    for row in rows {
        let found = row.found.clone().unwrap_or_else(|| format!("MISSING: {}", row.remedy));
        println!("{:thing$}  {:needed$}  {found}", row.thing, row.needed);
    }
}
