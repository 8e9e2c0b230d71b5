//! What is installed: the unit, the package, importing and beginning at the command line.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context, ensure};
use weir_lab::{lab::weir, needs, needs::Need};

type Done = anyhow::Result<()>;

/// How much of a service is exposed, by systemd's own measure, times ten. Less is better.
const EXPOSED_AT_MOST: &str = "20";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn run(command: &mut Command) -> anyhow::Result<Output> {
    command.output().with_context(|| format!("can't run {command:?}"))
}

fn said(ran: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr))
}

#[test]
fn the_unit_is_understood_and_as_closed_as_it_was() -> Done {
    needs!(Need::Weir, Need::Program("systemd-analyze"));
    let folder = tempfile::tempdir()?;
    let unit = fs::read_to_string(root().join("packaging/weir.service"))?;
    // The program that it names has to be there.
    let unit = unit.replace("/usr/bin/weir", &weir::program()?.display().to_string());
    let unit = unit.replace("User=weir", "User=daemon").replace("Group=weir", "Group=daemon");
    let file = folder.path().join("weir.service");
    fs::write(&file, unit)?;
    let verified = run(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&file))?;
    let complaints = said(&verified);
    ensure!(verified.status.success() && !complaints.contains("weir.service"), "{complaints}");
    let measured = run(Command::new("systemd-analyze")
        .args(["security", "--offline=yes", &format!("--threshold={EXPOSED_AT_MOST}"), "--no-pager"])
        .arg(&file))?;
    ensure!(measured.status.success(), "{}", said(&measured));
    Ok(())
}

#[test]
fn an_import_says_what_it_left_out_and_is_valid() -> Done {
    needs!(Need::Weir);
    let folder = tempfile::tempdir()?;
    let fixtures = root().join("tests/fixtures/import");
    for (from, files) in [
        ("nginx", vec!["nginx.conf"]),
        ("haproxy", vec!["haproxy.cfg"]),
        ("traefik", vec!["traefik.yml", "traefik-dynamic.yml"]),
    ] {
        let file = folder.path().join(format!("{from}.toml"));
        let mut command = Command::new(weir::program()?);
        command
            .args(["import", from])
            .args(files.iter().map(|name| fixtures.join(name)))
            .arg("--output")
            .arg(&file);
        let ran = run(&mut command)?;
        ensure!(ran.status.success() && said(&ran).contains("left out"), "{}", said(&ran));
        let checked = run(Command::new(weir::program()?).arg("check").arg(&file))?;
        ensure!(checked.status.success(), "{}", said(&checked));
        // Once more, it would be written over.
        let again = run(&mut command)?;
        ensure!(
            again.status.code() == Some(1) && said(&again).contains("is not overwritten"),
            "{}",
            said(&again)
        );
    }
    Ok(())
}

#[test]
fn a_first_configuration_is_written_once() -> Done {
    needs!(Need::Weir);
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("etc/weir.toml");
    let mut command = Command::new(weir::program()?);
    command
        .args(["init", "--yes", "--cloudflare", "--server", "10.0.0.11:8080", "--host", "www.example.com"])
        .arg(&file);
    let ran = run(&mut command)?;
    ensure!(ran.status.success(), "{}", said(&ran));
    let text = fs::read_to_string(&file)?;
    ensure!(text.contains("allow = [\"cloudflare\"]") && text.contains("www.example.com"), "{text}");
    let checked = run(Command::new(weir::program()?).arg("check").arg(&file))?;
    ensure!(checked.status.success(), "{}", said(&checked));
    let again = run(&mut command)?;
    ensure!(again.status.code() == Some(1), "{}", said(&again));
    ensure!(fs::read_to_string(&file)? == text, "it was written over");
    // Without a terminal nobody can be asked.
    let asked = run(Command::new(weir::program()?).arg("init").arg(folder.path().join("other.toml")))?;
    ensure!(asked.status.code() == Some(1) && said(&asked).contains("--yes"), "{}", said(&asked));
    Ok(())
}

