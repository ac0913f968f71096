//! The exporters of opentelemetry-otlp, which make the messages and send nothing: what they would send is
//! handed over, for the queue and its thread know better when and how often.
//!
//! Source: opentelemetry-otlp 0.33. Address, protocol and time limit are set, so that none is read from the
//! environment; headers that are read from there go no further than [`Kept`]. Compression cannot be set to
//! none: a message that the environment has them compress is opened again.

use std::future::Future;
use std::io::Read as _;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use flate2::read::GzDecoder;
use http::header::CONTENT_ENCODING;
use http::{Request, Response};
use opentelemetry::logs::{Logger as _, LoggerProvider as _};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_http::{Bytes, HttpClient, HttpError};
use opentelemetry_otlp::{
    LogExporter, Protocol, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{
    LogBatch, LogExporter as _, SdkLogRecord, SdkLogger, SdkLoggerProvider,
};
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};

use crate::catalog::families::AGENT_DROPPED;
use crate::error::Error;
use crate::store::Store;
use crate::store::metrics::Counter;
use crate::store::sync::lock;

/// Nobody is there: an address has to stand in a request.
const ADDRESS: &str = "http://queue.invalid/";
/// Nothing takes any time.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of a message that was compressed, once it is opened again: the exporters' own limit.
const OPENED_BYTES: u64 = 64 << 20;

/// A message to a collector, and how many records are in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) body: Vec<u8>,
    pub(crate) items: u64,
}

/// The exporter of one signal.
#[derive(Debug)]
pub(crate) struct Exporter<E> {
    exporter: E,
    kept: Arc<Kept>,
    scope: InstrumentationScope,
    /// Records that it made no message of.
    lost: Counter,
}

impl Exporter<SpanExporter> {
    /// # Errors
    /// The exporter's, if it cannot be built.
    pub(crate) fn of_spans(store: &Store, resource: &Resource) -> Result<Self, Error> {
        let kept = Arc::new(Kept::default());
        let built = set(&kept, SpanExporter::builder().with_http()).build();
        let mut exporter = built.map_err(|why| Error::refused("spans", why))?;
        exporter.set_resource(&of_sdk(resource));
        Ok(Self::new(exporter, kept, store, "spans"))
    }

    /// The message of these spans; `None` if there are none, or if they are lost, which is counted.
    pub(super) fn message(&self, spans: Vec<SpanData>) -> Option<Message> {
        let items = spans.len() as u64;
        self.taken(items, self.exporter.export(spans))
    }
}

/// The exporter of log records, and the only way to make one.
#[derive(Debug)]
pub(crate) struct LogRecords {
    exporter: LogExporter,
    /// It has nowhere to send them.
    logger: SdkLogger,
}

impl Exporter<LogRecords> {
    /// # Errors
    /// The exporter's, if it cannot be built.
    pub(crate) fn of_logs(store: &Store, resource: &Resource) -> Result<Self, Error> {
        let kept = Arc::new(Kept::default());
        let built = set(&kept, LogExporter::builder().with_http()).build();
        let mut exporter = built.map_err(|why| Error::refused("logs", why))?;
        exporter.set_resource(&of_sdk(resource));
        // Without one given it reads the environment for a resource.
        let nothing = opentelemetry_sdk::Resource::builder_empty().build();
        let provider = SdkLoggerProvider::builder().with_resource(nothing).build();
        let logger = provider.logger("");
        Ok(Self::new(
            LogRecords { exporter, logger },
            kept,
            store,
            "logs",
        ))
    }

    pub(super) fn record(&self) -> SdkLogRecord {
        self.exporter.logger.create_log_record()
    }

    /// The message of these records; `None` if there are none, or if they are lost, which is counted.
    pub(super) fn message(&self, records: &[SdkLogRecord]) -> Option<Message> {
        let all: Vec<_> = records.iter().map(|record| (record, &self.scope)).collect();
        let export = self.exporter.exporter.export(LogBatch::new(&all));
        self.taken(records.len() as u64, export)
    }
}

/// Leaves nothing to be read from the environment that can be said here.
fn set<B: WithExportConfig + WithHttpConfig>(kept: &Arc<Kept>, builder: B) -> B {
    let client: Arc<dyn HttpClient> = Arc::<Kept>::clone(kept);
    builder
        .with_shared_http_client(client)
        .with_endpoint(ADDRESS)
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(TIMEOUT)
        .with_retry_policy(RetryPolicy::disabled())
}

