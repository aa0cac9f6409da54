//! The routes: which path goes to which service.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use http::Method;
use trunkline_core::{Error, Result};
use trunkline_discovery::ServiceName;
use trunkline_server::layers::RouteTemplate;

use crate::config::GatewayConfig;
use crate::convention::segment_of;

/// A route: everything below a path, by whole segments.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    /// Its path, as log lines and metrics name it.
    pub(crate) template: RouteTemplate,
    pub(crate) service: ServiceName,
    /// Where the service stands among [`RouteTable::services`].
    pub(crate) slot: usize,
    /// Empty means every method.
    pub(crate) methods: Vec<Method>,
}

/// What a path and a method lead to.
#[derive(Debug)]
pub(crate) enum Lookup<'a> {
    /// This route.
    Found(&'a Route),
    /// There is a route for the path, for other methods.
    OtherMethods(Vec<Method>),
    /// There is none.
    Unknown,
}

/// All routes, by path. A lookup cuts segments off the end until a path is known: as many steps as the path has
/// segments, however many routes there are.
#[derive(Debug, Default)]
pub(crate) struct RouteTable {
    routes: HashMap<Arc<str>, Vec<Route>>,
    services: Vec<ServiceName>,
}

impl RouteTable {
    /// Makes the routes of a configuration.
    ///
    /// # Errors
    /// `Config` when two services give one path by convention, two routes are the same, or a path or method is wrong.
    pub(crate) fn new(config: &GatewayConfig) -> Result<Self> {
        let mut table = Self::default();
        for route in &config.routes {
            let methods = route
                .methods
                .iter()
                .map(|method| method_of(method, &route.path));
            let service = ServiceName::new(&route.service).map_err(|error| {
                Error::config(format!("gateway route {}", route.path)).with_source(error)
            })?;
            let path = path_of(&route.path)?;
            let methods = methods.collect::<Result<Vec<_>>>()?;
            table.add(path, service, methods)?;
        }
        table.add_by_convention(config)?;
        Ok(table)
    }

    fn add_by_convention(&mut self, config: &GatewayConfig) -> Result<()> {
        let prefix = path_of(&config.prefix)?;
        let mut taken: HashMap<String, &ServiceName> = HashMap::new();
        for service in config.services.keys() {
            let path = format!("{prefix}/{}", segment_of(service));
            if let Some(other) = taken.insert(path.clone(), service) {
                return Err(Error::config(format!(
                    "{other} and {service} would both answer below {path}; give one of them a route of its own under \
                     gateway.routes and remove it from gateway.services"
                )));
            }
            // A route that was written wins over the convention, for all its methods.
            if !self.routes.contains_key(path.as_str()) {
                self.add(path, service.clone(), Vec::new())?;
            }
        }
        Ok(())
    }

    fn add(&mut self, path: String, service: ServiceName, methods: Vec<Method>) -> Result<()> {
        let known = self.services.iter().position(|known| *known == service);
        let slot = known.unwrap_or_else(|| {
            self.services.push(service.clone());
            self.services.len() - 1
        });
        let path: Arc<str> = path.into();
        let template = if path.is_empty() {
            Arc::from("/")
        } else {
            Arc::clone(&path)
        };
        let route = Route {
            template: RouteTemplate(template),
            service,
            slot,
            methods,
        };
        let same_path = self.routes.entry(path).or_default();
        if same_path.iter().any(|known| overlaps(known, &route)) {
            return Err(Error::config(format!(
                "two gateway routes take the same requests below {}",
                route.template.0
            )));
        }
        same_path.push(route);
        Ok(())
    }

    /// The route that a request falls under. The longest path decides, whatever its methods: what one service does not
    /// take must not end up at another. `GET` takes `HEAD` too, where no route asks for that itself.
    pub(crate) fn lookup(&self, method: &Method, path: &str) -> Lookup<'_> {
        let Some(routes) = self.at(path) else {
            return Lookup::Unknown;
        };
        let taking = |method: &Method| {
            let takes = |route: &&Route| route.methods.is_empty() || route.methods.contains(method);
            routes.iter().find(takes)
        };
        let found = match *method {
            Method::HEAD => taking(method).or_else(|| taking(&Method::GET)),
            _ => taking(method),
        };
        found.map_or_else(|| Lookup::OtherMethods(allowed(routes)), Lookup::Found)
    }

    /// The name of the routes that a path falls under, for log lines and metrics.
    pub(crate) fn template(&self, path: &str) -> Option<&RouteTemplate> {
        let route = self.at(path)?.first()?;
        Some(&route.template)
    }

    /// The routes of the longest path that a request falls under.
    fn at(&self, path: &str) -> Option<&[Route]> {
        let mut prefix = path.trim_end_matches('/');
        loop {
            if let Some(routes) = self.routes.get(prefix) {
                return Some(routes);
            }
            prefix = prefix.split_at(prefix.rfind('/')?).0;
        }
    }

    /// Every service that a route leads to, once.
    pub(crate) fn services(&self) -> &[ServiceName] {
        &self.services
    }
}

