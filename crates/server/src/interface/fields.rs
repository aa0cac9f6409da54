//! Values from pairs of text: the parameters of a query, or the fields of a form.

use std::fmt;

use serde::de::value::SeqDeserializer;
use serde::de::{
    DeserializeOwned, Deserializer, EnumAccess, IntoDeserializer, MapAccess, Unexpected,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

/// What is wrong, in the words of serde.
#[derive(Debug)]
pub(super) struct Wrong(String);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Wrong {}

impl serde::de::Error for Wrong {
    fn custom<T: fmt::Display>(what: T) -> Self {
        Self(what.to_string())
    }
}

/// Reads a value of pairs; a name that stands several times is a list.
///
/// # Errors
/// The field that is wrong, and what is wrong with it.
pub(super) fn read<T: DeserializeOwned>(pairs: &[(String, String)]) -> Result<T, (String, String)> {
    let mut fields: Vec<(&str, Vec<&str>)> = Vec::new();
    for (name, value) in pairs {
        match fields.iter_mut().find(|(known, _)| known == name) {
            Some((_, values)) => values.push(value),
            None => fields.push((name, vec![value])),
        }
    }
    let reader = Fields {
        fields: fields.into_iter(),
        value: None,
    };
    serde_path_to_error::deserialize(reader).map_err(|error| {
        let what = error.inner().to_string();
        let named = what
            .strip_prefix("missing field `")
            .and_then(|rest| rest.split('`').next());
        let field = named.map_or_else(|| error.path().to_string(), ToOwned::to_owned);
        (field, what)
    })
}

struct Fields<'a> {
    fields: std::vec::IntoIter<(&'a str, Vec<&'a str>)>,
    value: Option<Vec<&'a str>>,
}

impl<'de> Deserializer<'de> for Fields<'_> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_map(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Wrong;

    fn next_key_seed<K: serde::de::DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Wrong> {
        let Some((name, values)) = self.fields.next() else {
            return Ok(None);
        };
        self.value = Some(values);
        seed.deserialize(name.to_owned().into_deserializer())
            .map(Some)
    }

    fn next_value_seed<V: serde::de::DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, Wrong> {
        seed.deserialize(Texts(self.value.take().unwrap_or_default()))
    }
}

/// The values of one name.
struct Texts<'a>(Vec<&'a str>);

impl Texts<'_> {
    fn one(&self) -> Result<&str, Wrong> {
        match self.0.as_slice() {
            [one] => Ok(one),
            _ => Err(Wrong("stands several times".to_owned())),
        }
    }
}

macro_rules! parsed {
    ($($method:ident $visit:ident $what:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
            let text = self.one()?;
            match text.parse() {
                Ok(value) => visitor.$visit(value),
                Err(_) => Err(serde::de::Error::invalid_value(Unexpected::Str(text), &$what)),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Texts<'_> {
    type Error = Wrong;

    parsed! {
        deserialize_bool visit_bool "true or false";
        deserialize_i8 visit_i8 "a whole number";
        deserialize_i16 visit_i16 "a whole number";
        deserialize_i32 visit_i32 "a whole number";
        deserialize_i64 visit_i64 "a whole number";
        deserialize_u8 visit_u8 "a whole number";
        deserialize_u16 visit_u16 "a whole number";
        deserialize_u32 visit_u32 "a whole number";
        deserialize_u64 visit_u64 "a whole number";
        deserialize_f32 visit_f32 "a number";
        deserialize_f64 visit_f64 "a number";
        deserialize_char visit_char "one character";
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_str(self.one()?)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let each = self.0.into_iter().map(|text| Texts(vec![text]));
        visitor.visit_seq(SeqDeserializer::new(each))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_enum(Word(self.one()?.to_owned()))
    }

    forward_to_deserialize_any! {
        i128 u128 str string bytes byte_buf unit unit_struct tuple tuple_struct map struct identifier
        ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Wrong> for Texts<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// A word that is a variant.
struct Word(String);

impl<'de> EnumAccess<'de> for Word {
    type Error = Wrong;
    type Variant = Bare;

    fn variant_seed<V: serde::de::DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Bare), Wrong> {
        let word: serde::de::value::StringDeserializer<Wrong> = self.0.into_deserializer();
        seed.deserialize(word).map(|value| (value, Bare))
    }
}

/// A variant that holds nothing: text cannot hold more.
struct Bare;

impl<'de> VariantAccess<'de> for Bare {
    type Error = Wrong;

    fn unit_variant(self) -> Result<(), Wrong> {
        Ok(())
    }

    fn newtype_variant_seed<T: serde::de::DeserializeSeed<'de>>(
        self,
        _: T,
    ) -> Result<T::Value, Wrong> {
        Err(Wrong("is a plain word only".to_owned()))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Wrong> {
        Err(Wrong("is a plain word only".to_owned()))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Wrong> {
        Err(Wrong("is a plain word only".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::read;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Order {
        Name,
        Age,
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Filter {
        limit: u8,
        name: Option<String>,
        #[serde(default)]
        tags: Vec<u16>,
        order: Order,
    }

    fn filter(query: &str) -> Result<Filter, (String, String)> {
        let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect();
        read(&pairs)
    }

    #[test]
    fn fields_are_read_from_text() {
        let expected = Filter {
            limit: 7,
            name: Some("a b".to_owned()),
            tags: vec![1, 2],
            order: Order::Age,
        };
        assert_eq!(
            filter("limit=7&tags=1&name=a+b&tags=2&order=age"),
            Ok(expected)
        );
    }

    #[test]
    fn the_wrong_field_is_named() {
        for (query, field) in [
            ("limit=300&order=age", "limit"),
            ("limit=1&limit=2&order=age", "limit"),
            ("order=age", "limit"),
            ("limit=1&order=size", "order"),
            ("limit=1&order=age&tags=1&tags=x", "tags[1]"),
            ("limit=1&order=age&other=1", "other"),
        ] {
            let (named, what) = filter(query).unwrap_err();
            assert_eq!(named, field, "{query}: {what}");
        }
    }
}
