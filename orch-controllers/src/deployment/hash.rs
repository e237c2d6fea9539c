//! The label that tells the versions of a template apart.

use k8s_openapi::api::core::v1::PodTemplateSpec;

/// A short hash of a template, made of letters that a name may have. Stable: it depends on the
/// template's encoding alone. `collisions` leads to another hash when a name is taken.
///
/// Source: `ComputeHash` of `k8s.io/kubernetes/pkg/controller/controller_utils.go` and
/// `SafeEncodeString` of `k8s.io/apimachinery/pkg/util/rand`.
/// Differs: hashes the JSON encoding instead of Go's dump of the struct, so that the values are
/// others than upstream's. An existing replica set is found by its template, never by its hash.
pub(crate) fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let mut hash = Fnv32::default();
    hash.write(&serde_json::to_vec(template).unwrap_or_default());
    if let Some(collisions) = collisions {
        hash.write(&collisions.to_le_bytes());
    }
    safe_encode(&hash.0.to_string())
}

/// Without vowels, so that no words come about.
pub(crate) fn safe_encode(text: &str) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    text.bytes().map(|byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()])).collect()
}

/// FNV-1a with 32 bits.
struct Fnv32(u32);

impl Default for Fnv32 {
    fn default() -> Self {
        Self(0x811c_9dc5)
    }
}

impl Fnv32 {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_stable_and_safe() {
        let mut fnv = Fnv32::default();
        fnv.write(b"foobar");
        assert_eq!(fnv.0, 0xbf9c_f968);
        assert_eq!(safe_encode("2847953"), "6d8cf97");
        let template = PodTemplateSpec::default();
        assert_eq!(template_hash(&template, None), template_hash(&template, None));
        assert_ne!(template_hash(&template, None), template_hash(&template, Some(1)));
    }
}
