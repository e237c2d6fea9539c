//! What is asked for: the X.509 request, and whether it suits its signer.

use std::collections::BTreeSet;

use x509_parser::{
    certification_request::X509CertificationRequest,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
};

use super::{API_CLIENT, KUBELET_CLIENT, KUBELET_SERVING};

const NODES: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";
const DIGITAL_SIGNATURE: &str = "digital signature";
const KEY_ENCIPHERMENT: &str = "key encipherment";
const CLIENT_AUTH: &str = "client auth";
const SERVER_AUTH: &str = "server auth";

/// Whom a request names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) common_name: String,
    organizations: Vec<String>,
    dns: usize,
    addresses: usize,
    emails: usize,
    uris: usize,
}

impl Subject {
    /// Reads a request in PEM.
    pub(super) fn read(pem: &[u8]) -> Result<Self, String> {
        let parsed = x509_parser::pem::parse_x509_pem(pem).ok();
        let pem = parsed.map(|(_, pem)| pem).filter(|pem| pem.label == "CERTIFICATE REQUEST");
        let pem = pem.ok_or("PEM block type must be CERTIFICATE REQUEST")?;
        let (_, request) = X509CertificationRequest::from_der(&pem.contents)
            .map_err(|error| format!("x509: malformed certificate request: {error}"))?;
        let name = &request.certification_request_info.subject;
        let mut subject = Self::default();
        // Of several common names the last one counts, as Go has it.
        for part in name.iter_common_name() {
            subject.common_name = part.as_str().unwrap_or_default().to_owned();
        }
        for part in name.iter_organization() {
            subject.organizations.push(part.as_str().unwrap_or_default().to_owned());
        }
        for extension in request.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                names.general_names.iter().for_each(|name| subject.count(name));
            }
        }
        Ok(subject)
    }

    fn count(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(_) => self.dns += 1,
            GeneralName::IPAddress(_) => self.addresses += 1,
            GeneralName::RFC822Name(_) => self.emails += 1,
            GeneralName::URI(_) => self.uris += 1,
            _ => {}
        }
    }

    fn is_of_nodes(&self) -> bool {
        self.organizations == [NODES]
    }

    fn is_node(&self) -> bool {
        self.common_name.starts_with(NODE_PREFIX)
    }
}

/// Whether a request suits its signer.
///
/// # Errors
/// Why it does not, as upstream says it.
pub(super) fn suits(signer: &str, subject: &Subject, usages: &[String]) -> Result<(), String> {
    match signer {
        KUBELET_CLIENT => kubelet_client(subject, usages),
        KUBELET_SERVING => kubelet_serving(subject, usages),
        API_CLIENT => api_client(usages),
        // Whoever approved it knows what it is good for.
        _ => Ok(()),
    }
}

fn kubelet_client(subject: &Subject, usages: &[String]) -> Result<(), String> {
    if !subject.is_of_nodes() {
        return Err("subject organization is not system:nodes".to_owned());
    }
    let not_allowed = [
        ("DNS", subject.dns),
        ("Email", subject.emails),
        ("IP", subject.addresses),
        ("URI", subject.uris),
    ];
    if let Some((kind, _)) = not_allowed.iter().find(|(_, count)| *count > 0) {
        return Err(format!("{kind} subjectAltNames are not allowed"));
    }
    if !subject.is_node() {
        return Err("subject common name does not begin with system:node:".to_owned());
    }
    exactly(usages, CLIENT_AUTH)
}

fn kubelet_serving(subject: &Subject, usages: &[String]) -> Result<(), String> {
    if !subject.is_of_nodes() {
        return Err("subject organization is not system:nodes".to_owned());
    }
    if subject.dns + subject.addresses == 0 {
        return Err("DNS or IP subjectAltName is required".to_owned());
    }
    if subject.emails > 0 {
        return Err("Email subjectAltNames are not allowed".to_owned());
    }
    if subject.uris > 0 {
        return Err("URI subjectAltNames are not allowed".to_owned());
    }
    exactly(usages, SERVER_AUTH)?;
    if !subject.is_node() {
        return Err("subject common name does not begin with system:node:".to_owned());
    }
    Ok(())
}

