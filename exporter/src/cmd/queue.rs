//! `flowtel queue`: a queue's directory comes in; a table, a verdict or its batches go out. Reads only.
//!
//! Must never wait for the directory's holder, or write anything but what was asked for on standard output.

use std::{
    fmt::Write as _,
    io::{self, BufWriter, Write as _},
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::anyhow;
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::{Timestamp, tz::TimeZone};
use serde_json::json;

use crate::{
    escape::Escaped,
    exit::{Exit, Failure},
    export,
    queue::inspect::{Met, Read, Survey},
};

/// Less is done before a progress bar could be read.
const LONG: u64 = 32 << 20;

/// Form of exported batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// OTLP/JSON, one request a line, as flowtel writes on standard output.
    Json,
    /// Binary protobuf: each request with its length before it as a varint.
    Protobuf,
}

/// What a segment comes to.
#[derive(Debug, Default, Clone)]
struct Sum {
    batches: u64,
    settled: u64,
    records: u64,
    bytes: u64,
    first: Option<u64>,
    last: Option<u64>,
    damage: Vec<String>,
}

/// Prints segments, batches, records, bytes, times and the oldest batch's age.
///
/// # Errors
/// With 69 where there is no such directory, with 66 where it is no queue's.
pub fn inspect(directory: &Path, json: bool) -> Result<(), Failure> {
    let survey = survey(directory)?;
    let mut total = Sum::default();
    let mut rows = Vec::new();
    for (first, size) in &survey.segments {
        let mut sum = Sum { bytes: *size, ..Sum::default() };
        survey.walk(*first, Read::None, |met| {
            sum.add(met);
            Ok::<_, Failure>(())
        })?;
        total.join(&sum);
        rows.push((*first, sum));
    }
    let text = if json { as_json(&survey, &rows, &total) } else { as_table(&survey, &rows, &total) };
    super::print(text.as_bytes()).map_err(unwritable)
}

/// Checks every checksum.
///
/// # Errors
/// With 1 where anything is damaged; the lines say what. With 69 where there is no such directory.
pub fn verify(directory: &Path) -> Result<(), Failure> {
    let survey = survey(directory)?;
    let bar = bar(&survey);
    let (mut text, mut total, mut bad) = (String::new(), Sum::default(), 0u64);
    for (first, size) in &survey.segments {
        let mut sum = Sum::default();
        survey.walk(*first, Read::All, |met| {
            if let Met::Batch { sequence, read: Some(Err(e)), records, settled, .. } = &met {
                let waits = if *settled { ", which is settled" } else { "" };
                sum.damage.push(format!("batch {sequence} of {records} records{waits} is damaged: {e}"));
            }
            sum.add(met);
            Ok::<_, Failure>(())
        })?;
        for damage in &sum.damage {
            let _ = writeln!(text, "segment {first:020}: {damage}");
        }
        bad += sum.damage.len() as u64;
        total.join(&sum);
        bar.inc(*size);
    }
    bar.finish_and_clear();
    let Sum { batches, settled, records, .. } = total;
    let verdict = if bad == 0 { "sound" } else { "DAMAGED" };
    let _ = writeln!(text, "{verdict}: {batches} batches with {records} records wait, {settled} are settled");
    super::print(text.as_bytes()).map_err(unwritable)?;
    if bad == 0 {
        return Ok(());
    }
    let places = if bad == 1 { "1 place".to_owned() } else { format!("{bad} places") };
    Err(anyhow!(
        "the queue in {} is damaged in {places}: flowtel starts with it and loses those batches",
        shown(directory)
    )
    .into())
}

/// Writes the batches that wait, oldest first.
///
/// # Errors
/// With 1 where some are damaged, or standard output can't be written; with 69 where there is no such directory.
pub fn export(directory: &Path, form: Form) -> Result<(), Failure> {
    let survey = survey(directory)?;
    let bar = bar(&survey);
    // Not anstream's: it would take for colours what is part of a message.
    let mut out = BufWriter::with_capacity(1 << 20, io::stdout().lock());
    let (mut bytes, mut bad) = (Vec::new(), 0u64);
    let written = survey.segments.iter().try_for_each(|(first, size)| {
        let one = survey.walk(*first, Read::Waiting, |met| {
            match met {
                Met::Batch { read: Some(Ok(batch)), .. } => {
                    bytes.clear();
                    match form {
                        Form::Json if export::json_line(&batch, &mut bytes).is_err() => bad += 1,
                        Form::Json => out.write_all(&bytes)?,
                        Form::Protobuf => {
                            prost::encode_length_delimiter(batch.bytes.len(), &mut bytes).map_err(io::Error::other)?;
                            out.write_all(&bytes)?;
                            out.write_all(&batch.bytes)?;
                        }
                    }
                }
                Met::Batch { read: Some(Err(_)), .. } | Met::Damage(_) => bad += 1,
                Met::Batch { .. } | Met::Unfinished => {}
            }
            Ok::<_, io::Error>(())
        });
        bar.inc(*size);
        one
    });
    let written = written.and_then(|()| out.flush());
    bar.finish_and_clear();
    match written {
        // Whoever reads has what he wanted.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        result => result.map_err(unwritable)?,
    }
    match bad {
        0 => Ok(()),
        n => Err(anyhow!("{n} places in {} are damaged and not among what was written", shown(directory)).into()),
    }
}

