//! The parameters of a method, and where each goes.

use proc_macro2::{Span, TokenStream};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{Attribute, Error, Expr, Ident, LitStr, Meta, Pat, PatType, Result, Token, Type};

use super::template::Template;
use super::{hint, types};

/// A parameter of a method.
pub(crate) struct Parameter {
    pub(crate) name: Ident,
    pub(crate) ty: Type,
    pub(crate) place: Place,
    /// Those of a form with files, as far as they are named.
    pub(crate) parts: Vec<Part>,
}

/// A part of a form with files.
pub(crate) struct Part {
    pub(crate) name: String,
    /// Not a text.
    pub(crate) is_file: bool,
}

/// Where a parameter goes.
pub(crate) enum Place {
    Path {
        name: String,
    },
    Query {
        name: String,
        kind: QueryKind,
        default: Option<Box<Expr>>,
    },
    /// Each field for itself.
    Fields,
    Header {
        name: String,
        optional: bool,
        default: Option<Box<Expr>>,
    },
    Body(BodyKind),
}

/// How often a parameter stands in the query.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueryKind {
    Once,
    Optional,
    List,
    OptionalList,
}

/// How a body is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyKind {
    Json,
    Form,
    MessagePack,
    Stream,
    Multipart,
}

impl BodyKind {
    /// Of what comes whole as a value, as which it can be checked.
    pub(crate) const fn is_value(self) -> bool {
        matches!(self, Self::Json | Self::Form | Self::MessagePack)
    }
}

const WORDS: [&str; 4] = ["path", "query", "header", "body"];

/// Headers that the client sets itself.
const RESERVED: [&str; 6] = [
    "host",
    "content-length",
    "content-type",
    "transfer-encoding",
    "connection",
    "traceparent",
];

pub(super) fn is_ours(attribute: &Attribute) -> bool {
    WORDS.iter().any(|word| attribute.path().is_ident(word))
}

impl Parameter {
    pub(super) fn read(argument: &PatType, template: &Template) -> Result<Self> {
        let Pat::Ident(pattern) = &*argument.pat else {
            return Err(Error::new_spanned(
                &argument.pat,
                "a parameter has a plain name: it stands in the request",
            ));
        };
        let name = pattern.ident.clone();
        let text = name.unraw().to_string();
        let ty = (*argument.ty).clone();
        let (mut place, mut parts) = (None, Vec::new());
        for attribute in &argument.attrs {
            let found = Place::of(attribute, &text, &ty)?;
            if let Place::Body(BodyKind::Multipart) = found {
                parts = Details::of(attribute)?.parts()?;
            }
            if place.replace(found).is_some() {
                return Err(Error::new_spanned(
                    attribute,
                    "a parameter goes to one place",
                ));
            }
        }
        let in_path = template.names().any(|known| known == text);
        let place = match place {
            Some(place) => {
                if in_path && !matches!(&place, Place::Path { .. }) {
                    let what = format!(
                        "`{text}` stands in the path: leave the attribute out, or rename one of them"
                    );
                    return Err(Error::new_spanned(&name, what));
                }
                place
            }
            None if in_path => Place::Path { name: text },
            None => Place::query(text, &ty),
        };
        place.check(&ty)?;
        Ok(Self {
            name,
            ty,
            place,
            parts,
        })
    }
}

impl Place {
    fn query(name: String, ty: &Type) -> Self {
        let list = |ty| types::item_of(ty).is_some();
        let kind = match types::inner_of(ty, "Option") {
            Some(inner) if list(inner) => QueryKind::OptionalList,
            Some(_) => QueryKind::Optional,
            None if list(ty) => QueryKind::List,
            None => QueryKind::Once,
        };
        Self::Query {
            name,
            kind,
            default: None,
        }
    }

