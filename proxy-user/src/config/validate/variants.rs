//! Services that are made of services: `split`, `failover` and `mirror`, in `[service.NAME]` and in routes.

use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};

use super::{
    balancing,
    merge::{Item, Merged},
    retry,
    scalar::{self, HOUR, MILLISECOND, MINUTE, SECOND},
};
use crate::config::{
    code::Code,
    default,
    findings::Findings,
    model::{
        Balancing, Judge, MadeOf, Mirror, Offload, PageId, Pool, ServerProtocol, Service, ServiceId,
        SourceAddress, Split, Timeouts, WhenAllDown,
    },
    parse,
    source::FileId,
    value::{self, quoted},
    written::{self, At, List, Name},
};

/// Services within services, at most.
const DEEPEST: usize = 8;

const MOST_VARIANTS: usize = 64;
const HEAVIEST: i64 = 10_000;

/// Where something stands, and what it is called in messages: "service `shop`", "route `shop`".
#[derive(Clone, Copy)]
struct Site<'s> {
    file: FileId,
    by: &'s str,
    written: &'s Merged<'s>,
}

/// Whether it is written with other services in the place of servers.
pub fn is_composite(body: &written::Service) -> bool {
    body.split.is_some() || body.failover.is_some() || body.service.is_some() || body.mirror.is_some()
}

/// What a service is made of; `None` where it has servers, or is faulty.
pub fn of_service(
    item: &Item<'_, written::Service>,
    written: &Merged<'_>,
    findings: &mut Findings,
) -> Option<MadeOf> {
    let by = format!("service `{}`", item.name.value);
    let site = Site { file: item.file, by: &by, written };
    let body = item.body;
    if body.split.is_none() && !findings.lost(&format!("service.{}.split", item.name.value)) {
        beside_no_split(site, body, findings);
    }
    let places = [
        ("servers", body.servers.as_ref().map(|one| &one.span)),
        ("split", body.split.as_ref().map(|one| &one.span)),
        ("failover", body.failover.as_ref().map(|one| &one.span)),
        ("service", body.service.as_ref().map(|one| &one.span)),
    ];
    let mut places = places.iter().filter_map(|(key, span)| Some((*key, (*span)?)));
    if let (Some((first, at)), Some((second, span))) = (places.next(), places.next()) {
        let message = format!("{by} has both `{first}` and `{second}`");
        findings
            .error(Code::Contradiction, item.file, span, message)
            .related(item.file, at, "the other one")
            .hint("each says where requests go: a service made of both is two services, one of which names the other");
        return None;
    }
    if is_composite(body) {
        no_settings_of_servers(site, body, findings);
    }
    match (&body.split, &body.failover, &body.service, &body.mirror) {
        (Some(split), ..) => {
            if let Some(mirror) = &body.mirror {
                let hint =
                    "write the split as a service of its own, and name it in `service` beside `mirror`";
                contradiction(site, &mirror.span, "`mirror` and `split`", hint, findings);
            }
            let judge = body.judge.as_ref();
            let sticky = balancing::sticky_of_split(item.file, &by, body.sticky.as_ref(), findings);
            self::split(site, split, sticky.as_ref(), body.fall_over.as_ref(), judge, findings)
                .map(MadeOf::Split)
        }
        (_, Some(list), ..) => failover(site, list, findings),
        (_, _, Some(service), Some(mirror)) => {
            let service = refer(site, service, "sends to", findings);
            self::mirror(site, service, mirror, findings).map(MadeOf::Mirror)
        }
        (_, _, Some(service), None) => {
            let message = format!("{by} leads to another service, and does nothing else");
            findings
                .error(Code::Missing, item.file, &service.span, message)
                .hint("`service` stands beside `mirror = { to = \"…\" }`");
            None
        }
        (_, _, None, Some(mirror)) => {
            let message = format!("{by} mirrors, but has no `service` that answers");
            findings
                .error(Code::Missing, item.file, &mirror.span, message)
                .hint("write what answers: `service = \"app\"`");
            None
        }
        (None, None, None, None) => None,
    }
}

/// Settings of a split without one.
fn beside_no_split(site: Site<'_>, body: &written::Service, findings: &mut Findings) {
    let keys = [
        ("fall_over", body.fall_over.as_ref().map(|one| &one.span)),
        ("judge", body.judge.as_ref().map(|one| &one.span)),
    ];
    for (key, span) in keys {
        let Some(span) = span else { continue };
        let message = format!("{} has `{key}` without `split`", site.by);
        findings
            .error(Code::Contradiction, site.file, span, message)
            .hint("it belongs to a service that is split into others");
    }
}

