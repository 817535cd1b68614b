//! The way out of the sandbox: standard `wasi:http`, for what a plugin asks for and is granted, through the same
//! [`Egress`] as everything else.
//!
//! A denied request is an error that the guest sees (`HTTP-request-denied`), and is kept for the operator. Everything
//! belongs to the guest's store: when that is dropped, requests under way are dropped with it, which closes their connections.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::header;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited, StreamBody};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;
use wasmtime_wasi_http::{Error as HttpError, RequestOptions, WasiBody, WasiHttpHooks};

use super::access::{Grant, Missing, Request, admit};
use super::call::Way;
use super::exchange::Sent;
use super::guest::Meter;
use super::host::OutboundLimits;
use super::log::{LogLevel, LogLine};
use super::tape::{PLACEHOLDER, Tape};
use super::uses::Sending;
use crate::egress::{self, Broken, Egress, EgressError, Incoming, Placeholders, Secret};

/// Bytes of what is written to one body at once.
const BODY_CHUNK_BYTES: usize = 16 * 1024;

/// What the calls of one plugin may reach: its request, what is granted of it, and the secrets that are.
#[derive(Debug, Default)]
pub struct Reach {
    /// What the plugin asks for.
    pub request: Request,
    /// What it is granted.
    pub grant: Grant,
    /// The secrets that the grant names, as far as they are set.
    pub secrets: Vec<Arc<Secret>>,
}

impl Reach {
    /// A setting: as granted, else the plugin's own default.
    pub(super) fn setting(&self, name: &str) -> Option<&str> {
        let wish = self.request.settings.iter().find(|wish| wish.name == name)?;
        self.grant.settings.get(name).or(wish.default.as_ref()).map(String::as_str)
    }

    /// Whether the plugin asks for a secret, and is granted it.
    fn names_secret(&self, name: &str) -> bool {
        let names = |rules: &[super::HttpRule]| rules.iter().any(|rule| rule.secrets.contains(name));
        names(&self.request.http) && names(&self.grant.http)
    }
}

/// What one call may send.
pub(super) struct Outbound {
    meter: Arc<Meter>,
    reach: Arc<Reach>,
    tape: Option<Arc<Tape>>,
    egress: Egress,
    limits: OutboundLimits,
    /// A place for each request at once.
    places: Option<Arc<Semaphore>>,
    requests: u32,
    placeholders: Placeholders,
}

type Io = Box<dyn Future<Output = Result<(), HttpError>> + Send>;
type Answer = Box<dyn Future<Output = Result<(http::Response<WasiBody>, Io), HttpError>> + Send>;

/// A request that may be made.
struct Prepared {
    request: egress::Request,
    sending: Sending,
    wanted: String,
}

impl Outbound {
    pub(super) fn new(meter: Arc<Meter>, (reach, tape): Way, egress: Egress, limits: OutboundLimits) -> Self {
        let placeholders = Placeholders::default();
        Self { meter, reach, tape, egress, limits, places: None, requests: 0, placeholders }
    }

    /// A text that stands for the secret in the requests of this call.
    pub(super) fn placeholder(&mut self, name: &str) -> Option<String> {
        if let Some(text) = self.placeholders.of(name) {
            return Some(text.to_owned());
        }
        let secret = self.reach.secrets.iter().find(|secret| secret.name() == name);
        match secret.filter(|_| self.reach.names_secret(name)) {
            Some(secret) => {
                #[expect(clippy::disallowed_methods, reason = "nobody else may know it; no test goes by its value")]
                let random: u128 = rand::random();
                let text = format!("{PLACEHOLDER}{random:032x}");
                self.placeholders.add(text.clone(), Arc::clone(secret));
                Some(text)
            }
            None => {
                let granted = self.reach.names_secret(name);
                let why = if granted { "it is granted, and not set on this server" } else { "it is not granted" };
                self.meter.uses().deny(format!("the secret `{name}`"), why.to_owned());
                None
            }
        }
    }

    pub(super) fn setting(&self, name: &str) -> Option<String> {
        let value = self.reach.setting(name)?.to_owned();
        self.meter.uses().settings.insert(name.to_owned());
        Some(value)
    }

