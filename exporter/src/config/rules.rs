//! Rules that include or exclude flows: their text or table comes in, checked [`Rules`] go out.
//!
//! Two forms say the same, and may stand beside each other in one list:
//!
//! - a text: `exclude destination=10.0.0.0/8,fd00::/8 port=443,8000-8999 process="my server"`: a word, then conditions
//!   with blanks between; several values with commas between; quotes around what has blanks, commas or semicolons;
//! - a table: `{ action = "exclude", destination = ["10.0.0.0/8", "fd00::/8"], destination_port = [443, "8000-8999"] }`.
//!
//! Rules are written as texts. What a rule does is the select stage's to know.

mod parse;
mod services;

use std::{borrow::Cow, fmt, ops::RangeInclusive};

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeSeq as _};

/// The most rules.
pub const MAX_RULES: usize = 256;
/// The most values of one condition.
pub const MAX_VALUES: usize = 1024;
/// The longest pattern, in characters.
pub const MAX_PATTERN: usize = 256;

/// Rules in order: the first that matches decides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules(pub Vec<Rule>);

/// A rule. All of its conditions must hold; an empty list, and `None`, is no condition. Of a condition's values one must
/// match.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    /// What it does.
    pub action: Action,
    /// Networks of the initiator.
    pub source: Vec<IpNet>,
    /// Networks of the responder.
    pub destination: Vec<IpNet>,
    /// Networks of either.
    pub address: Vec<IpNet>,
    /// Ports of the initiator.
    pub source_port: Vec<RangeInclusive<u16>>,
    /// Ports of the responder.
    pub destination_port: Vec<RangeInclusive<u16>>,
    /// Ports of either.
    pub port: Vec<RangeInclusive<u16>>,
    /// Which side initiated it.
    pub direction: Vec<Way>,
    /// Whether both ends are on this host.
    pub local: Option<bool>,
    /// Executables by base name, or by path where the pattern begins with `/`; threads by name.
    pub process: Vec<Pattern>,
    /// Process ids, in the host's numbering.
    pub pid: Vec<RangeInclusive<u32>>,
    /// User ids.
    pub user: Vec<RangeInclusive<u32>>,
    /// Paths of cgroups; without a wildcard, those below it too.
    pub cgroup: Vec<Pattern>,
    /// Ids of containers; without a wildcard, their beginning is enough.
    pub container: Vec<Pattern>,
}

/// What a rule does with the flows that it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// They are recorded.
    #[default]
    Include,
    /// They are not.
    Exclude,
}

/// Which side initiated a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// This one.
    Outgoing,
    /// The peer.
    Incoming,
}

/// A text in which `*` stands for any characters, `/` too, and `?` for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(pub String);

// === impl Rule

impl Rule {
    /// Whether it has no condition: it matches every flow.
    pub fn is_for_all(&self) -> bool {
        *self == Self { action: self.action, ..Self::default() }
    }

    /// Whether it asks for something that only the look-ups of the process know.
    pub fn asks_owner(&self) -> bool {
        !(self.process.is_empty()
            && self.pid.is_empty()
            && self.user.is_empty()
            && self.cgroup.is_empty()
            && self.container.is_empty())
    }
}

impl fmt::Display for Rule {
    /// As the text form, which reads back as the same rule.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.action.as_str())?;
        let nets = |nets: &[IpNet]| nets.iter().map(IpNet::to_string).collect::<Vec<_>>();
        let texts = |patterns: &[Pattern]| patterns.iter().map(|p| parse::quoted(&p.0)).collect::<Vec<_>>();
        for (key, values) in [
            (parse::SOURCE, nets(&self.source)),
            (parse::DESTINATION, nets(&self.destination)),
            (parse::ADDRESS, nets(&self.address)),
            (parse::SOURCE_PORT, ranges(&self.source_port)),
            (parse::DESTINATION_PORT, ranges(&self.destination_port)),
            (parse::PORT, ranges(&self.port)),
            (parse::DIRECTION, self.direction.iter().map(|way| way.as_str().to_owned()).collect()),
            (parse::LOCAL, self.local.iter().map(bool::to_string).collect()),
            (parse::PROCESS, texts(&self.process)),
            (parse::PID, ranges(&self.pid)),
            (parse::USER, ranges(&self.user)),
            (parse::CGROUP, texts(&self.cgroup)),
            (parse::CONTAINER, texts(&self.container)),
        ] {
            if !values.is_empty() {
                write!(f, " {key}={}", values.join(","))?;
            }
        }
        Ok(())
    }
}

