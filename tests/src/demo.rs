//! The demonstration: Weir's story on real packets, in a lab, scene by scene. What it prints it has measured.

mod figures;
mod scenes;
mod stage;
mod world;

use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{SigSet, Signal};

use crate::{
    lab::{self, Lab, SITE, addresses, pinned, weir},
    needs::Need,
};
use figures::Figures;
use proxy_common::names::GATE_COUNTERS;
use stage::Stage;
use world::World;

#[derive(Debug)]
pub struct Options {
    /// End after the story.
    pub once: bool,
    /// The figures as the last line.
    pub json: bool,
}

/// Tells the story. Fails unless all of it came true.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let stop = prepare()?;
    let mut stage = Stage::new(!options.once);
    let mut figures = Figures::default();
    stage.title(
        "Weir, in a small internet of its own",
        "Every box is a network namespace on this machine; every packet is real.",
    );
    stage.plain(MAP);

    let mut world = stage.meanwhile("building the lab, starting the daemon", World::build)?;
    if let Err(why) = scenes::play(&mut stage, &mut world, &mut figures) {
        stage.broke(&why);
        stage.note("the end of the daemon's log:");
        stage.quote(&last_lines(&world.weir_log(), 15));
    }
    let whole = stage.is_whole();
    scenes::credits(&mut stage, &figures);

    if !options.once && whole {
        by_hand(&stage, &world.lab)?;
        stop.wait();
    }
    drop(world);
    if options.json {
        anstream::println!("{}", figures.json());
    }
    if !whole {
        bail!("not all of the story came true");
    }
    Ok(())
}

/// The lab and the daemon, to play with.
pub fn lab() -> anyhow::Result<()> {
    let stop = prepare()?;
    let stage = Stage::new(false);
    stage.plain(MAP);
    let world = stage.meanwhile("building the lab, starting the daemon", World::build)?;
    by_hand(&stage, &world.lab)?;
    stop.wait();
    Ok(())
}

/// Ctrl-C, as something to wait for. Before that it takes the lab down wherever the story is.
struct Stop {
    told: std::sync::mpsc::Receiver<()>,
    waiting: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl Stop {
    fn wait(&self) {
        self.waiting.store(true, std::sync::atomic::Ordering::Release);
        // An error means that the watching thread is gone: then there is nothing to wait for either.
        let _ = self.told.recv();
        anstream::println!();
    }
}

fn prepare() -> anyhow::Result<Stop> {
    for need in [Need::Root, Need::Ebpf, Need::Weir, Need::Program("ip"), Need::Program("bpftool")] {
        if let Err(reason) = need.met() {
            bail!("the demonstration can't run here: {reason}");
        }
    }
    // Blocked before any thread is made, so that all of them inherit it and only the watcher takes signals.
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block().context("can't block signals")?;
    let (tell, told) = std::sync::mpsc::channel();
    let waiting = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let regular = std::sync::Arc::clone(&waiting);
    std::thread::spawn(move || {
        while signals.wait().is_ok() {
            if regular.load(std::sync::atomic::Ordering::Acquire) {
                let _ = tell.send(());
            } else {
                // The programs of the lab die with this process.
                lab::remains::remove_all();
                std::process::exit(130);
            }
        }
    });
    Ok(Stop { told, waiting })
}

const MAP: &str = "     visitor  173.245.48.10  ──╮                       ╭── 10.0.0.11  server one
     (one of Cloudflare's)     │        ╭────────╮     │
                               ├─ net ──┤  edge  ├─────┤
                               │        │ (weir) │     │
     stranger 203.0.113.9    ──╯        ╰────────╯     ╰── 10.0.0.12  server two
                                       198.51.100.1";

/// What to try while the lab is up.
fn by_hand(stage: &Stage, lab: &Lab) -> anyhow::Result<()> {
    let name = lab.name();
    let weir = weir::program()?;
    let curl = format!(
        "curl -m 3 --cacert {} \\\n         --resolve {SITE}:443:{} https://{SITE}/",
        lab.ca().display(),
        addresses::EDGE
    );
    stage.plain(&format!(
        "
   The lab stays up. In another terminal, as root:

     as the visitor, who is served:
       ip netns exec {name}-visitor {curl}

     as the stranger, whose packets die in the kernel:
       ip netns exec {name}-stranger {curl}

     what the gate counted:
       bpftool map dump pinned {counters}

     how the daemon sees it:
       ip netns exec {name}-edge {weir} status

     change who may come in, or anything else; it takes effect when you save:
       {config}

   Ctrl-C takes all of it down.",
        counters = pinned::map(lab, GATE_COUNTERS).display(),
        weir = weir.display(),
        config = lab.folder().join("weir.toml").display(),
    ));
    Ok(())
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// How long any single thing in the story may take before it is called broken.
const PATIENCE: Duration = Duration::from_secs(10);
