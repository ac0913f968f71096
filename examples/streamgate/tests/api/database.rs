//! SQLite in a directory of its own for each service.

use streamgate::settings::Place;

/// The pool that reads.
pub(crate) const READERS: &str = "readers";

/// The pool that writes.
pub(crate) const WRITER: &str = "writer";

/// Where the next service keeps its rows: in a file that it makes itself.
pub(crate) async fn fresh() -> Option<Place> {
    None
}
