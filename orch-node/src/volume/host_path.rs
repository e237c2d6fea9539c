//! `hostPath`.
//!
//! Source: `pkg/volume/hostpath/host_path.go`.

use std::{os::unix::fs::FileTypeExt as _, path::PathBuf};

use k8s_openapi::api::core::v1::HostPathVolumeSource;

use super::{PreparedVolume, VolumeError, make_dir, run_blocking};

pub(super) async fn prepare(
    source: &HostPathVolumeSource,
    has_files: bool,
) -> Result<PreparedVolume, VolumeError> {
    let path = PathBuf::from(&source.path);
    if has_files {
        let wanted = source.type_.clone().unwrap_or_default();
        if wanted == "DirectoryOrCreate" {
            make_dir(path.clone(), 0o755).await?;
        }
        let checked = path.clone();
        run_blocking(move || check(&checked, &wanted)).await?;
    }
    Ok(PreparedVolume { path, read_only: false })
}

fn check(path: &std::path::Path, wanted: &str) -> Result<(), VolumeError> {
    if wanted == "FileOrCreate" && !path.exists() {
        std::fs::File::create(path).map_err(VolumeError::io("cannot create", path))?;
    }
    let found = std::fs::metadata(path).map(|m| m.file_type());
    let fits = |test: fn(&std::fs::FileType) -> bool| found.as_ref().is_ok_and(test);
    let (ok, what) = match wanted {
        "" => (true, ""),
        "Directory" | "DirectoryOrCreate" => (fits(std::fs::FileType::is_dir), "a directory"),
        "File" | "FileOrCreate" => (fits(std::fs::FileType::is_file), "a file"),
        "Socket" => (fits(|t| t.is_socket()), "a socket file"),
        "CharDevice" => (fits(|t| t.is_char_device()), "a character device"),
        "BlockDevice" => (fits(|t| t.is_block_device()), "a block device"),
        other => return Err(VolumeError::Source(format!("{other} is an invalid volume type"))),
    };
    if ok {
        return Ok(());
    }
    let text = format!("hostPath type check failed: {} is not {what}", path.display());
    Err(VolumeError::Source(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_checked_and_created() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        assert!(check(&file, "File").is_err());
        assert!(check(&file, "").is_ok());
        assert!(check(&file, "FileOrCreate").is_ok());
        assert!(check(&file, "File").is_ok());
        let error = check(&file, "Directory").unwrap_err().to_string();
        assert!(error.starts_with("hostPath type check failed:"), "{error}");
        assert!(check(dir.path(), "Directory").is_ok());
        assert!(check(dir.path(), "Nope").is_err());
    }
}
