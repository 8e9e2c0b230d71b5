//! What `weir run` says when it has started: what it listens on, what it guards, and what it doesn't.

use std::fmt::Write as _;

use crate::{
    config::model::{AdminAddr, Config, Entrypoint, MadeOf},
    control::{kernel_side::State, state::Source},
};

/// A few lines for people.
pub fn of(source: &Source, config: &Config, kernel: &State) -> String {
    let mut text = String::new();
    // Writing to a String can't fail.
    let _ = match source {
        Source::Embedded => writeln!(
            text,
            "  configuration  the embedded default, since there is no {}",
            crate::config::DEFAULT_PATH
        ),
        Source::Path(path) => writeln!(text, "  configuration  {}", path.display()),
    };
    for entrypoint in &config.entrypoints {
        let _ = writeln!(
            text,
            "  {:<14} {}",
            format!("`{}`", entrypoint.name),
            entry(config, entrypoint, kernel)
        );
    }
    for service in &config.services {
        let servers = service.servers.iter().map(ToString::to_string);
        let parts = service.made_of.iter().flat_map(MadeOf::parts);
        let parts = parts.map(|part| format!("`{}`", config.services[part.0].name));
        let leads: Vec<_> = servers.chain(parts).collect();
        let _ = writeln!(text, "  service        `{}` → {}", service.name, leads.join(", "));
    }
    let admin: Vec<_> = config.admin.bind.iter().map(admin_address).collect();
    let _ = writeln!(text, "  admin          {}", admin.join(", "));
    let _ = match kernel {
        State::NotWanted => {
            writeln!(text, "  gate           not attached: [kernel] names no interface, or mode is \"off\"")
        }
        State::Unavailable { why } => writeln!(text, "  gate           NOT IN THE KERNEL: {why}"),
        State::On(applied) => {
            for interface in &applied.interfaces {
                let _ = writeln!(
                    text,
                    "  gate           {} by {} ({})",
                    interface.name,
                    interface.hook.name(),
                    interface.why
                );
            }
            for name in &applied.absent {
                let _ = writeln!(text, "  gate           {name} is gone, and guarded again when it is back");
            }
            Ok(())
        }
    };
    text.truncate(text.trim_end().len());
    text
}

fn entry(config: &Config, entrypoint: &Entrypoint, kernel: &State) -> String {
    let addresses: Vec<_> = entrypoint.bind.iter().map(ToString::to_string).collect();
    let protocol = if entrypoint.tls.is_some() { "https" } else { entrypoint.carries.name() };
    let lists: Vec<_> =
        entrypoint.allow.iter().map(|list| format!("`{}`", config.allowlists[list.0].name)).collect();
    let guard = match (lists.is_empty(), kernel) {
        (false, _) if entrypoint.shadow => {
            format!("SHADOW: nothing is dropped, though only {} would come in", lists.join(", "))
        }
        (true, _) => "open to everybody".to_owned(),
        (false, State::On(_)) => format!("guarded in the kernel: only {} may come in", lists.join(", ")),
        (false, _) => format!("guarded at accept only: only {} may come in", lists.join(", ")),
    };
    format!("{protocol} on {}, {guard}", addresses.join(", "))
}

fn admin_address(addr: &AdminAddr) -> String {
    match addr {
        AdminAddr::Tcp(addr) => format!("http://{addr}"),
        AdminAddr::Unix(path) => format!("unix:{}", path.display()),
    }
}
