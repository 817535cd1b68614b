//! Plugins: components by digest, the tools they offer, and the names and versions that lead to them.

use serde_json::Value;
use uuid::Uuid;

use super::page::{Page, PageRequest};
use super::sql::{Connection, Row};
use super::versions::activate;
use super::writer::Op;
use super::{Store, StoreError, from_json, json_bytes};
use crate::clock::new_id;
use crate::model::plugin::{PluginDigest, PluginRef};
use crate::model::time::Timestamp;

/// A version of a plugin.
#[derive(Clone, Debug)]
pub struct PluginVersion {
    /// Sorts versions by when they came.
    pub id: Uuid,
    /// What people call the plugin.
    pub name: String,
    /// Which version.
    pub version: String,
    /// What it is.
    pub digest: PluginDigest,
    /// Bytes of the component.
    pub size_bytes: u64,
    /// The interfaces that it imports.
    pub imports: Vec<String>,
    /// What the component says it wants, as JSON.
    pub request: Option<Value>,
    /// Where it stands.
    pub status: VersionStatus,
    /// The key that it was signed with, if it was.
    pub signed_by: Option<[u8; 32]>,
    /// When it was uploaded.
    pub created_at: Timestamp,
}

/// Where a version of a plugin stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionStatus {
    /// It is what the name means.
    Active,
    /// It is there, and another version is what the name means, or none.
    Inactive,
    /// It wants more than was granted when it came, and becomes active with a grant.
    Waiting,
    /// No definition may name it any more.
    Retired,
}

impl VersionStatus {
    /// As clients spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Inactive => "inactive",
            Self::Waiting => "waiting",
            Self::Retired => "retired",
        }
    }
}

/// A signature as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredSignature {
    /// The signature.
    pub signature: [u8; 64],
    /// The public key that it was verified with.
    pub signed_by: [u8; 32],
}

/// A plugin to keep.
#[derive(Clone, Debug)]
pub struct NewPlugin {
    /// What people call it.
    pub name: String,
    /// Which version.
    pub version: String,
    /// What it is.
    pub digest: PluginDigest,
    /// The component.
    pub component: Vec<u8>,
    /// The interfaces that it imports.
    pub imports: Vec<String>,
    /// The tools that it offers, by name: each a `Tool` of the Model Context Protocol.
    pub tools: Vec<(String, Value)>,
    /// What the component says it wants, as JSON.
    pub request: Option<Value>,
    /// How it begins: active, inactive, or waiting for a grant.
    pub status: VersionStatus,
    /// The rights that it takes over, as JSON, unless the component has some already.
    pub rights: Option<Value>,
    /// Its signature. One that is there already is replaced by another, and never by none.
    pub signature: Option<StoredSignature>,
}

/// What became of a plugin to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is kept now, and is what its name means.
    New,
    /// The same component had the same name and version already.
    Same,
    /// The version is another component.
    VersionTaken(PluginDigest),
}

const COLUMNS_FROM: &str = "SELECT v.id, v.name, v.version, v.digest, v.created_at, v.activated_at, v.retired_at, v.waits, \
                                   p.size, p.imports, p.request, s.signed_by \
                            FROM plugin_versions v JOIN plugins p ON p.digest = v.digest \
                            LEFT JOIN plugin_signatures s ON s.digest = v.digest ";

/// Orders the versions of a name by what it means: the one that was activated last, and where none is active the newest.
const MEANT: &str = "CASE WHEN activated_at IS NULL THEN 0 ELSE activated_at END DESC, id DESC";

/// [`COLUMNS_FROM`] with a condition.
fn select(condition: &str) -> sqlx::AssertSqlSafe<String> {
    sqlx::AssertSqlSafe(format!("{COLUMNS_FROM}{condition}"))
}

struct Add {
    id: Uuid,
    new: NewPlugin,
    imports: Vec<u8>,
    tools: Vec<(String, Vec<u8>)>,
    request: Option<Vec<u8>>,
    rights: Option<Vec<u8>>,
    now: i64,
}

impl Op for Add {
    type Output = Result<Added, StoreError>;

    async fn perform(&self, db: &mut Connection<'_>) -> Result<Self::Output, sqlx::Error> {
        let added = self.add(db).await?;
        if let (Ok(Added::New | Added::Same), Some(signed)) = (&added, &self.new.signature) {
            db.query(
                "INSERT INTO plugin_signatures (digest, signature, signed_by, created_at) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (digest) DO UPDATE SET signature = excluded.signature, signed_by = excluded.signed_by, \
                 created_at = excluded.created_at",
            )
            .bind(&self.new.digest.0[..])
            .bind(&signed.signature[..])
            .bind(&signed.signed_by[..])
            .bind(self.now)
            .execute()
            .await?;
        }
        Ok(added)
    }
}

