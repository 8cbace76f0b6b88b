//! `flowtel check`: says, line by line with a reason and a remedy, whether this machine can run flowtel with this
//! configuration. Everything is tried for real and taken back.

use std::{fmt::Write as _, time::Duration};

use anstyle::{AnsiColor, Style};

use crate::{
    capture::{
        Error, Neighbours, PROGRAMS, Programs, Rings, Telling,
        cgroup::{self, Cgroup},
        clock, pins, rights, selftest,
        snapshot::Pending,
    },
    config::{self, Loaded, Sources},
    escape::Escaped,
    exit::{Exit, Failure},
    export::{Exporter, Settings},
    ledger::Ledger,
    owner::Helper,
    record::privacy::Policy,
    rights::Plan,
};

/// How long the receiver may take for its answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The outcome of one check.
enum Outcome {
    Holds(String),
    Fails(String),
    /// It does not hold, and flowtel runs without it.
    Lacks(String),
    /// What it builds on does not hold.
    NotTried(&'static str),
}

/// Lines for people, and what they come to.
#[derive(Default)]
struct Report {
    text: String,
    failed: u32,
    rights_missing: bool,
}

/// Tries everything that `flowtel run` does at its start, and prints a line for each. Records nothing.
///
/// # Errors
/// With 77 where rights are missing, with 69 where anything else doesn't hold; the lines say what.
pub fn check(loaded: &Loaded, sources: &Sources) -> Result<(), Failure> {
    let mut report = Report::default();
    // First, for it forks, and what follows starts threads.
    let user = report.given_up(loaded, sources);
    report.kernel_side(loaded, user);
    report.privacy(loaded);
    report.receiver(loaded);
    super::print(report.text.as_bytes())
        .map_err(|e| anyhow::Error::new(e).context("cannot write to standard output"))?;
    match report.failed {
        0 => Ok(()),
        failed => {
            let code = if report.rights_missing { Exit::NoPermission } else { Exit::Unavailable };
            let what = if failed == 1 { "1 check fails".to_owned() } else { format!("{failed} checks fail") };
            Err(code.with(anyhow::anyhow!("{what}: flowtel can't run here as it is configured")))
        }
    }
}

// === impl Report

impl Report {
    /// What `flowtel run` gives up, tried in a process of its own. Returns the user that it becomes.
    fn given_up(&mut self, loaded: &Loaded, sources: &Sources) -> Option<u32> {
        let plan = match Plan::of(&loaded.config, &sources.files()) {
            Ok(plan) => plan,
            Err(e) => {
                self.line("user", &Outcome::Fails(e.to_string()));
                return None;
            }
        };
        for hint in plan.hints() {
            self.line("user", &Outcome::Lacks(hint));
        }
        match plan.try_out() {
            Ok(state) => self.line("afterwards", &Outcome::Holds(state)),
            Err(e) => self.line("afterwards", &Outcome::Fails(e.to_string())),
        }
        let helper = Helper::start(&loaded.config.owner, &plan).map_err(|e| e.to_string());
        let outcome = match helper {
            Ok(Some(helper)) => match helper.state() {
                Some(state) => Outcome::Holds(state.to_string()),
                None => Outcome::Lacks("it ended at once: executables of other users are not known".into()),
            },
            Ok(None) if !plan.wants_helper() => Outcome::Lacks("not wanted (security.helper, security.drop)".into()),
            Ok(None) => Outcome::Lacks(
                "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH are missing: executables of other users' older processes are not \
                 known, new cgroups are found late"
                    .into(),
            ),
            Err(e) => Outcome::Lacks(e),
        };
        self.line("helper", &outcome);
        plan.user().map(|user| user.uid)
    }

