//! The methods of an interface.

use proc_macro2::{Span, TokenStream};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{Attribute, Error, FnArg, Ident, LitStr, Result, ReturnType, Token, TraitItemFn, Type};

use super::arguments::check_service;
use super::parameter::{Parameter, Place};
use super::policy::{self, Policy};
use super::template::Template;
use super::{Mistakes, hint, types};

/// A method of HTTP.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl Verb {
    const ALL: [Self; 5] = [Self::Get, Self::Post, Self::Put, Self::Patch, Self::Delete];

    fn of(attribute: &Attribute) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|verb| attribute.path().is_ident(&verb.as_str().to_lowercase()))
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    /// Whether a second time does harm unless something is done about it.
    pub(crate) const fn is_unsafe_to_repeat(self) -> bool {
        matches!(self, Self::Post | Self::Patch)
    }
}

/// What a method returns when it has not failed.
pub(crate) enum Answer {
    Value(Type),
    Maybe(Type),
    Raw,
    Stream,
    Nothing,
}

/// A method as it was read.
pub(crate) struct Method {
    pub(crate) name: Ident,
    pub(crate) docs: Vec<Attribute>,
    pub(crate) verb: Verb,
    pub(crate) template: Template,
    pub(crate) service: Option<String>,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) answer: Answer,
    /// `T` and `E` of the `Result<T, E>` that is written.
    pub(crate) ok: Type,
    pub(crate) error: Type,
    /// What an answer with an error status is read as; `None` for a problem document.
    pub(crate) problem: Option<Type>,
    pub(crate) policy: Policy,
}

/// Names that a generated client has for itself.
const TAKEN: [&str; 10] = [
    "new",
    "interface",
    "http_client",
    "circuit_states",
    "with_options",
    "with_header",
    "with_service",
    "clone",
    "clear_cache",
    "service_health",
];

/// Attributes that mean something to others.
pub(super) fn is_foreign(attribute: &Attribute) -> bool {
    [
        "doc",
        "allow",
        "expect",
        "warn",
        "deny",
        "deprecated",
        "must_use",
    ]
    .iter()
    .any(|word| attribute.path().is_ident(word))
}

impl Method {
    pub(super) fn read(
        function: &TraitItemFn,
        base_path: &str,
        problem: Option<&Type>,
    ) -> Result<Self> {
        let mut mistakes = Mistakes::default();
        let name = &function.sig.ident;
        check_signature(function, &mut mistakes);
        let mut route = None;
        let mut policy = Policy::default();
        let mut docs = Vec::new();
        for attribute in &function.attrs {
            if let Some(verb) = Verb::of(attribute) {
                let read = mistakes.take(Route::read(attribute));
                if route.replace((verb, read)).is_some() {
                    mistakes.add(attribute, "a method is one request: it has one path");
                }
            } else if policy::is_policy(attribute) {
                if let Err(error) = policy.add(attribute) {
                    mistakes.push(error);
                }
            } else if is_foreign(attribute) {
                docs.push(attribute.clone());
            } else {
                mistakes.push(unknown(attribute));
            }
        }
        let returned = mistakes.take(Returned::read(
            &function.sig.output,
            &function.sig.ident,
            problem,
        ));
        let Some((verb, route)) = route else {
            mistakes.add(
                name,
                format!(
                    "say what `{name}` calls: `#[get(\"/path\")]`, or post, put, patch, delete"
                ),
            );
            mistakes.into_result()?;
            return Err(Error::new(name.span(), "a method without a path"));
        };
        let parameters = match &route {
            Some(route) => parameters(function, &route.template, verb, &mut mistakes),
            None => Vec::new(),
        };
        policy.check(verb, &parameters, &mut mistakes);
        mistakes.into_result()?;
        let (Some(route), Some(returned)) = (route, returned) else {
            return Err(Error::new(name.span(), "a method that cannot be read"));
        };
        // A path of `/` alone is the base path itself.
        let mut template = route.template;
        if template.text == "/" && !base_path.is_empty() {
            template.text.clear();
            template.segments.clear();
        }
        Ok(Self {
            name: name.clone(),
            docs,
            verb,
            template,
            service: route.service,
            parameters,
            answer: returned.answer,
            ok: returned.ok,
            error: returned.error,
            problem: returned.problem,
            policy,
        })
    }

    pub(super) fn is_same_request(&self, other: &Self) -> bool {
        self.verb == other.verb
            && self.service == other.service
            && self.template.is_same_as(&other.template)
    }
}

