//! Routes of HTTP that get nothing over TLS, since connections for their hosts are carried away untouched before anybody reads a
//! request.

use std::collections::HashMap;

use super::{Placed, carried};
use crate::config::{
    code::Code,
    findings::Findings,
    model::{EntrypointId, HostMatch, Route},
    validate::merge::Merged,
    value::quoted,
};

/// The names that are carried at one entrypoint, with the place of their route among those that carry.
#[derive(Default)]
struct Names<'a> {
    exact: HashMap<&'a str, usize>,
    /// What is below these.
    wildcard: HashMap<&'a str, usize>,
}

/// Warns of routes with a host that `sni` takes at every entrypoint with TLS that they apply to.
pub fn warn(
    placed: &[Placed<'_>],
    carriers: &[carried::Placed<'_>],
    written: &Merged<'_>,
    findings: &mut Findings,
) {
    // With a fault somewhere there are enough faults.
    if findings.failed() {
        return;
    }
    let has_tls = |id: &EntrypointId| written.entrypoints.items[id.0].body.tls.is_some();
    let mut names: HashMap<EntrypointId, Names<'_>> = HashMap::new();
    for (nth, carrier) in carriers.iter().enumerate() {
        for id in carrier.route.entrypoints.iter().filter(|id| has_tls(id)) {
            let names = names.entry(*id).or_default();
            for name in &carrier.route.sni {
                match name {
                    HostMatch::Exact(name) => names.exact.insert(name, nth),
                    HostMatch::Wildcard(suffix) => names.wildcard.insert(suffix, nth),
                    HostMatch::Any | HostMatch::Regex(_) => None,
                };
            }
        }
    }
    if names.is_empty() {
        return;
    }
    let all: Vec<EntrypointId> = (0..written.entrypoints.items.len()).map(EntrypointId).collect();
    let with_tls = all.iter().filter(|id| has_tls(id));
    for Placed { route, file, at } in placed {
        let Some((host, nth)) = hidden(route, &names, &with_tls) else { continue };
        let by = &carriers[nth];
        let message = format!(
            "route {} is never taken over TLS: connections for `{host}` are carried away by route {}",
            quoted(&route.name),
            quoted(&by.route.name)
        );
        findings
            .warning(Code::UnreachableRoute, *file, &at.span, message)
            .related(by.file, &by.at.span, "this one takes them before they are decrypted")
            .hint("name in `sni` only what is passed through, or give the route an `entrypoint` where its host is served");
    }
}

/// A host of the route that is carried away wherever the route applies, and by whom.
fn hidden<'r, 'i>(
    route: &'r Route,
    names: &HashMap<EntrypointId, Names<'_>>,
    with_tls: &(impl Iterator<Item = &'i EntrypointId> + Clone),
) -> Option<(&'r HostMatch, usize)> {
    route.hosts.iter().find_map(|host| {
        let applies =
            with_tls.clone().filter(|id| route.entrypoints.is_empty() || route.entrypoints.contains(id));
        let mut by = None;
        for id in applies {
            by = Some(names.get(id)?.find(host)?);
        }
        by.map(|by| (host, by))
    })
}

impl Names<'_> {
    fn find(&self, host: &HostMatch) -> Option<usize> {
        let (name, itself) = match host {
            HostMatch::Exact(name) => (name, self.exact.get(&**name)),
            HostMatch::Wildcard(suffix) => (suffix, self.wildcard.get(&**suffix)),
            HostMatch::Any | HostMatch::Regex(_) => return None,
        };
        let above = || {
            let mut ends = name.match_indices('.').map(|(at, _)| &name[at + 1..]);
            ends.find_map(|end| self.wildcard.get(end))
        };
        itself.or_else(above).copied()
    }
}