/// What is measured in the SDK's own type, which is all that its exporters take.
fn of_sdk(resource: &Resource) -> opentelemetry_sdk::Resource {
    let attributes = resource.attributes.iter().filter_map(|attribute| {
        let value = match attribute.value.as_ref()?.value.as_ref()? {
            any_value::Value::StringValue(text) => Value::from(text.clone()),
            any_value::Value::IntValue(number) => Value::from(*number),
            // Nothing else is found out about a process.
            _ => return None,
        };
        Some(KeyValue::new(attribute.key.clone(), value))
    });
    let builder = opentelemetry_sdk::Resource::builder_empty();
    builder.with_attributes(attributes).build()
}

impl<E> Exporter<E> {
    fn new(exporter: E, kept: Arc<Kept>, store: &Store, signal: &'static str) -> Self {
        let scope = InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        Self {
            exporter,
            kept,
            scope,
            lost: store
                .metrics
                .own_counter(&AGENT_DROPPED, &[signal, "encode"]),
        }
    }

    /// Who measured.
    pub(super) fn scope(&self) -> InstrumentationScope {
        self.scope.clone()
    }

    fn taken(&self, items: u64, export: impl Future<Output = OTelSdkResult>) -> Option<Message> {
        if items == 0 {
            return None;
        }
        // Ready at once, since the client is.
        let exported = pin!(export).poll(&mut Context::from_waker(Waker::noop()));
        let body = lock(&self.kept.0).take();
        let Some(body) = body.filter(|_| matches!(exported, Poll::Ready(Ok(())))) else {
            self.lost.add(items);
            return None;
        };
        Some(Message { body, items })
    }
}

/// A client that keeps what it shall send.
#[derive(Debug, Default)]
struct Kept(Mutex<Option<Vec<u8>>>);

#[async_trait]
impl HttpClient for Kept {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let encoding = request.headers().get(CONTENT_ENCODING).cloned();
        let body = request.into_body();
        let body = match encoding.as_ref().map(|encoding| encoding.as_bytes()) {
            None => Vec::from(body),
            Some(b"gzip") => {
                let mut opened = Vec::new();
                GzDecoder::new(&*body)
                    .take(OPENED_BYTES)
                    .read_to_end(&mut opened)?;
                opened
            }
            Some(_) => return Err("nobody here can open this".into()),
        };
        *lock(&self.0) = Some(body);
        Ok(Response::new(Bytes::new()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use opentelemetry_sdk::error::OTelSdkError;

    use super::*;
    use crate::store::traces::tests::dropped;

    fn sent(kept: &Arc<Kept>, encoding: Option<&str>, body: &[u8]) -> OTelSdkResult {
        let mut request = Request::post(ADDRESS);
        if let Some(encoding) = encoding {
            request = request.header(CONTENT_ENCODING, encoding);
        }
        let request = request.body(Bytes::copy_from_slice(body)).unwrap();
        let sent = futures_executor::block_on(kept.send_bytes(request));
        let failed = |why: HttpError| OTelSdkError::InternalFailure(why.to_string());
        sent.map(drop).map_err(failed)
    }

    #[test]
    fn what_the_environment_has_compressed_is_opened_and_what_nobody_can_open_is_counted() {
        let store = Store::new(1_000);
        let exporter = Exporter::of_spans(&store, &Resource::default()).unwrap();
        let kept = &exporter.kept;
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(b"three spans").unwrap();
        let gzip = gzip.finish().unwrap();
        for (encoding, body, taken) in [
            (None, &b"three spans"[..], true),
            (Some("gzip"), &gzip, true),
            (Some("gzip"), b"no gzip", false),
            (Some("zstd"), b"three spans", false),
        ] {
            let message = exporter.taken(3, async { sent(kept, encoding, body) });
            let expected = Message {
                body: b"three spans".to_vec(),
                items: 3,
            };
            assert_eq!(message, taken.then_some(expected), "{encoding:?}");
        }
        assert_eq!(dropped(&store.metrics, "encode"), 6);
    }

    #[test]
    fn an_exporter_that_has_us_wait_is_not_waited_for() {
        let store = Store::new(1_000);
        let exporter = Exporter::of_spans(&store, &Resource::default()).unwrap();
        assert_eq!(exporter.taken(2, std::future::pending()), None);
        assert_eq!(dropped(&store.metrics, "encode"), 2);
    }
}
