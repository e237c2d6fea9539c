//! The file that tells `kubectl` where the API is and who its user is.

use std::{fs, io, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{Credentials, private_file};

/// What a kubeconfig says: one cluster, one user, one context.
#[derive(Clone, Copy, Debug)]
pub struct KubeconfigEntry<'a> {
    /// The name of the cluster and of the context.
    pub cluster: &'a str,
    /// The name of the user's entry.
    pub user: &'a str,
    /// The API server's URL, for example `https://127.0.0.1:6443`.
    pub server: &'a str,
    /// The certificate authority that signed the server's certificate, in PEM.
    pub ca_pem: &'a str,
    /// The user's certificate and key.
    pub credentials: &'a Credentials,
}

/// The text of a kubeconfig whose certificates are embedded, so that the file can be moved.
pub fn kubeconfig(entry: &KubeconfigEntry<'_>) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let (cluster, user) = (quoted(entry.cluster), quoted(entry.user));
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - name: {cluster}\n\
        \x20 cluster:\n\
        \x20   server: {server}\n\
        \x20   certificate-authority-data: {ca}\n\
         users:\n\
         - name: {user}\n\
        \x20 user:\n\
        \x20   client-certificate-data: {certificate}\n\
        \x20   client-key-data: {key}\n\
         contexts:\n\
         - name: {cluster}\n\
        \x20 context:\n\
        \x20   cluster: {cluster}\n\
        \x20   user: {user}\n\
         current-context: {cluster}\n",
        server = quoted(entry.server),
        ca = STANDARD.encode(entry.ca_pem),
        certificate = STANDARD.encode(&entry.credentials.certificate_pem),
        key = STANDARD.encode(&entry.credentials.key_pem),
    )
}

/// Writes a kubeconfig atomically, readable by its owner only. Folders on the way are created.
///
/// # Errors
/// What the file system says.
pub fn write_kubeconfig(path: &Path, entry: &KubeconfigEntry<'_>) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder)?;
    }
    private_file::write(path, kubeconfig(entry).as_bytes())
}