    fn of(attribute: &Attribute, parameter: &str, ty: &Type) -> Result<Self> {
        let word = attribute
            .path()
            .get_ident()
            .map(ToString::to_string)
            .unwrap_or_default();
        let read = Details::of(attribute)?;
        let name = read.name.as_ref().map(LitStr::value);
        let optional = types::inner_of(ty, "Option").is_some();
        match word.as_str() {
            "path" => {
                read.only(&["name"])?;
                Ok(Self::Path {
                    name: name.unwrap_or_else(|| parameter.to_owned()),
                })
            }
            "query" if read.flag("flatten") => {
                read.only(&["flatten"])?;
                Ok(Self::Fields)
            }
            "query" => {
                read.only(&["name", "default"])?;
                let place = Self::query(name.unwrap_or_else(|| parameter.to_owned()), ty);
                Ok(match place {
                    Self::Query { name, kind, .. } => {
                        if read.default.is_some()
                            && matches!(kind, QueryKind::List | QueryKind::OptionalList)
                        {
                            return Err(Error::new_spanned(
                                attribute,
                                "a list has no default: left out it is empty",
                            ));
                        }
                        Self::Query {
                            name,
                            kind,
                            default: read.default,
                        }
                    }
                    other => other,
                })
            }
            "header" => {
                read.only(&["name", "default"])?;
                let Some(literal) = &read.name else {
                    return Err(Error::new_spanned(
                        attribute,
                        "name the header: `#[header(\"X-Tenant\")]`",
                    ));
                };
                Ok(Self::Header {
                    name: header(literal)?,
                    optional,
                    default: read.default,
                })
            }
            "body" => {
                let kinds = ["json", "form", "msgpack", "stream", "multipart"];
                if read.flag("multipart") {
                    read.only(&[&kinds[..], &["text", "file"]].concat())?;
                } else {
                    read.only(&kinds)?;
                }
                read.body(attribute)
            }
            other => Err(Error::new_spanned(
                attribute.path(),
                format!(
                    "a parameter has no attribute `{other}`{}; known are path, query, header and body",
                    hint(other, WORDS)
                ),
            )),
        }
    }

    fn check(&self, ty: &Type) -> Result<()> {
        let optional = types::inner_of(ty, "Option").is_some();
        let named = types::name(ty);
        let stream = named.as_deref() == Some("Body");
        let multipart = named.as_deref() == Some("Multipart");
        match self {
            Self::Path { .. } if optional => Err(Error::new_spanned(
                ty,
                "a parameter of the path is always there: without it the path would be another one",
            )),
            Self::Path { .. } if types::item_of(ty).is_some() => Err(Error::new_spanned(
                ty,
                "a parameter of the path is one value; for several segments write `{name...}`",
            )),
            Self::Header { .. } if types::item_of(ty).is_some() => {
                Err(Error::new_spanned(ty, "a header holds one value"))
            }
            Self::Body(BodyKind::Stream) if !stream => Err(Error::new_spanned(
                ty,
                "a body that is a stream has the type `trunkline::http::Body`",
            )),
            Self::Body(kind) if stream && *kind != BodyKind::Stream => Err(Error::new_spanned(
                ty,
                "write `#[body(stream)]` for a body that is a stream",
            )),
            Self::Query { .. } if stream => Err(Error::new_spanned(
                ty,
                "write `#[body(stream)]` for a body that is a stream",
            )),
            Self::Body(BodyKind::Multipart) if !multipart => Err(Error::new_spanned(
                ty,
                "a form with files has the type `trunkline::http::Multipart`",
            )),
            Self::Body(kind) if multipart && *kind != BodyKind::Multipart => Err(
                Error::new_spanned(ty, "write `#[body(multipart)]` for a form with files"),
            ),
            Self::Query { .. } if multipart => Err(Error::new_spanned(
                ty,
                "write `#[body(multipart)]` for a form with files",
            )),
            Self::Body(_) if optional => Err(Error::new_spanned(
                ty,
                "a body is always there: make two methods, or send `null` fields",
            )),
            _ => Ok(()),
        }
    }
}

fn header(literal: &LitStr) -> Result<String> {
    let text = literal.value().to_ascii_lowercase();
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.is_empty() || !text.bytes().all(sound) {
        return Err(Error::new(
            literal.span(),
            "this is no name of a header, such as \"X-Tenant\"",
        ));
    }
    if RESERVED.contains(&text.as_str()) {
        return Err(Error::new(
            literal.span(),
            format!("the client sets `{text}` itself"),
        ));
    }
    Ok(text)
}

