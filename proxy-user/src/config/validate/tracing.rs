//! `[tracing]`

use super::{
    collector::{self, Keys, Paths},
    merge::Merged,
    scalar,
};
use crate::config::{
    default,
    findings::Findings,
    model::{Filter, ParentTrust, Tracing},
    written,
};

const PATHS: Paths =
    Paths { grpc: "/opentelemetry.proto.collector.trace.v1.TraceService/Export", http: "/v1/traces" };

pub fn tracing(written: &Merged<'_>, findings: &mut Findings) -> Option<Tracing> {
    let (file, section) = written.tracing?;
    let body = &section.value;
    let sample = scalar::share(
        file,
        "tracing.sample",
        body.sample.as_ref(),
        default::TRACE_SAMPLE,
        0..=Filter::ALL,
        findings,
    );
    let parent = match body.parent.as_ref().map(|parent| parent.value) {
        None | Some(written::Parent::Trusted) => ParentTrust::Trusted,
        Some(written::Parent::Always) => ParentTrust::Always,
        Some(written::Parent::Never) => ParentTrust::Never,
    };
    let keys = Keys {
        section: "tracing",
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
    Some(Tracing { collector, sample, parent })
}
