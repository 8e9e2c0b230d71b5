//! What is known of a cluster: its objects, by kind, namespace and name. No I/O: [`super::watcher`] brings them here.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::objects::{
    EndpointSlice, GatewaySpec, HttpRouteSpec, IngressSpec, Object, Secret, ServiceSpec, TlsRouteSpec,
};

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Service,
    EndpointSlice,
    Ingress,
    Gateway,
    HttpRoute,
    TlsRoute,
    Secret,
}

/// Tells an object from others of its kind: namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

/// Objects as they are, or what is wrong with one: it could not be read.
pub type Known<T> = BTreeMap<Key, Result<T, String>>;

#[derive(Debug, Default)]
pub struct Cluster {
    pub services: Known<Object<ServiceSpec>>,
    pub slices: Known<EndpointSlice>,
    pub ingresses: Known<Object<IngressSpec>>,
    pub gateways: Known<Object<GatewaySpec>>,
    pub http_routes: Known<Object<HttpRouteSpec>>,
    pub tls_routes: Known<Object<TlsRouteSpec>>,
    pub secrets: Known<Secret>,
}

// === impl Kind ===

impl Kind {
    /// As documents call it, and people.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::EndpointSlice => "endpointslice",
            Self::Ingress => "ingress",
            Self::Gateway => "gateway",
            Self::HttpRoute => "httproute",
            Self::TlsRoute => "tlsroute",
            Self::Secret => "secret",
        }
    }

    /// As the API calls many of it.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Self::Service => "services",
            Self::EndpointSlice => "endpointslices",
            Self::Ingress => "ingresses",
            Self::Gateway => "gateways",
            Self::HttpRoute => "httproutes",
            Self::TlsRoute => "tlsroutes",
            Self::Secret => "secrets",
        }
    }

    /// Where the API has it: the versions that say what Weir reads, the best first.
    #[must_use]
    pub fn roots(self) -> &'static [&'static str] {
        match self {
            Self::Service | Self::Secret => &["/api/v1"],
            Self::EndpointSlice => &["/apis/discovery.k8s.io/v1"],
            Self::Ingress => &["/apis/networking.k8s.io/v1"],
            Self::Gateway | Self::HttpRoute => &["/apis/gateway.networking.k8s.io/v1"],
            Self::TlsRoute => &[
                "/apis/gateway.networking.k8s.io/v1",
                "/apis/gateway.networking.k8s.io/v1alpha3",
                "/apis/gateway.networking.k8s.io/v1alpha2",
            ],
        }
    }

    /// Whether every cluster has it. Gateway API is installed, or isn't.
    #[must_use]
    pub fn is_built_in(self) -> bool {
        !matches!(self, Self::Gateway | Self::HttpRoute | Self::TlsRoute)
    }
}

// === impl Key ===

impl Key {
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// Of an object as the API tells it.
    #[must_use]
    pub fn of(object: &Value) -> Option<Self> {
        let text = |field: &str| object["metadata"][field].as_str();
        Some(Self::new(text("namespace").unwrap_or_default(), text("name")?))
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

// === impl Cluster ===

impl Cluster {
    /// All there is of a kind, in one namespace or (`None`) in all, in the place of what was known there.
    pub fn replace(&mut self, kind: Kind, namespace: Option<&str>, objects: Vec<Value>) {
        let here = |key: &Key| namespace.is_none_or(|namespace| key.namespace == namespace);
        match kind {
            Kind::Service => self.services.retain(|key, _| !here(key)),
            Kind::EndpointSlice => self.slices.retain(|key, _| !here(key)),
            Kind::Ingress => self.ingresses.retain(|key, _| !here(key)),
            Kind::Gateway => self.gateways.retain(|key, _| !here(key)),
            Kind::HttpRoute => self.http_routes.retain(|key, _| !here(key)),
            Kind::TlsRoute => self.tls_routes.retain(|key, _| !here(key)),
            Kind::Secret => self.secrets.retain(|key, _| !here(key)),
        }
        for object in objects {
            self.put(kind, object);
        }
    }

    /// An object that is new, or has changed.
    pub fn put(&mut self, kind: Kind, object: Value) {
        let Some(key) = Key::of(&object) else { return };
        match kind {
            Kind::Service => _ = self.services.insert(key, read(object)),
            Kind::EndpointSlice => _ = self.slices.insert(key, read(object)),
            Kind::Ingress => _ = self.ingresses.insert(key, read(object)),
            Kind::Gateway => _ = self.gateways.insert(key, read(object)),
            Kind::HttpRoute => _ = self.http_routes.insert(key, read(object)),
            Kind::TlsRoute => _ = self.tls_routes.insert(key, read(object)),
            Kind::Secret => _ = self.secrets.insert(key, read(object)),
        }
    }

    pub fn remove(&mut self, kind: Kind, key: &Key) {
        match kind {
            Kind::Service => _ = self.services.remove(key),
            Kind::EndpointSlice => _ = self.slices.remove(key),
            Kind::Ingress => _ = self.ingresses.remove(key),
            Kind::Gateway => _ = self.gateways.remove(key),
            Kind::HttpRoute => _ = self.http_routes.remove(key),
            Kind::TlsRoute => _ = self.tls_routes.remove(key),
            Kind::Secret => _ = self.secrets.remove(key),
        }
    }

    /// Whether something of a kind is known, in one namespace or in any.
    #[must_use]
    pub fn has(&self, kind: Kind, namespace: Option<&str>) -> bool {
        fn any<T>(known: &Known<T>, namespace: Option<&str>) -> bool {
            known.keys().any(|key| namespace.is_none_or(|namespace| key.namespace == namespace))
        }
        match kind {
            Kind::Service => any(&self.services, namespace),
            Kind::EndpointSlice => any(&self.slices, namespace),
            Kind::Ingress => any(&self.ingresses, namespace),
            Kind::Gateway => any(&self.gateways, namespace),
            Kind::HttpRoute => any(&self.http_routes, namespace),
            Kind::TlsRoute => any(&self.tls_routes, namespace),
            Kind::Secret => any(&self.secrets, namespace),
        }
    }
}

fn read<T: DeserializeOwned>(object: Value) -> Result<T, String> {
    serde_json::from_value(object).map_err(|error| error.to_string())
}
