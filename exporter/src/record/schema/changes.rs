//! What is different from version 1 of the schema: the table "Changes since version 1" of docs/schema.md. A reader that was
//! written for version 1 finds here what it has to change.

/// Each: the attribute or field, what it was in version 1, what it is now.
const CHANGES: &[[&str; 3]] = &[
    ["`process.real_user.id`", "`process.user.id`", "The value was and is the real user id; the name says so now."],
    [
        "`event.name`",
        "always there",
        "Only for Loki's own endpoint, or with `record.event_name_attribute = true`: OpenTelemetry has deprecated the \
         attribute. The log record's field `event_name` is always there.",
    ],
    [
        "`log.record.uid`, `service.instance.id`",
        "the same for every flowtel of a host",
        "A flowtel below a cgroup (`capture.cgroup`) has its own; of a flowtel for the whole host they are what they were.",
    ],
    [
        "`flowtel.process.source`, `flowtel.process.begin.pid`",
        "not there",
        "How the process is known, and whom the begin named where the end names another one. Of a connection that nobody \
         was seen to accept the process is named that listens on the very socket which took it, where in version 1 it was \
         the last one to bind its port.",
    ],
    [
        "`error.type`",
        "`unreachable` was also what was left when nothing else fitted",
        "Only what is known; else `_OTHER`. ICMP \"port unreachable\" is `refused`, shutdown() and the like `aborted`, a \
         cgroup program's refusal `denied`; see Causes.",
    ],
    ["`flowtel.cause.source`", "-", "How `error.type` and `flowtel.flow.end.reason` are known."],
    [
        "`flowtel.flow.end.reason`, `flowtel.….bytes`, `flowtel.….packets`, `flowtel.tcp.retransmits`",
        "on every end",
        "Absent where they are not known.",
    ],
    ["schema_url of the scope", "OpenTelemetry's", "flowtel's own; the names of OpenTelemetry are those of 1.44."],
];

/// The table as Markdown.
pub(super) fn markdown() -> String {
    let rows: String = CHANGES.iter().map(|[what, was, is]| format!("| {what} | {was} | {is} |\n")).collect();
    format!(
        "\n## Changes since version 1\n\n`record.schema_version = 1` writes the old names for one release more.\n\n\
         | attribute or field | in version 1 | in version 2 |\n|---|---|---|\n{rows}"
    )
}
