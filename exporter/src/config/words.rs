//! Sets of words: a word, several with commas between, or a list comes in; bits, and the fewest words that say them, go out.

use std::{borrow::Cow, fmt};

use schemars::{Schema, json_schema};
use serde::{Deserializer, Serializer, de, ser::SerializeSeq as _};

/// Which bits a word stands for. Where several stand for the same, the first is the one that is written.
pub(super) type Words = &'static [(&'static str, u8)];

/// The words of a text: one, or several with commas between.
pub(super) fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty())
}

fn bits(words: Words, word: &str) -> Option<u8> {
    words.iter().find(|(known, _)| *known == word).map(|(_, bits)| *bits)
}

/// The fewest words, by the order of the table, that say `bits`.
pub(super) fn of(words: Words, bits: u8) -> Vec<&'static str> {
    let mut left = bits;
    let mut out = Vec::new();
    for (word, bits) in words {
        if left & bits == *bits && *bits != 0 {
            out.push(*word);
            left &= !bits;
        }
    }
    out
}

/// As a text where one word says it, else as a list.
pub(super) fn serialize<S: Serializer>(words: Words, bits: u8, s: S) -> Result<S::Ok, S::Error> {
    match of(words, bits).as_slice() {
        [word] => s.serialize_str(word),
        several => {
            let mut list = s.serialize_seq(Some(several.len()))?;
            several.iter().try_for_each(|word| list.serialize_element(word))?;
            list.end()
        }
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(words: Words, d: D) -> Result<u8, D::Error> {
    struct Visitor(Words);

    impl Visitor {
        fn add<E: de::Error>(&self, sum: u8, text: &str) -> Result<u8, E> {
            split(text).try_fold(sum, |sum, word| {
                bits(self.0, word).map(|bits| sum | bits).ok_or_else(|| E::custom(format!("unknown word \"{word}\"")))
            })
        }
    }

    impl<'de> de::Visitor<'de> for Visitor {
        type Value = u8;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a word, or a list of words")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<u8, E> {
            self.add(0, text)
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<u8, A::Error> {
            let mut sum = 0;
            while let Some(text) = list.next_element::<Cow<'_, str>>()? {
                sum = self.add(sum, &text)?;
            }
            Ok(sum)
        }
    }

    d.deserialize_any(Visitor(words))
}

pub(super) fn schema(words: Words) -> Schema {
    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    json_schema!({ "type": ["string", "array"], "format": "words", "items": { "enum": known } })
}
