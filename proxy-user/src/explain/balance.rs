//! Which server of a service gets the request: as far as that can be told beforehand.

use http::{Request, Uri};

use super::Parsed;
use crate::{
    address::ServerAddr,
    balance::{
        hash, key,
        maglev::{Maglev, Member},
    },
    config::model::{BalanceWay, Server, Service},
    cookies,
    sticky::{Sticky, key as sticky_key},
};

/// In words. `target` is what the server is asked for.
pub fn told(service: &Service, question: &Parsed, target: &Uri) -> String {
    let mut text = service.balancing.way.to_string();
    if let BalanceWay::Hash { by, .. } = &service.balancing.way
        && let Some(server) = by_hash(service, question, target, |head| key::of(by, head, question.client))
    {
        text += &format!(": {server}, as long as it takes work");
    }
    if let Some(sticky) = &service.balancing.sticky {
        text += &match cookies::value(&question.head.headers, &sticky.name) {
            None => format!("; a cookie `{}` then leads back to it", sticky.name),
            Some(_) => match by_cookie(service, question) {
                Some(server) => format!("; but its cookie `{}` leads to {server}", sticky.name),
                // Signed by the host's own key, which is the daemon's alone; or by nobody.
                None => format!("; but its cookie `{}` goes first, if Weir has signed it", sticky.name),
            },
        };
    }
    text
}

/// All that the service has now, in the order of the running one.
fn servers(service: &Service) -> Vec<(ServerAddr, u32)> {
    let mut all: Vec<(ServerAddr, u32)> = Vec::new();
    let each = |server: &Server| {
        let found = server.stands_for().into_iter();
        found.map(|found| (ServerAddr(found.address), found.weight)).collect::<Vec<_>>()
    };
    for (addr, weight) in service.servers.iter().flat_map(each) {
        if !all.iter().any(|(known, _)| *known == addr) {
            all.push((addr, weight));
        }
    }
    all
}

fn by_hash(
    service: &Service,
    question: &Parsed,
    target: &Uri,
    key: impl Fn(&http::request::Parts) -> u64,
) -> Option<ServerAddr> {
    let servers = servers(service);
    let member = |(addr, weight): &(ServerAddr, u32)| Member {
        identity: hash::of(addr.to_string().as_bytes()),
        weight: *weight,
    };
    let members: Vec<_> = servers.iter().map(member).collect();
    let (mut head, ()) = Request::new(()).into_parts();
    head.uri = target.clone();
    head.headers = question.head.headers.clone();
    let index = Maglev::new(&members).get(hash::first_look(key(&head)))?;
    Some(servers[index].0)
}

fn by_cookie(service: &Service, question: &Parsed) -> Option<ServerAddr> {
    let wanted = service.balancing.sticky.as_ref()?;
    let key = sticky_key::given(wanted.key.as_ref()?);
    let servers = servers(service);
    let sticky = Sticky::new(wanted, &key, None, &service.name, servers.iter().map(|(addr, _)| *addr));
    Some(servers[sticky.server(&question.head.headers)?].0)
}
