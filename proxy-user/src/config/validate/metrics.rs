//! `[metrics]`

use super::{
    collector::{self, Keys, Paths},
    merge::Merged,
    scalar::{self, HOUR, SECOND},
};
use crate::config::{default, findings::Findings, model::Metrics};

const PATHS: Paths =
    Paths { grpc: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", http: "/v1/metrics" };

pub fn metrics(written: &Merged<'_>, findings: &mut Findings) -> Option<Metrics> {
    let (file, section) = written.metrics?;
    let body = &section.value;
    let every = scalar::duration(
        file,
        "metrics.every",
        body.every.as_ref(),
        default::PUSH_EVERY,
        SECOND..=HOUR,
        findings,
    );
    let keys = Keys {
        section: "metrics",
        file,
        span: &section.span,
        endpoint: body.endpoint.as_ref(),
        protocol: body.protocol.as_ref(),
        service: body.service.as_ref(),
        attributes: &body.attributes,
        headers: &body.headers,
        timeout: body.timeout.as_ref(),
        ca: body.ca.as_ref(),
    };
    let collector = collector::collector(&keys, &PATHS, findings)?;
    Some(Metrics { collector, every })
}
