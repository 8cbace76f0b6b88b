//! Attributes of records by their names, and groups of them: a text with commas or a list comes in, a set of words goes out.
//!
//! The words are those of the record's schema, so the two can't drift. Must never know an attribute that no record has.

use std::{borrow::Cow, fmt, marker::PhantomData};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::words;
use crate::record::schema::privacy;

/// Any attributes of a record, and groups of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AttributeNames(Vec<String>);

/// Attributes that can be hashed, and groups of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HashedNames(Vec<String>);

macro_rules! names {
    ($name:ident, $words:expr) => {
        impl $name {
            /// These words. Whether they are known comes out when the configuration is checked.
            pub fn new<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
                Self(words.into_iter().map(str::to_owned).collect())
            }

            /// Whether nothing is named.
            pub fn is_empty(&self) -> bool {
                self.0.is_empty()
            }

            /// Whether the attribute is named, by itself or by its group.
            pub fn has(&self, attribute: &str) -> bool {
                self.0.iter().any(|word| word == attribute || privacy::group(word).contains(&attribute))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                self.0.serialize(s)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                d.deserialize_any(Visitor(PhantomData)).map(Self)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let known: Vec<&str> = $words.collect();
                json_schema!({ "type": ["string", "array"], "format": "words", "items": { "enum": known } })
            }
        }
    };
}

names!(AttributeNames, privacy::words());
names!(HashedNames, privacy::hashed_words());

/// Reads words from a text with commas between them, or from a list of such texts.
struct Visitor(PhantomData<()>);

impl<'de> de::Visitor<'de> for Visitor {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a word, or a list of words")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<String>, E> {
        Ok(words::split(text).map(str::to_owned).collect())
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Vec<String>, A::Error> {
        let mut all = Vec::new();
        while let Some(text) = list.next_element::<Cow<'_, str>>()? {
            all.extend(words::split(&text).map(str::to_owned));
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_named_one_by_one_and_by_groups_in_a_text_or_a_list() {
        for json in ["\"addresses, process.pid\"", "[\"addresses\", \"process.pid\"]"] {
            let names: HashedNames = serde_json::from_str(json).expect("words");
            assert!(names.has("source.address") && names.has("destination.address") && names.has("process.pid"));
            assert!(!names.has("source.port"));
            let again: HashedNames =
                serde_json::from_str(&serde_json::to_string(&names).expect("words")).expect("words");
            assert_eq!(again, names);
        }
        assert!(serde_json::from_str::<AttributeNames>("[]").expect("words").is_empty());
    }
}