fn ranges<T: fmt::Display + PartialEq>(ranges: &[RangeInclusive<T>]) -> Vec<String> {
    let one = |range: &RangeInclusive<T>| match (range.start(), range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    };
    ranges.iter().map(one).collect()
}

impl std::str::FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse::rule(text)
    }
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Rule;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a rule such as \"exclude destination=10.0.0.0/8 port=443\", or a table of its conditions")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Rule, E> {
                parse::rule(text).map_err(E::custom)
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Rule, A::Error> {
                let mut rule = Rule::default();
                let mut acts = false;
                while let Some(key) = map.next_key::<String>()? {
                    let values = map.next_value::<Values>()?.0;
                    match (key.as_str(), values.as_slice()) {
                        (parse::ACTION, [word]) => {
                            rule.action = parse::action(word).map_err(de::Error::custom)?;
                            acts = true;
                        }
                        _ => parse::condition(&mut rule, &key, &values).map_err(de::Error::custom)?,
                    }
                }
                if acts { Ok(rule) } else { Err(de::Error::custom(parse::NO_ACTION)) }
            }
        }

        d.deserialize_any(Visitor)
    }
}

/// One value or several, as texts.
struct Values(Vec<String>);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Values;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or a list of values")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Values, E> {
                Ok(Values(vec![text.to_owned()]))
            }

            fn visit_bool<E: de::Error>(self, truth: bool) -> Result<Values, E> {
                Ok(Values(vec![truth.to_string()]))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Values, E> {
                Ok(Values(vec![number.to_string()]))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Values, E> {
                Ok(Values(vec![number.to_string()]))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Values, A::Error> {
                let mut values = Vec::new();
                while let Some(Values(more)) = list.next_element()? {
                    values.extend(more);
                }
                Ok(Values(values))
            }
        }

        d.deserialize_any(Visitor)
    }
}

// === impl Rules

impl Rules {
    /// What becomes of flows that no rule matches, where `chosen` is `capture.filter_default`: without a choice, rules
    /// that all include mean "these and no others".
    pub fn default_action(&self, chosen: Option<Action>) -> Action {
        let only_include = !self.0.is_empty() && self.0.iter().all(|rule| rule.action == Action::Include);
        chosen.unwrap_or(if only_include { Action::Exclude } else { Action::Include })
    }
}

impl Serialize for Rules {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut list = s.serialize_seq(Some(self.0.len()))?;
        self.0.iter().try_for_each(|rule| list.serialize_element(&rule.to_string()))?;
        list.end()
    }
}

impl<'de> Deserialize<'de> for Rules {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Rules;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of rules")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Rules, E> {
                parse::rules(text).map_err(E::custom)
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Rules, A::Error> {
                let mut rules = Vec::new();
                // The number of a rule is what a reader can find; the parser of the list knows no more.
                let numbered = |n: usize, e: A::Error| de::Error::custom(format!("rule {}: {e}", n + 1));
                while let Some(rule) = list.next_element::<Rule>().map_err(|e| numbered(rules.len(), e))? {
                    rules.push(rule);
                    if rules.len() > MAX_RULES {
                        return Err(de::Error::custom(parse::too_many_rules()));
                    }
                }
                Ok(Rules(rules))
            }
        }

        d.deserialize_any(Visitor)
    }
}

impl JsonSchema for Rules {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Rules".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "array", "format": "rules" })
    }
}

// === impl Action

impl Action {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Include => "include",
            Self::Exclude => "exclude",
        }
    }
}

// === impl Way

impl Way {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Outgoing => "outgoing",
            Self::Incoming => "incoming",
        }
    }
}

#[cfg(test)]
mod tests;