/// Each part has its own; here they would do nothing.
fn no_settings_of_servers(site: Site<'_>, body: &written::Service, findings: &mut Findings) {
    let of_a_split = body.split.is_some();
    let keys = [
        ("balance", body.balance.as_ref().map(|one| &one.span)),
        ("hash_by", body.hash_by.as_ref().map(|one| &one.span)),
        ("hash_bound", body.hash_bound.as_ref().map(|one| &one.span)),
        ("sticky", body.sticky.as_ref().filter(|_| !of_a_split).map(|one| &one.span)),
        ("slow_start", body.slow_start.as_ref().map(|one| &one.span)),
        ("tier_spill", body.tier_spill.as_ref().map(|one| &one.span)),
        ("zone_spill", body.zone_spill.as_ref().map(|one| &one.span)),
        ("tls", body.tls.as_ref().map(|one| &one.span)),
        ("protocol", body.protocol.as_ref().map(|one| &one.span)),
        ("send_proxy", body.send_proxy.as_ref().map(|one| &one.span)),
        ("offload", body.offload.as_ref().map(|one| &one.span)),
        ("source", body.source.as_ref().map(|one| &one.span)),
        ("health", body.health.as_ref().map(|one| &one.span)),
        ("pool", body.pool.as_ref().map(|one| &one.span)),
        ("eject", body.eject.as_ref().map(|one| &one.span)),
        ("breaker", body.breaker.as_ref().map(|one| &one.span)),
        ("panic", body.panic.as_ref().map(|one| &one.span)),
        ("timeouts", body.timeouts.as_ref().map(|one| &one.span)),
        ("retry", body.retry.as_ref().map(|one| &one.span)),
        ("hedge", body.hedge.as_ref().map(|one| &one.span)),
        ("when_all_down", body.when_all_down.as_ref().map(|one| &one.span)),
    ];
    for (key, span) in keys {
        let Some(span) = span else { continue };
        let message = format!("{} is made of other services, and has `{key}`", site.by);
        findings
            .error(Code::Contradiction, site.file, span, message)
            .hint("it is a setting of services with servers: write it there");
    }
}

fn contradiction(site: Site<'_>, span: &Range<usize>, both: &str, hint: &str, findings: &mut Findings) {
    let message = format!("{} has both {both}", site.by);
    findings.error(Code::Contradiction, site.file, span, message).hint(hint);
}

fn refer(site: Site<'_>, name: &At<String>, does: &str, findings: &mut Findings) -> Option<ServiceId> {
    let by = format!("{} {does}", site.by);
    site.written.services.refer(site.file, name, &by, Code::NoSuchService, findings).map(ServiceId)
}

fn split(
    site: Site<'_>,
    split: &At<BTreeMap<Name, At<i64>>>,
    sticky: Option<&At<String>>,
    fall_over: Option<&At<bool>>,
    judge: Option<&At<written::Judge>>,
    findings: &mut Findings,
) -> Option<Split> {
    let before = findings.count();
    let mut written: Vec<_> = split.value.iter().collect();
    written.sort_by_key(|(name, _)| name.span.start);
    let mut variants = Vec::new();
    for (name, weight) in written {
        let id = refer(site, name, "is split into", findings);
        if !(0..=HEAVIEST).contains(&weight.value) {
            let message = format!("{}: the weight of {} is `{}`", site.by, quoted(&name.value), weight.value);
            findings
                .error(Code::BadWeights, site.file, &weight.span, message)
                .hint(format!("it is a whole number from 0 to {HEAVIEST}"));
        }
        variants.extend(id.map(|id| (id, u32::try_from(weight.value).unwrap_or_default())));
    }
    let sound = findings.count() == before && !findings.found_within(site.file, &split.span);
    if sound && (variants.iter().all(|(_, weight)| *weight == 0) || variants.len() > MOST_VARIANTS) {
        let message = match variants.len() {
            0 => format!("{} is split into nothing", site.by),
            1..=MOST_VARIANTS => format!("{}: all weights of the split are 0", site.by),
            many => format!("{} is split into {many} services", site.by),
        };
        findings
            .error(Code::BadWeights, site.file, &split.span, message)
            .hint("write for instance `split = { app = 20, old = 80 }`, with 1 to 64 services");
    }
    let sticky = sticky.and_then(|sticky| cookie(site, sticky, findings));
    let judge = judge.and_then(|judge| self::judge(site, judge, &variants, findings));
    let fall_over = fall_over.is_none_or(|fall_over| fall_over.value);
    (findings.count() == before).then_some(Split { variants, sticky, fall_over, judge })
}

