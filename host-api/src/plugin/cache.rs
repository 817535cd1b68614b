//! The cache of compiled code: files that only this machine's user can write, each bound to its name by a key that stays
//! beside them. It may vanish at any moment, and what is doubtful in it is compiled again.

use std::fs::{DirBuilder, File};
use std::hash::{Hash as _, Hasher};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, RawMode, Stat, Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;
use rustix::process::geteuid;
use wasmtime::Engine;
use wasmtime::component::Component;

/// Begins what is authenticated. Another format has another number.
const FORMAT: &[u8] = b"weir compiled plugin 1\n";

const KEY_BYTES: usize = 32;
const MAC_BYTES: usize = 32;

/// The file with the key that all others are authenticated with.
const KEY_FILE: &str = "cache.key";

/// How the files of compiled code end, and those that are not whole yet.
const ENDING: &str = ".cwasm";
const DRAFT_ENDING: &str = ".draft";

/// Where compiled code is kept between starts.
#[derive(Clone, Debug)]
pub struct CacheSettings {
    /// The directory. It is made when it does not exist, and not used when others can write to it.
    pub dir: PathBuf,
    /// Bytes of all files together. Those that were not used for longest go first.
    pub max_bytes: u64,
    /// Makes random keys.
    pub fresh_key: fn() -> [u8; KEY_BYTES],
}

/// The cache. It is opened anew at each use, so it may be deleted, and other processes may use it.
pub(super) struct Cache {
    settings: CacheSettings,
    warned: AtomicBool,
}

/// The directory and its key, both nobody else's.
struct Opened {
    dir: OwnedFd,
    key: [u8; KEY_BYTES],
}

/// Why something is not used, in a few words.
type Doubt = String;

impl Cache {
    pub(super) fn new(settings: CacheSettings) -> Self {
        Self { settings, warned: AtomicBool::new(false) }
    }

    /// The compiled component with this digest, where there is one and nothing about it is doubtful.
    pub(super) fn take(&self, engine: &Engine, digest: &[u8; 32]) -> Option<Component> {
        let opened = self.open()?;
        let name = Name::of(engine, digest);
        match read(&opened, &name, self.settings.max_bytes)
            .and_then(|code| code.map(|code| load(engine, &code)).transpose())
        {
            Ok(found) => found,
            Err(doubt) => {
                let path = self.settings.dir.join(name.file());
                tracing::warn!(path = %path.display(), doubt, "a compiled plugin is not used: it is compiled again");
                None
            }
        }
    }

    /// Keeps a compiled component. That this fails costs the next start a compilation.
    pub(super) fn put(&self, engine: &Engine, digest: &[u8; 32], component: &Component) {
        let Some(opened) = self.open() else { return };
        let name = Name::of(engine, digest);
        let kept = component
            .serialize()
            .map_err(|error| io::Error::other(format!("{error:#}")))
            .and_then(|code| self.write(&opened, &name, &code));
        if let Err(error) = kept {
            let path = self.settings.dir.join(name.file());
            tracing::warn!(path = %path.display(), %error, "a compiled plugin is not kept: the next start compiles it again");
        }
    }

    /// Opens the directory, or says once why it is not used.
    fn open(&self) -> Option<Opened> {
        self.opened().map_err(|doubt| self.warn(&doubt)).ok()
    }

