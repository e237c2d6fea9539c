//! What the model is made of.

use super::SCHEMA;

/// Group, version and kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersionKind<'a> {
    /// API group; empty for the core group.
    pub group: &'a str,
    /// API version.
    pub version: &'a str,
    /// Kind.
    pub kind: &'a str,
}

/// One definition: an object's, a part of an object's, or a special value's.
#[derive(Debug)]
pub struct Definition {
    /// Full name, for example `io.k8s.api.core.v1.Pod`.
    pub name: &'static str,
    /// What its JSON looks like.
    pub shape: Shape,
    /// Whether it is owned and replaced as a whole.
    pub map_type: MapType,
    /// The kinds that it is the definition of; empty for parts of objects.
    pub kinds: Vec<GroupVersionKind<'static>>,
    /// The fields by name, sorted.
    pub(super) fields: Vec<Field>,
    /// How the name of each begins: numbers are found faster than texts.
    pub(super) beginnings: Vec<u64>,
}

/// The first eight bytes of a name, in the order of names.
fn beginning(name: &str) -> u64 {
    name.bytes()
        .take(8)
        .zip((0..8).rev())
        .fold(0, |all, (byte, at)| all | u64::from(byte) << (8 * at))
}

/// What the JSON of a definition looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Shape {
    /// An object with the definition's fields and no others.
    Struct,
    /// Any object (`RawExtension`, `FieldsV1`, `Patch`).
    Raw,
    /// Any JSON.
    Any,
    /// A JSON schema, or a list of them.
    SchemaOrArray,
    /// A JSON schema, or true or false.
    SchemaOrBool,
    /// A JSON schema, or a list of strings.
    SchemaOrStrings,
    /// A quantity: a string, or a number where an author wrote one.
    Quantity,
    /// An integer or a string.
    IntOrString,
    /// RFC 3339 in seconds.
    Time,
    /// RFC 3339 in microseconds.
    MicroTime,
}

/// One field of a definition.
#[derive(Debug)]
pub struct Field {
    /// Name in JSON.
    pub name: &'static str,
    /// What it holds.
    pub ty: Type,
    /// Whether OpenAPI demands it.
    pub required: bool,
    /// Whether an explicit zero (`0`, `false`, `""`) differs from an absent field.
    pub pointer: bool,
    /// Whether upstream's encoding has the field even where it is empty: an object that is no
    /// pointer in Go, a list or map that is not left out when empty.
    pub present: bool,
    /// Protobuf field number; two where the field is part of an embedded message (the number of
    /// that message, then the field's in it); empty where the field is not in protobuf.
    pub path: Vec<u32>,
    /// Whether protobuf wraps the list (or each list of the map) in a message of its own.
    pub wrapped: bool,
    /// How a list merges under server-side apply.
    pub list: ListType,
    /// Whether the schema says of the list that it is atomic; one of which it says nothing is too.
    pub atomic_list: bool,
    /// How a map or an object merges under server-side apply, where the field says so.
    pub map: Option<MapType>,
    /// How the field merges under a strategic merge patch.
    pub patch: PatchStrategy,
    /// The value that the API server fills in, where it is part of a list's key.
    pub default: Option<&'static str>,
}

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Type {
    /// A string.
    String,
    /// Bytes, in JSON as base64.
    Bytes,
    /// True or false.
    Boolean,
    /// A 32-bit integer.
    Int32,
    /// A 64-bit integer.
    Int64,
    /// A floating point number.
    Double,
    /// A free-form object.
    Object,
    /// A list.
    Array(Box<Type>),
    /// A map from strings.
    Map(Box<Type>),
    /// Another definition.
    Reference(Reference),
}

/// A reference to a definition, valid for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference(pub(super) u16);

/// How a list merges under server-side apply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// It is one value, owned as a whole.
    #[default]
    Atomic,
    /// Its scalar elements are owned one by one.
    Set,
    /// Its objects are owned one by one, told apart by these fields.
    Map(Vec<&'static str>),
}

/// How a map or an object merges under server-side apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MapType {
    /// Each entry is owned on its own.
    #[default]
    Granular,
    /// It is one value, owned as a whole.
    Atomic,
}

/// How a field merges under a strategic merge patch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    /// Lists merge element by element.
    pub merge: bool,
    /// The value is replaced, even where it is an object.
    pub replace: bool,
    /// Clients send `$retainKeys` with it.
    pub retain_keys: bool,
    /// The field that tells the elements of a list apart; none for lists of scalars.
    pub key: Option<&'static str>,
}

impl Reference {
    /// The definition.
    pub fn definition(self) -> &'static Definition {
        &SCHEMA.definitions[usize::from(self.0)]
    }
}

impl Definition {
    /// The field of that name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        let begins = beginning(name);
        let from = self.beginnings.partition_point(|other| *other < begins);
        let alike = self.beginnings[from..].iter().take_while(|other| **other == begins).count();
        self.fields[from..from + alike].iter().find(|field| field.name == name)
    }

    /// What finds fields, once all are there.
    pub(super) fn sort_fields(&mut self) {
        self.fields.sort_by_key(|field| field.name);
        self.beginnings = self.fields.iter().map(|field| beginning(field.name)).collect();
    }

    /// The fields, by name.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The name without its package, for example `Pod`.
    pub fn short_name(&self) -> &'static str {
        self.name.rsplit_once('.').map_or(self.name, |(_, short)| short)
    }

    /// The name as Go prints it in messages: last part of the package and name, `v1.Pod`.
    pub fn go_name(&self) -> &'static str {
        let mut dots = self.name.rmatch_indices('.').map(|(at, _)| at);
        dots.nth(1).map_or(self.name, |at| &self.name[at + 1..])
    }
}

impl Type {
    /// The definition that this type refers to directly.
    pub fn definition(&self) -> Option<&'static Definition> {
        match self {
            Self::Reference(reference) => Some(reference.definition()),
            _ => None,
        }
    }

    /// The definition of this type, or of its elements.
    pub fn innermost(&self) -> Option<&'static Definition> {
        match self {
            Self::Array(item) | Self::Map(item) => item.innermost(),
            other => other.definition(),
        }
    }

    /// The type's name as Go prints it in messages.
    pub fn go_name(&self) -> String {
        match self {
            Self::String => "string".into(),
            Self::Bytes => "[]uint8".into(),
            Self::Boolean => "bool".into(),
            Self::Int32 => "int32".into(),
            Self::Int64 => "int64".into(),
            Self::Double => "float64".into(),
            Self::Object => "map[string]interface {}".into(),
            Self::Array(item) => format!("[]{}", item.go_name()),
            Self::Map(item) => format!("map[string]{}", item.go_name()),
            Self::Reference(reference) => reference.definition().go_name().into(),
        }
    }
}
