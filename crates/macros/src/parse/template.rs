//! Paths with parameters: `/users/{user_id}`.

use proc_macro2::Span;
use syn::{Error, LitStr, Result};

/// The path of a method.
pub(crate) struct Template {
    pub(crate) text: String,
    pub(crate) span: Span,
    pub(crate) segments: Vec<Segment>,
}

/// What stands between two slashes.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Segment {
    Literal(String),
    Parameter(String),
    /// `{path...}`: all that follows.
    Rest(String),
}

impl Template {
    pub(super) fn read(path: &LitStr) -> Result<Self> {
        let (text, span) = (path.value(), path.span());
        let wrong = |what: String| Error::new(span, format!("the path {what}"));
        let Some(inner) = text.strip_prefix('/') else {
            return Err(wrong(
                "begins with `/`, such as \"/users/{user_id}\"".to_owned(),
            ));
        };
        if text.contains('?') {
            return Err(wrong(
                "has no query: each parameter of the method that is not in the path goes there"
                    .to_owned(),
            ));
        }
        let mut segments: Vec<Segment> = Vec::new();
        for part in inner.split('/') {
            if matches!(segments.last(), Some(Segment::Rest(_))) {
                return Err(wrong("ends with its `{name...}`".to_owned()));
            }
            let segment = Segment::read(part).map_err(wrong)?;
            if let Some(name) = segment.name()
                && segments.iter().any(|known| known.name() == Some(name))
            {
                return Err(wrong(format!("has two parameters `{name}`")));
            }
            segments.push(segment);
        }
        Ok(Self {
            text,
            span,
            segments,
        })
    }

    /// The names of the parameters, in their order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(Segment::name)
    }

    /// Whether a request fits both or none.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        let same = |(one, other): (&Segment, &Segment)| match (one, other) {
            (Segment::Literal(one), Segment::Literal(other)) => one == other,
            (Segment::Parameter(_), Segment::Parameter(_))
            | (Segment::Rest(_), Segment::Rest(_)) => true,
            _ => false,
        };
        self.segments.len() == other.segments.len()
            && self.segments.iter().zip(&other.segments).all(same)
    }
}

impl Segment {
    fn read(part: &str) -> core::result::Result<Self, String> {
        let inner = part
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'));
        let Some(name) = inner else {
            if part.contains(['{', '}']) {
                return Err(format!(
                    "has a parameter that is no whole segment, `{part}`: write `/{{name}}/`"
                ));
            }
            let sound = |byte: u8| byte.is_ascii_graphic() && !b"?#%\"<>\\^`|".contains(&byte);
            return match part.bytes().all(sound) {
                true => Ok(Self::Literal(part.to_owned())),
                false => Err(format!(
                    "has characters that a URL cannot hold, in `{part}`"
                )),
            };
        };
        let (name, rest) = match name.strip_suffix("...") {
            Some(name) => (name, true),
            None => (name, false),
        };
        let sound = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if name.is_empty() || !name.bytes().all(sound) {
            return Err(format!(
                "has a parameter `{{{name}}}` whose name is not one of letters, digits and `_`"
            ));
        }
        Ok(match rest {
            true => Self::Rest(name.to_owned()),
            false => Self::Parameter(name.to_owned()),
        })
    }

    /// The name of the parameter, if it is one.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::Literal(_) => None,
            Self::Parameter(name) | Self::Rest(name) => Some(name),
        }
    }
}