    /// Holds a request against the rules.
    fn prepare(&mut self, parts: http::request::Parts) -> Result<Prepared, HttpError> {
        let (mut url, mut headers) = (parts.uri.to_string(), parts.headers);
        if parts.uri.path_and_query().is_none() {
            url.push('/');
        }
        let url = Url::parse(&url).map_err(|_| HttpError::HttpRequestUriInvalid)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(HttpError::HttpRequestUriInvalid);
        }
        let origin = url.origin().ascii_serialization();
        let wanted = format!("{} {origin}{}", parts.method, url.path());
        let denied = |why: String| {
            self.meter.uses().deny(wanted.clone(), why);
            Err(HttpError::HttpRequestDenied)
        };
        self.requests += 1;
        if self.requests > self.limits.requests_max {
            return denied(format!("a call makes at most {} requests (`tool_requests_max`)", self.limits.requests_max));
        }
        let admitted = match admit(&self.reach.request, &self.reach.grant, parts.method.as_str(), &url) {
            Ok(admitted) => admitted,
            Err(Missing::Request) => return denied("the plugin does not ask for it in its request".to_owned()),
            Err(Missing::Grant) => return denied("the plugin asks for it, and it is not granted".to_owned()),
        };
        let named: BTreeSet<String> = self.placeholders.named_in(&url, &headers).map(str::to_owned).collect();
        if let Some(name) = named.iter().find(|name| !admitted.secrets.contains(name.as_str())) {
            return denied(format!("the secret `{name}` is not granted for it"));
        }
        let rule = admitted.rule.exercise(parts.method.as_str());
        let sending = Sending { origin, rule, secrets: named, bytes: 0 };
        // The client writes its own; and what a body is long is known when it has come.
        headers.remove(header::HOST);
        headers.remove(header::CONTENT_LENGTH);
        let secrets = self.placeholders.clone();
        // A host keeps what it was sent, and may give it in answer to another request, of this call or of a later one.
        let known =
            self.reach.secrets.iter().filter(|secret| self.reach.names_secret(secret.name())).cloned().collect();
        let request = egress::Request { method: parts.method, url, headers, body: Bytes::new(), secrets, known };
        Ok(Prepared { request, sending, wanted })
    }
}

