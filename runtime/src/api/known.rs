//! What triggers need to know of workflows and endpoints, kept between requests. Nothing is let in on the strength of it
//! alone: the creation of a run asks the database whether it is still so, and what is found changed is read again.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use super::Api;
use super::problem::{Problem, ProblemCode};
use super::workflows;
use crate::engine::Trigger;
use crate::model::definition::Priority;
use crate::model::id::WorkflowId;
use crate::store::{Caller, Endpoint, StoreError, Workflow};

/// Most of each that are kept.
const KEPT_MAX: usize = 4096;

/// What is known of workflows and endpoints.
#[derive(Default)]
pub struct Known {
    workflows: Kept<WorkflowId, Runnable>,
    endpoints: Kept<String, Arc<Endpoint>>,
}

/// What a run of a workflow is begun with.
#[derive(Clone, Copy)]
pub(super) struct Runnable {
    pub(super) revision: u32,
    pub(super) priority: Priority,
}

impl From<&Workflow> for Runnable {
    fn from(workflow: &Workflow) -> Self {
        Self { revision: workflow.revision.number, priority: Priority::of(&workflow.revision.definition) }
    }
}

struct Kept<K, V>(Mutex<HashMap<K, V>>);

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq, V: Clone> Kept<K, V> {
    fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn keep(&self, key: K, value: V) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(key, value);
    }

    fn forget(&self, which: impl Fn(&V) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, value| !which(value));
    }
}

/// How a workflow is run, as far as is known.
pub(super) async fn workflow(api: &Api, id: WorkflowId) -> Result<Runnable, Problem> {
    match api.known.workflows.get(&id) {
        Some(known) => Ok(known),
        None => Ok(Runnable::from(&read_workflow(api, id).await?)),
    }
}

/// The endpoint with this path, as far as is known; there may be none.
pub(super) async fn endpoint(api: &Api, path: &str) -> Result<Option<Arc<Endpoint>>, StoreError> {
    match api.known.endpoints.get(path) {
        Some(known) => Ok(Some(known)),
        None => read_endpoint(api, path).await,
    }
}

async fn read_workflow(api: &Api, id: WorkflowId) -> Result<Workflow, Problem> {
    let workflow = workflows::find(api, id).await?;
    api.known.workflows.keep(id, Runnable::from(&workflow));
    Ok(workflow)
}

/// The endpoint with this path, as it is now.
pub(super) async fn read_endpoint(api: &Api, path: &str) -> Result<Option<Arc<Endpoint>>, StoreError> {
    // No path has a NUL character, and Postgres has no text with one.
    let found = if path.contains('\0') { None } else { api.store.endpoint_by_path(path).await? };
    let endpoint = found.map(Arc::new);
    if let Some(endpoint) = &endpoint {
        api.known.endpoints.keep(path.to_owned(), Arc::clone(endpoint));
    }
    Ok(endpoint)
}

/// The endpoint that let a request in, as it is now.
async fn read_caller(api: &Api, caller: &Caller) -> Result<Option<Arc<Endpoint>>, StoreError> {
    let endpoint = api.store.endpoint(caller.endpoint).await?.map(Arc::new);
    match &endpoint {
        Some(endpoint) => api.known.endpoints.keep(endpoint.path.clone(), Arc::clone(endpoint)),
        // Another one may have its path by now.
        None => api.known.endpoints.forget(|known| known.id == caller.endpoint),
    }
    Ok(endpoint)
}

/// Whether the endpoint that let a trigger in is what it was then. A repeat creates nothing, so no creation asks.
pub(super) async fn still_holds(api: &Api, trigger: &Trigger) -> Result<bool, StoreError> {
    let Some(caller) = &trigger.caller else { return Ok(true) };
    Ok(read_caller(api, caller).await?.is_some_and(|endpoint| endpoint.secret == caller.secret))
}

/// Reads again what a trigger was made from.
///
/// # Errors
/// What is in its way.
pub(super) async fn read_again(api: &Api, trigger: &Trigger) -> Result<(), Problem> {
    if let Some(caller) = &trigger.caller {
        let Some(endpoint) = read_caller(api, caller).await? else { return Ok(()) };
        if !endpoint.is_active {
            return Err(Problem::new(ProblemCode::EndpointInactive, "somebody switched this webhook endpoint off"));
        }
    }
    if read_workflow(api, trigger.workflow_id).await?.is_active {
        return Ok(());
    }
    Err(Problem::new(ProblemCode::WorkflowInactive, "somebody switched this workflow off"))
}
