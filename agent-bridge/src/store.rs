//! The embedded store: what the bridge has acknowledged and must not forget.
//!
//! Values are JSON, keyed by what they are about; the tables are small next to what they sum up.
//! One transaction carries everything that changed since the last one. A file that cannot be read, or
//! that a newer bridge wrote in a way that this one does not know, is moved aside, kept for whoever
//! wants to look or goes forward again, and a new one is begun.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, btree_map::Entry},
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use thiserror::Error;

/// Version of the tables' content; a larger one in the file is from a newer bridge, and is set aside. A new table, row or
/// member that an older bridge may leave alone needs no new version: going back then keeps everything.
const SCHEMA: u32 = 2;
/// Memory that redb may use for pages.
const CACHE_BYTES: usize = 16 << 20;
/// Key of [`SCHEMA`] in [`Table::Meta`].
const SCHEMA_KEY: &[u8] = b"schema";
/// Key of the mark of a store that knows that it was begun from nothing.
const BEGUN_KEY: &[u8] = b"begun";

/// What is kept.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Table {
    /// The schema's version.
    Meta,
    /// What the learner remembers: conversations, violations, rules with evidence.
    Learned,
    /// Mode of each group that was given one.
    Modes,
    /// Threats.
    Threats,
    /// Last batch of each proxy instance.
    Batches,
    /// Events that wait for a sink.
    Events,
    /// Where each sink is in them, and how they are numbered.
    Cursors,
    /// Events that were left out and are to be sent later.
    Pending,
    /// Pods that the API server named last.
    Pods,
    /// What the cluster's controller said last.
    Cluster,
    /// Workloads whose proxy was asked what it enforces, because this store is new, and whether it
    /// keeps its rules.
    Asked,
}

impl Table {
    /// Every table but [`Table::Meta`].
    pub const CONTENT: [Self; 10] = [
        Self::Learned,
        Self::Modes,
        Self::Threats,
        Self::Batches,
        Self::Events,
        Self::Cursors,
        Self::Pending,
        Self::Pods,
        Self::Cluster,
        Self::Asked,
    ];

    fn definition(self) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
        TableDefinition::new(match self {
            Self::Meta => "meta",
            Self::Learned => "learned",
            Self::Modes => "modes",
            Self::Threats => "threats",
            Self::Batches => "batches",
            Self::Events => "events",
            Self::Cursors => "cursors",
            Self::Pending => "pending",
            Self::Pods => "pods",
            Self::Cluster => "cluster",
            Self::Asked => "asked",
        })
    }
}

/// One row's new value, or its end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// Where.
    pub table: Table,
    /// Which row.
    pub key: Vec<u8>,
    /// `None` removes it.
    pub value: Option<Vec<u8>>,
}

/// The store cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Another process has the file open.
    #[error("{0} is in use by another bridge: stop it, or set OUTRIDER_BRIDGE_STORE")]
    InUse(PathBuf),
    /// The directory or file cannot be made, read or moved.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The engine refused.
    #[error("{path}: {source}")]
    Engine {
        /// The file.
        path: PathBuf,
        /// What it says.
        source: Box<redb::Error>,
    },
}

/// An open store.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    database: Option<Database>,
    set_aside: Option<PathBuf>,
    knows_beginning: bool,
}

impl Store {
    /// Opens the store in `path`, making it if need be. `now` names a file that is set aside.
    ///
    /// # Errors
    /// When another process has it, or the system refuses.
    pub fn open(path: &Path, now: u64) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Io { path: path.to_owned(), source };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        claim(path).map_err(failed)?;
        let mut store =
            Self { path: path.to_owned(), database: None, set_aside: None, knows_beginning: false };
        let (reason, name) = match store.reopen() {
            Ok(Some(newer)) => (
                format!("it has schema {newer}, this bridge knows {SCHEMA}"),
                format!("schema-{newer}"),
            ),
            Err(StoreError::Engine { source, .. }) if is_unreadable(&source) => {
                (source.to_string(), "unreadable".to_owned())
            }
            other => return other.map(|_newer| store),
        };
        let aside = aside(path, &name, now);
        std::fs::rename(path, &aside).map_err(failed)?;
        tracing::error!(
            reason, file = %path.display(), moved = %aside.display(),
            "the store cannot be used: it was set aside and a new one begun"
        );
        store.set_aside = Some(aside);
        claim(path).map_err(failed)?;
        store.reopen()?;
        Ok(store)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a file that cannot be used was moved at start.
    #[must_use]
    pub fn set_aside(&self) -> Option<&Path> {
        self.set_aside.as_deref()
    }

