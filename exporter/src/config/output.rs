//! What `--output` says in words, and when a file of records is put aside.

use std::{str::FromStr, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    types::{ExportKind, Format},
    units::{Bytes, Span},
};

/// When the file of `export.path` is put aside and a new one begun.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rotate {
    /// When the file is this large. The batch that is being written then goes to its end.
    #[schemars(extend("x-min" = "64KiB", "x-max" = "1TiB"))]
    pub max_bytes: Bytes,
    /// When the file is this old, as of when flowtel opened it. `0s`: never.
    #[schemars(extend("x-min" = "0s", "x-max" = "365days"))]
    pub max_age: Span,
    /// How many files that were put aside are kept. The oldest goes first. `0`: all.
    #[schemars(range(min = 0, max = 100_000))]
    pub keep: u32,
}

/// Where records go, and in which form: the words of `--output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outputs {
    /// Where.
    pub kind: ExportKind,
    /// The form on standard output, where the words name one.
    pub format: Option<Format>,
}

/// What there is, for errors and help.
const WORDS: &str = "text, json, ndjson, stdout, otlp, or one of them with otlp: text,otlp";

impl Default for Rotate {
    /// What the collector's file exporter does.
    fn default() -> Self {
        Self { max_bytes: Bytes(100 << 20), max_age: Span(Duration::ZERO), keep: 100 }
    }
}

impl FromStr for Outputs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut prints, mut ships, mut format) = (false, false, None);
        for word in text.split(',').map(str::trim) {
            let (is_print, form) = match word {
                "otlp" => (false, None),
                "stdout" => (true, None),
                "text" => (true, Some(Format::Text)),
                "json" => (true, Some(Format::Json)),
                "ndjson" => (true, Some(Format::Ndjson)),
                other => {
                    let known = ["otlp", "stdout", "text", "json", "ndjson"];
                    let near = known.map(|known| (strsim::damerau_levenshtein(known, other), known)).into_iter().min();
                    let near = near.filter(|(distance, _)| *distance <= 2).map(|(_, known)| known);
                    let near = near.map_or(String::new(), |near| format!("did you mean \"{near}\"? "));
                    return Err(format!("{near}expected {WORDS}"));
                }
            };
            let twice = if is_print { prints } else { ships };
            if twice {
                return Err(format!("two of a kind; expected {WORDS}"));
            }
            *(if is_print { &mut prints } else { &mut ships }) = true;
            format = format.or(form);
        }
        let kind = match (prints, ships) {
            (true, true) => ExportKind::Both,
            (false, true) => ExportKind::Otlp,
            (_, false) => ExportKind::Stdout,
        };
        Ok(Self { kind, format })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_say_where_and_in_which_form() {
        let read = |text: &str| text.parse::<Outputs>().map(|outputs| (outputs.kind, outputs.format));
        assert_eq!(read("otlp"), Ok((ExportKind::Otlp, None)));
        assert_eq!(read("stdout"), Ok((ExportKind::Stdout, None)));
        assert_eq!(read("ndjson"), Ok((ExportKind::Stdout, Some(Format::Ndjson))));
        assert_eq!(read("text,otlp"), Ok((ExportKind::Both, Some(Format::Text))));
        assert_eq!(read("otlp, stdout"), Ok((ExportKind::Both, None)));
        for wrong in ["", "text,json", "otlp,otlp", "file"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(read("ndjsn").unwrap_err().starts_with("did you mean \"ndjson\"? "));
    }
}
