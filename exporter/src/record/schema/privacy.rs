//! What of a record may be personal data: groups of attributes in, words for the settings and the pages out.
//!
//! Groups hold the attributes that name a person, a machine, or what somebody runs. docs/privacy.md explains them to users.

use super::ATTRIBUTES;

/// Attributes that one word names in the settings.
#[derive(Debug)]
pub struct Group {
    /// The word.
    pub name: &'static str,
    /// Its attributes.
    pub attributes: &'static [&'static str],
    /// What they say about people.
    pub about: &'static str,
}

/// All groups. What is in one can be hashed.
pub const GROUPS: &[Group] = &[
    Group {
        name: "addresses",
        attributes: &[super::SOURCE_ADDRESS, super::DESTINATION_ADDRESS],
        about: "An address names a machine, and often its user.",
    },
    Group {
        name: "names",
        attributes: &[super::SOURCE_NAMES, super::DESTINATION_NAMES, super::TLS_SERVER_NAME],
        about: "The names show which sites and services somebody uses.",
    },
    Group { name: "users", attributes: &[super::USER_ID], about: "The account that runs the process." },
    Group {
        name: "containers",
        attributes: &[super::CONTAINER_ID, super::POD_UID, super::UNIT],
        about: "Where the process runs. A unit can hold an account's number: `user@1000.service`.",
    },
    Group {
        name: "programs",
        attributes: &[
            super::THREAD_NAME,
            super::EXECUTABLE_NAME,
            super::EXECUTABLE_PATH,
            super::COMMAND,
            super::PARENT_NAME,
            super::PARENT_PATH,
        ],
        about: "What somebody runs. A path can hold an account's name: `/home/alice/bin/tool`.",
    },
    Group {
        name: "processes",
        attributes: &[super::PID, super::PROCESS_BEGIN_PID, super::PARENT_PID],
        about: "Process ids, which join a record with other logs of the host.",
    },
];

/// Attributes that say the same as another one: the fate of the other is theirs.
const ALIASES: &[(&str, &str)] = &[
    (super::USER_ID_V1, super::USER_ID),
    (super::CLIENT_ADDRESS, super::SOURCE_ADDRESS),
    (super::TRACEE_SRC, super::SOURCE_ADDRESS),
    (super::SERVER_ADDRESS, super::DESTINATION_ADDRESS),
    (super::TRACEE_DST, super::DESTINATION_ADDRESS),
    (super::CLIENT_PORT, super::SOURCE_PORT),
    (super::TRACEE_SRC_PORT, super::SOURCE_PORT),
    (super::SERVER_PORT, super::DESTINATION_PORT),
    (super::TRACEE_DST_PORT, super::DESTINATION_PORT),
    (super::TRACEE_DIRECTION, super::DIRECTION),
    (super::TRACEE_SRC_DNS, super::SOURCE_NAMES),
    (super::TRACEE_DST_DNS, super::DESTINATION_NAMES),
];

/// Attributes that mean nothing without another one: left out with it.
const BESIDE: &[(&str, &str)] = &[
    (super::SOURCE_NAMES_STATE, super::SOURCE_NAMES),
    (super::SOURCE_NAMES_ORIGIN, super::SOURCE_NAMES),
    (super::SOURCE_NAMES_AGE, super::SOURCE_NAMES),
    (super::DESTINATION_NAMES_STATE, super::DESTINATION_NAMES),
    (super::DESTINATION_NAMES_ORIGIN, super::DESTINATION_NAMES),
    (super::DESTINATION_NAMES_AGE, super::DESTINATION_NAMES),
];

/// The attributes of a group; none where there is no such group.
pub fn group(name: &str) -> &'static [&'static str] {
    GROUPS.iter().find(|group| group.name == name).map_or(&[], |group| group.attributes)
}

/// The attribute that an attribute repeats, or itself.
pub fn original(attribute: &str) -> &str {
    ALIASES.iter().find(|(alias, _)| *alias == attribute).map_or(attribute, |(_, of)| of)
}

/// The attribute without which an attribute means nothing, if there is one.
pub fn beside(attribute: &str) -> Option<&'static str> {
    BESIDE.iter().find(|(name, _)| *name == attribute).map(|(_, of)| *of)
}

/// Every attribute that a record of a flow can have, also by its name of version 1.
pub fn of_flows() -> impl Iterator<Item = &'static str> {
    let all = ATTRIBUTES.iter().map(|attribute| attribute.name);
    all.filter(|name| !name.starts_with("flowtel.gap.")).chain([super::USER_ID_V1])
}

/// The words that name attributes: groups, then each attribute of a record of a flow.
pub fn words() -> impl Iterator<Item = &'static str> {
    let attributes = ATTRIBUTES.iter().map(|attribute| attribute.name);
    GROUPS.iter().map(|group| group.name).chain(attributes.filter(|name| !name.starts_with("flowtel.gap.")))
}

/// The words for what can be hashed: groups, then their attributes.
pub fn hashed_words() -> impl Iterator<Item = &'static str> {
    GROUPS.iter().map(|group| group.name).chain(GROUPS.iter().flat_map(|group| group.attributes.iter().copied()))
}

/// The section about it of docs/schema.md.
pub(super) fn markdown() -> String {
    let rows: String = GROUPS
        .iter()
        .map(|Group { name, attributes, about }| {
            let list: Vec<_> = attributes.iter().map(|attribute| format!("`{attribute}`")).collect();
            format!("| `{name}` | {} | {about} |\n", list.join(", "))
        })
        .collect();
    format!(
        "\n## Left out, shortened, hashed\n\n\
         `record.attributes`, `record.shorten` and `record.hash` change what stands in these attributes; docs/privacy.md has \
         the rules and the forms. What is said here of an attribute's presence is what holds without these settings.\n\n\
         | group | attributes | what they say |\n|---|---|---|\n{rows}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_aliases_and_companions_are_attributes_of_the_schema_and_what_is_no_group_is_none() {
        let known = |name: &str| of_flows().any(|attribute| attribute == name);
        for name in GROUPS.iter().flat_map(|group| group.attributes) {
            assert!(known(name), "{name}");
        }
        for (a, b) in ALIASES.iter().chain(BESIDE) {
            assert!(known(a) && known(b), "{a} {b}");
        }
        assert!(group("nobody").is_empty() && original("source.port") == "source.port");
        assert_eq!(
            (original("src"), beside("flowtel.source.dns.age")),
            ("source.address", Some("flowtel.source.dns.names"))
        );
    }

    #[test]
    fn the_page_on_privacy_explains_each_group_and_each_attribute_of_it() {
        let page = include_str!("../../../../docs/privacy.md");
        for Group { name, attributes, .. } in GROUPS {
            for word in attributes.iter().chain([name]) {
                assert!(page.contains(&format!("`{word}`")), "docs/privacy.md says nothing of {word}");
            }
        }
    }
}
