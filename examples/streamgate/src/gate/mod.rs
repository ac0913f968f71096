//! Who may see gated content: the question, and who answers it.
//!
//! Owns: the question (`GateChecker`) and a chain that answers it out of the database (`mock`). Absent:
//! HTTP, tokens, caches. Permission is asked for on every request and kept nowhere: what an owner has sold a
//! second ago is no longer his to see.

pub mod mock;

use std::fmt::Debug;
use std::pin::Pin;

use uuid::Uuid;

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum GateError {
    #[error("the chain does not answer")]
    Unreachable,
    #[error(transparent)]
    Database(#[from] crate::db::DbError),
}

/// The answer, when it comes.
pub(crate) type Answer<'a> = Pin<Box<dyn Future<Output = Result<bool, GateError>> + Send + 'a>>;

/// Knows who owns what.
pub(crate) trait GateChecker: Debug + Send + Sync {
    /// Whether a wallet owns an NFT of a content now.
    fn owns<'a>(&'a self, wallet: &'a str, content: Uuid) -> Answer<'a>;
}
