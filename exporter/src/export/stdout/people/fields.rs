//! A record's attributes by their names in the schema, as people want to see them.

use std::{fmt::Write, net::IpAddr};

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, any_value::Value},
    logs::v1::LogRecord,
};

use textwrap::core::display_width;

use crate::{export::text::printable, record::schema};

/// The most characters of one name.
pub(super) const NAME: usize = 255;

/// A record.
pub(super) struct Fields<'a>(pub(super) &'a LogRecord);

/// One end of a flow.
pub(super) struct Place {
    address: String,
    port: Option<i64>,
    name: Option<String>,
}

// === impl Fields

impl<'a> Fields<'a> {
    /// The event's word: `begin`.
    pub(super) fn event(&self) -> &'a str {
        self.0.event_name.rsplit('.').next().unwrap_or_default()
    }

    /// The record's own line.
    pub(super) fn body(&self) -> Option<&'a str> {
        self.0.body.as_ref().and_then(text)
    }

    fn get(&self, key: &str) -> Option<&'a AnyValue> {
        self.0.attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()
    }

    pub(super) fn text(&self, key: &str) -> Option<&'a str> {
        self.get(key).and_then(text)
    }

    pub(super) fn int(&self, key: &str) -> Option<i64> {
        match self.get(key)?.value {
            Some(Value::IntValue(v)) => Some(v),
            _ => None,
        }
    }

    pub(super) fn number(&self, key: &str) -> Option<f64> {
        match self.get(key)?.value {
            Some(Value::DoubleValue(v)) => Some(v),
            _ => None,
        }
    }

    /// `out`, `in`, or nothing where it isn't known.
    pub(super) fn direction(&self) -> &'static str {
        match self.text(schema::DIRECTION) {
            Some("outgoing") => "out",
            Some("incoming") => "in",
            _ => "",
        }
    }

    /// The end `source` or `destination`.
    pub(super) fn place(&self, side: &str) -> Option<Place> {
        let address = self.text(&format!("{side}.address"))?;
        // Every host knows itself by the same names: they say nothing.
        let is_here = address.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        let name = match self.get(&format!("flowtel.{side}.dns.names")) {
            Some(AnyValue { value: Some(Value::ArrayValue(names)) }) if !is_here => names.values.first().and_then(text),
            _ => None,
        };
        Some(Place {
            address: printable(address, NAME),
            port: self.int(&format!("{side}.port")),
            name: name.map(|name| printable(name, NAME)),
        })
    }

    /// `name[pid]` of the owner.
    pub(super) fn process(&self) -> Option<String> {
        let name = self.text(schema::EXECUTABLE_NAME).or_else(|| self.text(schema::THREAD_NAME));
        let name = name.map(|name| printable(name, NAME));
        match (name, self.int(schema::PID)) {
            (None, None) => None,
            (Some(name), None) => Some(name),
            (name, Some(pid)) => Some(format!("{}[{pid}]", name.unwrap_or_default())),
        }
    }
}

// === impl Place

impl Place {
    /// The name where there is one, else the address; with the port.
    pub(super) fn short(&self) -> String {
        let mut out = self.name.clone().unwrap_or_else(|| self.bracketed());
        self.push_port(&mut out);
        out
    }

    /// The same in `width` columns, if need be without the port: a source's says little.
    pub(super) fn shorter(&self, width: usize) -> String {
        let short = self.short();
        if display_width(&short) <= width {
            return short;
        }
        let alone = self.name.clone().unwrap_or_else(|| self.bracketed());
        if display_width(&alone) <= width { alone } else { short }
    }

    /// The address with the port, and the name behind it.
    pub(super) fn whole(&self) -> String {
        let mut out = self.bracketed();
        self.push_port(&mut out);
        if let Some(name) = &self.name {
            // Writing to a String can't fail.
            let _ = write!(out, " ({name})");
        }
        out
    }

    fn bracketed(&self) -> String {
        if self.address.contains(':') { format!("[{}]", self.address) } else { self.address.clone() }
    }

    fn push_port(&self, out: &mut String) {
        if let Some(port) = self.port {
            let _ = write!(out, ":{port}");
        }
    }
}

fn text(value: &AnyValue) -> Option<&str> {
    match &value.value {
        Some(Value::StringValue(v)) => Some(v),
        _ => None,
    }
}
