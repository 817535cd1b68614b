//! The guarded HTTP client.

use std::collections::HashMap;
use std::error::Error;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode};
use url::{Host, Url};

use super::policy::{Denied, Policy};
use super::scrub::Scrub;
use super::secrets::{Left, Placeholders, Secret, Withheld};

/// How many ports have a connection pool at once; more of them share by taking turns.
const POOLS_MAX: usize = 64;

/// Statuses that send a client elsewhere (RFC 9110 section 15.4).
const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

/// What the client is held to.
#[derive(Clone, Debug)]
pub struct EgressSettings {
    /// Which addresses may be dialled.
    pub policy: Policy,
    /// Longest time until a connection stands, name resolution and TLS included.
    pub connect_timeout: Duration,
    /// Largest response body, in bytes, after decompression.
    pub response_max_bytes: usize,
    /// Most redirects that are followed for one request.
    pub redirects_max: u32,
    /// Idle connections kept for one host and port.
    pub idle_connections_max: usize,
}

/// An HTTP client that dials only what its policy admits. Cheap to clone.
#[derive(Clone)]
pub struct Egress {
    settings: Arc<EgressSettings>,
    tls: rustls::ClientConfig,
    /// One pool for each port: the resolver, where addresses are checked, is told the name but not the port, and a
    /// rule of the policy may be for one port alone.
    pools: Arc<Mutex<HashMap<u16, reqwest::Client>>>,
}

/// A request to make.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Where to.
    pub url: Url,
    /// Headers; framing headers are the client's own business.
    pub headers: HeaderMap,
    /// The body; empty for none.
    pub body: Bytes,
    /// What stands for secrets in the headers and in the query.
    pub secrets: Placeholders,
    /// Secrets that targets may know from other requests. What comes back is looked through for those that may go there.
    pub known: Vec<Arc<Secret>>,
}

/// A response, read to its end.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status of the last hop.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, decompressed.
    pub body: Bytes,
}

/// A response of which the body is still to come. Dropping it closes the connection.
pub struct Incoming {
    /// The status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    response: reqwest::Response,
    scrub: Option<Scrub>,
    left: Left,
    received: usize,
    limit: usize,
}

impl Incoming {
    /// The next piece of the body, decompressed; none at its end.
    ///
    /// # Errors
    /// [`EgressError::TooLarge`] or [`EgressError::Connection`].
    pub async fn piece(&mut self) -> Result<Option<Bytes>, EgressError> {
        loop {
            let piece = self.response.chunk().await.map_err(|error| classify(&error).without(&self.left))?;
            let Some(piece) = piece else {
                return Ok(self.scrub.take().map(|mut scrub| scrub.rest()).filter(|rest| !rest.is_empty()));
            };
            self.received += piece.len();
            if self.received > self.limit {
                return Err(EgressError::TooLarge(self.limit));
            }
            let piece = self.scrub.as_mut().map_or(piece.clone(), |scrub| scrub.piece(&piece));
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
    }
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// The policy does not admit the target.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// A secret is not meant for the target.
    #[error(transparent)]
    Withheld(#[from] Withheld),
    /// The URL cannot be called.
    #[error("the URL cannot be called: {0}")]
    Unusable(String),
    /// The target redirected too often.
    #[error("more than {0} redirects")]
    TooManyRedirects(u32),
    /// The body is larger than allowed.
    #[error("the response is larger than {0} bytes")]
    TooLarge(usize),
    /// The request carried a secret, and the response is in a coding in which the secret could not be found.
    #[error("the response to a request with a secret is encoded as `{0}`, which cannot be looked through")]
    Coding(String),
    /// No connection, or it broke: how, and in words.
    #[error("{1}")]
    Connection(Broken, String),
}

impl EgressError {
    /// The same without secrets: much of what is told here are a target's own words.
    fn without(self, left: &Left) -> Self {
        match self {
            Self::Denied(denied) => Self::Denied(Denied { host: left.out_of(&denied.host), ..denied }),
            Self::Withheld(withheld) => Self::Withheld(Withheld { origin: left.out_of(&withheld.origin), ..withheld }),
            Self::Unusable(why) => Self::Unusable(left.out_of(&why)),
            Self::Coding(coding) => Self::Coding(left.out_of(&coding)),
            Self::Connection(broken, why) => Self::Connection(broken, left.out_of(&why)),
            error @ (Self::TooManyRedirects(_) | Self::TooLarge(_)) => error,
        }
    }
}

/// How there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The name is not known, or nobody who knows names answered.
    Name,
    /// Nobody listens there.
    Refused,
    /// It did not stand in time.
    Late,
    /// The target could not prove who it is.
    Certificate,
    /// The two did not understand each other in TLS.
    Tls,
    /// It stood, and ended before its time.
    Ended,
}

/// A name that could not be resolved.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Unresolved(std::io::Error);

impl Egress {
    /// A client with its own connection pools. Trusts the certificates of the operating system.
    ///
    /// # Errors
    /// When the TLS library does not accept its own defaults.
    pub fn new(settings: EgressSettings) -> Result<Self, rustls::Error> {
        let mut roots = rustls::RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        let (usable, unusable) = roots.add_parsable_certificates(found.certs);
        if usable == 0 {
            tracing::warn!(unusable, "no root certificates found on this system: https targets cannot be verified");
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { settings: Arc::new(settings), tls, pools: Arc::default() })
    }

