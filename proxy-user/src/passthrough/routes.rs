//! Which route a connection takes, by the name in its hello. Pure: an exact name goes before a wildcard, a longer wildcard before
//! a shorter one, and all of them before the route without names.

use std::{collections::HashMap, sync::Arc};

use crate::{
    config::model::{Carries, Config, EntrypointId, HostMatch},
    page::Page,
    service::Service,
};

/// A route that carries connections.
#[derive(Debug)]
pub struct Route {
    pub name: Arc<str>,
    pub service: Arc<Service>,
    /// For when no server can be reached.
    pub on_outage: Option<Arc<Page>>,
}

/// Those of one entrypoint.
#[derive(Debug, Default)]
pub struct Routes {
    exact: HashMap<Arc<str>, Arc<Route>>,
    /// By the suffix behind `*.`, at any depth.
    wildcard: HashMap<Arc<str>, Arc<Route>>,
    /// For what has no name, or one that no other takes.
    pub others: Option<Arc<Route>>,
}

impl Routes {
    /// `None`: the entrypoint speaks HTTP alone, and nobody looks at hellos there.
    pub fn of(
        config: &Config,
        id: EntrypointId,
        services: &[Arc<Service>],
        pages: &[Arc<Page>],
    ) -> Option<Self> {
        let mut routes = Self::default();
        for written in config.carried.iter().filter(|route| route.is_at(id)) {
            let route = Arc::new(Route {
                name: written.name.clone(),
                service: services[written.service.0].clone(),
                on_outage: written.on_outage.map(|page| pages[page.0].clone()),
            });
            if written.sni.is_empty() {
                routes.others = Some(route.clone());
            }
            for name in &written.sni {
                match name {
                    HostMatch::Exact(name) => routes.exact.insert(name.clone(), route.clone()),
                    HostMatch::Wildcard(suffix) => routes.wildcard.insert(suffix.clone(), route.clone()),
                    // No names are written so.
                    HostMatch::Any | HostMatch::Regex(_) => None,
                };
            }
        }
        let speaks_http = config.entrypoints[id.0].carries == Carries::Http;
        (!speaks_http || routes.by_name()).then_some(routes)
    }

    /// Whether the name decides anything.
    pub fn by_name(&self) -> bool {
        !self.exact.is_empty() || !self.wildcard.is_empty()
    }

    /// The route for a name, which is in lower case.
    pub fn find(&self, name: &str) -> Option<&Arc<Route>> {
        if let Some(route) = self.exact.get(name) {
            return Some(route);
        }
        if self.wildcard.is_empty() {
            return None;
        }
        let mut rest = name;
        while let Some((_, suffix)) = rest.split_once('.') {
            if let Some(route) = self.wildcard.get(suffix) {
                return Some(route);
            }
            rest = suffix;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::{acme::Board, config, snapshot::Snapshot};

    const TEXT: &str = "
[entrypoint.mixed]
bind = '127.0.0.1:25'
protocol = 'tcp'
[entrypoint.web]
bind = '127.0.0.1:80'
[service.app]
servers = '10.0.0.1:80'
[[route]]
service = 'app'
[[route]]
name = 'one'
sni = ['a.example', 'b.a.example']
passthrough = 'app'
[[route]]
name = 'below'
sni = '*.example'
passthrough = 'app'
[[route]]
name = 'far below'
sni = '*.a.example'
passthrough = 'app'
[[route]]
name = 'rest'
entrypoint = 'mixed'
passthrough = 'app'
";

    #[test]
    fn the_most_specific_name_wins() {
        let config = config::load_text(Path::new("weir.toml"), TEXT).unwrap().config;
        let snapshot = Snapshot::new(config.into(), &std::sync::Arc::new(Board::default()), None).unwrap();
        let routes = snapshot.entrypoints[0].carried.as_ref().unwrap();
        for (name, route) in [
            ("a.example", Some("one")),
            ("b.a.example", Some("one")),
            ("c.a.example", Some("far below")),
            ("d.c.a.example", Some("far below")),
            ("c.example", Some("below")),
            ("d.c.example", Some("below")),
            ("example", None),
            ("a.example.com", None),
            ("", None),
        ] {
            assert_eq!(routes.find(name).map(|route| &*route.name), route, "{name}");
        }
        assert_eq!(routes.others.as_ref().map(|route| &*route.name), Some("rest"));
        assert!(snapshot.entrypoints[1].carried.is_none(), "nothing is looked at where no name is carried");
    }
}
