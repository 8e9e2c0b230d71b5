//! Puts a page in the servers' place, and takes it away again: by order (`weir maintenance`), and as the configuration says.
//! Keeps the disk and what workers look at in step.

mod taken;

use std::{path::PathBuf, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::json;
use tokio::time::Instant;

use super::{
    apply::Fleet,
    order::{Answer, EndMaintenance, Maintain, Refusal},
};
use crate::{
    admission::PrefixSet,
    config::{
        model::{Config, Network, Recurrence},
        nearest, parse_host, parse_path, parse_prefix,
    },
    journal::{Kind, Note},
    maintenance::{About, Maintenance, Ordered, Plan, Scope, Span, Window, store},
    snapshot::networks_of,
};

/// However far the next change is, the clock is looked at again after this: it may have been set.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// What begins within so long is in the plan already: it begins on time, however busy this loop is.
const AHEAD: Duration = Duration::from_secs(180);

/// So many may be ordered at a time.
const MOST: usize = 100;

/// What was ordered, and the plan that is made of it.
#[derive(Debug)]
pub struct Maintaining {
    kept: PathBuf,
    ordered: Vec<Ordered>,
    shared: Arc<Maintenance>,
    look: Instant,
    /// The generation that the plan was made for.
    planned_for: u64,
}

impl Maintaining {
    /// Takes up what is kept in the state folder: it holds before the first request comes.
    pub fn at_start(config: &Config, shared: Arc<Maintenance>) -> Self {
        let kept = store::path(&config.state.dir);
        let ordered = store::load_or_set_aside(&kept);
        let mut maintaining = Self { kept, ordered, shared, look: Instant::now(), planned_for: 1 };
        maintaining.plan(config);
        for one in &maintaining.ordered {
            let about = one.about();
            tracing::info!("maintenance of {}: {}", about.scope(), about.time(Timestamp::now()));
        }
        maintaining
    }

    /// Makes the plan anew where another configuration runs. Costs next to nothing otherwise.
    pub fn keep_up(&mut self, fleet: &Fleet) {
        if fleet.generation() != self.planned_for {
            self.planned_for = fleet.generation();
            self.plan(&fleet.running().load().config);
        }
    }

    /// Resolves when it is time to look what begins and ends. Safe to cancel.
    pub async fn due(&self) {
        tokio::time::sleep_until(self.look).await;
    }

    pub fn look(&mut self, fleet: &Fleet) {
        self.plan(&fleet.running().load().config);
    }

    /// # Errors
    /// When it is refused; then nothing has changed.
    pub fn begin(&mut self, wanted: Maintain, fleet: &Fleet) -> Answer {
        let running = fleet.running().load_full();
        let now = Timestamp::now();
        let ordered = valid(wanted, &running.config, now, self.next_id()).map_err(|why| faulty(&why))?;
        let (replaced, mut list): (Vec<_>, Vec<_>) =
            self.ordered.iter().cloned().partition(|known| known.is_replaced_by(&ordered));
        if list.len() >= MOST {
            return Err(Refusal::Refused(format!(
                "{MOST} are ordered already: `weir maintenance off ID` ends one"
            )));
        }
        // The latest goes first.
        list.insert(0, ordered.clone());
        self.hold(list, &running.config)?;
        let about = ordered.about();
        tracing::info!(why = about.why, "maintenance of {}: {}", about.scope(), about.time(now));
        let message = format!("maintenance of {} was ordered: {}", about.scope(), about.time(now));
        Note::new(Kind::MaintenanceOrdered, message).why(&about.why).write();
        Ok(
            json!({ "maintenance": about, "replaced": replaced.iter().map(Ordered::about).collect::<Vec<_>>() }),
        )
    }

    /// # Errors
    /// When there is none like that.
    pub fn end(&mut self, wanted: &EndMaintenance, fleet: &Fleet) -> Answer {
        let scoped = !wanted.routes.is_empty() || !wanted.hosts.is_empty();
        let hosts = wanted
            .hosts
            .iter()
            .map(|host| plain_host(host))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|why| faulty(&why))?;
        let meant = |one: &Ordered| match (wanted.id, scoped) {
            (Some(id), _) => one.id == id,
            (None, true) => one.has_scope(&wanted.routes, &hosts),
            (None, false) => true,
        };
        let (ended, left): (Vec<_>, Vec<_>) = self.ordered.iter().cloned().partition(meant);
        if ended.is_empty() {
            let running = fleet.running().load();
            let written = match running.config.maintenance.len() {
                0 => "",
                _ => "; what stands in the configuration is ended there",
            };
            return Err(Refusal::Refused(format!(
                "no such maintenance was ordered{written} (`weir maintenance` lists all)"
            )));
        }
        self.hold(left, &fleet.running().load().config)?;
        for one in &ended {
            tracing::info!(why = one.why, "maintenance of {} was ended", one.about().scope());
        }
        Ok(json!({ "ended": ended.iter().map(Ordered::about).collect::<Vec<_>>() }))
    }

    fn next_id(&self) -> u64 {
        self.ordered.iter().map(|one| one.id).max().unwrap_or(0) + 1
    }

    /// Makes a list the one that holds, on the disk and for workers.
    fn hold(&mut self, list: Vec<Ordered>, config: &Config) -> Result<(), Refusal> {
        store::save(&self.kept, &list)
            .map_err(|why| Refusal::Refused(format!("nothing was changed: {why} (`[state] dir`)")))?;
        self.ordered = list;
        self.plan(config);
        Ok(())
    }

    /// Lets go what has ended, and makes the plan of the rest.
    fn plan(&mut self, config: &Config) {
        let now = Timestamp::now();
        let (ended, left): (Vec<_>, Vec<_>) =
            self.ordered.iter().cloned().partition(|one| one.span.is_over(now));
        if !ended.is_empty() {
            for one in &ended {
                tracing::info!(why = one.why, "maintenance of {} has ended", one.about().scope());
            }
            self.ordered = left;
            if let Err(why) = store::save(&self.kept, &self.ordered) {
                tracing::error!("{why}: maintenance that has ended doesn't hold any more all the same");
            }
        }
        let (plan, next) = planned(&self.ordered, config, now);
        self.shared.set(plan);
        let left = next.map(|next| Duration::try_from(next.duration_since(now)).unwrap_or_default());
        // Not before it: a timer may be a millisecond early.
        self.look = Instant::now() + left.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN) + Duration::from_millis(2);
    }
}

