//! `flowtel explain`: says of a record how flowtel knows what is in it, and why it lacks what is not.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use crate::{
    config::Loaded,
    exit::{Exit, Failure},
    explain::{
        explain,
        told::{self, Told},
    },
    flow::FlowId,
    record::privacy::Policy,
    telemetry::status::ask::{self, AskError},
};

/// Records that are explained at once: what a person can read.
const MOST: usize = 20;

/// What is to be explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A flow that is open now: the running flowtel is asked.
    Flow(FlowId),
    /// Records of a file, `-` for standard input; of this flow alone where one is given.
    Records {
        /// The file.
        file: PathBuf,
        /// The flow.
        flow: Option<String>,
    },
}

/// Explains.
///
/// # Errors
/// Nobody answers, the flow is not open, or the file can't be read: 66 where it is not there, 65 where it holds something
/// else.
pub fn run(loaded: &Loaded, what: &What) -> Result<(), Failure> {
    let (told, more) = match what {
        What::Flow(id) => (vec![ask(loaded, *id)?], 0),
        What::Records { file, flow } => read(file, flow.as_deref())?,
    };
    let left_out = |attribute: &str| Policy::leaves_out(&loaded.config.record, attribute);
    let texts: Vec<_> = told.iter().map(|record| explain(record, &left_out)).collect();
    let mut text = texts.join("\n");
    if more > 0 {
        text += &format!(
            "\n{more} further records were left out. Name a flow to choose: flowtel explain --record FILE ID\n"
        );
    }
    super::print(text.as_bytes()).map_err(|e| anyhow::Error::new(e).context("cannot write to standard output").into())
}

fn ask(loaded: &Loaded, id: FlowId) -> Result<Told, Failure> {
    let path = &loaded.config.telemetry.status.socket;
    if path.as_os_str().is_empty() {
        let empty = anyhow::anyhow!("telemetry.status.socket is empty: there is no socket to ask at");
        return Err(Exit::Config.with(empty));
    }
    let answer = ask::ask_flow(path, id).map_err(|e| match e {
        AskError::Forbidden { .. } => Exit::NoPermission.with(e),
        _ => Exit::Unavailable.with(e),
    })?;
    let unknown = || {
        Exit::Unavailable.with(anyhow::anyhow!(
            "no flow {id} is open, or flowtel is too busy to say. It keeps no history: give a record of it, flowtel explain --record FILE {id}"
        ))
    };
    let request = answer.request.ok_or_else(unknown)?;
    told::of_request(request).into_iter().next().map(|told| told.still_open(answer.older)).ok_or_else(unknown)
}

fn read(file: &Path, flow: Option<&str>) -> Result<(Vec<Told>, usize), Failure> {
    let input: Box<dyn BufRead> = if file.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        let opened = File::open(file)
            .map_err(|e| Exit::NoInput.with(anyhow::Error::new(e).context(format!("opening {}", file.display()))))?;
        Box::new(BufReader::new(opened))
    };
    let (mut told, mut more) = (Vec::new(), 0);
    let wanted = |record: &Told| flow.is_none_or(|id| record.flow_id() == Some(id));
    told::read(input, |record| match wanted(&record) {
        true if told.len() < MOST => told.push(record),
        true => more += 1,
        false => {}
    })
    .map_err(|e| Exit::Data.with(anyhow::Error::new(e).context(format!("reading records of {}", file.display()))))?;
    if told.is_empty() {
        let of = flow.map(|id| format!(" of flow {id}")).unwrap_or_default();
        return Err(Exit::Data.with(anyhow::anyhow!("{} holds no record{of}", file.display())));
    }
    Ok((told, more))
}
