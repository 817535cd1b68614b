//! Requests by the host: standard `wasi:http`.

use std::time::Duration;

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest, RequestOptions, Scheme,
};
use wasip2::io::streams::StreamError;

use crate::http::{HttpError, Request, Response};

/// What is written and read at once (`blocking-write-and-flush` takes no more).
const CHUNK_BYTES: usize = 4096;
const READ_BYTES: u64 = 64 * 1024;

impl crate::Context {
    #[allow(clippy::unused_self)]
    pub(crate) fn exchange(&self, request: Request, timeout: Option<Duration>) -> Result<Response, HttpError> {
        let outgoing = head(&request)?;
        let body = outgoing.body().map_err(|()| unusable("the body"))?;
        let options = timeout.map(|timeout| {
            let (options, nanos) = (RequestOptions::new(), u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX));
            // A host that does not know one of them goes by the call's deadline.
            let _ = options.set_connect_timeout(Some(nanos));
            let _ = options.set_first_byte_timeout(Some(nanos));
            let _ = options.set_between_bytes_timeout(Some(nanos));
            options
        });
        let answer = outgoing_handler::handle(outgoing, options).map_err(|error| failed(&error))?;
        send_body(body, &request.body)?;
        answer.subscribe().block();
        match answer.get() {
            Some(Ok(Ok(incoming))) => receive(&incoming),
            Some(Ok(Err(error))) => Err(failed(&error)),
            _ => Err(HttpError::Connection("there is no response".to_owned())),
        }
    }
}

fn unusable(what: &str) -> HttpError {
    HttpError::Unusable(format!("{what} is refused"))
}

fn head(request: &Request) -> Result<OutgoingRequest, HttpError> {
    let headers = Fields::new();
    for (name, value) in &request.headers {
        headers.append(name, value.as_bytes()).map_err(|_| unusable(&format!("the header `{name}`")))?;
    }
    let (scheme, rest) = match request.url.split_once("://") {
        Some(("https", rest)) => (Scheme::Https, rest),
        Some(("http", rest)) => (Scheme::Http, rest),
        _ => return Err(HttpError::Unusable(format!("`{}` is no http or https URL", request.url))),
    };
    let rest = rest.split('#').next().unwrap_or(rest);
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(at);
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
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
    outgoing.set_authority(Some(authority)).map_err(|()| unusable("the host"))?;
    outgoing.set_path_with_query(Some(&path)).map_err(|()| unusable("the path"))?;
    Ok(outgoing)
}

fn send_body(body: OutgoingBody, bytes: &[u8]) -> Result<(), HttpError> {
    if !bytes.is_empty() {
        let stream = body.write().map_err(|()| unusable("the body"))?;
        for chunk in bytes.chunks(CHUNK_BYTES) {
            // A request that was denied takes no body: the response says why.
            if stream.blocking_write_and_flush(chunk).is_err() {
                break;
            }
        }
    }
    // So it is here.
    let _ = OutgoingBody::finish(body, None);
    Ok(())
}

fn receive(incoming: &IncomingResponse) -> Result<Response, HttpError> {
    let headers = incoming.headers().entries().into_iter();
    let headers = headers.map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned())).collect();
    let mut response = Response { status: incoming.status(), headers, body: Vec::new() };
    let body = incoming.consume().map_err(|()| HttpError::Connection("there is no body".to_owned()))?;
    {
        let stream = body.stream().map_err(|()| HttpError::Connection("there is no body".to_owned()))?;
        loop {
            match stream.blocking_read(READ_BYTES) {
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
fn broken(error: &wasip2::io::error::Error) -> HttpError {
    match wasip2::http::types::http_error_code(error) {
        Some(code) => failed(&code),
        None if error.to_debug_string().contains("body size") => HttpError::Body("it is too large".to_owned()),
        None => HttpError::Connection(error.to_debug_string()),
    }
}

fn failed(error: &ErrorCode) -> HttpError {
    match error {
        ErrorCode::HttpRequestDenied => HttpError::Denied,
        ErrorCode::DnsTimeout
        | ErrorCode::ConnectionTimeout
        | ErrorCode::ConnectionReadTimeout
        | ErrorCode::ConnectionWriteTimeout
        | ErrorCode::HttpResponseTimeout => HttpError::Timeout,
        ErrorCode::HttpRequestBodySize(_) => HttpError::Unusable("the body is too large".to_owned()),
        ErrorCode::HttpRequestUriInvalid => HttpError::Unusable("the URL is none".to_owned()),
        ErrorCode::HttpResponseBodySize(_) => HttpError::Body("it is too large".to_owned()),
        other => HttpError::Connection(other.to_string()),
    }
}
