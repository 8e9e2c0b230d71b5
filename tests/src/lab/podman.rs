//! Containers on an island, by podman: it answers as Docker does. Nothing of it touches the machine: it has mounts, processes
//! and a `/run` of its own, and all of that ends with the lab.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, ensure};

use super::{
    Island,
    process::Process,
    stand::PATIENCE,
    wait,
    weir::{Ran, finish},
};

/// What containers are made of: busybox alone.
const IMAGE: &str = "busybox:lab";

/// What the first process of the containers' world does: it makes the world, and then nothing.
const WORLD: &str = "mount -t tmpfs none /run && { umount -l /sys/fs/cgroup/unified 2>/dev/null || true; } && exec sleep infinity";

/// One podman.
#[derive(Debug)]
pub struct Podman {
    island: Arc<Island>,
    /// Whatever runs in the world ends with it.
    world: Process,
    service: Option<Process>,
}

impl Podman {
    /// Starts it, with its image.
    pub fn start(island: &Arc<Island>) -> anyhow::Result<Self> {
        let mut command = island.namespace.command("unshare")?;
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", WORLD]);
        let world = Process::start("the containers' world", command, &island.folder().join("world.log"))?;
        let mut podman = Self { island: island.clone(), world, service: None };
        wait::until_true("the containers' world is made", PATIENCE, || Ok(podman.is_made().unwrap_or(false)))
            .with_context(|| podman.world.log_text())?;
        podman.run(&["import", "--change", "CMD [\"/bin/busybox\"]", &podman.tar()?, IMAGE])?;
        podman.answer()?;
        Ok(podman)
    }

    /// Where it answers.
    pub fn socket(&self) -> PathBuf {
        self.island.folder().join("podman.sock")
    }

    /// Begins to answer (again).
    pub fn answer(&mut self) -> anyhow::Result<()> {
        let at = format!("unix://{}", self.socket().display());
        let mut command = self.command()?;
        command.args(["system", "service", "--time", "0", &at]);
        self.service = Some(Process::start("podman", command, &self.island.folder().join("podman.log"))?);
        let socket = self.socket();
        wait::until_true("podman answers", PATIENCE, || {
            Ok(std::os::unix::net::UnixStream::connect(&socket).is_ok())
        })
    }

    /// Answers no more. Containers go on.
    pub fn fall_silent(&mut self) -> anyhow::Result<()> {
        self.service.take().context("it doesn't answer")?.kill()
    }

    /// Starts a container that says its name at this port of the island's loopback.
    pub fn say(&self, name: &str, port: u16, arguments: &[&str]) -> anyhow::Result<()> {
        let serve = format!(
            "/bin/busybox mkdir /www && printf {name} >/www/index.html && \
             exec /bin/busybox httpd -f -p 127.0.0.1:{port} -h /www"
        );
        let server = ["/bin/busybox", "sh", "-c", &serve];
        let own = ["run", "--detach", "--name", name, "--network", "host", "--cgroups", "disabled"];
        // The image's defaults may be more than this machine allows.
        let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];
        self.run(&[&own[..], &limits, arguments, &[IMAGE], &server].concat())?;
        wait::until_true(&format!("{name} answers"), PATIENCE, || {
            self.island.namespace.run(|| TcpStream::connect(("127.0.0.1", port)).is_ok())
        })
    }

    /// # Errors
    /// When podman fails.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<Ran> {
        let mut command = self.command()?;
        command.args(arguments);
        let ran = finish(command)?;
        ensure!(ran.code == 0, "podman {arguments:?}: {ran:?}");
        Ok(ran)
    }

    fn command(&self) -> anyhow::Result<std::process::Command> {
        let folder = self.island.folder();
        let first = self.first()?.to_string();
        let mut command = self.island.namespace.command("nsenter")?;
        command
            .env("TMPDIR", folder)
            .args(["--target", &first, "--mount", "--pid", "podman", "--root"])
            .arg(folder.join("containers"))
            .args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"])
            .args(["--events-backend", "file", "--runtime", "crun"]);
        Ok(command)
    }

    /// The first process of the world.
    fn first(&self) -> anyhow::Result<u32> {
        let pid = self.world.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        children.split_whitespace().next().context("nothing runs there yet")?.parse().context("no process id")
    }

    /// It has got as far as doing nothing.
    fn is_made(&self) -> anyhow::Result<bool> {
        let command = fs::read(format!("/proc/{}/cmdline", self.first()?))?;
        Ok(command.starts_with(b"sleep\0"))
    }

    fn tar(&self) -> anyhow::Result<String> {
        let folder = self.island.folder().join("image");
        fs::create_dir_all(folder.join("bin"))?;
        fs::copy("/bin/busybox", folder.join("bin/busybox"))?;
        std::os::unix::fs::symlink("busybox", folder.join("bin/sh"))?;
        let tar = self.island.folder().join("image.tar");
        let mut command = std::process::Command::new("tar");
        command.arg("-C").arg(&folder).arg("-cf").arg(&tar).arg(Path::new("."));
        let ran = finish(command)?;
        ensure!(ran.code == 0, "tar: {ran:?}");
        Ok(tar.display().to_string())
    }
}