/// All windows that hold or soon will, and when something changes next.
pub fn planned(ordered: &[Ordered], config: &Config, now: Timestamp) -> (Plan, Option<Timestamp>) {
    let all = || ordered.iter().map(|one| window(one, config)).chain(written(config, now));
    let next = all().filter_map(|window| window.span.next_change(now)).min();
    let soon = now + jiff::SignedDuration::try_from(AHEAD).unwrap_or_default();
    let near = |window: &Window| !window.span.is_over(now) && window.span.from.is_none_or(|from| from < soon);
    let told = all().filter(|window| !window.span.is_over(now)).map(|window| window.about).collect();
    (Plan { windows: all().filter(near).collect(), all: told }, next)
}

fn window(one: &Ordered, config: &Config) -> Window {
    // It was valid when it was ordered. What has gone since then lets nobody through, and names no host.
    let networks: Vec<_> = one.allow.iter().filter_map(|name| network(name, config).ok()).collect();
    Window {
        scope: Scope {
            routes: one.routes.iter().map(|name| name.as_str().into()).collect(),
            hosts: one.hosts.iter().filter_map(|host| parse_host(host).ok()).collect(),
        },
        allow: networks_of(config, &networks),
        except: one.except.iter().map(|path| path.as_str().into()).collect(),
        span: one.span,
        page: one.page.as_str().into(),
        about: one.about(),
    }
}

