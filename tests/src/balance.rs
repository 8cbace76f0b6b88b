//! What flowtel says at its end of each event and record: its lines go in, sums and their parts come out, checked.

use std::{collections::BTreeMap, fmt};

use anyhow::{Context as _, Result, anyhow, ensure};

/// What the kernel's programs report.
const KINDS: [&str; 21] = [
    "connect",
    "syn again",
    "used again",
    "netns",
    "established",
    "bind",
    "listen",
    "unlisten",
    "accept",
    "fin",
    "reset",
    "release",
    "close",
    "refused",
    "update",
    "hello",
    "dns",
    "exec",
    "fork",
    "found",
    "gone",
];
/// Further balances, where there is something to balance, each with its verb.
const LOOKUPS: [(&str, &str); 3] = [("executables:", "asked"), ("places:", "asked"), ("names:", "answers")];

/// What flowtel says at its end of each event and record.
#[derive(Debug, Clone)]
pub struct Balance {
    /// By kind of kernel event: how many were seen, and their fates.
    pub kernel: BTreeMap<String, Account>,
    /// Open flows that were forgotten for others.
    pub forgotten: i128,
    /// Events of flows, where some were not asked for.
    pub events: Option<Account>,
    /// How many records were made, and their fates.
    pub records: Account,
    /// Connections to ports of name servers, where there were any.
    pub name_servers: Option<Account>,
    /// How much was lost, and how much of it the records tell; `None`: nothing was.
    pub losses: Option<Losses>,
}

/// What flowtel says at its end of what was lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Losses {
    /// Events and records.
    pub counted: i128,
    /// Of these, told by gap records.
    pub told: i128,
    /// Gap records.
    pub gaps: i128,
}

/// A number and what it is the sum of.
#[derive(Debug, Clone)]
pub struct Account {
    /// The number.
    pub total: i128,
    /// What was carried over from an earlier run, which the parts are the sum of too.
    pub carried: i128,
    /// Its parts by name.
    pub parts: BTreeMap<String, i128>,
}

// === impl Balance

impl Balance {
    /// From what flowtel wrote on standard error.
    ///
    /// # Errors
    /// It is not all there.
    pub fn read(stderr: &str) -> Result<Self> {
        let line = |start: &str| {
            let mut found = stderr.lines().filter_map(|line| line.strip_prefix(start));
            match (found.next(), found.next()) {
                (Some(line), None) => Ok(line.trim().to_owned()),
                _ => Err(anyhow!("there is not exactly one line that starts with {start:?}")),
            }
        };
        let mut kernel = BTreeMap::new();
        let mut forgotten = 0;
        for kind in line("kernel events:")?.split("; ") {
            if let Some(n) = kind.strip_suffix(" open flows forgotten (flow.max_flows)") {
                forgotten = n.trim().parse()?;
                continue;
            }
            // `syn again 10 seen = …`
            let at = kind.find(|c: char| c.is_ascii_digit()).filter(|at| *at > 0);
            let (name, rest) = kind.split_at(at.with_context(|| format!("a kind has a name and numbers: {kind:?}"))?);
            if name.trim() == "unknown" {
                // Of no kind: a loss, and nothing to balance.
                continue;
            }
            kernel.insert(name.trim().to_owned(), Account::read(rest, "seen")?);
        }
        for (name, verb) in LOOKUPS {
            if stderr.lines().any(|line| line.starts_with(name)) {
                let account = Account::read(&line(name)?, verb)?;
                ensure!(account.total == account.parts.values().sum(), "{name} does not add up: {account}");
            }
        }
        let events = "flow events:";
        let told = stderr.lines().any(|line| line.starts_with(events));
        let events = told.then(|| line(events).and_then(|line| Account::read(&line, "told"))).transpose()?;
        let name_servers = "name servers:";
        let any = stderr.lines().any(|line| line.starts_with(name_servers));
        let name_servers = any.then(|| line(name_servers).and_then(|line| Account::read(&line, "connections")));
        let name_servers = name_servers.transpose()?;
        let mut losses = None;
        if stderr.lines().any(|line| line.starts_with("losses:")) {
            // `12 counted = 10 told in 3 gap records + 2 untold`
            let account = Account::read(&line("losses:")?, "counted")?;
            ensure!(account.total == account.parts.values().sum(), "losses do not add up: {account}");
            ensure!(account.parts.values().all(|n| *n >= 0), "losses have a negative part: {account}");
            let (words, told) =
                account.parts.iter().find(|(words, _)| words.starts_with("told in ")).context("told")?;
            let gaps = words.split(' ').nth(2).context("how many gap records")?.parse()?;
            losses = Some(Losses { counted: account.total, told: *told, gaps });
        }
        Ok(Self {
            kernel,
            forgotten,
            events,
            name_servers,
            records: Account::read(&line("records:")?, "made")?,
            losses,
        })
    }

