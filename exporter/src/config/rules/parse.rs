//! The text of a rule, taken apart: words and values first, then what each condition's values must be.

use std::{
    fmt::Display,
    net::IpAddr,
    ops::RangeInclusive,
    str::{Chars, FromStr},
};

use ipnet::IpNet;

use super::{Action, MAX_PATTERN, MAX_RULES, MAX_VALUES, Pattern, Rule, Rules, Way, services};

pub(super) const ACTION: &str = "action";
pub(super) const SOURCE: &str = "source";
pub(super) const DESTINATION: &str = "destination";
pub(super) const ADDRESS: &str = "address";
pub(super) const SOURCE_PORT: &str = "source_port";
pub(super) const DESTINATION_PORT: &str = "destination_port";
pub(super) const PORT: &str = "port";
pub(super) const DIRECTION: &str = "direction";
pub(super) const LOCAL: &str = "local";
pub(super) const PROCESS: &str = "process";
pub(super) const PID: &str = "pid";
pub(super) const USER: &str = "user";
pub(super) const CGROUP: &str = "cgroup";
pub(super) const CONTAINER: &str = "container";

/// All of them, for suggestions.
const KEYS: [&str; 14] = [
    SOURCE,
    DESTINATION,
    ADDRESS,
    SOURCE_PORT,
    DESTINATION_PORT,
    PORT,
    DIRECTION,
    LOCAL,
    PROCESS,
    PID,
    USER,
    CGROUP,
    CONTAINER,
    "uid",
];
pub(super) const NO_ACTION: &str = "expected action = \"include\" or \"exclude\"";
const CONDITIONS: &str = "source (src), destination (dst), address (addr), source_port (sport), destination_port \
                          (dport), port (of either side), direction, local, process, pid, user (uid), cgroup, container";

/// Rules with semicolons or line ends between.
pub(super) fn rules(text: &str) -> Result<Rules, String> {
    let mut rules = Vec::new();
    let mut scanner = Scanner { rest: text.chars() };
    while !scanner.rest.as_str().is_empty() {
        let parsed = scanner.rule().map_err(|e| format!("rule {}: {e}", rules.len() + 1))?;
        rules.extend(parsed);
        if rules.len() > MAX_RULES {
            return Err(too_many_rules());
        }
    }
    Ok(Rules(rules))
}

pub(super) fn too_many_rules() -> String {
    format!("expected at most {MAX_RULES} rules")
}

/// Exactly one rule.
pub(super) fn rule(text: &str) -> Result<Rule, String> {
    let mut scanner = Scanner { rest: text.chars() };
    let rule = scanner.rule()?.ok_or("expected \"include\" or \"exclude\" and conditions, found nothing")?;
    let rest = scanner.rest.as_str().trim();
    if rest.is_empty() { Ok(rule) } else { Err(format!("expected one rule, found another behind it: \"{rest}\"")) }
}

pub(super) fn action(word: &str) -> Result<Action, String> {
    match word {
        "include" => Ok(Action::Include),
        "exclude" => Ok(Action::Exclude),
        other => Err(format!("expected \"include\" or \"exclude\", found \"{other}\"")),
    }
}

/// Adds a condition to a rule.
pub(super) fn condition(rule: &mut Rule, key: &str, values: &[String]) -> Result<(), String> {
    if values.is_empty() || values.iter().any(String::is_empty) {
        return Err(format!("{key}: expected a value, found none"));
    }
    if values.len() > MAX_VALUES {
        return Err(format!("{key}: expected at most {MAX_VALUES} values, found {}", values.len()));
    }
    match key {
        SOURCE | "src" => fill(&mut rule.source, key, values, network),
        DESTINATION | "dst" => fill(&mut rule.destination, key, values, network),
        ADDRESS | "addr" => fill(&mut rule.address, key, values, network),
        SOURCE_PORT | "sport" => fill(&mut rule.source_port, key, values, port),
        DESTINATION_PORT | "dport" => fill(&mut rule.destination_port, key, values, port),
        PORT => fill(&mut rule.port, key, values, port),
        DIRECTION => fill(&mut rule.direction, key, values, way),
        PROCESS => fill(&mut rule.process, key, values, pattern),
        PID => fill(&mut rule.pid, key, values, |text| range(text, "a process id, or a range of them")),
        USER | "uid" => {
            fill(&mut rule.user, key, values, |text| range(text, "a user id, or a range such as 1000-1999"))
        }
        CGROUP => fill(&mut rule.cgroup, key, values, path),
        CONTAINER => fill(&mut rule.container, key, values, pattern),
        LOCAL => {
            let mut truths = Vec::from_iter(rule.local);
            fill(&mut truths, key, values, |text| {
                text.parse::<bool>().map_err(|_| format!("expected true or false, found \"{text}\""))
            })?;
            let [truth] = truths.as_slice() else { return Err(format!("{key}: expected one of true and false")) };
            rule.local = Some(*truth);
            Ok(())
        }
        ACTION => Err(NO_ACTION.into()),
        other => {
            let near = KEYS.iter().find(|known| strsim::damerau_levenshtein(known, other) <= 2);
            let near = near.map_or(String::new(), |near| format!("; did you mean \"{near}\"?"));
            Err(format!("unknown condition \"{other}\"{near}; there are {CONDITIONS}"))
        }
    }
}

