//! What the README and the page about bpftool tell an operator to type, typed. A command that appears there and that
//! nothing here can run fails the test: nobody should be shown what was never tried.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use weir_lab::{
    Lab,
    lab::{
        addresses::HTTPS,
        knock::knock,
        stand::Stand,
        weir::{self, Ran},
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

fn page(name: &str) -> anyhow::Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    std::fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))
}

/// The lines of all fenced blocks of a language.
fn fenced<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let mut lines = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        match line.trim().strip_prefix("```") {
            Some(rest) if !inside => inside = rest == language,
            Some(_) => inside = false,
            None if inside => lines.push(line),
            None => {}
        }
    }
    lines
}

/// Commands of `weir` that stand in running text, between backticks.
fn inline(page: &str) -> Vec<&str> {
    let quoted = page.split('`').skip(1).step_by(2);
    quoted.filter(|text| text.starts_with("weir ") && !text.contains('\n')).collect()
}

#[test]
fn every_command_of_the_readme_runs() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir, Need::Program("bpftool"), Need::Program("curl"));
    let readme = page("README.md")?;
    let stand = Stand::up()?;
    let blocks = fenced(&readme, "sh");
    let commands: Vec<_> = blocks
        .iter()
        .map(|line| line.split(" #").next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty())
        .collect();
    ensure!(commands.len() > 5, "the README has lost its commands: {commands:?}");
    for command in commands {
        try_out(&stand, command).with_context(|| format!("`{command}`, as the README has it"))?;
    }
    // What takes the gate away comes last.
    let mut inline = inline(&readme);
    inline.sort_by_key(|command| command.ends_with("unload"));
    for command in inline {
        try_out(&stand, command).with_context(|| format!("`{command}`, as the README has it"))?;
    }
    Ok(())
}

/// Types a command in the edge of the lab, with the lab's places instead of the host's.
fn try_out(stand: &Stand, command: &str) -> Done {
    let words: Vec<&str> = command.split_whitespace().collect();
    match words.as_slice() {
        // Without a file: `served.rs` has a test for it. With it: that is how the lab's daemon was started.
        ["weir", "run"] | ["weir", "run", "/etc/weir/weir.toml"] => Ok(()),
        ["cargo", "xtask", task, ..] => xtask_knows(task),
        ["weir", ..] => well(&run(stand, command)?),
        ["curl" | "bpftool" | "install", ..] => well(&run(stand, command)?),
        _ => bail!("nothing here knows how to try this out"),
    }?;
    match words.as_slice() {
        ["bpftool", "link", "show"] => {
            let shown = run(stand, command)?.stdout;
            // Debian 12's bpftool is older than tcx and knows it by number only.
            ensure!(shown.contains("tcx") || shown.contains("type 11"), "no link of the gate's:\n{shown}");
        }
        ["bpftool", "map", "dump", ..] => {
            let shown = run(stand, command)?.stdout;
            ensure!(shown.contains("\"not_listed\""), "no names in:\n{shown}");
        }
        ["weir", "kernel", "unload"] => {
            let knocks = knock(&stand.lab.stranger, HTTPS, 3, std::time::Duration::from_secs(1))?;
            ensure!(knocks.silent == 0, "the gate still stands: {knocks:?}");
        }
        _ => {}
    }
    Ok(())
}

fn run(stand: &Stand, command: &str) -> anyhow::Result<Ran> {
    let weir = weir::program()?;
    let installed = stand.lab.folder().join("installed-weir");
    let command = command
        .replace("/etc/weir/weir.toml", &stand.weir.config().to_string_lossy())
        .replace(" new.toml", &format!(" {}", stand.weir.config().display()))
        .replace("/sys/fs/bpf", &stand.lab.bpffs().to_string_lossy())
        // Servers of a lab have no system to restart anything.
        .replace("ssh {host} systemctl restart app", "true {host}")
        .replace("dist/weir", &weir.to_string_lossy())
        .replace("/usr/bin/weir", &installed.to_string_lossy());
    let program = command.split_whitespace().next().unwrap_or_default();
    let arguments = command.split_whitespace().skip(1);
    let mut typed = stand.lab.edge.command(if program == "weir" { weir } else { PathBuf::from(program) })?;
    let admin = format!("unix:{}", weir::admin_socket(&stand.lab).display());
    typed.args(arguments).env("NO_COLOR", "1").env("WEIR_BPFFS", stand.lab.bpffs()).env("WEIR_ADMIN", admin);
    weir::finish(typed)
}

fn well(ran: &Ran) -> Done {
    ensure!(ran.code == 0, "it ended with {}:\n{}\n{}", ran.code, ran.stdout, ran.stderr);
    Ok(())
}

/// Running the tasks themselves would be running the tests within the tests.
fn xtask_knows(task: &str) -> Done {
    let main = page("xtask/src/main.rs")?;
    let variant: String = task[..1].to_uppercase() + &task[1..];
    let known = main
        .lines()
        .map(str::trim)
        .any(|line| line.strip_prefix(&variant).is_some_and(|rest| rest.starts_with(['(', ',', ' '])));
    ensure!(known, "xtask has no task `{task}`");
    Ok(())
}

#[test]
fn the_configuration_of_the_readme_is_valid() -> Done {
    needs!(Need::Root, Need::Weir);
    let lab = Lab::build()?;
    let toml = fenced(&page("README.md")?, "toml").join("\n");
    ensure!(toml.contains("[entrypoint."), "the README has lost its configuration");
    let file = lab.folder().join("weir.toml");
    std::fs::write(&file, toml.replace("/etc/weir/certs", &lab.certificates().to_string_lossy()))?;
    well(&weir::run(&lab, &["check", &file.to_string_lossy()])?)
}

#[test]
fn every_command_of_the_page_about_bpftool_runs() -> Done {
    needs!(Need::Root, Need::Ebpf, Need::Weir, Need::Program("bpftool"), Need::Program("jq"));
    let page = page("docs/inspecting.md")?;
    let stand = Stand::up()?;
    let typed: Vec<_> =
        fenced(&page, "console").into_iter().filter_map(|line| line.strip_prefix("# ")).collect();
    ensure!(typed.len() > 5, "the page has lost its commands: {typed:?}");
    for command in typed {
        // The number of an inner map is another in each run.
        if command.contains(" id ") {
            continue;
        }
        let command = command
            .replace("/sys/fs/bpf", &stand.lab.bpffs().to_string_lossy())
            .replace("links/edge0", "links/public");
        let mut shell = stand.lab.edge.command("bash")?;
        let folder = stand.lab.bpffs().join("weir/v2");
        shell.current_dir(&folder).args(["-e", "-o", "pipefail", "-c", &command]);
        well(&weir::finish(shell)?).with_context(|| format!("`{command}`, as docs/inspecting.md has it"))?;
    }
    Ok(())
}