    /// What was lost of kinds of events for this reason.
    pub fn lost(&self, kinds: &[&str], reason: &str) -> i128 {
        kinds.iter().filter_map(|kind| self.kernel.get(*kind)).map(|account| account.part(reason)).sum()
    }

    /// Checks every sum, where begins alone are told or everything.
    ///
    /// # Errors
    /// One does not add up, or something was left behind.
    pub fn adds_up(&self, begins: bool) -> Result<()> {
        let named = |kind: &str| self.kernel.contains_key(kind);
        let unknown = self.kernel.keys().find(|kind| !KINDS.contains(&kind.as_str()));
        ensure!(unknown.is_none() && named("connect") && named("established"), "kinds: {:?}", self.kernel.keys());
        for (kind, account) in self.kernel.iter().chain([(&"records".to_owned(), &self.records)]) {
            let sum = account.parts.values().sum();
            ensure!(account.total + account.carried == sum, "{kind} does not add up: {account}");
            ensure!(account.parts.values().all(|n| *n >= 0), "{kind} has a negative part: {account}");
            // Only what was asked for and not answered yet may be open.
            let stuck = kind != "connect" && account.part("open") != 0;
            ensure!(!stuck, "{kind}: something is left behind: {account}");
            for left in ["unread", "waiting"] {
                ensure!(account.part(left) == 0, "{kind}: something is left behind: {account}");
            }
        }
        let begun = self.kernel["established"].part("joined");
        let mut told = self.records.total - self.losses.map_or(0, |losses| losses.gaps);
        if let Some(events) = &self.events {
            ensure!(events.total == events.parts.values().sum(), "flow events do not add up: {events}");
            ensure!(events.part("made records") == told, "{events}, but there were {told} records");
            // Those that tell begins alone tell each of them.
            told = if begins { told } else { events.total };
        }
        ensure!(if begins { told == begun } else { told >= begun }, "{begun} flows began, but {told} events were told");
        Ok(())
    }
}

impl Account {
    /// `10 seen = 8 joined + 2 own`.
    fn read(text: &str, verb: &str) -> Result<Self> {
        let (total, parts) = text.split_once(" = ").with_context(|| format!("no account: {text:?}"))?;
        let (total, carried) = match total.strip_suffix(" carried over").and_then(|total| total.split_once(" + ")) {
            Some((total, carried)) => (total, carried.parse()?),
            None => (total, 0),
        };
        let total = total.strip_suffix(verb).with_context(|| format!("not what was {verb}: {text:?}"))?;
        let parts = parts.split(" + ").map(|part| {
            let (n, name) = part.split_once(' ').with_context(|| format!("no number and name: {part:?}"))?;
            Ok((name.to_owned(), n.parse()?))
        });
        Ok(Self { total: total.trim().parse()?, carried, parts: parts.collect::<Result<_>>()? })
    }

    /// A part; 0 where it is not named.
    pub fn part(&self, name: &str) -> i128 {
        self.parts.get(name).copied().unwrap_or_default()
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} + {} = {:?}", self.total, self.carried, self.parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balances_are_read_and_what_does_not_add_up_is_found() {
        let read = |established: &str, records: &str| {
            let kernel = "connect 3 seen = 1 joined + 2 open; accept 1 seen = 1 joined";
            let said = format!("log\nkernel events: {kernel}; established {established}; syn again 0 seen = 0 joined");
            Balance::read(&format!("{said}\nexecutables: 2 asked = 1 looked up + 1 cached\nrecords: {records}"))
        };
        let balance = read("2 seen = 2 joined", "2 made = 1 delivered + 1 undelivered at stop").expect("balances");
        assert_eq!(balance.records.part("undelivered at stop"), 1);
        let carried = read("2 seen = 2 joined", "2 made + 3 carried over = 1 delivered + 4 queued for the next run");
        let carried = carried.expect("balances");
        assert_eq!((carried.records.total, carried.records.carried), (2, 3));
        carried.adds_up(true).expect("it does");
        assert_eq!(balance.kernel["connect"].part("open"), 2);
        balance.adds_up(true).expect("it does");
        for (established, records) in [
            ("3 seen = 2 joined", "2 made = 2 delivered"),
            ("3 seen = 2 joined + 1 unread", "2 made = 2 delivered"),
            ("3 seen = 2 joined + 1 open", "2 made = 2 delivered"),
            ("2 seen = 2 joined", "2 made = 1 delivered + 1 waiting"),
            ("2 seen = 2 joined", "1 made = 1 delivered"),
        ] {
            assert!(read(established, records).expect("balances").adds_up(true).is_err(), "{established}; {records}");
        }
    }
}
