//! `health.drain_on` and `health.drain_header`

use http::{HeaderName, StatusCode};

use super::Item;
use crate::config::{
    code::Code,
    findings::Findings,
    model::DrainOn,
    value::quoted,
    written::{self, At},
};

pub fn of(item: &Item<'_, written::Service>, health: &written::Health, findings: &mut Findings) -> DrainOn {
    let statuses = health.drain_on.iter().flat_map(|list| &list.items);
    let statuses: Vec<_> = statuses.filter_map(|written| status(item, written, findings)).collect();
    let header = health.drain_header.as_ref().and_then(|written| header(item, written, findings));
    DrainOn { statuses, header }
}

fn status(
    item: &Item<'_, written::Service>,
    written: &At<String>,
    findings: &mut Findings,
) -> Option<StatusCode> {
    let status = written.value.parse().ok().filter(|status| (200..600).contains(status));
    let status = status.and_then(|status: u16| StatusCode::from_u16(status).ok());
    if status.is_none() {
        let (name, written_as) = (&item.name.value, quoted(&written.value));
        let message =
            format!("service `{name}`: health.drain_on {written_as} is not the status of an answer");
        findings
            .error(Code::OutOfRange, item.file, &written.span, message)
            .hint("it is a number from 200 to 599: `404`");
    }
    status
}

fn header(
    item: &Item<'_, written::Service>,
    written: &At<String>,
    findings: &mut Findings,
) -> Option<HeaderName> {
    let header = written.value.parse().ok();
    if header.is_none() {
        let (name, written_as) = (&item.name.value, quoted(&written.value));
        let message = format!("service `{name}`: health.drain_header {written_as} is not a header's name");
        findings
            .error(Code::BadHeader, item.file, &written.span, message)
            .hint("it is a name without a colon: `X-Drain`");
    }
    header
}