    fn kernel_side(&mut self, loaded: &Loaded, user: Option<u32>) {
        const NO_PROGRAMS: Outcome = Outcome::NotTried("needs the lines above");
        let capture = &loaded.config.capture;
        let (major, minor) = rights::NEEDED_KERNEL;
        self.result("kernel", rights::kernel(), |found| format!("Linux {found} ({major}.{minor} or newer is needed)"));
        self.result("cgroup v2", cgroup::mount(), |path| format!("mounted at {}", path.display()));
        let cgroup = self.result("cgroup", Cgroup::open(&capture.cgroup), |cgroup| {
            let what = if cgroup.is_host_root() { "the host's root" } else { "not the host's root: its subtree only" };
            format!("{} ({what})", cgroup.path.display())
        });
        if let Err(e) = clock::settle_in() {
            self.line("clock", &Outcome::Fails(e.to_string()));
        }
        let rights = rights::capabilities();
        self.rights_missing = rights.is_err();
        self.result("rights", rights, |()| "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON are in effect".into());
        if let Some(mode) = rights::lockdown() {
            self.line("lockdown", &Outcome::Holds(format!("{mode}: confidentiality would forbid eBPF")));
        }
        let programs =
            self.result("object", Programs::load(&loaded.config, None), |_| "maps and rings can be made".into());
        let (Some(cgroup), Some(mut programs)) = (cgroup, programs) else {
            for program in PROGRAMS.iter().filter(|program| program.is_needed(&loaded.config)) {
                self.line(program.name, &NO_PROGRAMS);
            }
            self.line("self-test", &NO_PROGRAMS);
            return;
        };
        if let Some(pin) = &capture.pin {
            self.result("pins", pins::look(pin, user), String::clone);
        }
        let ledger = Ledger::default();
        let rings = self.result("rings", Rings::take(&mut programs), |_| {
            let config::Rings { flows, owners, answers, execs, hellos } = &capture.rings;
            let hellos = if loaded.config.hellos() { format!(", hellos {hellos}") } else { String::new() };
            format!("flows {flows}, owners {owners}, answers {answers}, execs {execs}{hellos}")
        });
        let mut all = true;
        for program in PROGRAMS.iter().filter(|program| program.is_needed(&loaded.config)) {
            let attached = self.result(program.name, programs.attach(program, &cgroup), |()| {
                format!("loads and attaches ({}): {}", program.attach, program.purpose)
            });
            all &= attached.is_some();
        }
        let telling = programs.attach_execs(&loaded.config.owner);
        let outcome = if telling == Telling::Files { Outcome::Holds } else { Outcome::Lacks };
        self.line("executables", &outcome(telling.to_string()));
        if all {
            let neighbours = Neighbours::look(&programs, &cgroup);
            let outcome = if neighbours.refused.is_some() { Outcome::Lacks } else { Outcome::Holds };
            self.line("neighbours", &outcome(neighbours.to_string()));
        }
        match rings {
            Some(mut rings) if all => match selftest::run(&mut rings, &cgroup, &ledger.kernel, &mut Vec::new()) {
                Ok(outside @ selftest::Outcome::Outside { .. }) => {
                    self.line("self-test", &Outcome::Lacks(outside.to_string()));
                }
                test => drop(self.result("self-test", test, ToString::to_string)),
            },
            _ => self.line("self-test", &NO_PROGRAMS),
        }
        if capture.takes_snapshot() {
            match super::run::snapshot(&loaded.config, &mut programs, &cgroup).map(Pending::wait) {
                Ok(Ok(snapshot)) => self.line("snapshot", &Outcome::Holds(snapshot.reach.to_string())),
                Ok(Err(e)) => self.line("snapshot", &Outcome::Lacks(format!("{e}; open connections are not told"))),
                Err(e) => self.line("snapshot", &Outcome::Fails(e.to_string())),
            }
        }
    }

    /// Nothing is said where the settings change no record.
    fn privacy(&mut self, loaded: &Loaded) {
        match Policy::read(&loaded.config.record) {
            Ok(None) => {}
            Ok(Some(policy)) => self.line("privacy", &Outcome::Holds(policy.to_string())),
            Err(e) => self.line("privacy", &Outcome::Fails(e.to_string())),
        }
    }

    fn receiver(&mut self, loaded: &Loaded) {
        let outcome = match Exporter::build(&Settings::resolved(loaded)) {
            Err(e) => Outcome::Fails(e.to_string()),
            Ok(exporter) => match probe(&exporter) {
                Ok(to) if matches!(loaded.target, config::Target::Stdout { .. }) => Outcome::Holds(to),
                Ok(to) => Outcome::Holds(format!("{to} takes OTLP")),
                Err(reason) => Outcome::Fails(reason),
            },
        };
        self.line("output", &outcome);
    }

    fn result<T>(&mut self, name: &str, result: Result<T, Error>, holds: impl FnOnce(&T) -> String) -> Option<T> {
        match result {
            Ok(value) => {
                self.line(name, &Outcome::Holds(holds(&value)));
                Some(value)
            }
            Err(e) => {
                self.line(name, &Outcome::Fails(e.to_string()));
                None
            }
        }
    }

    fn line(&mut self, name: &str, outcome: &Outcome) {
        let (word, colour, text) = match outcome {
            Outcome::Holds(text) => ("ok", AnsiColor::Green, text.as_str()),
            Outcome::Fails(text) => {
                self.failed += 1;
                ("FAIL", AnsiColor::Red, text.as_str())
            }
            Outcome::Lacks(text) => ("-", AnsiColor::Yellow, text.as_str()),
            Outcome::NotTried(text) => ("-", AnsiColor::Yellow, *text),
        };
        let style = Style::new().fg_color(Some(colour.into()));
        let mut lines = text.lines();
        // Writing to a String can't fail.
        let _ = writeln!(self.text, "{style}{word:<5}{style:#}{name:<22}{}", Escaped(lines.next().unwrap_or_default()));
        for more in lines {
            let _ = writeln!(self.text, "{:27}{}", "", Escaped(more));
        }
    }
}

fn probe(exporter: &Exporter) -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("the asynchronous runtime does not start: {e}"))?;
    runtime.block_on(exporter.probe(PATIENCE)).map_err(|e| e.to_string())
}
