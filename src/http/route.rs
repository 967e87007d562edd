//! A route: its path, its handlers, and everything that middleware must know of it.

use actix_web::{Resource, dev::ResourceDef, http::Method};

/// One row of the table in `routes`.
pub(crate) struct Route {
    /// The path, with `{parameters}`.
    pub(crate) path: &'static str,
    /// The path as Actix matches it: a parameter may have a regular expression.
    pub(crate) pattern: &'static str,
    pub(crate) methods: Methods,
    /// The names in metrics.
    pub(crate) get_label: &'static str,
    pub(crate) post_label: &'static str,
    /// Whether its page is stored in the view cache, and invalidated by every write.
    pub(crate) is_cached: bool,
    /// Whether its handlers use the session.
    pub(crate) has_session: bool,
    /// Whether machines on the internal network request it, without TLS.
    pub(crate) is_probe: bool,
    pub(crate) handlers: fn(Resource) -> Resource,
}

/// The methods that a route answers; GET includes HEAD.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Methods {
    /// Other methods are refused, and counted like GET.
    Get,
    Post,
    GetAndPost,
}

/// Declares a route; its labels are made of its path.
macro_rules! route {
    ($methods:ident $path:literal $(matching $pattern:literal)? => $handlers:expr) => {
        $crate::http::route::Route {
            path: $path,
            pattern: route!(@pattern $path $($pattern)?),
            methods: $crate::http::route::Methods::$methods,
            get_label: concat!("GET ", $path),
            post_label: concat!("POST ", $path),
            is_cached: false,
            has_session: false,
            is_probe: false,
            handlers: $handlers,
        }
    };
    (@pattern $path:literal) => { $path };
    (@pattern $path:literal $pattern:literal) => { $pattern };
}
pub(crate) use route;

impl Route {
    /// Stores its page in the view cache. Its path has no parameters, because writes invalidate the
    /// pages of all cached routes by their paths.
    pub(crate) const fn cached(self) -> Self {
        let mut at = 0;
        while at < self.path.len() {
            assert!(
                self.path.as_bytes()[at] != b'{',
                "a cached page has no parameters in its path"
            );
            at += 1;
        }
        Self { is_cached: true, ..self }
    }

    /// Gives its handlers a session.
    pub(crate) const fn with_session(self) -> Self {
        Self { has_session: true, ..self }
    }

    /// Allows requests without TLS in production.
    pub(crate) const fn probe(self) -> Self {
        Self { is_probe: true, ..self }
    }

    /// The label of a request for its path.
    fn label(&self, method: &Method) -> &'static str {
        let is_read = matches!(*method, Method::GET | Method::HEAD);
        match self.methods {
            Methods::Get => self.get_label,
            Methods::GetAndPost if is_read => self.get_label,
            Methods::Post | Methods::GetAndPost if *method == Method::POST => self.post_label,
            Methods::Post | Methods::GetAndPost => OTHER,
        }
    }
}

/// The label of requests that no route answers. There are few labels, whatever clients request,
/// because each is a metric of its own.
const OTHER: &str = "other";

/// All routes, with the matchers of their paths: for middleware that runs before routing.
pub(crate) struct RouteTable(Vec<(ResourceDef, &'static Route)>);

impl RouteTable {
    pub(crate) fn new(routes: &'static [Route]) -> Self {
        Self(routes.iter().map(|route| (ResourceDef::new(route.pattern), route)).collect())
    }

    fn find(&self, path: &str) -> Option<&'static Route> {
        let (_, route) = self.0.iter().find(|(pattern, _)| pattern.is_match(path))?;
        Some(route)
    }

    /// The name of a request in metrics.
    pub(crate) fn label(&self, method: &Method, path: &str) -> &'static str {
        self.find(path).map_or(OTHER, |route| route.label(method))
    }

    /// Every label that [`RouteTable::label`] returns.
    pub(crate) fn labels(&self) -> impl Iterator<Item = &'static str> {
        let labels = self.0.iter().flat_map(|(_, route)| match route.methods {
            Methods::Get => [Some(route.get_label), None],
            Methods::Post => [Some(route.post_label), None],
            Methods::GetAndPost => [Some(route.get_label), Some(route.post_label)],
        });
        labels.flatten().chain([OTHER])
    }

    pub(crate) fn is_probe(&self, path: &str) -> bool {
        self.find(path).is_some_and(|route| route.is_probe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &[Route] = &[
        route!(GetAndPost "/" => |resource| resource),
        route!(Post "/{id}/delete" matching "/{id:[0-9]+}/delete" => |resource| resource),
        route!(Get "/static/{name}" => |resource| resource),
        route!(Get "/healthz" => |resource| resource).probe(),
    ];

    #[test]
    fn every_request_has_one_of_a_few_labels() {
        let table = RouteTable::new(ROUTES);
        for (method, path, label) in [
            ("GET", "/", "GET /"),
            ("HEAD", "/", "GET /"),
            ("POST", "/", "POST /"),
            ("BREW", "/", "other"),
            ("POST", "/7/delete", "POST /{id}/delete"),
            ("GET", "/7/delete", "other"),
            ("POST", "/abc/delete", "other"),
            ("GET", "/static/x.css", "GET /static/{name}"),
            ("GET", "/static/", "other"),
            ("GET", "/static/a/b", "other"),
            ("POST", "/healthz", "GET /healthz"),
            ("GET", "/wp-login.php", "other"),
        ] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert_eq!(table.label(&method, path), label, "{method} {path}");
            assert!(table.labels().any(|known| known == label));
        }
        assert!(table.is_probe("/healthz") && !table.is_probe("/"));
    }
}