#[test]
fn at_a_terminal_it_asks() -> Done {
    needs!(Need::Weir, Need::Program("script"));
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("weir.toml");
    // `script` gives it a terminal; an answer that won't do is asked for again.
    let typed = format!("{} init {}", weir::program()?.display(), file.display());
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &typed, "/dev/null"]).env("NO_COLOR", "1");
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn()?;
    std::io::Write::write_all(
        &mut child.stdin.take().context("no stdin")?,
        b"none\nno\nshop.example.com\n10.0.0.11\n10.0.0.11:8080\n8081\nnone\n",
    )?;
    let ran = child.wait_with_output()?;
    let text = fs::read_to_string(&file).with_context(|| said(&ran))?;
    ensure!(said(&ran).contains("10.0.0.11 is not ADDRESS:PORT"), "{}", said(&ran));
    for expected in ["shop.example.com", "10.0.0.11:8080", "0.0.0.0:8081"] {
        ensure!(text.contains(expected), "{expected}: {text}");
    }
    Ok(())
}

/// The package in a copy of this system that vanishes again: a chroot over it, whose changes are in memory.
#[test]
fn the_package_is_installed_upgraded_and_purged_cleanly() -> Done {
    needs!(
        Need::Root,
        Need::Weir,
        Need::Program("dpkg-deb"),
        Need::Program("unshare"),
        Need::Program("adduser")
    );
    let folder = tempfile::tempdir()?;
    let tree = folder.path().join("tree");
    let source = root().join("packaging/debian");
    for (path, mode) in
        [("usr/bin", 0o755), ("lib/systemd/system", 0o755), ("etc/weir", 0o750), ("DEBIAN", 0o755)]
    {
        fs::create_dir_all(tree.join(path))?;
        fs::set_permissions(tree.join(path), fs::Permissions::from_mode(mode))?;
    }
    // The real binary is large, and only asked to unload.
    fs::write(tree.join("usr/bin/weir"), "#!/bin/sh\nexit 0\n")?;
    fs::set_permissions(tree.join("usr/bin/weir"), fs::Permissions::from_mode(0o755))?;
    fs::copy(root().join("packaging/weir.service"), tree.join("lib/systemd/system/weir.service"))?;
    for script in ["postinst", "prerm", "postrm"] {
        fs::copy(source.join(script), tree.join("DEBIAN").join(script))?;
        fs::set_permissions(tree.join("DEBIAN").join(script), fs::Permissions::from_mode(0o755))?;
    }
    let control = fs::read_to_string(source.join("control"))?;
    for version in ["0.1.0", "0.1.1"] {
        fs::write(
            tree.join("DEBIAN/control"),
            control.replace("@VERSION@", version).replace("@ARCHITECTURE@", "all"),
        )?;
        let built = run(Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Znone", "--build"])
            .arg(&tree)
            .arg(folder.path().join(format!("{version}.deb"))))?;
        ensure!(built.status.success(), "{}", said(&built));
    }
    let script = format!(
        r#"set -e
mount -t tmpfs none {folder}/tree
mkdir {folder}/tree/up {folder}/tree/work {folder}/tree/root
mount -t overlay overlay -o lowerdir=/,upperdir={folder}/tree/up,workdir={folder}/tree/work {folder}/tree/root
mount -t proc proc {folder}/tree/root/proc
cp {folder}/*.deb {folder}/tree/root/
rm -rf {folder}/tree/root/etc/weir
inside() {{ chroot {folder}/tree/root "$@"; }}
inside dpkg --install /0.1.0.deb
inside getent passwd weir
inside stat -c 'installed %U:%G %a' /etc/weir
inside sh -c 'echo kept > /etc/weir/weir.toml; mkdir -p /var/lib/weir; chmod 2750 /etc/weir'
inside dpkg --install /0.1.1.deb
inside stat -c 'upgraded %U:%G %a' /etc/weir
inside dpkg --remove weir
inside cat /etc/weir/weir.toml
inside dpkg --purge weir
inside sh -c 'test ! -e /usr/bin/weir; test ! -e /var/lib/weir; test -e /etc/weir/weir.toml'
inside dpkg --list weir 2>/dev/null | grep -E '^(ii|rc)' && exit 7
echo all well
"#,
        folder = folder.path().display()
    );
    let ran = run(Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--kill-child", "bash", "-c", &script])
        .env("DEBIAN_FRONTEND", "noninteractive"))?;
    let said = said(&ran);
    for expected in ["installed root:weir 2770", "upgraded root:weir 2750", "kept", "all well"] {
        ensure!(said.contains(expected), "{expected}:\n{said}");
    }
    // Nothing of it is here.
    ensure!(
        fs::metadata("/etc/weir").is_err() || fs::metadata("/etc/weir")?.uid() == 0,
        "/etc/weir was touched"
    );
    Ok(())
}
