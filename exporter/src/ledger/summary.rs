//! The one line that a person reads at the end: how much came, and whether it all arrived. The whole balance is the
//! [`Ledger`]'s own text.

use std::fmt;

use super::Ledger;
use crate::words::thousands;

/// Displays a ledger as one line: `1,204 begins, 2,408 records delivered, 0 lost`. A connection within this host begins at both
/// ends; flowtel's own are left out.
#[derive(Debug)]
pub struct Summary<'a>(pub &'a Ledger);

impl Ledger {
    /// Records that were made, or taken over, and that no receiver and no reader got.
    pub fn records_lost(&self) -> u64 {
        let r = &self.records;
        [&r.rejected, &r.queue_full, &r.undelivered, &r.write_failed, &r.corrupt].map(|count| count.get()).iter().sum()
    }
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ledger = self.0;
        let r = &ledger.records;
        if ledger.replay.read.get() > 0 {
            let connections = ledger.replay.begun.get() + ledger.replay.unseen.get();
            write!(f, "{} connections, ", thousands(connections))?;
        } else {
            write!(f, "{} begins, ", thousands(ledger.kernel.established.joined.get()))?;
        }
        write!(f, "{} records delivered, {} lost", thousands(r.delivered.get()), thousands(ledger.records_lost()))?;
        for (count, words) in [
            (r.folded.get(), "folded into others"),
            (r.queued.get(), "kept in the queue's directory for the next start"),
        ] {
            if count > 0 {
                write!(f, ", {} {words}", thousands(count))?;
            }
        }
        let lost = ledger.records_lost();
        // Before they became records.
        let events = ledger.lost().0.saturating_sub(lost);
        if events > 0 {
            write!(f, "; {} events were lost", thousands(events))?;
        }
        if lost + events > 0 {
            f.write_str("; -v says where")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_says_how_much_came_and_whether_it_arrived() {
        let ledger = Ledger::default();
        ledger.kernel.established.joined.add(1204);
        ledger.records.made.add(2_408_000);
        ledger.records.delivered.add(2_408_000);
        assert_eq!(Summary(&ledger).to_string(), "1,204 begins, 2,408,000 records delivered, 0 lost");
        ledger.records.rejected.add(3);
        ledger.records.write_failed.add(4);
        let text = Summary(&ledger).to_string();
        assert!(text.starts_with("1,204 begins, 2,408,000 records delivered, 7 lost; "), "{text}");
    }
}