/// The cookie's name.
fn cookie(site: Site<'_>, sticky: &At<String>, findings: &mut Findings) -> Option<Arc<str>> {
    if sticky.value == "cookie" {
        let subject = site.by.split_once('`').map_or(site.by, |(_, name)| name.trim_end_matches('`'));
        let name: String = subject.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        return Some(format!("weir_{name}").into());
    }
    if let Some(name) = sticky.value.strip_prefix("cookie:")
        && value::name(name).is_ok()
    {
        return Some(name.into());
    }
    let message = format!("{}: sticky is {}, which names no cookie", site.by, quoted(&sticky.value));
    findings.error(Code::BadStick, site.file, &sticky.span, message).hint("write `cookie`, or `cookie:NAME`");
    None
}

fn judge(
    site: Site<'_>,
    judge: &At<written::Judge>,
    variants: &[(ServiceId, u32)],
    findings: &mut Findings,
) -> Option<Judge> {
    let (file, body) = (site.file, &judge.value);
    let what = |key: &str| format!("{}: judge.{key}", site.by);
    if variants.len() != 2 {
        let message = format!("{} has a judge, but not two variants", site.by);
        findings
            .error(Code::Contradiction, file, &judge.span, message)
            .hint("it judges the new one by the old one");
        return None;
    }
    let variant = match &body.variant {
        Some(name) => {
            let id = refer(site, name, "judges", findings)?;
            if !variants.iter().any(|(known, _)| *known == id) {
                let message =
                    format!("{} judges {}, which is none of its variants", site.by, quoted(&name.value));
                findings.error(Code::NoSuchService, file, &name.span, message);
                return None;
            }
            id
        }
        None if findings.found_within(file, &judge.span) => return None,
        None => {
            findings
                .error(Code::Missing, file, &judge.span, format!("{}: `judge` has no `variant`", site.by))
                .hint("write which of the two is new: `variant = \"app-next\"`");
            return None;
        }
    };
    let (min, points) = (body.min_samples.as_ref(), 0..=10_000);
    Some(Judge {
        variant,
        steps: steps(site, body.steps.as_ref(), findings),
        every: scalar::duration(
            file,
            &what("every"),
            body.every.as_ref(),
            default::JUDGE_EVERY,
            SECOND..=720 * HOUR,
            findings,
        ),
        margin_errors: scalar::share(
            file,
            &what("margin_errors"),
            body.margin_errors.as_ref(),
            default::JUDGE_MARGIN_ERRORS,
            points,
            findings,
        ),
        margin_latency: scalar::share(
            file,
            &what("margin_latency"),
            body.margin_latency.as_ref(),
            default::JUDGE_MARGIN_LATENCY,
            0..=100_000,
            findings,
        ),
        confidence: scalar::share(
            file,
            &what("confidence"),
            body.confidence.as_ref(),
            default::JUDGE_CONFIDENCE,
            5_000..=9_999,
            findings,
        ),
        min_samples: scalar::count(
            file,
            &what("min_samples"),
            min,
            default::JUDGE_MIN_SAMPLES,
            10..=1_000_000_000,
            findings,
        )
        .into(),
    })
}

fn steps(site: Site<'_>, list: Option<&List>, findings: &mut Findings) -> Vec<u32> {
    let Some(list) = list else {
        return default::JUDGE_STEPS.iter().filter_map(|step| step.parse().ok()).collect();
    };
    let steps: Option<Vec<u32>> =
        list.items.iter().map(|step| step.value.trim_end_matches('%').parse().ok()).collect();
    match steps.map(value::judge_steps) {
        Some(Ok(steps)) => steps,
        _ => {
            let message = format!("{}: judge.steps are not steps", site.by);
            findings
                .error(Code::WrongValue, site.file, &list.span, message)
                .hint("they rise from 1 to 100, and the first is below 100: `steps = [\"1\", \"10\", \"50\", \"100\"]`");
            Vec::new()
        }
    }
}

