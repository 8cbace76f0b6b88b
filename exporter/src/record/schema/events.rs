//! Which event has which attributes: for machines that check records. The table of attributes says the same to people, in
//! [`Attribute::present`].

use super::{
    ATTEMPTS, ATTRIBUTES, Attribute, BEGIN, CAUSE_SOURCE, CLIENT_HELLO, DELTA_DESTINATION_BYTES,
    DELTA_DESTINATION_PACKETS, DELTA_RETRANSMITS, DELTA_SOURCE_BYTES, DELTA_SOURCE_PACKETS, DESTINATION_ADDRESS,
    DESTINATION_BYTES, DESTINATION_PACKETS, DURATION, END, END_REASON, ERROR_TYPE, EVENT_NAME, FAILED, GAP, GAP_EVENTS,
    GAP_REASON, GAP_SINCE, GAP_STAGE, GAP_TOTAL, HANDSHAKE, NETWORK_TYPE, OPEN, PROCESS_BEGIN_PID, RETRANSMITS, RTT,
    SOURCE_BYTES, SOURCE_PACKETS, TLS_ECH, TLS_JA4, TLS_PARTIAL, TLS_PROTOCOLS, TLS_SERVER_NAME, TLS_VERSIONS,
    TRANSPORT, TUNNEL, UID, UPDATE,
};

/// An event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Its name, `event_name` of the log record.
    pub name: &'static str,
    /// What happened.
    pub brief: &'static str,
}

/// Every event.
pub const EVENTS: &[Event] = &[
    Event {
        name: BEGIN,
        brief: "A TCP flow began: its handshake is complete. Exactly one for each connection and side.",
    },
    Event { name: END, brief: "A TCP flow ended." },
    Event { name: FAILED, brief: "An attempt to open a TCP connection never became a flow." },
    Event { name: OPEN, brief: "A TCP flow was open already when flowtel started. Once for each start." },
    Event { name: UPDATE, brief: "A TCP flow is open, and this is what has passed so far (`flow.update`)." },
    Event {
        name: CLIENT_HELLO,
        brief: "What a client said first over TLS, as soon as it was seen (`capture.tls`). At most one for each side of a flow.",
    },
    Event { name: GAP, brief: "Something is known to be missing." },
];

/// Whether records of an event have an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Each has it.
    Always,
    /// Some have it: [`Attribute::present`] says which.
    Sometimes,
    /// None has it.
    Never,
}

/// Whether records of the event `event` have this attribute.
pub fn presence(attribute: &Attribute, event: &str) -> Presence {
    /// What each record has.
    const EACH: [&str; 1] = [UID];
    /// What each record about a flow or an attempt has.
    const EACH_FLOW: [&str; 3] = [DESTINATION_ADDRESS, TRANSPORT, NETWORK_TYPE];
    /// What each gap has.
    const EACH_GAP: [&str; 5] = [GAP_EVENTS, GAP_TOTAL, GAP_STAGE, GAP_REASON, GAP_SINCE];
    let name = attribute.name;
    if EACH.contains(&name) {
        return Presence::Always;
    }
    if name == EVENT_NAME {
        return Presence::Sometimes;
    }
    let of_gaps = name.starts_with("flowtel.gap.");
    if event == GAP || of_gaps {
        return match (event == GAP && of_gaps, EACH_GAP.contains(&name)) {
            (false, _) => Presence::Never,
            (true, true) => Presence::Always,
            (true, false) => Presence::Sometimes,
        };
    }
    if EACH_FLOW.contains(&name) {
        return Presence::Always;
    }
    let events: &[&str] = match name {
        HANDSHAKE => &[BEGIN],
        ERROR_TYPE | ATTEMPTS => return if event == FAILED { Presence::Always } else { Presence::Never },
        CAUSE_SOURCE => &[END, FAILED],
        TUNNEL => &[BEGIN, UPDATE, CLIENT_HELLO, END, FAILED],
        TLS_SERVER_NAME | TLS_PROTOCOLS | TLS_VERSIONS | TLS_JA4 | TLS_ECH | TLS_PARTIAL => &[CLIENT_HELLO],
        END_REASON => &[END],
        PROCESS_BEGIN_PID => &[UPDATE, CLIENT_HELLO, END],
        DURATION
        | SOURCE_BYTES
        | DESTINATION_BYTES
        | SOURCE_PACKETS
        | DESTINATION_PACKETS
        | RETRANSMITS
        | RTT
        | DELTA_SOURCE_BYTES
        | DELTA_DESTINATION_BYTES
        | DELTA_SOURCE_PACKETS
        | DELTA_DESTINATION_PACKETS
        | DELTA_RETRANSMITS => &[UPDATE, END],
        _ => return Presence::Sometimes,
    };
    if events.contains(&event) { Presence::Sometimes } else { Presence::Never }
}

/// The attributes that records of an event may have, in the order in which they are written.
pub fn attributes(event: &str) -> impl Iterator<Item = (&'static Attribute, Presence)> {
    ATTRIBUTES.iter().filter_map(move |attribute| match presence(attribute, event) {
        Presence::Never => None,
        presence => Some((attribute, presence)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_attribute_belongs_to_an_event() {
        for attribute in ATTRIBUTES {
            assert!(
                EVENTS.iter().any(|event| presence(attribute, event.name) != Presence::Never),
                "{}",
                attribute.name
            );
        }
    }

    #[test]
    fn people_and_machines_are_told_the_same() {
        for attribute in ATTRIBUTES {
            let everywhere = EVENTS.iter().all(|event| presence(attribute, event.name) == Presence::Always);
            assert!(!everywhere || attribute.present == "always", "{}", attribute.name);
            let of_gaps = EVENTS.iter().all(|e| (presence(attribute, e.name) != Presence::Never) == (e.name == GAP));
            assert_eq!(of_gaps, attribute.present.starts_with("gap"), "{}", attribute.name);
        }
    }
}
