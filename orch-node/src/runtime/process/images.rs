//! Images that are only names.

use std::path::PathBuf;

use async_trait::async_trait;

use super::ProcessRuntime;
use crate::runtime::{ImageError, ImageInfo, ImagePull, Images};

/// The image's name without Docker's default registry, and without its tag.
fn names(image: &str) -> (&str, &str) {
    let short = image.strip_prefix("docker.io/").unwrap_or(image);
    let short = short.strip_prefix("library/").unwrap_or(short);
    let last = short.rfind('/').map_or(0, |at| at + 1);
    let bare = match short[last..].find([':', '@']) {
        Some(at) => &short[..last + at],
        None => short,
    };
    (short, bare)
}

impl ProcessRuntime {
    /// The executable behind an image, if there is one.
    pub(super) fn entry_point(&self, image: &str) -> Option<PathBuf> {
        let images = &self.0.options.images;
        let (full, bare) = names(image);
        let named = images.get(full).or_else(|| images.get(bare)).cloned();
        named.or_else(|| self.in_folder(bare))
    }

    /// The executable of the image folder that has the image's last name.
    fn in_folder(&self, bare: &str) -> Option<PathBuf> {
        use std::os::unix::fs::PermissionsExt as _;
        let name = bare.rsplit('/').next().filter(|name| !matches!(*name, "" | "." | ".."))?;
        let path = self.0.options.image_folder.as_ref()?.join(name);
        let file = std::fs::metadata(&path).ok()?;
        (file.is_file() && file.permissions().mode() & 0o111 != 0).then_some(path)
    }

    fn info(&self, image: &str) -> ImageInfo {
        let size = self.entry_point(image).and_then(|path| std::fs::metadata(path).ok());
        ImageInfo {
            id: format!("process://{image}"),
            tags: vec![image.to_owned()],
            size_bytes: size.map_or(0, |m| m.len()),
            ..ImageInfo::default()
        }
    }
}

#[async_trait]
impl Images for ProcessRuntime {
    async fn image(&self, image: &str) -> Result<Option<ImageInfo>, ImageError> {
        Ok(self.entry_point(image).map(|_| self.info(image)))
    }

    async fn pull_image(&self, pull: ImagePull) -> Result<ImageInfo, ImageError> {
        if pull.needs_entry_point && self.entry_point(&pull.image).is_none() {
            let why = "image not available on this runtime: it runs processes of the host, and \
                       knows no executable of this name; give the container a command"
                .into();
            return Err(ImageError::Pull { image: pull.image, why });
        }
        Ok(self.info(&pull.image))
    }

    async fn images(&self) -> Result<Vec<ImageInfo>, ImageError> {
        Ok(self.0.options.images.keys().map(|name| self.info(name)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_registry_and_tag() {
        for (image, expected) in [
            ("demo:latest", ("demo:latest", "demo")),
            ("docker.io/library/demo:1", ("demo:1", "demo")),
            ("host:5000/a/demo", ("host:5000/a/demo", "host:5000/a/demo")),
            ("a/demo@sha256:00", ("a/demo@sha256:00", "a/demo")),
        ] {
            assert_eq!(names(image), expected, "{image}");
        }
    }
}
