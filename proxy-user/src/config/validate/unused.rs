//! Warnings: what is written but nothing uses, and entrypoints where nothing answers.

use super::merge::{Merged, Named};
use crate::config::{
    code::Code,
    default,
    findings::Findings,
    model::{
        AllowlistId, Carries, Config, EntrypointId, MadeOf, Middleware, MiddlewareId, MiddlewareKind, PageId,
        Service, ServiceId, StatusPages, WhenAllDown,
    },
};

pub fn warn(written: &Merged<'_>, config: &Config, findings: &mut Findings) {
    // With a fault somewhere, what looks unused may be what the faulty line would have used.
    if findings.failed() {
        return;
    }
    unused(&written.services, "no route or service leads to it", findings, |id| {
        let id = ServiceId(id);
        let asks =
            |one: &Middleware| matches!(&one.kind, MiddlewareKind::ForwardAuth(auth) if auth.service == id);
        let part_of = |one: &Service| one.made_of.iter().flat_map(MadeOf::parts).any(|part| part == id);
        config.routes.iter().any(|route| route.service == Some(id))
            || config.carried.iter().any(|route| route.service == id)
            || config.middleware.iter().any(asks)
            || config.services.iter().any(part_of)
            || config.pages.iter().any(|page| page.live.as_ref().is_some_and(|live| live.service == id))
    });
    unused(&written.middleware, "no route or entrypoint names it", findings, |id| {
        let id = MiddlewareId(id);
        config.routes.iter().any(|route| route.middleware.contains(&id))
            || config.entrypoints.iter().any(|entrypoint| entrypoint.middleware.contains(&id))
    });
    unused(&written.allowlists, "nothing refers to it", findings, |id| config.refers_to(AllowlistId(id)));
    unused(&written.pages, "no service, route or maintenance refers to it", findings, |id| {
        let id = PageId(id);
        let by_status = |pages: &StatusPages| pages.iter().any(|(_, page)| *page == id);
        // Those that have a part of their own are always there to be shown.
        matches!(&*config.pages[id.0].name, default::PAGE | default::ERROR_PAGE)
            || config
                .services
                .iter()
                .any(|service| service.when_all_down == WhenAllDown::Page(id) || by_status(&service.pages))
            || config.routes.iter().any(|route| by_status(&route.pages))
            || config.carried.iter().any(|route| route.on_outage == Some(id))
            || config.maintenance.iter().any(|one| one.page == id)
    });
    for (id, item) in written.entrypoints.items.iter().enumerate() {
        let carries = config.carried.iter().any(|route| route.is_at(EntrypointId(id)));
        if carries {
            continue;
        }
        if config.entrypoints[id].carries != Carries::Http {
            let message =
                format!("no route applies to entrypoint `{}`: every connection is closed", item.name.value);
            findings.warning(Code::NoRoute, item.file, &item.name.span, message).hint(format!(
                "add `[[route]]` with `entrypoint = \"{}\"` and `passthrough = \"…\"`",
                item.name.value
            ));
            continue;
        }
        let answered = config
            .routes
            .iter()
            .any(|route| route.entrypoints.is_empty() || route.entrypoints.contains(&EntrypointId(id)));
        // Whatever has no route is sent on.
        let redirected = config.entrypoints[id].redirect.is_some();
        if !answered && !redirected {
            let message =
                format!("no route applies to entrypoint `{}`: every request gets 404", item.name.value);
            findings
                .warning(Code::NoRoute, item.file, &item.name.span, message)
                .hint("add `[[route]]` with `service = \"…\"`");
        }
    }
}

fn unused<T>(section: &Named<'_, T>, why: &str, findings: &mut Findings, used: impl Fn(usize) -> bool) {
    for (id, item) in section.items.iter().enumerate() {
        if !used(id) {
            let message = format!("{} `{}` is never used: {why}", section.kind, item.name.value);
            findings.warning(Code::Unused, item.file, &item.name.span, message);
        }
    }
}
