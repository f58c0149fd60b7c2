//! Is every example of the project right?

use std::fs;
use std::path::{Path, PathBuf};

use lateen_config::{SourceFile, load, render};

#[test]
fn all_examples_are_read_without_a_problem() {
    let mut files = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples"), &mut files);
    files.sort();
    assert!(!files.is_empty());
    for path in files {
        let text = fs::read_to_string(&path).expect("a file");
        let file = SourceFile::new(path.to_string_lossy(), text);
        let parsed = load(std::slice::from_ref(&file));
        assert_eq!(render(&parsed.diagnostics, std::slice::from_ref(&file)), "");
        assert!(!parsed.objects.is_empty(), "{}", path.display());
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "yaml" || extension == "json") {
            files.push(path);
        }
    }
}