/// What stands in the parentheses of a parameter's attribute.
#[derive(Default)]
struct Details {
    name: Option<LitStr>,
    default: Option<Box<Expr>>,
    flags: Vec<Ident>,
    /// Parts of a form, each with `text` or `file` before it.
    parts: Vec<(Ident, LitStr)>,
}

impl Parse for Details {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut found = Self::default();
        while !input.is_empty() {
            if input.peek(LitStr) {
                found.name = Some(input.parse()?);
            } else {
                let word = Ident::parse_any(input)?;
                match word.to_string().as_str() {
                    "name" => {
                        input.parse::<Token![=]>()?;
                        found.name = Some(input.parse()?);
                    }
                    "default" => {
                        input.parse::<Token![=]>()?;
                        found.default = Some(input.parse()?);
                    }
                    "text" | "file" => {
                        input.parse::<Token![=]>()?;
                        found.parts.push((word, input.parse()?));
                    }
                    _ => found.flags.push(word),
                }
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(found)
    }
}

impl Details {
    fn of(attribute: &Attribute) -> Result<Self> {
        match &attribute.meta {
            Meta::Path(_) => Ok(Self::default()),
            Meta::List(list) => syn::parse2(list.tokens.clone()),
            Meta::NameValue(value) => {
                let word = attribute.path().get_ident();
                let word = word.map(ToString::to_string).unwrap_or_default();
                let text = format!("write `#[{word}(…)]`");
                Err(Error::new_spanned(value, text))
            }
        }
    }

    /// The parts that are named, each once.
    fn parts(&self) -> Result<Vec<Part>> {
        let mut parts: Vec<Part> = Vec::new();
        for (kind, literal) in &self.parts {
            let name = literal.value();
            if name.is_empty() || parts.iter().any(|known| known.name == name) {
                let text = "a part has a name of its own: `text = \"title\", file = \"picture\"`";
                return Err(Error::new(literal.span(), text));
            }
            let is_file = kind == "file";
            parts.push(Part { name, is_file });
        }
        Ok(parts)
    }

    fn flag(&self, word: &str) -> bool {
        self.flags.iter().any(|flag| flag == word)
    }

    /// Refuses what has no meaning there.
    fn only(&self, known: &[&str]) -> Result<()> {
        let refuse = |span: Span, word: &str| {
            let text = format!(
                "`{word}` means nothing here{}; known are {}",
                hint(word, known.iter().copied()),
                known.join(", ")
            );
            Err(Error::new(span, text))
        };
        if let Some(name) = self.name.as_ref().filter(|_| !known.contains(&"name")) {
            return refuse(name.span(), &name.value());
        }
        if let Some(default) = self
            .default
            .as_ref()
            .filter(|_| !known.contains(&"default"))
        {
            return refuse(default.span(), "default");
        }
        if let Some((word, _)) = self
            .parts
            .iter()
            .find(|(word, _)| !known.contains(&word.to_string().as_str()))
        {
            return refuse(word.span(), &word.to_string());
        }
        for flag in &self.flags {
            let word = flag.to_string();
            if !known.contains(&word.as_str()) {
                return refuse(flag.span(), &word);
            }
        }
        Ok(())
    }

    fn body(&self, attribute: &Attribute) -> Result<Place> {
        let kind = match self.flags.as_slice() {
            [] => BodyKind::Json,
            [one] => match one.to_string().as_str() {
                "form" => BodyKind::Form,
                "msgpack" => BodyKind::MessagePack,
                "stream" => BodyKind::Stream,
                "multipart" => BodyKind::Multipart,
                _ => BodyKind::Json,
            },
            _ => {
                return Err(Error::new_spanned(
                    attribute,
                    "a body is written in one way: json, form, msgpack, multipart or stream",
                ));
            }
        };
        Ok(Place::Body(kind))
    }
}

/// A default as tokens.
pub(crate) fn tokens(default: &Option<Box<Expr>>) -> Option<TokenStream> {
    default
        .as_ref()
        .map(|expression| quote::quote!(#expression))
}