fn written(config: &Config, now: Timestamp) -> impl Iterator<Item = Window> {
    config.maintenance.iter().filter_map(move |one| {
        let (span, weekly) = match &one.when {
            Recurrence::Once(span) => (*span, None),
            Recurrence::Weekly(weekly) => (weekly.next(now)?, Some(weekly.to_string())),
        };
        let name = |network: &Network| match network {
            Network::List(id) => config.allowlists[id.0].name.to_string(),
            Network::Prefix(prefix) => prefix.to_string(),
        };
        let page = config.pages[one.page.0].name.clone();
        Some(Window {
            scope: Scope { routes: one.routes.clone(), hosts: one.hosts.clone() },
            allow: if one.allow.is_empty() { PrefixSet::default() } else { networks_of(config, &one.allow) },
            except: one.except.clone(),
            span,
            about: About {
                id: None,
                routes: one.routes.iter().map(ToString::to_string).collect(),
                hosts: one.hosts.iter().map(ToString::to_string).collect(),
                allow: one.allow.iter().map(name).collect(),
                except: one.except.iter().map(ToString::to_string).collect(),
                span,
                weekly,
                page: page.to_string(),
                why: one.why.to_string(),
            },
            page,
        })
    })
}

/// What somebody wants, held against what runs.
fn valid(wanted: Maintain, config: &Config, now: Timestamp, id: u64) -> Result<Ordered, String> {
    let Maintain { routes, hosts, allow, except, from, until, page, why, here: _ } = wanted;
    for name in &routes {
        let names = || config.routes.iter().map(|route| &*route.name);
        if !names().any(|known| known == name) {
            let near = nearest(name, names()).map(|near| format!("; did you mean `{near}`?"));
            return Err(format!("there is no route `{name}`{}", near.unwrap_or_default()));
        }
    }
    let hosts = hosts.iter().map(|host| plain_host(host)).collect::<Result<Vec<_>, _>>()?;
    for name in &allow {
        network(name, config)?;
    }
    let mut paths = Vec::new();
    for path in &except {
        let plain = parse_path(path).map_err(|refusal| sentence(path, &refusal.because, refusal.hint))?;
        if plain == "/" {
            return Err("`--except /` lets everything through".to_owned());
        }
        paths.push(plain);
    }
    if !config.pages.iter().any(|known| *known.name == *page) {
        let near = nearest(&page, config.pages.iter().map(|page| &*page.name));
        let near = near.map(|near| format!("; did you mean `{near}`?"));
        return Err(format!("there is no page `{page}`{}", near.unwrap_or_default()));
    }
    let span = Span { from: from.filter(|from| *from > now), until };
    if span.is_over(now) {
        return Err("it would have ended already: `--until` is in the past".to_owned());
    }
    if let (Some(from), Some(until)) = (span.from, span.until)
        && until <= from
    {
        return Err("it ends before it begins".to_owned());
    }
    if why.chars().count() > 200 || why.chars().any(char::is_control) {
        return Err("`--why` takes at most 200 printable characters".to_owned());
    }
    Ok(Ordered { id, routes, hosts, allow, except: paths, span, page, why, since: now })
}

/// A host as it is compared.
fn plain_host(text: &str) -> Result<String, String> {
    parse_host(text)
        .map(|host| host.to_string())
        .map_err(|refusal| sentence(text, &refusal.because, refusal.hint))
}

fn network(name: &str, config: &Config) -> Result<Network, String> {
    if name.contains(['.', ':', '/']) {
        let prefix = parse_prefix(name).map_err(|refusal| sentence(name, &refusal.because, refusal.hint))?;
        return Ok(Network::Prefix(prefix));
    }
    let lists = || config.allowlists.iter().map(|list| &*list.name);
    match lists().position(|known| known == name) {
        Some(index) => Ok(Network::List(crate::config::model::AllowlistId(index))),
        None => {
            let near = nearest(name, lists()).map(|near| format!("; did you mean `{near}`?"));
            Err(format!("there is no allowlist `{name}`{}", near.unwrap_or_default()))
        }
    }
}

fn sentence(text: &str, because: &str, hint: Option<String>) -> String {
    format!("`{text}` {because}{}", hint.map(|hint| format!("; {hint}")).unwrap_or_default())
}

fn faulty(sentence: &str) -> Refusal {
    Refusal::Faulty(format!("error: {sentence}"))
}

#[cfg(test)]
mod tests;
