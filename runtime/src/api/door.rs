//! The door: who may use the API, and how many requests are answered at once.

use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};
use tokio::sync::Semaphore;

use super::Api;
use super::problem::{Problem, ProblemCode};
use crate::store::{KeyHash, StoreError};

/// Knows the keys of the configuration, and whether the door was ever locked.
pub struct Door {
    configured: Vec<KeyHash>,
    /// Once there was a key, an unlocked door would be a surprise: also when the last key is deleted.
    locked: AtomicBool,
    places: Semaphore,
}

impl Door {
    /// A door that the keys with these digests open, beside those in the database; `locked` where there is one already, and
    /// `requests_max` requests fit through at once.
    #[must_use]
    pub fn new(configured: Vec<KeyHash>, locked: bool, requests_max: usize) -> Self {
        let locked = AtomicBool::new(locked || !configured.is_empty());
        Self { configured, locked, places: Semaphore::new(requests_max) }
    }

    /// Whether a key is asked for.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.locked.load(Ordering::Relaxed)
    }

    /// Whether a key opens. What is compared are digests, in constant time: nobody can find a digest step by step that
    /// belongs to a key.
    async fn opens(&self, api: &Api, key: Option<&[u8]>) -> Result<bool, StoreError> {
        let hash: KeyHash = Sha256::digest(key.unwrap_or_default()).into();
        let configured = self.configured.iter().fold(Choice::from(0), |any, known| any | known.ct_eq(&hash));
        if key.is_some() && configured.into() {
            // Also when the database is away: metrics are wanted then.
            return Ok(true);
        }
        let (any, this) = api.store.knows_api_key(&hash).await?;
        if any {
            self.locked.store(true, Ordering::Relaxed);
        }
        Ok(!self.is_locked() || (this && key.is_some()))
    }
}

/// Lets in whoever has a key; everybody as long as there is none.
pub(super) async fn guard(State(api): State<Api>, request: Request, next: Next) -> Response {
    // RFC 6750, section 2.1; the scheme's case does not matter (RFC 9110, section 11.1).
    let value = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let key =
        value.and_then(|value| value.split_at_checked(7)).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "));
    match api.door.opens(&api, key.map(|(_, key)| key.trim_ascii())).await {
        Ok(true) => next.run(request).await,
        Ok(false) => {
            let detail = "send an API key: `Authorization: Bearer <key>`; `weir key create` makes one";
            Problem::new(ProblemCode::InvalidApiKey, detail).into_response()
        }
        Err(error) => Problem::from(error).into_response(),
    }
}

/// Refuses requests beyond `requests_max`, before their bodies take memory.
pub(super) async fn limit(State(api): State<Api>, request: Request, next: Next) -> Response {
    match api.door.places.try_acquire() {
        Ok(_place) => next.run(request).await,
        Err(_) => {
            let detail = format!("{} requests are being answered (`requests_max`)", api.config.requests_max);
            Problem::new(ProblemCode::Unavailable, detail).into_response()
        }
    }
}
