//! One question to DNS.

use std::{net::IpAddr, time::Duration};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
};

use crate::config::model::Dns;

/// All addresses of a name, of both families, and for how long that holds.
///
/// # Errors
/// A sentence, when there is no answer, or none with addresses.
pub async fn lookup(dns: &Dns, name: &str) -> Result<(Vec<IpAddr>, Duration), String> {
    // Made anew each time: that costs little at such a pace, and follows changes of /etc/resolv.conf and /etc/hosts.
    let resolver = resolver(dns)?;
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
