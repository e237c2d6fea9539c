//! Files that change all at once: a symbolic link `..data` points to a folder with the current
//! contents and is replaced by renaming.
//!
//! Source: `pkg/volume/util/atomic_writer.go`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Component, Path},
};

/// A file to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) data: Vec<u8>,
    pub(super) mode: u32,
}

/// Relative paths to files.
pub(super) type Payload = BTreeMap<String, File>;

const DATA: &str = "..data";

/// Whether a path stays inside and does not clash with the names used here.
pub(super) fn is_safe(path: &str) -> bool {
    !path.is_empty()
        && !path.starts_with("..")
        && Path::new(path).components().all(|c| matches!(c, Component::Normal(_)))
}

fn invalid(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("invalid path {path:?}"))
}

fn first(path: &str) -> &str {
    path.split('/').next().unwrap_or(path)
}

/// Whether the folder behind `..data` holds exactly the payload.
fn is_current(dir: &Path, payload: &Payload) -> bool {
    let mut found = 0;
    let mut pending = vec![dir.join(DATA)];
    while let Some(folder) = pending.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { return false };
        for entry in entries.flatten() {
            if entry.path().is_dir() {
                pending.push(entry.path());
            } else {
                found += 1;
            }
        }
    }
    found == payload.len()
        && payload.iter().all(|(path, file)| {
            let path = dir.join(DATA).join(path);
            let mode = fs::metadata(&path).map(|m| m.permissions().mode() & 0o777);
            mode.is_ok_and(|mode| mode == file.mode & 0o777)
                && fs::read(&path).is_ok_and(|data| data == file.data)
        })
}

/// Makes `dir` hold the payload. Does nothing if it does already; `stamp` names the new folder.
pub(super) fn write(dir: &Path, payload: &Payload, stamp: u64) -> io::Result<()> {
    if let Some(bad) = payload.keys().find(|path| !is_safe(path)) {
        return Err(invalid(bad));
    }
    if is_current(dir, payload) {
        return Ok(());
    }
    let old = fs::read_link(dir.join(DATA)).ok();
    let name = format!("..{stamp:016x}");
    let folder = dir.join(&name);
    fs::create_dir_all(&folder)?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
    for (path, file) in payload {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, &file.data)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode & 0o777))?;
    }
    let temporary = dir.join("..data_tmp");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(&name, &temporary)?;
    fs::rename(&temporary, dir.join(DATA))?;
    link_names(dir, payload)?;
    if let Some(old) = old.filter(|old| *old != Path::new(&name)) {
        fs::remove_dir_all(dir.join(old))?;
    }
    Ok(())
}

/// Makes exactly the payload's first path components visible beside `..data`.
fn link_names(dir: &Path, payload: &Payload) -> io::Result<()> {
    let wanted: BTreeSet<&str> = payload.keys().map(|path| first(path)).collect();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        if !name.starts_with("..") && !wanted.contains(name) {
            fs::remove_file(dir.join(name))?;
        }
    }
    for name in wanted {
        match symlink(Path::new(DATA).join(name), dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |data: &str| File { data: data.into(), mode: 0o640 };
        files.iter().map(|(path, data)| ((*path).to_owned(), file(data))).collect()
    }

    #[test]
    fn contents_change_at_once_and_leave_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        write(dir, &payload(&[("a", "1"), ("d/b", "2")]), 1).unwrap();
        assert_eq!(fs::read_to_string(dir.join("d/b")).unwrap(), "2");
        let mode = fs::metadata(dir.join("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        write(dir, &payload(&[("a", "1"), ("d/b", "2")]), 2).unwrap();
        assert_eq!(fs::read_link(dir.join(DATA)).unwrap(), Path::new("..0000000000000001"));
        write(dir, &payload(&[("a", "3")]), 3).unwrap();
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "3");
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["..0000000000000003", "..data", "a"]);
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["../a", "/a", "a/../../b", "..data", ""] {
            assert!(write(dir.path(), &payload(&[(path, "x")]), 1).is_err(), "{path}");
        }
    }
}
