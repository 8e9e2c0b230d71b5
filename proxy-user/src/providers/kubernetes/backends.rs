//! Services that routes lead to → `[service.NAME]`, with the endpoints that are ready as servers.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    cluster::{Cluster, Key, Kind},
    objects::{EndpointSlice, Object, ServicePort, ServiceSpec},
    words,
};
use crate::providers::composed::{Composed, Section, Server, safe_name};

/// What a service is wanted for. Each way has a section of its own, since they take different settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    Http,
    Passthrough,
}

/// Which port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Port {
    Number(u16),
    Name(String),
}

/// Gathers the services that routes ask for.
pub struct Backends<'a> {
    provider: &'a str,
    cluster: &'a Cluster,
    external_names: bool,
    /// By Service.
    slices: BTreeMap<Key, Vec<&'a EndpointSlice>>,
    sections: BTreeMap<Key, BTreeMap<String, Section>>,
    faults: BTreeSet<(Key, String)>,
    /// Some route leads to nobody.
    nobody: bool,
}

/// The service of rules that can't be served: it has no servers, so they get a page.
const NOBODY: &str = "nobody";

impl<'a> Backends<'a> {
    pub fn new(provider: &'a str, cluster: &'a Cluster, external_names: bool) -> Self {
        let mut slices = BTreeMap::<_, Vec<_>>::new();
        for (key, slice) in &cluster.slices {
            let Ok(slice) = slice else { continue };
            let Some(service) = slice.metadata.labels.get("kubernetes.io/service-name") else { continue };
            slices.entry(Key::new(&key.namespace, service)).or_default().push(slice);
        }
        let (sections, faults) = (BTreeMap::new(), BTreeSet::new());
        Self { provider, cluster, external_names, slices, sections, faults, nobody: false }
    }