/// The usages of a node agent's certificate: key encipherment is for RSA and may be left out.
fn exactly(usages: &[String], purpose: &str) -> Result<(), String> {
    let given: BTreeSet<&str> = usages.iter().map(String::as_str).collect();
    let wanted = BTreeSet::from([purpose, DIGITAL_SIGNATURE, KEY_ENCIPHERMENT]);
    let without = BTreeSet::from([purpose, DIGITAL_SIGNATURE]);
    if given == wanted || given == without {
        return Ok(());
    }
    let wanted: Vec<&str> = wanted.into_iter().collect();
    Err(format!("usages did not match [{}]", wanted.join(" ")))
}

fn api_client(usages: &[String]) -> Result<(), String> {
    let optional = [CLIENT_AUTH, DIGITAL_SIGNATURE, KEY_ENCIPHERMENT];
    if let Some(other) = usages.iter().find(|usage| !optional.contains(&usage.as_str())) {
        return Err(format!("invalid usage for client certificate: {other}"));
    }
    if !usages.iter().any(|usage| usage == CLIENT_AUTH) {
        return Err(format!("missing required usage for client certificate: {CLIENT_AUTH}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Subject {
        Subject {
            common_name: "system:node:a".into(),
            organizations: vec![NODES.into()],
            ..Subject::default()
        }
    }

    fn check(signer: &str, subject: &Subject, usages: &[&str], expected: Result<(), &str>) {
        let usages: Vec<String> = usages.iter().map(|usage| (*usage).to_owned()).collect();
        let found = suits(signer, subject, &usages);
        assert_eq!(found, expected.map_err(str::to_owned), "{signer} {subject:?} {usages:?}");
    }

    #[test]
    fn clients_of_node_agents_are_nodes_without_other_names() {
        let usages = [CLIENT_AUTH, DIGITAL_SIGNATURE];
        check(KUBELET_CLIENT, &node(), &usages, Ok(()));
        check(KUBELET_CLIENT, &node(), &[KEY_ENCIPHERMENT, usages[0], usages[1]], Ok(()));
        let other = Err("usages did not match [client auth digital signature key encipherment]");
        check(KUBELET_CLIENT, &node(), &[SERVER_AUTH], other);
        let named = Subject { dns: 1, ..node() };
        check(KUBELET_CLIENT, &named, &usages, Err("DNS subjectAltNames are not allowed"));
        let named = Subject { addresses: 1, ..node() };
        check(KUBELET_CLIENT, &named, &usages, Err("IP subjectAltNames are not allowed"));
        let nobody = Subject { common_name: "a".into(), ..node() };
        let expected = Err("subject common name does not begin with system:node:");
        check(KUBELET_CLIENT, &nobody, &usages, expected);
        let more = Subject { organizations: vec![NODES.into(), "a".into()], ..node() };
        check(KUBELET_CLIENT, &more, &usages, Err("subject organization is not system:nodes"));
    }

    #[test]
    fn servers_of_node_agents_have_a_name_or_an_address() {
        let usages = [SERVER_AUTH, DIGITAL_SIGNATURE, KEY_ENCIPHERMENT];
        check(KUBELET_SERVING, &node(), &usages, Err("DNS or IP subjectAltName is required"));
        let named = || Subject { dns: 1, ..node() };
        check(KUBELET_SERVING, &named(), &usages, Ok(()));
        let other = Err("usages did not match [digital signature key encipherment server auth]");
        check(KUBELET_SERVING, &named(), &[CLIENT_AUTH], other);
        let mailed = Subject { emails: 1, ..named() };
        check(KUBELET_SERVING, &mailed, &usages, Err("Email subjectAltNames are not allowed"));
    }

    #[test]
    fn clients_of_the_api_are_clients_and_nothing_else() {
        let anybody = Subject::default();
        check(API_CLIENT, &anybody, &[CLIENT_AUTH], Ok(()));
        let missing = Err("missing required usage for client certificate: client auth");
        check(API_CLIENT, &anybody, &[DIGITAL_SIGNATURE], missing);
        let invalid = Err("invalid usage for client certificate: server auth");
        check(API_CLIENT, &anybody, &[CLIENT_AUTH, SERVER_AUTH], invalid);
        check(super::super::LEGACY_UNKNOWN, &anybody, &["any"], Ok(()));
    }
}
