//! Which endpoint a request belongs to: `GET /users/{id}` for `GET /users/42`.
//!
//! Templates are configured, or named by typed interfaces; raw paths never become endpoints, so that circuits and metric
//! labels stay bounded. A request that no template fits belongs to the service as a whole.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use http::Method;
use trunkline_core::{Error, Result};

/// What is kept for one endpoint is looked up by its name, at most so many; the others share the service's.
const MOST_NAMES: usize = 1024;

/// `METHOD /path/{parameter}`, `/path/{parameter}` for every method, or `METHOD` for every path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    text: Arc<str>,
    method: Option<Method>,
    /// `None` fits every path.
    segments: Option<Vec<Segment>>,
}

/// Ordered so that what fits less comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Literal(Box<str>),
    Parameter,
    /// `{rest...}`: everything that follows.
    Rest,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// `Invalid` with what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let wrong = |what: &str| {
            Error::invalid(format!(
                "`{text}` is no endpoint: {what}; write \"GET /users/{{id}}\""
            ))
        };
        let text = text.trim();
        let (method, path) = match text.split_once(char::is_whitespace) {
            Some((method, path)) => (Some(method), Some(path.trim())),
            None if text.starts_with('/') => (None, Some(text)),
            None => (Some(text), None),
        };
        let known = |method: &str| {
            let upper = method.bytes().all(|c| c.is_ascii_uppercase()) && !method.is_empty();
            upper
                .then(|| Method::from_bytes(method.as_bytes()).ok())
                .flatten()
        };
        let method = match method {
            None => None,
            Some(method) => {
                Some(known(method).ok_or_else(|| wrong("the method is not written in capitals"))?)
            }
        };
        let segments = match path {
            None => None,
            Some(path) => {
                let path = path
                    .strip_prefix('/')
                    .ok_or_else(|| wrong("the path begins with `/`"))?;
                let read = path
                    .split('/')
                    .map(|segment| Segment::parse(segment).map_err(wrong));
                let segments = read.collect::<Result<Vec<_>>>()?;
                let early = segments
                    .iter()
                    .rev()
                    .skip(1)
                    .any(|one| *one == Segment::Rest);
                if early {
                    return Err(wrong("`{name...}` stands at the end only"));
                }
                Some(segments)
            }
        };
        Ok(Self {
            text: text.into(),
            method,
            segments,
        })
    }

    /// Whether two templates stand for the same requests: they differ in the names of parameters only.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        self.method == other.method && self.segments == other.segments
    }

    /// Whether the segment at a place of a path of so many segments is part of the template, and no parameter. `None` for a
    /// template without a path. The path may lack the beginning of the template, or have more in front of it.
    pub(super) fn is_literal(&self, at: usize, count: usize) -> Option<bool> {
        let own = self.segments.as_ref()?;
        let at = if own.last() == Some(&Segment::Rest) {
            at
        } else {
            match (at + own.len()).checked_sub(count) {
                Some(at) => at,
                None => return Some(true),
            }
        };
        Some(matches!(own.get(at), Some(Segment::Literal(_))))
    }

    fn fits(&self, method: &Method, path: &str) -> bool {
        if self.method.as_ref().is_some_and(|own| own != method) {
            return false;
        }
        let Some(segments) = &self.segments else {
            return true;
        };
        let path = path.as_bytes();
        let mut parts = Parts(Some(path.strip_prefix(b"/").unwrap_or(path)));
        for segment in segments {
            let fits = match (segment, parts.next()) {
                (Segment::Rest, Some(_)) => return true,
                (Segment::Literal(literal), Some(part)) => literal.as_bytes() == part,
                (Segment::Parameter, Some(part)) => !part.is_empty(),
                (_, None) => false,
            };
            if !fits {
                return false;
            }
        }
        parts.next().is_none()
    }

    /// Lower comes first: a literal beats a parameter at the first place where two templates differ, and a method beats
    /// none.
    fn rank(&self) -> (bool, Vec<u8>, bool) {
        let segments = self.segments.iter().flatten();
        let kinds = segments.map(|segment| match segment {
            Segment::Literal(_) => 0,
            Segment::Parameter => 1,
            Segment::Rest => 2,
        });
        (
            self.segments.is_none(),
            kinds.collect(),
            self.method.is_none(),
        )
    }
}

/// What stands between the slashes of a path. By hand: the parts are a few bytes each, for which a search that is good at
/// long texts has hardly been set up.
struct Parts<'a>(Option<&'a [u8]>);

impl<'a> Iterator for Parts<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.0?;
        let Some(at) = rest.iter().position(|byte| *byte == b'/') else {
            self.0 = None;
            return Some(rest);
        };
        let (part, after) = rest.split_at(at);
        self.0 = after.get(1..);
        Some(part)
    }
}

impl Segment {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let Some(name) = text
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'))
        else {
            return if text.contains(['{', '}']) {
                Err("a parameter is a whole segment, `{name}`")
            } else {
                Ok(Self::Literal(text.into()))
            };
        };
        let (name, segment) = match name.strip_suffix("...") {
            Some(name) => (name, Self::Rest),
            None => (name, Self::Parameter),
        };
        let sound = name
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || c == b'_' || c == b'-');
        if name.is_empty() || !sound {
            return Err("a parameter has a name of letters, digits and `_`");
        }
        Ok(segment)
    }
}

