//! `weir kernel status` and `weir kernel unload`: these look at the pins, and need no daemon.

use std::{fmt::Write as _, path::PathBuf};

use clap::{Args, Subcommand};
use proxy_common::scope::UNATTRIBUTED;

use crate::{
    cli::{Failure, print},
    kernel::{
        self, Hook, KernelFault, KernelStatus,
        memory::Memory,
        status::Tally,
        syn_cookies::{FloodStatus, NO_HELPERS, why_not},
    },
};

#[derive(Debug, Subcommand)]
pub enum KernelCommand {
    /// Show what the gate guards, lets in and drops
    Status(StatusArgs),
    /// Remove the gate from the kernel: nothing is guarded there any more
    Unload(UnloadArgs),
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    place: Place,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct UnloadArgs {
    #[command(flatten)]
    place: Place,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Args)]
pub struct Place {
    /// Where bpffs is mounted
    #[arg(long, env = "WEIR_BPFFS", default_value = "/sys/fs/bpf")]
    pub bpffs: PathBuf,
}

pub fn run(command: &KernelCommand) -> Result<(), Failure> {
    match command {
        KernelCommand::Status(args) => status(args),
        KernelCommand::Unload(args) => unload(args),
    }
}

fn status(args: &StatusArgs) -> Result<(), Failure> {
    let status = kernel::observe(&args.place.bpffs).map_err(|fault| failed(&fault))?;
    let others = kernel::other_versions(&args.place.bpffs).map_err(|fault| failed(&fault))?;
    let memory = kernel::memory::read(&args.place.bpffs).map_err(|fault| failed(&fault))?;
    let watches = kernel::upstream::attached();
    if args.json {
        let document = serde_json::json!({ "loaded": status.is_some(), "status": status, "memory": memory, "other_versions": others, "server_watches": watches });
        return print(&format!("{document}\n"));
    }
    for id in &watches {
        print(&format!(
            "a daemon has its connections to servers watched: program {id}, which ends with that daemon\n"
        ))?;
    }
    for kernel::OtherVersion { layout, interfaces } in &others {
        let at = if interfaces.is_empty() { "no interface".to_owned() } else { interfaces.join(", ") };
        print(&format!(
            "another version of Weir has pins here (layout {layout}; at {at}): `weir run` takes the gate over from it\n"
        ))?;
    }
    match status {
        None if !others.is_empty() => Ok(()),
        None => print(&format!(
            "nothing of Weir's is in the kernel (no pins below {})\n",
            args.place.bpffs.display()
        )),
        Some(status) => print(&(text(&status) + &memory.map(in_words).unwrap_or_default())),
    }
}