fn survey(directory: &Path) -> Result<Survey, Failure> {
    let survey = Survey::of(directory).map_err(|e| {
        let context = format!("cannot read the queue's directory {}", shown(directory));
        Exit::Unavailable.with(anyhow::Error::new(e).context(context))
    })?;
    if !survey.is_queue() {
        let error = anyhow!("{} is not the directory of a queue: it holds none of its files", shown(directory));
        return Err(Exit::NoInput.with(error));
    }
    if let Some(holder) = &survey.holder {
        // On standard error: standard output is for programs.
        let note = format!("flowtel: {} is in use by {holder}: what is told may change meanwhile", shown(directory));
        let _ = writeln!(anstream::stderr(), "{note}");
    }
    Ok(survey)
}

/// On a terminal only, and for long work only.
fn bar(survey: &Survey) -> ProgressBar {
    let bytes = survey.bytes();
    let target = if bytes < LONG { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(bytes), target);
    let style = ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes}, {eta} left");
    style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style))
}

fn as_json(survey: &Survey, rows: &[(u64, Sum)], total: &Sum) -> String {
    let of = |sum: &Sum| {
        json!({
            "batches": sum.batches,
            "records": sum.records,
            "settled_batches": sum.settled,
            "bytes": sum.bytes,
            "first_time_unix_nano": sum.first,
            "last_time_unix_nano": sum.last,
            "damage": sum.damage,
        })
    };
    let segments = rows.iter().map(|(first, sum)| {
        let mut row = of(sum);
        row["segment"] = json!(format!("{first:020}"));
        row
    });
    let mut all = of(total);
    all["directory"] = json!(survey.path.to_string_lossy());
    all["in_use"] = json!(survey.holder.is_some());
    all["holder_pid"] = json!(survey.holder.and_then(|holder| holder.0));
    all["oldest_age_seconds"] = json!(total.first.map(|first| age(first).as_secs()));
    all["foreign_files"] = json!(survey.foreign_count);
    all["segments"] = segments.collect();
    format!("{all:#}\n")
}

fn as_table(survey: &Survey, rows: &[(u64, Sum)], total: &Sum) -> String {
    let mut text = format!(
        "{:<20} {:>8} {:>10} {:>10} {:>8}  oldest record\n",
        "segment", "batches", "records", "size", "settled"
    );
    for (name, sum) in rows.iter().map(|(first, sum)| (format!("{first:020}"), sum)).chain([("all".to_owned(), total)])
    {
        let size = bytesize::ByteSize(sum.bytes).display().iec().to_string();
        let oldest = sum.first.map_or_else(|| "-".to_owned(), time);
        let _ =
            writeln!(text, "{name:<20} {:>8} {:>10} {size:>10} {:>8}  {oldest}", sum.batches, sum.records, sum.settled);
    }
    for (first, damage) in rows.iter().flat_map(|(first, sum)| sum.damage.iter().map(move |d| (first, d))) {
        let _ = writeln!(text, "segment {first:020}: {}", Escaped(damage));
    }
    if survey.foreign_count > 0 {
        let names: Vec<_> = survey.foreign.iter().map(|name| Escaped(name).to_string()).collect();
        let more = if survey.foreign.len() < survey.foreign_count { ", …" } else { "" };
        let _ = writeln!(text, "not the queue's: {}{more}", names.join(", "));
    }
    match total.first {
        Some(first) => {
            let _ = writeln!(text, "the oldest waits for {}", humantime::format_duration(age(first)));
        }
        None => text.push_str("nothing waits\n"),
    }
    text
}

fn time(nanoseconds: u64) -> String {
    let time = Timestamp::from_nanosecond(nanoseconds.into());
    time.map_or_else(|_| "?".into(), |t| t.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// How long ago, in whole seconds.
fn age(nanoseconds: u64) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Duration::from_secs(now.saturating_sub(Duration::from_nanos(nanoseconds)).as_secs())
}

fn shown(path: &Path) -> String {
    Escaped(&path.to_string_lossy()).to_string()
}

fn unwritable(error: io::Error) -> Failure {
    anyhow::Error::new(error).context("cannot write to standard output").into()
}

impl Sum {
    fn add(&mut self, met: Met) {
        match met {
            Met::Batch { settled: true, .. } => self.settled += 1,
            Met::Batch { records, first, last, .. } => {
                self.batches += 1;
                self.records += u64::from(records);
                self.first = Some(self.first.map_or(first, |f| f.min(first)));
                self.last = Some(self.last.map_or(last, |l| l.max(last)));
            }
            Met::Damage(what) => self.damage.push(what),
            Met::Unfinished => {}
        }
    }

    fn join(&mut self, other: &Self) {
        self.batches += other.batches;
        self.settled += other.settled;
        self.records += other.records;
        self.bytes += other.bytes;
        self.first = [self.first, other.first].into_iter().flatten().min();
        self.last = [self.last, other.last].into_iter().flatten().max();
        self.damage.extend(other.damage.iter().cloned());
    }
}