impl Add {
    async fn add(&self, db: &mut Connection<'_>) -> Result<Result<Added, StoreError>, sqlx::Error> {
        if let Some(earlier) = self.earlier(db).await? {
            return Ok(earlier);
        }
        let new = &self.new;
        self.insert_component(db).await?;
        let inserted = db
            .query(
                "INSERT INTO plugin_versions (id, name, version, digest, created_at, waits) VALUES ($1, $2, $3, $4, $5, $6) \
                 ON CONFLICT (name, version) DO NOTHING",
            )
            .bind(self.id)
            .bind(&new.name)
            .bind(&new.version)
            .bind(&new.digest.0[..])
            .bind(self.now)
            .bind(i64::from(new.status == VersionStatus::Waiting))
            .execute()
            .await?;
        if inserted == 0 {
            // Somebody else was quicker by a moment.
            return Ok(self.earlier(db).await?.unwrap_or(Ok(Added::New)));
        }
        if let Some(rights) = &self.rights {
            let sql = "INSERT INTO plugin_grants (digest, rights, granted_at) VALUES ($1, $2, $3) \
                       ON CONFLICT (digest) DO NOTHING";
            db.query(sql).bind(&new.digest.0[..]).bind(rights).bind(self.now).execute().await?;
        }
        if new.status == VersionStatus::Active {
            activate(db, &new.name, self.id, self.now).await?;
        }
        Ok(Ok(Added::New))
    }

    /// What became of it when the version exists already.
    async fn earlier(&self, db: &mut Connection<'_>) -> Result<Option<Result<Added, StoreError>>, sqlx::Error> {
        let (new, sql) = (&self.new, "SELECT digest FROM plugin_versions WHERE name = $1 AND version = $2");
        let taken = db.query(sql).bind(&new.name).bind(&new.version).fetch_optional().await?;
        let added = |digest| if digest == new.digest { Added::Same } else { Added::VersionTaken(digest) };
        Ok(taken.map(|row| read_digest(&row).map(added)))
    }

    /// The same component may have come before under another name.
    async fn insert_component(&self, db: &mut Connection<'_>) -> Result<(), sqlx::Error> {
        let new = &self.new;
        let size = i64::try_from(new.component.len()).unwrap_or(i64::MAX);
        let inserted = db
            .query(
                "INSERT INTO plugins (digest, size, imports, created_at, component, request) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (digest) DO NOTHING",
            )
            .bind(&new.digest.0[..])
            .bind(size)
            .bind(&self.imports)
            .bind(self.now)
            .bind(&new.component)
            .bind(self.request.as_deref())
            .execute()
            .await?;
        if inserted == 0 {
            return Ok(());
        }
        for (n, (name, tool)) in (0_i64..).zip(&self.tools) {
            db.query("INSERT INTO plugin_tools (digest, n, name, tool) VALUES ($1, $2, $3, $4)")
                .bind(&new.digest.0[..])
                .bind(n)
                .bind(name)
                .bind(tool)
                .execute()
                .await?;
        }
        Ok(())
    }
}