fn failover(site: Site<'_>, list: &List, findings: &mut Findings) -> Option<MadeOf> {
    if list.items.is_empty() && !findings.found_within(site.file, &list.span) {
        let message = format!("{}: `failover` is an empty list", site.by);
        findings
            .error(Code::EmptyList, site.file, &list.span, message)
            .hint("name services: `failover = [\"app\", \"app-elsewhere\"]`");
        return None;
    }
    let mut parts: Vec<(ServiceId, &At<String>)> = Vec::new();
    for name in &list.items {
        let Some(id) = refer(site, name, "falls over to", findings) else { continue };
        if let Some((_, first)) = parts.iter().find(|(known, _)| *known == id) {
            let message = format!("{}: {} is listed twice", site.by, quoted(&name.value));
            findings
                .error(Code::Contradiction, site.file, &name.span, message)
                .related(site.file, &first.span, "first listed here")
                .hint("take one of the two out");
            continue;
        }
        parts.push((id, name));
    }
    Some(MadeOf::Failover(parts.into_iter().map(|(id, _)| id).collect()))
}

fn mirror(
    site: Site<'_>,
    service: Option<ServiceId>,
    mirror: &At<written::Mirror>,
    findings: &mut Findings,
) -> Option<Mirror> {
    let (file, body) = (site.file, &mirror.value);
    let what = |key: &str| format!("{}: mirror.{key}", site.by);
    let share =
        scalar::share(file, &what("share"), body.share.as_ref(), default::MIRROR_SHARE, 1..=10_000, findings);
    let limit = body.body_limit.as_ref();
    let body_limit =
        scalar::size(file, &what("body_limit"), limit, default::MIRROR_BODY, 0..=16 << 20, findings);
    let at_once = body.at_once.as_ref();
    let at_once =
        scalar::count(file, &what("at_once"), at_once, default::MIRROR_AT_ONCE, 1..=10_000, findings);
    let timeout = scalar::duration(
        file,
        &what("timeout"),
        body.timeout.as_ref(),
        default::MIRROR_TIMEOUT,
        10 * MILLISECOND..=5 * MINUTE,
        findings,
    );
    let Some(to) = &body.to else {
        if !findings.found_within(file, &mirror.span) {
            findings
                .error(Code::Missing, file, &mirror.span, format!("{}: `mirror` has no `to`", site.by))
                .hint("write which service gets the copies: `to = \"app-next\"`");
        }
        return None;
    };
    let (id, service) = (refer(site, to, "is mirrored to", findings)?, service?);
    if id == service {
        let message = format!("{} is mirrored to the service that answers", site.by);
        findings
            .error(Code::Contradiction, file, &to.span, message)
            .hint("every request would be carried out twice: name another service");
        return None;
    }
    let at_once = at_once as usize;
    Some(Mirror { service, to: id, share, body_limit, at_once, timeout })
}

// === in routes ===

/// The services that routes write down themselves. They come behind those with a section of their own.
pub struct OfRoutes<'w, 'a> {
    written: &'w Merged<'a>,
    all: Vec<Service>,
}

impl<'w, 'a> OfRoutes<'w, 'a> {
    pub fn new(written: &'w Merged<'a>) -> Self {
        Self { written, all: Vec::new() }
    }

    pub fn into_all(self) -> Vec<Service> {
        self.all
    }

    /// Where a route leads; `service` is what it names itself. `None` where that is nowhere, or faulty.
    pub fn lead(
        &mut self,
        file: FileId,
        name: &str,
        route: &At<written::Route>,
        service: Option<ServiceId>,
        findings: &mut Findings,
    ) -> Option<ServiceId> {
        let by = format!("route {}", quoted(name));
        let site = Site { file, by: &by, written: self.written };
        let (body, mut service) = (&route.value, service);
        if let Some(split) = &body.split {
            if let Some(service) = &body.service {
                let hint = "a route leads to one service, or is split into several";
                contradiction(site, &service.span, "`service` and `split`", hint, findings);
                return None;
            }
            let sticky = body.sticky.as_ref();
            let made_of = self::split(site, split, sticky, body.fall_over.as_ref(), None, findings)?;
            self.is_free(site, name, &split.span, findings);
            service = Some(self.add(name, MadeOf::Split(made_of)));
        } else if !findings.lost(&format!("{}.split", parse::element("route", file, route.span.start))) {
            for (key, span) in [
                ("sticky", body.sticky.as_ref().map(|one| &one.span)),
                ("fall_over", body.fall_over.as_ref().map(|one| &one.span)),
            ] {
                let Some(span) = span else { continue };
                findings
                    .error(Code::Contradiction, file, span, format!("{by} has `{key}` without `split`"))
                    .hint("it belongs to a route, or a service, that is split");
            }
        }
        let Some(mirror) = &body.mirror else { return service };
        let made_of = self::mirror(site, service, mirror, findings)?;
        let name = if body.split.is_some() { format!("{name} mirror") } else { name.to_owned() };
        self.is_free(site, &name, &mirror.span, findings);
        Some(self.add(&name, MadeOf::Mirror(made_of)))
    }