    /// Sends `request`, follows redirects, and reads the whole response.
    ///
    /// There is no overall timeout here: the caller drops the future, which closes the connection.
    ///
    /// # Errors
    /// See [`EgressError`]; only [`EgressError::Connection`] may pass when tried again.
    pub async fn send(&self, request: Request) -> Result<Response, EgressError> {
        let mut left = Left::default();
        self.follow(request, &mut left).await.map_err(|error| error.without(&left))
    }

    async fn follow(&self, mut request: Request, left: &mut Left) -> Result<Response, EgressError> {
        for _ in 0..=self.settings.redirects_max {
            let (mut incoming, location) = self.hop(&request, left).await?;
            let location = location.filter(|_| REDIRECTS.contains(&incoming.status.as_u16()));
            let target =
                location.and_then(|location| Some((request.url.join(location.to_str().ok()?).ok()?, location)));
            let Some((target, location)) = target else {
                let mut body = BytesMut::new();
                while let Some(piece) = incoming.piece().await? {
                    body.extend_from_slice(&piece);
                }
                return Ok(Response { status: incoming.status, headers: incoming.headers, body: body.freeze() });
            };
            left.may_follow(location.as_bytes(), &target)?;
            redirect(&mut request, incoming.status, target);
        }
        Err(EgressError::TooManyRedirects(self.settings.redirects_max))
    }

    /// Sends `request` and reads the head of its response. A redirect is a response like any other.
    ///
    /// # Errors
    /// See [`EgressError`].
    pub async fn open(&self, request: &Request) -> Result<Incoming, EgressError> {
        let mut left = Left::default();
        let hop = self.hop(request, &mut left).await;
        hop.map(|(incoming, _)| incoming).map_err(|error| error.without(&left))
    }

    /// The head of a response, and its `Location` as it is, before the secrets are taken out of what is shown.
    async fn hop(&self, request: &Request, left: &mut Left) -> Result<(Incoming, Option<HeaderValue>), EgressError> {
        let (mut url, mut headers) = (request.url.clone(), request.headers.clone());
        let (Some(host), Some(port), "http" | "https") = (url.host(), url.port_or_known_default(), url.scheme()) else {
            return Err(EgressError::Unusable(format!("`{}` is not an http or https URL with a host", url.scheme())));
        };
        // A literal address never reaches the resolver, so it is checked here.
        match host {
            Host::Ipv4(address) => self.settings.policy.check(&host.to_string(), port, [IpAddr::V4(address)])?,
            Host::Ipv6(address) => self.settings.policy.check(&host.to_string(), port, [IpAddr::V6(address)])?,
            Host::Domain(_) => {}
        }
        left.may_be_known(&request.known, &url);
        request.secrets.reveal(&mut url, &mut headers, left)?;
        let scrub = left.scrub();
        if scrub.is_some() {
            // What comes back is looked through, so it must come in a coding that is read here.
            headers.remove(header::ACCEPT_ENCODING);
        }
        let sending = self.pool(port)?.request(request.method.clone(), url).headers(headers).body(request.body.clone());
        let response = sending.send().await.map_err(|error| classify(&error))?;
        let (status, mut headers) = (response.status(), response.headers().clone());
        let location = headers.get(header::LOCATION).cloned();
        if let Some(scrub) = &scrub {
            // A coding that is not read here could carry the secret past the search for it.
            let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
            if let Some(coding) = codings.find(|coding| *coding != "identity") {
                return Err(EgressError::Coding(String::from_utf8_lossy(coding.as_bytes()).into_owned()));
            }
            scrub.headers(&mut headers);
            left.drop_named(&mut headers);
        }
        let limit = self.settings.response_max_bytes;
        Ok((Incoming { status, headers, response, scrub, left: left.clone(), received: 0, limit }, location))
    }

