//! OTLP, as far as it is spoken here: how a collector is reached ([`client`]), how its messages are written ([`proto`]), and
//! what stands in every message, whatever it tells of. What spans are is known to `trace`, what metrics are to `metrics`.
//!
//! The numbers are those of `opentelemetry/proto/{common,resource}/v1/*.proto`.

pub mod client;
pub mod proto;

use crate::config::model::Collector;
use proto::Message;

/// Of a resource, the field that its attributes have.
const OF_RESOURCE: u32 = 1;

/// This host, as the `Resource` of what it tells.
pub fn resource(resource: &mut Message, collector: &Collector) {
    let host = nix::unistd::gethostname().ok().and_then(|host| host.into_string().ok());
    text(resource, OF_RESOURCE, "service.name", &collector.service);
    text(resource, OF_RESOURCE, "service.version", env!("CARGO_PKG_VERSION"));
    text(resource, OF_RESOURCE, "host.name", &host.unwrap_or_default());
    number(resource, OF_RESOURCE, "process.pid", i64::from(std::process::id()));
    for (name, value) in &collector.attributes {
        text(resource, OF_RESOURCE, name, value);
    }
}

/// What has measured: the `InstrumentationScope`.
pub fn scope(scope: &mut Message) {
    scope.text(1, "weir");
    scope.text(2, env!("CARGO_PKG_VERSION"));
}

/// An attribute. Its field depends on whose it is.
pub fn text(into: &mut Message, field: u32, name: &str, value: &str) {
    into.message(field, |attribute| {
        attribute.text(1, name);
        attribute.message(2, |any| any.text(1, value));
    });
}

pub fn number(into: &mut Message, field: u32, name: &str, value: i64) {
    into.message(field, |attribute| {
        attribute.text(1, name);
        attribute.message(2, |any| any.number(3, value));
    });
}

pub fn flag(into: &mut Message, field: u32, name: &str, value: bool) {
    into.message(field, |attribute| {
        attribute.text(1, name);
        attribute.message(2, |any| any.number(2, i64::from(value)));
    });
}
