//! A [`Status`] as aligned lines for people. What came from outside is shown without control characters, whoever answered.

use std::{fmt::Write as _, time::Duration};

use bytesize::ByteSize;

use super::{Account, Audit, Status};
use crate::escape::Escaped;

/// The lines.
pub fn lines(status: &Status) -> String {
    let mut out = String::new();
    let mut line = |name: &str, text: String| {
        // Writing to a String can't fail.
        let _ = writeln!(out, "{}", format!("{name:<16}{text}").trim_end());
    };
    let started = status
        .started
        .parse::<jiff::Timestamp>()
        .map(|at| at.to_zoned(jiff::tz::TimeZone::system()).strftime("%F %T %:z").to_string());
    let started = started.unwrap_or_else(|_| Escaped(&status.started).to_string());
    line("flowtel", format!("{}, process {}", Escaped(&status.version), status.pid));
    line("up", format!("{}, since {started}", time(status.uptime_seconds)));

    let capture = &status.capture;
    let state = if capture.alive { "running" } else { "STANDS STILL" };
    let silence = capture.silence_seconds.map_or("never".into(), |s| format!("{} ago", time(s)));
    line("capture", format!("{state}; rings read {} times, the last {silence}", capture.rounds));

    let export = &status.export;
    let since = export.for_seconds.map_or(String::new(), |s| format!(" for {}", time(s)));
    let outages = if export.outages == 0 { String::new() } else { format!("; outages: {}", export.outages) };
    line("export", format!("{}{since}: {}{outages}", Escaped(&export.state), Escaped(&export.endpoint)));
    if let Some(error) = &export.last_error {
        let ago = export.last_error_seconds.map_or(String::new(), |s| format!(" {} ago", time(s)));
        line("", format!("last error{ago}: {}", Escaped(error)));
    }

    let queue = &status.queue;
    line(
        "queue",
        format!(
            "{} records in {} batches ({} in flight), {} of {}",
            queue.records,
            queue.batches,
            queue.in_flight,
            size(queue.bytes),
            size(queue.max_bytes)
        ),
    );
    // What is made and not sealed yet is in no queue: it goes there within `export.batch.max_age`.
    let waiting = status.records.parts.iter().find(|part| part.name == "waiting").map_or(0, |part| part.count);
    if waiting > queue.records {
        line("", format!("{} more in the batch that is being filled", waiting - queue.records));
    }
    let caches = &status.caches;
    line(
        "tables",
        format!(
            "{} open flows, {} open attempts, names of {} addresses ({})",
            caches.open_flows,
            caches.open_attempts,
            caches.addresses,
            size(caches.names_bytes)
        ),
    );
    let audit = &status.audit;
    if audit.deaf {
        line("audit", "DEAF: another BPF program takes flowtel's callbacks away, and ends go unreported".into());
    }
    if audit.callbacks_taken + audit.asked_again > 0 {
        let name = if audit.deaf { "" } else { "audit" };
        let Audit { callbacks_taken, asked_again, .. } = audit;
        line(
            name,
            format!("callbacks were taken away {callbacks_taken} times, and asked for again {asked_again} times"),
        );
    }
    let process = &status.process;
    let number = |n: Option<u64>| n.map_or("?".into(), |n| n.to_string());
    line(
        "process",
        format!(
            "{} resident, {} CPU time, {} threads, {} file descriptors",
            process.memory_bytes.map_or("?".into(), size),
            time(process.cpu_seconds),
            number(process.threads),
            number(process.file_descriptors)
        ),
    );
    let rights = &status.rights;
    if let Some(main) = &rights.main {
        line("rights", Escaped(&main.to_string()).to_string());
    }
    if let Some((pid, helper)) = &rights.helper {
        line("", format!("helper {pid}: {}", Escaped(&helper.to_string())));
    }
    if rights.refused_calls > 0 {
        line("", format!("{} SYSTEM CALLS WERE REFUSED: the log names them", rights.refused_calls));
    }
    let configuration = &status.configuration;
    if configuration.reloads + configuration.refused > 0 {
        let ago = configuration.last_seconds.map_or(String::new(), |s| format!(", the last {} ago", time(s)));
        line("configuration", format!("{} reloads, {} refused{ago}", configuration.reloads, configuration.refused));
        if let Some(why) = &configuration.last_refused {
            line("", format!("the last was refused: {}", Escaped(why)));
        }
        if !configuration.restart_for.is_empty() {
            line("", format!("to be restarted for: {}", Escaped(&configuration.restart_for.join(", "))));
        }
    }

    out.push_str("\nkernel events\n");
    let met = status.kernel_events.iter().filter(|account| account.total > 0);
    balances(&mut out, met, "seen");
    out.push_str("\nrecords\n");
    balances(&mut out, [&status.records], "made");
    if audit.looks.total > 0 {
        out.push_str("\naudit\n");
        balances(&mut out, [&audit.looks], "asked");
        if audit.ends.total > 0 {
            balances(&mut out, [&audit.ends], "found");
        }
    }
    let asked: Vec<_> = caches.lookups.iter().filter(|account| account.total > 0).collect();
    if !asked.is_empty() {
        out.push_str("\nlook-ups\n");
        balances(&mut out, asked, "asked");
    }
    out
}