    /// Whether it was begun from nothing by a bridge that marks that: what it lacks, an earlier one
    /// may have had.
    #[must_use]
    pub fn knows_beginning(&self) -> bool {
        self.knows_beginning
    }

    /// Calls `each` with every row of a table.
    ///
    /// # Errors
    /// What the engine says.
    pub fn load(&self, table: Table, mut each: impl FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
        let Some(database) = &self.database else { return Ok(()) };
        let mut read = || -> Result<(), redb::Error> {
            let transaction = database.begin_read()?;
            for row in transaction.open_table(table.definition())?.iter()? {
                let (key, value) = row?;
                each(key.value(), value.value());
            }
            Ok(())
        };
        read().map_err(|error| self.engine(error))
    }

    /// Writes all changes, in their order, or none; they are on disk when this returns.
    ///
    /// # Errors
    /// What the engine says. The file is opened again at the next call: after an I/O error (a full
    /// disk, for one) the engine refuses to go on with it.
    pub fn commit(
        &mut self,
        changes: impl IntoIterator<Item: Borrow<Change>>,
    ) -> Result<(), StoreError> {
        if self.database.is_none() && self.reopen()?.is_some() {
            return Err(StoreError::InUse(self.path.clone()));
        }
        let Some(database) = &self.database else { return Ok(()) };
        write(database, changes).map_err(|error| {
            let error = self.engine(error);
            self.database = None;
            error
        })
    }

    /// The schema, if a newer bridge wrote it: then it is left alone.
    fn reopen(&mut self) -> Result<Option<u32>, StoreError> {
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true)
            .create(&self.path)
            .map_err(|error| match error {
                DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(self.path.clone()),
                other => self.engine(other.into()),
            })?;
        let (found, begun) = prepare(&database).map_err(|error| self.engine(error))?;
        if found > SCHEMA {
            return Ok(Some(found));
        }
        self.database = Some(database);
        self.knows_beginning = begun;
        Ok(None)
    }

    /// Lets go of the file, as after an I/O error.
    #[cfg(test)]
    pub(crate) fn let_go(&mut self) {
        self.database = None;
    }

    fn engine(&self, source: redb::Error) -> StoreError {
        StoreError::Engine { path: self.path.clone(), source: Box::new(source) }
    }
}

/// Makes the file, if need be, readable by its owner only: it holds what workloads sent.
fn claim(path: &Path) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map(drop)
}

/// Makes the tables and says which schema the file has, and whether it knows that it was begun. A newer one stays as
/// it is.
fn prepare(database: &Database) -> Result<(u32, bool), redb::Error> {
    let transaction = database.begin_write()?;
    let found = {
        let mut meta = transaction.open_table(Table::Meta.definition())?;
        let found = meta.get(SCHEMA_KEY)?.map(|value| schema(value.value()));
        if let Some(newer) = found.filter(|found| *found > SCHEMA) {
            return Ok((newer, false));
        }
        // Schema 1 lacks the export's tables; they begin empty.
        if found.is_none_or(|found| found < SCHEMA) {
            meta.insert(SCHEMA_KEY, SCHEMA.to_be_bytes().as_slice())?;
        }
        if found.is_none() {
            meta.insert(BEGUN_KEY, [].as_slice())?;
        }
        let begun = meta.get(BEGUN_KEY)?.is_some();
        for table in Table::CONTENT {
            transaction.open_table(table.definition())?;
        }
        (found.unwrap_or(SCHEMA), begun)
    };
    transaction.commit()?;
    Ok(found)
}

fn schema(value: &[u8]) -> u32 {
    value.try_into().map_or(u32::MAX, u32::from_be_bytes)
}

fn write(
    database: &Database,
    changes: impl IntoIterator<Item: Borrow<Change>>,
) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    let mut tables = BTreeMap::new();
    for change in changes {
        let Change { table, key, value } = change.borrow();
        let open = match tables.entry(*table) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(closed) => closed.insert(transaction.open_table(table.definition())?),
        };
        match value {
            Some(value) => drop(open.insert(key.as_slice(), value.as_slice())?),
            None => drop(open.remove(key.as_slice())?),
        }
    }
    drop(tables);
    transaction.commit()?;
    Ok(())
}

/// Whether the file's content is at fault, rather than the system.
fn is_unreadable(error: &redb::Error) -> bool {
    match error {
        redb::Error::Corrupted(_)
        | redb::Error::UpgradeRequired(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TypeDefinitionChanged { .. } => true,
        redb::Error::Io(source) => {
            matches!(source.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
        }
        _ => false,
    }
}

fn aside(path: &Path, why: &str, now: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{why}-{now}"));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests;
