//! A TOML file becomes a layer: text comes in, settings with their lines go out. Reads only the file it is given.

use std::{fs, io, path::Path};

use figment::value::Value;
use toml_edit::{ImDocument, Item, TableLike, Value as Toml};

use super::{
    key::Key,
    layer::{Layer, unknown},
    origin::Origin,
    problem::Problem,
    reference,
};

/// Reads a file. `None`: there is none, or (with a problem) it can't be read.
pub(super) fn read(path: &Path, problems: &mut Vec<Problem>) -> Option<Layer> {
    let whole = Origin::File { path: path.to_owned(), line: None };
    match fs::read_to_string(path) {
        Ok(text) => Some(parse(path, &text, problems)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => {
            problems.push(Problem::new(&whole, format!("cannot be read: {e}")));
            None
        }
    }
}

/// Parses a file's text. What is wrong goes to `problems`.
pub(super) fn parse(path: &Path, text: &str, problems: &mut Vec<Problem>) -> Layer {
    let mut reader = Reader { path, text, layer: Layer::default(), problems };
    match ImDocument::parse(text) {
        Ok(document) => reader.table(&Key::default(), document.as_table()),
        // The parser's own display quotes the line, which may hold a secret.
        Err(e) => {
            let origin = reader.origin(e.span());
            reader.problems.push(Problem::new(&origin, format!("not valid TOML: {}", e.message().trim())));
        }
    }
    reader.layer
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    layer: Layer,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn table(&mut self, key: &Key, table: &dyn TableLike) {
        for (name, item) in table.iter() {
            let key = key.child(name);
            let span = table.get_key_value(name).and_then(|(k, _)| k.span()).or_else(|| item.span());
            let origin = self.origin(span);
            let leaf = reference::find(&key);
            let table_of_keys = reference::tables().iter().any(|t| t.key == key);
            match item.as_table_like() {
                Some(inner) if table_of_keys || leaf.is_some_and(|e| e.kind.is_map()) => self.table(&key, inner),
                None if table_of_keys => {
                    self.problems.push(Problem::at(&origin, &key, "expected a table of settings"));
                }
                _ if leaf.is_none() => self.problems.push(unknown(&origin, &key)),
                _ => self.layer.add(key, value(item), origin),
            }
        }
    }

    fn origin(&self, span: Option<std::ops::Range<usize>>) -> Origin {
        let before = span.and_then(|s| self.text.as_bytes().get(..s.start));
        let line = before.map(|before| before.iter().filter(|b| **b == b'\n').count() + 1);
        Origin::File { path: self.path.to_owned(), line }
    }
}

/// An inline table of texts, `{ a = "b" }`, as a variable or `--set` gives it. `None`: it is none.
pub(super) fn inline_table(text: &str) -> Option<Value> {
    let parsed: Toml = text.trim().parse().ok()?;
    parsed.is_inline_table().then(|| value(&Item::Value(parsed)))
}

/// A list, `["a", "b"]`, as a variable or `--set` gives it: of TOML, or of JSON. `None`: it is none.
pub(super) fn inline_list(text: &str) -> Option<Value> {
    let text = text.trim();
    if !text.starts_with('[') {
        return None;
    }
    if let Ok(list @ Toml::Array(_)) = text.parse::<Toml>() {
        return Some(value(&Item::Value(list)));
    }
    let json: serde_json::Value = serde_json::from_str(text).ok()?;
    Value::serialize(json).ok()
}

fn value(item: &Item) -> Value {
    match item {
        Item::None => Value::from(""),
        Item::Value(Toml::String(s)) => Value::from(s.value().as_str()),
        Item::Value(Toml::Integer(n)) => Value::from(*n.value()),
        Item::Value(Toml::Float(n)) => Value::from(*n.value()),
        Item::Value(Toml::Boolean(b)) => Value::from(*b.value()),
        Item::Value(Toml::Datetime(t)) => Value::from(t.value().to_string()),
        Item::Value(Toml::Array(array)) => {
            Value::from(array.iter().map(|v| value(&Item::Value(v.clone()))).collect::<Vec<_>>())
        }
        Item::ArrayOfTables(tables) => {
            Value::from(tables.iter().map(|t| value(&Item::Table(t.clone()))).collect::<Vec<_>>())
        }
        Item::Value(Toml::InlineTable(_)) | Item::Table(_) => {
            let table = item.as_table_like().into_iter().flat_map(|t| t.iter());
            Value::from(table.map(|(k, v)| (k.to_owned(), value(v))).collect::<figment::value::Dict>())
        }
    }
}