impl WasiHttpHooks for Outbound {
    fn send_request(&mut self, request: http::Request<WasiBody>, options: Option<RequestOptions>, _: Io) -> Answer {
        let (parts, body) = request.into_parts();
        let prepared = match self.prepare(parts) {
            Ok(prepared) => prepared,
            Err(error) => return Box::new(async { Err(error) }),
        };
        let at_once = self.limits.requests_at_once_max as usize;
        let places = Arc::clone(self.places.get_or_insert_with(|| Arc::new(Semaphore::new(at_once))));
        let (egress, meter, limits) = (self.egress.clone(), Arc::clone(&self.meter), self.limits);
        let tape = self.tape.clone().map(|tape| (tape.turn(), tape));
        Box::new(async move {
            let place = places.acquire_owned().await.map_err(|_| HttpError::ConnectionLimitReached)?;
            let Prepared { mut request, mut sending, wanted } = prepared;
            request.body = collect(body, limits.request_max_bytes).await?;
            sending.bytes = request.body.len() as u64;
            meter.uses().leaves(&sending);
            let recording = match tape {
                Some((turn, tape)) => {
                    let sent = Sent::of(&request);
                    if tape.plays() {
                        return played(&tape, turn, &sent, &meter, &wanted);
                    }
                    Some((tape, turn, sent))
                }
                None => None,
            };
            let options = options.unwrap_or_default();
            let opened =
                within(options.first_byte_timeout, egress.open(&request), HttpError::HttpResponseTimeout).await?;
            if opened.as_ref().is_err_and(denied) {
                meter.uses().stays(&sending);
            }
            let incoming = opened.map_err(|error| failed(&meter, &wanted, &error))?;
            let mut response = http::Response::new(WasiBody::default());
            *response.status_mut() = incoming.status;
            *response.headers_mut() = incoming.headers.clone();
            let between = options.between_bytes_timeout;
            let recording = recording.map(|(tape, turn, sent)| Recording {
                tape,
                turn,
                sent,
                status: incoming.status,
                headers: incoming.headers.clone(),
                received: Vec::new(),
                broke: false,
            });
            let origin = sending.origin;
            let reading = Reading { incoming, meter, origin, wanted, between, recording, _place: place };
            *response.body_mut() = StreamBody::new(stream::try_unfold(reading, Reading::next)).boxed_unsync();
            Ok((response, Box::new(std::future::ready(Ok(()))) as Io))
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK_BYTES
    }
}

/// A response that the guest reads. Holds its place until its end.
struct Reading {
    incoming: Incoming,
    meter: Arc<Meter>,
    origin: String,
    wanted: String,
    between: Option<Duration>,
    recording: Option<Recording>,
    _place: OwnedSemaphorePermit,
}

/// An exchange that goes onto a tape when the guest is through with its response.
struct Recording {
    tape: Arc<Tape>,
    turn: usize,
    sent: Sent,
    status: http::StatusCode,
    headers: http::HeaderMap,
    received: Vec<u8>,
    /// What came back ended before its end: that cannot be played.
    broke: bool,
}

impl Drop for Recording {
    fn drop(&mut self) {
        if self.broke {
            return;
        }
        self.tape.keep(self.turn, &self.sent, self.status, &self.headers, &self.received);
    }
}

/// What a tape has in answer to a request; what it has not is denied.
fn played(
    tape: &Tape,
    turn: usize,
    sent: &Sent,
    meter: &Meter,
    wanted: &str,
) -> Result<(http::Response<WasiBody>, Io), HttpError> {
    let Some(played) = tape.play(turn, sent) else {
        meter.uses().deny(wanted.to_owned(), "no such request was recorded".to_owned());
        return Err(HttpError::HttpRequestDenied);
    };
    let mut response = http::Response::new(Full::new(played.body).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = played.status;
    *response.headers_mut() = played.headers;
    Ok((response, Box::new(std::future::ready(Ok(())))))
}

impl Reading {
    async fn next(mut self) -> Result<Option<(http_body::Frame<Bytes>, Self)>, HttpError> {
        let piece = within(self.between, self.incoming.piece(), HttpError::ConnectionReadTimeout).await;
        let piece = piece.and_then(|piece| piece.map_err(|error| failed(&self.meter, &self.wanted, &error)));
        if let (Err(_), Some(recording)) = (&piece, &mut self.recording) {
            recording.broke = true;
        }
        let Some(piece) = piece? else { return Ok(None) };
        if let Some(recording) = &mut self.recording {
            recording.received.extend_from_slice(&piece);
        }
        let mut uses = self.meter.uses();
        let host = uses.hosts.entry(self.origin.clone()).or_default();
        host.received_bytes = host.received_bytes.saturating_add(piece.len() as u64);
        drop(uses);
        Ok(Some((http_body::Frame::data(piece), self)))
    }
}

/// The whole body of a request: it is sent with its length, and what it may take is known.
async fn collect(body: WasiBody, limit: usize) -> Result<Bytes, HttpError> {
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(HttpError::HttpRequestBodySize(Some(limit as u64))),
        Err(error) => Err(match error.downcast::<HttpError>() {
            Ok(error) => *error,
            Err(error) => HttpError::InternalError(Some(error.to_string())),
        }),
    }
}

/// Waits so long for something, if there is a limit.
async fn within<T>(
    limit: Option<Duration>,
    what: impl Future<Output = T> + Send,
    late: HttpError,
) -> Result<T, HttpError> {
    match limit {
        Some(limit) => tokio::time::timeout(limit, what).await.map_err(|_| late),
        None => Ok(what.await),
    }
}

/// What the guest is told of a request that failed; what people want to know stands in the log.
fn failed(meter: &Meter, wanted: &str, error: &EgressError) -> HttpError {
    if denied(error) {
        meter.uses().deny(wanted.to_owned(), error.to_string());
    } else {
        let message = format!("{wanted} failed: {error}");
        meter.log().write(LogLine { level: LogLevel::Warn, message, fields: None });
    }
    match error {
        EgressError::Denied(_) => HttpError::DestinationIpProhibited,
        EgressError::Withheld(_) => HttpError::HttpRequestDenied,
        EgressError::Unusable(_) => HttpError::HttpRequestUriInvalid,
        EgressError::TooManyRedirects(_) => HttpError::LoopDetected,
        EgressError::TooLarge(limit) => HttpError::HttpResponseBodySize(Some(*limit as u64)),
        EgressError::Coding(coding) => HttpError::HttpResponseContentCoding(Some(coding.clone())),
        EgressError::Connection(broken, _) => match broken {
            Broken::Name => HttpError::DnsError { rcode: None, info_code: None },
            Broken::Refused => HttpError::ConnectionRefused,
            Broken::Late => HttpError::ConnectionTimeout,
            Broken::Certificate => HttpError::TlsCertificateError,
            Broken::Tls => HttpError::TlsProtocolError,
            Broken::Ended => HttpError::ConnectionTerminated,
        },
    }
}

/// Whether nothing was sent, because it may not be.
fn denied(error: &EgressError) -> bool {
    matches!(error, EgressError::Denied(_) | EgressError::Withheld(_))
}
