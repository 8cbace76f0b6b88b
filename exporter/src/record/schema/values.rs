//! Values of attributes that have a closed list of them.

use super::{
    CAUSE_SOURCE, DESTINATION_NAMES_ORIGIN, DESTINATION_NAMES_STATE, DIRECTION, END_REASON, EXECUTABLE_SOURCE,
    EXECUTABLE_STATE, GAP_STAGE, NETWORK_TYPE, PROCESS_ROLE, PROCESS_SOURCE, SOURCE_NAMES_ORIGIN, SOURCE_NAMES_STATE,
    causes,
};

const STATES: &[&str] = &["fresh", "expired", "static", "reverse"];
const ORIGINS: &[&str] = &["own", "other", "static"];

/// The values that an attribute of flowtel's own can have; `None` where any may come.
pub fn values(name: &str) -> Option<Vec<&'static str>> {
    let values: &[&str] = match name {
        DIRECTION => &["outgoing", "incoming"],
        NETWORK_TYPE => &["ipv4", "ipv6"],
        PROCESS_ROLE => &["connector", "acceptor", "listener"],
        PROCESS_SOURCE => &["connect", "accept", "listener", "snapshot"],
        EXECUTABLE_SOURCE => &["exec", "proc"],
        EXECUTABLE_STATE => &["deleted", "memfd", "other_mount_namespace", "unknown_mount_namespace", "called"],
        SOURCE_NAMES_STATE | DESTINATION_NAMES_STATE => STATES,
        SOURCE_NAMES_ORIGIN | DESTINATION_NAMES_ORIGIN => ORIGINS,
        END_REASON => return Some(causes::ENDS.iter().map(|end| end.value).collect()),
        CAUSE_SOURCE => return Some(causes::SOURCES.iter().map(|(source, _)| *source).collect()),
        GAP_STAGE => &["kernel", "capture", "flow", "queue", "export"],
        _ => return None,
    };
    Some(values.to_vec())
}

#[cfg(test)]
mod tests {
    use super::{super::ATTRIBUTES, *};

    #[test]
    fn the_meaning_names_each_value() {
        for attribute in ATTRIBUTES.iter().filter(|a| a.meaning != "As for the source.") {
            for value in values(attribute.name).unwrap_or_default() {
                assert!(attribute.meaning.contains(&format!("`{value}`")), "{}: {value}", attribute.name);
            }
        }
    }
}
