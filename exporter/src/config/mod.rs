//! Settings: layers in, one validated [`Config`] out, each value with its origin.
//!
//! The layers, last wins: built-in defaults; `flowtel.toml` and `conf.d/*.toml` of /etc/flowtel; the file that
//! `--config` names; OpenTelemetry's variables (`OTEL_…`); flowtel's own (`FLOWTEL_…`); flags. Read on with [`load`],
//! then [`Config`], then [`Export::resolve`], which says where records go.
//!
//! Must never start or bind anything, read another file than those, or print a secret.

mod attributes;
mod change;
mod defaults;
mod document;
mod env;
mod file;
mod key;
mod layer;
mod load;
mod origin;
mod otel;
mod output;
mod problem;
pub mod reference;
pub mod rules;
mod sets;
mod target;
mod toml_text;
mod types;
mod units;
mod validate;
mod words;

#[cfg(test)]
mod tests;

pub use attributes::{AttributeNames, HashedNames};
pub use change::Change;
pub use document::{reference_docs, reference_file};
pub use key::Key;
pub use load::{ETC, Loaded, Override, Sources, load};
pub use origin::{Origin, Origins};
pub use otel::{RULES as OTEL_RULES, Rule as OtelRule};
pub use output::{Outputs, Rotate};
pub use problem::{ConfigError, Problem};
pub use sets::{Events, Groups};
pub use target::{Otlp, Target, TargetError, header_pair};
pub(crate) use toml_text::literal;
pub use types::*;
pub use units::{Bytes, Endpoint, NotAQuantity, Secret, Span};
