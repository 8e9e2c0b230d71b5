//! One question to DNS.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
    proto::rr::{RData, RecordType, rdata::SRV},
};

use super::Answer;
use crate::config::model::{Dns, Found};

/// All that a name stands for: addresses of both families, or with `srv:` in front the servers of a service. And for how
/// long that holds.
///
/// # Errors
/// A sentence, when there is no answer, or none with addresses.
pub async fn lookup(dns: &Dns, name: &str) -> Result<(Answer, Duration), String> {
    // Made anew each time: that costs little at such a pace, and follows changes of /etc/resolv.conf and /etc/hosts.
    let resolver = resolver(dns)?;
    match name.strip_prefix("srv:") {
        Some(service) => {
            let (servers, ttl) = service_of(&resolver, service).await?;
            Ok((Answer::Servers(servers), ttl))
        }
        None => {
            let (addresses, ttl) = addresses(&resolver, name).await?;
            Ok((Answer::Addresses(addresses), ttl))
        }
    }
}

async fn addresses(resolver: &TokioResolver, name: &str) -> Result<(Vec<IpAddr>, Duration), String> {
    let answer = resolver.lookup_ip(name).await.map_err(|error| error.to_string())?;
    let ttl = answer.as_lookup().answers().iter().map(|record| record.ttl).min().unwrap_or_default();
    // What some DNS servers say instead of a name that they block is this host, and nobody's server.
    let addresses: Vec<IpAddr> =
        answer.iter().filter(|ip| !ip.is_unspecified() && !ip.is_multicast()).collect();
    if addresses.is_empty() {
        return Err("the answer holds no address".to_owned());
    }
    Ok((addresses, Duration::from_secs(ttl.into())))
}

/// What an SRV record says, with the addresses of its target.
struct Offer {
    priority: u16,
    weight: u16,
    port: u16,
    addresses: Vec<IpAddr>,
}

/// Targets that can't be resolved are left out as long as there are others.
async fn service_of(resolver: &TokioResolver, service: &str) -> Result<(Vec<Found>, Duration), String> {
    let answer = resolver.lookup(service, RecordType::SRV).await.map_err(|error| error.to_string())?;
    let mut ttl = Duration::MAX;
    let (mut offers, mut fault) = (Vec::new(), "the answer names no server".to_owned());
    for record in answer.answers() {
        let RData::SRV(offer) = &record.data else { continue };
        ttl = ttl.min(Duration::from_secs(record.ttl.into()));
        let target = offer.target.to_string();
        // By RFC 2782: there is decidedly no such service.
        if target == "." || offer.port == 0 {
            continue;
        }
        match addresses(resolver, &target).await {
            Ok((addresses, held)) => {
                ttl = ttl.min(held);
                let SRV { priority, weight, port, .. } = *offer;
                offers.push(Offer { priority, weight, port, addresses });
            }
            Err(why) => fault = format!("{target}: {why}"),
        }
    }
    if offers.is_empty() { Err(fault) } else { Ok((servers(&offers), ttl)) }
}

/// Priorities become tiers, weights become weights from 1 to 256.
fn servers(offers: &[Offer]) -> Vec<Found> {
    let priorities: BTreeSet<u16> = offers.iter().map(|offer| offer.priority).collect();
    let most = offers.iter().map(|offer| u32::from(offer.weight)).max().unwrap_or_default().max(256);
    let mut found = BTreeMap::new();
    for offer in offers {
        let tier = 1 + priorities.iter().take_while(|priority| **priority < offer.priority).count() as u32;
        // A weight of 0 means: hardly any.
        let weight = (u32::from(offer.weight) * 256).div_ceil(most).max(1);
        for address in &offer.addresses {
            let address = SocketAddr::new(*address, offer.port);
            // Offered twice, it counts where it comes first.
            let known = found.entry(address).or_insert(Found { tier, address, weight });
            if tier < known.tier {
                *known = Found { tier, address, weight };
            }
        }
    }
    found.into_values().collect()
}

fn resolver(dns: &Dns) -> Result<TokioResolver, String> {
    let mut builder = if dns.servers.is_empty() {
        TokioResolver::builder_tokio().map_err(|error| format!("/etc/resolv.conf can't be used: {error}"))?
    } else {
        let servers = dns.servers.iter().map(|addr| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = addr.port();
                connection
            });
            NameServerConfig::new(addr.ip(), true, connections.into())
        });
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        builder.options_mut().use_hosts_file = ResolveHosts::Never;
        builder
    };
    let options = builder.options_mut();
    options.timeout = dns.timeout;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    // The board is the cache.
    options.cache_size = 0;
    builder.build().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(priority: u16, weight: u16, address: &str) -> Offer {
        Offer { priority, weight, port: 80, addresses: vec![address.parse().unwrap()] }
    }

    fn found(offers: &[Offer]) -> Vec<(String, u32, u32)> {
        servers(offers).iter().map(|one| (one.address.ip().to_string(), one.tier, one.weight)).collect()
    }

    #[test]
    fn priorities_become_tiers_and_weights_keep_their_ratio() {
        let offers = [offer(20, 1, "10.0.0.3"), offer(5, 60, "10.0.0.1"), offer(5, 20, "10.0.0.2")];
        let expected =
            [("10.0.0.1".to_owned(), 1, 60), ("10.0.0.2".to_owned(), 1, 20), ("10.0.0.3".to_owned(), 2, 1)];
        assert_eq!(found(&offers), expected);
        let large = [offer(1, 65_535, "10.0.0.1"), offer(1, 32_768, "10.0.0.2"), offer(1, 0, "10.0.0.3")];
        let weights: Vec<_> = found(&large).into_iter().map(|(_, _, weight)| weight).collect();
        assert_eq!(weights, [256, 129, 1]);
    }

    #[test]
    fn a_server_that_is_offered_twice_counts_where_it_comes_first() {
        let offers = [offer(9, 7, "10.0.0.1"), offer(1, 3, "10.0.0.1")];
        assert_eq!(found(&offers), [("10.0.0.1".to_owned(), 1, 3)]);
    }
}