    fn warn(&self, doubt: &str) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            let path = self.settings.dir.display();
            tracing::warn!(%path, doubt, "the cache of compiled plugins is not used: every start compiles them");
        }
    }

    fn opened(&self) -> Result<Opened, Doubt> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |error: io::Error| format!("{what}: {error}")
        };
        let path = &self.settings.dir;
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("the directory cannot be made"))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = fs::open(path, flags, Mode::empty()).map_err(|error| failed("the directory")(error.into()))?;
        own(&fs::fstat(&dir).map_err(|error| failed("the directory")(error.into()))?, 0o022)
            .map_err(|doubt| format!("the directory {doubt}"))?;
        let mut found = read_key(&dir)?;
        if found.is_none() {
            self.make_key(&dir).map_err(failed("the key cannot be written"))?;
            found = read_key(&dir)?;
        }
        let key = found.ok_or_else(|| "the key is gone".to_owned())?;
        Ok(Opened { dir, key })
    }

    /// Whole or not at all, and never over another one: two processes may be starting.
    fn make_key(&self, dir: &OwnedFd) -> io::Result<()> {
        let (mut file, draft) = self.draft(dir)?;
        let written = file.write_all(&(self.settings.fresh_key)()).and_then(|()| file.sync_all());
        let linked = written.and_then(|()| match fs::linkat(dir, &draft, dir, KEY_FILE, AtFlags::empty()) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        });
        fs::unlinkat(dir, &draft, AtFlags::empty())?;
        linked
    }

    /// A new file that gets its name when it is whole.
    fn draft(&self, dir: &OwnedFd) -> io::Result<(File, String)> {
        let random = blake3::Hash::from_bytes((self.settings.fresh_key)());
        let draft = format!("{}{DRAFT_ENDING}", random.to_hex());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(dir, &draft, flags, Mode::RUSR | Mode::WUSR)?;
        Ok((file.into(), draft))
    }

    fn write(&self, opened: &Opened, name: &Name, code: &[u8]) -> io::Result<()> {
        let size = (code.len() + MAC_BYTES) as u64;
        if size > self.settings.max_bytes {
            return Err(io::Error::other(format!("{size} bytes are more than `plugin_cache_max_bytes`")));
        }
        make_room(&opened.dir, self.settings.max_bytes - size)?;
        let (mut file, draft) = self.draft(&opened.dir)?;
        let mac = mac(&opened.key, name, code);
        let written = file.write_all(mac.as_bytes()).and_then(|()| file.write_all(code));
        let done = written.and_then(|()| match fs::renameat(&opened.dir, &draft, &opened.dir, name.file()) {
            Err(Errno::ISDIR) => {
                // Nobody of us made it. The removal follows no links.
                std::fs::remove_dir_all(self.settings.dir.join(name.file()))?;
                Ok(fs::renameat(&opened.dir, &draft, &opened.dir, name.file())?)
            }
            renamed => Ok(renamed?),
        });
        done.inspect_err(|_| {
            // Where even this fails, the draft goes when room is made.
            let _ = fs::unlinkat(&opened.dir, &draft, AtFlags::empty());
        })
    }
}

/// What compiled code is filed under: what was compiled, by which compiler with which settings, for which machine.
struct Name(blake3::Hash);

impl Name {
    fn of(engine: &Engine, digest: &[u8; 32]) -> Self {
        let mut hasher = Hashed(blake3::Hasher::new());
        hasher.write(FORMAT);
        hasher.write(digest);
        engine.precompile_compatibility_hash().hash(&mut hasher);
        hasher.write(std::env::consts::ARCH.as_bytes());
        hasher.write(std::env::consts::OS.as_bytes());
        Self(hasher.0.finalize())
    }

    fn file(&self) -> String {
        format!("{}{ENDING}", self.0.to_hex())
    }
}

/// Takes what the engine wants to be told apart by, whole.
struct Hashed(blake3::Hasher);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let hash = self.0.finalize();
        hash.as_bytes().first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
    }
}

fn mac(key: &[u8; KEY_BYTES], name: &Name, code: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(FORMAT).update(name.0.as_bytes()).update(code);
    hasher.finalize()
}

/// Whether something is ours, and has none of the `forbidden` permissions.
fn own(stat: &Stat, forbidden: RawMode) -> Result<(), Doubt> {
    if stat.st_uid != geteuid().as_raw() {
        return Err("belongs to somebody else".to_owned());
    }
    let mode = RawMode::from(stat.st_mode) & 0o777;
    if mode & forbidden != 0 {
        return Err(format!("is open to others (mode {mode:03o})"));
    }
    Ok(())
}

