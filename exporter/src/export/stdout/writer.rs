//! A batch in, its lines out into a [`Sink`], in large pieces.

use std::{
    io::{self, Write as _},
    time::Instant,
};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message;

use super::{
    Form, Sink,
    pack::Pack,
    people::{Held, People, Place},
};
use crate::{
    export::json::{self, PIECE, Transcoder},
    record::Batch,
};

/// The writing thread's own.
pub(super) struct Writer {
    form: Ready,
    out: Out,
    /// What is ready and not written yet; kept for its memory.
    ready: Vec<u8>,
}

/// A form with what it takes to write it.
enum Ready {
    Json(Transcoder),
    Flat,
    Lines(Box<People>),
    /// Lines that wait a moment for each other.
    Terminal(Box<People>, Held),
}

/// How far a batch got.
pub(super) struct Written {
    /// Records whose line is out in whole.
    pub(super) records: u32,
    pub(super) error: Option<io::Error>,
}

/// The sink, and what is known of what it took.
struct Out {
    sink: Box<dyn Sink>,
    pack: Option<Pack>,
    /// The last write broke off within a line.
    torn: bool,
    /// Ends of lines that it took of this batch.
    lines: usize,
}

// === impl Writer

impl Writer {
    pub(super) fn new(form: Form, sink: Box<dyn Sink>, pack: Option<Pack>) -> Self {
        let form = match form {
            Form::Json => Ready::Json(Transcoder::default()),
            Form::Flat => Ready::Flat,
            Form::Lines { colour, place: Place::Terminal } => {
                Ready::Terminal(Box::new(People::new(colour, Place::Terminal)), Held::default())
            }
            Form::Lines { colour, place } => Ready::Lines(Box::new(People::new(colour, place))),
        };
        Self { form, out: Out { sink, pack, torn: false, lines: 0 }, ready: Vec::new() }
    }

    /// Opens what it writes to.
    pub(super) fn open(&mut self) -> io::Result<()> {
        self.out.sink.open()
    }

    /// Whether lines wait for [`Writer::write_held`].
    pub(super) fn holds(&self) -> bool {
        matches!(&self.form, Ready::Terminal(_, held) if !held.is_empty())
    }

    /// Writes all lines of a batch. On a terminal those that wait are among the records that were written: a terminal takes
    /// them.
    pub(super) fn write(&mut self, batch: &Batch) -> Written {
        self.writing(|writer| writer.lines(batch), batch.records)
    }

    /// Writes the lines that have waited long enough, or with `all` every one.
    pub(super) fn write_held(&mut self, all: bool) -> Written {
        let now = (!all).then(Instant::now);
        let held = |writer: &mut Self| {
            if let Ready::Terminal(people, held) = &mut writer.form {
                people.write(held.ready(now), &mut writer.ready);
            }
            Ok(())
        };
        self.writing(held, 0)
    }

    fn writing(&mut self, fill: impl FnOnce(&mut Self) -> io::Result<()>, records: u32) -> Written {
        let _whole_lines = io::stdout().lock();
        self.ready.clear();
        let torn = usize::from(self.out.torn);
        if self.out.torn {
            self.ready.push(b'\n');
        }
        self.out.lines = 0;
        let result = self.out.sink.begin().and_then(|()| fill(self)).and_then(|()| {
            self.out.write(&mut self.ready)?;
            self.out.sink.flush()
        });
        // What is larger than a piece, as lines for people of a large batch are, left a large buffer.
        self.ready.clear();
        self.ready.shrink_to(2 * PIECE);
        let Err(error) = result else { return Written { records, error: None } };
        if self.out.sink.undo() {
            self.out.torn = false;
            return Written { records: 0, error: Some(error) };
        }
        let lines = u32::try_from(self.out.lines.saturating_sub(torn)).unwrap_or(u32::MAX);
        let records = if matches!(self.form, Ready::Json(_)) || self.out.pack.is_some() { 0 } else { lines };
        Written { records, error: Some(error) }
    }

    fn lines(&mut self, batch: &Batch) -> io::Result<()> {
        let Self { form, out, ready } = self;
        let request = || ExportLogsServiceRequest::decode(batch.bytes.clone()).map_err(io::Error::other);
        match form {
            Ready::Json(transcoder) => {
                transcoder.write(&batch.bytes, ready, &mut |piece| out.write(piece))?;
                ready.push(b'\n');
            }
            Ready::Flat => json::flat(&batch.bytes, ready, &mut |piece| out.write(piece))?,
            Ready::Lines(people) => {
                let lines = people.lines(&request()?);
                people.write(lines, ready);
            }
            Ready::Terminal(people, held) => {
                let now = Instant::now();
                held.add(people.lines(&request()?), now);
                people.write(held.ready(Some(now)), ready);
            }
        }
        Ok(())
    }
}

// === impl Out

impl Out {
    /// Writes all of `piece` and empties it.
    fn write(&mut self, piece: &mut Vec<u8>) -> io::Result<()> {
        let (lines, ends) = (piece.iter().filter(|b| **b == b'\n').count(), piece.last() == Some(&b'\n'));
        if let Some(pack) = &mut self.pack {
            pack.pack(piece)?;
        }
        let mut at = 0;
        let result = loop {
            if at == piece.len() {
                break Ok(());
            }
            match self.sink.write(&piece[at..]) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => at += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => break Err(e),
            }
        };
        if self.pack.is_none() && result.is_err() {
            let out = &piece[..at];
            self.torn = out.last().map_or(self.torn, |last| *last != b'\n');
            self.lines += out.iter().filter(|b| **b == b'\n').count();
        } else if at > 0 {
            self.torn = !ends;
            self.lines += lines;
        }
        piece.clear();
        result
    }
}
