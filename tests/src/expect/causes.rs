//! How a record must say that its cause is known (`flowtel.cause.source`): attributes and what is expected come in, nothing
//! comes out where they agree. What a kernel without types of its own can't tell must not be told there.

use anyhow::{Result, ensure};

use super::{End, Failure};
use crate::{
    machine,
    record::{Attributes, Value},
};

const SOURCE: &str = "flowtel.cause.source";

/// Of an end; `begun`: its begin was told.
pub(super) fn of_end(is: &mut Attributes, end: &End, begun: bool) -> Result<()> {
    let sources: &[&str] = match end.reason {
        "" => &[""],
        "fin" => &["state", "segment"],
        // What is older than flowtel has no end that the kernel tells; and an end may be told by its reset alone.
        "timeout" if begun && machine::tells_types() => &["socket_error"],
        "timeout" => &["socket_error", "state"],
        _ => &["socket_error", "segment"],
    };
    one_of(is, sources)
}

/// Of a failure.
pub(super) fn of_failure(is: &mut Attributes, failure: &Failure) -> Result<()> {
    let error = if machine::tells_types() { "socket_error" } else { "segment" };
    let sources: &[&str] = match (failure.error, failure.outgoing, *failure.attempts.end()) {
        ("refused", true, _) => &[error],
        // Without types a process's raw socket could be the one that refused.
        ("refused", false, _) if machine::tells_types() => &["segment"],
        ("refused", false, _) => &[""],
        ("timed_out", ..) if machine::tells_types() => &["socket_error"],
        ("timed_out", ..) => &["timer"],
        ("unreachable", _, 0) => &["state"],
        ("unreachable", ..) => &["socket_error"],
        ("aborted", ..) if machine::tells_types() => &["call", "socket_error"],
        ("aborted" | "denied", ..) => &["call"],
        _ => &[""],
    };
    one_of(is, sources)
}

/// The empty word stands for nothing.
fn one_of(is: &mut Attributes, sources: &[&str]) -> Result<()> {
    let source = match is.remove(SOURCE) {
        None => String::new(),
        Some(Value::Text(source)) => source,
        Some(other) => format!("{other:?}"),
    };
    ensure!(sources.contains(&source.as_str()), "{SOURCE} is {source:?}, not one of {sources:?}");
    Ok(())
}
