//! Reads what stands in the parentheses of an attribute.

use proc_macro2::{Span, TokenStream};
use syn::ext::IdentExt;
use syn::parse::ParseStream;
use syn::{Error, Ident, Result, Token};

use super::super::hint;
use super::fields::Field;
use super::value::value;

pub(super) struct Found {
    pub(super) field: &'static Field,
    pub(super) span: Span,
    pub(super) value: TokenStream,
}

/// Reads `key = value, section(key = value)`.
pub(super) struct Reader<'a> {
    pub(super) table: &'static [Field],
    pub(super) attribute: &'a str,
    pub(super) found: Vec<Found>,
}

impl Reader<'_> {
    pub(super) fn read(mut self, input: ParseStream<'_>, section: &str) -> Result<Vec<Found>> {
        self.fields(input, section)?;
        Ok(self.found)
    }

    fn fields(&mut self, input: ParseStream<'_>, section: &str) -> Result<()> {
        while !input.is_empty() {
            if !input.peek(Ident::peek_any) {
                return Err(input.error(format!(
                    "`{}` takes names and values: `{}`",
                    self.attribute,
                    self.example()
                )));
            }
            let word = Ident::parse_any(input)?;
            let key = match section {
                "" => word.unraw().to_string(),
                section => format!("{section}.{}", word.unraw()),
            };
            if input.peek(syn::token::Paren) {
                let inner;
                syn::parenthesized!(inner in input);
                let prefix = format!("{key}.");
                if !self
                    .table
                    .iter()
                    .any(|field| field.key.starts_with(&prefix))
                {
                    return Err(self.unknown(&word, &key));
                }
                self.fields(&inner, &key)?;
            } else {
                let Some(field) = self.table.iter().find(|field| field.key == key) else {
                    return Err(self.unknown(&word, &key));
                };
                input.parse::<Token![=]>()?;
                let value = value(field, input)?;
                self.found.push(Found {
                    field,
                    span: word.span(),
                    value,
                });
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(())
    }

    fn unknown(&self, word: &Ident, key: &str) -> Error {
        let keys: Vec<&str> = self.table.iter().map(|field| field.key).collect();
        let text = format!(
            "`{}` has no `{key}`{}; known are {}",
            self.attribute,
            hint(key, keys.iter().copied()),
            keys.join(", ")
        );
        Error::new(word.span(), text)
    }

    fn example(&self) -> &'static str {
        match self.attribute {
            "timeout" => "total = \"5s\"",
            "retry" => "max_attempts = 3",
            "circuit_breaker" => "failure_threshold = 5",
            "bulkhead" => "max_concurrent = 10",
            "version" => "by = \"header\"",
            "cached" => "ttl = \"5m\"",
            "health_check" => "interval = \"30s\"",
            _ => "service = \"other-service\"",
        }
    }
}
