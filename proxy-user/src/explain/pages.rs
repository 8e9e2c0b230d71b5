//! Whether a page would come in the place of a server's answer, and why: by the windows of maintenance, and by the servers'
//! health where a daemon is asked.

use jiff::Timestamp;

use super::{Explanation, Parsed, Question, Way};
use crate::{
    config::model::Config, control::maintenance::planned, glance::Glance, hygiene, maintenance::Plan,
    page::Occasion, routing, service::WhenAllDown, snapshot::Snapshot,
};

/// As the daemon would have it now.
pub fn of_snapshot(explanation: &mut Explanation, snapshot: &Snapshot, question: &Question) {
    let plan = snapshot.maintenance.plan();
    for way in &mut explanation.ways {
        way.page = maintained(way, &plan, question).map(|(page, why)| {
            let status = snapshot.page(&page).status(Occasion::default());
            format!("{status}, page {page}: {why}")
        });
        if way.page.is_none()
            && let Some(name) = &way.service
            && let Some(service) = snapshot.services.iter().find(|service| *service.name == **name)
            && let WhenAllDown::Page(page) = &service.when_all_down
            && !service.servers.iter().any(|server| server.health.status().usable())
        {
            let status = page.status(Occasion::default());
            way.page = Some(format!("{status}, page {}: no server is up", page.name));
        }
    }
}

/// As far as a configuration tells.
pub fn of_config(explanation: &mut Explanation, config: &Config, question: &Question) {
    let (plan, _) = planned(&[], config, Timestamp::now());
    for way in &mut explanation.ways {
        way.page = maintained(way, &plan, question).map(|(page, why)| format!("page {page}: {why}"));
    }
}

/// The page, and why.
fn maintained(way: &Way, plan: &Plan, question: &Question) -> Option<(String, String)> {
    // Without a route or a service nothing is asked.
    let (route, _) = way.route.as_ref().zip(way.service.as_ref())?;
    let asked = Parsed::new(question).ok()?;
    let judged = hygiene::judge(&asked.head, &Glance::over(&asked.head.headers)).ok()?;
    let host = judged.host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
    let path = judged.path.as_deref().unwrap_or(asked.head.uri.path());
    let now = Timestamp::now();
    let window = plan.holding(route, &routing::canonical(host), path, asked.client, now)?;
    let about = &window.about;
    let because = if about.why.is_empty() { String::new() } else { format!(" ({})", about.why) };
    let why = format!("maintenance of {}, {}{because}", about.scope(), about.time(now));
    Some((about.page.clone(), why))
}