fn fill<T>(
    list: &mut Vec<T>,
    key: &str,
    values: &[String],
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<(), String> {
    if !list.is_empty() {
        return Err(format!("{key}: this condition is there twice; write its values with commas between"));
    }
    for value in values {
        list.push(read(value.trim()).map_err(|e| format!("{key}: {e}"))?);
    }
    Ok(())
}

/// A network, or an address by itself.
fn network(text: &str) -> Result<IpNet, String> {
    let expected = || format!("expected an address or a network such as 10.0.0.0/8 or fd00::/8, found \"{text}\"");
    let net = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address.to_canonical()),
        Err(_) => text.parse::<IpNet>().map_err(|_| expected())?,
    };
    match net {
        IpNet::V6(six) if six.prefix_len() >= 96 && six.addr().to_ipv4_mapped().is_some() => {
            Err(format!("expected IPv4 addresses in their own form, such as 10.0.0.0/8, found \"{text}\""))
        }
        net => Ok(net.trunc()),
    }
}

fn port(text: &str) -> Result<RangeInclusive<u16>, String> {
    let expected = "a port from 1 to 65535, a range such as 8000-8999, or the name of a service such as https";
    if let Some(port) = services::port(text) {
        return Ok(port..=port);
    }
    let range = range::<u16>(text, expected)?;
    if *range.start() == 0 { Err(format!("expected {expected}, found \"{text}\"")) } else { Ok(range) }
}

fn range<T: FromStr + PartialOrd + Copy + Display>(text: &str, expected: &str) -> Result<RangeInclusive<T>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.trim().parse::<T>(), last.trim().parse::<T>()) {
        (Ok(first), Ok(last)) if first <= last => Ok(first..=last),
        _ => Err(format!("expected {expected}, found \"{text}\"")),
    }
}

fn way(text: &str) -> Result<Way, String> {
    match text {
        "outgoing" => Ok(Way::Outgoing),
        "incoming" => Ok(Way::Incoming),
        other => Err(format!("expected \"outgoing\" or \"incoming\", found \"{other}\"")),
    }
}

fn pattern(text: &str) -> Result<Pattern, String> {
    if text.chars().count() > MAX_PATTERN {
        return Err(format!("expected a pattern of at most {MAX_PATTERN} characters"));
    }
    Ok(Pattern(text.to_owned()))
}

fn path(text: &str) -> Result<Pattern, String> {
    if !text.starts_with(['/', '*', '?']) {
        return Err(format!(
            "expected a path from the root of the tree of cgroups, such as /system.slice, found \"{text}\""
        ));
    }
    pattern(text)
}

// === texts

/// A value as it can stand in a text.
pub(super) fn quoted(value: &str) -> String {
    let plain = !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || is_special(c));
    if plain { value.to_owned() } else { format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")) }
}

fn is_special(c: char) -> bool {
    matches!(c, ',' | ';' | '"' | '\\' | '=')
}

/// What is still to be read of a text.
struct Scanner<'a> {
    rest: Chars<'a>,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    fn next_if(&mut self, is: impl Fn(char) -> bool) -> Option<char> {
        let c = self.peek().filter(|c| is(*c))?;
        self.rest.next();
        Some(c)
    }

    fn blanks(&mut self) {
        while self.next_if(|c| c.is_whitespace() && c != '\n').is_some() {}
    }

    /// A rule up to its semicolon or the line's end, which is taken too; `None` where there is nothing.
    fn rule(&mut self) -> Result<Option<Rule>, String> {
        self.blanks();
        if self.next_if(ends_rule).is_some() || self.peek().is_none() {
            return Ok(None);
        }
        let mut rule = Rule { action: action(&self.bare())?, ..Rule::default() };
        loop {
            self.blanks();
            if self.next_if(ends_rule).is_some() || self.peek().is_none() {
                return Ok(Some(rule));
            }
            let key = self.bare();
            if self.next_if(|c| c == '=').is_none() {
                return Err(format!("expected a condition such as port=443, found \"{key}\""));
            }
            let mut values = vec![self.value()?];
            while self.next_if(|c| c == ',').is_some() {
                values.push(self.value()?);
            }
            if let Some(c) = self.peek().filter(|c| !c.is_whitespace() && !ends_rule(*c)) {
                return Err(format!(
                    "{key}: expected a comma or a blank behind a value, found '{}'",
                    c.escape_default()
                ));
            }
            condition(&mut rule, &key, &values)?;
        }
    }

    fn value(&mut self) -> Result<String, String> {
        if self.next_if(|c| c == '"').is_none() {
            return Ok(self.bare());
        }
        let mut value = String::new();
        loop {
            match self.rest.next() {
                Some('"') => return Ok(value),
                Some('\\') => value.extend(self.rest.next()),
                Some(c) => value.push(c),
                None => return Err(format!("expected a quote at the end of \"{value}\"")),
            }
        }
    }

    fn bare(&mut self) -> String {
        let mut word = String::new();
        while let Some(c) = self.next_if(|c| !c.is_whitespace() && !is_special(c)) {
            word.push(c);
        }
        word
    }
}

fn ends_rule(c: char) -> bool {
    matches!(c, ';' | '\n')
}