impl Store {
    /// Keeps a plugin: its component once, and its version.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn add_plugin(&self, new: NewPlugin) -> Result<Added, StoreError> {
        let imports = json_bytes(&new.imports)?;
        let tool = |(name, tool): &(String, Value)| Ok((name.clone(), json_bytes(tool)?));
        let tools = new.tools.iter().map(tool).collect::<Result<Vec<_>, StoreError>>()?;
        let request = new.request.as_ref().map(json_bytes).transpose()?;
        let rights = new.rights.as_ref().map(json_bytes).transpose()?;
        let now = self.clock.now().as_micros();
        self.db.write(Add { id: new_id(), new, imports, tools, request, rights, now }).await?
    }

    /// What a name, a version or a digest leads to. A name leads to its active version, and where none is active to the newest.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn plugin(&self, plugin: &PluginRef) -> Result<Option<PluginVersion>, StoreError> {
        let row = match plugin {
            PluginRef::Name(name) => {
                let query = self.db.query(select(&format!("WHERE v.name = $1 ORDER BY {MEANT} LIMIT 1")));
                query.bind(name).fetch_optional().await?
            }
            PluginRef::Version(name, version) => {
                let query = self.db.query(select("WHERE v.name = $1 AND v.version = $2"));
                query.bind(name).bind(version).fetch_optional().await?
            }
            PluginRef::Digest(digest) => {
                let query = self.db.query(select(&format!("WHERE v.digest = $1 ORDER BY {MEANT} LIMIT 1")));
                query.bind(&digest.0[..]).fetch_optional().await?
            }
        };
        row.as_ref().map(read).transpose()
    }

    /// Lists what every name means, newest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn plugins(&self, request: PageRequest) -> Result<Page<PluginVersion>, StoreError> {
        let rows = self
            .db
            .query(select(&format!(
                "WHERE v.id < $1 AND v.id = (SELECT id FROM plugin_versions WHERE name = v.name ORDER BY {MEANT} LIMIT 1) \
                 ORDER BY v.id DESC LIMIT $2"
            )))
            .bind(request.before_id())
            .bind(request.rows())
            .fetch_all()
            .await?;
        let items = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        Ok(request.page(items, |plugin| plugin.id))
    }

    /// Lists up to `most` versions of a plugin, newest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn plugin_versions(&self, name: &str, most: u32) -> Result<Vec<PluginVersion>, StoreError> {
        let query = self.db.query(select("WHERE v.name = $1 ORDER BY v.id DESC LIMIT $2"));
        let rows = query.bind(name).bind(i64::from(most)).fetch_all().await?;
        rows.iter().map(read).collect()
    }

    /// The plugins whose active version offers a tool of this name: names and digests, by name.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn plugins_with_tool(&self, tool: &str) -> Result<Vec<(String, PluginDigest)>, StoreError> {
        let sql = "SELECT v.name, v.digest FROM plugin_tools t JOIN plugin_versions v ON v.digest = t.digest \
                   WHERE t.name = $1 AND v.activated_at IS NOT NULL ORDER BY v.name";
        let rows = self.db.query(sql).bind(tool).fetch_all().await?;
        rows.iter().map(|row| Ok((row.get("name")?, read_digest(row)?))).collect()
    }

    /// The tools of a plugin, in its order: each a `Tool` of the Model Context Protocol.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn plugin_tools(&self, digest: PluginDigest) -> Result<Vec<Value>, StoreError> {
        let query = self.db.query("SELECT tool FROM plugin_tools WHERE digest = $1 ORDER BY n");
        let rows = query.bind(&digest.0[..]).fetch_all().await?;
        rows.iter().map(|row| from_json(row.get("tool")?)).collect()
    }

    /// The component with this digest.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn component(&self, digest: PluginDigest) -> Result<Option<Vec<u8>>, StoreError> {
        let query = self.db.query("SELECT component FROM plugins WHERE digest = $1");
        let row = query.bind(&digest.0[..]).fetch_optional().await?;
        row.map(|row| Ok(row.get("component")?)).transpose()
    }
}

impl Store {
    /// The signature of the component with this digest, if it has one.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn plugin_signature(&self, digest: PluginDigest) -> Result<Option<StoredSignature>, StoreError> {
        let query = self.db.query("SELECT signature, signed_by FROM plugin_signatures WHERE digest = $1");
        let row = query.bind(&digest.0[..]).fetch_optional().await?;
        let read = |row: Row| {
            let (signature, signed_by) = (fixed(row.get("signature")?)?, fixed(row.get("signed_by")?)?);
            Ok(StoredSignature { signature, signed_by })
        };
        row.map(read).transpose()
    }
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], StoreError> {
    let wrong = |_| StoreError::Unreadable(format!("a signature or key of a plugin does not have {N} bytes"));
    bytes.try_into().map_err(wrong)
}

pub(super) fn read_digest(row: &Row) -> Result<PluginDigest, StoreError> {
    let bytes: &[u8] = row.get("digest")?;
    let unreadable = || StoreError::Unreadable("a plugin's digest does not have 32 bytes".to_owned());
    bytes.try_into().map(PluginDigest).map_err(|_| unreadable())
}

fn read(row: &Row) -> Result<PluginVersion, StoreError> {
    let (activated, retired): (Option<i64>, Option<i64>) = (row.get("activated_at")?, row.get("retired_at")?);
    let request: Option<&[u8]> = row.get("request")?;
    let waits: i64 = row.get("waits")?;
    let status = match (retired, activated) {
        (Some(_), _) => VersionStatus::Retired,
        (None, Some(_)) => VersionStatus::Active,
        (None, None) if waits != 0 => VersionStatus::Waiting,
        (None, None) => VersionStatus::Inactive,
    };
    Ok(PluginVersion {
        request: request.map(from_json).transpose()?,
        status,
        id: row.get("id")?,
        name: row.get("name")?,
        version: row.get("version")?,
        digest: read_digest(row)?,
        size_bytes: row.size("size")?,
        imports: from_json(row.get("imports")?)?,
        signed_by: row.get::<Option<&[u8]>>("signed_by")?.map(fixed).transpose()?,
        created_at: Timestamp::from_micros(row.get("created_at")?),
    })
}