    fn pool(&self, port: u16) -> Result<reqwest::Client, EgressError> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = pools.get(&port) {
            return Ok(client.clone());
        }
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(self.tls.clone())
            .dns_resolver(GuardedResolver { settings: Arc::clone(&self.settings), port })
            .connect_timeout(self.settings.connect_timeout)
            .pool_max_idle_per_host(self.settings.idle_connections_max)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .user_agent(concat!("weir/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| EgressError::Unusable(describe(&error)))?;
        if pools.len() >= POOLS_MAX {
            pools.clear();
        }
        pools.insert(port, client.clone());
        Ok(client)
    }
}

/// Resolves a name and checks every address before any is dialled.
struct GuardedResolver {
    settings: Arc<EgressSettings>,
    port: u16,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (settings, port) = (Arc::clone(&self.settings), self.port);
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), port)).await.map_err(Unresolved)?;
            let addresses: Vec<_> = found.collect();
            settings.policy.check(name.as_str(), port, addresses.iter().map(std::net::SocketAddr::ip))?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// Turns `request` into the one that a redirect asks for: 303, and 301 or 302 after a POST, become a GET; secrets of
/// the request stay with the origin they were meant for.
fn redirect(request: &mut Request, status: StatusCode, target: Url) {
    let to_get = status == StatusCode::SEE_OTHER || (status.as_u16() <= 302 && request.method == Method::POST);
    if to_get {
        request.method = Method::GET;
        request.body = Bytes::new();
        for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LENGTH] {
            request.headers.remove(name);
        }
    }
    if request.url.origin() != target.origin() {
        // Any header may carry a credential; these cannot.
        let harmless = [header::ACCEPT, header::ACCEPT_LANGUAGE, header::CONTENT_TYPE, header::USER_AGENT];
        let kept = harmless.into_iter().filter_map(|name| Some((name.clone(), request.headers.remove(name)?)));
        request.headers = kept.collect();
    }
    request.url = target;
}

fn classify(error: &reqwest::Error) -> EgressError {
    if let Some(denied) = causes(error).find_map(|cause| cause.downcast_ref::<Denied>()) {
        return EgressError::Denied(denied.clone());
    }
    if error.is_builder() {
        return EgressError::Unusable(describe(error));
    }
    EgressError::Connection(broken(error), describe(error))
}

fn broken(error: &reqwest::Error) -> Broken {
    for cause in causes(error) {
        if cause.is::<Unresolved>() {
            return Broken::Name;
        }
        let io = cause.downcast_ref::<std::io::Error>();
        match tls_fault(cause) {
            Some(rustls::Error::InvalidCertificate(_)) => return Broken::Certificate,
            Some(_) => return Broken::Tls,
            None => {}
        }
        match io.map(std::io::Error::kind) {
            Some(std::io::ErrorKind::ConnectionRefused) => return Broken::Refused,
            Some(std::io::ErrorKind::TimedOut) => return Broken::Late,
            _ => {}
        }
    }
    if error.is_connect() && error.is_timeout() { Broken::Late } else { Broken::Ended }
}

/// The fault of TLS in a cause. What is inside of an `io::Error`, and again of one in it, is not one of its sources.
fn tls_fault<'e>(cause: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    if let Some(fault) = cause.downcast_ref() {
        return Some(fault);
    }
    tls_fault(cause.downcast_ref::<std::io::Error>()?.get_ref()?)
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let mut next = error.source();
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}

/// The innermost causes in words, without the URL: it may carry a secret in its query.
fn describe(error: &reqwest::Error) -> String {
    let mut causes: Vec<String> = causes(error).map(ToString::to_string).collect();
    causes.dedup();
    if causes.is_empty() { "the request failed".to_owned() } else { causes.join(": ") }
}
