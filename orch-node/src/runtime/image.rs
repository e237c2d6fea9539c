//! Images as data.

/// What is known of an image that is present.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageInfo {
    /// Its id: what containers are created from.
    pub id: String,
    /// References by tag.
    pub tags: Vec<String>,
    /// References by digest.
    pub digests: Vec<String>,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// The user it runs as, if the image says so: a number or a name.
    pub user: Option<String>,
}

impl ImageInfo {
    /// What `imageID` of a container status shows: a digest reference if there is one.
    pub fn reference(&self) -> &str {
        self.digests.first().map_or(&self.id, |digest| digest)
    }
}

/// Credentials for a registry.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RegistryAuth {
    /// The registry that they are for, as `.dockerconfigjson` names it.
    pub registry: String,
    /// User name.
    pub username: String,
    /// Password or token.
    pub password: String,
    /// An OAuth identity token instead of a password.
    pub identity_token: String,
}

impl std::fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryAuth").field("registry", &self.registry).finish_non_exhaustive()
    }
}

/// A wish for an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImagePull {
    /// The reference.
    pub image: String,
    /// Credentials to try, best match first; none is an anonymous pull.
    pub auth: Vec<RegistryAuth>,
    /// The runtime handler that will run it; empty is the default one.
    pub runtime_handler: String,
    /// Whether the container has no command of its own, so that the image must bring one. Of
    /// interest to runtimes whose images are only names.
    pub needs_entry_point: bool,
}
