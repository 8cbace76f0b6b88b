//! A real OpenTelemetry Collector on 127.0.0.1: OTLP goes in by gRPC or HTTP, or a file of OTLP/JSON lines; the records
//! that it wrote to a file come out.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    certificates::Certificates,
    flowtel::Launch,
    machine, ports,
    record::{self, Record},
    scene::{Belongings, Scene},
    sys, wait,
};

/// How long a start or a stop may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// OTLP's transports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC.
    Grpc,
    /// HTTP with binary protobuf.
    Http,
}

/// How it writes records to its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// OTLP/JSON lines, for [`Collector::records`].
    Json,
    /// Binary protobuf, for [`crate::tally`]: a third of the bytes.
    Protobuf,
}

/// A collector, started or not. Its ports and its file stay the same when it is started again.
pub struct Collector {
    program: PathBuf,
    directory: PathBuf,
    grpc: u16,
    http: u16,
    health: u16,
    form: Form,
    /// Where its certificates are.
    tls: Option<PathBuf>,
    child: Option<Child>,
    belongings: Arc<Belongings>,
}

impl Collector {
    /// A collector that does not run yet.
    ///
    /// # Errors
    /// It is not built: skips the scenario. Or its configuration can't be written.
    pub fn prepare(scene: &Scene) -> Result<Self> {
        Self::prepare_in(scene, "collector")
    }

