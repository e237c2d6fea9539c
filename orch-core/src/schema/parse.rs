//! Reads the schema's text. The text is part of the crate, so a mistake in it is a broken
//! invariant: parsing panics, and the tests read every line.

use std::collections::HashMap;

use super::types::{
    Definition, Field, GroupVersionKind, ListType, MapType, PatchStrategy, Reference, Shape, Type,
};

/// Definitions in order of their names.
///
/// # Panics
/// On a line that does not follow the format that the text's header states.
pub(super) fn parse(text: &'static str) -> Vec<Definition> {
    let names = names(text);
    let mut definitions: Vec<Definition> = Vec::with_capacity(names.len());
    let mut package = "";
    for line in lines(text) {
        if let Some(name) = line.strip_prefix("package ") {
            package = name;
        } else if let Some(line) = line.strip_prefix("  ") {
            let owner = definitions.last_mut().expect("a field follows its definition");
            owner.fields.push(field(line, package, &names));
        } else {
            let name = line.split(' ').next().unwrap_or_default();
            let (full, _) = names[&(package, name)];
            definitions.push(head(full, line));
        }
    }
    for definition in &mut definitions {
        definition.sort_fields();
    }
    definitions
}

fn lines(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Every definition's position by package and short name, and its full name.
///
/// Full names are put together once and live as long as the process, as the text does.
type Names = HashMap<(&'static str, &'static str), (&'static str, u16)>;

fn names(text: &'static str) -> Names {
    let (mut names, mut package) = (HashMap::new(), "");
    for line in lines(text) {
        if let Some(name) = line.strip_prefix("package ") {
            package = name;
        } else if !line.starts_with(' ') {
            let name = line.split(' ').next().unwrap_or_default();
            let at = u16::try_from(names.len()).expect("fewer than 65,536 definitions");
            let full: &'static str = format!("{package}.{name}").leak();
            names.insert((package, name), (full, at));
        }
    }
    names
}

fn head(name: &'static str, line: &'static str) -> Definition {
    let mut definition = Definition {
        name,
        shape: Shape::Struct,
        map_type: MapType::Granular,
        kinds: Vec::new(),
        fields: Vec::new(),
        beginnings: Vec::new(),
    };
    for word in line.split(' ').skip(1) {
        match word.split_once('=') {
            Some(("", shape)) => definition.shape = self::shape(shape),
            Some(("map", map)) => definition.map_type = map_type(map),
            Some(("gvk", gvk)) => definition.kinds.push(kind(gvk)),
            _ => panic!("unknown word in the schema: {word}"),
        }
    }
    definition
}

fn shape(word: &str) -> Shape {
    match word {
        "empty" => Shape::Struct,
        "any" => Shape::Any,
        "raw" => Shape::Raw,
        "quantity" => Shape::Quantity,
        "time" => Shape::Time,
        "microtime" => Shape::MicroTime,
        "int-or-string" => Shape::IntOrString,
        "schema-or-array" => Shape::SchemaOrArray,
        "schema-or-bool" => Shape::SchemaOrBool,
        "schema-or-strings" => Shape::SchemaOrStrings,
        _ => panic!("unknown shape in the schema: {word}"),
    }
}

fn map_type(word: &str) -> MapType {
    match word {
        "atomic" => MapType::Atomic,
        "granular" => MapType::Granular,
        _ => panic!("unknown map type in the schema: {word}"),
    }
}

fn kind(word: &'static str) -> GroupVersionKind<'static> {
    let (api_version, kind) = word.rsplit_once('/').expect("a kind follows its version");
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    GroupVersionKind { group, version, kind }
}

fn field(line: &'static str, package: &'static str, names: &Names) -> Field {
    let mut words = line.split(' ');
    let (name, ty) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut field = Field {
        name,
        ty: field_type(ty, package, names),
        required: false,
        pointer: false,
        present: false,
        path: Vec::new(),
        wrapped: false,
        list: ListType::Atomic,
        atomic_list: false,
        map: None,
        patch: PatchStrategy::default(),
        default: None,
    };
    for word in words {
        match word.split_once('=') {
            None if word == "required" => field.required = true,
            None if word == "pointer" => field.pointer = true,
            None if word == "present" => field.present = true,
            None if word == "wrapped" => field.wrapped = true,
            None => field.path = numbers(word),
            Some(("list", list)) => {
                field.list = list_type(list);
                field.atomic_list = field.list == ListType::Atomic;
            }
            Some(("map", map)) => field.map = Some(map_type(map)),
            Some(("patch", patch)) => field.patch = strategy(patch),
            Some(("default", value)) => field.default = Some(value),
            Some(_) => panic!("unknown flag in the schema: {word}"),
        }
    }
    field
}

fn numbers(word: &str) -> Vec<u32> {
    let path = word.strip_prefix('#').unwrap_or_else(|| panic!("unknown flag: {word}"));
    path.split('.').map(|number| number.parse().expect("a field number")).collect()
}

fn list_type(word: &'static str) -> ListType {
    match word.split_once(':') {
        Some(("map", keys)) => ListType::Map(keys.split(',').collect()),
        None if word == "set" => ListType::Set,
        None if word == "atomic" => ListType::Atomic,
        _ => panic!("unknown list type in the schema: {word}"),
    }
}

fn strategy(word: &'static str) -> PatchStrategy {
    let (strategies, key) = match word.split_once(':') {
        Some((strategies, key)) => (strategies, Some(key)),
        None => (word, None),
    };
    let has = |name| strategies.split(',').any(|strategy| strategy == name);
    PatchStrategy {
        merge: has("merge"),
        replace: has("replace"),
        retain_keys: has("retainKeys"),
        key,
    }
}

fn field_type(word: &'static str, package: &'static str, names: &Names) -> Type {
    if let Some(item) = word.strip_prefix("[]") {
        return Type::Array(Box::new(field_type(item, package, names)));
    }
    if let Some(item) = word.strip_prefix("{}") {
        return Type::Map(Box::new(field_type(item, package, names)));
    }
    match word {
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "bool" => Type::Boolean,
        "int32" => Type::Int32,
        "int64" => Type::Int64,
        "double" => Type::Double,
        "object" => Type::Object,
        name => {
            let found = match name.rsplit_once('.') {
                Some(full) => names.get(&full),
                None => names.get(&(package, name)),
            };
            let (_, at) = found.unwrap_or_else(|| panic!("no definition {name} in {package}"));
            Type::Reference(Reference(*at))
        }
    }
}
