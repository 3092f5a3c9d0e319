//! Progress of fulfilments and revisions, beside the state of a reservation.

use mongodb::bson::{self, Bson};
use serde::{Deserialize, Serialize};

use super::{LineDocument, RefusalDocument};

/// Progress of a fulfilment, beside the state: replicas of the previous release know no further
/// state. They ignore this field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(in crate::store::mongo) enum Fulfilment {
    /// `CONFIRMED`: the units are being taken off the supply.
    Applying,
    /// `RELEASED`: the units are taken off; marks are left in the products.
    Clearing,
    /// `RELEASED`: no step is left.
    Done,
}

/// Progress of a revision, see [`crate::store::mongo::revision`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::store::mongo) struct RevisionDocument {
    pub(in crate::store::mongo) number: i64,
    pub(in crate::store::mongo) step: RevisionStep,
    /// All lines after the revision.
    pub(in crate::store::mongo) lines: Vec<LineDocument>,
    pub(in crate::store::mongo) takes: Vec<UnitsDocument>,
    pub(in crate::store::mongo) gives_back: Vec<UnitsDocument>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::store::mongo) refusal: Option<RefusalDocument>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(in crate::store::mongo) enum RevisionStep {
    /// Missing units are being taken.
    Taking,
    /// The lines are replaced; units that are left over are being given back.
    GivingBack,
    /// Entries are left in the products.
    Clearing,
    /// Units were missing; those that were taken are being given back.
    Undoing,
}

/// Last revision of a reservation that has ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::store::mongo) struct LastRevision {
    pub(in crate::store::mongo) number: i64,
    /// `None`: the reservation was revised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::store::mongo) refusal: Option<RefusalDocument>,
}

/// Units of a product that a revision moves.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::store::mongo) struct UnitsDocument {
    pub(in crate::store::mongo) product_id: bson::Uuid,
    pub(in crate::store::mongo) units: i64,
}

impl From<Fulfilment> for Bson {
    fn from(fulfilment: Fulfilment) -> Self {
        match fulfilment {
            Fulfilment::Applying => "APPLYING",
            Fulfilment::Clearing => "CLEARING",
            Fulfilment::Done => "DONE",
        }
        .into()
    }
}

impl From<RevisionStep> for Bson {
    fn from(step: RevisionStep) -> Self {
        match step {
            RevisionStep::Taking => "TAKING",
            RevisionStep::GivingBack => "GIVING_BACK",
            RevisionStep::Clearing => "CLEARING",
            RevisionStep::Undoing => "UNDOING",
        }
        .into()
    }
}