    /// As [`Self::prepare_in`], with a file in this form.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn prepare_as(scene: &Scene, name: &str, form: Form) -> Result<Self> {
        let mut collector = Self::prepare_in(scene, name)?;
        collector.form = form;
        fs::write(collector.file("config.yaml"), collector.configuration())?;
        Ok(collector)
    }

    /// As [`Self::prepare`], with files in a directory of this name: for a scenario with several.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn prepare_in(scene: &Scene, name: &str) -> Result<Self> {
        let program = machine::otelcol()?;
        let directory = scene.directory().join(name);
        fs::create_dir_all(&directory)?;
        let [grpc, http, health] = ports::free()?;
        let form = Form::Json;
        let collector = Self {
            program,
            directory,
            grpc,
            http,
            health,
            form,
            tls: None,
            child: None,
            belongings: scene.belongings(),
        };
        fs::write(collector.file("config.yaml"), collector.configuration())?;
        fs::write(collector.input(), "")?;
        Ok(collector)
    }

    /// From its next start on it wants TLS, and a client's certificate.
    ///
    /// # Errors
    /// Its configuration can't be written.
    pub fn secure(&mut self, certificates: &Certificates) -> Result<()> {
        self.tls = Some(certificates.directory().to_owned());
        Ok(fs::write(self.file("config.yaml"), self.configuration())?)
    }

    /// A collector that runs.
    ///
    /// # Errors
    /// As [`Self::prepare`], or it does not start.
    pub fn start(scene: &Scene) -> Result<Self> {
        let mut collector = Self::prepare(scene)?;
        collector.run()?;
        Ok(collector)
    }

    /// Starts it, again or for the first time, and waits until it is healthy.
    ///
    /// # Errors
    /// It ends at once, or is not healthy in time.
    pub fn run(&mut self) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(self.file("config.yaml")).env_clear().stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::options().create(true).append(true).open(self.file("log"))?).current_dir("/");
        // As much as a 2-core machine can spare.
        command.env("GOMAXPROCS", "2");
        sys::die_with_me(&mut command);
        let child = command.spawn().context("starting the collector")?;
        self.belongings.add_process(child.id());
        self.child = Some(child);
        wait::until("the collector's health", PATIENCE, || {
            self.alive()?;
            Ok(self.healthy().then_some(()))
        })
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Writes a configuration file by which flowtel sends here, in one step, as an editor does it.
    ///
    /// # Errors
    /// It can't be written.
    pub fn configure(&self, file: &Path, protocol: Protocol) -> Result<()> {
        let word = if protocol == Protocol::Grpc { "grpc" } else { "http/protobuf" };
        let endpoint = self.address(protocol);
        let text =
            format!("[export]\nendpoint = \"http://{endpoint}\"\nprotocol = \"{word}\"\nbatch.max_age = \"50ms\"\n");
        let aside = file.with_extension("new");
        fs::write(&aside, text)?;
        Ok(fs::rename(&aside, file)?)
    }

    /// Where it listens.
    pub fn address(&self, protocol: Protocol) -> SocketAddr {
        let port = match protocol {
            Protocol::Grpc => self.grpc,
            Protocol::Http => self.http,
        };
        (Ipv4Addr::LOCALHOST, port).into()
    }

    /// Points flowtel at it, by the variables that OpenTelemetry has for that.
    pub fn receive_from(&self, launch: Launch, protocol: Protocol) -> Launch {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let endpoint = format!("{scheme}://{}", self.address(protocol));
        launch.environment("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint).environment(
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            match protocol {
                Protocol::Grpc => "grpc",
                Protocol::Http => "http/protobuf",
            },
        )
    }

    /// The file whose lines of OTLP/JSON it receives too.
    pub fn input(&self) -> PathBuf {
        self.file("in.json")
    }

    /// Stops it in an orderly way: afterwards everything that it took is in its file.
    ///
    /// # Errors
    /// It was dead already, or does not end.
    pub fn stop(&mut self) -> Result<()> {
        self.alive()?;
        let mut child = self.child.take().context("the collector runs")?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a process id")?;
        kill_process(pid, Signal::TERM)?;
        let ended = wait::until("the collector's end", PATIENCE, || Ok(child.try_wait()?));
        self.belongings.forget_process(child.id());
        if ended.is_err() {
            child.kill()?;
            child.wait()?;
        }
        let status = ended?;
        ensure!(status.success(), "the collector ended with {status}: {}", self.log());
        Ok(())
    }

    /// What it has written so far.
    ///
    /// # Errors
    /// The file is no OTLP/JSON.
    pub fn records(&self) -> Result<Vec<Record>> {
        let text = fs::read_to_string(self.output()).unwrap_or_default();
        // A line that is still being written counts when it is whole.
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        record::decode_lines(whole.lines()).context("what the collector wrote")
    }

    /// The metrics that it has written so far: one OTLP/JSON request each.
    ///
    /// # Errors
    /// The file is no JSON.
    pub fn metrics(&self) -> Result<Vec<serde_json::Value>> {
        let text = fs::read_to_string(self.file("metrics.json")).unwrap_or_default();
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        whole.lines().map(|line| serde_json::from_str(line).context("what the collector wrote")).collect()
    }

    /// The file that it writes records to.
    pub fn output(&self) -> PathBuf {
        self.file(match self.form {
            Form::Json => "out.json",
            Form::Protobuf => "out.otlp",
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    fn alive(&mut self) -> Result<()> {
        let child = self.child.as_mut().context("the collector is not running")?;
        match child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the collector is dead ({status}): {}", self.log()),
        }
    }

    fn healthy(&self) -> bool {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.health))?;
            stream.set_read_timeout(Some(wait::patient(Duration::from_secs(2))))?;
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().is_ok_and(|answer| answer.split(' ').nth(1) == Some("200"))
    }

    fn configuration(&self) -> String {
        let Self { grpc, http, health, .. } = self;
        let (input, output) = (quoted(&self.input()), quoted(&self.output()));
        let form = match self.form {
            Form::Json => "json",
            Form::Protobuf => "proto",
        };
        let tls = self.tls.as_ref().map_or_else(String::new, |directory| {
            let file = |name| quoted(&directory.join(name));
            let (own, key, clients) = (file("server.pem"), file("server.key"), file("ca.pem"));
            format!(", tls: {{ cert_file: {own}, key_file: {key}, client_ca_file: {clients} }}")
        });
        let metrics = quoted(&self.file("metrics.json"));
        format!(
            "\
receivers:
  otlp:
    protocols:
      grpc: {{ endpoint: 127.0.0.1:{grpc}{tls} }}
      http: {{ endpoint: 127.0.0.1:{http}{tls} }}
  otlpjsonfile:
    include: [{input}]
    start_at: beginning
    poll_interval: 50ms
    include_file_name: false
exporters:
  file:
    path: {output}
    format: {form}
    append: true
    flush_interval: 50ms
  file/metrics:
    path: {metrics}
    append: true
    flush_interval: 50ms
extensions:
  health_check: {{ endpoint: 127.0.0.1:{health} }}
service:
  extensions: [health_check]
  telemetry:
    metrics: {{ level: none }}
    logs: {{ level: warn }}
  pipelines:
    logs: {{ receivers: [otlp, otlpjsonfile], exporters: [file] }}
    metrics: {{ receivers: [otlp], exporters: [file/metrics] }}
"
        )
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            self.belongings.forget_process(child.id());
            // Gone already, or killed now: either way nothing is left.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display())
}
