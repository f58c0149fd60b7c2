//! Which configuration files are there, and have they changed?

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use lateen_config::SourceFile;

/// Extensions of files that are read from folders. A file named by itself is read whatever its name.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];
/// Larger files are refused: configuration does not grow so large, and memory stays bounded.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;
/// Folders nested deeper than this are not entered: a loop of symbolic links ends here.
const MAX_DEPTH: usize = 32;

/// The files and folders that the user named.
#[derive(Clone, Debug)]
pub struct Files {
    paths: Vec<PathBuf>,
}

/// What tells that a file is still the same, without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
    #[cfg(unix)]
    inode: u64,
}

/// The stamps of all files, by path.
pub type Stamps = BTreeMap<PathBuf, Stamp>;

/// A file or folder that could not be read.
#[derive(Debug)]
pub struct Unreadable {
    /// The path.
    pub path: PathBuf,
    /// Why.
    pub error: io::Error,
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot read {}: {}", self.path.display(), self.error)
    }
}

impl std::error::Error for Unreadable {}

impl Files {
    /// The named files and folders.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths }
    }

    /// The named paths.
    #[must_use]
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Looks at all files, in the order of their paths. Folders are entered; hidden files and folders are passed over.
    ///
    /// # Errors
    /// A named path that does not exist or cannot be looked at.
    pub fn stamps(&self) -> Result<Stamps, Unreadable> {
        let mut stamps = Stamps::new();
        for path in &self.paths {
            let metadata = std::fs::metadata(path).map_err(|error| unreadable(path, error))?;
            if metadata.is_dir() {
                enter(path, &mut stamps, 0)?;
            } else {
                stamps.insert(path.clone(), stamp(&metadata));
            }
        }
        Ok(stamps)
    }

    /// Reads one file.
    ///
    /// # Errors
    /// A file that cannot be read, is too large, or is not UTF-8.
    pub fn read(path: &Path) -> Result<Arc<SourceFile>, Unreadable> {
        let metadata = std::fs::metadata(path).map_err(|error| unreadable(path, error))?;
        if metadata.len() > MAX_FILE_BYTES {
            let message = format!("{} bytes; the limit is {MAX_FILE_BYTES}", metadata.len());
            return Err(unreadable(path, io::Error::new(io::ErrorKind::FileTooLarge, message)));
        }
        let file = std::fs::File::open(path).map_err(|error| unreadable(path, error))?;
        // Pipes and devices do not tell their length beforehand.
        let mut bytes = Vec::new();
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| unreadable(path, error))?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            let message = format!("more than {MAX_FILE_BYTES} bytes");
            return Err(unreadable(path, io::Error::new(io::ErrorKind::FileTooLarge, message)));
        }
        let text = String::from_utf8(bytes).map_err(|error| unreadable(path, not_utf8(error.as_bytes())))?;
        Ok(SourceFile::new(path.to_string_lossy(), text))
    }
}

fn not_utf8(bytes: &[u8]) -> io::Error {
    let what = match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "it is UTF-16".to_owned(),
        _ => {
            let sound = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
            format!("line {} is not UTF-8", sound.matches('\n').count() + 1)
        }
    };
    io::Error::new(io::ErrorKind::InvalidData, format!("{what}; save it as UTF-8"))
}

fn unreadable(path: &Path, error: io::Error) -> Unreadable {
    Unreadable { path: path.to_owned(), error }
}

fn stamp(metadata: &std::fs::Metadata) -> Stamp {
    Stamp {
        modified: metadata.modified().ok(),
        bytes: metadata.len(),
        #[cfg(unix)]
        inode: std::os::unix::fs::MetadataExt::ino(metadata),
    }
}

fn enter(folder: &Path, stamps: &mut Stamps, depth: usize) -> Result<(), Unreadable> {
    if depth > MAX_DEPTH {
        return Ok(());
    }
    let entries = std::fs::read_dir(folder).map_err(|error| unreadable(folder, error))?;
    for entry in entries {
        let entry = entry.map_err(|error| unreadable(folder, error))?;
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        // Through symbolic links; a file may vanish between the listing and the look.
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        if metadata.is_dir() {
            enter(&path, stamps, depth + 1)?;
        } else if metadata.is_file()
            && path.extension().is_some_and(|extension| EXTENSIONS.iter().any(|known| extension == *known))
        {
            // Sockets and pipes are passed over: nothing says that they ever end.
            stamps.insert(path, stamp(&metadata));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_entered_and_only_configuration_files_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.yml", "c.json", "notes.txt", ".hidden.yaml"] {
            std::fs::write(folder.path().join(name), "x: 1").unwrap();
        }
        std::fs::create_dir(folder.path().join("inner")).unwrap();
        std::fs::write(folder.path().join("inner/d.yaml"), "x: 1").unwrap();
        let files = Files::new(vec![folder.path().to_owned()]);
        let names: Vec<_> = files
            .stamps()
            .unwrap()
            .into_keys()
            .map(|path| path.strip_prefix(folder.path()).unwrap().display().to_string())
            .collect();
        assert_eq!(names, ["a.yml", "b.yaml", "c.json", "inner/d.yaml"]);
    }

    #[test]
    fn a_named_path_that_does_not_exist_is_an_error_that_names_it() {
        let error = Files::new(vec!["/nowhere/at/all.yaml".into()]).stamps().unwrap_err();
        assert!(error.to_string().starts_with("cannot read /nowhere/at/all.yaml: "), "{error}");
    }

    #[test]
    fn text_in_another_encoding_is_named_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        let complaint = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            Files::read(&path).unwrap_err().error.to_string()
        };
        assert_eq!(complaint(b"a: 1\nb: \xe4\n"), "line 2 is not UTF-8; save it as UTF-8");
        assert_eq!(complaint(b"\xff\xfea\0:\0"), "it is UTF-16; save it as UTF-8");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_never_ends_is_refused_at_the_limit() {
        let error = Files::read(Path::new("/dev/zero")).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot read /dev/zero: more than {MAX_FILE_BYTES} bytes"));
    }

    #[cfg(unix)]
    #[test]
    fn a_socket_in_a_folder_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("a.yaml")).unwrap();
        std::fs::write(folder.path().join("b.yaml"), "x: 1").unwrap();
        let stamps = Files::new(vec![folder.path().to_owned()]).stamps().unwrap();
        assert_eq!(stamps.into_keys().collect::<Vec<_>>(), [folder.path().join("b.yaml")]);
    }

    #[test]
    fn a_file_of_another_size_has_another_stamp() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        std::fs::write(&path, "x: 1").unwrap();
        let files = Files::new(vec![folder.path().to_owned()]);
        let before = files.stamps().unwrap();
        assert_eq!(before, files.stamps().unwrap());
        std::fs::write(&path, "x: 12").unwrap();
        assert_ne!(before, files.stamps().unwrap());
    }
}
