//! Requests by the host: standard `wasi:http`.

use std::time::Duration;

use wasip2::clocks::monotonic_clock;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest, RequestOptions, Scheme,
};
use wasip2::io::poll::{Pollable, poll};
use wasip2::io::streams::{OutputStream, StreamError};

use crate::http::{Request, Response};
use crate::http_error::{HttpError, HttpErrorKind};

/// What is read at once.
const READ_BYTES: u64 = 64 * 1024;

/// Until when an exchange may last: a clock that rings once. None: for as long as the call.
struct Limit(Option<Pollable>);

impl Limit {
    fn new(timeout: Option<Duration>) -> Self {
        Self(timeout.map(|timeout| monotonic_clock::subscribe_duration(nanos(timeout))))
    }

    /// Waits for something to happen. The end comes first, so that what never rests ends too.
    fn wait(&self, what: &Pollable) -> Result<(), HttpErrorKind> {
        let Some(end) = &self.0 else {
            what.block();
            return Ok(());
        };
        let ready = poll(&[end, what]);
        if ready.contains(&0) { Err(HttpErrorKind::Timeout) } else { Ok(()) }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl crate::Context {
    #[allow(clippy::unused_self)]
    pub(crate) fn exchange(&self, request: Request) -> Result<Response, HttpError> {
        exchange(&request)
    }
}

fn exchange(request: &Request) -> Result<Response, HttpError> {
    let limit = Limit::new(request.timeout);
    let outgoing = head(request)?;
    let body = outgoing.body().map_err(|()| unusable("the body"))?;
    let options = request.timeout.map(|timeout| {
        let (options, nanos) = (RequestOptions::new(), nanos(timeout));
        // None of them can be longer than the whole. A host that does not know one is held by the clock here.
        let _ = options.set_connect_timeout(Some(nanos));
        let _ = options.set_first_byte_timeout(Some(nanos));
        let _ = options.set_between_bytes_timeout(Some(nanos));
        options
    });
    let answer = outgoing_handler::handle(outgoing, options).map_err(|error| refused(&error))?;
    send_body(body, &request.body, &limit)?;
    limit.wait(&answer.subscribe())?;
    match answer.get() {
        Some(Ok(Ok(incoming))) => Ok(receive(&incoming, &limit)?),
        Some(Ok(Err(error))) => Err(refused(&error)),
        _ => Err(HttpErrorKind::Connection("there is no response".to_owned()).into()),
    }
}

fn unusable(what: &str) -> HttpErrorKind {
    HttpErrorKind::Unusable(format!("{what} is refused"))
}

fn head(request: &Request) -> Result<OutgoingRequest, HttpErrorKind> {
    let headers = Fields::new();
    for (name, value) in &request.headers {
        headers.append(name, value.as_bytes()).map_err(|_| unusable(&format!("the header `{name}`")))?;
    }
    let (scheme, authority, path) = request.parts()?;
    let scheme = if scheme == "http" { Scheme::Http } else { Scheme::Https };
    let method = match request.method.as_str() {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "OPTIONS" => Method::Options,
        "PATCH" => Method::Patch,
        other => Method::Other(other.to_owned()),
    };
    let outgoing = OutgoingRequest::new(headers);
    outgoing.set_method(&method).map_err(|()| unusable("the method"))?;
    outgoing.set_scheme(Some(&scheme)).map_err(|()| unusable("the scheme"))?;
    outgoing.set_authority(Some(&authority)).map_err(|()| unusable("the host"))?;
    outgoing.set_path_with_query(Some(&path)).map_err(|()| unusable("the path"))?;
    Ok(outgoing)
}

fn send_body(body: OutgoingBody, bytes: &[u8], limit: &Limit) -> Result<(), HttpErrorKind> {
    if !bytes.is_empty() {
        let stream = body.write().map_err(|()| unusable("the body"))?;
        write(&stream, bytes, limit)?;
    }
    // A request that was denied takes no body: the response says why.
    let _ = OutgoingBody::finish(body, None);
    Ok(())
}

/// Writes as much as is taken. What ends it too early is for the response to say.
fn write(stream: &OutputStream, mut bytes: &[u8], limit: &Limit) -> Result<(), HttpErrorKind> {
    while !bytes.is_empty() {
        limit.wait(&stream.subscribe())?;
        let Ok(room) = stream.check_write() else { return Ok(()) };
        let (now, later) = bytes.split_at(bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
        if stream.write(now).is_err() {
            return Ok(());
        }
        bytes = later;
    }
    match stream.flush() {
        Ok(()) => limit.wait(&stream.subscribe()),
        Err(_) => Ok(()),
    }
}

fn receive(incoming: &IncomingResponse, limit: &Limit) -> Result<Response, HttpErrorKind> {
    let headers = incoming.headers().entries().into_iter();
    let headers = headers.map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned())).collect();
    let mut response = Response { status: incoming.status(), headers, body: Vec::new(), host: None };
    let body = incoming.consume().map_err(|()| HttpErrorKind::Connection("there is no body".to_owned()))?;
    {
        let stream = body.stream().map_err(|()| HttpErrorKind::Connection("there is no body".to_owned()))?;
        loop {
            limit.wait(&stream.subscribe())?;
            match stream.read(READ_BYTES) {
                Ok(bytes) => response.body.extend_from_slice(&bytes),
                Err(StreamError::Closed) => break,
                Err(StreamError::LastOperationFailed(error)) => return Err(broken(&error)),
            }
        }
    }
    drop(IncomingBody::finish(body));
    Ok(response)
}

/// A body that ended before its time. Not every host gives a code for it (wasmtime 48 has only a text).
fn broken(error: &wasip2::io::error::Error) -> HttpErrorKind {
    match wasip2::http::types::http_error_code(error) {
        Some(code) => failed(&code),
        None if error.to_debug_string().contains("body size") => HttpErrorKind::Body("it is too large".to_owned()),
        None => HttpErrorKind::Connection(error.to_debug_string()),
    }
}

/// A request that was not answered.
fn refused(error: &ErrorCode) -> HttpError {
    match error {
        ErrorCode::DestinationIpProhibited => {
            HttpError::denied("its address is not public, and not opened by whoever runs the server".to_owned())
        }
        other => failed(other).into(),
    }
}

fn failed(error: &ErrorCode) -> HttpErrorKind {
    match error {
        ErrorCode::HttpRequestDenied | ErrorCode::DestinationIpProhibited => HttpErrorKind::Denied,
        ErrorCode::DnsTimeout
        | ErrorCode::ConnectionTimeout
        | ErrorCode::ConnectionReadTimeout
        | ErrorCode::ConnectionWriteTimeout
        | ErrorCode::HttpResponseTimeout => HttpErrorKind::Timeout,
        ErrorCode::HttpRequestBodySize(_) => HttpErrorKind::Unusable("the body is too large".to_owned()),
        ErrorCode::HttpRequestUriInvalid => HttpErrorKind::Unusable("the URL is none".to_owned()),
        ErrorCode::HttpRequestUriTooLong => HttpErrorKind::Unusable("the URL is too long".to_owned()),
        ErrorCode::HttpRequestMethodInvalid => unusable("the method"),
        ErrorCode::HttpRequestHeaderSize(_) | ErrorCode::HttpRequestHeaderSectionSize(_) => {
            HttpErrorKind::Unusable("the headers are too large".to_owned())
        }
        ErrorCode::HttpResponseBodySize(_) => HttpErrorKind::Body("it is too large".to_owned()),
        ErrorCode::HttpResponseHeaderSize(_) | ErrorCode::HttpResponseHeaderSectionSize(_) => {
            HttpErrorKind::Body("its headers are too large".to_owned())
        }
        ErrorCode::HttpResponseContentCoding(_) => HttpErrorKind::Body("its coding cannot be read".to_owned()),
        other => HttpErrorKind::Connection(other.to_string()),
    }
}
