//! Records in, words for people out: of each thing that a record says, how flowtel knows it; of each thing that it could say
//! and does not, why it may not.
//!
//! - [`told`]: records as files and the running flowtel give them;
//! - [`explain`]: the words, from the table that docs/schema.md is made of ([`crate::record::schema::knowledge`]).
//!
//! Must never say more than the record and the table do: what is not certain is told as such.

pub mod told;

use std::fmt::Write as _;

use told::Told;

use crate::{
    escape::Escaped,
    record::{
        privacy,
        schema::{
            self,
            knowledge::{Facts as _, TOPICS, Topic},
        },
    },
};

/// Columns of a terminal that everybody has.
const WIDTH: usize = 80;
/// Columns before the words.
const INDENT: &str = "  ";

/// Explains a record: its line, then a paragraph for each thing that it says or could say.
/// `left_out` says which attributes the configuration leaves out: of those the record could not say anything.
pub fn explain(record: &Told, left_out: &dyn Fn(&str) -> bool) -> String {
    let mut text = format!("{}\n", wrapped(&Escaped(&record.title()).to_string(), "", INDENT));
    for topic in TOPICS.iter().filter(|topic| topic.fits(record)) {
        match topic.how(record) {
            Some(how) => known(&mut text, topic, record, how),
            None if left_out(topic.attribute) => {
                let words = format!(
                    "not in this record. This configuration leaves {} out (record.attributes).",
                    topic.attribute
                );
                paragraph(&mut text, topic.name, &words);
            }
            None => absent(&mut text, topic, record),
        }
    }
    if let Some(fold) = record.get(schema::FOLD_COUNT) {
        let words =
            format!("It stands for {fold} events alike, so it has no source port, flow id or handshake of its own.");
        paragraph(&mut text, "folded", &words);
    }
    text
}

fn known(text: &mut String, topic: &Topic, record: &Told, how: &str) {
    let value = record.get(topic.attribute).unwrap_or_default();
    let mut words = format!("{}. {how}", Escaped(value));
    if value.split(", ").any(privacy::is_hashed) {
        words.push_str(" The record holds a keyed hash of it (record.hash).");
    }
    if let Some((source, value)) = topic.source.and_then(|source| Some((source, record.get(source)?))) {
        // Writing to a String can't fail.
        let _ = write!(words, " ({source} = {})", Escaped(value));
    }
    if let Some(age) = record.age_of(topic.attribute) {
        let _ = write!(words, " The answer was seen {} s before.", Escaped(age));
    }
    paragraph(text, topic.name, &words);
}

fn absent(text: &mut String, topic: &Topic, record: &Told) {
    let reasons: Vec<_> = topic.why_absent(record).collect();
    let words = match reasons.as_slice() {
        // The running flowtel keeps what the end needs.
        _ if record.open && topic.attribute == schema::HANDSHAKE => {
            "in the record of the begin, if it is known.".to_owned()
        }
        [] => "not in this record.".to_owned(),
        [one] => format!("not in this record. {one}"),
        several => format!("not in this record. One of these holds. {}", several.join(" Or: ")),
    };
    paragraph(text, topic.name, &words);
}

fn paragraph(text: &mut String, name: &str, words: &str) {
    text.push('\n');
    text.push_str(&wrapped(&format!("{name}: {words}"), "", INDENT));
    text.push('\n');
}

fn wrapped(words: &str, first: &str, rest: &str) -> String {
    textwrap::fill(words, textwrap::Options::new(WIDTH).initial_indent(first).subsequent_indent(rest))
}

#[cfg(test)]
mod tests;