/// Opens a regular file of ours for reading, with its size. A link is not followed, and a pipe not waited for.
fn open_own(dir: &OwnedFd, name: &str, forbidden: RawMode) -> Result<Option<(File, u64)>, Doubt> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match fs::openat(dir, name, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err("is a link".to_owned()),
        Err(error) => return Err(error.to_string()),
    };
    let stat = fs::fstat(&file).map_err(|error| error.to_string())?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err("is not a file".to_owned());
    }
    own(&stat, forbidden)?;
    Ok(Some((file.into(), u64::try_from(stat.st_size).unwrap_or(u64::MAX))))
}

fn read_key(dir: &OwnedFd) -> Result<Option<[u8; KEY_BYTES]>, Doubt> {
    let Some((file, _)) = open_own(dir, KEY_FILE, 0o077).map_err(|doubt| format!("the key {doubt}"))? else {
        return Ok(None);
    };
    let mut key = Vec::with_capacity(KEY_BYTES + 1);
    let read = file.take(KEY_BYTES as u64 + 1).read_to_end(&mut key);
    read.map_err(|error| format!("the key: {error}"))?;
    let wrong = |_| format!("the key does not have {KEY_BYTES} bytes");
    key.as_slice().try_into().map(Some).map_err(wrong)
}

/// Reads a whole file, and answers what in it was authenticated.
fn read(opened: &Opened, name: &Name, max_bytes: u64) -> Result<Option<Vec<u8>>, Doubt> {
    let Some((mut file, size)) = open_own(&opened.dir, &name.file(), 0o022)? else { return Ok(None) };
    if size > max_bytes {
        return Err(format!("has {size} bytes, more than all files may have together"));
    }
    let mut found = [0; MAC_BYTES];
    file.read_exact(&mut found).map_err(|error| error.to_string())?;
    // Not longer than it was a moment ago, whoever is writing to it.
    let mut code = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
    (&file).take(size).read_to_end(&mut code).map_err(|error| error.to_string())?;
    // The comparison takes the same time wherever they differ.
    if mac(&opened.key, name, &code) != found {
        return Err("is not what was written here under this name".to_owned());
    }
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    if let Err(error) = fs::futimens(&file, &Timestamps { last_access: now, last_modification: now }) {
        tracing::debug!(%error, "when a compiled plugin was used last is not noted");
    }
    Ok(Some(code))
}

#[expect(unsafe_code, reason = "wasmtime cannot check compiled code; the key of the cache did")]
fn load(engine: &Engine, code: &[u8]) -> Result<Component, Doubt> {
    // SAFETY: these bytes, in memory and not in a file that might change, were authenticated with a key that only this
    // user can read, together with the name that stands for the component, the engine and its settings. So
    // `Component::serialize` wrote them for the same in a process of this user. Whoever could forge them can read the key,
    // and could as well change this process.
    unsafe { Component::deserialize(engine, code) }.map_err(|error| format!("cannot be loaded: {error:#}"))
}

/// Deletes what was not used for longest, until no more than `max_bytes` are left. Touches only what looks like ours.
fn make_room(dir: &OwnedFd, max_bytes: u64) -> io::Result<()> {
    let (mut files, mut total) = (Vec::new(), 0_u64);
    for entry in fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let text = name.to_string_lossy();
        let ours = [ENDING, DRAFT_ENDING].iter().filter_map(|ending| text.strip_suffix(ending));
        if !ours.into_iter().any(|stem| blake3::Hash::from_hex(stem).is_ok()) {
            continue;
        }
        // Another process may have deleted it meanwhile.
        let Ok(stat) = fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            continue;
        }
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        total = total.saturating_add(size);
        files.push((modified(&stat), size, name.to_owned()));
    }
    files.sort_unstable();
    for (_, size, name) in files {
        if total <= max_bytes {
            break;
        }
        match fs::unlinkat(dir, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => total = total.saturating_sub(size),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// When it was last written or used, from the Unix epoch.
fn modified(stat: &Stat) -> Duration {
    let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or_default();
    Duration::new(u64::try_from(stat.st_mtime).unwrap_or_default(), nanos)
}