fn allowed(routes: &[Route]) -> Vec<Method> {
    let mut methods: Vec<Method> = Vec::new();
    for method in routes.iter().flat_map(|route| &route.methods) {
        methods.push(method.clone());
        if *method == Method::GET {
            methods.push(Method::HEAD);
        }
    }
    let mut seen = HashSet::new();
    methods.retain(|method| seen.insert(method.clone()));
    methods
}

fn overlaps(one: &Route, other: &Route) -> bool {
    one.methods.is_empty()
        || other.methods.is_empty()
        || one
            .methods
            .iter()
            .any(|method| other.methods.contains(method))
}

fn path_of(path: &str) -> Result<String> {
    let sound = path.is_empty() || path.starts_with('/');
    let trimmed = path.trim_end_matches('/');
    if !sound || trimmed.contains("//") || trimmed.contains(['?', '#', '*', ' ']) {
        return Err(Error::config(format!(
            "`{path}` is no path of a gateway route; write /like/this, which takes everything below it"
        )));
    }
    Ok(trimmed.to_owned())
}

fn method_of(method: &str, path: &str) -> Result<Method> {
    method.to_ascii_uppercase().parse().map_err(|_| {
        Error::config(format!(
            "gateway route {path}: `{method}` is no HTTP method"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RouteConfig;
    use proptest::prelude::*;

    fn table(services: &[&str], routes: Vec<RouteConfig>) -> Result<RouteTable> {
        let mut config = GatewayConfig::default();
        for service in services {
            config = config.with_service(service)?;
        }
        RouteTable::new(&routes.into_iter().fold(config, GatewayConfig::with_route))
    }

    fn service_at(table: &RouteTable, method: &Method, path: &str) -> Option<String> {
        match table.lookup(method, path) {
            Lookup::Found(route) => Some(route.service.to_string()),
            _ => None,
        }
    }

    #[test]
    fn x42_services_answer_below_their_segment_and_nowhere_else() {
        let table = table(&["user-service", "order-service"], vec![]).unwrap();
        for path in ["/api/v1/users", "/api/v1/users/", "/api/v1/users/1/orders"] {
            assert_eq!(
                service_at(&table, &Method::GET, path).as_deref(),
                Some("user-service")
            );
        }
        for path in [
            "/",
            "/api/v1",
            "/api/v1/usersx",
            "/users",
            "/api/v2/users",
            "",
        ] {
            let found = table.lookup(&Method::GET, path);
            assert!(matches!(found, Lookup::Unknown), "{path}: {found:?}");
        }
        assert_eq!(table.services().len(), 2);
    }

    #[test]
    fn x42_two_services_of_one_segment_are_an_error() {
        let error = table(&["user-service", "users"], vec![]).unwrap_err();
        assert!(error.message().contains("/api/v1/users"), "{error}");
    }

    #[test]
    fn the_longest_route_wins_and_routes_win_over_the_convention() {
        let table = table(
            &["user-service"],
            vec![
                RouteConfig::new("/api/v1/users", "people"),
                RouteConfig::new("/api/v1/users/avatars/", "images"),
                RouteConfig::new("/", "site"),
            ],
        )
        .unwrap();
        let at = |path| service_at(&table, &Method::GET, path).unwrap();
        assert_eq!(at("/api/v1/users/1"), "people");
        assert_eq!(at("/api/v1/users/avatars/1"), "images");
        assert_eq!(at("/anything"), "site");
        assert_eq!(at("/"), "site");
    }

    #[test]
    fn methods_choose_among_routes_and_others_are_named() {
        let table = table(
            &[],
            vec![
                RouteConfig::new("/a", "reader").with_methods(["get", "HEAD"]),
                RouteConfig::new("/a", "writer").with_methods(["POST"]),
            ],
        )
        .unwrap();
        assert_eq!(
            service_at(&table, &Method::GET, "/a/b").as_deref(),
            Some("reader")
        );
        assert_eq!(
            service_at(&table, &Method::POST, "/a").as_deref(),
            Some("writer")
        );
        let Lookup::OtherMethods(methods) = table.lookup(&Method::DELETE, "/a") else {
            panic!("the path is known");
        };
        assert_eq!(methods, [Method::GET, Method::HEAD, Method::POST]);
    }

    #[test]
    fn get_takes_head_unless_a_route_of_its_own_does() {
        let routes = vec![
            RouteConfig::new("/a", "reader").with_methods(["GET"]),
            RouteConfig::new("/b", "reader").with_methods(["GET"]),
            RouteConfig::new("/b", "prober").with_methods(["HEAD"]),
        ];
        let table = table(&[], routes).unwrap();
        let at = |path| service_at(&table, &Method::HEAD, path);
        assert_eq!(at("/a/1").as_deref(), Some("reader"));
        assert_eq!(at("/b/1").as_deref(), Some("prober"));
        for path in ["/a", "/b"] {
            let Lookup::OtherMethods(methods) = table.lookup(&Method::PUT, path) else {
                panic!("{path} is known");
            };
            assert_eq!(methods, [Method::GET, Method::HEAD]);
        }
    }

    #[test]
    fn what_the_longest_path_does_not_take_does_not_end_up_at_another_service() {
        let routes = vec![
            RouteConfig::new("/shop", "site"),
            RouteConfig::new("/shop/orders", "orders").with_methods(["GET"]),
        ];
        let table = table(&[], routes).unwrap();
        let Lookup::OtherMethods(methods) = table.lookup(&Method::POST, "/shop/orders/1") else {
            panic!("the path is that of orders");
        };
        assert_eq!(methods, [Method::GET, Method::HEAD]);
        assert_eq!(
            service_at(&table, &Method::POST, "/shop/cart").as_deref(),
            Some("site")
        );
    }

    #[test]
    fn a_path_is_named_by_its_longest_route_whatever_the_method() {
        let routes = vec![
            RouteConfig::new("/", "site"),
            RouteConfig::new("/shop/", "shop").with_methods(["GET"]),
        ];
        let table = table(&[], routes).unwrap();
        for (path, name) in [("/shop/1", "/shop"), ("/shop", "/shop"), ("/else", "/")] {
            assert_eq!(&*table.template(path).unwrap().0, name);
        }
        assert!(RouteTable::default().template("/shop").is_none());
    }

    #[test]
    fn wrong_routes_are_refused() {
        for routes in [
            vec![RouteConfig::new("no-slash", "a")],
            vec![RouteConfig::new("/a/*", "a")],
            vec![RouteConfig::new("/a", "not a name")],
            vec![RouteConfig::new("/a", "a").with_methods(["NOT A METHOD"])],
            vec![RouteConfig::new("/a", "a"), RouteConfig::new("/a/", "b")],
        ] {
            let error = table(&[], routes.clone()).unwrap_err();
            assert_eq!(
                error.kind(),
                trunkline_core::ErrorKind::Config,
                "{routes:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_lookup_finds_exactly_what_a_plain_search_finds(
            paths in proptest::collection::vec("(/[ab]{1,2}){1,4}", 1..8), asked in "(/[ab]{1,2}){0,5}/?",
        ) {
            let mut paths = paths;
            paths.sort();
            paths.dedup();
            let routes = paths.iter().zip(0..).map(|(path, n)| RouteConfig::new(path, format!("s{n}")));
            let table = table(&[], routes.collect()).unwrap();
            let below = |path: &&(String, usize)| {
                let asked = asked.trim_end_matches('/');
                asked == path.0 || asked.strip_prefix(&path.0).is_some_and(|rest| rest.starts_with('/'))
            };
            let numbered: Vec<(String, usize)> = paths.into_iter().zip(0..).collect();
            let expected = numbered.iter().filter(below).max_by_key(|path| path.0.len());
            let expected = expected.map(|(_, n)| format!("s{n}"));
            prop_assert_eq!(service_at(&table, &Method::GET, &asked), expected);
        }
    }
}