/// A line each: `connect  10 seen = 8 joined + 2 own`; what is 0 is left out.
fn balances<'a>(out: &mut String, accounts: impl IntoIterator<Item = &'a Account>, verb: &str) {
    let accounts: Vec<_> = accounts.into_iter().collect();
    let digits = accounts.iter().map(|a| a.total.to_string().len()).max().unwrap_or(1);
    for account in accounts {
        let shown = account.parts.iter().enumerate().filter(|(i, part)| *i == 0 || part.count > 0);
        let parts: Vec<_> = shown.map(|(_, p)| format!("{} {}", p.count, Escaped(&p.name.replace('_', " ")))).collect();
        let name = Escaped(&account.name.replace('_', " ")).to_string();
        // Writing to a String can't fail.
        let _ = writeln!(out, "  {name:<14}{:>digits$} {verb} = {}", account.total, parts.join(" + "));
    }
}

/// Two units of time at most; what came from elsewhere may be no time at all.
fn time(seconds: f64) -> String {
    let Ok(time) = Duration::try_from_secs_f64(seconds) else { return "?".into() };
    let rounded = if time < Duration::from_secs(1) {
        Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(0))
    } else {
        Duration::from_secs(time.as_secs())
    };
    let text = humantime::format_duration(rounded).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

fn size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::tests::instance;

    #[test]
    fn a_status_survives_json_and_its_lines_are_harmless() {
        let mut status = Status::of(&instance());
        status.export.last_error = Some("no \u{1b}[2J".into());
        status.export.endpoint = "http://h\n".into();
        // Times that were measured have digits enough to come back as their neighbours.
        (status.uptime_seconds, status.process.cpu_seconds) = (2.5, 0.25);
        for time in [
            &mut status.capture.silence_seconds,
            &mut status.export.for_seconds,
            &mut status.export.last_error_seconds,
            &mut status.configuration.last_seconds,
        ] {
            *time = Some(1.5);
        }
        let json = serde_json::to_string(&status).expect("it is plain data");
        let again: Status = serde_json::from_str(&json).expect("and back");
        assert_eq!(again, status);
        let text = lines(&again);
        assert!(text.lines().all(|line| !line.chars().any(char::is_control)), "{text}");
        assert!(text.contains("  syn again     7 seen = 0 joined + 2 ring full + 5 unread\n"), "{text}");
        assert!(text.contains("no \\u{1b}[2J"), "{text}");
        assert!(text.contains("18446744073709551615 made = 5 delivered + 18446744073709551610 waiting"), "{text}");
    }

    #[test]
    fn times_have_two_units_and_nonsense_has_none() {
        assert_eq!(time(0.05), "50ms");
        assert_eq!(time(3.0 * 3600.0 + 125.5), "3h 2m");
        assert_eq!(time(f64::NAN), "?");
        assert_eq!(time(-1.0), "?");
    }
}