fn check_signature(function: &TraitItemFn, mistakes: &mut Mistakes) {
    let signature = &function.sig;
    let name = &signature.ident;
    if signature.asyncness.is_none() {
        mistakes.add(
            signature.fn_token,
            format!("a call takes time: write `async fn {name}`"),
        );
    }
    if TAKEN.contains(&name.unraw().to_string().as_str()) {
        mistakes.add(
            name,
            format!("the generated client has a function `{name}` of its own: choose another name"),
        );
    }
    if !signature.generics.params.is_empty() {
        mistakes.add(
            &signature.generics,
            "a method has no parameters of types: what is sent must be known",
        );
    }
    if let Some(body) = &function.default {
        mistakes.add(
            body,
            "a method of an interface has no body: the client's is generated",
        );
    }
    match signature.inputs.first() {
        Some(FnArg::Receiver(receiver)) => {
            let plain = quote::quote!(#receiver).to_string();
            if plain != "& self" {
                mistakes.add(receiver, "a client is shared: write `&self`");
            }
        }
        _ => mistakes.add(
            name,
            format!("a client makes the call: write `async fn {name}(&self, …)`"),
        ),
    }
}

fn parameters(
    function: &TraitItemFn,
    template: &Template,
    verb: Verb,
    mistakes: &mut Mistakes,
) -> Vec<Parameter> {
    let mut found: Vec<Parameter> = Vec::new();
    for argument in &function.sig.inputs {
        let FnArg::Typed(argument) = argument else {
            continue;
        };
        let Some(parameter) = mistakes.take(Parameter::read(argument, template)) else {
            continue;
        };
        check_parameter(&parameter, argument, &found, verb, template, mistakes);
        found.push(parameter);
    }
    for name in template.names() {
        let known = |parameter: &Parameter| matches!(&parameter.place, Place::Path { name: own } if own == name);
        let tried = |argument: &FnArg| matches!(argument, FnArg::Typed(argument) if named(argument) == Some(name.to_owned()));
        if !found.iter().any(known) && !function.sig.inputs.iter().any(tried) {
            let names = function
                .sig
                .inputs
                .iter()
                .filter_map(|argument| match argument {
                    FnArg::Typed(argument) => named(argument),
                    FnArg::Receiver(_) => None,
                });
            let names: Vec<String> = names.collect();
            let near = hint(name, names.iter().map(String::as_str));
            mistakes.at(
                template.span,
                format!("the method has no parameter `{name}` for the path{near}"),
            );
        }
    }
    found
}

fn named(argument: &syn::PatType) -> Option<String> {
    match &*argument.pat {
        syn::Pat::Ident(pattern) => Some(pattern.ident.unraw().to_string()),
        _ => None,
    }
}

fn check_parameter(
    parameter: &Parameter,
    argument: &syn::PatType,
    before: &[Parameter],
    verb: Verb,
    template: &Template,
    mistakes: &mut Mistakes,
) {
    let Parameter { name, place, .. } = parameter;
    match place {
        Place::Path { name: own } if !template.names().any(|known| known == own) => {
            let near = hint(own, template.names());
            mistakes.add(name, format!("the path has no `{{{own}}}`{near}"));
        }
        Place::Body(_) if verb == Verb::Get => {
            mistakes.add(argument, "a GET has no body: servers and caches ignore it; use post, or parameters of the query");
        }
        Place::Body(_)
            if before
                .iter()
                .any(|known| matches!(known.place, Place::Body(_))) =>
        {
            mistakes.add(
                argument,
                "a request has one body: put both into a structure",
            );
        }
        _ => {}
    }
    let same = before.iter().any(|known| match (&known.place, place) {
        (Place::Path { name: one }, Place::Path { name: other })
        | (Place::Query { name: one, .. }, Place::Query { name: other, .. })
        | (Place::Header { name: one, .. }, Place::Header { name: other, .. }) => one == other,
        _ => false,
    });
    if same {
        mistakes.add(name, "another parameter goes to the same place");
    }
}

fn unknown(attribute: &Attribute) -> Error {
    let name = attribute
        .path()
        .get_ident()
        .map(ToString::to_string)
        .unwrap_or_default();
    let other_name = match name.as_str() {
        "retry_on_failure" => Some("retry"),
        "cached_service_call" | "cache" => Some("cached"),
        "service_call" => Some("get"),
        _ => None,
    };
    if let Some(ours) = other_name {
        return Error::new_spanned(
            attribute.path(),
            format!("`{name}` is written `#[{ours}(…)]` here"),
        );
    }
    if name == "cfg" || name == "cfg_attr" {
        return Error::new_spanned(
            attribute.path(),
            "a method is there or not for all halves alike: put `cfg` at the trait",
        );
    }
    let verbs = ["get", "post", "put", "patch", "delete"];
    let near = hint(
        &name,
        verbs.into_iter().chain(policy::NAMES.iter().copied()),
    );
    Error::new_spanned(
        attribute.path(),
        format!("a method has no attribute `{name}`{near}"),
    )
}

/// `("/users/{user_id}", service = "user-service")`.
struct Route {
    template: Template,
    service: Option<String>,
}

impl Route {
    fn read(attribute: &Attribute) -> Result<Self> {
        let name = attribute
            .path()
            .get_ident()
            .map(ToString::to_string)
            .unwrap_or_default();
        match &attribute.meta {
            syn::Meta::List(list) if !list.tokens.is_empty() => syn::parse2(list.tokens.clone()),
            _ => Err(Error::new_spanned(
                attribute,
                format!("say which path: `#[{name}(\"/users/{{user_id}}\")]`"),
            )),
        }
    }
}

impl Parse for Route {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let path: LitStr = input.parse().map_err(|error| {
            Error::new(
                error.span(),
                "the path comes first, as a text: \"/users/{user_id}\"",
            )
        })?;
        let template = Template::read(&path)?;
        let mut service = None;
        while !input.is_empty() {
            input.parse::<Token![,]>()?;
            if input.is_empty() {
                break;
            }
            let word: Ident = input.parse()?;
            if word != "service" {
                let text = format!(
                    "a path has no `{word}`{}; known is service = \"…\"",
                    hint(&word.to_string(), ["service"])
                );
                return Err(Error::new(word.span(), text));
            }
            input.parse::<Token![=]>()?;
            let name: LitStr = input.parse()?;
            check_service(&name)?;
            service = Some(name.value());
        }
        Ok(Self { template, service })
    }
}