type Make<T> = Box<dyn Fn(Option<&Arc<str>>) -> T + Send + Sync>;

/// What is kept for each endpoint of a service, and for the service as a whole.
pub(crate) struct Endpoints<T> {
    /// The most particular first.
    templates: Vec<(Template, Arc<T>)>,
    named: RwLock<HashMap<Arc<str>, Arc<T>>>,
    whole: Arc<T>,
    make: Make<T>,
}

impl<T> Endpoints<T> {
    /// `make` is asked for each template now, for names that come later when they come, and for the service as a whole.
    pub(crate) fn new(
        mut templates: Vec<Template>,
        make: impl Fn(Option<&Arc<str>>) -> T + Send + Sync + 'static,
    ) -> Self {
        templates.sort_by_key(Template::rank);
        templates.dedup();
        let whole = Arc::new(make(None));
        let templates: Vec<_> = templates
            .into_iter()
            .map(|template| {
                let kept = Arc::new(make(Some(&template.text)));
                (template, kept)
            })
            .collect();
        let named = templates
            .iter()
            .map(|(template, kept)| (Arc::clone(&template.text), Arc::clone(kept)));
        Self {
            named: RwLock::new(named.collect()),
            templates,
            whole,
            make: Box::new(make),
        }
    }

    /// What is kept for the endpoint of a request.
    pub(crate) fn of(&self, method: &Method, path: &str) -> &Arc<T> {
        let fitting = self
            .templates
            .iter()
            .find(|(template, _)| template.fits(method, path));
        fitting.map_or(&self.whole, |(_, kept)| kept)
    }

    /// The name of an endpoint: that of the template that stands for the same requests, where there is one.
    pub(crate) fn name_of(&self, name: &str) -> Arc<str> {
        let same = Template::parse(name).ok().and_then(|asked| {
            let known = self.templates.iter().map(|(template, _)| template);
            let mut same = known.filter(|template| template.is_same_as(&asked));
            same.next().map(|template| Arc::clone(&template.text))
        });
        same.unwrap_or_else(|| name.into())
    }

    /// What is kept for an endpoint that the caller names.
    pub(crate) fn named(&self, name: &str) -> Arc<T> {
        let named = self.named.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = named.get(name) {
            return Arc::clone(kept);
        }
        if named.len() >= MOST_NAMES {
            return Arc::clone(&self.whole);
        }
        drop(named);
        let name: Arc<str> = name.into();
        // Made outside the lock: it asks the policy registry, which has locks of its own.
        let made = Arc::new((self.make)(Some(&name)));
        let mut named = self.named.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(named.entry(name).or_insert(made))
    }
}

impl<T> fmt::Debug for Endpoints<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = self.templates.iter().map(|(template, _)| &template.text);
        f.debug_list().entries(texts).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(texts: &[&str]) -> Endpoints<String> {
        let templates = texts
            .iter()
            .map(|text| Template::parse(text).unwrap())
            .collect();
        Endpoints::new(templates, |name| {
            name.map_or("*".to_owned(), ToString::to_string)
        })
    }

    #[test]
    fn the_most_particular_template_wins() {
        let known = endpoints(&[
            "GET",
            "/users/{id}",
            "GET /users/{id}",
            "GET /users/me",
            "GET /files/{path...}",
            "/users/{id}/orders",
        ]);
        for (method, path, endpoint) in [
            (Method::GET, "/users/42", "GET /users/{id}"),
            (Method::GET, "/users/me", "GET /users/me"),
            (Method::PUT, "/users/42", "/users/{id}"),
            (Method::GET, "/users/", "GET"),
            (Method::GET, "/users/42/orders", "/users/{id}/orders"),
            (Method::GET, "/files/a/b/c", "GET /files/{path...}"),
            (Method::GET, "/", "GET"),
            (Method::POST, "/users", "*"),
            (Method::POST, "", "*"),
        ] {
            assert_eq!(**known.of(&method, path), *endpoint, "{method} {path}");
        }
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for text in [
            "get /users",
            "GET users",
            "GET /a{b}",
            "GET /{}",
            "GET /{a...}/b",
            "GET /{a b}",
        ] {
            let error = Template::parse(text).unwrap_err();
            assert!(
                error.message().contains("is no endpoint"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn the_names_of_parameters_make_no_other_endpoint() {
        let known = endpoints(&["GET /users/{id}", "GET /users"]);
        assert_eq!(*known.name_of("GET /users/{user_id}"), *"GET /users/{id}");
        assert_eq!(
            *known.name_of("PUT /users/{user_id}"),
            *"PUT /users/{user_id}"
        );
    }

    #[test]
    fn names_are_made_once_and_bounded() {
        let known = endpoints(&["GET /users/{id}"]);
        assert!(Arc::ptr_eq(
            &known.named("GET /users/{id}"),
            known.of(&Method::GET, "/users/1")
        ));
        assert!(Arc::ptr_eq(&known.named("PUT /x"), &known.named("PUT /x")));
        for number in 0..2 * MOST_NAMES {
            known.named(&format!("GET /{number}"));
        }
        assert!(Arc::ptr_eq(&known.named("GET /one/more"), &known.whole));
    }
}