    /// By its name it is found in `weir split`, and what is kept of it too.
    fn is_free(&self, site: Site<'_>, name: &str, span: &Range<usize>, findings: &mut Findings) {
        let taken = site.written.services.id(name).is_some();
        if taken || self.all.iter().any(|known| *known.name == *name) {
            let message = format!("{} would make a second service {}", site.by, quoted(name));
            findings.error(Code::DefinedTwice, site.file, span, message).hint(
                "a split or a mirror in a route is a service of the route's name: call the route otherwise",
            );
        }
    }

    fn add(&mut self, name: &str, made_of: MadeOf) -> ServiceId {
        let timeout = |default| value::duration(default).unwrap_or_default();
        self.all.push(Service {
            name: name.into(),
            servers: Vec::new(),
            balancing: Balancing::default(),
            made_of: Some(made_of),
            tls: None,
            protocol: ServerProtocol::Auto,
            send_proxy: None,
            offload: Offload::Auto,
            source: SourceAddress::Replace,
            health: None,
            eject: None,
            breaker: None,
            panic: 0,
            timeouts: Timeouts {
                connect: timeout(default::CONNECT),
                first_byte: timeout(default::FIRST_BYTE),
                unacknowledged: timeout(default::UNACKNOWLEDGED),
                idle: timeout(default::PASSTHROUGH_IDLE),
                lifetime: None,
            },
            retry: retry::by_default(),
            hedge: None,
            // It has no connections of its own.
            pool: Pool { warm: 0, idle: 0, idle_timeout: Duration::ZERO },
            when_all_down: WhenAllDown::Page(PageId(
                self.written.pages.id(default::PAGE).unwrap_or_default(),
            )),
            // Each of its services has pages of its own.
            pages: Vec::new(),
        });
        ServiceId(self.written.services.items.len() + self.all.len() - 1)
    }
}

// === of all together ===

/// Every service ends at servers, and not too deep.
pub fn lead_somewhere(written: &Merged<'_>, services: &[Service], findings: &mut Findings) {
    let mut depths = vec![None; services.len()];
    let mut told = vec![false; services.len()];
    for (id, item) in written.services.items.iter().enumerate() {
        let mut path = Vec::new();
        if let Err(circle) = depth(services, id, &mut depths, &mut path) {
            // Each circle is one fault, however many of its members are looked at.
            if !circle.contains(&id)
                || circle.iter().any(|member| std::mem::replace(&mut told[*member], true))
            {
                continue;
            }
            let names: Vec<_> = circle.iter().chain([&circle[0]]).map(|id| &*services[*id].name).collect();
            let message = format!("service `{}` leads to itself: {}", item.name.value, names.join(" → "));
            findings
                .error(Code::ServiceCycle, item.file, &item.name.span, message)
                .hint("a service is made of others, which end at servers");
        } else if depths[id] == Some(DEEPEST + 1) {
            let message = format!("service `{}` is more than {DEEPEST} services deep", item.name.value);
            findings.error(Code::ServiceCycle, item.file, &item.name.span, message);
        }
    }
}

/// How many services deep; or the circle that it leads into.
fn depth(
    services: &[Service],
    id: usize,
    depths: &mut [Option<usize>],
    path: &mut Vec<usize>,
) -> Result<usize, Vec<usize>> {
    if let Some(known) = depths[id] {
        return Ok(known);
    }
    if let Some(begin) = path.iter().position(|known| *known == id) {
        return Err(path[begin..].to_vec());
    }
    path.push(id);
    let mut deepest = 0;
    for part in services[id].made_of.iter().flat_map(MadeOf::parts) {
        // A name that leads nowhere was reported already.
        if part.0 < services.len() {
            deepest = deepest.max(depth(services, part.0, depths, path)?);
        }
    }
    path.pop();
    depths[id] = Some(deepest + 1);
    Ok(deepest + 1)
}
