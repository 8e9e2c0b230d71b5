//! Builds the running form of all services, those first that others are made of; and takes over what the last snapshot
//! counted and what was decided at run time.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    MadeOf,
    memory::Memory,
    mirror::Mirror,
    split::{Split, Sticky, Variant},
};
use crate::{
    config::model::{self, Config, ServiceId},
    middleware::concurrency::Room,
    service::Service,
};

/// All services of `config`, in its order. `alone` makes each without what it is made of; `before` are the services until now.
///
/// # Errors
/// Those of `alone`.
pub fn all<Fault>(
    config: &Config,
    memory: &Memory,
    before: &[Arc<Service>],
    alone: impl Fn(&model::Service) -> Result<Service, Fault>,
) -> Result<Vec<Arc<Service>>, Fault> {
    let mut built = vec![None; config.services.len()];
    for id in 0..built.len() {
        one(ServiceId(id), config, memory, before, &alone, &mut built)?;
    }
    Ok(built.into_iter().flatten().collect())
}

fn one<Fault>(
    id: ServiceId,
    config: &Config,
    memory: &Memory,
    before: &[Arc<Service>],
    alone: &impl Fn(&model::Service) -> Result<Service, Fault>,
    built: &mut [Option<Arc<Service>>],
) -> Result<Arc<Service>, Fault> {
    if let Some(known) = &built[id.0] {
        return Ok(known.clone());
    }
    let written = &config.services[id.0];
    let mut service = alone(written)?;
    if let Some(made_of) = &written.made_of {
        // In the order of `MadeOf::parts`. The configuration has no circles.
        let parts = made_of.parts().into_iter().map(|part| one(part, config, memory, before, alone, built));
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        let known = before.iter().find(|known| known.name == written.name);
        let known = known.and_then(|known| known.made_of.as_ref());
        service.made_of = Some(self::made_of(&written.name, made_of, parts, memory, known));
    }
    let service = Arc::new(service);
    built[id.0] = Some(service.clone());
    Ok(service)
}

fn made_of(
    name: &Arc<str>,
    written: &model::MadeOf,
    parts: Vec<Arc<Service>>,
    memory: &Memory,
    known: Option<&MadeOf>,
) -> MadeOf {
    match written {
        model::MadeOf::Split(written) => MadeOf::Split(split(name, written, parts, memory, known)),
        model::MadeOf::Failover(_) => MadeOf::Failover(parts.into()),
        model::MadeOf::Mirror(written) => {
            let known = match known {
                Some(MadeOf::Mirror(known)) => Some(known),
                _ => None,
            };
            let [service, to] = [&parts[0], &parts[1]].map(Arc::clone);
            MadeOf::Mirror(Mirror {
                service,
                to,
                share: written.share,
                body_limit: written.body_limit,
                timeout: written.timeout,
                room: known
                    .map_or_else(|| Room::new(written.at_once), |known| known.room.with(written.at_once)),
                counters: known.map(|known| known.counters.clone()).unwrap_or_default(),
            })
        }
    }
}

fn split(
    name: &Arc<str>,
    written: &model::Split,
    parts: Vec<Arc<Service>>,
    memory: &Memory,
    known: Option<&MadeOf>,
) -> Split {
    let known = match known {
        Some(MadeOf::Split(known)) => Some(known),
        _ => None,
    };
    let variants = parts.into_iter().map(|service| {
        let known = known.and_then(|known| known.variant(&service.name));
        Variant { figures: known.map(|known| known.figures.clone()).unwrap_or_default(), service }
    });
    let configured = written.variants.iter().map(|(_, weight)| *weight).collect();
    let sticky = written.sticky.as_ref().map(|cookie| Sticky { cookie: cookie.clone(), key: memory.key() });
    let split = Split::new(name.clone(), variants.collect(), configured, sticky, written.fall_over);
    if let Some(weights) = memory.of(name).and_then(|kept| kept.weights) {
        split.set(fitting(&split, &weights));
    }
    split
}

/// Weights by name in the order of the variants; `None`, if they aren't those of just these variants.
pub fn fitting(split: &Split, weights: &BTreeMap<String, u32>) -> Option<Box<[u32]>> {
    if weights.len() != split.variants.len() || weights.values().all(|weight| *weight == 0) {
        return None;
    }
    split.variants.iter().map(|variant| weights.get(&*variant.service.name).copied()).collect()
}