fn in_words(memory: Memory) -> String {
    let lists = match memory.lists {
        Some(bytes) => format!("lists {}", mebibytes(bytes)),
        None => "lists not known (that takes CAP_SYS_ADMIN)".to_owned(),
    };
    format!("kernel memory: {lists}, other maps {}\n", mebibytes(memory.maps))
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn unload(args: &UnloadArgs) -> Result<(), Failure> {
    let unloaded = kernel::unload(&args.place.bpffs).map_err(|fault| failed(&fault))?;
    let group = kernel::upstream::remove_left_behind();
    if args.json {
        return print(&format!("{}\n", serde_json::json!({ "removed": unloaded, "control_group": group })));
    }
    if let Some(group) = group {
        print(&format!("removed the empty control group {}\n", group.display()))?;
    }
    if unloaded.interfaces.is_empty() && unloaded.maps == 0 {
        return print("nothing of Weir's was in the kernel\n");
    }
    print(&format!(
        "removed the gate from {}: {} programs, {} maps. Nothing is guarded in the kernel any more\n",
        if unloaded.interfaces.is_empty() { "no interface".into() } else { unloaded.interfaces.join(", ") },
        unloaded.programs,
        unloaded.maps,
    ))
}

fn text(status: &KernelStatus) -> String {
    let mut text = String::new();
    // Writing to a String can't fail.
    let _ = match status.generation {
        Some(generation) => writeln!(text, "generation {generation}"),
        None => writeln!(text, "no generation yet"),
    };
    for interface in &status.interfaces {
        let hook = interface.hook.map_or("?", |hook| hook.name());
        let gone = if interface.index.is_none() { ", but the interface is gone" } else { "" };
        let why = if interface.why.is_empty() { String::new() } else { format!(" ({})", interface.why) };
        let _ = writeln!(
            text,
            "interface {}: {hook}, program {}{gone}{why}",
            interface.name, interface.program_id
        );
        let asked = status.entrypoints.iter().any(|entrypoint| entrypoint.syn_flood.is_some());
        if asked && interface.hook != Some(Hook::Xdp) {
            let _ = writeln!(
                text,
                "  no SYN cookies from the gate here: only XDP can send packets back; listeners still send their own"
            );
        }
        for other in &interface.others {
            let name = other.name.as_deref().unwrap_or("without a name");
            let _ = writeln!(
                text,
                "  also there: {}, program {} ({name}), not Weir's",
                other.hook.name(),
                other.id
            );
        }
    }
    for list in &status.lists {
        let _ = writeln!(text, "list {}: {} prefixes", list.name, list.prefixes);
    }
    for entrypoint in &status.entrypoints {
        let counted = entrypoint.dropped.values().any(|tally| tally.packets > 0);
        let _ = match (entrypoint.slot, entrypoint.guards.as_slice()) {
            (UNATTRIBUTED, _) if !counted => continue,
            (UNATTRIBUTED, _) => writeln!(text, "for guarded addresses, with no port that can be read"),
            (_, []) => writeln!(text, "entrypoint {}: not guarded any more", entrypoint.name),
            (_, guards) => writeln!(text, "entrypoint {} guards {}", entrypoint.name, guards.join(", ")),
        };
        if entrypoint.shadow {
            let _ = writeln!(text, "  SHADOW: nothing is dropped here");
        }
        if let Some(flood) = &entrypoint.syn_flood {
            let _ = writeln!(text, "  {}", syn_cookies(flood));
        }
        let _ = writeln!(
            text,
            "  {:<30} {:>14} packets {:>16} bytes",
            "passed", entrypoint.passed.packets, entrypoint.passed.bytes
        );
        if entrypoint.challenged.packets > 0 {
            let Tally { packets, bytes } = entrypoint.challenged;
            let _ = writeln!(
                text,
                "  {:<30} {packets:>14} packets {bytes:>16} bytes",
                "answered with a SYN cookie"
            );
        }
        for (reason, tally) in &entrypoint.dropped {
            if tally.packets > 0 {
                let reason = format!("dropped: {reason}");
                let _ =
                    writeln!(text, "  {reason:<30} {:>14} packets {:>16} bytes", tally.packets, tally.bytes);
            }
        }
        if !entrypoint.shadow {
            // What an earlier rehearsal counted is in the JSON.
            continue;
        }
        for (reason, tally) in entrypoint.would_drop.iter().filter(|(_, tally)| tally.packets > 0) {
            let reason = format!("would drop: {reason}");
            let _ = writeln!(text, "  {reason:<30} {:>14} packets {:>16} bytes", tally.packets, tally.bytes);
        }
        if entrypoint.would_challenge.packets > 0 {
            let Tally { packets, bytes } = entrypoint.would_challenge;
            let _ = writeln!(
                text,
                "  {:<30} {packets:>14} packets {bytes:>16} bytes",
                "would answer: SYN cookie"
            );
        }
        for from in &entrypoint.would_drop_from {
            let prefix = format!("  from {}", from.prefix);
            let _ = writeln!(text, "  {prefix:<30} {:>14} packets {:>16} bytes", from.packets, from.bytes);
        }
    }
    text
}

/// When SYNs are answered with cookies, and whether they are now.
fn syn_cookies(flood: &FloodStatus) -> String {
    let when = if flood.always { "always".into() } else { format!("from {} SYNs/s on", flood.from) };
    let cdn = if flood.of_cdn { ", of CDNs too" } else { "" };
    let now = match (flood.active, flood.began_seconds_ago) {
        _ if flood.off => match why_not() {
            Some(why) => format!("OFF: {why}"),
            None => format!("OFF: {NO_HELPERS}, or the setting was another one when the gate was set up"),
        },
        (true, Some(ago)) => format!("FLOOD since {ago:.0} s"),
        (false, Some(ago)) => format!("no flood now; the last one began {ago:.0} s ago"),
        (_, None) => "no flood so far".into(),
    };
    format!("SYN cookies {when}{cdn}: {now}")
}

fn failed(fault: &KernelFault) -> Failure {
    Failure::Failed(fault.to_string())
}
