//! The object store under the names that the archive uses.
//!
//! An object's name is the SHA-256 of its bytes: to put the same again is no error, and two archivers
//! that pack the same rows write the same object.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode};

use super::frame::sha256;
use crate::db::archive::Place;
use crate::error::Fatal;

/// All objects lie below this.
const PREFIX: &str = "content";

/// Where archived payloads lie.
#[derive(Clone, Debug)]
pub(crate) struct ColdStore(Arc<dyn ObjectStore>);

/// An object as the store lists it.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) key: String,
    /// Microseconds since 1970, by the store's clock.
    pub(super) written_at: i64,
}

impl ColdStore {
    /// A directory, made if it is missing; every write reaches the disk before it counts.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub(crate) fn local(dir: &Path) -> Result<Self, Fatal> {
        let failed = |source| Fatal::File {
            path: dir.to_owned(),
            source,
        };
        std::fs::create_dir_all(dir).map_err(failed)?;
        let store = LocalFileSystem::new_with_prefix(dir)
            .map_err(|error| failed(std::io::Error::other(error)))?;
        // Off by default: without it a power cut can take a file that a manifest refers to.
        Ok(Self(Arc::new(store.with_fsync(true))))
    }

    #[cfg(test)]
    pub(super) fn in_memory() -> Self {
        Self(Arc::new(object_store::memory::InMemory::new()))
    }

    /// Puts an object under its hash, which is its key.
    pub(super) async fn put(&self, bytes: Bytes) -> object_store::Result<String> {
        let key = sha256(&bytes);
        let at = path(&key);
        let put = self.0.put_opts(&at, bytes.into(), PutMode::Create.into());
        match put.await {
            Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => Ok(key),
            Err(error) => Err(error),
        }
    }

    /// Writes over an object that is not what its name says.
    pub(super) async fn put_over(&self, key: &str, bytes: Bytes) -> object_store::Result<()> {
        let at = path(key);
        let put = self
            .0
            .put_opts(&at, bytes.into(), PutMode::Overwrite.into());
        put.await.map(|_| ())
    }

    /// A whole object.
    pub(super) async fn get(&self, key: &str) -> object_store::Result<Bytes> {
        self.0.get(&path(key)).await?.bytes().await
    }

    /// The bytes of one frame.
    pub(super) async fn frame(&self, place: &Place) -> object_store::Result<Bytes> {
        let start = u64::try_from(place.offset).unwrap_or(0);
        let end = start.saturating_add(u64::try_from(place.length).unwrap_or(0));
        self.0.get_range(&path(&place.object_key), start..end).await
    }

    pub(super) async fn list(&self) -> object_store::Result<Vec<Listed>> {
        let objects = self.0.list(Some(&ObjectPath::from(PREFIX)));
        let listed = objects.try_filter_map(|object| {
            let key = object.location.filename().map(str::to_owned);
            let listed = key.map(|key| Listed {
                key,
                written_at: object.last_modified.timestamp_micros(),
            });
            std::future::ready(Ok(listed))
        });
        listed.try_collect().await
    }

    /// Removes an object; one that is gone is no error.
    pub(super) async fn remove(&self, key: &str) -> object_store::Result<()> {
        match self.0.delete(&path(key)).await {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            other => other,
        }
    }
}

/// Two digits make a directory, so that none holds more than a 256th of the objects.
fn path(key: &str) -> ObjectPath {
    let (directory, _) = key.split_at_checked(2).unwrap_or((key, ""));
    ObjectPath::from(format!("{PREFIX}/{directory}/{key}"))
}
