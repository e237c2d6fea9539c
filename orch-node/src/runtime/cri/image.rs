//! Images.

use std::time::Duration;

use async_trait::async_trait;
use tonic::{Code, Status};

use super::{CriRuntime, proto, quick};
use crate::runtime::{ImageError, ImageInfo, ImagePull, Images, RegistryAuth};

/// The longest that a pull may take.
const PULL_TIMEOUT: Duration = Duration::from_secs(30 * 60);

fn spec(image: &str) -> proto::ImageSpec {
    proto::ImageSpec { image: image.to_owned(), ..proto::ImageSpec::default() }
}

#[async_trait]
impl Images for CriRuntime {
    async fn image(&self, image: &str) -> Result<Option<ImageInfo>, ImageError> {
        let request = proto::ImageStatusRequest { image: Some(spec(image)), verbose: false };
        match self.images.clone().image_status(quick(request)).await {
            Ok(status) => Ok(status.into_inner().image.map(decode)),
            Err(status) => Err(failed(image, &status)),
        }
    }

    async fn pull_image(&self, pull: ImagePull) -> Result<ImageInfo, ImageError> {
        let mut last = None;
        // Without credentials the pull is tried once, anonymously.
        let tries = pull.auth.into_iter().map(Some).chain([None]);
        let mut tried_with_credentials = false;
        for auth in tries {
            if auth.is_none() && tried_with_credentials {
                break;
            }
            tried_with_credentials |= auth.is_some();
            let request = proto::PullImageRequest {
                image: Some(spec(&pull.image)),
                auth: auth.map(credentials),
                sandbox_config: None,
            };
            let mut request = tonic::Request::new(request);
            request.set_timeout(PULL_TIMEOUT);
            match self.images.clone().pull_image(request).await {
                Ok(_) => {
                    let missing = || ImageError::Pull {
                        image: pull.image.clone(),
                        why: "the image is gone again after it was pulled".into(),
                    };
                    return self.image(&pull.image).await?.ok_or_else(missing);
                }
                Err(status) => last = Some(failed(&pull.image, &status)),
            }
        }
        Err(last.unwrap_or_else(|| ImageError::Pull { image: pull.image, why: String::new() }))
    }

    async fn images(&self) -> Result<Vec<ImageInfo>, ImageError> {
        let request = quick(proto::ListImagesRequest::default());
        let listed = self.images.clone().list_images(request).await;
        let listed = listed.map_err(|status| ImageError::Unavailable(Box::new(status)))?;
        Ok(listed.into_inner().images.into_iter().map(decode).collect())
    }

    async fn remove_image(&self, image: &str) -> Result<(), ImageError> {
        let request = proto::RemoveImageRequest { image: Some(spec(image)) };
        match self.images.clone().remove_image(quick(request)).await {
            Err(status) if status.code() != Code::NotFound => Err(failed(image, &status)),
            _ => Ok(()),
        }
    }
}

fn credentials(auth: RegistryAuth) -> proto::AuthConfig {
    proto::AuthConfig {
        username: auth.username,
        password: auth.password,
        server_address: auth.registry,
        identity_token: auth.identity_token,
        ..proto::AuthConfig::default()
    }
}

fn failed(image: &str, status: &Status) -> ImageError {
    let (image, why) = (image.to_owned(), status.message().to_owned());
    match status.code() {
        Code::Unavailable => ImageError::Unavailable(Box::new(status.clone())),
        Code::InvalidArgument => ImageError::InvalidName { image, why },
        _ if why.contains("invalid reference format") => ImageError::InvalidName { image, why },
        _ => ImageError::Pull { image, why },
    }
}

fn decode(image: proto::Image) -> ImageInfo {
    let user = image.uid.map(|uid| uid.value.to_string());
    ImageInfo {
        id: image.id,
        tags: image.repo_tags,
        digests: image.repo_digests,
        size_bytes: image.size,
        user: user.or(Some(image.username).filter(|name| !name.is_empty())),
    }
}