/// What a method returns.
struct Returned {
    answer: Answer,
    ok: Type,
    error: Type,
    problem: Option<Type>,
}

impl Returned {
    fn read(output: &ReturnType, name: &Ident, problem: Option<&Type>) -> Result<Self> {
        const SHAPE: &str = "a call may fail: return `Result<T, ServiceError>`";
        let ReturnType::Type(_, ty) = output else {
            return Err(Error::new(
                name.span(),
                format!("{SHAPE}, with `()` where nothing comes back"),
            ));
        };
        if types::name(ty).as_deref() != Some("Result") {
            return Err(Error::new_spanned(ty, SHAPE));
        }
        let arguments = types::arguments(ty);
        let [ok, error] = arguments.as_slice() else {
            return Err(Error::new_spanned(
                ty,
                format!("{SHAPE}, with both types: the second says what is read of an error"),
            ));
        };
        let (ok, error) = ((*ok).clone(), (*error).clone());
        for ty in [&ok, &error] {
            if let Some(found) = borrowed(ty) {
                return Err(Error::new(
                    found,
                    "what comes back is read from the network: it cannot be borrowed",
                ));
            }
        }
        let own = match types::name(&error).as_deref() {
            Some("ServiceError") => types::arguments(&error).first().map(|ty| (*ty).clone()),
            _ => problem.cloned(),
        };
        let answer = match types::name(&ok).as_deref() {
            _ if types::is_unit(&ok) => Answer::Nothing,
            Some("Response") => Answer::Raw,
            Some("Body") => Answer::Stream,
            _ => match types::inner_of(&ok, "Option") {
                Some(inner) => Answer::Maybe(inner.clone()),
                None => Answer::Value(ok.clone()),
            },
        };
        Ok(Self {
            answer,
            ok,
            error,
            problem: own,
        })
    }
}

fn borrowed(ty: &Type) -> Option<Span> {
    match ty {
        Type::Reference(reference) => Some(reference.and_token.span),
        other => types::arguments(other).into_iter().find_map(borrowed),
    }
}

impl Answer {
    /// Whether it holds a value that may have rules.
    pub(crate) fn is_checked(&self) -> bool {
        match self {
            Self::Value(ty) | Self::Maybe(ty) => may_have_rules(ty),
            Self::Raw | Self::Stream | Self::Nothing => false,
        }
    }

    /// The kind of answer, of the runtime at this path.
    pub(crate) fn kind(&self, runtime: &TokenStream) -> TokenStream {
        match self {
            // At the type, where the compiler shall point when it cannot be read.
            Self::Value(ty) => quote::quote_spanned!(ty.span()=> #runtime::Value<#ty>),
            Self::Maybe(ty) => quote::quote_spanned!(ty.span()=> #runtime::Maybe<#ty>),
            Self::Raw => quote::quote!(#runtime::Raw),
            Self::Stream => quote::quote!(#runtime::Streamed),
            Self::Nothing => quote::quote!(#runtime::Nothing),
        }
    }
}

/// Whether a type may have rules; numbers, texts, lists of them and the like have none, nor has a problem document.
pub(crate) fn may_have_rules(ty: &Type) -> bool {
    const PLAIN: [&str; 19] = [
        "bool",
        "char",
        "String",
        "u8",
        "u16",
        "u32",
        "u64",
        "u128",
        "usize",
        "i8",
        "i16",
        "i32",
        "i64",
        "i128",
        "isize",
        "f32",
        "f64",
        "JsonValue",
        "Problem",
    ];
    let mut ty = ty;
    while let Some(item) = types::item_of(ty).or(types::inner_of(ty, "Option")) {
        ty = item;
    }
    types::name(ty).is_none_or(|name| !PLAIN.contains(&name.as_str()))
}