    /// What the service for one port of a Service is called, or why there is none.
    pub fn service(&mut self, key: &Key, port: &Port, way: Way) -> Result<String, String> {
        let service = match self.cluster.services.get(key) {
            Some(Ok(service)) => service,
            Some(Err(why)) => return Err(format!("service `{key}` can't be read: {why}")),
            None => return Err(format!("there is no service `{key}`")),
        };
        let port = match find(&service.spec.ports, port) {
            Some(port) => port,
            // Such a Service need not say its ports.
            None if service.spec.r#type == "ExternalName" => match port {
                Port::Number(number) => &ServicePort { port: *number, ..ServicePort::default() },
                Port::Name(name) => return Err(format!("service `{key}` has no port `{name}`")),
            },
            None => return Err(format!("service `{key}` has no port {}", shown(port))),
        };
        let name = match way {
            Way::Http => self.name(key, &[&port.port.to_string()]),
            Way::Passthrough => self.name(key, &[&port.port.to_string(), "tls"]),
        };
        if !self.sections.get(key).is_some_and(|sections| sections.contains_key(&name)) {
            let section = self.section(&name, key, service, port, way)?;
            self.sections.entry(key.clone()).or_default().insert(name.clone(), section);
        }
        Ok(name)
    }

    /// What something made of an object is called. Another provider's cluster may have an object of that name too.
    #[must_use]
    pub fn name(&self, key: &Key, more: &[&str]) -> String {
        safe_name(&[&[self.provider, &key.namespace, &key.name], more].concat())
    }

    /// A service that has no server, whoever asks.
    pub fn nobody(&mut self) -> String {
        self.nobody = true;
        safe_name(&[self.provider, NOBODY])
    }

    fn section(
        &mut self,
        name: &str,
        key: &Key,
        service: &Object<ServiceSpec>,
        port: &ServicePort,
        way: Way,
    ) -> Result<Section, String> {
        if !matches!(&*port.protocol, "" | "TCP") {
            return Err(format!("port {} of service `{key}` is one of {}", port.port, port.protocol));
        }
        let servers = if service.spec.r#type == "ExternalName" {
            vec![self.external(key, &service.spec.external_name, port.port)?]
        } else {
            self.ready(key, service, port)
        };
        let mut section = Section::service(name, servers);
        if way == Way::Http {
            match port.app_protocol.as_deref() {
                Some("kubernetes.io/h2c") => section.set("protocol", "http2"),
                Some("https") if !service.metadata.annotations.contains_key("weir/tls.server_name") => {
                    let why = "its `appProtocol` is https: the annotation `weir/tls.server_name` says whom its \
                               certificates name";
                    return Err(format!("port {} of service `{key}` can't be served: {why}", port.port));
                }
                _ => {}
            }
            for fault in words::of_service(&service.metadata.annotations, &mut section) {
                self.faults.insert((key.clone(), fault));
            }
        }
        Ok(section)
    }

    fn external(&self, key: &Key, name: &str, port: u16) -> Result<Server, String> {
        if !self.external_names {
            return Err(format!(
                "service `{key}` is an ExternalName, which could be any name that this host reaches: `external_names = \
                 true` of the provider allows it"
            ));
        }
        let name = name.trim_end_matches('.');
        if name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok() {
            return Err(format!("service `{key}` is an ExternalName for `{name}`, which is no name in DNS"));
        }
        Ok(Server::at(format!("{name}:{port}")))
    }

    /// The endpoints that are ready; where none is, those that end but serve on meanwhile.
    fn ready(&self, key: &Key, service: &Object<ServiceSpec>, port: &ServicePort) -> Vec<Server> {
        let slices = self.slices.get(key).map(Vec::as_slice).unwrap_or_default();
        let of_family = |family: &str| slices.iter().any(|slice| slice.address_type == family);
        // A Pod with two families is in two slices, and one server all the same.
        let family = match service.spec.ip_families.first().map(String::as_str) {
            Some(family) if of_family(family) => family,
            _ if of_family("IPv4") => "IPv4",
            _ => "IPv6",
        };
        let (mut ready, mut serving) = (Vec::new(), Vec::new());
        for slice in slices.iter().filter(|slice| slice.address_type == family) {
            let wanted = |name: &Option<String>| name.as_deref().unwrap_or_default() == port.name;
            let Some(number) = slice.ports.iter().find(|one| wanted(&one.name)).and_then(|one| one.port)
            else {
                continue;
            };
            for endpoint in &slice.endpoints {
                // All addresses of one are the same Pod's.
                let Some(address) = endpoint.addresses.first().and_then(|text| reachable(text)) else {
                    continue;
                };
                let server = Server::at(std::net::SocketAddr::new(address, number).to_string());
                match endpoint.conditions.ready {
                    Some(false) if endpoint.conditions.serving == Some(true) => serving.push(server),
                    Some(false) => {}
                    Some(true) | None => ready.push(server),
                }
            }
        }
        if ready.is_empty() { serving } else { ready }
    }

    /// All that were asked for, each Service as a document.
    pub fn write(self, composed: &mut Composed) {
        for (key, sections) in self.sections {
            for section in sections.into_values() {
                composed.add(&document(Kind::Service, &key), section);
            }
        }
        for (key, fault) in self.faults {
            composed.fault(&document(Kind::Service, &key), fault);
        }
        if self.nobody {
            composed.add("nobody", Section::service(safe_name(&[self.provider, NOBODY]), []));
        }
    }
}

/// What the document of an object is called.
#[must_use]
pub fn document(kind: Kind, key: &Key) -> String {
    format!("{}/{key}", kind.word())
}

fn find<'a>(ports: &'a [ServicePort], wanted: &Port) -> Option<&'a ServicePort> {
    ports.iter().find(|port| match wanted {
        Port::Number(number) => port.port == *number,
        Port::Name(name) => port.name == *name,
    })
}

fn shown(port: &Port) -> String {
    match port {
        Port::Number(number) => number.to_string(),
        Port::Name(name) => format!("`{name}`"),
    }
}

/// Whoever may write EndpointSlices must not get at what listens on this host alone, or beside it.
fn reachable(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.parse().ok()?;
    let address = address.to_canonical();
    let local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    (!local && !address.is_loopback() && !address.is_unspecified() && !address.is_multicast())
        .then_some(address)
}
