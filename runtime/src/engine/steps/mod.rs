//! Performs attempts of steps with outside effects, and says how they ended. Knows nothing of journals and claims.

mod http;

use weir_host::egress::Egress;

use crate::model::decide::Effect;
use crate::model::error::AttemptFailure;
use crate::model::journal::Output;

/// Performs attempts.
#[derive(Clone)]
pub struct Performer {
    egress: Egress,
}

impl Performer {
    /// A performer that reaches the outside through `egress`.
    #[must_use]
    pub fn new(egress: Egress) -> Self {
        Self { egress }
    }

    /// Performs one attempt. Dropping the future gives the attempt up and closes its connection.
    ///
    /// # Errors
    /// How the attempt failed, and whether another one may help.
    pub async fn perform(&self, effect: &Effect) -> Result<Output, AttemptFailure> {
        http::perform(&self.egress, effect).await
    }
}
