//! The value of one field.

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use quote::quote;
use syn::parse::ParseStream;
use syn::{Error, Lit, LitStr, Path, Result, Token};

use super::super::duration;
use super::fields::{Field, Kind, U32};

pub(super) fn value(field: &Field, input: ParseStream<'_>) -> Result<TokenStream> {
    let key = field.key;
    match field.kind {
        Kind::Span => span_of_time(&literal(input, "a span of time such as \"5s\"")?, false),
        Kind::SpanOrZero => span_of_time(&literal(input, "a span of time such as \"5s\"")?, true),
        Kind::Whole(least, most) => whole(&literal(input, "a whole number")?, key, least, most),
        Kind::Number(least, most) => number(&literal(input, "a number")?, key, least, most),
        Kind::Switch => match literal(input, "true or false")? {
            Lit::Bool(switch) => Ok(quote!(#switch)),
            other => Err(Error::new(
                other.span(),
                format!("`{key}` is true or false"),
            )),
        },
        Kind::Text => match literal(input, "a text")? {
            Lit::Str(text) if !text.value().is_empty() => {
                Ok(quote!(::std::string::String::from(#text)))
            }
            other => Err(Error::new(
                other.span(),
                format!("`{key}` is the name of a service"),
            )),
        },
        Kind::Name => match literal(input, "a text")? {
            Lit::Str(text) if is_token(&text.value()) => {
                Ok(quote!(::std::string::String::from(#text)))
            }
            other => Err(Error::new(
                other.span(),
                format!(
                    "`{key}` is the name of a header or of a parameter, such as \"API-Version\""
                ),
            )),
        },
        Kind::Written => match literal(input, "a text")? {
            Lit::Str(text) if is_written(&text.value()) => {
                Ok(quote!(::std::string::String::from(#text)))
            }
            other => Err(Error::new(
                other.span(),
                format!("`{key}` is a text with {{version}} in it that can stand in a header"),
            )),
        },
        Kind::Key if input.peek(Lit) => pattern(&literal(input, "a text")?),
        Kind::Key => {
            let path: Path = input.parse().map_err(|error| {
                Error::new(
                    error.span(),
                    "give a text that may name parameters, or a function that is given them",
                )
            })?;
            Ok(quote!(#path))
        }
        Kind::Patterns => {
            let found = list(input)?;
            let found = found.iter().map(pattern);
            let found = found.collect::<Result<Vec<_>>>()?;
            Ok(quote!(::std::vec![#(#found),*]))
        }
        Kind::Varying => {
            let found = list(input)?;
            let found = found.iter().map(|one| match one {
                Lit::Str(text) if !text.value().is_empty() => {
                    Ok(quote!(::std::string::String::from(#text)))
                }
                other => Err(Error::new(
                    other.span(),
                    "name a parameter of the query, or a header: `\"header:accept-language\"`",
                )),
            });
            let found = found.collect::<Result<Vec<_>>>()?;
            Ok(quote!(::std::vec![#(#found),*]))
        }
        Kind::Versions => {
            let place = input.span();
            let list = list(input)?;
            versions(place, &list)
        }
        Kind::Statuses => {
            let list = list(input)?;
            let numbers = list.iter().map(|one| match one {
                Lit::Int(number) => match number.base10_parse::<u16>() {
                    Ok(status) if (100..=599).contains(&status) => Ok(quote!(#status)),
                    _ => Err(Error::new(number.span(), "an HTTP status is 100 to 599")),
                },
                other => Err(Error::new(other.span(), "an HTTP status is 100 to 599")),
            });
            let numbers = numbers.collect::<Result<Vec<_>>>()?;
            Ok(quote!(::std::vec![#(#numbers),*]))
        }
        Kind::Methods => {
            let list = list(input)?;
            let names = list.iter().map(|one| match one {
                Lit::Str(name) if is_method(name) => Ok(quote!(::std::string::String::from(#name))),
                other => Err(Error::new(
                    other.span(),
                    "this is no method of HTTP such as \"POST\"",
                )),
            });
            let names = names.collect::<Result<Vec<_>>>()?;
            Ok(quote!(::std::vec![#(#names),*]))
        }
        Kind::Word(words) => words.read(&literal(input, "a text")?),
        Kind::Words(words) => {
            let found = list(input)?;
            let found = found.iter().map(|one| words.read(one));
            let found = found.collect::<Result<Vec<_>>>()?;
            Ok(quote!(::std::vec![#(#found),*]))
        }
        Kind::Json => {
            let one: TokenTree = input.parse()?;
            match &one {
                TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis => {
                    Err(Error::new(
                        group.span(),
                        "write the value as JSON: `value = {\"id\": 0}`",
                    ))
                }
                TokenTree::Punct(sign) if sign.as_char() == '-' => {
                    let number: TokenTree = input.parse()?;
                    Ok(quote!(rt::json!(#sign #number)))
                }
                one => Ok(quote!(rt::json!(#one))),
            }
        }
        Kind::Function => {
            let path: Path = input.parse().map_err(|error| {
                Error::new(
                    error.span(),
                    "`with` names a function that is given the error: `with = offline`",
                )
            })?;
            Ok(quote!(#path))
        }
    }
}

/// A text with balanced `{name}`s.
fn pattern(literal: &Lit) -> Result<TokenStream> {
    if let Lit::Str(text) = literal
        && let Some(names) = names_in(&text.value())
        && names.iter().all(|name| !name.is_empty())
        && !text.value().is_empty()
    {
        return Ok(quote!(::std::string::String::from(#text)));
    }
    Err(Error::new(
        literal.span(),
        "give a text that may name parameters, such as \"product:{product_id}\"",
    ))
}

/// The names in braces; `None` where they are not closed.
pub(super) fn names_in(text: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(['{', '}']) {
        let behind = rest.get(start..)?.strip_prefix('{')?;
        let (name, after) = behind.split_once('}')?;
        if name.contains('{') {
            return None;
        }
        names.push(name.to_owned());
        rest = after;
    }
    Some(names)
}

/// `"v2", "v1"` before what has a name.
pub(super) fn leading_versions(input: ParseStream<'_>) -> Result<TokenStream> {
    let place = input.span();
    let mut found = Vec::new();
    while input.peek(LitStr) {
        found.push(input.parse::<Lit>()?);
        if !input.is_empty() {
            input.parse::<Token![,]>()?;
        }
    }
    versions(place, &found)
}

fn versions(place: Span, list: &[Lit]) -> Result<TokenStream> {
    let mut names: Vec<String> = Vec::new();
    for one in list {
        let text = match one {
            Lit::Str(text) => text.value(),
            _ => String::new(),
        };
        if !is_version(&text) {
            return Err(Error::new(
                one.span(),
                "a version is written such as \"v2\": letters, digits, `.`, `-` and `_`",
            ));
        }
        if names.contains(&text) {
            return Err(Error::new(one.span(), "each version stands once"));
        }
        names.push(text);
    }
    match (1..=8).contains(&names.len()) {
        true => Ok(quote!(
            ::std::vec![#(::std::string::String::from(#names)),*]
        )),
        false => Err(Error::new(
            place,
            "give 1 to 8 versions, the preferred one first",
        )),
    }
}

fn is_version(text: &str) -> bool {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !text.is_empty() && text.bytes().all(sound) && !matches!(text, "." | "..")
}

fn is_token(text: &str) -> bool {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(sound)
}

fn is_written(text: &str) -> bool {
    text.contains("{version}") && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

fn is_method(name: &LitStr) -> bool {
    let text = name.value();
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphabetic())
}

fn literal(input: ParseStream<'_>, expected: &str) -> Result<Lit> {
    if input.peek(Token![-]) {
        return Err(input.error(format!(
            "a negative value is not allowed here: give {expected}"
        )));
    }
    input
        .parse()
        .map_err(|error: Error| Error::new(error.span(), format!("give {expected}")))
}

fn list(input: ParseStream<'_>) -> Result<Vec<Lit>> {
    if !input.peek(syn::token::Bracket) {
        return Err(input.error("give a list: `[…]`"));
    }
    let inner;
    syn::bracketed!(inner in input);
    let mut found = Vec::new();
    while !inner.is_empty() {
        found.push(literal(&inner, "a value")?);
        if !inner.is_empty() {
            inner.parse::<Token![,]>()?;
        }
    }
    Ok(found)
}

pub(super) fn span_of_time(literal: &Lit, zero: bool) -> Result<TokenStream> {
    let nanos = match literal {
        Lit::Str(text) => duration::parse(&text.value()),
        Lit::Int(number) => number
            .base10_parse()
            .ok()
            .and_then(duration::seconds_to_nanos),
        Lit::Float(number) => number
            .base10_parse()
            .ok()
            .and_then(duration::seconds_to_nanos),
        _ => None,
    };
    let wrong = |what| Err(Error::new(literal.span(), what));
    match nanos {
        None => wrong(
            "this is no span of time; write \"30s\", \"250ms\", \"1m30s\" or a number of seconds",
        ),
        Some(0) if !zero => wrong("0s is not allowed; allowed is a span longer than zero"),
        Some(nanos) if nanos > duration::LONGEST => wrong("at most one year, 365d, is allowed"),
        Some(nanos) => Ok(quote!(::core::time::Duration::from_nanos(#nanos))),
    }
}

fn whole(literal: &Lit, key: &str, least: u64, most: u64) -> Result<TokenStream> {
    let allowed = match most {
        U32 => format!("{least} or more"),
        most => format!("{least} to {most}"),
    };
    if let Lit::Int(number) = literal
        && let Ok(value) = number.base10_parse::<u64>()
        && (least..=most).contains(&value)
        && let Ok(value) = u32::try_from(value)
    {
        return Ok(quote!(#value));
    }
    Err(Error::new(
        literal.span(),
        format!("`{key}` is a whole number, {allowed}"),
    ))
}

fn number(literal: &Lit, key: &str, least: f64, most: f64) -> Result<TokenStream> {
    let value = match literal {
        Lit::Int(number) => number.base10_parse::<f64>().ok(),
        Lit::Float(number) => number.base10_parse::<f64>().ok(),
        _ => None,
    };
    match value.filter(|value| (least..=most).contains(value)) {
        Some(value) => Ok(quote!(#value)),
        None => Err(Error::new(
            literal.span(),
            format!("`{key}` is a number, {least} to {most}"),
        )),
    }
}
