//! The metrics, pushed by OTLP at an interval: opentelemetry's instruments read [`METRICS`], its periodic reader asks them,
//! and opentelemetry-otlp sends what it gets over a client that the export room builds, so that TLS, proxies and names
//! are treated alike.
//!
//! The reader has a thread of its own. A receiver that does not answer holds up nothing but the metrics.

use std::{fmt, future, sync::Arc, time::Duration};

use opentelemetry::{InstrumentationScope, KeyValue, metrics::MeterProvider as _};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Compression, MetricExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    metrics::{PeriodicReader, SdkMeterProvider, Temporality, data::ResourceMetrics, exporter::PushMetricExporter},
};
use tokio::runtime;

use super::{Form, METRICS, Metric, Point, Value};
use crate::{
    config,
    export::{BuildError, MetricsClient},
    record::schema,
    telemetry::instance::Instance,
};

/// Metrics that are being pushed. Dropped without [`Push::stop`], they end without a last push.
#[derive(Debug)]
pub struct Push {
    provider: SdkMeterProvider,
}

/// The exporter, on flowtel's runtime, and with flowtel's words for what goes wrong.
struct Exporter {
    otlp: MetricExporter,
    endpoint: String,
    timeout: Duration,
    runtime: runtime::Handle,
}

/// A client for opentelemetry-otlp. Each request has a limit from outside.
#[derive(Debug)]
struct Client(MetricsClient);

// === impl Push

impl Push {
    /// Begins to push, once an `interval`. Has to be called on `runtime`.
    ///
    /// # Errors
    /// The client can't be built: the error names the setting.
    pub fn start(
        client: MetricsClient,
        interval: Duration,
        resource: Resource,
        instance: &Arc<Instance>,
        runtime: runtime::Handle,
    ) -> Result<Self, BuildError> {
        let (endpoint, timeout) = (client.endpoint.clone(), client.timeout);
        let compression = match client.compression {
            config::Compression::None => None,
            config::Compression::Gzip => Some(Compression::Gzip),
            config::Compression::Zstd => Some(Compression::Zstd),
        };
        let failed = |e: opentelemetry_otlp::ExporterBuildError| BuildError::Metrics(e.to_string());
        // By gRPC too: the client makes a call of the request.
        let builder =
            MetricExporter::builder().with_http().with_http_client(Client(client)).with_endpoint(endpoint.as_str());
        let builder = match compression {
            Some(compression) => builder.with_compression(compression),
            None => builder,
        };
        let otlp = builder.with_timeout(timeout).build().map_err(failed)?;
        let exporter = Exporter { otlp, endpoint, timeout, runtime };
        let reader = PeriodicReader::builder(exporter).with_interval(interval).build();
        let provider = SdkMeterProvider::builder().with_reader(reader).with_resource(resource).build();
        let scope = InstrumentationScope::builder(schema::SCOPE)
            .with_version(env!("CARGO_PKG_VERSION"))
            .with_schema_url(schema::SCHEMA_URL)
            .build();
        let meter = provider.meter_with_scope(scope);
        for metric in METRICS {
            instrument(&meter, metric, instance);
        }
        Ok(Self { provider })
    }

    /// Pushes once more, and ends. Blocks up to `limit`.
    pub fn stop(self, limit: Duration) {
        // What went wrong with the last push was said when it did.
        let _ = self.provider.shutdown_with_timeout(limit);
    }
}

fn instrument(meter: &opentelemetry::metrics::Meter, metric: &'static Metric, instance: &Arc<Instance>) {
    let instance = Arc::clone(instance);
    let (name, unit, about) = (metric.name, metric.unit, metric.about);
    let counts = move |instance: &Instance| {
        metric.points(instance).into_iter().filter_map(|point| match point.value {
            Value::Count(n) => Some((n, attributes(metric, &point))),
            Value::Measure(_) => None,
        })
    };
    let measures = move |instance: &Instance| {
        metric.points(instance).into_iter().filter_map(|point| match point.value {
            Value::Measure(n) => Some((n, attributes(metric, &point))),
            Value::Count(_) => None,
        })
    };
    // The provider keeps the instruments.
    match (metric.form, metric.is_measure()) {
        (Form::Counter, false) => drop(
            meter
                .u64_observable_counter(name)
                .with_unit(unit)
                .with_description(about)
                .with_callback(move |o| counts(&instance).for_each(|(n, a)| o.observe(n, &a)))
                .build(),
        ),
        (Form::Counter, true) => drop(
            meter
                .f64_observable_counter(name)
                .with_unit(unit)
                .with_description(about)
                .with_callback(move |o| measures(&instance).for_each(|(n, a)| o.observe(n, &a)))
                .build(),
        ),
        (Form::UpDown, false) => drop(
            meter
                .i64_observable_up_down_counter(name)
                .with_unit(unit)
                .with_description(about)
                .with_callback(move |o| {
                    counts(&instance).for_each(|(n, a)| o.observe(i64::try_from(n).unwrap_or(i64::MAX), &a));
                })
                .build(),
        ),
        (Form::UpDown, true) => drop(
            meter
                .f64_observable_up_down_counter(name)
                .with_unit(unit)
                .with_description(about)
                .with_callback(move |o| measures(&instance).for_each(|(n, a)| o.observe(n, &a)))
                .build(),
        ),
        (Form::Gauge, false) => drop(
            meter
                .u64_observable_gauge(name)
                .with_unit(unit)
                .with_description(about)
                .with_callback(move |o| counts(&instance).for_each(|(n, a)| o.observe(n, &a)))
                .build(),
        ),
        (Form::Gauge, true) => drop(
            meter
                .f64_observable_gauge(name)
                .with_unit(unit)
                .with_description(about)
                .with_callback(move |o| measures(&instance).for_each(|(n, a)| o.observe(n, &a)))
                .build(),
        ),
    }
}

fn attributes(metric: &Metric, point: &Point) -> Vec<KeyValue> {
    metric.attributes.iter().zip(&point.attributes).map(|(key, value)| KeyValue::new(*key, value.clone())).collect()
}

// === impl Exporter

impl PushMetricExporter for Exporter {
    /// Called on the reader's own thread, which belongs to no runtime.
    fn export(&self, metrics: &ResourceMetrics) -> impl Future<Output = OTelSdkResult> + Send {
        let sent = self.runtime.block_on(async {
            // Retries of its own included.
            tokio::time::timeout(self.timeout.saturating_mul(2), self.otlp.export(metrics)).await
        });
        let result = sent.unwrap_or(Err(OTelSdkError::Timeout(self.timeout)));
        if let Err(error) = &result {
            tracing::warn!(endpoint = self.endpoint, %error, "the receiver took no metrics");
        }
        future::ready(result)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.otlp.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.otlp.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

// === impl Client

impl HttpClient for Client {
    // As the trait's macro writes it.
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move { self.0.send(request).await })
    }
}
