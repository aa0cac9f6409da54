//! `("user-service", "/api/v1", server, mock, openapi, validate, problem = ApiError, crate = path)`.

use proc_macro2::Span;
use syn::parse::{Parse, ParseStream};
use syn::{Error, Ident, LitStr, Path, Result, Token, Type};

use super::{Mistakes, hint};

/// The halves that were asked for, each where its word stands.
#[derive(Default)]
pub(crate) struct Halves {
    pub(crate) server: Option<Span>,
    pub(crate) mock: Option<Span>,
    pub(crate) openapi: Option<Span>,
    pub(crate) validate: Option<Span>,
}

pub(super) struct Arguments {
    pub(super) service: String,
    pub(super) base_path: String,
    pub(super) halves: Halves,
    pub(super) problem: Option<Type>,
    pub(super) krate: Option<Path>,
}

const WORDS: [&str; 6] = ["server", "mock", "openapi", "validate", "problem", "crate"];

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut mistakes = Mistakes::default();
        if !input.peek(LitStr) {
            let place = if input.is_empty() {
                Span::call_site()
            } else {
                input.span()
            };
            return Err(Error::new(
                place,
                "name the service first: `#[service_interface(\"user-service\", \"/api/v1\")]`",
            ));
        }
        let service: LitStr = input.parse()?;
        mistakes.take(check_service(&service));
        let mut found = Self {
            service: service.value(),
            base_path: String::new(),
            halves: Halves::default(),
            problem: None,
            krate: None,
        };
        let mut first = true;
        while !input.is_empty() {
            input.parse::<Token![,]>()?;
            if input.is_empty() {
                break;
            }
            if input.peek(LitStr) {
                let path: LitStr = input.parse()?;
                match first {
                    true => found.base_path = mistakes.take(base_path(&path)).unwrap_or_default(),
                    false => mistakes.add(&path, "the base path stands once, behind the service"),
                }
            } else if input.peek(Token![crate]) {
                input.parse::<Token![crate]>()?;
                input.parse::<Token![=]>()?;
                found.krate = Some(input.call(Path::parse_mod_style)?);
            } else {
                let word: Ident = input.parse()?;
                found.word(&word, input, &mut mistakes)?;
            }
            first = false;
        }
        mistakes.into_result()?;
        Ok(found)
    }
}

impl Arguments {
    fn word(
        &mut self,
        word: &Ident,
        input: ParseStream<'_>,
        mistakes: &mut Mistakes,
    ) -> Result<()> {
        let halves = &mut self.halves;
        let half = match word.to_string().as_str() {
            "server" => &mut halves.server,
            "mock" => &mut halves.mock,
            "openapi" => &mut halves.openapi,
            "validate" => &mut halves.validate,
            "problem" => {
                input.parse::<Token![=]>()?;
                self.problem = Some(input.parse()?);
                return Ok(());
            }
            other => {
                let text = format!(
                    "an interface has no argument `{other}`{}; known are server, mock, openapi, validate, problem = Type and crate = path",
                    hint(other, WORDS)
                );
                return Err(Error::new(word.span(), text));
            }
        };
        if half.replace(word.span()).is_some() {
            mistakes.add(word, format!("`{word}` stands there already"));
        }
        Ok(())
    }
}

/// Names of services as discovery takes them.
pub(super) fn check_service(name: &LitStr) -> Result<()> {
    let text = name.value();
    let sound = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    match !text.is_empty() && sound {
        true => Ok(()),
        false => Err(Error::new(
            name.span(),
            "a service has a name of letters, digits, `-`, `_` and `.`, such as \"user-service\"",
        )),
    }
}

fn base_path(path: &LitStr) -> Result<String> {
    let text = path.value();
    if text.is_empty() {
        return Ok(text);
    }
    let wrong = |what: &str| {
        Err(Error::new(
            path.span(),
            format!("the base path {what}, such as \"/api/v1\""),
        ))
    };
    if !text.starts_with('/') {
        return wrong("begins with `/`");
    }
    if text.ends_with('/') {
        return wrong("does not end in `/`: the paths of the methods begin with one");
    }
    let sound = |byte: u8| byte.is_ascii_graphic() && !b"{}?#%\"<>\\^`|".contains(&byte);
    if !text.bytes().all(sound) || text.contains("//") {
        return wrong("has no parameters, no query and no characters that a URL cannot hold");
    }
    Ok(text)
}
